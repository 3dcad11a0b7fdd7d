//! THE state machine: what can happen to a backchannel authentication request, and what cannot.
//!
//! ```text
//! Pending ──approve──▶ Approved ──redeem──▶ Redeemed
//!    │                    ├──cancel──▶ Cancelled
//!    ├──deny────▶ Denied  └──(60 s after expires_at)──▶ Expired
//!    ├──burn────▶ Burned
//!    ├──cancel──▶ Cancelled
//!    └──(expires_at)──▶ Expired
//! ```
//!
//! Expiry is computed from the clock on every read, never stored; no edge leaves a terminal state.

use super::client::DeliveryMode;
use super::outcome::Issuance;
use super::{
    BindingMessage, ClientId, Outcome, Partition, RequestId, RequestKey, Scope, Timestamp, UserId,
};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How long an approval stays redeemable after the request's own end.
pub const REDEMPTION_GRACE: Duration = Duration::from_secs(60);

/// The one authentication context class there is so far: a signature by an enrolled device.
pub const ACR_DEVICE: &str = "urn:assent:acr:device";
/// How the person was authenticated (RFC 8176): by a software-held key, until better is verified.
pub const AMR_DEVICE: &[&str] = &["swk"];

/// A request and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackchannelRequest {
    pub facts: Facts,
    pub state: State,
}

/// What was asked; fixed when the request is created.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    pub id: RequestId,
    pub client_id: ClientId,
    pub user_id: UserId,
    pub partition: Partition,
    /// The `auth_req_id`, sealed: needed again for deliveries and replays.
    pub sealed_auth_req_id: String,
    /// The client's `client_notification_token`, sealed; ping and push only.
    pub sealed_notification_token: Option<String>,
    /// The sector that has a `sub` of its own for the person; `None`: it is the person's id.
    pub sector: Option<String>,
    pub scope: Scope,
    pub acr: String,
    pub binding_message: Option<BindingMessage>,
    pub authorization_details: Option<serde_json::Value>,
    pub delivery_mode: DeliveryMode,
    /// The length of the code that must be typed to approve; `None`: none must.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matching_digits: Option<u8>,
    /// It pends and expires like any other, but nobody is asked.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub decoy: bool,
    pub created_at: Timestamp,
    pub expires_at: Timestamp,
}

impl Facts {
    /// Where the request is found.
    pub const fn key(&self) -> RequestKey {
        RequestKey {
            partition: self.partition,
            id: self.id,
        }
    }

    /// Until when an approval can be redeemed.
    pub fn redeemable_until(&self) -> Timestamp {
        redeemable_until(self.expires_at)
    }
}

/// Until when an approval of a request that ends at `expires_at` can be redeemed.
pub fn redeemable_until(expires_at: Timestamp) -> Timestamp {
    expires_at.plus(REDEMPTION_GRACE)
}

text_enum! {
    /// Where a request stands.
    State: "request state" {
        Pending = "pending",
        Approved = "approved",
        Denied = "denied",
        Cancelled = "cancelled",
        Burned = "burned",
        Expired = "expired",
        Redeemed = "redeemed",
    }
}

impl State {
    /// Whether nothing can happen any more.
    pub const fn is_terminal(self) -> bool {
        !matches!(self, Self::Pending | Self::Approved)
    }

    /// The stored state as it stands at `now`, for a request that ends at `expires_at`: what has run
    /// out is expired.
    #[must_use]
    pub fn at(self, expires_at: Timestamp, now: Timestamp) -> Self {
        let end = match self {
            Self::Pending => expires_at,
            Self::Approved => redeemable_until(expires_at),
            _ => return self,
        };
        if now < end { self } else { Self::Expired }
    }
}

impl From<Outcome> for State {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Approved => Self::Approved,
            Outcome::Denied => Self::Denied,
            Outcome::Cancelled => Self::Cancelled,
            Outcome::Burned => Self::Burned,
        }
    }
}

impl From<Issuance> for State {
    fn from(issuance: Issuance) -> Self {
        match issuance {
            Issuance::Issued => Self::Redeemed,
            Issuance::Voided => Self::Cancelled,
        }
    }
}

/// What can happen to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    Decide(Outcome),
    Redeem,
}

/// The event does not apply where the request stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{event:?} does not apply to a request that is {from}")]
pub struct InvalidTransition {
    pub from: State,
    pub event: Event,
}

impl BackchannelRequest {
    pub const fn new(facts: Facts) -> Self {
        Self {
            facts,
            state: State::Pending,
        }
    }

    /// The request as it stands at `now`: what has run out is expired.
    #[must_use]
    pub fn at(self, now: Timestamp) -> Self {
        let state = self.state.at(self.facts.expires_at, now);
        Self { state, ..self }
    }

