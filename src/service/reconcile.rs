//! Says again to the projection what the Ledger knows, for ever and idempotently.
//!
//! There is no mark for "applied": kept in SQL it would outlive the projection's write, which a
//! fail-over may take back.

use super::Services;
use crate::store::StoreError;
pub use crate::store::sql::ledger::Standings;

const PAGE: u32 = 500;

impl Services {
    /// Applies these outcomes, and what became of them. Returns how many there are.
    pub async fn reconcile(&self, these: Standings) -> Result<usize, StoreError> {
        let now = self.clock.now();
        let mut after: Option<String> = None;
        let mut seen = 0;
        let mut trouble = None;
        loop {
            let page = self
                .ledger
                .standing_states(these, after.as_deref(), PAGE, now);
            let page = page.await?;
            for damage in &page.damaged {
                tracing::error!(error = %damage, "an outcome cannot be read and is left out of the sweep");
                metrics::counter!("assent_damaged_outcomes_total").increment(1);
            }
            // Part of the projection may be out of reach; the rest is told all the same.
            trouble = trouble.or(self.pending.project_all(&page.states).await.err());
            seen += page.states.len();
            if !page.is_full {
                return trouble.map_or(Ok(seen), Err);
            }
            after = page.last;
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
