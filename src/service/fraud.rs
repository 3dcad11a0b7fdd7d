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
        let Some(device) = self.directory.device(device).await? else {
            return Ok(());
        };
        let now = self.clock.now();
        let payload = json!({ "user": user, "device": device.id, "why": "fraud reported" });
        let entry = self.entry("device.locked", now, payload);
        let (from, to) = (&[DeviceState::Active], DeviceState::Pending);
        let locked = self
            .directory
            .move_device(&device, from, to, now, entry, None)
            .await?;
        if locked {
            let device = log_device(&device.id);
            tracing::info!(device, "device locked after a report of fraud");
            self.announce(user, partition).await;
        }
        Ok(())
    }
}
