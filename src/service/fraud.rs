//! "This was not me": what follows from a report of fraud.

use super::{CLOCKS_APART, Services, log_device};
use crate::domain::device::DeviceState;
use crate::domain::{DeviceId, Partition, Timestamp, UserId};
use crate::store::StoreError;
use serde_json::json;

impl Services {
    /// Cancels what was open for the person when they reported it, whoever asked; and locks the device that
    /// reported, where that is the rule. Prompts stay away because the Ledger knows of the report.
    pub async fn handle_fraud(
        &self,
        user: &UserId,
        partition: Partition,
        device: &DeviceId,
        reported_at: Timestamp,
    ) -> Result<(), StoreError> {
        let until = reported_at.plus(CLOCKS_APART);
        self.cancel_open(user, partition, until, "fraud reported")
            .await?;
        if !self.policy.quiet.lock_device {
            return Ok(());
        }
        let now = self.clock.now();
        let entry = self.entry(
            "device.locked",
            now,
            json!({ "user": user, "device": device, "why": "fraud reported" }),
        );
        let (from, to) = (&[DeviceState::Active], DeviceState::Pending);
        let locked = self
            .directory
            .move_device(device, partition, from, to, now, entry)
            .await?;
        if locked {
            tracing::info!(
                device = log_device(device),
                "device locked after a report of fraud"
            );
        }
        Ok(())
    }
}
