//! Requests as bytes, for what no HTTP client would agree to send.

use assent::phone::http::Answer;
use serde_json::Value;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

pub const FORM: &str = "application/x-www-form-urlencoded";

/// One request, sent exactly as it stands here; only `Host`, `Connection` and `Content-Length` are added.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    pub target: String,
    pub headers: Vec<(String, Vec<u8>)>,
    pub body: Vec<u8>,
}

impl Request {
    pub fn new(method: &str, target: &str) -> Self {
        Self {
            method: method.into(),
            target: target.into(),
            headers: vec![],
            body: vec![],
        }
    }

    pub fn form(target: &str, body: impl AsRef<[u8]>) -> Self {
        Self::new("POST", target)
            .with("content-type", FORM)
            .body(body)
    }

    /// Adds a header, also when it is there already.
    pub fn with(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers.push((name.into(), value.as_ref().to_vec()));
        self
    }

    pub fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(found, _)| found != name);
        self
    }

    pub fn body(mut self, body: impl AsRef<[u8]>) -> Self {
        self.body = body.as_ref().to_vec();
        self
    }

    pub fn names(&self, header: &str) -> bool {
        self.headers.iter().any(|(name, _)| name == header)
    }

    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = format!(
            "{} {} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {}\r\n",
            self.method,
            self.target,
            self.body.len()
        )
        .into_bytes();
        for (name, value) in &self.headers {
            bytes.extend_from_slice(name.as_bytes());
            bytes.extend_from_slice(b": ");
            bytes.extend_from_slice(value);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(&self.body);
        bytes
    }

    /// What the sender would not like to read again in an answer: every value of some length.
    pub fn values(&self) -> Vec<String> {
        let body = String::from_utf8_lossy(&self.body);
        let mut values: Vec<String> = match serde_json::from_str(&body) {
            Ok(json) => leaves(&json),
            Err(_) => url::form_urlencoded::parse(&self.body)
                .map(|(_, value)| value.into_owned())
                .collect(),
        };
        for (name, value) in &self.headers {
            let value = String::from_utf8_lossy(value);
            if name != "content-type" {
                let secret = value.split_once(' ').map_or(&*value, |(_, secret)| secret);
                values.push(secret.to_owned());
            }
        }
        let parts = self.target.split(['/', '?']);
        values.extend(parts.filter(|part| part.len() >= 16).map(str::to_owned));
        let harmless = [crate::support::CIBA_GRANT, "DeviceProof"];
        values.retain(|value| value.len() >= 8 && !harmless.contains(&value.as_str()));
        values
    }

    pub async fn send(&self, address: &str) -> Answer {
        let bytes = exchange(address, &self.to_bytes()).await;
        parse(&bytes).unwrap_or_else(|| {
            let said = String::from_utf8_lossy(&bytes);
            panic!("{} {}: no answer but {said:?}", self.method, self.target)
        })
    }
}

/// Every string in a JSON value.
fn leaves(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => vec![text.clone()],
        Value::Array(values) => values.iter().flat_map(leaves).collect(),
        Value::Object(members) => members.values().flat_map(leaves).collect(),
        _ => vec![],
    }
}

/// Sends bytes and reads until the server closes, or has said nothing for a long time.
pub async fn exchange(address: &str, bytes: &[u8]) -> Vec<u8> {
    let (mut reader, mut writer) = TcpStream::connect(address).await.unwrap().into_split();
    let mut answer = Vec::new();
    let read = async {
        let mut chunk = [0; 16 * 1024];
        let patience = Duration::from_secs(20);
        while let Ok(Ok(n @ 1..)) = tokio::time::timeout(patience, reader.read(&mut chunk)).await {
            answer.extend_from_slice(&chunk[..n]);
        }
    };
    // A server may answer and close before it has read everything.
    let write = async {
        let _ = writer.write_all(bytes).await;
    };
    tokio::join!(read, write);
    answer
}

/// The first answer in `bytes` that is not interim; `None` when there is none.
pub fn parse(bytes: &[u8]) -> Option<Answer> {
    let at = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&bytes[..at]).ok()?;
    let rest = &bytes[at + 4..];
    let mut lines = head.split("\r\n");
    let status: u16 = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    if status < 200 {
        return parse(rest);
    }
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let length = headers
        .iter()
        .find(|(name, _)| name == "content-length")
        .and_then(|(_, length)| length.parse().ok())
        .unwrap_or(rest.len());
    let body = String::from_utf8(rest.get(..length.min(rest.len()))?.to_vec()).ok()?;
    Some(Answer {
        status,
        headers,
        body,
    })
}
