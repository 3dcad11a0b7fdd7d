//! How far a request has come on its way to a phone.

use super::{DeviceId, Timestamp};
use serde::{Deserialize, Serialize};

text_enum! {
    /// How far, in one word.
    DeliveryState: "delivery state" {
        /// To be sent, or to be sent again.
        Queued = "queued",
        /// The gateway has it. Whether the phone gets it, nobody tells.
        Accepted = "accepted",
        /// It will not be sent: the operator has something to mend, or there is nowhere to send it.
        Failed = "failed",
        /// The push target is gone for good.
        Dead = "dead",
        /// The phone has fetched the challenge: the one true receipt.
        Fetched = "fetched",
        /// Its person decided on it.
        Answered = "answered",
    }
}

/// What became of the attempts to push.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushRecord {
    /// `Queued`, `Accepted`, `Failed` or `Dead`.
    pub state: DeliveryState,
    /// When it was last tried.
    pub at: Timestamp,
    pub attempts: u32,
    /// A queued one is not tried again before this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Timestamp>,
    /// The gateway's own name for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway_id: Option<String>,
    /// What the gateway said against it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl PushRecord {
    /// Whether nothing more is to be sent.
    pub fn is_settled(&self) -> bool {
        self.state != DeliveryState::Queued
    }

    /// What it is where nothing is sent from a time on: the request is over then.
    #[must_use]
    pub fn sent_until(self, end: Timestamp, now: Timestamp) -> Self {
        let next = self.not_before.unwrap_or(now).max(now);
        let state = match self.state {
            DeliveryState::Queued if end <= next => DeliveryState::Failed,
            state => state,
        };
        Self { state, ..self }
    }

    /// Until when it must wait, if that is so.
    pub fn waits(&self, now: Timestamp) -> Option<Timestamp> {
        self.not_before.filter(|until| now < *until)
    }
}

/// What is known of one request and one device. The server and the phone each write their half.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    pub device: DeviceId,
    pub push: Option<PushRecord>,
    pub fetched_at: Option<Timestamp>,
}

impl Delivery {
    /// How far it has come, for a request that this device did not answer.
    pub fn state(&self) -> DeliveryState {
        match (&self.fetched_at, &self.push) {
            (Some(_), _) => DeliveryState::Fetched,
            (None, Some(push)) => push.state,
            (None, None) => DeliveryState::Queued,
        }
    }
}
