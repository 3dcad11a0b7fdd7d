//! The least of an HTTP/1.1 server that a gateway of a test needs: one request a connection.

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

pub struct Request {
    pub path: String,
    /// The first line and all headers.
    pub head: String,
    pub body: Vec<u8>,
}

impl Request {
    /// `None`: the client hung up.
    pub async fn read(stream: &mut TcpStream) -> Option<Self> {
        let mut bytes = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            let read = stream.read(&mut buffer).await.ok()?;
            if read == 0 {
                return None;
            }
            bytes.extend_from_slice(&buffer[..read]);
            let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
                continue;
            };
            let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
            let request = Self {
                path: head.split(' ').nth(1).unwrap().to_owned(),
                head,
                body: bytes[end + 4..].to_vec(),
            };
            let length: usize = request.header("content-length").parse().unwrap_or(0);
            if request.body.len() >= length {
                return Some(request);
            }
        }
    }

    pub fn header(&self, name: &str) -> String {
        self.head
            .lines()
            .filter_map(|line| line.split_once(": "))
            .find(|(found, _)| found.eq_ignore_ascii_case(name))
            .map_or_else(String::new, |(_, value)| value.to_owned())
    }
}

/// How a call is answered.
#[derive(Clone, Debug)]
pub enum Reply {
    /// A status, what stands in `Retry-After`, and a body.
    Say(u16, Option<&'static str>, Value),
    /// Sends the client on, to this very server.
    Redirect(u16),
    /// Says nothing and stays.
    Hang,
    /// A body without end.
    Endless(u16),
    /// Hangs up in the middle of the body.
    Cut(u16),
}

impl Reply {
    pub fn refuse(status: u16, body: Value) -> Self {
        Self::Say(status, None, body)
    }

    /// Answers, and hangs up unless there is no end to it.
    pub async fn send(self, mut stream: TcpStream) {
        let head = |status: u16, more: &str| {
            format!("HTTP/1.1 {status} Whatever\r\n{more}connection: close\r\n\r\n")
        };
        let text = match self {
            Self::Say(status, retry_after, body) => {
                let retry_after =
                    retry_after.map_or_else(String::new, |it| format!("retry-after: {it}\r\n"));
                let body = body.to_string();
                let length = body.len();
                let more = format!(
                    "content-type: application/json\r\n{retry_after}content-length: {length}\r\n"
                );
                head(status, &more) + &body
            }
            Self::Redirect(status) => head(status, "location: /elsewhere\r\ncontent-length: 0\r\n"),
            Self::Cut(status) => head(status, "content-length: 100\r\n") + "{",
            Self::Hang => return std::future::pending().await,
            Self::Endless(status) => {
                let _ = stream.write_all(head(status, "").as_bytes()).await;
                while stream.write_all(&[b' '; 16 * 1024]).await.is_ok() {}
                return;
            }
        };
        let _ = stream.write_all(text.as_bytes()).await;
    }
}
