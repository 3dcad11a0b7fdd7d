//! Withdraws a request, whether it waits or has been approved.

use super::authenticate_client::AuthenticatedClient;
use super::{Services, log_id};
use crate::domain::outcome::{DecidedRequest, Evidence, Issuance};
use crate::domain::request::{BackchannelRequest, Event, State};
use crate::domain::{AuthReqId, Job, Outcome, Partition, RequestKey, Timestamp, UserId};
use crate::store::StoreError;
use crate::store::sql::ledger::{Recorded, Redemption};
use serde_json::json;

/// What a request is after somebody tried to cancel it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cancelled {
    /// It will never yield tokens.
    Yes,
    /// It was over before.
    TooLate(State),
    /// Nobody knows it.
    Unknown,
}

#[derive(Debug, thiserror::Error)]
pub enum CancelError {
    #[error("the auth_req_id is not valid for this client")]
    InvalidGrant,
    #[error("the request is over")]
    TooLate,
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Services {
    /// A client withdraws its own request; doing it again changes nothing. It is not notified of what it did
    /// itself.
    pub async fn cancel_own(
        &self,
        client: &AuthenticatedClient,
        id: &AuthReqId,
    ) -> Result<(), CancelError> {
        let now = self.clock.now();
        let cancelled = self.cancel_own_at(client, id, now).await;
        self.until_decoys_answer(client, now).await;
        cancelled
    }

    async fn cancel_own_at(
        &self,
        client: &AuthenticatedClient,
        id: &AuthReqId,
        now: Timestamp,
    ) -> Result<(), CancelError> {
        let handle = self
            .keys
            .open_auth_req_id(&client.id, id)
            .ok_or(CancelError::InvalidGrant)?;
        // Of a decoy nothing is left once its record is gone, and a client that gets decoys must not tell.
        let key = handle.key();
        let is_over =
            client.registration.gets_decoys() && self.pending.standing(key, now).await?.is_none();
        match self
            .cancel_as(key, "cancelled by the client", false)
            .await?
        {
            Cancelled::Yes if !is_over => Ok(()),
            Cancelled::Yes | Cancelled::TooLate(_) | Cancelled::Unknown => {
                Err(CancelError::TooLate)
            }
        }
    }

    /// Cancels a request. From then on, whatever races with it, it yields no tokens, unless it had
    /// yielded them before. Cancelling twice is cancelling once.
    pub async fn cancel(
        &self,
        key: RequestKey,
        why: &'static str,
    ) -> Result<Cancelled, StoreError> {
        self.cancel_as(key, why, true).await
    }

    async fn cancel_as(
        &self,
        key: RequestKey,
        why: &'static str,
        tells_client: bool,
    ) -> Result<Cancelled, StoreError> {
        let now = self.clock.now();
        let Some(request) = self.pending.find(key, now).await? else {
            return self.cancel_decided(key, why).await;
        };
        match request
            .clone()
            .apply(Event::Decide(Outcome::Cancelled), now)
        {
            Ok(_) if request.facts.decoy => self.cancel_decoy(&request.facts).await,
            Ok(_) if request.state == State::Pending => {
                if self.cancel_pending(request, why, tells_client).await? {
                    Ok(Cancelled::Yes)
                } else {
                    self.cancel_decided(key, why).await
                }
            }
            Ok(_) => self.cancel_decided(key, why).await,
            Err(refused) => Ok(match refused.from {
                State::Cancelled => Cancelled::Yes,
                from => Cancelled::TooLate(from),
            }),
        }
    }

    /// Cancels every request that is open for a person and was made before `until`. Returns how many. What
    /// cannot be cancelled keeps none of the others.
    pub async fn cancel_open(
        &self,
        user: &UserId,
        partition: Partition,
        until: Timestamp,
        why: &'static str,
    ) -> Result<usize, StoreError> {
        let now = self.clock.now();
        let mut open = self.pending.open_for(user, partition, now).await?;
        open.retain(|request| request.facts.created_at <= until);
        let (mut count, mut trouble) = (0, None);
        for request in open {
            match self.cancel_pending(request, why, true).await {
                // One that was decided in this moment is not open any more.
                Ok(is_first) => count += usize::from(is_first),
                Err(error) => trouble = trouble.or(Some(error)),
            }
        }
        trouble.map_or(Ok(count), Err)
    }

    /// False: somebody has decided before.
    async fn cancel_pending(
        &self,
        request: BackchannelRequest,
        why: &'static str,
        tells_client: bool,
    ) -> Result<bool, StoreError> {
        let facts = request.facts;
        let now = self.clock.now();
        let decided = DecidedRequest {
            request_id: facts.id,
            partition: facts.partition,
            client_id: facts.client_id.clone(),
            user_id: facts.user_id.clone(),
            device_id: None,
            outcome: Outcome::Cancelled,
            reason: None,
            decided_at: now,
            expires_at: facts.expires_at,
            evidence: Evidence {
                challenge: None,
                approval: None,
                auth_req_id: self.open_auth_req_id_of(&facts)?,
                subject: self.subject_of(&facts).await?,
                delivery_mode: facts.delivery_mode,
                client_notification_token: self.open_notification_token_of(&facts)?,
                sender_constraint: None,
            },
        };
        let open = self
            .ledger
            .begin_decision(facts.partition, &facts.user_id, &facts.client_id, None)
            .await?;
        let told = Job::notify_client(&decided).filter(|_| tells_client);
        let others = open.standing.notify_resolved(&decided);
        let follow_ups: Vec<Job> = told.into_iter().chain(others).collect();
        let payload = json!({
            "request": facts.id,
            "client": facts.client_id,
            "user": facts.user_id,
            "outcome": Outcome::Cancelled,
            "why": why,
        });
        let entry = self.entry("request.decided", now, payload);
        match open.record(&decided, &follow_ups, entry).await? {
            Recorded::First => {
                tracing::info!(request = log_id(facts.id), why, "request cancelled");
                metrics::counter!("assent_decisions_total", "outcome" => "cancelled").increment(1);
                self.project(facts.key(), State::Cancelled).await;
                if !follow_ups.is_empty() {
                    self.ledger_jobs_ready.notify_waiters();
                }
                Ok(true)
            }
            Recorded::Lost(_) => Ok(false),
        }
    }

    /// Something was decided: an approval that nobody has redeemed can still be withdrawn.
    async fn cancel_decided(
        &self,
        key: RequestKey,
        why: &'static str,
    ) -> Result<Cancelled, StoreError> {
        let now = self.clock.now();
        match self
            .ledger
            .begin_redemption(key.id, key.partition, now)
            .await?
        {
            Redemption::Open(open) => {
                self.void(*open, why, now).await?;
                self.project(key, State::Cancelled).await;
                Ok(Cancelled::Yes)
            }
            Redemption::NotApproved(Outcome::Cancelled) => Ok(Cancelled::Yes),
            Redemption::NotApproved(outcome) => Ok(Cancelled::TooLate(outcome.into())),
            Redemption::Used(used) if used.kind == Issuance::Voided => Ok(Cancelled::Yes),
            Redemption::Used(used) => Ok(Cancelled::TooLate(used.kind.into())),
            Redemption::Expired => Ok(Cancelled::TooLate(State::Expired)),
            Redemption::Undecided => Ok(Cancelled::Unknown),
        }
    }
}
