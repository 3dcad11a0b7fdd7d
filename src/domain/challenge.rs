//! The challenge: our signed statement of what a phone is asked to approve.

use super::display::Display;
use super::{BindingMessage, ClientId, DeviceId, RequestId, Scope, Timestamp};
use serde::{Deserialize, Serialize};

/// The JOSE `typ` of a challenge.
pub const CHALLENGE_TYP: &str = "ciba-challenge+jwt";

/// The claims of a challenge. Signed with the challenge key, kept in the Ledger once answered; tokens
/// are minted from it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Challenge {
    pub iss: String,
    /// The one device that may answer.
    pub aud: DeviceId,
    /// Seconds since the epoch (RFC 7519 2).
    pub iat: i64,
    /// The request's own end: an answer after it comes too late.
    pub exp: i64,
    /// The request's id in the device API.
    pub jti: RequestId,
    /// base64url(SHA-256(auth_req_id)).
    pub req: RequestId,
    /// Keyed hash of the person's `sub`: binds the person without naming them.
    pub sub_ref: String,
    pub client: ChallengeClient,
    pub scope: Scope,
    pub acr: String,
    pub binding_message: Option<BindingMessage>,
    pub authorization_details: Option<serde_json::Value>,
    pub display: Display,
    pub matching: Matching,
    /// Language the lines were rendered in (BCP 47); `None`: the template's own labels.
    pub locale: Option<String>,
}

/// Who asks, from the registry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChallengeClient {
    pub id: ClientId,
    pub name: String,
}

text_enum! {
    /// Whether the person must type a code that the other screen shows.
    Matching: "matching kind" {
        None = "none",
        Code = "code",
    }
}

impl Challenge {
    /// Whether an answer at `now` still counts.
    pub const fn is_fresh(&self, now: Timestamp) -> bool {
        now.millis() < Timestamp::from_secs(self.exp).millis()
    }
}
