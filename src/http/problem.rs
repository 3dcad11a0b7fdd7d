//! From what went wrong to what a phone is told: problem details (RFC 9457) with a stable `code`.

use super::device_proof::NONCE_HEADER;
use super::error::{RETRY_SECONDS, hang_up_on_the_slow, log_store};
use crate::domain::device::InvalidPushTarget;
use crate::service::StoreError;
use crate::service::authenticate_device::DeviceAuthError;
use crate::service::decide::DecideError;
use crate::service::devices::PushTargetError;
use crate::service::enrol::EnrolError;
use actix_web::http::StatusCode;
use actix_web::http::header::{
    CACHE_CONTROL, HeaderValue, RETRY_AFTER, SEC_WEBSOCKET_VERSION, UPGRADE, WWW_AUTHENTICATE,
};
use actix_web::{HttpResponse, HttpResponseBuilder, ResponseError};
use serde::Serialize;
use std::fmt;
use std::time::Duration;

/// An error of the device API.
#[derive(Debug)]
pub struct Problem {
    status: StatusCode,
    /// Stable; apps decide by it.
    code: &'static str,
    /// The same for every occurrence (RFC 9457 3.1.3).
    title: &'static str,
    /// What is wrong this time.
    detail: Option<String>,
    nonce: Option<String>,
    retry_after: Option<Duration>,
}

#[derive(Serialize)]
pub struct ProblemBody<'a> {
    r#type: String,
    title: &'a str,
    status: u16,
    code: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
    /// Where there are no headers to carry it.
    #[serde(skip_serializing_if = "Option::is_none")]
    nonce: Option<&'a str>,
}

impl Problem {
    pub const fn new(status: StatusCode, code: &'static str, title: &'static str) -> Self {
        Self {
            status,
            code,
            title,
            detail: None,
            nonce: None,
            retry_after: None,
        }
    }

    /// Says what is wrong this time; never what was sent.
    pub fn because(self, detail: impl fmt::Display) -> Self {
        Self {
            detail: Some(detail.to_string()),
            ..self
        }
    }

    pub fn bad_request(detail: impl fmt::Display) -> Self {
        const TITLE: &str = "the request is not acceptable";
        Self::new(StatusCode::BAD_REQUEST, "invalid_request", TITLE).because(detail)
    }

    fn invalid_proof() -> Self {
        const TITLE: &str = "the proof is not acceptable";
        Self::new(StatusCode::UNAUTHORIZED, "invalid_proof", TITLE)
    }

    pub fn unavailable() -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "temporarily_unavailable",
            "not confirmed; try again shortly",
        )
    }

    /// Only a WebSocket can be had here (RFC 9110 15.5.22).
    pub fn upgrade_required() -> Self {
        Self::new(
            StatusCode::UPGRADE_REQUIRED,
            "upgrade_required",
            "this path offers a WebSocket, version 13",
        )
    }

    pub fn stream_replaced() -> Self {
        Self::new(
            StatusCode::CONFLICT,
            "stream_replaced",
            "newer streams of this device have taken its place",
        )
    }

    pub fn message_too_large() -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "message_too_large",
            "the message is larger than 16 KiB",
        )
    }

    pub fn not_text() -> Self {
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "message_not_text",
            "the message must be text",
        )
    }

    pub fn too_many_messages() -> Self {
        Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            "too_many_messages",
            "a stream is for listening: too many messages were sent",
        )
    }

    pub fn phone_silent(why: impl fmt::Display) -> Self {
        const TITLE: &str = "nothing was heard of the phone in time";
        Self::new(StatusCode::REQUEST_TIMEOUT, "phone_silent", TITLE).because(why)
    }

    pub fn proof_missing() -> Self {
        Self::invalid_proof().because("a DeviceProof is required")
    }

    fn invalid_approval(why: impl fmt::Display) -> Self {
        const TITLE: &str = "the approval is not acceptable";
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_approval", TITLE).because(why)
    }

    fn invalid_enrolment_proof(why: impl fmt::Display) -> Self {
        Self::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "invalid_enrolment_proof",
            "the proof is not acceptable",
        )
        .because(why)
    }
}

impl Problem {
    /// The problem document, complete without headers.
    pub fn document(&self) -> ProblemBody<'_> {
        ProblemBody {
            r#type: format!("urn:assent:problem:{}", self.code),
            title: self.title,
            status: self.status.as_u16(),
            code: self.code,
            detail: self.detail.as_deref(),
            nonce: self.nonce.as_deref(),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code)
    }
}

impl ResponseError for Problem {
    fn status_code(&self) -> StatusCode {
        self.status
    }

