//! The fast path of a house with several nodes: pending requests, their jobs and deliveries, and the
//! replay cache in Redis (7.0 or later, or Valkey): one server, a primary behind Sentinel, or a cluster.
//!
//! What is kept here is a projection and may be lost: the Ledger knows every decision, and says it
//! again. [`keys`] names the keys. What holds for them:
//!
//! - A person lives in one of 256 partitions, and so do all keys of their requests: one slot, one node.
//! - Every change is one script ([`script`]) on one partition: all of it happens, or nothing.
//! - Every script may be sent twice: a reply that was lost never leads to a second effect. The answer is
//!   the same, but for `settle`, whose second sending finds the attempt settled.
//! - Time is an argument. Keys run out by a relative time, so that servers' clocks do not matter.
//! - An open set holds exactly the requests whose state is `pending` and whose end has not come.
//! - A job is in `due` exactly as long as it is in `jobs`.

mod check;
mod deliveries;
mod failure;
mod jobs;
mod keys;
mod pending;
mod record;
mod replay;
mod router;
mod schedule;
mod script;
mod servers;
mod url;
mod wake;

pub use check::Unfit;
pub use deliveries::RedisDeliveryLog;
pub use jobs::RedisJobQueue;
pub use pending::RedisPendingRequests;
pub use replay::RedisReplayCache;
pub use url::{InvalidUrl, RedisUrl};

use super::waiters::Waiters;
use crate::crypto::base64url;
use crate::domain::{RequestId, Timestamp, UserId};
use keys::Keys;
use router::Router;
use schedule::Schedule;
use servers::Servers;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// The stores on one set of connections. Making it talks to nobody.
#[derive(Clone)]
pub struct Redis {
    router: Arc<Router>,
    keys: Keys,
    waiters: Arc<Waiters<RequestId>>,
    inboxes: Arc<Waiters<UserId>>,
    schedule: Arc<Schedule>,
}

/// How Redis is used.
pub struct Settings {
    pub url: RedisUrl,
    /// What every key begins with.
    pub prefix: String,
    /// For one attempt at one command.
    pub timeout: Duration,
    /// Certificates in PEM that servers are trusted by; `None`: the machine's.
    pub root_certificates: Option<Vec<u8>>,
}

impl Redis {
    pub fn new(settings: Settings) -> Self {
        let router = Router::new(Servers {
            url: settings.url,
            root_certificates: settings.root_certificates,
            attempt: settings.timeout,
        });
        Self {
            router: Arc::new(router),
            keys: Keys::new(settings.prefix),
            waiters: Arc::default(),
            inboxes: Arc::default(),
            schedule: Arc::default(),
        }
    }

    /// `interval` is what clients must leave between two polls.
    pub fn pending(&self, interval: Duration) -> RedisPendingRequests {
        RedisPendingRequests {
            router: self.router.clone(),
            keys: self.keys.clone(),
            waiters: self.waiters.clone(),
            inboxes: self.inboxes.clone(),
            schedule: self.schedule.clone(),
            interval,
        }
    }

    pub fn deliveries(&self) -> RedisDeliveryLog {
        RedisDeliveryLog {
            router: self.router.clone(),
            keys: self.keys.clone(),
        }
    }

    pub fn jobs(&self) -> RedisJobQueue {
        RedisJobQueue {
            router: self.router.clone(),
            keys: self.keys.clone(),
            schedule: self.schedule.clone(),
        }
    }

    /// `process` tells this process from all others.
    pub fn replays(&self, process: [u8; 16]) -> RedisReplayCache {
        RedisReplayCache {
            router: self.router.clone(),
            keys: self.keys.clone(),
            process: base64url(&process),
            operations: 0.into(),
        }
    }

    /// Until `stop`: keeps the connections alive and listens for other nodes.
    pub async fn run(self, now: impl Fn() -> Timestamp + Send, stop: CancellationToken) {
        let listener = wake::Listener {
            router: self.router.clone(),
            keys: self.keys,
            waiters: self.waiters,
            inboxes: self.inboxes,
            schedule: self.schedule,
        };
        tokio::join!(self.router.keep(stop.clone()), listener.run(now, stop));
    }
}

/// How long a key lives that is of use until `end`. Relative, so that the server's clock does not matter.
fn ttl(end: Timestamp, now: Timestamp) -> u64 {
    millis(end.since(now)).max(1)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
