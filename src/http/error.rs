//! From what went wrong to what the caller of an OAuth endpoint is told.
//!
//! They answer as RFC 6749 5.2 says, with `error` and `error_description` alone; what the device API
//! answers is in `problem`. Each service error is matched
//! exhaustively, so a new one does not compile until someone has chosen its answer. What is internal
//! goes to the log, under the request's id, and never into a body.

use crate::service::StoreError;
use crate::service::authenticate_client::ClientAuthError;
use crate::service::cancel::CancelError;
use crate::service::client_credentials::ClientCredentialsError;
use crate::service::redeem::PollError;
use crate::service::refresh::RefreshError;
use crate::service::start::StartError;
use crate::service::userinfo::UserInfoError;
use actix_web::http::StatusCode;
use actix_web::http::header::{CACHE_CONTROL, RETRY_AFTER, WWW_AUTHENTICATE};
use actix_web::{HttpResponse, HttpResponseBuilder, ResponseError};
use serde::Serialize;
use std::borrow::Cow;
use std::fmt;

/// Seconds after which trying again makes sense.
pub(super) const RETRY_SECONDS: &str = "2";

/// An error of an OAuth endpoint.
#[derive(Debug)]
pub struct OAuthError {
    status: StatusCode,
    error: &'static str,
    description: Cow<'static, str>,
    authenticate: Option<&'static str>,
    retry: bool,
}

#[derive(Serialize)]
struct OAuthBody<'a> {
    error: &'a str,
    error_description: &'a str,
}

impl OAuthError {
    pub fn new(
        status: StatusCode,
        error: &'static str,
        description: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self {
            status,
            error,
            description: description.into(),
            authenticate: None,
            retry: false,
        }
    }

    /// RFC 6749 5.2, CIBA Core 13.
    pub fn invalid_request(description: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request", description)
    }

    /// RFC 6749 5.2: 401, and a challenge if the Authorization header was used.
    pub fn invalid_client(by_header: bool) -> Self {
        Self {
            authenticate: by_header.then_some(r#"Basic realm="assent", charset="UTF-8""#),
            ..Self::new(
                StatusCode::UNAUTHORIZED,
                "invalid_client",
                "client authentication failed",
            )
        }
    }

    fn bearer(status: StatusCode, error: &'static str, challenge: &'static str) -> Self {
        Self {
            authenticate: Some(challenge),
            ..Self::new(
                status,
                error,
                "the access token is missing or not valid for this",
            )
        }
    }

    /// RFC 6750 3: no token, so no error code either.
    pub fn bearer_missing() -> Self {
        Self::bearer(
            StatusCode::UNAUTHORIZED,
            "invalid_token",
            r#"Bearer realm="assent""#,
        )
    }

    pub fn unavailable() -> Self {
        Self {
            retry: true,
            ..Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "temporarily_unavailable",
                "try again shortly",
            )
        }
    }

    fn server_error() -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "server_error",
            "something went wrong here",
        )
    }
}

impl fmt::Display for OAuthError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.error)
    }
}

impl ResponseError for OAuthError {
    fn status_code(&self) -> StatusCode {
        self.status
    }

    fn error_response(&self) -> HttpResponse {
        let mut response = HttpResponse::build(self.status);
        response.insert_header((CACHE_CONTROL, "no-store"));
        if let Some(challenge) = self.authenticate {
            response.insert_header((WWW_AUTHENTICATE, challenge));
        }
        if self.retry {
            response.insert_header((RETRY_AFTER, RETRY_SECONDS));
        }
        hang_up_on_the_slow(&mut response, self.status);
        response.json(OAuthBody {
            error: self.error,
            error_description: &self.description,
        })
    }
}

/// Logs what a store said and tells whether waiting can help.
pub(super) fn log_store(error: &StoreError) -> bool {
    match error {
        StoreError::Unavailable(cause) => {
            tracing::error!(%cause, "{error}");
            true
        }
        StoreError::CommitUnknown(cause) => {
            tracing::error!(%cause, "{error}");
            true
        }
        StoreError::Refused(cause) => {
            tracing::error!(%cause, "{error}");
            false
        }
        StoreError::Corrupt { .. } => {
            tracing::error!("{error}");
            false
        }
    }
}

