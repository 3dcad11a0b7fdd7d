//! The phone shows the request and answers: challenge out, signed decision in.

use super::authenticate_device::AuthenticatedDevice;
use super::{Services, log_device, log_id};
use crate::crypto::jose::{InvalidJws, Jws, VerifyingKey};
use crate::crypto::mac::equal;
use crate::crypto::sha256_base64url;
use crate::domain::approval::{APPROVAL_TYP, InvalidApproval};
use crate::domain::challenge::{CHALLENGE_TYP, ChallengeClient, Matching};
use crate::domain::display;
use crate::domain::outcome::{DecidedRequest, Evidence};
use crate::domain::request::{BackchannelRequest, Event, Facts, State};
use crate::domain::{
    Approval, AuthReqId, Challenge, ClientId, Decision, DenyReason, EventKind, Job, Outcome,
    RequestId, RequestKey, Timestamp,
};
use crate::failpoint;
use crate::store::StoreError;
use crate::store::sql::ledger::Recorded;
use serde_json::json;
use std::time::Duration;
use tokio::time::timeout;

/// One request in a phone's inbox.
#[derive(Clone, Debug)]
pub struct InboxItem {
    pub id: RequestId,
    pub created_at: Timestamp,
    pub expires_at: Timestamp,
}

/// What a phone sends back.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The challenge exactly as received.
    pub challenge: String,
    /// The approval, signed by the device's key.
    pub approval: String,
}

