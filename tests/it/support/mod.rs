//! What tests work with: a server with a clock of its own, a relying party, a person with a phone.

pub mod backend;
pub mod ground;
pub mod house;
pub mod listener;
pub mod own_redis;
pub mod process;
pub mod redis_servers;
pub mod rp_endpoint;
pub mod signer;

pub use backend::Backend;
pub use ground::{Ground, nodes};
pub(crate) use ground::{everywhere, on_both, on_every_redis};
pub use house::House;
pub use redis_servers::RedisServers;
pub use signer::pem;

use assent::app::{Core, Listeners, Server, World};
use assent::clock::{Clock, ManualClock};
use assent::config::{Config, Overrides};
use assent::crypto::KeyRing;
use assent::domain::client::Registration;
use assent::domain::user::Login;
use assent::domain::{
    AuthReqId, Client, ClientId, Decision, RequestId, RequestKey, Scope, SignatureAlgorithm,
    Timestamp, User,
};
use assent::entropy::SystemEntropy;
use assent::phone::http::{Answer, HttpClient, basic};
use assent::phone::{EnrolmentLink, Phone, ShownRequest};
use assent::push::PushRecorder;
use assent::service::cancel::Cancelled;
use assent::service::{Services, StoreError};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// By which a client that is pinged or pushed to knows us.
pub const NOTIFICATION_TOKEN: &str = "notification-token-0123456789-._~+/=";
pub const CIBA_GRANT: &str = "urn:openid:params:grant-type:ciba";
/// Tests begin at this moment, a whole second (2026-01-01T00:00:00Z).
pub const START: Timestamp = Timestamp::from_secs(1_767_225_600);

/// A running server whose clock stands still and whose workers wait to be stepped.
pub struct TestApp {
    pub server: Server,
    pub clock: Arc<ManualClock>,
    pub push: Arc<PushRecorder>,
    pub http: HttpClient,
    pub url: String,
    pub management_url: String,
    /// Keeps the database alive as long as the server.
    pub backend: Arc<Backend>,
    redis: Option<RedisServers>,
}

impl TestApp {
    pub async fn new(backend: Backend) -> Self {
        Self::with(backend, vec![]).await
    }

    /// With settings of its own.
    pub async fn with(backend: Backend, settings: Overrides) -> Self {
        Self::with_file(backend, None, settings).await
    }

    /// With a settings file beside them.
    pub async fn with_file(backend: Backend, file: Option<&Path>, settings: Overrides) -> Self {
        let ground = Ground::new(backend);
        let config = config(&ground.backend, file, settings);
        Self::start(ground, config, None).await
    }

    pub async fn on(ground: Ground) -> Self {
        Self::on_with(ground, vec![]).await
    }

    /// With settings of its own.
    pub async fn on_with(ground: Ground, settings: Overrides) -> Self {
        let config = config(
            &ground.backend,
            None,
            [ground.settings(), settings].concat(),
        );
        Self::start(ground, config, None).await
    }

    /// Another node of the same issuer, with the same clock.
    pub async fn node(&self) -> Self {
        self.node_with(self.redis.clone()).await
    }

    /// The same after Redis, where there is one, has forgotten everything.
    pub async fn node_after_loss(&self) -> Self {
        let forgotten = self.redis.as_ref().map(|_| RedisServers::single());
        self.node_with(forgotten).await
    }

    async fn node_with(&self, redis: Option<RedisServers>) -> Self {
        let ground = Ground {
            backend: self.backend.clone(),
            redis,
        };
        let config = config(&ground.backend, None, ground.settings());
        Self::start(ground, config, Some(self)).await
    }

    async fn start(ground: Ground, config: Config, first: Option<&Self>) -> Self {
        let listeners = Listeners::bind(&config).unwrap();
        let url = format!("http://{}", listeners.public_address().unwrap());
        let config = Config {
            server: assent::config::Server {
                issuer: first.map_or(&url, |first| &first.url).clone(),
                ..config.server
            },
            ..config
        };
        let clock = first.map_or_else(
            || Arc::new(ManualClock::new(START)),
            |first| first.clock.clone(),
        );
        let push = Arc::new(PushRecorder::default());
        let world = World {
            clock: clock.clone(),
            entropy: Arc::new(SystemEntropy),
            push: push.clone(),
        };
        let core = Core::migrate_and_open(&config, world).await.unwrap();
        let server = Server::listen(core, &config, listeners).unwrap();
        let management_url = format!("http://{}", server.management_address);
        Self {
            server,
            clock,
            push,
            http: HttpClient::new(),
            url,
            management_url,
            backend: ground.backend,
            redis: ground.redis,
        }
    }

    pub fn services(&self) -> &Services {
        &self.server.core.services
    }

    /// Registers a relying party that polls and authenticates by HTTP Basic.
    pub async fn client(&self, id: &str) -> RelyingParty {
        self.client_with(id, registration()).await
    }

