//! What the server does, one use case a file, in the order of the journey: [`authenticate_client`],
//! [`start`], [`notify_device`], [`authenticate_device`], [`decide`], [`redeem`], [`mint`],
//! [`notify_client`], [`notify_resolved`], [`refresh`], [`reconcile`]; beside them [`enrol`], [`devices`], [`streams`], [`cancel`], [`decoys`], [`quiet`], [`fraud`],
//! [`deliveries`], [`userinfo`], [`administer`], [`rotate_keys`], [`test_push`], [`audit`] and
//! [`publish_event`].

pub mod administer;
pub mod audit;
pub mod authenticate_client;
pub mod authenticate_device;
pub mod cancel;
mod client_assertion;
pub mod client_credentials;
pub mod decide;
mod decoys;
pub mod deliveries;
pub mod devices;
pub mod enrol;
pub mod fraud;
mod held_polls;
pub mod hints;
mod idempotency;
pub mod introspect;
pub mod mint;
pub mod notify_client;
pub mod notify_device;
pub mod notify_resolved;
pub mod publish_event;
pub mod quiet;
pub mod reconcile;
pub mod redeem;
pub mod refresh;
pub mod revoke;
pub mod rotate_keys;
pub mod start;
pub mod streams;
mod subject;
pub mod test_push;
pub mod user_code;
pub mod userinfo;

use crate::clock::Clock;
use crate::crypto::KeyRing;
use crate::domain::breaker::Breakers;
use crate::domain::prompts::PromptBudgets;
use crate::domain::{ClientId, DeviceId, RequestId, Timestamp};
use crate::entropy::Entropy;
use crate::outbound::Outbound;
use crate::push::PushSender;
use crate::store::MAX_CLOCK_DIFFERENCE;
pub use crate::store::StoreError;
use crate::store::sql::{AuditEntry, AuditLog, Directory, KeyTable, Ledger, TokenStore};
use crate::store::{DeliveryLog, PendingRequests, ReplayCache};
use authenticate_client::ClientCache;
use client_assertion::ClientKeyCache;
use held_polls::HeldPolls;
use hints::HintIssuer;
use notify_client::PER_CLIENT;
use publish_event::{PUBLISHED_AT_ONCE, Webhook};
use quiet::QuietPolicy;
use std::sync::Arc;
use std::time::Duration;
use streams::{LOOKS_AT_ONCE, OpenStreams};
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;

/// How much longer than needed it is remembered that something was used: clocks of two nodes may be this
/// far apart, each by what readiness allows from the stores'.
const CLOCKS_APART: Duration = MAX_CLOCK_DIFFERENCE.saturating_mul(2);

/// The numbers and rules an operator chose.
#[derive(Clone)]
pub struct Policy {
    /// This server's name in every token (RFC 8414 2): a URL without a trailing slash.
    pub issuer: String,
    /// A request's life when the client asks for none.
    pub default_expiry: Duration,
    /// The longest life a client can ask for; more is clamped.
    pub max_expiry: Duration,
    /// What clients must leave between two polls.
    pub interval: Duration,
    /// Open requests per person over all clients.
    pub open_requests_per_user: u32,
    /// How often a person may be woken, over all clients.
    pub prompt_budgets: PromptBudgets,
    pub quiet: QuietPolicy,
    /// The longest a poll is held.
    pub max_long_poll: Duration,
    /// Polls of one client held at a time; more are answered at once.
    pub held_polls_per_client: u32,
    /// Streams of phones that a node holds at a time.
    pub max_streams: usize,
    pub access_token_lifetime: Duration,
    pub id_token_lifetime: Duration,
    /// How long a lost token response can be had again; zero: not at all.
    pub redelivery: Duration,
    pub enrolment_lifetime: Duration,
    /// Whether a new device waits for `assent device confirm`.
    pub confirm_devices: bool,
    /// How long client metadata may be out of date.
    pub client_cache: Duration,
    /// A refresh family's absolute end, from its first token.
    pub refresh_token_lifetime: Duration,
    /// How long a used refresh token brings the same response again.
    pub refresh_grace: Duration,
    /// How long an ID Token names a person after it has expired.
    pub id_token_hint_lifetime: Duration,
    /// Whose `login_hint_token`s are believed.
    pub hint_issuers: Vec<HintIssuer>,
    /// What a client with decoys waits for an answer, at least.
    pub decoy_answer_after: Duration,
    /// Whether `/bc-cancel` is offered.
    pub cancel_endpoint: bool,
}

/// The parts the use cases are made of.
pub struct Parts {
    pub policy: Policy,
    pub directory: Directory,
    pub ledger: Ledger,
    pub tokens: TokenStore,
    pub audit_log: AuditLog,
    pub key_table: KeyTable,
    pub pending: Arc<dyn PendingRequests>,
    pub deliveries: Arc<dyn DeliveryLog>,
    pub replays: Arc<dyn ReplayCache>,
    pub push: Arc<dyn PushSender>,
    pub outbound: Outbound,
    /// Who is told of events; `None`: nobody, and none are written down.
    pub webhook: Option<Webhook>,
    pub keys: Arc<KeyRing>,
    pub clock: Arc<dyn Clock>,
    pub entropy: Arc<dyn Entropy>,
    /// Cancelled when the server drains: held polls are answered at once.
    pub draining: CancellationToken,
}

/// All use cases, on one set of parts.
pub struct Services {
    parts: Parts,
    clients: ClientCache,
    client_keys: ClientKeyCache,
    held: HeldPolls,
    streams: OpenStreams,
    /// Streams that look at a time.
    looking: Semaphore,
    notified: Breakers<ClientId>,
    /// Events that are told at a time.
    publishing: Semaphore,
    /// One at a time, so that no older view of the keys replaces a newer one.
    reloading: tokio::sync::Mutex<()>,
    /// Slow hashes at a time.
    hashing: Semaphore,
    /// Told when a job of the pending store became due now.
    pub pending_jobs_ready: Arc<Notify>,
    /// The same for the Ledger's.
    pub ledger_jobs_ready: Arc<Notify>,
}

impl std::ops::Deref for Services {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.parts
    }
}

impl Services {
    pub fn new(parts: Parts) -> Self {
        Self {
            clients: ClientCache::default(),
            client_keys: ClientKeyCache::default(),
            held: HeldPolls::default(),
            streams: OpenStreams::default(),
            looking: Semaphore::new(LOOKS_AT_ONCE),
            notified: Breakers::new(PER_CLIENT),
            publishing: Semaphore::new(PUBLISHED_AT_ONCE),
            reloading: tokio::sync::Mutex::default(),
            hashing: Semaphore::new(2),
            pending_jobs_ready: Arc::default(),
            ledger_jobs_ready: Arc::default(),
            parts,
        }
    }

    /// A random identifier of 128 bits in base64url.
    pub fn random_id(&self) -> String {
        crate::crypto::base64url(&self.entropy.bytes::<16>())
    }

    /// An audit entry with a salt of its own.
    fn entry(&self, kind: &'static str, at: Timestamp, payload: serde_json::Value) -> AuditEntry {
        AuditEntry {
            kind,
            at,
            payload,
            salt: self.entropy.bytes(),
        }
    }
}

/// A request as logs name it: enough to follow it, useless to poll with.
fn log_id(id: RequestId) -> String {
    id.to_string()[..12].to_owned()
}

/// A device as logs name it.
fn log_device(id: &DeviceId) -> &str {
    id.as_str().get(..12).unwrap_or_default()
}
