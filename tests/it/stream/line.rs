//! A phone's stream, frame by frame.

use crate::support::TestApp;
use assent::phone::Phone;
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

pub const PATH: &str = "/device/v1/stream";
/// After this a test gives up.
const PATIENCE: Duration = Duration::from_secs(20);

pub struct Line(pub WebSocketStream<TcpStream>);

impl Line {
    /// A connection to this node, with nothing said yet.
    pub async fn open(app: &TestApp) -> Self {
        let url = format!("ws://{}{PATH}", app.address());
        let stream = TcpStream::connect(app.address()).await.unwrap();
        // Large messages leave whole.
        let config = WebSocketConfig::default();
        let opened = client_async_with_config(url, stream, Some(config)).await;
        Self(opened.unwrap().0)
    }

    /// A stream of this phone at this node, after its first message.
    pub async fn of(app: &TestApp, phone: &Phone) -> (Self, Value) {
        let mut line = Self::open(app).await;
        line.prove(phone, PATH).await;
        let ready = line.next().await;
        (line, ready)
    }

    pub async fn prove(&mut self, phone: &Phone, path: &str) {
        let claims = phone.proof_claims("GET", path, b"");
        self.say(json!({ "proof": phone.sign("device-proof+jwt", &claims) }))
            .await;
    }

    pub async fn say(&mut self, message: Value) {
        self.send(Message::text(message.to_string())).await;
    }

    pub async fn send(&mut self, message: Message) {
        self.0.send(message).await.unwrap();
    }

    /// The next message; `{"closed": code}` for the end, with `null` when the connection ended without a word.
    pub async fn next(&mut self) -> Value {
        loop {
            let message = timeout(PATIENCE, self.0.next()).await;
            match message.expect("the server says something in time") {
                Some(Ok(Message::Text(text))) => return serde_json::from_str(&text).unwrap(),
                Some(Ok(Message::Close(frame))) => {
                    let code = frame.map(|frame| u16::from(frame.code));
                    return json!({ "closed": code });
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return json!({ "closed": null }),
            }
        }
    }

    /// The stream ends with this problem and this code.
    pub async fn ends_with(mut self, problem: &str, code: u16) -> Value {
        let told = self.next().await;
        assert_eq!(told["type"], "problem", "{told}");
        assert_eq!(told["problem"]["code"], problem, "{told}");
        self.closes_with(code).await;
        told["problem"].clone()
    }

    pub async fn closes_with(&mut self, code: u16) {
        assert_eq!(self.next().await, json!({ "closed": code }));
    }

    /// The server ends the connection, not only the conversation.
    pub async fn falls_silent(mut self) {
        let rest = timeout(PATIENCE, self.0.next()).await;
        let rest = rest.expect("the connection ends");
        assert!(!matches!(rest, Some(Ok(_))), "{rest:?}");
    }
}