#[derive(Debug, thiserror::Error)]
pub enum DecideError {
    /// Not there, not this person's, or so old that nobody remembers.
    #[error("there is no such request for this device")]
    NotFound,
    #[error("the request has expired")]
    Expired,
    #[error("the challenge is not one of ours for this request and device")]
    Challenge,
    #[error("the approval is not acceptable: {0}")]
    ApprovalJws(InvalidJws),
    #[error("the approval is not acceptable: {0}")]
    Approval(#[from] InvalidApproval),
    #[error("the request has been decided")]
    AlreadyDecided,
    /// The request is over.
    #[error("the matching code is wrong")]
    WrongCode,
    /// Too many wrong codes of late; nothing was changed.
    #[error("no matching code is taken for a while")]
    CodeEntryBlocked { retry_after: Duration },
    /// The person, the client or this device has been locked in the meantime.
    #[error("the request can no longer be decided")]
    NotAllowed,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// How long an answer waits for the projection: what it says is a fact already.
const PROJECT_WITHIN: Duration = Duration::from_secs(1);

impl Services {
    /// What waits for the person behind this device. What a client asked that is locked by now waits for
    /// nobody.
    pub async fn inbox(&self, device: &AuthenticatedDevice) -> Result<Vec<InboxItem>, StoreError> {
        let open = self
            .pending
            .open_for(&device.user_id, device.partition, self.clock.now())
            .await?;
        let mut items = Vec::new();
        for BackchannelRequest { facts, .. } in open {
            if self.may_ask(&facts.client_id).await? {
                items.push(InboxItem {
                    id: facts.id,
                    created_at: facts.created_at,
                    expires_at: facts.expires_at,
                });
            }
        }
        Ok(items)
    }

    /// Whether a client is there and not locked, as the database says now.
    pub(super) async fn may_ask(&self, client: &ClientId) -> Result<bool, StoreError> {
        let client = self.directory.client(client).await?;
        Ok(client.is_some_and(|client| client.locked_at.is_none()))
    }

    /// The signed challenge for one waiting request: all that the phone shows and signs.
    pub async fn challenge(
        &self,
        device: &AuthenticatedDevice,
        id: RequestId,
    ) -> Result<String, DecideError> {
        let now = self.clock.now();
        let request = self
            .request_for(device, id, now)
            .await?
            .ok_or(DecideError::NotFound)?;
        match request.state {
            State::Pending => {}
            State::Expired => return Err(DecideError::Expired),
            _ => return Err(DecideError::AlreadyDecided),
        }
        let facts = request.facts;
        let key = facts.key();
        let client = self
            .directory
            .client(&facts.client_id)
            .await?
            // Whoever may not ask has nothing to say to people either.
            .filter(|client| client.locked_at.is_none())
            .ok_or(DecideError::NotAllowed)?;
        let template = display::LOGIN;
        let challenge = Challenge {
            iss: self.policy.issuer.clone(),
            aud: device.id.clone(),
            iat: now.secs(),
            exp: facts.expires_at.secs(),
            jti: facts.id,
            req: facts.id,
            sub_ref: self.keys.sub_ref(&facts.user_id),
            display: template.render(
                sha256_base64url(template.text.as_bytes()),
                &client.registration.name,
                &facts.scope,
                facts.binding_message.as_ref(),
            ),
            client: ChallengeClient {
                id: client.id,
                name: client.registration.name,
            },
            scope: facts.scope,
            acr: facts.acr,
            binding_message: facts.binding_message,
            authorization_details: facts.authorization_details,
            matching: match facts.matching_digits {
                None => Matching::None,
                Some(_) => Matching::Code,
            },
            locale: None,
        };
        self.note_fetched(key, &device.id, now).await;
        Ok(self.keys.sign_challenge(CHALLENGE_TYP, &challenge))
    }

    /// Records a decision, once and for ever. The same device may send the same decision again.
    ///
    /// # Errors
    /// [`DecideError`]. After [`DecideError::Store`] the phone may send the same answer again.
    pub async fn decide(
        &self,
        device: &AuthenticatedDevice,
        id: RequestId,
        answer: &Answer,
    ) -> Result<Decision, DecideError> {
        let now = self.clock.now();
        let (challenge, approval) = self.check_answer(device, id, answer, now)?;
        let Some(request) = self.request_for(device, id, now).await? else {
            return self.decided_before(device, id, &approval).await;
        };
        let user = &request.facts.user_id;
        if !self.keys.sub_ref_matches(user, &challenge.sub_ref) {
            return Err(DecideError::Challenge);
        }
        let code_is_right = self.code_is_right(&request.facts, &approval)?;
        let outcome = match (approval.decision, code_is_right) {
            (Decision::Deny, _) => Outcome::Denied,
            (Decision::Approve, Some(false)) => Outcome::Burned,
            (Decision::Approve, Some(true) | None) => Outcome::Approved,
        };
        match request.clone().apply(Event::Decide(outcome), now) {
            Ok(_) if challenge.is_fresh(now) => {}
            Err(refused) if refused.from != State::Expired => {
                return self.decided_before(device, id, &approval).await;
            }
            Ok(_) | Err(_) => return Err(DecideError::Expired),
        }
        let decided = self
            .decided_request(&request.facts, device, outcome, &approval, answer, now)
            .await?;
        self.record(device, &decided, &approval, &challenge, code_is_right)
            .await
    }

    /// Whether the code that was typed is the one the other screen shows; `None`: none had to be.
    fn code_is_right(
        &self,
        facts: &Facts,
        approval: &Approval,
    ) -> Result<Option<bool>, StoreError> {
        let (Some(digits), Some(typed)) = (facts.matching_digits, &approval.code) else {
            return Ok(None);
        };
        let auth_req_id = AuthReqId::new(self.open_auth_req_id_of(facts)?);
        let shown = self.keys.matching_code(&auth_req_id, digits);
        let shown = shown.ok_or_else(|| StoreError::Corrupt {
            table: "pending_requests",
            row: facts.id.to_string(),
            what: "the key of its auth_req_id is gone",
        })?;
        Ok(Some(equal(shown.as_bytes(), typed.as_bytes())))
    }

    /// Everything that can be checked without a store.
    fn check_answer(
        &self,
        device: &AuthenticatedDevice,
        id: RequestId,
        answer: &Answer,
        now: Timestamp,
    ) -> Result<(Challenge, Approval), DecideError> {
        let challenge: Challenge = self
            .keys
            .verify_challenge(CHALLENGE_TYP, &answer.challenge)
            .map_err(|_| DecideError::Challenge)?;
        let ours = challenge.iss == self.policy.issuer
            && challenge.aud == device.id
            && challenge.jti == id
            && challenge.req == id;
        if !ours {
            return Err(DecideError::Challenge);
        }
        let key = VerifyingKey::new(&device.key)
            .ok_or(DecideError::ApprovalJws(InvalidJws::Signature))?;
        let jws = Jws::parse(&answer.approval).map_err(DecideError::ApprovalJws)?;
        if jws.kid.as_deref() != Some(device.id.as_str()) {
            return Err(DecideError::ApprovalJws(InvalidJws::Header));
        }
        let approval: Approval = jws
            .verify(APPROVAL_TYP, &key)
            .map_err(DecideError::ApprovalJws)?;
        let hash = sha256_base64url(answer.challenge.as_bytes());
        let matching = challenge.matching;
        approval.check(&device.id, &self.policy.issuer, &hash, matching, now)?;
        Ok((challenge, approval))
    }

    async fn decided_request(
        &self,
        facts: &Facts,
        device: &AuthenticatedDevice,
        outcome: Outcome,
        approval: &Approval,
        answer: &Answer,
        now: Timestamp,
    ) -> Result<DecidedRequest, StoreError> {
        Ok(DecidedRequest {
            request_id: facts.id,
            partition: facts.partition,
            client_id: facts.client_id.clone(),
            user_id: facts.user_id.clone(),
            device_id: Some(device.id.clone()),
            outcome,
            reason: approval.reason,
            decided_at: now,
            expires_at: facts.expires_at,
            evidence: Evidence {
                challenge: Some(answer.challenge.clone()),
                approval: Some(answer.approval.clone()),
                auth_req_id: self.open_auth_req_id_of(facts)?,
                subject: self.subject_of(facts).await?,
                delivery_mode: facts.delivery_mode,
                client_notification_token: self.open_notification_token_of(facts)?,
                sender_constraint: None,
            },
        })
    }

    async fn record(
        &self,
        device: &AuthenticatedDevice,
        decided: &DecidedRequest,
        approval: &Approval,
        challenge: &Challenge,
        code_is_right: Option<bool>,
    ) -> Result<Decision, DecideError> {
        let id = decided.request_id;
        failpoint::hit("decide.before_ledger");
        let mut open = self
            .ledger
            .begin_decision(
                decided.partition,
                &decided.user_id,
                &decided.client_id,
                Some(&device.id),
            )
            .await?;
        let standing = &open.standing;
        if standing.user.is_none() || !standing.client_active || standing.device.is_none() {
            return Err(DecideError::NotAllowed);
        }
        let mut follow_ups = self.consequences(decided);
        follow_ups.extend(Job::notify_client(decided));
        follow_ups.extend(standing.notify_resolved(decided));
        let is_fraud = decided.reason == Some(DenyReason::Fraud);
        let locks_device = is_fraud && self.policy.quiet.lock_device;
        if locks_device {
            open.lock_device(&device.id).await?;
        }
        if let Some(is_right) = code_is_right {
            let entry = open.code_entry(&decided.user_id).await?;
            if let Some(until) = entry.blocked(decided.decided_at) {
                drop(open);
                // A request that is over says so: no waiting would open it again.
                if let Some((winner, _)) = self.ledger.lookup(id).await? {
                    return same_decision(device, approval, &winner);
                }
                let retry_after = until.since(decided.decided_at);
                return Err(DecideError::CodeEntryBlocked { retry_after });
            }
            let after = entry.after(is_right, decided.decided_at);
            if after != entry {
                open.note_code_entry(&decided.user_id, after).await?;
            }
        }
        let payload = json!({
            "request": id,
            "client": decided.client_id,
            "user": decided.user_id,
            "device": device.id,
            "outcome": decided.outcome,
            "reason": decided.reason,
            "scope": challenge.scope,
            "acr": challenge.acr,
            "matching": challenge.matching,
            "locks_device": locks_device,
            "challenge_hash": decided.evidence.challenge.as_deref().map(hash),
            "approval_hash": decided.evidence.approval.as_deref().map(hash),
        });
        let entry = self.entry("request.decided", decided.decided_at, payload);
        match open.record(decided, &follow_ups, entry).await {
            Ok(Recorded::First) => {}
            Ok(Recorded::Lost(winner)) => return same_decision(device, approval, &winner),
            Err(StoreError::CommitUnknown(cause)) => {
                tracing::warn!(request = log_id(id), %cause, "commit of a decision unknown: reading back");
                match self.ledger.lookup(id).await? {
                    Some((winner, _)) if winner.outcome == decided.outcome => {
                        same_decision(device, approval, &winner).or_else(|error| match error {
                            // Ours, and what follows from it is still to come.
                            DecideError::WrongCode => Ok(approval.decision),
                            error => Err(error),
                        })?;
                    }
                    Some((winner, _)) => return same_decision(device, approval, &winner),
                    None => return Err(StoreError::Unavailable(cause).into()),
                }
            }
            Err(error) => return Err(error.into()),
        }
        tracing::info!(
            request = log_id(id),
            device = log_device(&device.id),
            outcome = %decided.outcome,
            "request decided"
        );
        metrics::counter!("assent_decisions_total", "outcome" => decided.outcome.as_str())
            .increment(1);
        self.project(decided.key(), decided.outcome.into()).await;
        if !follow_ups.is_empty() {
            self.ledger_jobs_ready.notify_waiters();
        }
        failpoint::hit("decide.after_projection");
        if locks_device {
            self.announce(&decided.user_id, decided.partition).await;
        }
        if decided.outcome == Outcome::Burned {
            return Err(DecideError::WrongCode);
        }
        Ok(approval.decision)
    }

    /// What a report of fraud brings about.
    fn consequences(&self, decided: &DecidedRequest) -> Vec<Job> {
        let (Some(DenyReason::Fraud), Some(device)) = (decided.reason, &decided.device_id) else {
            return vec![];
        };
        let handle = Job::HandleFraud {
            request_id: decided.request_id,
            partition: decided.partition,
            user_id: decided.user_id.clone(),
            reported_at: decided.decided_at,
        };
        let reported = EventKind::FraudReported {
            user: decided.user_id.clone(),
            device: device.clone(),
            client: decided.client_id.clone(),
            request: decided.request_id,
        };
        let told = self.event(reported, decided.partition, decided.decided_at);
        std::iter::once(handle).chain(told).collect()
    }

    /// Tells the projection what the Ledger already knows. Its failure is no failure: the next sweep
    /// says it again.
    pub(super) async fn project(&self, key: RequestKey, state: State) {
        let projected = timeout(PROJECT_WITHIN, self.pending.project(key, state));
        match projected.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(request = log_id(key.id), %error, "projection failed; the sweep will repeat it");
            }
            Err(_) => {
                tracing::warn!(
                    request = log_id(key.id),
                    "projection is slow; the sweep will repeat it"
                );
            }
        }
    }

