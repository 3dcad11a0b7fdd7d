//! A stand-in for a browser's push service, and the browser behind it, which alone can read what it is sent.

pub use super::http1::Reply;
use super::http1::Request;
use crate::support::listener::accept;
use assent::clock::{Clock as _, ManualClock};
use assent::crypto::jose::{Jws, VerifyingKey};
use assent::crypto::jwk::PublicJwk;
use assent::crypto::{base64url, from_base64url};
use assent::domain::SignatureAlgorithm;
use assent::domain::device::PublicKey;
use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::agreement::{ECDH_P256, PrivateKey, UnparsedPublicKey, agree};
use aws_lc_rs::hmac;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

pub const SUBJECT: &str = "mailto:operations@bank.example";

/// One message as it arrived, with what the browser read.
#[derive(Clone, Debug)]
pub struct Received {
    pub path: String,
    pub ttl: String,
    pub urgency: String,
    pub topic: String,
    pub authorization: String,
    pub raw: Vec<u8>,
    pub text: String,
}

/// A status, and what stands in `Retry-After`.
impl From<(u16, Option<&'static str>)> for Reply {
    fn from((status, retry_after): (u16, Option<&'static str>)) -> Self {
        Self::Say(status, retry_after, Value::Null)
    }
}

struct Shared {
    clock: Arc<ManualClock>,
    url: String,
    browser: PrivateKey,
    /// What the browser has subscribed with.
    server_key: Mutex<String>,
    replies: Mutex<VecDeque<Reply>>,
    received: Mutex<Vec<Received>>,
    /// All of every request, and what the browser read of it.
    heard: Mutex<String>,
}

pub struct FakePushService {
    pub clock: Arc<ManualClock>,
    pub url: String,
    shared: Arc<Shared>,
    _server: JoinSet<()>,
}

const AUTH: [u8; 16] = [0xa5; 16];

impl FakePushService {
    pub async fn new(clock: Arc<ManualClock>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shared = Arc::new(Shared {
            clock: clock.clone(),
            url: url.clone(),
            browser: PrivateKey::generate(&ECDH_P256).unwrap(),
            server_key: Mutex::default(),
            replies: Mutex::default(),
            received: Mutex::default(),
            heard: Mutex::default(),
        });
        let all = shared.clone();
        let server = accept(listener, move |stream, _| serve(stream, all.clone()));
        Self {
            clock,
            url,
            shared,
            _server: server,
        }
    }

    /// What the browser gives its app after subscribing for this key.
    pub fn subscribe(&self, server_key: &str) -> Value {
        *self.shared.server_key.lock().unwrap() = server_key.to_owned();
        let public = self.shared.browser.compute_public_key().unwrap();
        json!({
            "endpoint": format!("{}/push/capability", self.url),
            "expirationTime": null,
            "keys": { "p256dh": base64url(public.as_ref()), "auth": base64url(&AUTH) },
        })
    }

    pub fn reply(&self, replies: impl IntoIterator<Item = impl Into<Reply>>) {
        let replies = replies.into_iter().map(Into::into);
        self.shared.replies.lock().unwrap().extend(replies);
    }

    /// What has arrived since this was last asked.
    pub fn received(&self) -> Vec<Received> {
        std::mem::take(&mut *self.shared.received.lock().unwrap())
    }

    /// All that was ever sent here.
    pub fn heard(&self) -> String {
        self.shared.heard.lock().unwrap().clone()
    }
}

async fn serve(mut stream: TcpStream, shared: Arc<Shared>) {
    let Some(request) = Request::read(&mut stream).await else {
        return;
    };
    assert_eq!(request.header("content-encoding"), "aes128gcm");
    let authorization = request.header("authorization");
    let known = shared.is_subscribed_for(&authorization);
    let text = shared.decrypt(&request.body);
    let whole = format!("{}\n\n{text}\n", request.head);
    shared.heard.lock().unwrap().push_str(&whole);
    shared.received.lock().unwrap().push(Received {
        ttl: request.header("ttl"),
        urgency: request.header("urgency"),
        topic: request.header("topic"),
        authorization,
        path: request.path,
        raw: request.body,
        text,
    });
    let scripted = shared.replies.lock().unwrap().pop_front();
    let reply = if known {
        scripted.unwrap_or_else(|| (201, None).into())
    } else {
        (403, None).into()
    };
    reply.send(stream).await;
}

impl Shared {
    /// RFC 8292 2 to 4.
    fn is_subscribed_for(&self, authorization: &str) -> bool {
        let parameters = authorization.strip_prefix("vapid t=").unwrap();
        let (token, key) = parameters.split_once(", k=").unwrap();
        let point = from_base64url(key).unwrap();
        let public = PublicJwk::Curve(PublicKey::P256 {
            x: base64url(&point[1..33]),
            y: base64url(&point[33..]),
        });
        let verifying = VerifyingKey::of_jwk(&public, SignatureAlgorithm::Es256).unwrap();
        let claims: Value = Jws::parse(token)
            .unwrap()
            .verify("JWT", &verifying)
            .unwrap();
        let left = claims["exp"].as_i64().unwrap() - self.clock.now().secs();
        claims["aud"] == self.url.as_str()
            && claims["sub"] == SUBJECT
            && (1..=24 * 3600).contains(&left)
            && *self.server_key.lock().unwrap() == key
    }

    /// RFC 8291 3.4 and RFC 8188 2, as a browser does it.
    fn decrypt(&self, message: &[u8]) -> String {
        let (salt, rest) = message.split_at(16);
        let (record_size, rest) = rest.split_at(4);
        assert_eq!(record_size, 4096_u32.to_be_bytes());
        assert_eq!(rest[0], 65);
        let (sender, sealed) = rest[1..].split_at(65);
        let public = self.browser.compute_public_key().unwrap();
        let info = [b"WebPush: info\0", public.as_ref(), sender].concat();
        let sender = UnparsedPublicKey::new(&ECDH_P256, sender);
        let key = agree(&self.browser, sender, (), |shared| {
            Ok(hkdf(&AUTH, shared, &info))
        })
        .unwrap();
        let content_key = hkdf(salt, &key, b"Content-Encoding: aes128gcm\0");
        let nonce = hkdf(salt, &key, b"Content-Encoding: nonce\0");
        let opening = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &content_key[..16]).unwrap());
        let nonce = Nonce::try_assume_unique_for_key(&nonce[..12]).unwrap();
        let mut sealed = sealed.to_vec();
        let opened = opening
            .open_in_place(nonce, Aad::empty(), &mut sealed)
            .unwrap();
        let end = opened.iter().rposition(|byte| *byte != 0).unwrap();
        assert_eq!(opened[end], 2, "the last record");
        String::from_utf8(opened[..end].to_vec()).unwrap()
    }
}

/// The first block of HKDF (RFC 5869 2), which is all that is needed here.
fn hkdf(salt: &[u8], key: &[u8], info: &[u8]) -> Vec<u8> {
    let mac = |key: &[u8], data: &[u8]| {
        hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), data)
            .as_ref()
            .to_vec()
    };
    mac(&mac(salt, key), &[info, &[1]].concat())
}
