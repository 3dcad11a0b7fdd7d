//! Relying parties, as the Directory knows them.

use super::{ClientId, Scope, SignatureAlgorithm, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::time::Duration;

/// A registered relying party. CIBA is for confidential clients only, so every client can prove who it
/// is.
#[derive(Clone, Debug)]
pub struct Client {
    pub id: ClientId,
    /// Present exactly when the client authenticates by a secret.
    pub secret: Option<SecretVerifier>,
    pub registration: Registration,
    pub created_at: Timestamp,
    pub locked_at: Option<Timestamp>,
    /// Tokens issued before this are no longer good.
    pub tokens_not_before: Option<Timestamp>,
}

/// What a client may do and how (RFC 7591 2, CIBA Core 4).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Registration {
    /// The name people see on their phone; from here, never from a request.
    pub name: String,
    pub authentication: ClientAuthentication,
    pub grants: BTreeSet<Grant>,
    /// The most a request may ask for.
    pub scope: Scope,
    pub delivery: Delivery,
    /// Which hints the client may send.
    pub hints: BTreeSet<HintKind>,
    /// Whether the person's `user_code` must come with each request.
    pub user_code: bool,
    pub subject: SubjectType,
    pub id_token_algorithm: SignatureAlgorithm,
    pub access_token_format: AccessTokenFormat,
    /// Who the access tokens are for; `None`: this server.
    pub audience: Option<String>,
    /// Requests of this client that may be open for one person at a time.
    pub open_requests_per_user: u32,
    /// The length of the code that people must type on their phone (`backchannel_matching_code`);
    /// `None`: no code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matching_code: Option<u8>,
    #[serde(default, skip_serializing_if = "UnknownUser::is_told")]
    pub unknown_user: UnknownUser,
    /// How long a poll is held when the request does not say (CIBA Core 10.1.1); zero: not at all.
    pub long_poll: Duration,
}

impl Registration {
    /// A client that polls, authenticates by HTTP Basic and names people by `login_hint`.
    pub fn new(name: impl Into<String>, scope: Scope) -> Self {
        Self {
            name: name.into(),
            authentication: ClientAuthentication::Secret(SecretTransport::Basic),
            grants: BTreeSet::from([Grant::Ciba]),
            scope,
            delivery: Delivery::Poll,
            hints: BTreeSet::from([HintKind::LoginHint]),
            user_code: false,
            subject: SubjectType::Public,
            id_token_algorithm: SignatureAlgorithm::Es256,
            access_token_format: AccessTokenFormat::Jwt,
            audience: None,
            open_requests_per_user: 3,
            matching_code: None,
            unknown_user: UnknownUser::Told,
            long_poll: Duration::ZERO,
        }
    }

    /// The host that proves which sector the client belongs to, where no redirect URI does (CIBA
    /// Core 4): its key set's, or its notification endpoint's in push mode.
    pub fn sector_host(&self) -> Option<String> {
        let url = match (&self.authentication, &self.delivery) {
            (
                ClientAuthentication::PrivateKeyJwt {
                    keys: KeySource::JwksUri(uri),
                    ..
                },
                _,
            ) => uri,
            (_, Delivery::Push { endpoint }) => endpoint,
            _ => return None,
        };
        Some(url::Url::parse(url).ok()?.host_str()?.to_owned())
    }

    /// Whether the client is not to learn who is known.
    pub fn gets_decoys(&self) -> bool {
        self.unknown_user == UnknownUser::Decoy
    }

    pub fn allows(&self, grant: Grant) -> bool {
        self.grants.contains(&grant)
    }
}

impl SubjectType {
    /// The sector that knows people by a `sub` of its own.
    pub fn sector(&self) -> Option<&str> {
        match self {
            Self::Public => None,
            Self::Pairwise { sector } => Some(sector),
        }
    }
}

/// What a client gets that asks for somebody who cannot be asked: nobody we know, somebody locked, or
/// without a phone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UnknownUser {
    /// The error `unknown_user_id` (CIBA Core 13).
    #[default]
    Told,
    /// A request like any other that nobody answers, so that it does not learn who is known here.
    Decoy,
}

impl UnknownUser {
    fn is_told(&self) -> bool {
        *self == Self::Told
    }
}

/// How a client proves who it is, at every endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ClientAuthentication {
    Secret(SecretTransport),
    /// A JWT signed by the client's key (RFC 7523, OpenID Connect Core 9).
    PrivateKeyJwt {
        algorithm: SignatureAlgorithm,
        keys: KeySource,
    },
}

impl ClientAuthentication {
    pub const fn method(&self) -> ClientAuthMethod {
        match self {
            Self::Secret(SecretTransport::Basic) => ClientAuthMethod::Basic,
            Self::Secret(SecretTransport::Post) => ClientAuthMethod::Post,
            Self::PrivateKeyJwt { .. } => ClientAuthMethod::PrivateKeyJwt,
        }
    }
}

/// Where a client's public keys are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeySource {
    Jwks(serde_json::Value),
    JwksUri(String),
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

/// How results reach the client (CIBA Core 5), with what the mode needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Delivery {
    Poll,
    Ping { endpoint: String },
    Push { endpoint: String },
}

impl Delivery {
    pub const fn mode(&self) -> DeliveryMode {
        match self {
            Self::Poll => DeliveryMode::Poll,
            Self::Ping { .. } => DeliveryMode::Ping,
            Self::Push { .. } => DeliveryMode::Push,
        }
    }

    /// The client's notification endpoint.
    pub fn endpoint(&self) -> Option<&str> {
        match self {
            Self::Poll => None,
            Self::Ping { endpoint } | Self::Push { endpoint } => Some(endpoint),
        }
    }
}

/// Which `sub` a client gets (OpenID Connect Core 8).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum SubjectType {
    Public,
    /// The same person has another `sub` in every sector.
    Pairwise {
        sector: String,
    },
}

text_enum! {
    /// How a client authenticates at every endpoint (OpenID Connect Core 9).
    ClientAuthMethod: "client authentication method" {
        Basic = "client_secret_basic",
        Post = "client_secret_post",
        PrivateKeyJwt = "private_key_jwt",
    }
}

text_enum! {
    /// Where a client puts its secret (RFC 6749 2.3.1).
    SecretTransport: "secret transport" {
        Basic = "basic",
        Post = "post",
    }
}

text_enum! {
    /// How a client learns the result (CIBA Core 5).
    DeliveryMode: "delivery mode" {
        Poll = "poll",
        Ping = "ping",
        Push = "push",
    }
}

text_enum! {
    /// What a client may come to the token endpoint with.
    Grant: "grant type" {
        /// CIBA Core 4.
        Ciba = "urn:openid:params:grant-type:ciba",
        /// RFC 6749 6.
        RefreshToken = "refresh_token",
        /// RFC 6749 4.4: a service on its own behalf.
        ClientCredentials = "client_credentials",
    }
}

text_enum! {
    /// How a client may name a person (CIBA Core 7.1).
    HintKind: "hint kind" {
        LoginHint = "login_hint",
        LoginHintToken = "login_hint_token",
        IdTokenHint = "id_token_hint",
    }
}

text_enum! {
    /// What an access token looks like.
    AccessTokenFormat: "access token format" {
        /// A JWT (RFC 9068): checked by its audience without asking.
        Jwt = "jwt",
        /// A random text: only introspection tells what it is good for.
        Opaque = "opaque",
    }
}