    pub async fn client_with(&self, id: &str, registration: Registration) -> RelyingParty {
        let id = Some(ClientId::new(id));
        let (client, secret) = self
            .services()
            .add_client(id, registration)
            .await
            .unwrap()
            .unwrap();
        let secret = secret.map_or_else(String::new, |secret| secret.expose().to_owned());
        RelyingParty {
            credentials: basic(client.id.as_str(), &secret),
            secret,
            client,
            http: self.http.clone(),
            url: self.url.clone(),
        }
    }

    pub async fn user(&self, login: &str) -> User {
        let login = Login::parse(login).unwrap();
        self.services()
            .add_user(login, Some("Alice Example".into()))
            .await
            .unwrap()
            .unwrap()
    }

    /// Enrols a phone for a person, through the public API.
    pub async fn phone(&self, user: &User) -> Phone {
        let ticket = self.services().create_enrolment(user).await.unwrap();
        let link = EnrolmentLink::parse(ticket.link.expose()).unwrap();
        Phone::enrol(
            &link,
            "test phone",
            self.clock.clone(),
            Arc::new(SystemEntropy),
        )
        .await
        .unwrap()
    }

    /// A relying party, a person, and her phone.
    pub async fn cast(&self) -> (RelyingParty, User, Phone) {
        let client = self.client("bank").await;
        let user = self.user("alice").await;
        let phone = self.phone(&user).await;
        (client, user, phone)
    }

    /// An operator withdraws a client's request.
    pub async fn cancel(
        &self,
        client: &RelyingParty,
        auth_req_id: &str,
    ) -> Result<Cancelled, StoreError> {
        let key = self.key(client, auth_req_id);
        self.services().cancel(key, "test").await
    }

    /// Where a client's request is found.
    pub fn key(&self, client: &RelyingParty, auth_req_id: &str) -> RequestKey {
        let id = AuthReqId::new(auth_req_id.to_owned());
        let handle = self
            .services()
            .keys
            .open_auth_req_id(&client.client.id, &id);
        handle.unwrap().key()
    }

    /// The same relying party at this node.
    pub fn here(&self, client: &RelyingParty) -> RelyingParty {
        RelyingParty {
            url: self.url.clone(),
            ..client.clone()
        }
    }

    /// How many requests wait for this person.
    pub async fn open_requests(&self, user: &User) -> usize {
        let open = self
            .services()
            .pending
            .open_for(&user.id, user.partition, self.now());
        open.await.unwrap().len()
    }

    /// How many jobs wait to wake phones.
    pub async fn waiting_jobs(&self) -> u64 {
        self.server.core.queues[0].depth().await.unwrap().alive
    }

    /// Works off everything that is due now.
    pub async fn run_jobs(&self) -> usize {
        let mut done = 0;
        loop {
            let mut some = 0;
            for worker in &self.server.core.workers {
                some += worker.step().await.unwrap();
            }
            if some == 0 {
                return done;
            }
            done += some;
        }
    }

    pub fn advance(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }

    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// How many rows a table has, and whether they are the same rows: a fingerprint of all of it.
    pub async fn state(&self) -> Vec<(String, Vec<String>)> {
        self.backend.dump().await
    }
}

/// The settings of a test server.
pub fn config(backend: &Backend, file: Option<&Path>, settings: Overrides) -> Config {
    let defaults: Overrides = vec![
        ("server.mode", "dev".into()),
        ("server.issuer", "http://127.0.0.1:1".into()),
        ("server.public_listen", "127.0.0.1:0".into()),
        ("server.management_listen", "127.0.0.1:0".into()),
        ("server.workers", "1".into()),
        // The clock stands still, and whoever waits for it waits.
        ("ciba.decoy_answer_after", "0s".into()),
        ("database.url", backend.url()),
        (
            "keys.deployment_key",
            "dGVzdCBkZXBsb3ltZW50IGtleSwgbm90IGEgc2VjcmU".into(),
        ),
    ];
    Config::load(file, &[defaults, settings].concat()).unwrap()
}

/// A client as most tests need it.
pub fn registration() -> Registration {
    Registration::new("Example Bank", Scope::parse("openid profile").unwrap())
}

/// A relying party that knows only HTTP.
#[derive(Clone)]
pub struct RelyingParty {
    pub client: Client,
    pub secret: String,
    pub credentials: String,
    http: HttpClient,
    url: String,
}

impl RelyingParty {
    /// A backchannel authentication request with exactly these parameters.
    pub async fn ask(&self, parameters: &[(&str, &str)]) -> Answer {
        self.ask_with(&[], parameters).await
    }

