//! Whether this node can do its work: what `/readyz` says.

use crate::clock::{Clock as _, SystemClock};
use crate::domain::Timestamp;
use crate::http::Readiness;
use crate::service::{Services, StoreError};
use crate::store::MAX_CLOCK_DIFFERENCE;
use crate::store::redis::Redis;
use crate::store::sql::Db;
use crate::telemetry;
use async_trait::async_trait;
use std::sync::Arc;
use std::time::Duration;

/// How long a probe waits for a store.
const PROBE_TIMEOUT: Duration = Duration::from_millis(500);

pub struct Probe {
    pub db: Db,
    pub redis: Option<Redis>,
    pub services: Arc<Services>,
}

/// What a probe says of a store.
struct Words {
    slow: &'static str,
    unreachable: &'static str,
    clock: &'static str,
}

const DATABASE: Words = Words {
    slow: "the database is slow",
    unreachable: "the database is unreachable",
    clock: "the database's clock and ours differ by over 2 s",
};
const REDIS: Words = Words {
    slow: "Redis is slow",
    unreachable: "Redis is unreachable",
    clock: "Redis's clock and ours differ by over 2 s",
};

impl Probe {
    /// What is wrong with a store, going by what its clock shows.
    async fn trouble(
        &self,
        words: &Words,
        theirs: impl Future<Output = Result<Timestamp, StoreError>>,
    ) -> Option<&'static str> {
        let waited = SystemClock.now().plus(PROBE_TIMEOUT);
        let theirs = tokio::select! {
            now = theirs => now,
            () = SystemClock.sleep_until(waited) => return Some(words.slow),
        };
        let Ok(theirs) = theirs else {
            return Some(words.unreachable);
        };
        let ours = self.services.clock.now();
        let apart = ours.since(theirs).max(theirs.since(ours));
        (apart > MAX_CLOCK_DIFFERENCE).then_some(words.clock)
    }
}

#[async_trait]
impl Readiness for Probe {
    async fn missing(&self) -> Option<&'static str> {
        if self.services.draining.is_cancelled() {
            return Some("draining");
        }
        if let Some(trouble) = self.trouble(&DATABASE, self.db.now()).await {
            return Some(trouble);
        }
        match &self.redis {
            None => None,
            Some(redis) => self.trouble(&REDIS, redis.now()).await,
        }
    }

    fn metrics(&self) -> String {
        telemetry::metrics().render()
    }
}
