//! Wakes the person's phones for a request.

use super::{CLOCKS_APART, Services, log_device, log_id};
use crate::crypto::sha256;
use crate::domain::delivery::{DeliveryState, PushRecord};
use crate::domain::device::DeviceState;
use crate::domain::request::{BackchannelRequest, State};
use crate::domain::{Device, DeviceId, RequestId, RequestKey, Timestamp, UserId};
use crate::push::{PushMessage, PushOutcome, Reason, Signal};
use crate::store::StoreError;
use futures_util::future::join_all;
use serde_json::json;
use std::collections::HashMap;
use std::time::Duration;

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
        let Some(BackchannelRequest { facts, .. }) = waiting else {
            let late = self.resolve_late(key, user, expires_at).await?;
            return Ok(late.unwrap_or(Notified::Done));
        };
        let client = &facts.client_id;
        // It may have been denied since: the same client's other request, or as fraud.
        let is_quiet = self.is_quiet(user, client, self.clock.now()).await?;
        if is_quiet || !self.may_ask(client).await? {
            self.note_unsent(key, user).await?;
            return Ok(Notified::Done);
        }
        let mut devices = self.directory.devices_of(user).await?;
        let before = self.pushes_before(key).await?;
        let settled = |id: &DeviceId| before.get(id).is_some_and(PushRecord::is_settled);
        devices.retain(|device| device.state == DeviceState::Active && !settled(&device.id));
        // Only here, and noted like a phone's, so that the server is as busy for nobody as for somebody, but for
        // the push itself.
        if facts.decoy {
            devices.clear();
        }
        let now = self.clock.now();
        let mut notified = Notified::Done;
        // Each gateway has a pace of its own: what one wants to wait for keeps no other phone waiting.
        let waits = |device: &Device| {
            let push = before.get(&device.id)?;
            Some((push, push.waits(now)?))
        };
        for (push, until) in devices.iter().filter_map(waits) {
            notified = notified.or_again(push.reason.as_deref().unwrap_or_default(), until);
        }
        devices.retain(|device| waits(device).is_none());
        // All at once: a gateway that hangs must not hold up the others until the job's lease ends.
        let sent = join_all(
            devices
                .iter()
                .map(|device| self.push(device, id, Signal::Waiting, expires_at)),
        )
        .await;
        let now = self.clock.now();
        let mut records = Vec::new();
        if facts.decoy {
            let nowhere = record(&PushOutcome::Unreachable, 0, now);
            records.push((DeviceId::new(user.as_str()), nowhere));
        }
        for (device, outcome) in devices.iter().zip(sent) {
            let attempts = before.get(&device.id).map_or(0, |push| push.attempts);
            let mut push = record(&outcome, attempts, now);
            if let Some((reason, until)) = outcome.again(now) {
                notified = notified.or_again(reason.as_str(), until);
            }
            if let PushOutcome::TokenDead { reason, since } = &outcome {
                let forgotten = self.forget_push_target(device, reason, *since).await;
                if let Err(error) = &forgotten {
                    let device = log_device(&device.id);
                    tracing::warn!(%error, device, "a dead push target is not forgotten");
                }
                // Not forgotten, or registered anew in the meantime: either way it is tried again.
                if !forgotten.unwrap_or(false) {
                    push.state = DeliveryState::Queued;
                    notified = notified.or_again(reason.as_str(), now);
                }
            }
            records.push((device.id.clone(), push));
        }
        self.note_pushes(key, &records).await;
        let late = self.resolve_late(key, user, expires_at).await?;
        Ok(late.unwrap_or(notified))
    }

    async fn note_pushes(&self, key: RequestKey, pushes: &[(DeviceId, PushRecord)]) {
        if let Err(error) = self.deliveries.note_pushes(key, pushes).await {
            // What was sent was sent. A phone that rings once more, should the job come back, is the price.
            tracing::warn!(request = log_id(key.id), %error, "what became of the pushes is not noted");
        }
    }

    /// The person's phones are left in peace, and the log says so.
    async fn note_unsent(&self, key: RequestKey, user: &UserId) -> Result<(), StoreError> {
        let before = self.pushes_before(key).await?;
        let mut devices = self.directory.devices_of(user).await?;
        devices.retain(|device| device.state == DeviceState::Active);
        let now = self.clock.now();
        // Of one that was tried it stays open whether it rang: it is to hear of the end.
        devices.retain(|device| before.get(&device.id).is_none_or(|push| push.attempts == 0));
        let unsent = devices.into_iter().map(|device| {
            let push = PushRecord {
                reason: Some("nothing may ring for it any more".to_owned()),
                ..record(&PushOutcome::Unreachable, 0, now)
            };
            (device.id, push)
        });
        self.note_pushes(key, &unsent.collect::<Vec<_>>()).await;
        Ok(())
    }

    /// A request that was decided while its pushes were on their way: whoever told of its end did not know yet
    /// who rings. `None`: it was not.
    async fn resolve_late(
        &self,
        key: RequestKey,
        user: &UserId,
        expires_at: Timestamp,
    ) -> Result<Option<Notified>, StoreError> {
        let standing = self.pending.standing(key, self.clock.now()).await?;
        if standing.is_none_or(|standing| matches!(standing.state, State::Pending | State::Expired))
        {
            return Ok(None);
        }
        let Some((decided, _)) = self.ledger.lookup(key.id).await? else {
            return Ok(None);
        };
        let answered_by = decided.device_id.as_ref();
        // By the clock of another node, perhaps; told twice does no harm.
        let rang_since = Some(decided.decided_at.minus(CLOCKS_APART));
        self.notify_resolved(key, user, answered_by, rang_since, expires_at)
            .await
            .map(Some)
    }

    /// What is known of earlier attempts: a phone that has rung must not ring again and again because its
    /// neighbour's gateway is down.
    async fn pushes_before(
        &self,
        key: RequestKey,
    ) -> Result<HashMap<DeviceId, PushRecord>, StoreError> {
        let deliveries = self.deliveries.deliveries(key).await?;
        let pushed = deliveries
            .into_iter()
            .filter_map(|delivery| Some((delivery.device, delivery.push?)));
        Ok(pushed.collect())
    }

    /// One attempt, and a line in the log for it.
    pub(super) async fn push(
        &self,
        device: &Device,
        id: RequestId,
        signal: Signal,
        expires_at: Timestamp,
    ) -> PushOutcome {
        let message = PushMessage {
            attempt: self.entropy.bytes(),
            reference: push_reference(id),
            signal,
            expires_at,
        };
        let begun = self.clock.now();
        let outcome = self.push.send(device, &message, begun).await;
        let took = self.clock.now().since(begun);
        count(id, device, signal, &outcome, took);
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

/// What is noted of an attempt, after so many before it.
fn record(outcome: &PushOutcome, before: u32, now: Timestamp) -> PushRecord {
    let (state, attempts) = match outcome {
        PushOutcome::Accepted { .. } => (DeliveryState::Accepted, before + 1),
        PushOutcome::TokenDead { .. } => (DeliveryState::Dead, before + 1),
        PushOutcome::Misconfigured { .. } | PushOutcome::OurBug { .. } => {
            (DeliveryState::Failed, before + 1)
        }
        PushOutcome::Unreachable => (DeliveryState::Failed, before),
        PushOutcome::Retry { .. } | PushOutcome::Throttled { .. } => {
            (DeliveryState::Queued, before + 1)
        }
        PushOutcome::HeldBack { .. } => (DeliveryState::Queued, before),
    };
    let reason = match outcome {
        PushOutcome::Unreachable => Some("there is nowhere to send it".to_owned()),
        outcome => outcome.reason().map(|reason| reason.as_str().to_owned()),
    };
    PushRecord {
        state,
        at: now,
        attempts,
        not_before: outcome.again(now).map(|(_, until)| until),
        gateway_id: match outcome {
            PushOutcome::Accepted { id } => id.clone(),
            _ => None,
        },
        reason,
    }
}

impl Notified {
    /// Of several the one that may be tried first sets the time; the others wait on.
    pub(super) fn or_again(self, why: &str, not_before: Timestamp) -> Self {
        match self {
            Self::Retry { reason, earliest } if earliest <= not_before => {
                Self::Retry { reason, earliest }
            }
            _ => Self::Retry {
                reason: why.to_owned(),
                earliest: not_before,
            },
        }
    }
}

/// Tells the phone that something waits, and a gateway nothing: it cannot be turned back into the id.
fn push_reference(id: RequestId) -> String {
    crate::crypto::base64url(&sha256(&[b"push-reference".as_slice(), id.as_bytes()].concat())[..16])
}

fn count(id: RequestId, device: &Device, signal: Signal, outcome: &PushOutcome, took: Duration) {
    let (signal, took_ms) = (signal.as_str(), took.as_millis());
    let platform = device.description.platform.as_str();
    let (request, device) = (log_id(id), log_device(&device.id));
    match outcome {
        // No attempt was made. The gateway's trouble has been logged once, and held-back pushes have a
        // count of their own.
        PushOutcome::HeldBack { .. } => {
            tracing::debug!(request, device, platform, signal, took_ms, ?outcome, "push");
            return;
        }
        PushOutcome::Misconfigured { .. } | PushOutcome::OurBug { .. } => {
            tracing::error!(request, device, platform, signal, took_ms, ?outcome, "push");
        }
        _ => tracing::info!(request, device, platform, signal, took_ms, ?outcome, "push"),
    }
    metrics::counter!("assent_pushes_total", "platform" => platform, "outcome" => outcome.label())
        .increment(1);
    if outcome.reason().is_some_and(|reason| !reason.is_known()) {
        metrics::counter!("assent_push_reasons_unknown_total", "platform" => platform).increment(1);
    }
}
