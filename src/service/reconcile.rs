//! Says again to the projection what the Ledger knows, for ever and idempotently.
//!
//! There is no mark for "applied": kept in SQL it would outlive the projection's write, which a
//! fail-over may take back.

use super::Services;
use crate::store::StoreError;

const PAGE: u32 = 500;

impl Services {
    /// Applies every outcome and issuance that still matters. Returns how many there are.
    pub async fn reconcile(&self) -> Result<usize, StoreError> {
        let now = self.clock.now();
        let mut after = None;
        let mut seen = 0;
        loop {
            let page = self.ledger.standing_states(after, PAGE, now).await?;
            self.pending.project_all(&page).await?;
            seen += page.len();
            match page.last() {
                Some((last, _)) if page.len() == PAGE as usize => after = Some(last.id),
                _ => return Ok(seen),
            }
        }
    }

    /// Forgets what nobody can ask about any more.
    pub async fn sweep(&self) -> Result<(), StoreError> {
        let now = self.clock.now();
        self.pending.sweep(now).await?;
        self.replays.sweep(now).await?;
        self.tokens
            .sweep(now, now.minus(self.policy.refresh_grace))
            .await?;
        self.erase_redeliveries().await?;
        Ok(())
    }
}
