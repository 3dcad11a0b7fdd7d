//! Wakes the person's phones for a request.

use super::{Services, log_device, log_id};
use crate::crypto::sha256;
use crate::domain::device::DeviceState;
use crate::domain::request::State;
use crate::domain::{RequestId, RequestKey, Timestamp, UserId};
use crate::push::{PushMessage, PushOutcome};
use crate::store::StoreError;

/// What came of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notified {
    /// Every phone that could be woken was, or nobody needs to be any more.
    Done,
    /// At least one gateway wants to be asked again.
    Retry { reason: String },
}

impl Services {
    /// Sends a push to every active device of the person, if the request is still waiting.
    pub async fn notify_device(
        &self,
        key: RequestKey,
        user: &UserId,
        expires_at: Timestamp,
    ) -> Result<Notified, StoreError> {
        let id = key.id;
        let request = self.pending.find(key, self.clock.now()).await?;
        let waiting = request.filter(|request| request.state == State::Pending);
        let Some(request) = waiting else {
            return Ok(Notified::Done);
        };
        if !self.may_ask(&request.facts.client_id).await? {
            return Ok(Notified::Done);
        }
        let message = PushMessage {
            reference: push_reference(id),
            localisation_key: "request.waiting",
            expires_at,
        };
        let mut notified = Notified::Done;
        for device in self.directory.devices_of(user).await? {
            if device.state != DeviceState::Active {
                continue;
            }
            let outcome = self.push.send(&device, &message).await;
            tracing::info!(
                request = log_id(id),
                device = log_device(&device.id),
                ?outcome,
                "push"
            );
            metrics::counter!("assent_pushes_total", "outcome" => label(&outcome)).increment(1);
            if let PushOutcome::Retry { reason } = outcome {
                notified = Notified::Retry { reason };
            }
        }
        Ok(notified)
    }
}

/// Tells the phone that something waits, and a gateway nothing: it cannot be turned back into the id.
fn push_reference(id: RequestId) -> String {
    crate::crypto::base64url(&sha256(&[b"push-reference".as_slice(), id.as_bytes()].concat())[..16])
}

const fn label(outcome: &PushOutcome) -> &'static str {
    match outcome {
        PushOutcome::Accepted => "accepted",
        PushOutcome::Retry { .. } => "retry",
        PushOutcome::Unreachable => "unreachable",
    }
}
