//! What became of a person's requests on their way to the phones: for who is asked "I got nothing".

use super::Services;
use super::log_id;
use crate::domain::delivery::{Delivery, DeliveryState};
use crate::domain::{DeviceId, RequestId, RequestKey, Timestamp, User};
use crate::store::StoreError;

/// One request and one device.
#[derive(Clone, Debug)]
pub struct Delivered {
    pub request: RequestId,
    pub asked_at: Timestamp,
    pub state: DeliveryState,
    pub delivery: Delivery,
}

impl Services {
    /// The deliveries of the requests that a person's phones were to be woken for lately, newest first: as
    /// far back as requests are kept.
    pub async fn deliveries_of(&self, user: &User) -> Result<Vec<Delivered>, StoreError> {
        let now = self.clock.now();
        let mut delivered = Vec::new();
        for id in self.deliveries.prompts(&user.id, user.partition).await? {
            let key = RequestKey {
                partition: user.partition,
                id,
            };
            let Some(request) = self.pending.find(key, now).await? else {
                continue;
            };
            let decided = self.ledger.lookup(id).await?;
            let answered_by = decided.and_then(|(decided, _)| decided.device_id);
            for delivery in self.deliveries.deliveries(key).await? {
                let answered = answered_by.as_ref() == Some(&delivery.device);
                delivered.push(Delivered {
                    request: id,
                    asked_at: request.facts.created_at,
                    state: if answered {
                        DeliveryState::Answered
                    } else {
                        delivery.state()
                    },
                    delivery,
                });
            }
        }
        Ok(delivered)
    }

    /// Notes that a phone has fetched what it is asked. A note that fails keeps nobody from answering.
    pub(super) async fn note_fetched(&self, key: RequestKey, device: &DeviceId, now: Timestamp) {
        let noted = self.deliveries.note_fetched(key, device, now).await;
        if let Err(error) = noted {
            tracing::warn!(request = log_id(key.id), %error, "the phone's receipt is not noted");
        }
    }
}