impl From<StoreError> for OAuthError {
    fn from(error: StoreError) -> Self {
        if log_store(&error) {
            Self::unavailable()
        } else {
            Self::server_error()
        }
    }
}

impl From<StartError> for OAuthError {
    fn from(error: StartError) -> Self {
        let description = error.to_string();
        let bad = |code| Self::new(StatusCode::BAD_REQUEST, code, description.clone());
        match error {
            StartError::Missing(_)
            | StartError::Invalid(_)
            | StartError::HintCount
            | StartError::Unsupported(_)
            | StartError::NotificationToken
            | StartError::HintKind
            | StartError::Hint
            | StartError::IdempotencyConflict => bad("invalid_request"),
            StartError::Scope => bad("invalid_scope"),
            StartError::AuthorizationDetails => bad("invalid_authorization_details"),
            StartError::BindingMessage(_) => bad("invalid_binding_message"),
            StartError::UnknownUser => bad("unknown_user_id"),
            StartError::UnauthorizedClient => bad("unauthorized_client"),
            StartError::ExpiredHintToken => bad("expired_login_hint_token"),
            StartError::MissingUserCode => bad("missing_user_code"),
            StartError::InvalidUserCode => bad("invalid_user_code"),
            StartError::OverCap => Self::new(StatusCode::FORBIDDEN, "access_denied", description),
            StartError::Store(error) => error.into(),
        }
    }
}

impl From<PollError> for OAuthError {
    fn from(error: PollError) -> Self {
        let code = match error {
            PollError::InvalidGrant => "invalid_grant",
            PollError::Pending => "authorization_pending",
            PollError::SlowDown => "slow_down",
            PollError::Denied => "access_denied",
            PollError::Expired => "expired_token",
            PollError::UnauthorizedClient => "unauthorized_client",
            PollError::Store(error) => return error.into(),
        };
        Self::new(StatusCode::BAD_REQUEST, code, error.to_string())
    }
}

impl From<RefreshError> for OAuthError {
    fn from(error: RefreshError) -> Self {
        let code = match error {
            RefreshError::InvalidGrant => "invalid_grant",
            RefreshError::Scope => "invalid_scope",
            RefreshError::UnauthorizedClient => "unauthorized_client",
            RefreshError::Store(error) => return error.into(),
        };
        Self::new(StatusCode::BAD_REQUEST, code, error.to_string())
    }
}

impl From<ClientCredentialsError> for OAuthError {
    fn from(error: ClientCredentialsError) -> Self {
        let code = match error {
            ClientCredentialsError::UnauthorizedClient => "unauthorized_client",
            ClientCredentialsError::Scope => "invalid_scope",
            ClientCredentialsError::Store(error) => return error.into(),
        };
        Self::new(StatusCode::BAD_REQUEST, code, error.to_string())
    }
}

impl From<CancelError> for OAuthError {
    fn from(error: CancelError) -> Self {
        let code = match error {
            CancelError::InvalidGrant => "invalid_grant",
            CancelError::TooLate => "invalid_request",
            CancelError::Store(error) => return error.into(),
        };
        Self::new(StatusCode::BAD_REQUEST, code, error.to_string())
    }
}

impl From<UserInfoError> for OAuthError {
    fn from(error: UserInfoError) -> Self {
        match error {
            UserInfoError::InvalidToken => Self::bearer(
                StatusCode::UNAUTHORIZED,
                "invalid_token",
                r#"Bearer realm="assent", error="invalid_token""#,
            ),
            UserInfoError::InsufficientScope => Self::bearer(
                StatusCode::FORBIDDEN,
                "insufficient_scope",
                r#"Bearer realm="assent", error="insufficient_scope", scope="openid""#,
            ),
            UserInfoError::Store(error) => error.into(),
        }
    }
}

impl OAuthError {
    /// What a client is told whose authentication failed.
    pub fn client_auth(error: ClientAuthError, by_header: bool) -> Self {
        match error {
            ClientAuthError::Invalid => Self::invalid_client(by_header),
            ClientAuthError::Store(error) => error.into(),
        }
    }
}

/// The rest of their body would be taken for a request (RFC 9110 15.5.9).
pub(super) fn hang_up_on_the_slow(response: &mut HttpResponseBuilder, status: StatusCode) {
    if status == StatusCode::REQUEST_TIMEOUT {
        response.force_close();
    }
}
