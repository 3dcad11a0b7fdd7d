//! What became of a person's requests on their way to the phones: for who is asked "I got nothing".

use super::{Services, log_id};
use crate::domain::delivery::{Delivery, DeliveryState};
use crate::domain::device::DeviceState;
use crate::domain::request::State;
use crate::domain::{DeviceId, RequestId, RequestKey, Timestamp, User};
use crate::store::StoreError;
use std::collections::HashSet;

/// One request and one device.
#[derive(Clone, Debug)]
pub struct DeliveryReport {
    pub request: RequestId,
    pub asked_at: Timestamp,
    pub state: DeliveryState,
    /// Whether phones were to be woken at all: not above the budget, and not after a denial.
    pub is_prompt: bool,
    pub delivery: Delivery,
}

impl Services {
    /// How far a person's requests came that phones were to be woken for, and those that wait: as far back as
    /// requests are kept, newest first.
    pub async fn deliveries_of(&self, user: &User) -> Result<Vec<DeliveryReport>, StoreError> {
        let now = self.clock.now();
        let partition = user.partition;
        let prompts = self.deliveries.prompts(&user.id, partition).await?;
        let open = self.pending.open_for(&user.id, partition, now).await?;
        let prompted: HashSet<RequestId> = prompts.iter().copied().collect();
        let others = open.iter().map(|request| request.facts.id);
        let others = others
            .filter(|id| !prompted.contains(id))
            .collect::<Vec<_>>();
        let mut devices = self.directory.devices_of(&user.id).await?;
        devices.retain(|device| device.state == DeviceState::Active);
        let mut reports = Vec::new();
        for id in prompts.into_iter().chain(others) {
            let key = RequestKey { partition, id };
            let Some(request) = self.pending.find(key, now).await? else {
                continue;
            };
            let decided = self.ledger.lookup(id).await?;
            let answered_by = decided.and_then(|(decided, _)| decided.device_id);
            let is_prompt = prompted.contains(&id);
            let mut deliveries = self.deliveries.deliveries(key).await?;
            let known: HashSet<DeviceId> =
                deliveries.iter().map(|one| one.device.clone()).collect();
            // Of an open request also the phones of which nothing is known yet.
            let silent = devices.iter().filter(|device| !known.contains(&device.id));
            let silent = silent.filter(|_| request.state == State::Pending);
            deliveries.extend(silent.map(|device| Delivery {
                device: device.id.clone(),
                push: None,
                fetched_at: None,
            }));
            let until = match request.state {
                State::Pending => request.facts.expires_at,
                _ => now,
            };
            for mut delivery in deliveries {
                delivery.push = delivery.push.map(|push| push.sent_until(until, now));
                let state = if answered_by.as_ref() == Some(&delivery.device) {
                    DeliveryState::Answered
                } else if !is_prompt && delivery.fetched_at.is_none() {
                    DeliveryState::Failed
                } else {
                    delivery.state()
                };
                reports.push(DeliveryReport {
                    request: id,
                    asked_at: request.facts.created_at,
                    state,
                    is_prompt,
                    delivery,
                });
            }
        }
        reports.sort_by_key(|report| std::cmp::Reverse((report.asked_at, report.request)));
        Ok(reports)
    }

    /// Notes that a phone has fetched what it is asked. A note that fails keeps nobody from answering.
    pub(super) async fn note_fetched(&self, key: RequestKey, device: &DeviceId, now: Timestamp) {
        let noted = self.deliveries.note_fetched(key, device, now).await;
        if let Err(error) = noted {
            tracing::warn!(request = log_id(key.id), %error, "the phone's receipt is not noted");
        }
    }
}
