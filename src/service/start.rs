//! A relying party asks: the backchannel authentication request (CIBA Core 7.1).

use super::authenticate_client::AuthenticatedClient;
use super::hints::{Hint, HintError, Meant};
pub use super::idempotency::Idempotency;
use super::idempotency::Named;
use super::user_code::UserCodeError;
use super::{Services, log_id};
use crate::crypto::auth_req_id;
use crate::domain::binding_message::InvalidBindingMessage;
use crate::domain::client::{DeliveryMode, Grant};
use crate::domain::request::{ACR_DEVICE, Facts};
use crate::domain::{
    AuthReqId, BindingMessage, EventKind, Job, Partition, Scope, Secret, Timestamp, UserId,
};
use crate::store::{Created, NewRequest, StoreError};
use std::time::Duration;

/// The parameters as they came, each at most once and not empty.
#[derive(Clone, Debug, Default)]
pub struct AuthenticationRequest {
    pub scope: Option<String>,
    pub login_hint: Option<String>,
    pub login_hint_token: Option<String>,
    pub id_token_hint: Option<String>,
    pub binding_message: Option<String>,
    pub acr_values: Option<String>,
    pub requested_expiry: Option<String>,
    pub client_notification_token: Option<Secret>,
    pub user_code: Option<String>,
    pub authorization_details: Option<String>,
    pub request: Option<String>,
    pub request_uri: Option<String>,
    pub idempotency: Option<Idempotency>,
}

/// The acknowledgement (CIBA Core 7.3).
#[derive(Debug)]
pub struct Acknowledgement {
    pub auth_req_id: AuthReqId,
    pub expires_in: Duration,
    pub interval: Duration,
    /// What the client shows and the person types; only where the client registered for it.
    pub matching_code: Option<String>,
}

