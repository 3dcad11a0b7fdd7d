//! Tries whether a phone can be woken, for an operator who wants to know.

use super::Services;
use crate::domain::Device;
use crate::push::{PushMessage, Signal};
use crate::store::StoreError;
use std::time::Duration;

pub use crate::push::PushOutcome;

/// Whoever tries it has the phone in front of them.
const LIFETIME: Duration = Duration::from_secs(60);

/// What came of it.
#[derive(Debug)]
pub struct TestedPush {
    pub outcome: PushOutcome,
    /// Whether the target was found dead, and forgotten.
    pub forgotten: bool,
}

impl Services {
    /// Sends a push that says it is a test, by the way that requests take.
    pub async fn test_push(&self, device: &Device) -> Result<TestedPush, StoreError> {
        let now = self.clock.now();
        let message = PushMessage {
            attempt: self.entropy.bytes(),
            reference: self.random_id(),
            signal: Signal::Test,
            expires_at: now.plus(LIFETIME),
        };
        let outcome = self.push.send(device, &message, now).await;
        let forgotten = match &outcome {
            PushOutcome::TokenDead { reason, since } => {
                self.forget_push_target(device, reason, *since).await?
            }
            PushOutcome::Accepted { .. }
            | PushOutcome::Unreachable
            | PushOutcome::Throttled { .. }
            | PushOutcome::HeldBack { .. }
            | PushOutcome::Retry { .. }
            | PushOutcome::Misconfigured { .. }
            | PushOutcome::OurBug { .. } => false,
        };
        Ok(TestedPush { outcome, forgotten })
    }
}
