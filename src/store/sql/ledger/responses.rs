//! Responses that are kept: until they have arrived, or nobody can have them any more.

use super::{Ledger, StoreError};
use crate::domain::{Partition, RequestId, Timestamp};
use crate::failpoint;
use crate::store::ClaimedJob;
use crate::store::sql::audit::{self, AuditEntry, chain_of};
use crate::store::sql::jobs::{self, LEDGER_QUEUE};

impl Ledger {
    /// Erases a response that has been delivered.
    pub async fn erase_response(&self, id: RequestId) -> Result<(), StoreError> {
        let mut writer = self.db.writer().await?;
        sqlx::query("UPDATE issuances SET response = NULL WHERE request_id = $1")
            .bind(id.to_string())
            .execute(&mut *writer)
            .await?;
        Ok(())
    }

    /// Gives up a set of tokens that could not be delivered: erased and revoked, and their job buried,
    /// in one transaction. Apart, a death in between would leave a job that finds nothing to send, and
    /// counts as delivered. False: there is nothing to give up, or the lease was lost.
    pub async fn give_up_tokens(
        &self,
        claim: &ClaimedJob,
        id: RequestId,
        partition: Partition,
        reason: &str,
        now: Timestamp,
        entry: AuditEntry,
    ) -> Result<bool, StoreError> {
        let mut tx = self.db.begin().await?;
        let head = audit::take_head(&mut tx, chain_of(partition)).await?;
        let erased = sqlx::query(
            "UPDATE issuances SET response = NULL WHERE request_id = $1 AND response IS NOT NULL",
        )
        .bind(id.to_string())
        .execute(&mut *tx)
        .await?;
        sqlx::query(
            "UPDATE access_tokens SET revoked_at = $2 WHERE revoked_at IS NULL AND jti IN \
             (SELECT token_id FROM issuances WHERE request_id = $1)",
        )
        .bind(id.to_string())
        .bind(now.millis())
        .execute(&mut *tx)
        .await?;
        sqlx::query(
            "UPDATE refresh_families SET revoked_at = $2 WHERE revoked_at IS NULL AND request_id = $1",
        )
        .bind(id.to_string())
        .bind(now.millis())
        .execute(&mut *tx)
        .await?;
        if erased.rows_affected() == 0
            || !jobs::settle(&mut tx, LEDGER_QUEUE, claim, now, reason, Some(now)).await?
        {
            return Ok(false);
        }
        audit::append(&mut tx, head, entry).await?;
        failpoint::hit("give_up.before_commit");
        tx.commit().await?;
        failpoint::hit("give_up.after_commit");
        Ok(true)
    }

    /// Erases responses that may no longer be sent again; those still to be pushed stay. Returns how
    /// many.
    pub async fn erase_responses(&self, issued_before: Timestamp) -> Result<u64, StoreError> {
        let mut writer = self.db.writer().await?.patient();
        let done = sqlx::query(
            "UPDATE issuances SET response = NULL WHERE response IS NOT NULL AND issued_at <= $1 \
             AND NOT EXISTS (SELECT 1 FROM jobs WHERE queue = 'ledger' AND dead_at IS NULL \
             AND id = 'notify_client:' || issuances.request_id)",
        )
        .bind(issued_before.millis())
        .execute(&mut *writer)
        .await?;
        Ok(done.rows_affected())
    }
}
