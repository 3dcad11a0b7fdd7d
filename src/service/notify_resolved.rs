//! Tells the person's other phones that a request is over, so that they take their notification away.

use super::Services;
use super::notify_device::Notified;
use crate::domain::delivery::{DeliveryState, PushRecord};
use crate::domain::device::DeviceState;
use crate::domain::{DeviceId, RequestKey, Timestamp, UserId};
use crate::push::Signal;
use crate::store::StoreError;
use futures_util::future::join_all;
use std::collections::HashSet;

impl Services {
    /// Sends a silent push to the devices that the waking one may have reached, at `rang_since` or later if
    /// that is said, but not to the one that answered. Sent twice it does no harm, so all get it again when
    /// one gateway asks for another try.
    pub async fn notify_resolved(
        &self,
        key: RequestKey,
        user: &UserId,
        answered_by: Option<&DeviceId>,
        rang_since: Option<Timestamp>,
        expires_at: Timestamp,
    ) -> Result<Notified, StoreError> {
        let deliveries = self.deliveries.deliveries(key).await?;
        let rung: HashSet<DeviceId> = deliveries
            .into_iter()
            .filter(|delivery| {
                // One that brought no answer may have arrived all the same.
                let may_ring = |push: &PushRecord| match push.state {
                    DeliveryState::Accepted => true,
                    DeliveryState::Queued => push.attempts > 0,
                    _ => false,
                };
                let in_time = |push: &&PushRecord| rang_since.is_none_or(|since| since <= push.at);
                delivery.push.as_ref().filter(in_time).is_some_and(may_ring)
            })
            .map(|delivery| delivery.device)
            .filter(|device| Some(device) != answered_by)
            .collect();
        if rung.is_empty() {
            return Ok(Notified::Done);
        }
        let mut devices = self.directory.devices_of(user).await?;
        devices.retain(|device| device.state == DeviceState::Active && rung.contains(&device.id));
        let sent = join_all(
            devices
                .iter()
                .map(|device| self.push(device, key.id, Signal::Resolved, expires_at)),
        )
        .await;
        let now = self.clock.now();
        let mut notified = Notified::Done;
        for outcome in sent {
            // A target that died meanwhile is found out by the next push that matters.
            if let Some((reason, until)) = outcome.again(now) {
                notified = notified.or_again(reason.as_str(), until);
            }
        }
        Ok(notified)
    }
}