    /// The request, if it belongs to this device's person.
    async fn request_for(
        &self,
        device: &AuthenticatedDevice,
        id: RequestId,
        now: Timestamp,
    ) -> Result<Option<BackchannelRequest>, StoreError> {
        let key = RequestKey {
            partition: device.partition,
            id,
        };
        let request = self.pending.find(key, now).await?;
        Ok(request
            .filter(|request| request.facts.user_id == device.user_id && !request.facts.decoy))
    }

    async fn decided_before(
        &self,
        device: &AuthenticatedDevice,
        id: RequestId,
        approval: &Approval,
    ) -> Result<Decision, DecideError> {
        match self.ledger.lookup(id).await? {
            Some((winner, _)) if winner.user_id == device.user_id => {
                same_decision(device, approval, &winner)
            }
            _ => Err(DecideError::NotFound),
        }
    }
}

/// Whether a decision that came second is the first one again.
fn same_decision(
    device: &AuthenticatedDevice,
    approval: &Approval,
    winner: &DecidedRequest,
) -> Result<Decision, DecideError> {
    if winner.device_id.as_ref() != Some(&device.id) {
        return Err(DecideError::AlreadyDecided);
    }
    let decision = approval.decision;
    match (winner.outcome, decision) {
        (Outcome::Approved, Decision::Approve) => Ok(decision),
        // Another reason is another decision: nobody must believe that a fraud was reported, who had only said no.
        (Outcome::Denied, Decision::Deny) if winner.reason == approval.reason => Ok(decision),
        (Outcome::Burned, Decision::Approve) => Err(DecideError::WrongCode),
        _ => Err(DecideError::AlreadyDecided),
    }
}

fn hash(statement: &str) -> String {
    sha256_base64url(statement.as_bytes())
}