    /// Applies an event at `now`.
    ///
    /// # Errors
    /// [`InvalidTransition`] when the event does not apply, with the state the request is in at `now`.
    pub fn apply(self, event: Event, now: Timestamp) -> Result<Self, InvalidTransition> {
        let request = self.at(now);
        let state = match (request.state, event) {
            (State::Pending, Event::Decide(outcome)) => outcome.into(),
            (State::Approved, Event::Decide(Outcome::Cancelled)) => State::Cancelled,
            (State::Approved, Event::Redeem) => State::Redeemed,
            (from, event) => return Err(InvalidTransition { from, event }),
        };
        Ok(Self { state, ..request })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const EXPIRES: i64 = 120_000;
    const EVENTS: [Event; 5] = [
        Event::Decide(Outcome::Approved),
        Event::Decide(Outcome::Denied),
        Event::Decide(Outcome::Cancelled),
        Event::Decide(Outcome::Burned),
        Event::Redeem,
    ];

    fn request(state: State) -> BackchannelRequest {
        let facts = Facts {
            id: RequestId::from_bytes([7; 32]),
            client_id: ClientId::new("c"),
            user_id: UserId::new("u"),
            partition: Partition(3),
            sealed_auth_req_id: "sealed".into(),
            sealed_notification_token: None,
            sector: None,
            scope: Scope::parse("openid").unwrap(),
            acr: ACR_DEVICE.into(),
            binding_message: None,
            authorization_details: None,
            delivery_mode: DeliveryMode::Poll,
            matching_digits: None,
            decoy: false,
            created_at: Timestamp::from_millis(0),
            expires_at: Timestamp::from_millis(EXPIRES),
        };
        BackchannelRequest { facts, state }
    }

    /// The whole machine: every state, every event, in time, in the grace period, and after it. What
    /// is not listed is refused, and refused from the state that is written down here.
    #[test]
    fn every_state_every_event_every_time() {
        use State::{Approved, Burned, Cancelled, Denied, Expired, Pending, Redeemed};
        let allowed = |state, event, time| match (state, event, time) {
            (Pending, Event::Decide(Outcome::Approved), 0) => Some(Approved),
            (Pending, Event::Decide(Outcome::Denied), 0) => Some(Denied),
            (Pending, Event::Decide(Outcome::Cancelled), 0) => Some(Cancelled),
            (Pending, Event::Decide(Outcome::Burned), 0) => Some(Burned),
            (Approved, Event::Decide(Outcome::Cancelled), 0 | 1) => Some(Cancelled),
            (Approved, Event::Redeem, 0 | 1) => Some(Redeemed),
            _ => None,
        };
        let stands = |state, time| match (state, time) {
            (Pending, 1 | 2) | (Approved, 2) => Expired,
            (state, _) => state,
        };
        let mut cells = 0;
        for &state in State::ALL {
            for event in EVENTS {
                for (time, now) in [0, EXPIRES, EXPIRES + 60_000].into_iter().enumerate() {
                    let got = request(state).apply(event, Timestamp::from_millis(now));
                    let want = allowed(state, event, time).ok_or(InvalidTransition {
                        from: stands(state, time),
                        event,
                    });
                    assert_eq!(got.map(|r| r.state), want, "{state} {event:?} at {now}");
                    cells += 1;
                }
            }
        }
        assert_eq!(cells, 7 * 5 * 3);
    }

    #[test]
    fn the_last_moment_counts_and_the_next_does_not() {
        let approve = Event::Decide(Outcome::Approved);
        let at = Timestamp::from_millis;
        assert!(
            request(State::Pending)
                .apply(approve, at(EXPIRES - 1))
                .is_ok()
        );
        assert!(request(State::Pending).apply(approve, at(EXPIRES)).is_err());
        assert!(
            request(State::Approved)
                .apply(Event::Redeem, at(EXPIRES + 59_999))
                .is_ok()
        );
        assert!(
            request(State::Approved)
                .apply(Event::Redeem, at(EXPIRES + 60_000))
                .is_err()
        );
    }

    proptest! {
        /// Whatever happens in whatever order: terminal is terminal, and redemption follows approval.
        #[test]
        fn no_history_leaves_a_terminal_state(steps in prop::collection::vec((0_usize..5, 0_i64..40_000), 0..20)) {
            let mut request = request(State::Pending);
            let mut now = 0;
            let mut approved = false;
            for (event, pause) in steps {
                now += pause;
                let before = request.clone().at(Timestamp::from_millis(now));
                match before.clone().apply(EVENTS[event], Timestamp::from_millis(now)) {
                    Ok(after) => {
                        prop_assert!(!before.state.is_terminal());
                        prop_assert!(after.state != State::Redeemed || approved);
                        approved |= after.state == State::Approved;
                        request = after;
                    }
                    Err(_) => request = before,
                }
            }
        }
    }
}
