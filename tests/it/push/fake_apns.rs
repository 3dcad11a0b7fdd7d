//! A stand-in for Apple's gateway: HTTP/2 over TLS, one stream at a time, strict about provider tokens.

use crate::support::listener::accept;
use crate::support::process::pause;
use crate::support::{START, pem};
use assent::clock::{Clock as _, ManualClock};
use assent::crypto::generate::generate;
use assent::crypto::jose::{Jws, SigningKey, VerifyingKey};
use assent::domain::{SignatureAlgorithm, Timestamp};
use h2::server::SendResponse;
use http::{Request, Response};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use serde_json::{Value, json};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

pub const TEAM: &str = "ABCDE12345";
pub const KEY_ID: &str = "ABC123DEFG";

/// How the next message is answered.
#[derive(Clone, Debug)]
pub enum Reply {
    /// A status with these headers and this body.
    Say(u16, Vec<(&'static str, String)>, Value),
    /// Accepts, and closes the connection after it.
    GoAway,
    /// Closes the connection before it has answered.
    GoAwayUnanswered,
    /// Closes the connection in the middle of the answer's body.
    GoAwayHalfway(u16),
    /// Says that it has not looked at the message (RFC 9113 8.7).
    NotLookedAt,
    /// Says nothing and stays.
    Hang,
    /// A body without end.
    Endless(u16),
}

impl Reply {
    pub fn refuse(status: u16, reason: &str) -> Self {
        Self::Say(status, vec![], json!({ "reason": reason }))
    }

    fn accept() -> Self {
        Self::Say(200, vec![], Value::Null)
    }
}

/// One message as it arrived.
#[derive(Clone, Debug)]
pub struct Received {
    pub method: String,
    pub path: String,
    pub headers: BTreeMap<String, String>,
    pub body: String,
    /// Which connection it came over, from 1.
    pub connection: usize,
}

struct Shared {
    clock: Arc<ManualClock>,
    key: VerifyingKey,
    replies: Mutex<VecDeque<Reply>>,
    received: Mutex<Vec<Received>>,
    /// All of every message.
    heard: Mutex<String>,
    /// The provider tokens so far, with when each was first seen.
    tokens: Mutex<Vec<(String, Timestamp)>>,
}

/// The gateway; it goes away with the test.
pub struct FakeApns {
    pub url: String,
    pub clock: Arc<ManualClock>,
    /// The key that an operator downloads from Apple.
    pub key_pem: String,
    pub root_der: Vec<u8>,
    shared: Arc<Shared>,
    _server: JoinSet<()>,
}

impl FakeApns {
    pub async fn new(clock: Arc<ManualClock>) -> Self {
        let (pkcs8, _) = generate(SignatureAlgorithm::Es256);
        let key_pem = pem("PRIVATE KEY", &pkcs8);
        let key = SigningKey::from_pem(&key_pem, KEY_ID, SignatureAlgorithm::Es256).unwrap();
        let (root_der, tls) = identity();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!(
            "https://localhost:{}",
            listener.local_addr().unwrap().port()
        );
        let shared = Arc::new(Shared {
            clock: clock.clone(),
            key: key.verifying_key().clone(),
            replies: Mutex::default(),
            received: Mutex::default(),
            heard: Mutex::default(),
            tokens: Mutex::default(),
        });
        let all = shared.clone();
        let server = accept(listener, move |stream, number| {
            connection(stream, tls.clone(), all.clone(), number)
        });
        Self {
            url,
            clock,
            key_pem,
            root_der,
            shared,
            _server: server,
        }
    }

    /// The next messages are answered like this; all others are accepted.
    pub fn reply(&self, replies: impl IntoIterator<Item = Reply>) {
        self.shared.replies.lock().unwrap().extend(replies);
    }

    /// What has arrived since this was last asked.
    pub fn received(&self) -> Vec<Received> {
        std::mem::take(&mut *self.shared.received.lock().unwrap())
    }

    /// As if the last provider token had been seen long ago.
    pub fn forget_tokens(&self) {
        self.shared.tokens.lock().unwrap().clear();
    }

    /// All that was ever sent here.
    pub fn heard(&self) -> String {
        self.shared.heard.lock().unwrap().clone()
    }

    /// The provider tokens that were seen, as when each was made, in seconds from the beginning.
    pub fn tokens_made_at(&self) -> Vec<i64> {
        let made_at = |(token, _): &(String, Timestamp)| {
            Jws::parse(token)
                .unwrap()
                .verify::<Value>("JWT", &self.shared.key)
                .unwrap()["iat"]
                .as_i64()
                .unwrap()
                - START.secs()
        };
        self.shared
            .tokens
            .lock()
            .unwrap()
            .iter()
            .map(made_at)
            .collect()
    }
}

fn identity() -> (Vec<u8>, TlsAcceptor) {
    let params = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        )
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    (certificate.der().to_vec(), acceptor)
}

/// Errors end the connection: the client hung up, which many a test wants to see.
async fn connection(stream: TcpStream, tls: TlsAcceptor, shared: Arc<Shared>, number: usize) {
    let Ok(stream) = tls.accept(stream).await else {
        return;
    };
    let mut settings = h2::server::Builder::new();
    // As Apple has it until it has seen a valid token.
    settings.max_concurrent_streams(1);
    let Ok(mut connection) = settings.handshake(stream).await else {
        return;
    };
    let mut messages = JoinSet::new();
    let going = Arc::new(Notify::new());
    loop {
        let (request, respond) = tokio::select! {
            accepted = connection.accept() => match accepted {
                Some(Ok(accepted)) => accepted,
                _ => return,
            },
            () = going.notified() => {
                connection.abrupt_shutdown(h2::Reason::NO_ERROR);
                continue;
            }
        };
        let scripted = shared.replies.lock().unwrap().pop_front();
        if matches!(scripted, Some(Reply::GoAway)) {
            connection.graceful_shutdown();
        }
        let all = (shared.clone(), going.clone());
        messages.spawn(message(request, respond, all, scripted, number));
    }
}

async fn message(
    request: Request<h2::RecvStream>,
    mut respond: SendResponse<bytes::Bytes>,
    (shared, going): (Arc<Shared>, Arc<Notify>),
    scripted: Option<Reply>,
    connection: usize,
) {
    let (head, mut incoming) = request.into_parts();
    let mut body = Vec::new();
    while let Some(Ok(chunk)) = incoming.data().await {
        body.extend_from_slice(&chunk);
        let _ = incoming.flow_control().release_capacity(chunk.len());
    }
    let headers: BTreeMap<String, String> = head
        .headers
        .iter()
        .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
        .collect();
    let judged = shared.judge(headers.get("authorization").map_or("", String::as_str));
    let id = headers.get("apns-id").cloned().unwrap_or_default();
    let received = Received {
        method: head.method.to_string(),
        path: head.uri.path().to_owned(),
        headers,
        body: String::from_utf8(body).unwrap(),
        connection,
    };
    let whole = format!("{} {received:?}\n", head.uri);
    shared.heard.lock().unwrap().push_str(&whole);
    shared.received.lock().unwrap().push(received);
    let reply = judged.err().or(scripted).unwrap_or_else(Reply::accept);
    let answer = |status: u16| Response::builder().status(status).header("apns-id", &id);
    match reply {
        Reply::Say(status, more, body) => {
            let mut answer = answer(status);
            for (name, value) in more {
                answer = answer.header(name, value);
            }
            let body = if body.is_null() {
                String::new()
            } else {
                body.to_string()
            };
            let answer = answer.body(()).unwrap();
            let Ok(mut stream) = respond.send_response(answer, body.is_empty()) else {
                return;
            };
            if !body.is_empty() {
                let _ = stream.send_data(body.into(), true);
            }
        }
        Reply::GoAway => {
            let _ = respond.send_response(answer(200).body(()).unwrap(), true);
        }
        Reply::GoAwayUnanswered => {
            going.notify_one();
            std::future::pending::<()>().await;
        }
        Reply::GoAwayHalfway(status) => {
            let sent = respond.send_response(answer(status).body(()).unwrap(), false);
            let _ = sent.unwrap().send_data("{".into(), false);
            // The headers leave first; if ever they did not, it would be an answer that never came.
            pause(50).await;
            going.notify_one();
            std::future::pending::<()>().await;
        }
        Reply::NotLookedAt => respond.send_reset(h2::Reason::REFUSED_STREAM),
        Reply::Hang => std::future::pending().await,
        Reply::Endless(status) => {
            let Ok(mut stream) = respond.send_response(answer(status).body(()).unwrap(), false)
            else {
                return;
            };
            for _ in 0..64 {
                let _ = stream.send_data(vec![b' '; 16 * 1024].into(), false);
            }
            std::future::pending::<()>().await;
        }
    }
}

impl Shared {
    /// What Apple says of a provider token.
    fn judge(&self, authorization: &str) -> Result<(), Reply> {
        let now = self.clock.now();
        let token = authorization.strip_prefix("bearer ").unwrap_or_default();
        if token.is_empty() {
            return Err(Reply::refuse(403, "MissingProviderToken"));
        }
        let invalid = || Reply::refuse(403, "InvalidProviderToken");
        let jws = Jws::parse(token).map_err(|_| invalid())?;
        if jws.kid.as_deref() != Some(KEY_ID) {
            return Err(invalid());
        }
        let claims: Value = jws
            .verify_with(&[None, Some("JWT")], SignatureAlgorithm::Es256, [&self.key])
            .map_err(|_| invalid())?;
        if claims["iss"] != TEAM {
            return Err(invalid());
        }
        let made_at = Timestamp::from_secs(claims["iat"].as_i64().unwrap());
        if now.since(made_at) >= Duration::from_secs(3600) {
            return Err(Reply::refuse(403, "ExpiredProviderToken"));
        }
        let mut tokens = self.tokens.lock().unwrap();
        if tokens.iter().any(|(seen, _)| seen == token) {
            return Ok(());
        }
        let last = tokens.last().map(|(_, first_seen)| *first_seen);
        tokens.push((token.to_owned(), now));
        if last.is_some_and(|last| now.since(last) < Duration::from_secs(20 * 60)) {
            return Err(Reply::refuse(429, "TooManyProviderTokenUpdates"));
        }
        Ok(())
    }
}