/// Why a request is not accepted; nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("{0} is missing")]
    Missing(&'static str),
    #[error("{0} is not acceptable")]
    Invalid(&'static str),
    #[error("exactly one of login_hint, login_hint_token and id_token_hint must be sent")]
    HintCount,
    #[error("{0} is not supported by this server")]
    Unsupported(&'static str),
    #[error("scope is malformed or more than this client may ask for")]
    Scope,
    #[error("authorization_details of this type are not supported")]
    AuthorizationDetails,
    #[error(transparent)]
    BindingMessage(#[from] InvalidBindingMessage),
    #[error("nobody who can be asked is known by this hint")]
    UnknownUser,
    #[error("this client may not ask")]
    UnauthorizedClient,
    #[error("client_notification_token must be 22 to 1024 characters of a bearer token")]
    NotificationToken,
    #[error("this client may not use this kind of hint")]
    HintKind,
    #[error("the hint is not acceptable")]
    Hint,
    #[error("the login_hint_token has expired")]
    ExpiredHintToken,
    #[error("user_code is missing")]
    MissingUserCode,
    #[error("user_code is not right")]
    InvalidUserCode,
    #[error("too many requests are open for this person")]
    OverCap,
    #[error("the Idempotency-Key was used for another request")]
    IdempotencyConflict,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What is left of the parameters once they are known to be good.
struct Validated {
    scope: Scope,
    hint: Hint,
    notification_token: Option<Secret>,
    binding_message: Option<BindingMessage>,
    expiry: Duration,
}

/// Who is asked: a person, or nobody, so that the client does not learn that there is no such person.
struct Asked {
    id: UserId,
    partition: Partition,
    is_decoy: bool,
    /// Whether a job is made. Somebody who cannot be asked has a budget that it would use up.
    has_job: bool,
}

/// The job that wakes the person's phones. That of a decoy wakes nobody, but is made all the same.
fn notify_device(facts: &Facts) -> Job {
    Job::NotifyDevice {
        request_id: facts.id,
        partition: facts.partition,
        user_id: facts.user_id.clone(),
        expires_at: facts.expires_at,
    }
}

impl Services {
    /// Validates the request, finds the person, and stores it with the job that wakes their phone.
    ///
    /// # Errors
    /// [`StartError`]; nothing was changed unless it is an unavailable store.
    pub async fn start(
        &self,
        client: &AuthenticatedClient,
        request: &AuthenticationRequest,
    ) -> Result<Acknowledgement, StartError> {
        let now = self.clock.now();
        let started = self.start_at(client, request, now).await;
        self.until_decoys_answer(client, now).await;
        started
    }

    async fn start_at(
        &self,
        client: &AuthenticatedClient,
        request: &AuthenticationRequest,
        now: Timestamp,
    ) -> Result<Acknowledgement, StartError> {
        // A lock must hold at once, so this read goes past the cache.
        let stored = self.directory.client(&client.id).await?;
        let registration = &client.registration;
        let asks =
            registration.allows(Grant::Ciba) || registration.delivery.mode() == DeliveryMode::Push;
        if !asks || stored.is_none_or(|stored| stored.locked_at.is_some()) {
            return Err(StartError::UnauthorizedClient);
        }
        let validated = self.validate(client, request)?;
        let asked = self.find_asked(client, &validated.hint, now).await?;
        if registration.user_code {
            self.check_user_code(&asked.id, request.user_code.as_deref(), now)
                .await?;
        }
        let is_quiet = self.is_quiet(&asked.id, &client.id, now).await? || !asked.has_job;
        // Whole seconds, as the challenge's `exp` will have.
        let expires_at = Timestamp::from_secs(now.plus(Duration::from_millis(999)).secs())
            .plus(validated.expiry);
        let new_id =
            self.keys
                .make_auth_req_id(&client.id, asked.partition, expires_at, &*self.entropy);
        let named = Named {
            auth_req_id: new_id,
            partition: asked.partition,
            expires_at,
            slot: None,
        };
        let Named {
            auth_req_id,
            partition,
            expires_at,
            slot,
        } = match &request.idempotency {
            None => named,
            Some(idempotency) => self.reserve(client, idempotency, named, now).await?,
        };
        // The hint means somebody else by now, or somebody instead of nobody: what was begun for them stands.
        if partition != asked.partition {
            return Ok(self.acknowledge(client, auth_req_id, expires_at, now));
        }
        let id = auth_req_id::request_id(&auth_req_id);
        let facts = Facts {
            id,
            client_id: client.id.clone(),
            user_id: asked.id.clone(),
            partition: asked.partition,
            sealed_auth_req_id: self
                .keys
                .seal(&auth_req_id_context(id), auth_req_id.expose().as_bytes()),
            sealed_notification_token: validated.notification_token.map(|token| {
                self.keys
                    .seal(&notification_token_context(id), token.expose().as_bytes())
            }),
            sector: registration.subject.sector().map(str::to_owned),
            scope: validated.scope,
            acr: ACR_DEVICE.to_owned(),
            binding_message: validated.binding_message,
            authorization_details: None,
            delivery_mode: registration.delivery.mode(),
            matching_digits: registration.matching_code,
            decoy: asked.is_decoy,
            created_at: now,
            expires_at,
        };
        let mut new = NewRequest {
            job: (!is_quiet).then(|| notify_device(&facts)),
            budgets: self.policy.prompt_budgets,
            instead: self.prompts_exceeded(&facts, now),
            per_client: registration.open_requests_per_user,
            per_user: self.policy.open_requests_per_user,
            facts,
        };
        let mut created = self.pending.create(&new, now).await?;
        if created == Created::OverUserCap && registration.gets_decoys() {
            // Others ask this person. Of somebody unknown nobody would, so this client must not notice.
            new.facts.decoy = true;
            new.per_user = u32::MAX;
            (new.job, new.instead) = (None, None);
            created = self.pending.create(&new, now).await?;
        }
        let prompt = match created {
            Created::Yes | Created::InboxOnly if new.facts.decoy => "nobody",
            Created::Yes if is_quiet => "quiet",
            Created::Yes => "prompted",
            Created::InboxOnly => "over_budget",
            Created::OverClientCap | Created::OverUserCap => {
                if let Some(slot) = &slot {
                    self.pending.release(slot, new.facts.key()).await?;
                }
                return Err(StartError::OverCap);
            }
        };
        self.pending_jobs_ready.notify_waiters();
        tracing::info!(request = log_id(id), client = %client.id, prompt, "request created");
        metrics::counter!("assent_prompts_total", "outcome" => prompt).increment(1);
        Ok(self.acknowledge(client, auth_req_id, expires_at, now))
    }

    fn acknowledge(
        &self,
        client: &AuthenticatedClient,
        auth_req_id: AuthReqId,
        expires_at: Timestamp,
        now: Timestamp,
    ) -> Acknowledgement {
        let digits = client.registration.matching_code;
        Acknowledgement {
            matching_code: digits.and_then(|digits| self.keys.matching_code(&auth_req_id, digits)),
            auth_req_id,
            expires_in: expires_at.since(now),
            interval: self.policy.interval,
        }
    }

    /// The job that tells of it: once in an hour for one person, as far as it is up to the receiver too.
    fn prompts_exceeded(&self, facts: &Facts, now: Timestamp) -> Option<Job> {
        if facts.decoy {
            return None;
        }
        let kind = EventKind::PromptsExceeded {
            user: facts.user_id.clone(),
            client: facts.client_id.clone(),
        };
        let hour = now.secs() / 3600;
        let about = format!("prompts.exceeded|{}|{hour}", facts.user_id);
        self.event_about(&about, kind, facts.partition, now)
    }

    fn validate(
        &self,
        client: &AuthenticatedClient,
        request: &AuthenticationRequest,
    ) -> Result<Validated, StartError> {
        if request.request.is_some() {
            return Err(StartError::Unsupported("request"));
        }
        if request.request_uri.is_some() {
            return Err(StartError::Unsupported("request_uri"));
        }
        let scope = request
            .scope
            .as_deref()
            .ok_or(StartError::Missing("scope"))?;
        let scope = Scope::parse(scope).map_err(|_| StartError::Scope)?;
        if !scope.contains("openid") {
            return Err(StartError::Invalid("scope without openid"));
        }
        if !scope.is_subset(&client.registration.scope) {
            return Err(StartError::Scope);
        }
        let hint = one_hint(request)?;
        if !client.registration.hints.contains(&hint.kind()) {
            return Err(StartError::HintKind);
        }
        let notification_token = notification_token(client, request)?;
        if let Some(acr_values) = &request.acr_values {
            // Wishes in the order of preference (OpenID Connect Core 3.1.2.1): ours is the one there is.
            Scope::parse(acr_values).map_err(|_| StartError::Invalid("acr_values"))?;
        }
        if request.authorization_details.is_some() {
            return Err(StartError::AuthorizationDetails);
        }
        let binding_message = request
            .binding_message
            .as_deref()
            .map(BindingMessage::parse)
            .transpose()?;
        Ok(Validated {
            scope,
            hint,
            notification_token,
            binding_message,
            expiry: self.expiry(request)?,
        })
    }

    fn expiry(&self, request: &AuthenticationRequest) -> Result<Duration, StartError> {
        let Some(text) = &request.requested_expiry else {
            return Ok(self.policy.default_expiry);
        };
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        // Digits that do not fit are just a very large number.
        let seconds = if digits {
            text.parse().unwrap_or(u64::MAX)
        } else {
            0
        };
        if seconds == 0 {
            return Err(StartError::Invalid("requested_expiry"));
        }
        Ok(Duration::from_secs(seconds).min(self.policy.max_expiry))
    }

    /// The person behind the hint. Somebody who is locked or has no phone cannot be asked, and an
    /// asker does not learn which it is. One who shall not even learn that much gets a nobody, found by
    /// as much work.
    async fn find_asked(
        &self,
        client: &AuthenticatedClient,
        hint: &Hint,
        now: Timestamp,
    ) -> Result<Asked, StartError> {
        let Meant { user, name } = self.resolve(client, hint, now).await?;
        let (nobody, partition) = self.keys.decoy(&name);
        let id = user.as_ref().map_or(&nobody, |user| &user.id);
        let reachable = self.directory.has_active_device(id).await?;
        match user {
            Some(user) if user.locked_at.is_none() && reachable => Ok(Asked {
                id: user.id,
                partition: user.partition,
                is_decoy: false,
                has_job: true,
            }),
            // By their own name, so that the client has no more places and no fewer than when they could be.
            Some(user) if client.registration.gets_decoys() => Ok(Asked {
                id: user.id,
                partition: user.partition,
                is_decoy: true,
                has_job: false,
            }),
            _ if client.registration.gets_decoys() => Ok(Asked {
                id: nobody,
                partition,
                is_decoy: true,
                has_job: true,
            }),
            _ => Err(StartError::UnknownUser),
        }
    }

    /// Opens the sealed handle of a stored request.
    pub(super) fn open_auth_req_id_of(&self, facts: &Facts) -> Result<String, StoreError> {
        self.open_of(
            facts,
            &auth_req_id_context(facts.id),
            &facts.sealed_auth_req_id,
        )
    }

    /// Opens the sealed `client_notification_token` of a stored request, if it has one.
    pub(super) fn open_notification_token_of(
        &self,
        facts: &Facts,
    ) -> Result<Option<String>, StoreError> {
        let sealed = facts.sealed_notification_token.as_ref();
        sealed
            .map(|sealed| self.open_of(facts, &notification_token_context(facts.id), sealed))
            .transpose()
    }

    fn open_of(&self, facts: &Facts, context: &str, sealed: &str) -> Result<String, StoreError> {
        let opened = self.keys.open_sealed(context, sealed).ok();
        opened
            .and_then(|bytes| String::from_utf8(bytes.to_vec()).ok())
            .ok_or_else(|| StoreError::Corrupt {
                table: "pending_requests",
                row: facts.id.to_string(),
                what: "a sealed value does not open",
            })
    }
}

fn notification_token_context(id: crate::domain::RequestId) -> String {
    format!("pending_requests|{id}|client_notification_token")
}

fn auth_req_id_context(id: crate::domain::RequestId) -> String {
    format!("pending_requests|{id}|auth_req_id")
}

/// Exactly one hint (CIBA Core 7.1).
fn one_hint(request: &AuthenticationRequest) -> Result<Hint, StartError> {
    match (
        &request.login_hint,
        &request.login_hint_token,
        &request.id_token_hint,
    ) {
        (Some(login), None, None) => Ok(Hint::Login(login.clone())),
        (None, Some(token), None) => Ok(Hint::LoginToken(token.clone())),
        (None, None, Some(token)) => Ok(Hint::IdToken(token.clone())),
        _ => Err(StartError::HintCount),
    }
}

/// The token a pinged or pushed client will recognise us by: bearer token syntax (RFC 6750 2.1), at most
/// 1024 characters, at least 22 without the padding, which is what 128 bits take (CIBA Core 7.1). A polling
/// client has none.
fn notification_token(
    client: &AuthenticatedClient,
    request: &AuthenticationRequest,
) -> Result<Option<Secret>, StartError> {
    if client.registration.delivery.mode() == DeliveryMode::Poll {
        return Ok(None);
    }
    let token = request.client_notification_token.clone();
    let token = token.ok_or(StartError::Missing("client_notification_token"))?;
    let text = token.expose();
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-._~+/".contains(&b);
    let unpadded = text.trim_end_matches('=');
    let good = unpadded.len() >= 22 && text.len() <= 1024 && unpadded.bytes().all(allowed);
    if good {
        Ok(Some(token))
    } else {
        Err(StartError::NotificationToken)
    }
}

impl From<HintError> for StartError {
    fn from(error: HintError) -> Self {
        match error {
            HintError::Invalid => Self::Hint,
            HintError::ExpiredToken => Self::ExpiredHintToken,
            HintError::Store(error) => Self::Store(error),
        }
    }
}

impl From<UserCodeError> for StartError {
    fn from(error: UserCodeError) -> Self {
        match error {
            UserCodeError::Missing => Self::MissingUserCode,
            UserCodeError::Invalid => Self::InvalidUserCode,
            UserCodeError::Store(error) => Self::Store(error),
        }
    }
}
