//! Relying parties, as the Directory knows them.

use super::{ClientId, Scope, Timestamp};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// A registered relying party. CIBA is for confidential clients only, so every client has a secret.
#[derive(Clone, Debug)]
pub struct Client {
    pub id: ClientId,
    /// The name people see on their phone; from the registry, never from a request.
    pub name: String,
    pub auth_method: ClientAuthMethod,
    pub secret: SecretVerifier,
    /// The most a request may ask for.
    pub scope: Scope,
    pub delivery_mode: DeliveryMode,
    /// Requests of this client that may be open for one person at a time.
    pub open_requests_per_user: u32,
    /// How long a poll is held when the request does not say (CIBA Core 10.1.1); zero: not at all.
    pub long_poll: Duration,
    pub created_at: Timestamp,
    pub locked_at: Option<Timestamp>,
}

/// The keyed hash by which a client secret is recognised, and the version of the key that made it.
#[derive(Clone)]
pub struct SecretVerifier {
    pub key_version: u32,
    pub mac: [u8; 32],
}

impl std::fmt::Debug for SecretVerifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SecretVerifier(v{})", self.key_version)
    }
}

text_enum! {
    /// How a client authenticates at every endpoint (OpenID Connect Core 9).
    ClientAuthMethod: "client authentication method" {
        Basic = "client_secret_basic",
        Post = "client_secret_post",
    }
}

text_enum! {
    /// How a client learns the result (CIBA Core 5).
    DeliveryMode: "delivery mode" {
        Poll = "poll",
    }
}
