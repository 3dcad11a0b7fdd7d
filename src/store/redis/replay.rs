//! What was used, remembered in Redis.

use super::keys::Keys;
use super::router::Router;
use super::script::FIRST_USE;
use super::ttl;
use crate::crypto::sha256_base64url;
use crate::domain::Timestamp;
use crate::store::{ReplayCache, StoreError};
use async_trait::async_trait;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub struct RedisReplayCache {
    pub(super) router: Arc<Router>,
    pub(super) keys: Keys,
    /// Tells this process from all others.
    pub(super) process: String,
    pub(super) operations: AtomicU64,
}

#[async_trait]
impl ReplayCache for RedisReplayCache {
    async fn first_use(
        &self,
        id: &str,
        expires_at: Timestamp,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let (partition, key) = self.keys.used(&sha256_base64url(id.as_bytes()));
        let operation = self.operations.fetch_add(1, Ordering::Relaxed);
        let first: u8 = self
            .router
            .run(partition, |_| {
                FIRST_USE
                    .keys([key.clone()])
                    .arg(now.millis())
                    .arg(expires_at.millis())
                    .arg(ttl(expires_at, now))
                    .arg(format!("{}:{operation}", self.process))
            })
            .await?;
        Ok(first == 1)
    }

    /// Entries run out by themselves.
    async fn sweep(&self, _now: Timestamp) -> Result<u64, StoreError> {
        Ok(0)
    }
}
