//! When a person's phones stay quiet although there would be room for a prompt: a denial counts.

use super::Services;
use crate::domain::{ClientId, DenyReason, Timestamp, UserId};
use crate::store::StoreError;
use std::time::Duration;

/// What a denial does to later prompts.
#[derive(Clone, Copy, Debug)]
pub struct QuietPolicy {
    /// How long a client that was denied wakes the person no more.
    pub after_denial: Duration,
    /// How long nobody wakes a person who reported fraud.
    pub after_fraud: Duration,
    /// Whether the device that reported it must be confirmed anew.
    pub lock_device: bool,
}

impl Services {
    /// Whether a request of `client` must not wake the person now. It asks the Ledger, so that no loss of
    /// the fast path wakes anybody.
    pub(super) async fn is_quiet(
        &self,
        user: &UserId,
        client: &ClientId,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let policy = &self.policy.quiet;
        let since = now.minus(policy.after_denial.max(policy.after_fraud));
        let denials = self.ledger.denials_since(user, since).await?;
        Ok(denials.iter().any(|denial| {
            let ago = now.since(denial.at);
            let is_fraud = denial.reason == Some(DenyReason::Fraud);
            is_fraud && ago < policy.after_fraud
                || denial.client_id == *client && ago < policy.after_denial
        }))
    }
}
