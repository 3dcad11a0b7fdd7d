//! The relying party's notification endpoint in the demo: takes what it is sent and answers 204.

use serde_json::Value;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// The most that one notification may have, in bytes.
const MAX_LEN: usize = 64 * 1024;

/// A small HTTP server on loopback; it ends when it is dropped.
pub struct Endpoint {
    pub url: String,
    received: Arc<Mutex<Vec<Notification>>>,
    arrivals: watch::Receiver<usize>,
    _server: JoinSet<()>,
}

/// One notification.
#[derive(Clone, Debug)]
pub struct Notification {
    pub authorization: String,
    pub body: Value,
}

impl Endpoint {
    pub async fn listen() -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}/notify", listener.local_addr()?);
        let received = Arc::new(Mutex::new(Vec::new()));
        let (arrived, arrivals) = watch::channel(0);
        let seen = received.clone();
        let mut server = JoinSet::new();
        server.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                if let Some(notification) = receive(stream).await {
                    seen.lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push(notification);
                    arrived.send_modify(|count| *count += 1);
                }
            }
        });
        Ok(Self {
            url,
            received,
            arrivals,
            _server: server,
        })
    }

    /// The nth notification, from 1, as soon as it is there.
    pub async fn nth(&self, n: usize) -> Option<Notification> {
        let mut arrivals = self.arrivals.clone();
        arrivals.wait_for(|count| *count >= n).await.ok()?;
        let received = self.received.lock().unwrap_or_else(PoisonError::into_inner);
        received.get(n - 1).cloned()
    }
}

async fn receive(mut stream: TcpStream) -> Option<Notification> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    let notification = loop {
        let n = stream.read(&mut buffer).await.ok()?;
        bytes.extend_from_slice(&buffer[..n]);
        if n == 0 || bytes.len() > MAX_LEN {
            return None;
        }
        if let Some(notification) = parse(&bytes) {
            break notification;
        }
    };
    let answer = b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n";
    stream.write_all(answer).await.ok()?;
    Some(notification)
}

/// The notification, once all of it is there.
fn parse(bytes: &[u8]) -> Option<Notification> {
    let text = std::str::from_utf8(bytes).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let header = |name: &str| {
        let mut headers = head.lines().filter_map(|line| line.split_once(": "));
        headers
            .find(|(found, _)| found.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    };
    let length: usize = header("content-length")?.parse().ok()?;
    (body.len() >= length).then(|| Notification {
        authorization: header("authorization").unwrap_or_default().to_owned(),
        body: serde_json::from_str(body).unwrap_or_default(),
    })
}
