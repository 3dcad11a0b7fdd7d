//! The phone's end of its stream: it hears at once what waits.

use super::http::TransportError;
use super::{Phone, PhoneError, Waiting};
use crate::domain::RequestId;
use futures_util::{SinkExt as _, StreamExt as _};
use serde::Deserialize;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

const PATH: &str = "/device/v1/stream";
/// How long the server may take to take the phone in.
const OPEN_WITHIN: Duration = Duration::from_secs(10);
/// The server pings more often than this; else the connection is dead.
const SILENCE: Duration = Duration::from_secs(60);

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// What a phone is told.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum News {
    /// All that waits; the first message.
    Ready { requests: Vec<Waiting> },
    /// One more waits.
    Request(Waiting),
    /// It waits no more.
    Resolved { id: RequestId },
    /// Why the stream ends.
    Problem { problem: Value },
}

/// An open stream.
pub struct PhoneStream {
    socket: Socket,
    /// Everything that waited when it was opened, until that is taken.
    ready: Option<News>,
}

impl Phone {
    /// Opens a stream and proves who asks; a phone with a wrong clock tries again with the server's nonce.
    pub async fn stream(&self) -> Result<PhoneStream, PhoneError> {
        let mut claims = self.proof_claims("GET", PATH, b"");
        match self.open_stream(&claims).await? {
            (_, News::Problem { problem }) if problem["nonce"].is_string() => {
                claims["nonce"] = problem["nonce"].clone();
                claims["jti"] = self.fresh_id().into();
                ready(self.open_stream(&claims).await?)
            }
            opened => ready(opened),
        }
    }

    /// A connection with the server's first answer.
    async fn open_stream(&self, claims: &Value) -> Result<(Socket, News), PhoneError> {
        // http becomes ws, and https wss.
        let url = format!("{}{PATH}", self.issuer.replacen("http", "ws", 1));
        let proof = json!({ "proof": self.sign("device-proof+jwt", claims) });
        let open = async {
            let (mut socket, _) = connect_async(url).await.map_err(failed)?;
            let proof = Message::text(proof.to_string());
            socket.send(proof).await.map_err(failed)?;
            let news = next(&mut socket).await?;
            Ok((socket, news))
        };
        timeout(OPEN_WITHIN, open).await.map_err(|_| silent())?
    }
}

/// A stream, if the server has taken the phone in.
fn ready((socket, first): (Socket, News)) -> Result<PhoneStream, PhoneError> {
    match first {
        News::Ready { .. } => Ok(PhoneStream {
            socket,
            ready: Some(first),
        }),
        News::Problem { problem } => Err(refused(&problem)),
        _ => Err(PhoneError::Answer("a stream begins with all that waits")),
    }
}

impl PhoneStream {
    /// The next news, first of all what waited already.
    ///
    /// # Errors
    /// The stream has ended, and with it what is known of the inbox: open another.
    pub async fn next(&mut self) -> Result<News, PhoneError> {
        if let Some(ready) = self.ready.take() {
            return Ok(ready);
        }
        match next(&mut self.socket).await? {
            News::Problem { problem } => Err(refused(&problem)),
            news => Ok(news),
        }
    }
}

async fn next(socket: &mut Socket) -> Result<News, PhoneError> {
    loop {
        let message = timeout(SILENCE, socket.next()).await;
        match message.map_err(|_| silent())? {
            Some(Ok(Message::Text(text))) => {
                return serde_json::from_str(&text)
                    .map_err(|_| PhoneError::Answer("a message that no phone can read"));
            }
            Some(Ok(Message::Close(_))) | None => {
                return Err(TransportError("the stream ended".into()).into());
            }
            // Pings are answered by the library.
            Some(Ok(_)) => {}
            Some(Err(error)) => return Err(failed(error)),
        }
    }
}

fn refused(problem: &Value) -> PhoneError {
    let status = problem["status"].as_u64();
    let status = status.and_then(|status| u16::try_from(status).ok());
    super::refused(status.unwrap_or_default(), problem)
}

fn failed(error: tungstenite::Error) -> PhoneError {
    TransportError(error.to_string()).into()
}

fn silent() -> PhoneError {
    TransportError("nothing was heard of the server in time".into()).into()
}
