//! "This was not me": what follows from a report of fraud.

use super::{CLOCKS_APART, Services};
use crate::domain::{Partition, Timestamp, UserId};
use crate::store::StoreError;

impl Services {
    /// Cancels what was open for the person when they reported it, whoever asked. Prompts stay away because
    /// the Ledger knows of the report; the device was locked with it, where that is the rule.
    pub async fn handle_fraud(
        &self,
        user: &UserId,
        partition: Partition,
        reported_at: Timestamp,
    ) -> Result<(), StoreError> {
        let until = reported_at.plus(CLOCKS_APART);
        self.cancel_open(user, partition, until, "fraud reported")
            .await
            .map(drop)
    }
}
