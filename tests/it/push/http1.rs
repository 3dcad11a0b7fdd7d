//! The least of an HTTP/1.1 server that a gateway of a test needs: one request a connection.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

pub struct Request {
    pub path: String,
    head: String,
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

/// Answers and hangs up.
pub async fn answer(mut stream: TcpStream, status: u16, retry_after: Option<&str>, body: &str) {
    let retry_after = retry_after.map_or_else(String::new, |it| format!("retry-after: {it}\r\n"));
    let length = body.len();
    let answer = format!(
        "HTTP/1.1 {status} Whatever\r\ncontent-type: application/json\r\n{retry_after}\
         content-length: {length}\r\nconnection: close\r\n\r\n{body}"
    );
    let _ = stream.write_all(answer.as_bytes()).await;
}
