//! The relying party comes for the result: polls of the token endpoint (CIBA Core 10.1, 11).

use super::authenticate_client::KnownClient;
use super::held_polls::HeldPoll;
use super::mint::Via;
use super::{Services, log_id};
use crate::crypto::auth_req_id::Handle;
use crate::crypto::jose::{Jws, VerifyingKey};
use crate::crypto::sha256_base64url;
use crate::domain::approval::APPROVAL_TYP;
use crate::domain::challenge::CHALLENGE_TYP;
use crate::domain::client::{DeliveryMode, Grant};
use crate::domain::device::PublicKey;
use crate::domain::outcome::{DecidedRequest, Issuance};
use crate::domain::pacing::Pace;
use crate::domain::request::State;
use crate::domain::{
    Approval, AuthReqId, Challenge, Client, Decision, Outcome, RequestId, RequestKey, Secret,
    Timestamp,
};
use crate::failpoint;
use crate::store::sql::ledger::{IssuedTokens, OpenRedemption, Redemption, UsedApproval};
use crate::store::{Poll, StoreError};
use serde_json::json;
use std::time::Duration;

/// How often a held poll looks for itself, should a wake-up get lost.
const RECHECK: Duration = Duration::from_secs(2);

/// Every answer that is not tokens.
#[derive(Debug, thiserror::Error)]
pub enum PollError {
    /// Not ours, not this client's, or used up: which of them is nobody's business.
    #[error("the auth_req_id is not valid for this client")]
    InvalidGrant,
    #[error("the person has not answered yet")]
    Pending,
    #[error("the person has not answered yet, and the client asks too often")]
    SlowDown,
    #[error("the request was not approved")]
    Denied,
    #[error("the request has expired")]
    Expired,
    /// Its results are pushed (CIBA Core 10.3), or it lacks the grant.
    #[error("this client may not use the token endpoint for this")]
    UnauthorizedClient,
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Services {
    /// Answers a poll; holds it for up to `wait` (or what the client registered) while the person
    /// decides. The answer is the body of the token response.
    pub async fn poll(
        &self,
        client: &KnownClient,
        id: &AuthReqId,
        wait: Option<Duration>,
    ) -> Result<Secret, PollError> {
        let registration = &client.registration;
        if !registration.allows(Grant::Ciba) || registration.delivery.mode() == DeliveryMode::Push {
            return Err(PollError::UnauthorizedClient);
        }
        let started = self.clock.now();
        let handle = self
            .keys
            .open_auth_req_id(&client.id, id)
            .ok_or(PollError::InvalidGrant)?;
        let wait = wait
            .unwrap_or(client.registration.long_poll)
            .min(self.policy.max_long_poll);
        let replaces = self.held.replace(handle.request_id);
        // A poll that will not be held must not be noted as one.
        let limit = self.policy.held_polls_per_client;
        let holds = !wait.is_zero() && self.held.has_room(&client.id, limit);
        let held_until = holds.then(|| started.plus(wait));
        let poll = Poll {
            replaces,
            held_until,
        };
        let Some(polled) = self.pending.poll(handle.key(), poll, started).await? else {
            return self.forgotten(client, &handle, started).await;
        };
        match (polled.state, polled.pace, held_until) {
            (State::Pending, Pace::Broken, _) => Err(PollError::SlowDown),
            (State::Pending, Pace::Kept, None) => Err(PollError::Pending),
            (State::Pending, Pace::Kept, Some(until)) => {
                let place = self.held.hold(&client.id, handle.request_id, limit);
                let place = place.ok_or(PollError::Pending)?;
                match self.wait(&handle, place, polled.number, until).await? {
                    Some(state) => self.settled(client, &handle, state, self.clock.now()).await,
                    None => self.forgotten(client, &handle, self.clock.now()).await,
                }
            }
            (state, _, _) => self.settled(client, &handle, state, started).await,
        }
    }

    /// Holds a poll until the request is decided (where it then stands; `None`: the projection has lost
    /// it), the time is up, a newer poll arrives, or the server drains. If the client goes away this future
    /// is dropped with its connection, so nothing is redeemed for nobody. What comes after is no waiting
    /// any more, so the place is given up before.
    async fn wait(
        &self,
        handle: &Handle,
        place: HeldPoll,
        number: u64,
        until: Timestamp,
    ) -> Result<Option<State>, PollError> {
        let mut changes = self.pending.watch(handle.request_id);
        loop {
            let now = self.clock.now();
            let Some(standing) = self.pending.standing(handle.key(), now).await? else {
                return Ok(None);
            };
            if standing.state != State::Pending {
                return Ok(Some(standing.state));
            }
            if now >= until || standing.newest_poll != number {
                return Err(PollError::Pending);
            }
            let next = until.min(handle.expires_at).min(now.plus(RECHECK));
            tokio::select! {
                _ = changes.changed() => {}
                () = self.clock.sleep_until(next) => {}
                () = place.replaced.cancelled() => return Err(PollError::Pending),
                () = self.draining.cancelled() => return Err(PollError::Pending),
            }
        }
    }

    /// The projection knows nothing: the Ledger is asked once.
    async fn forgotten(
        &self,
        client: &KnownClient,
        handle: &Handle,
        now: Timestamp,
    ) -> Result<Secret, PollError> {
        client.confirmed()?;
        match self.ledger.lookup(handle.request_id).await? {
            None => Err(PollError::Expired),
            Some((_, Some(used))) => self.used(used, now),
            // Of a decoy nothing is left once its record is gone.
            Some((decided, None))
                if decided.outcome == Outcome::Cancelled && client.registration.gets_decoys() =>
            {
                Err(PollError::Expired)
            }
            Some((decided, None)) => {
                self.settled(client, handle, State::from(decided.outcome), now)
                    .await
            }
        }
    }

    /// The projection says that something was decided.
    async fn settled(
        &self,
        client: &KnownClient,
        handle: &Handle,
        state: State,
        now: Timestamp,
    ) -> Result<Secret, PollError> {
        let client = client.confirmed()?;
        match state {
            State::Approved => self.redeem(client, handle, now).await,
            State::Denied | State::Cancelled | State::Burned => Err(PollError::Denied),
            State::Expired => Err(PollError::Expired),
            State::Redeemed if self.policy.redelivery.is_zero() => Err(PollError::InvalidGrant),
            State::Redeemed => match self.ledger.lookup(handle.request_id).await? {
                Some((_, Some(used))) => self.used(used, now),
                _ => Err(PollError::InvalidGrant),
            },
            State::Pending => Err(PollError::Pending),
        }
    }

    async fn redeem(
        &self,
        client: &Client,
        handle: &Handle,
        now: Timestamp,
    ) -> Result<Secret, PollError> {
        self.redeem_via(client, handle.key(), Via::TokenEndpoint, now)
            .await
    }

    /// Redeems an approval for its client: whoever comes first gets the tokens, nobody after.
    pub(super) async fn redeem_via(
        &self,
        client: &Client,
        key: RequestKey,
        via: Via,
        now: Timestamp,
    ) -> Result<Secret, PollError> {
        let RequestKey { partition, id } = key;
        failpoint::hit("redeem.before_ledger");
        let open = match self.ledger.begin_redemption(id, partition, now).await? {
            Redemption::Open(open) => open,
            Redemption::Used(used) => {
                self.project(key, used.kind.into()).await;
                return self.used(used, now);
            }
            Redemption::NotApproved(outcome) => {
                self.project(key, outcome.into()).await;
                return Err(PollError::Denied);
            }
            Redemption::Expired | Redemption::Undecided => return Err(PollError::Expired),
        };
        if open.decided.client_id != client.id {
            return Err(PollError::InvalidGrant);
        }
        let standing = open.standing.clone();
        let (Some(profile), true, Some(device)) =
            (standing.user, standing.client_active, standing.device)
        else {
            return self.withdraw(*open, "locked or revoked", now).await;
        };
        let Some(challenge) = self.proven_challenge(&open.decided, &device) else {
            tracing::error!(
                request = log_id(id),
                "the evidence of an approval does not verify"
            );
            return self.withdraw(*open, "evidence does not verify", now).await;
        };
        let (tokens, response) = self
            .mint(&open.decided, &challenge, client, &profile, via, now)
            .map_err(StoreError::misconfigured)?;
        failpoint::hit("redeem.after_mint");
        self.issue(*open, tokens, now).await?;
        Ok(response)
    }

    async fn issue(
        &self,
        open: OpenRedemption,
        tokens: IssuedTokens,
        now: Timestamp,
    ) -> Result<(), PollError> {
        let key = open.decided.key();
        let id = key.id;
        let token_id = tokens.access.token.id.clone();
        let payload = json!({
            "request": id,
            "client": open.decided.client_id,
            "user": open.decided.user_id,
            "token": token_id,
            "refresh_family": tokens.access.token.family_id,
            "scope": tokens.access.token.scope,
        });
        match open
            .issue(&tokens, self.entry("tokens.issued", now, payload))
            .await
        {
            Ok(()) => {}
            Err(StoreError::CommitUnknown(cause)) => {
                tracing::warn!(request = log_id(id), %cause, "commit of an issuance unknown: reading back");
                match self.ledger.lookup(id).await? {
                    Some((_, Some(used))) if used.token_id.as_ref() == Some(&token_id) => {}
                    Some((_, Some(used))) => return self.used(used, now).map(drop),
                    _ => return Err(StoreError::Unavailable(cause).into()),
                }
            }
            Err(error) => return Err(error.into()),
        }
        tracing::info!(request = log_id(id), "tokens issued");
        self.project(key, State::Redeemed).await;
        failpoint::hit("redeem.after_projection");
        Ok(())
    }

    async fn withdraw(
        &self,
        open: OpenRedemption,
        why: &'static str,
        now: Timestamp,
    ) -> Result<Secret, PollError> {
        let key = open.decided.key();
        self.void(open, why, now).await?;
        self.project(key, State::Cancelled).await;
        Err(PollError::Denied)
    }

    /// Withdraws an approval that is held open.
    pub(super) async fn void(
        &self,
        open: OpenRedemption,
        why: &'static str,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let id = open.decided.request_id;
        let payload = json!({
            "request": id,
            "client": open.decided.client_id,
            "user": open.decided.user_id,
            "why": why,
        });
        open.void(self.entry("approval.voided", now, payload))
            .await?;
        tracing::info!(request = log_id(id), why, "approval withdrawn");
        Ok(())
    }

    /// What a poll gets for an approval that has been used up.
    fn used(&self, used: UsedApproval, now: Timestamp) -> Result<Secret, PollError> {
        match used.kind {
            Issuance::Voided => Err(PollError::Denied),
            Issuance::Issued => match used.response {
                Some(response) if now < used.issued_at.plus(self.policy.redelivery) => Ok(response),
                _ => Err(PollError::InvalidGrant),
            },
        }
    }

    /// The challenge behind an approval, if both statements verify and speak of this request, person,
    /// client and device.
    fn proven_challenge(&self, decided: &DecidedRequest, device: &PublicKey) -> Option<Challenge> {
        let signed = decided.evidence.challenge.as_deref()?;
        let device_id = decided.device_id.as_ref()?;
        let challenge: Challenge = self.keys.verify_challenge(CHALLENGE_TYP, signed).ok()?;
        let approval = Jws::parse(decided.evidence.approval.as_deref()?).ok()?;
        let approval: Approval = approval
            .verify(APPROVAL_TYP, &VerifyingKey::new(device)?)
            .ok()?;
        let hash = sha256_base64url(signed.as_bytes());
        let proven = decided.outcome == Outcome::Approved
            && approval.decision == Decision::Approve
            && approval
                .check(
                    device_id,
                    &self.policy.issuer,
                    &hash,
                    challenge.matching,
                    decided.decided_at,
                )
                .is_ok()
            && challenge.aud == *device_id
            && challenge.req == decided.request_id
            && challenge.client.id == decided.client_id
            && self
                .keys
                .sub_ref_matches(&decided.user_id, &challenge.sub_ref);
        proven.then_some(challenge)
    }

    /// Whether a poll for this request is held by this node.
    pub fn is_poll_held(&self, id: RequestId) -> bool {
        self.held.holds(id)
    }

    /// How many polls this node holds.
    pub fn held_polls(&self) -> usize {
        self.held.count()
    }

    /// Erases responses whose redelivery period is over.
    pub async fn erase_redeliveries(&self) -> Result<u64, StoreError> {
        self.ledger
            .erase_responses(self.clock.now().minus(self.policy.redelivery))
            .await
    }
}

/// How polls are counted.
pub const fn poll_label(answer: &Result<Secret, PollError>) -> &'static str {
    match answer {
        Ok(_) => "tokens",
        Err(PollError::InvalidGrant) => "invalid_grant",
        Err(PollError::Pending) => "authorization_pending",
        Err(PollError::SlowDown) => "slow_down",
        Err(PollError::Denied) => "access_denied",
        Err(PollError::Expired) => "expired_token",
        Err(PollError::UnauthorizedClient) => "unauthorized_client",
        Err(PollError::Store(_)) => "error",
    }
}
