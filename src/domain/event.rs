//! What an operator's other systems want to hear of at once.

use super::{ClientId, DeviceId, Partition, RequestId, Timestamp, UserId};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How long it is tried to tell of an event.
const TOLD_FOR: Duration = Duration::from_secs(3 * 24 * 3600);

/// Something that happened. It names people, devices and clients by their ids only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// The same whenever the event is told again.
    pub id: String,
    pub at: Timestamp,
    /// Where its person lives.
    pub partition: Partition,
    #[serde(flatten)]
    pub kind: EventKind,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", content = "data")]
pub enum EventKind {
    #[serde(rename = "device.enrolled")]
    DeviceEnrolled { user: UserId, device: DeviceId },
    #[serde(rename = "device.revoked")]
    DeviceRevoked {
        user: UserId,
        device: DeviceId,
        /// `owner` or `operator`.
        by: String,
    },
    /// A person said of a request that it was not theirs.
    #[serde(rename = "fraud.reported")]
    FraudReported {
        user: UserId,
        device: DeviceId,
        client: ClientId,
        request: RequestId,
    },
    /// A person is asked so often that their phones are no longer woken.
    #[serde(rename = "prompts.exceeded")]
    PromptsExceeded { user: UserId, client: ClientId },
    /// A job was given up.
    #[serde(rename = "job.dead")]
    JobDead { job: String, error: String },
}

impl Event {
    /// When it is given up to tell of it.
    pub fn told_until(&self) -> Timestamp {
        self.at.plus(TOLD_FOR)
    }
}
