//! Waking a phone. A push is the wake-up, never the truth: it carries a reference and nothing else.

pub mod recorder;

pub use recorder::PushRecorder;

use crate::domain::{Device, Timestamp};
use async_trait::async_trait;

/// What a push may carry: nothing of the request, the person or the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushMessage {
    /// Stands for the request; the phone asks over its own channel what it is about.
    pub reference: String,
    /// Which sentence the app shows in its own language.
    pub localisation_key: &'static str,
    /// After this the push is of no use.
    pub expires_at: Timestamp,
}

/// What a gateway made of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PushOutcome {
    Accepted,
    /// Not now; worth another try.
    Retry {
        reason: String,
    },
    /// The device has no target, or the gateway no longer knows it.
    Unreachable,
}

/// Hands messages to a gateway.
#[async_trait]
pub trait PushSender: Send + Sync {
    async fn send(&self, device: &Device, message: &PushMessage) -> PushOutcome;
}
