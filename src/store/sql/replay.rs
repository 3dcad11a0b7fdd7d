//! What was used, remembered in a table.

use super::db::Db;
use crate::domain::Timestamp;
use crate::store::{ReplayCache, StoreError};
use async_trait::async_trait;

pub struct SqlReplayCache {
    db: Db,
}

impl SqlReplayCache {
    pub const fn new(db: Db) -> Self {
        Self { db }
    }
}

#[async_trait]
impl ReplayCache for SqlReplayCache {
    async fn first_use(
        &self,
        id: &str,
        expires_at: Timestamp,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let mut writer = self.db.writer().await?;
        let done = sqlx::query(
            "INSERT INTO replays (id, expires_at) VALUES ($1, $2) ON CONFLICT (id) DO UPDATE \
             SET expires_at = excluded.expires_at WHERE replays.expires_at <= $3",
        )
        .bind(id)
        .bind(expires_at.millis())
        .bind(now.millis())
        .execute(&mut *writer)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    async fn sweep(&self, now: Timestamp) -> Result<u64, StoreError> {
        let mut writer = self.db.writer().await?.patient();
        let done = sqlx::query("DELETE FROM replays WHERE expires_at <= $1")
            .bind(now.millis())
            .execute(&mut *writer)
            .await?;
        Ok(done.rows_affected())
    }
}