    pub async fn ask_with(&self, headers: &[(&str, &str)], parameters: &[(&str, &str)]) -> Answer {
        let headers = [headers, &[("authorization", self.credentials.as_str())]].concat();
        self.http
            .form(&format!("{}/bc-authorize", self.url), &headers, parameters)
            .await
            .unwrap()
    }

    /// Asks for a person's approval and returns the `auth_req_id`.
    pub async fn start(&self, login: &str) -> String {
        let answer = self
            .ask(&[
                ("scope", "openid"),
                ("login_hint", login),
                ("binding_message", "W4SCT"),
            ])
            .await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.json()["auth_req_id"].as_str().unwrap().to_owned()
    }

    /// The same for a client that is pinged or pushed to.
    pub async fn start_told(&self, login: &str) -> String {
        let answer = self
            .ask(&[
                ("scope", "openid"),
                ("login_hint", login),
                ("client_notification_token", NOTIFICATION_TOKEN),
            ])
            .await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.json()["auth_req_id"].as_str().unwrap().to_owned()
    }

    /// Comes for the result.
    pub async fn poll(&self, auth_req_id: &str) -> Answer {
        self.poll_with(&[], auth_req_id).await
    }

    pub async fn poll_with(&self, headers: &[(&str, &str)], auth_req_id: &str) -> Answer {
        let headers = [headers, &[("authorization", self.credentials.as_str())]].concat();
        let parameters = [("grant_type", CIBA_GRANT), ("auth_req_id", auth_req_id)];
        self.http
            .form(&format!("{}/token", self.url), &headers, &parameters)
            .await
            .unwrap()
    }
}

impl RelyingParty {
    /// Any form to any endpoint.
    pub async fn post(&self, path: &str, parameters: &[(&str, &str)]) -> Answer {
        let headers = [("authorization", self.credentials.as_str())];
        self.http
            .form(&format!("{}{path}", self.url), &headers, parameters)
            .await
            .unwrap()
    }

    pub async fn introspect(&self, token: &str) -> Answer {
        self.post("/introspect", &[("token", token)]).await
    }

    pub async fn revoke(&self, token: &str) -> Answer {
        self.post("/revoke", &[("token", token)]).await
    }

    pub async fn refresh(&self, token: &str) -> Answer {
        self.post(
            "/token",
            &[("grant_type", "refresh_token"), ("refresh_token", token)],
        )
        .await
    }
}

/// A statement signed by the server's own token key.
pub fn es256(keys: &KeyRing, typ: &str, claims: &impl serde::Serialize) -> String {
    keys.sign_token(SignatureAlgorithm::Es256, typ, claims)
        .unwrap()
}

/// The id that the rest of the house knows a request by.
pub fn request_id(auth_req_id: &str) -> RequestId {
    assent::crypto::auth_req_id::request_id(&AuthReqId::new(auth_req_id.to_owned()))
}

/// What the phone shows for a request.
pub async fn show(phone: &Phone, auth_req_id: &str) -> ShownRequest {
    phone.show(request_id(auth_req_id)).await.unwrap()
}

pub async fn approve(phone: &Phone, auth_req_id: &str) {
    let shown = show(phone, auth_req_id).await;
    phone.answer(&shown, Decision::Approve, None).await.unwrap();
}

pub async fn deny(phone: &Phone, auth_req_id: &str) {
    let shown = show(phone, auth_req_id).await;
    phone.answer(&shown, Decision::Deny, None).await.unwrap();
}

/// Asserts an OAuth error with exactly the two members it may have.
#[track_caller]
pub fn assert_oauth_error(answer: &Answer, status: u16, error: &str) {
    let body = answer.json();
    let members: Vec<_> = body.as_object().expect("a JSON object").keys().collect();
    assert_eq!(
        (answer.status, body["error"].as_str()),
        (status, Some(error)),
        "{}",
        answer.body
    );
    assert_eq!(members, ["error", "error_description"], "{}", answer.body);
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(answer.header("content-type"), Some("application/json"));
}

/// Asserts a problem document with exactly the members it may have.
#[track_caller]
pub fn assert_problem(answer: &Answer, status: u16, code: &str) {
    let body = answer.json();
    let members: Vec<_> = body.as_object().expect("a JSON object").keys().collect();
    assert_eq!(
        (answer.status, body["code"].as_str()),
        (status, Some(code)),
        "{}",
        answer.body
    );
    let known = ["code", "detail", "status", "title", "type"];
    let optional = known.iter().filter(|name| **name != "detail");
    assert!(
        members.iter().eq(&known) || members.into_iter().eq(optional),
        "{}",
        answer.body
    );
    assert_eq!(
        answer.header("content-type"),
        Some("application/problem+json")
    );
}

/// Runs all of them at once.
pub async fn all<T: Send + 'static>(
    futures: impl Iterator<Item = impl Future<Output = T> + Send + 'static>,
) -> Vec<T> {
    tokio::task::JoinSet::from_iter(futures).join_all().await
}