    fn error_response(&self) -> HttpResponse {
        let mut response: HttpResponseBuilder = HttpResponse::build(self.status);
        response.insert_header((CACHE_CONTROL, "no-store"));
        if self.status == StatusCode::UNAUTHORIZED {
            response.insert_header((WWW_AUTHENTICATE, r#"DeviceProof realm="assent""#));
        }
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response.insert_header((RETRY_AFTER, RETRY_SECONDS));
        }
        if let Some(pause) = self.retry_after {
            // The next whole second: none is too early.
            let seconds = pause.as_millis().div_ceil(1000).to_string();
            response.insert_header((RETRY_AFTER, seconds));
        }
        if self.status == StatusCode::UPGRADE_REQUIRED {
            let offered = HeaderValue::from_static("websocket");
            response.insert_header((UPGRADE, offered));
            response.insert_header((SEC_WEBSOCKET_VERSION, "13"));
        }
        hang_up_on_the_slow(&mut response, self.status);
        if let Some(nonce) = &self.nonce {
            response.insert_header((NONCE_HEADER, nonce.as_str()));
        }
        let body = ProblemBody {
            nonce: None,
            ..self.document()
        };
        let body = serde_json::to_string(&body).unwrap_or_default();
        response.content_type("application/problem+json").body(body)
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        if log_store(&error) {
            Self::unavailable()
        } else {
            Self::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "internal_error",
                "something went wrong here",
            )
        }
    }
}

impl From<DeviceAuthError> for Problem {
    fn from(error: DeviceAuthError) -> Self {
        match error {
            DeviceAuthError::Invalid => Self::invalid_proof(),
            DeviceAuthError::Replayed => Self::new(
                StatusCode::UNAUTHORIZED,
                "proof_replayed",
                "the proof was used before",
            ),
            DeviceAuthError::Clock { nonce } => Self {
                nonce: Some(nonce),
                ..Self::new(
                    StatusCode::UNAUTHORIZED,
                    "clock_skew",
                    "the proof's time is too far from ours",
                )
            },
            DeviceAuthError::Revoked => Self::new(
                StatusCode::FORBIDDEN,
                "device_revoked",
                "the device is revoked",
            ),
            DeviceAuthError::Unconfirmed => Self::new(
                StatusCode::FORBIDDEN,
                "device_unconfirmed",
                "the device waits for confirmation",
            ),
            DeviceAuthError::Store(error) => error.into(),
        }
    }
}

impl From<DecideError> for Problem {
    fn from(error: DecideError) -> Self {
        match error {
            DecideError::NotFound => Self::new(
                StatusCode::NOT_FOUND,
                "request_not_found",
                "there is no such request for this device",
            ),
            DecideError::Expired => Self::new(
                StatusCode::GONE,
                "request_expired",
                "the request has expired",
            ),
            DecideError::Challenge => Self::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "invalid_challenge",
                "the challenge is not one of ours for this request and device",
            ),
            DecideError::ApprovalJws(why) => Self::invalid_approval(why),
            DecideError::Approval(why) => Self::invalid_approval(why),
            DecideError::AlreadyDecided => Self::new(
                StatusCode::CONFLICT,
                "already_decided",
                "the request has been decided",
            ),
            DecideError::WrongCode => Self::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "wrong_code",
                "the code is wrong, and the request is over",
            ),
            DecideError::CodeEntryBlocked { retry_after } => Self {
                retry_after: Some(retry_after),
                ..Self::new(
                    StatusCode::TOO_MANY_REQUESTS,
                    "code_entry_blocked",
                    "too many wrong codes; no code is taken for a while",
                )
            },
            DecideError::NotAllowed => Self::new(
                StatusCode::FORBIDDEN,
                "decision_not_allowed",
                "the request can no longer be decided",
            ),
            DecideError::Store(error) => error.into(),
        }
    }
}

impl From<InvalidPushTarget> for Problem {
    fn from(why: InvalidPushTarget) -> Self {
        match why {
            InvalidPushTarget::Form => Self::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "invalid_push_target",
                "the push target is not what the platform's gateway gives out",
            ),
            InvalidPushTarget::Host => Self::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "push_service_not_allowed",
                "this server does not send to that push service",
            ),
        }
    }
}

impl From<PushTargetError> for Problem {
    fn from(error: PushTargetError) -> Self {
        match error {
            PushTargetError::Invalid(why) => why.into(),
            PushTargetError::Store(error) => error.into(),
        }
    }
}

impl From<EnrolError> for Problem {
    fn from(error: EnrolError) -> Self {
        match error {
            EnrolError::Code => Self::new(
                StatusCode::FORBIDDEN,
                "invalid_enrolment_code",
                "the enrolment code is not valid",
            ),
            EnrolError::Key(why) => Self::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "invalid_key",
                "the key is not acceptable",
            )
            .because(why),
            EnrolError::Proof(why) => Self::invalid_enrolment_proof(why),
            EnrolError::ProofClaims => {
                Self::invalid_enrolment_proof("it does not speak of this enrolment")
            }
            EnrolError::PushTarget(why) => why.into(),
            EnrolError::KnownDevice => Self::new(
                StatusCode::CONFLICT,
                "device_known",
                "this key is enrolled already; make a new one",
            ),
            EnrolError::Store(error) => error.into(),
        }
    }
}
