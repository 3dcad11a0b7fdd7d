//! `GET /device/v1/stream`: a WebSocket (RFC 6455) over which a phone hears at once what waits for it.
//!
//! The phone says `{"proof":"<device-proof+jwt>"}`, for GET, this path and an empty body, and then nothing
//! but pongs. It is told `ready` with all that waits, then each `request` that comes and each that is
//! `resolved`; at the end maybe a `problem` (`tests/golden/stream.json`, docs/errors.md).
//!
//! The conversation is driven by the response's body and not by a task of its own: it ends with its
//! connection, whatever becomes of that (docs/adr/0009).

use super::device_api::InboxEntry;
use super::problem::Problem;
use super::websocket::{self, Unread};
use super::{App, no_route};
use crate::domain::{RequestId, Timestamp, strict_json};
use crate::service::authenticate_device::{AuthenticatedDevice, ProvenRequest};
use crate::service::streams::{Change, Following, StreamPlace};
use actix_web::http::{ConnectionType, StatusCode};
use actix_web::web::{self, Bytes, Payload, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse, ResponseError as _};
use actix_ws::{
    AggregatedMessage, AggregatedMessageStream, CloseCode, CloseReason, ProtocolError, Session,
};
use serde::{Deserialize, Serialize};
use std::io::ErrorKind;
use std::time::Duration;
use tracing::Instrument as _;

/// How long a phone may take to prove itself.
const PROOF_WITHIN: Duration = Duration::from_secs(5);
const PING_EVERY: Duration = Duration::from_secs(20);
/// Pings that may stay without an answer; with the next one due the phone counts as gone.
const UNANSWERED: u32 = 3;
/// The largest message that is read, in bytes.
const MAX_MESSAGE: usize = 16 * 1024;
/// Messages that a phone may send between two pings. What they make us answer has room in the connection's
/// buffers even if nobody reads it: a conversation whose frames cannot leave would stand still, and never end.
const MAX_HEARD: u32 = 100;

pub fn configure(config: &mut ServiceConfig) {
    config.service(
        web::resource("/device/v1/stream")
            .route(web::get().to(stream))
            .default_service(no_route::device("GET")),
    );
}

async fn stream(app: App, request: HttpRequest, payload: Payload) -> HttpResponse {
    open(app, &request, payload).unwrap_or_else(|problem| {
        let mut refused = problem.error_response();
        // After such a request the connection is no good for another.
        let head = refused.head_mut();
        head.set_connection_type(ConnectionType::Close);
        refused
    })
}

fn open(app: App, request: &HttpRequest, payload: Payload) -> Result<HttpResponse, Problem> {
    if app.draining.is_cancelled() {
        return Err(Problem::unavailable());
    }
    let Some(opened) = websocket::open(request, payload, MAX_MESSAGE) else {
        return Err(Problem::upgrade_required());
    };
    let Some(place) = app.take_stream_place() else {
        metrics::counter!("assent_shed_total", "worth" => "streams").increment(1);
        return Err(Problem::unavailable());
    };
    let conversation = Conversation {
        app,
        path: request
            .uri()
            .path_and_query()
            .map_or_else(String::new, ToString::to_string),
        session: opened.session,
        messages: opened.messages,
        unread: opened.unread,
        heard: 0,
    };
    let conversation = conversation.hold(place).in_current_span();
    Ok(websocket::drive(opened.response, conversation))
}

/// The first message of a phone.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FirstMessage {
    proof: String,
}

/// What a phone is told.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Told<'a> {
    Ready {
        requests: Vec<InboxEntry>,
    },
    Request(InboxEntry),
    Resolved {
        id: RequestId,
    },
    /// The last message.
    Problem {
        problem: super::problem::ProblemBody<'a>,
    },
}

/// Why a stream ends.
enum End {
    /// The connection is gone.
    Gone,
    /// The phone said goodbye.
    Closed(Option<CloseReason>),
    /// This node stops.
    Draining,
    /// What came is not the protocol.
    Garbled,
    Because(Problem),
}

impl<T: Into<Problem>> From<T> for End {
    fn from(problem: T) -> Self {
        Self::Because(problem.into())
    }
}

struct Conversation {
    app: App,
    /// As received: what the proof must speak of.
    path: String,
    session: Session,
    messages: AggregatedMessageStream,
    unread: Unread,
    /// Messages since the last ping.
    heard: u32,
}

impl Conversation {
    async fn hold(mut self, place: StreamPlace) {
        let Err(end) = self.converse(place).await;
        let reason = match end {
            End::Gone => return,
            End::Closed(reason) => reason,
            End::Draining => Some(CloseCode::Away.into()),
            End::Garbled => Some(CloseCode::Protocol.into()),
            End::Because(problem) => {
                tracing::debug!(%problem, "stream ended");
                let told = Told::Problem {
                    problem: problem.document(),
                };
                if self.tell(&told).await.is_err() {
                    return;
                }
                Some((close_code(&problem), problem.to_string()).into())
            }
        };
        // Whoever is gone by now need not be told.
        let _ = self.session.close(reason).await;
    }

    async fn converse(&mut self, place: StreamPlace) -> Result<std::convert::Infallible, End> {
        let device = self.proven_device(&place).await?;
        let mut following = self.app.follow(place, device);
        let waiting = self.app.look(&mut following).await?;
        let requests = waiting.into_iter().filter_map(|change| match change {
            Change::Waits(item) => Some(item.into()),
            Change::Resolved(_) => None,
        });
        self.tell(&Told::Ready {
            requests: requests.collect(),
        })
        .await?;
        self.follow(&mut following).await
    }

