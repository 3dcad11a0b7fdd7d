//! What is written although nothing was decided: jobs, and rows of the audit.

use super::Ledger;
use crate::domain::{Job, Partition, Timestamp};
use crate::store::StoreError;
use crate::store::sql::audit::{self, AuditEntry, chain_of};
use crate::store::sql::jobs::{self, LEDGER_QUEUE};

impl Ledger {
    /// Adds a job that is due at once. One that exists is left alone.
    pub async fn add_job(&self, job: &Job, now: Timestamp) -> Result<(), StoreError> {
        let mut tx = self.db.begin().await?;
        jobs::insert(&mut tx, LEDGER_QUEUE, job, now).await?;
        tx.commit().await
    }

    /// Appends a row to the audit of a partition.
    pub async fn note(&self, partition: Partition, entry: AuditEntry) -> Result<(), StoreError> {
        let mut tx = self.db.begin().await?;
        let head = audit::take_head(&mut tx, chain_of(partition)).await?;
        audit::append(&mut tx, head, entry).await?;
        tx.commit().await
    }
}
