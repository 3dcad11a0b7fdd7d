//! Requests for nobody, and what a client that gets them must not learn by the clock.

use super::Services;
use super::authenticate_client::AuthenticatedClient;
use super::cancel::Cancelled;
use crate::domain::Timestamp;
use crate::domain::request::{Facts, State};
use crate::store::StoreError;
use serde_json::json;

impl Services {
    /// Until a client with decoys may have its answer: a while after it asked, in which whatever is done for
    /// somebody is done, and whatever is done for nobody.
    pub(super) async fn until_decoys_answer(
        &self,
        client: &AuthenticatedClient,
        asked_at: Timestamp,
    ) {
        if client.registration.gets_decoys() {
            let at = asked_at.plus(self.policy.decoy_answer_after);
            self.clock.sleep_until(at).await;
        }
    }

    /// Nobody was asked. It takes as long as with a person: a row of the audit, and the projection.
    pub(super) async fn cancel_decoy(&self, facts: &Facts) -> Result<Cancelled, StoreError> {
        let now = self.clock.now();
        let payload = json!({ "request": facts.id, "client": facts.client_id });
        let entry = self.entry("decoy.cancelled", now, payload);
        self.ledger.note(facts.partition, entry).await?;
        // No sweep repeats this, since the Ledger has no outcome of nobody's request.
        self.pending.project(facts.key(), State::Cancelled).await?;
        Ok(Cancelled::Yes)
    }
}
