//! A relying party asks: the backchannel authentication request (CIBA Core 7.1).

use super::authenticate_client::AuthenticatedClient;
use super::{Services, log_id};
use crate::crypto::{auth_req_id, base64url, sha256};
use crate::domain::binding_message::InvalidBindingMessage;
use crate::domain::device::DeviceState;
use crate::domain::request::{ACR_DEVICE, Facts};
use crate::domain::user::Login;
use crate::domain::{AuthReqId, BindingMessage, Job, Scope, Timestamp, User};
use crate::store::{Created, IdempotencySlot, NewRequest, Reservation, StoreError};
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
    pub authorization_details: Option<String>,
    pub request: Option<String>,
    pub request_uri: Option<String>,
    pub idempotency: Option<Idempotency>,
}

/// An `Idempotency-Key`, and what it was sent with.
#[derive(Clone, Debug)]
pub struct Idempotency {
    pub key: String,
    /// The request's parameters in a canonical order, client authentication left out.
    pub parameters: String,
}

/// The acknowledgement (CIBA Core 7.3).
#[derive(Debug)]
pub struct Acknowledgement {
    pub auth_req_id: AuthReqId,
    pub expires_in: Duration,
    pub interval: Duration,
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
    login: Option<Login>,
    binding_message: Option<BindingMessage>,
    expiry: Duration,
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
        // A lock must hold at once, so this read goes past the cache.
        let stored = self.directory.client(&client.id).await?;
        if stored.is_none_or(|stored| stored.locked_at.is_some()) {
            return Err(StartError::UnauthorizedClient);
        }
        let validated = self.validate(client, request)?;
        let user = self.find_user(validated.login.as_ref()).await?;
        // Whole seconds, as the challenge's `exp` will have.
        let expires_at = Timestamp::from_secs(now.plus(Duration::from_millis(999)).secs())
            .plus(validated.expiry);
        let new_id =
            self.keys
                .make_auth_req_id(&client.id, user.partition, expires_at, &*self.entropy);
        let (auth_req_id, expires_at) = match &request.idempotency {
            None => (new_id, expires_at),
            Some(idempotency) => {
                self.reserve(client, idempotency, new_id, expires_at, now)
                    .await?
            }
        };
        let id = auth_req_id::request_id(&auth_req_id);
        let facts = Facts {
            id,
            client_id: client.id.clone(),
            user_id: user.id.clone(),
            partition: user.partition,
            sealed_auth_req_id: self
                .keys
                .seal(&auth_req_id_context(id), auth_req_id.expose().as_bytes()),
            scope: validated.scope,
            acr: ACR_DEVICE.to_owned(),
            binding_message: validated.binding_message,
            authorization_details: None,
            delivery_mode: client.delivery_mode,
            created_at: now,
            expires_at,
        };
        let new = NewRequest {
            facts,
            job: Job::NotifyDevice {
                request_id: id,
                user_id: user.id,
                expires_at,
            },
            per_client: client.open_requests_per_user,
            per_user: self.policy.open_requests_per_user,
        };
        match self.pending.create(&new, now).await? {
            Created::Yes => {}
            Created::OverCap => return Err(StartError::OverCap),
        }
        self.jobs_ready.notify_one();
        tracing::info!(request = log_id(id), client = %client.id, "request created");
        Ok(Acknowledgement {
            auth_req_id,
            expires_in: expires_at.since(now),
            interval: self.policy.interval,
        })
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
        if !scope.is_subset(&client.scope) {
            return Err(StartError::Scope);
        }
        let login = one_hint(request)?;
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
            login,
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
    /// asker does not learn which it is.
    async fn find_user(&self, login: Option<&Login>) -> Result<User, StartError> {
        let login = login.ok_or(StartError::UnknownUser)?;
        let user = self
            .directory
            .user_by_login(login)
            .await?
            .ok_or(StartError::UnknownUser)?;
        let devices = self.directory.devices_of(&user.id).await?;
        let reachable = devices
            .iter()
            .any(|device| device.state == DeviceState::Active);
        if user.locked_at.is_some() || !reachable {
            Err(StartError::UnknownUser)
        } else {
            Ok(user)
        }
    }

    /// The id this request has had since it was first sent, or the new one.
    async fn reserve(
        &self,
        client: &AuthenticatedClient,
        idempotency: &Idempotency,
        new_id: AuthReqId,
        expires_at: Timestamp,
        now: Timestamp,
    ) -> Result<(AuthReqId, Timestamp), StartError> {
        let scope_hash = base64url(&sha256(
            format!("{}\n{}", client.id, idempotency.key).as_bytes(),
        ));
        let context = format!("idempotency_keys|{scope_hash}|auth_req_id");
        let slot = IdempotencySlot {
            scope_hash,
            body_hash: base64url(&sha256(idempotency.parameters.as_bytes())),
            sealed_auth_req_id: self.keys.seal(&context, new_id.expose().as_bytes()),
            expires_at,
        };
        match self.pending.reserve(&slot, now).await? {
            Reservation::Fresh => Ok((new_id, expires_at)),
            Reservation::Conflict => Err(StartError::IdempotencyConflict),
            Reservation::Replay { sealed_auth_req_id } => {
                let damaged = || StoreError::Corrupt {
                    table: "idempotency_keys",
                    row: slot.scope_hash.clone(),
                    what: "auth_req_id does not open",
                };
                let opened = self.keys.open_sealed(&context, &sealed_auth_req_id).ok();
                let id = opened
                    .and_then(|bytes| String::from_utf8(bytes.to_vec()).ok())
                    .map(AuthReqId::new)
                    .ok_or_else(damaged)?;
                let handle = self
                    .keys
                    .open_auth_req_id(&client.id, &id)
                    .ok_or_else(damaged)?;
                Ok((id, handle.expires_at))
            }
        }
    }

    /// Opens the sealed handle of a stored request.
    pub(super) fn open_auth_req_id_of(&self, facts: &Facts) -> Result<String, StoreError> {
        let opened = self
            .keys
            .open_sealed(&auth_req_id_context(facts.id), &facts.sealed_auth_req_id);
        opened
            .ok()
            .and_then(|bytes| String::from_utf8(bytes.to_vec()).ok())
            .ok_or_else(|| StoreError::Corrupt {
                table: "pending_requests",
                row: facts.id.to_string(),
                what: "auth_req_id does not open",
            })
    }
}

fn auth_req_id_context(id: crate::domain::RequestId) -> String {
    format!("pending_requests|{id}|auth_req_id")
}

/// Exactly one hint (CIBA Core 7.1), and one we understand. `None`: it cannot be anybody's login.
fn one_hint(request: &AuthenticationRequest) -> Result<Option<Login>, StartError> {
    match (
        &request.login_hint,
        &request.login_hint_token,
        &request.id_token_hint,
    ) {
        (Some(login), None, None) => Ok(Login::parse(login).ok()),
        (None, Some(_), None) => Err(StartError::Unsupported("login_hint_token")),
        (None, None, Some(_)) => Err(StartError::Unsupported("id_token_hint")),
        _ => Err(StartError::HintCount),
    }
}