    /// The device that the first message proves.
    async fn proven_device(&mut self, place: &StreamPlace) -> Result<AuthenticatedDevice, End> {
        let app = self.app.clone();
        let late = app.clock.sleep_until(app.clock.now().plus(PROOF_WITHIN));
        let mut late = std::pin::pin!(late);
        let replaced = place.replaced();
        let mut replaced = std::pin::pin!(replaced);
        let text = loop {
            tokio::select! {
                message = self.messages.recv() => match self.heard(message).await? {
                    Heard::Text(text) => break text,
                    Heard::Binary => return Err(Problem::not_text().into()),
                    Heard::Ping | Heard::Pong(_) => {}
                },
                () = app.draining.cancelled() => return Err(End::Draining),
                () = &mut replaced => return Err(Problem::unavailable().into()),
                () = &mut late => {
                    return Err(Problem::phone_silent("the proof did not arrive within 5 s").into());
                }
            }
        };
        let first = strict_json::parse(text.as_bytes()).ok();
        // An array of the members' values would do for a derived reader.
        let first = first.filter(serde_json::Value::is_object);
        let first = first.and_then(|first| serde_json::from_value::<FirstMessage>(first).ok());
        let first = first.ok_or_else(Problem::proof_missing)?;
        let proven = ProvenRequest {
            method: "GET",
            path: &self.path,
            body: b"",
        };
        Ok(app.authenticate_device(&first.proof, proven).await?)
    }

    async fn follow(&mut self, following: &mut Following) -> Result<std::convert::Infallible, End> {
        let app = self.app.clone();
        let next_ping = || -> Timestamp { app.clock.now().plus(PING_EVERY) };
        let (mut ping_at, mut unanswered) = (next_ping(), 0);
        let mut pinged = String::new();
        let replaced = following.replaced();
        let mut replaced = std::pin::pin!(replaced);
        loop {
            tokio::select! {
                message = self.messages.recv() => {
                    // Who does not read can say much, but not this.
                    if let Heard::Pong(bytes) = self.heard(message).await?
                        && bytes == pinged.as_bytes()
                    {
                        unanswered = 0;
                    }
                }
                () = app.draining.cancelled() => return Err(End::Draining),
                () = &mut replaced => return Err(Problem::stream_replaced().into()),
                () = app.until_next_look(following) => {
                    for change in app.look(following).await? {
                        self.tell(&match change {
                            Change::Waits(item) => Told::Request(item.into()),
                            Change::Resolved(id) => Told::Resolved { id },
                        })
                        .await?;
                    }
                }
                () = app.clock.sleep_until(ping_at) => {
                    if unanswered == UNANSWERED {
                        return Err(Problem::phone_silent("no ping was answered for 60 s").into());
                    }
                    pinged = app.random_id();
                    let ping = self.session.ping(pinged.as_bytes());
                    ping.await.map_err(|_| End::Gone)?;
                    unanswered += 1;
                    self.heard = 0;
                    ping_at = next_ping();
                }
            }
        }
    }

    /// Takes in a message, and answers a ping.
    async fn heard(
        &mut self,
        message: Option<Result<AggregatedMessage, ProtocolError>>,
    ) -> Result<Heard, End> {
        self.unread.clear();
        self.heard += 1;
        if self.heard > MAX_HEARD {
            return Err(Problem::too_many_messages().into());
        }
        match message {
            None => Err(End::Gone),
            Some(Ok(AggregatedMessage::Text(text))) => Ok(Heard::Text(text.to_string())),
            Some(Ok(AggregatedMessage::Binary(_))) => Ok(Heard::Binary),
            Some(Ok(AggregatedMessage::Pong(bytes))) => Ok(Heard::Pong(bytes)),
            Some(Ok(AggregatedMessage::Ping(bytes))) => {
                self.session.pong(&bytes).await.map_err(|_| End::Gone)?;
                Ok(Heard::Ping)
            }
            Some(Ok(AggregatedMessage::Close(reason))) => Err(End::Closed(reason)),
            Some(Err(ProtocolError::Overflow)) => Err(Problem::message_too_large().into()),
            // Frames or pieces that are too large together; and a broken connection, where nobody hears it.
            Some(Err(ProtocolError::Io(error))) if error.kind() == ErrorKind::Other => {
                Err(Problem::message_too_large().into())
            }
            Some(Err(_)) => Err(End::Garbled),
        }
    }

    async fn tell(&mut self, told: &Told<'_>) -> Result<(), End> {
        let text = serde_json::to_string(told).unwrap_or_default();
        self.session.text(text).await.map_err(|_| End::Gone)
    }
}

/// What came from the phone.
enum Heard {
    Text(String),
    Binary,
    Ping,
    Pong(Bytes),
}

/// The code with which a stream closes that ends in a problem (RFC 6455 7.4, and its registry).
fn close_code(problem: &Problem) -> CloseCode {
    match problem.status_code() {
        StatusCode::PAYLOAD_TOO_LARGE => CloseCode::Size,
        StatusCode::SERVICE_UNAVAILABLE => CloseCode::Again,
        StatusCode::INTERNAL_SERVER_ERROR => CloseCode::Error,
        _ => CloseCode::Policy,
    }
}
