//! Wakes the person's phones for a request.

use super::{Services, log_device, log_id};
use crate::crypto::sha256;
use crate::domain::device::DeviceState;
use crate::domain::request::State;
use crate::domain::{Device, DeviceId, RequestId, RequestKey, Timestamp, UserId};
use crate::push::{PushMessage, PushOutcome, Reason, Signal};
use crate::store::StoreError;
use futures_util::future::join_all;
use serde_json::json;
use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};

/// What came of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notified {
    /// Every phone that could be woken was, or nobody needs to be any more.
    Done,
    /// At least one gateway wants to be asked again, and none before `earliest`.
    Retry { reason: String, earliest: Timestamp },
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
        let mut devices = self.directory.devices_of(user).await?;
        let settled = self.settled_phones.of(id);
        devices
            .retain(|device| device.state == DeviceState::Active && !settled.contains(&device.id));
        // All at once: a gateway that hangs must not hold up the others until the job's lease ends.
        let sent = join_all(
            devices
                .iter()
                .map(|device| self.wake(device, id, expires_at)),
        )
        .await;
        let now = self.clock.now();
        let mut notified = Notified::Done;
        let mut newly_settled = Vec::new();
        for (device, outcome) in devices.iter().zip(sent) {
            match outcome {
                PushOutcome::Retry { reason } => {
                    notified = notified.or_again(&reason, now);
                    continue;
                }
                PushOutcome::Throttled { reason, until }
                | PushOutcome::HeldBack { reason, until } => {
                    notified = notified.or_again(&reason, until);
                    continue;
                }
                PushOutcome::TokenDead { reason, since } => {
                    self.forget_push_target(device, &reason, since).await?;
                }
                // Nothing left to do, or nothing that waiting mends: the log has it.
                PushOutcome::Accepted { .. }
                | PushOutcome::Unreachable
                | PushOutcome::Misconfigured { .. }
                | PushOutcome::OurBug { .. } => {}
            }
            newly_settled.push(device.id.clone());
        }
        if matches!(notified, Notified::Retry { .. }) {
            self.settled_phones.add(id, newly_settled, expires_at, now);
        }
        Ok(notified)
    }

    async fn wake(&self, device: &Device, id: RequestId, expires_at: Timestamp) -> PushOutcome {
        let message = PushMessage {
            attempt: self.entropy.bytes(),
            reference: push_reference(id),
            signal: Signal::Waiting,
            expires_at,
        };
        let outcome = self.push.send(device, &message, self.clock.now()).await;
        count(id, device, &outcome);
        outcome
    }

    /// The device stays, without a target until it registers one: it still finds what waits when it looks.
    /// False: the gateway speaks of a target before the one that the phone has now.
    pub(super) async fn forget_push_target(
        &self,
        device: &Device,
        reason: &Reason,
        since: Option<Timestamp>,
    ) -> Result<bool, StoreError> {
        if since.is_some_and(|since| since < device.push_registered_at) {
            return Ok(false);
        }
        let payload = json!({
            "user": device.user_id,
            "device": device.id,
            "reason": reason.as_str(),
        });
        let entry = self.entry("device.push_target_dead", self.clock.now(), payload);
        self.directory.clear_push_target(device, entry).await
    }
}

/// The phones that a job need not wake when it comes back for another: one that has rung must not ring
/// again and again because its neighbour's gateway is down. Kept in memory alone, since another node or a
/// restart costs one ring more.
#[derive(Debug, Default)]
pub(super) struct SettledPhones(Mutex<HashMap<RequestId, (HashSet<DeviceId>, Timestamp)>>);

impl SettledPhones {
    fn of(&self, request: RequestId) -> HashSet<DeviceId> {
        let table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = table.get(&request);
        found.map_or_else(HashSet::new, |(devices, _)| devices.clone())
    }

    fn add(
        &self,
        request: RequestId,
        devices: Vec<DeviceId>,
        expires_at: Timestamp,
        now: Timestamp,
    ) {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        table.retain(|_, (_, until)| now < *until);
        let (settled, _) = table
            .entry(request)
            .or_insert_with(|| (HashSet::new(), expires_at));
        settled.extend(devices);
    }
}

impl Notified {
    /// Of several gateways the one that wants the longest pause sets the time: the job is one for all.
    fn or_again(self, why: &Reason, not_before: Timestamp) -> Self {
        match self {
            Self::Retry { reason, earliest } if earliest >= not_before => {
                Self::Retry { reason, earliest }
            }
            _ => Self::Retry {
                reason: why.as_str().to_owned(),
                earliest: not_before,
            },
        }
    }
}

/// Tells the phone that something waits, and a gateway nothing: it cannot be turned back into the id.
fn push_reference(id: RequestId) -> String {
    crate::crypto::base64url(&sha256(&[b"push-reference".as_slice(), id.as_bytes()].concat())[..16])
}

fn count(id: RequestId, device: &Device, outcome: &PushOutcome) {
    let platform = device.description.platform.as_str();
    let (request, device) = (log_id(id), log_device(&device.id));
    match outcome {
        // No attempt was made. The gateway's trouble has been logged once, and held-back pushes have a
        // count of their own.
        PushOutcome::HeldBack { .. } => {
            tracing::debug!(request, device, platform, ?outcome, "push");
            return;
        }
        PushOutcome::Misconfigured { .. } | PushOutcome::OurBug { .. } => {
            tracing::error!(request, device, platform, ?outcome, "push");
        }
        _ => tracing::info!(request, device, platform, ?outcome, "push"),
    }
    metrics::counter!("assent_pushes_total", "platform" => platform, "outcome" => outcome.label())
        .increment(1);
    if outcome.reason().is_some_and(|reason| !reason.is_known()) {
        metrics::counter!("assent_push_reasons_unknown_total", "platform" => platform).increment(1);
    }
}
