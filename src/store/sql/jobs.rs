//! Leased jobs in a table. The Ledger's queue and the pending store's queue share it, by name.

use super::db::{Db, Tx};
use super::pool::Connection;
use super::row::Located;
use crate::domain::{Job, Timestamp};
use crate::store::{ClaimedJob, DeadJob, JobQueue, QueueDepth, StoreError};
use async_trait::async_trait;
use std::time::Duration;

/// Jobs that are created together with a pending request.
pub const PENDING_QUEUE: &str = "pending";

/// Jobs that are created together with what the database alone knows: an outcome, a device that comes or
/// goes.
pub const LEDGER_QUEUE: &str = "ledger";

/// How much of an error is kept, in bytes.
const ERROR_LEN: usize = 500;

pub struct SqlJobQueue {
    db: Db,
    queue: &'static str,
}

impl SqlJobQueue {
    pub const fn new(db: Db, queue: &'static str) -> Self {
        Self { db, queue }
    }

    /// Writes on a claimed job why nothing is done about it.
    async fn note_unreadable(&self, tx: &mut Tx, id: &str) -> Result<(), StoreError> {
        sqlx::query("UPDATE jobs SET last_error = $3 WHERE queue = $1 AND id = $2")
            .bind(self.queue)
            .bind(id)
            .bind("this program cannot read the job")
            .execute(&mut **tx)
            .await?;
        Ok(())
    }
}

/// Moves the due time of a job whose lease is still ours; false when it is not.
pub(super) async fn settle(
    connection: &mut Connection,
    queue: &'static str,
    claim: &ClaimedJob,
    due: Timestamp,
    error: &str,
    dead_at: Option<Timestamp>,
) -> Result<bool, StoreError> {
    let done = sqlx::query(
        "UPDATE jobs SET due_at = $4, last_error = $5, dead_at = $6 \
         WHERE queue = $1 AND id = $2 AND attempts = $3 AND dead_at IS NULL",
    )
    .bind(queue)
    .bind(&claim.id)
    .bind(i64::from(claim.attempt))
    .bind(due.millis())
    .bind(truncate(error))
    .bind(dead_at.map(Timestamp::millis))
    .execute(connection)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Adds a job that is due at once, inside the transaction of what it belongs to. A job that exists is
/// left alone.
pub(super) async fn insert(
    tx: &mut Tx,
    queue: &'static str,
    job: &Job,
    now: Timestamp,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO jobs (queue, id, due_at, attempts, payload) VALUES ($1, $2, $3, 0, $4) \
         ON CONFLICT (queue, id) DO NOTHING",
    )
    .bind(queue)
    .bind(job.id())
    .bind(now.millis())
    .bind(serde_json::to_string(job).expect("a job serialises"))
    .execute(&mut **tx)
    .await?;
    Ok(())
}

#[async_trait]
impl JobQueue for SqlJobQueue {
    async fn claim(
        &self,
        limit: u32,
        lease: Duration,
        now: Timestamp,
    ) -> Result<Vec<ClaimedJob>, StoreError> {
        let mut tx = self.db.begin().await?;
        let rows = sqlx::query(self.db.dialect().claim_jobs())
            .bind(now.plus(lease).millis())
            .bind(self.queue)
            .bind(now.millis())
            .bind(i64::from(limit))
            .fetch_all(&mut *tx)
            .await?;
        let mut claimed = Vec::new();
        for row in &rows {
            let row = Located::new(row, "jobs", "id");
            let id = row.text("id")?;
            // A job of a kind we do not know waits under its lease for a node that does. As an error
            // it would come first in every claim, and nothing else would ever be done.
            match serde_json::from_str(&row.text("payload")?) {
                Ok(job) => claimed.push(ClaimedJob {
                    id,
                    job,
                    attempt: row.small("attempts")?,
                }),
                Err(_) => self.note_unreadable(&mut tx, &id).await?,
            }
        }
        if !rows.is_empty() {
            tx.commit().await?;
        }
        Ok(claimed)
    }

    async fn ack(&self, claim: &ClaimedJob) -> Result<bool, StoreError> {
        let mut writer = self.db.writer().await?;
        let done = sqlx::query(
            "DELETE FROM jobs WHERE queue = $1 AND id = $2 AND attempts = $3 AND dead_at IS NULL",
        )
        .bind(self.queue)
        .bind(&claim.id)
        .bind(i64::from(claim.attempt))
        .execute(&mut *writer)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    async fn retry(
        &self,
        claim: &ClaimedJob,
        due: Timestamp,
        error: &str,
    ) -> Result<bool, StoreError> {
        let mut writer = self.db.writer().await?;
        settle(&mut writer, self.queue, claim, due, error, None).await
    }

    async fn bury(
        &self,
        claim: &ClaimedJob,
        error: &str,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let mut writer = self.db.writer().await?;
        settle(&mut writer, self.queue, claim, now, error, Some(now)).await
    }

    async fn dead(&self, limit: u32) -> Result<Vec<DeadJob>, StoreError> {
        let mut reader = self.db.reader().await?;
        let rows = sqlx::query(
            "SELECT id, attempts, dead_at, COALESCE(last_error, '') AS last_error FROM jobs \
             WHERE queue = $1 AND dead_at IS NOT NULL ORDER BY dead_at DESC, id LIMIT $2",
        )
        .bind(self.queue)
        .bind(i64::from(limit))
        .fetch_all(&mut *reader)
        .await?;
        rows.iter()
            .map(|row| {
                let row = Located::new(row, "jobs", "id");
                Ok(DeadJob {
                    id: row.text("id")?,
                    attempts: row.small("attempts")?,
                    dead_at: row.time("dead_at")?,
                    error: row.text("last_error")?,
                })
            })
            .collect()
    }

    async fn replay(&self, id: &str, now: Timestamp) -> Result<bool, StoreError> {
        let mut writer = self.db.writer().await?;
        let done = sqlx::query(
            "UPDATE jobs SET due_at = $3, attempts = 0, dead_at = NULL \
             WHERE queue = $1 AND id = $2 AND dead_at IS NOT NULL",
        )
        .bind(self.queue)
        .bind(id)
        .bind(now.millis())
        .execute(&mut *writer)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    async fn depth(&self) -> Result<QueueDepth, StoreError> {
        let mut reader = self.db.reader().await?;
        let rows = sqlx::query(
            "SELECT COUNT(*) AS jobs, COUNT(dead_at) AS dead FROM jobs WHERE queue = $1",
        )
        .bind(self.queue)
        .fetch_all(&mut *reader)
        .await?;
        let Some(row) = rows.first() else {
            return Ok(QueueDepth::default());
        };
        let row = Located::new(row, "jobs", "jobs");
        let (jobs, dead): (u64, u64) = (row.small("jobs")?, row.small("dead")?);
        Ok(QueueDepth {
            alive: jobs.saturating_sub(dead),
            dead,
        })
    }
}

fn truncate(error: &str) -> &str {
    let end = (0..=error.len().min(ERROR_LEN))
        .rev()
        .find(|end| error.is_char_boundary(*end));
    &error[..end.unwrap_or(0)]
}
