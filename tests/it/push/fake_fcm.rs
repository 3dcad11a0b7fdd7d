//! A stand-in for Google: the token endpoint, which believes only what the service account has signed, and
//! the endpoint that takes messages, which believes only the newest token.

pub use super::http1::Reply;
use super::http1::Request;
use crate::support::listener::accept;
use crate::support::pem;
use assent::clock::{Clock as _, ManualClock};
use assent::crypto::generate::generate;
use assent::crypto::jose::{Jws, SigningKey, VerifyingKey};
use assent::domain::SignatureAlgorithm;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

pub const PROJECT: &str = "approver-1a2b3";
const EMAIL: &str = "push@approver-1a2b3.iam.gserviceaccount.com";

/// One message as it arrived.
#[derive(Clone, Debug)]
pub struct Received {
    pub path: String,
    pub authorization: String,
    pub body: String,
}

struct Shared {
    clock: Arc<ManualClock>,
    key: VerifyingKey,
    url: String,
    /// The number in the newest token; earlier ones are refused.
    newest_token: Mutex<usize>,
    token_replies: Mutex<VecDeque<Reply>>,
    replies: Mutex<VecDeque<Reply>>,
    received: Mutex<Vec<Received>>,
    /// All of every request, to either endpoint.
    heard: Mutex<String>,
}

pub struct FakeFcm {
    pub url: String,
    pub clock: Arc<ManualClock>,
    /// The file that an operator downloads from Google.
    pub service_account: String,
    shared: Arc<Shared>,
    _server: JoinSet<()>,
}

impl FakeFcm {
    pub async fn new(clock: Arc<ManualClock>) -> Self {
        let (pkcs8, _) = generate(SignatureAlgorithm::Rs256);
        let key_pem = pem("PRIVATE KEY", &pkcs8);
        let key = SigningKey::from_pem(&key_pem, "k1", SignatureAlgorithm::Rs256).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let service_account = json!({
            "type": "service_account",
            "project_id": PROJECT,
            "private_key_id": "k1",
            "private_key": key_pem,
            "client_email": EMAIL,
            "client_id": "1234",
            "token_uri": format!("{url}/token"),
        });
        let shared = Arc::new(Shared {
            clock: clock.clone(),
            key: key.verifying_key().clone(),
            url: url.clone(),
            newest_token: Mutex::default(),
            token_replies: Mutex::default(),
            replies: Mutex::default(),
            received: Mutex::default(),
            heard: Mutex::default(),
        });
        let all = shared.clone();
        let server = accept(listener, move |stream, _| serve(stream, all.clone()));
        Self {
            url,
            clock,
            service_account: service_account.to_string(),
            shared,
            _server: server,
        }
    }

    pub fn reply(&self, replies: impl IntoIterator<Item = Reply>) {
        self.shared.replies.lock().unwrap().extend(replies);
    }

    /// The same for the token endpoint.
    pub fn reply_for_token(&self, replies: impl IntoIterator<Item = Reply>) {
        self.shared.token_replies.lock().unwrap().extend(replies);
    }

    /// What has arrived since this was last asked.
    pub fn received(&self) -> Vec<Received> {
        std::mem::take(&mut *self.shared.received.lock().unwrap())
    }

    /// All that was ever sent here.
    pub fn heard(&self) -> String {
        self.shared.heard.lock().unwrap().clone()
    }

    pub fn tokens_made(&self) -> usize {
        *self.shared.newest_token.lock().unwrap()
    }

    /// From now on the newest token is refused, as if its key had been revoked.
    pub fn revoke_token(&self) {
        *self.shared.newest_token.lock().unwrap() += 1;
    }
}

async fn serve(mut stream: TcpStream, shared: Arc<Shared>) {
    let Some(request) = Request::read(&mut stream).await else {
        return;
    };
    let authorization = request.header("authorization");
    let body = String::from_utf8(request.body).unwrap();
    let whole = format!("{}\n\n{body}\n", request.head);
    shared.heard.lock().unwrap().push_str(&whole);
    let reply = if request.path == "/token" {
        shared.give_token(&body)
    } else {
        shared.take_message(request.path, authorization, body)
    };
    reply.send(stream).await;
}

impl Shared {
    fn give_token(&self, body: &str) -> Reply {
        let refuse = |why: &str| Reply::refuse(400, json!({ "error": why }));
        let form: Vec<(String, String)> = url::form_urlencoded::parse(body.as_bytes())
            .into_owned()
            .collect();
        let [(grant, kind), (name, assertion)] = &form[..] else {
            return refuse("invalid_request");
        };
        assert_eq!((grant.as_str(), name.as_str()), ("grant_type", "assertion"));
        if kind != "urn:ietf:params:oauth:grant-type:jwt-bearer" {
            return refuse("unsupported_grant_type");
        }
        let claims = Jws::parse(assertion).and_then(|jws| jws.verify::<Value>("JWT", &self.key));
        let Ok(claims) = claims else {
            return refuse("invalid_grant");
        };
        let (iat, exp) = (
            claims["iat"].as_i64().unwrap(),
            claims["exp"].as_i64().unwrap(),
        );
        let is_good = claims["iss"] == EMAIL
            && claims["aud"] == format!("{}/token", self.url)
            && claims["scope"] == "https://www.googleapis.com/auth/firebase.messaging"
            && (iat - self.clock.now().secs()).abs() <= 60
            && exp - iat <= 3600;
        if !is_good {
            return refuse("invalid_grant");
        }
        if let Some(reply) = self.token_replies.lock().unwrap().pop_front() {
            return reply;
        }
        let mut newest = self.newest_token.lock().unwrap();
        *newest += 1;
        let token = format!("access-token-{newest}");
        let body = json!({ "access_token": token, "expires_in": 3599, "token_type": "Bearer" });
        Reply::Say(200, None, body)
    }

    fn take_message(&self, path: String, authorization: String, body: String) -> Reply {
        let newest = format!("Bearer access-token-{}", self.newest_token.lock().unwrap());
        let is_known = authorization == newest;
        // Before anybody knows that it came.
        let scripted = match is_known {
            true => self.replies.lock().unwrap().pop_front(),
            false => None,
        };
        self.received.lock().unwrap().push(Received {
            path,
            authorization,
            body,
        });
        if !is_known {
            let error = json!({ "code": 401, "status": "UNAUTHENTICATED", "message": "no" });
            return Reply::refuse(401, json!({ "error": error }));
        }
        let name = format!("projects/{PROJECT}/messages/0:1");
        scripted.unwrap_or_else(|| Reply::Say(200, None, json!({ "name": name })))
    }
}
