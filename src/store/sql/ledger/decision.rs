//! A decision in the making.

use super::{Recorded, Standing, evidence_context};
use crate::crypto::KeyRing;
use crate::domain::device::DeviceState;
use crate::domain::matching::CodeEntry;
use crate::domain::outcome::DecidedRequest;
use crate::domain::request::redeemable_until;
use crate::domain::{DeviceId, Job, Timestamp, UserId};
use crate::failpoint;
use crate::store::StoreError;
use crate::store::sql::audit::{self, AuditEntry, TakenHead, chain_of};
use crate::store::sql::db::Tx;
use crate::store::sql::jobs::{self, LEDGER_QUEUE};
use crate::store::sql::row::Located;
use std::sync::Arc;

/// A decision that holds its partition's audit head. Dropped, it never was.
pub struct OpenDecision {
    pub(super) keys: Arc<KeyRing>,
    pub(super) tx: Tx,
    pub(super) head: TakenHead,
    pub standing: Standing,
}

impl OpenDecision {
    /// How the person's typing of matching codes has gone. Nobody else changes it until this decision is
    /// recorded or dropped.
    pub async fn code_entry(&mut self, user: &UserId) -> Result<CodeEntry, StoreError> {
        let rows = sqlx::query(
            "SELECT id, wrong_matching_codes, matching_blocked_until FROM users WHERE id = $1",
        )
        .bind(user.as_str())
        .fetch_all(&mut *self.tx)
        .await?;
        let Some(row) = rows.first() else {
            return Ok(CodeEntry::default());
        };
        let row = Located::new(row, "users", "id");
        Ok(CodeEntry {
            wrong_in_a_row: row.small("wrong_matching_codes")?,
            blocked_until: row.optional_time("matching_blocked_until")?,
        })
    }

    /// Has a device wait for confirmation again, from the moment the decision is recorded.
    pub async fn lock_device(&mut self, device: &DeviceId) -> Result<(), StoreError> {
        sqlx::query("UPDATE devices SET state = $2 WHERE id = $1 AND state = $3")
            .bind(device.as_str())
            .bind(DeviceState::Pending.as_str())
            .bind(DeviceState::Active.as_str())
            .execute(&mut *self.tx)
            .await?;
        Ok(())
    }

    /// Notes how it has gone this time.
    pub async fn note_code_entry(
        &mut self,
        user: &UserId,
        entry: CodeEntry,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "UPDATE users SET wrong_matching_codes = $2, matching_blocked_until = $3 WHERE id = $1",
        )
        .bind(user.as_str())
        .bind(i64::from(entry.wrong_in_a_row))
        .bind(entry.blocked_until.map(Timestamp::millis))
        .execute(&mut *self.tx)
        .await?;
        Ok(())
    }

    /// Inserts the outcome, its audit row and the jobs that follow, and commits.
    ///
    /// # Errors
    /// [`StoreError::CommitUnknown`]: read back with [`Ledger::lookup`].
    pub async fn record(
        mut self,
        decided: &DecidedRequest,
        follow_ups: &[Job],
        entry: AuditEntry,
    ) -> Result<Recorded, StoreError> {
        let id = decided.request_id;
        // Our own type: it always serialises.
        let evidence = serde_json::to_vec(&decided.evidence).expect("evidence serialises");
        let inserted = sqlx::query(
            "INSERT INTO outcomes (request_id, partition, client_id, user_id, device_id, outcome, reason, \
             decided_at, expires_at, redeemable_until, evidence) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) ON CONFLICT (request_id) DO NOTHING",
        )
        .bind(id.to_string())
        .bind(chain_of(decided.partition))
        .bind(decided.client_id.as_str())
        .bind(decided.user_id.as_str())
        .bind(decided.device_id.as_ref().map(DeviceId::as_str))
        .bind(decided.outcome.as_str())
        .bind(decided.reason.map(|reason| reason.as_str()))
        .bind(decided.decided_at.millis())
        .bind(decided.expires_at.millis())
        .bind(redeemable_until(decided.expires_at).millis())
        .bind(self.keys.seal(&evidence_context(id), &evidence))
        .execute(&mut *self.tx)
        .await?;
        if inserted.rows_affected() == 0 {
            let winner = super::decided(&mut self.tx, &self.keys, id).await?;
            let missing = || StoreError::Corrupt {
                table: "outcomes",
                row: id.to_string(),
                what: "conflicts but is not there",
            };
            return winner.map(Box::new).map(Recorded::Lost).ok_or_else(missing);
        }
        for job in follow_ups {
            jobs::insert(&mut self.tx, LEDGER_QUEUE, job, decided.decided_at).await?;
        }
        audit::append(&mut self.tx, self.head, entry).await?;
        failpoint::hit("decide.before_commit");
        self.tx.commit().await?;
        failpoint::hit("decide.after_commit");
        Ok(Recorded::First)
    }
}
