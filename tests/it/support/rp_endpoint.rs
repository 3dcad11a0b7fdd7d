//! A relying party's notification endpoint: real HTTP on loopback, with the answers a test gives it.

use super::listener::accept;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// What the endpoint does with the next notification.
#[derive(Clone, Copy, Debug)]
pub enum Reply {
    Status(u16),
    /// Sends the client elsewhere, which it must not follow.
    Redirect,
    /// Hangs up without an answer.
    Reset,
    /// Says nothing, for ever.
    Hang,
}

/// One notification as it arrived.
#[derive(Clone, Debug)]
pub struct Notification {
    pub authorization: String,
    pub content_type: String,
    pub body: String,
    head: String,
}

impl Notification {
    /// A header's value; empty when it is not there.
    pub fn header(&self, name: &str) -> String {
        header(&self.head, name)
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

/// The endpoint; it goes away with the test.
pub struct RpEndpoint {
    pub url: String,
    received: Arc<Mutex<Vec<Notification>>>,
    /// What is served instead of the replies.
    document: Arc<Mutex<Option<String>>>,
    _server: JoinSet<()>,
}

impl RpEndpoint {
    /// Answers as `replies` say, in order, and 204 when they are used up.
    pub async fn new(replies: &[Reply]) -> Self {
        Self::start(replies, None).await
    }

    /// Serves a document, such as a key set.
    pub async fn serving(document: &str) -> Self {
        Self::start(&[], Some(document.to_owned())).await
    }

    async fn start(replies: &[Reply], document: Option<String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/notify", listener.local_addr().unwrap());
        let received = Arc::new(Mutex::new(Vec::new()));
        let replies: Vec<_> = replies.iter().rev().copied().collect();
        let replies = Arc::new(Mutex::new(replies));
        let document = Arc::new(Mutex::new(document));
        let (seen, served) = (received.clone(), document.clone());
        let server = accept(listener, move |stream, _| {
            serve(stream, seen.clone(), replies.clone(), served.clone())
        });
        Self {
            url,
            received,
            document,
            _server: server,
        }
    }

    /// Serves another document from now on.
    pub fn serve(&self, document: &str) {
        *self.document.lock().unwrap() = Some(document.to_owned());
    }

    pub fn received(&self) -> Vec<Notification> {
        self.received.lock().unwrap().clone()
    }
}

async fn serve(
    mut stream: TcpStream,
    received: Arc<Mutex<Vec<Notification>>>,
    replies: Arc<Mutex<Vec<Reply>>>,
    document: Arc<Mutex<Option<String>>>,
) {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    let (head, body) = loop {
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(n) => bytes.extend_from_slice(&buffer[..n]),
        }
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let length: usize = header(head, "content-length").parse().unwrap_or(0);
        if body.len() >= length {
            break (head.to_owned(), body.to_owned());
        }
    };
    // Before anybody knows that it came: whoever sees it counts on the next reply.
    let document = document.lock().unwrap().clone();
    let reply = match document {
        Some(_) => None,
        None => replies.lock().unwrap().pop(),
    };
    received.lock().unwrap().push(Notification {
        authorization: header(&head, "authorization"),
        content_type: header(&head, "content-type"),
        body,
        head,
    });
    if let Some(document) = document {
        let answer = format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{document}",
            document.len()
        );
        let _ = stream.write_all(answer.as_bytes()).await;
        return;
    }
    let answer = match reply.unwrap_or(Reply::Status(204)) {
        Reply::Status(status) => format!(
            "HTTP/1.1 {status} Whatever\r\ncontent-length: 7\r\nconnection: close\r\n\r\nignored"
        ),
        Reply::Redirect => {
            "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\
             connection: close\r\n\r\n"
                .to_owned()
        }
        Reply::Reset => return,
        Reply::Hang => std::future::pending().await,
    };
    let _ = stream.write_all(answer.as_bytes()).await;
}

fn header(head: &str, name: &str) -> String {
    head.lines()
        .filter_map(|line| line.split_once(": "))
        .find(|(found, _)| found.eq_ignore_ascii_case(name))
        .map_or_else(String::new, |(_, value)| value.to_owned())
}
