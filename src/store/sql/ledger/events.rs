//! Jobs that belong to nothing else that is written.

use super::Ledger;
use crate::domain::{Job, Timestamp};
use crate::store::StoreError;
use crate::store::sql::jobs::{self, LEDGER_QUEUE};

impl Ledger {
    /// Adds a job that is due at once. One that exists is left alone.
    pub async fn add_job(&self, job: &Job, now: Timestamp) -> Result<(), StoreError> {
        let mut tx = self.db.begin().await?;
        jobs::insert(&mut tx, LEDGER_QUEUE, job, now).await?;
        tx.commit().await
    }
}
