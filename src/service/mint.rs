//! Makes tokens: for a person from the challenge that was signed and nothing else, for a service from
//! its registration.

use super::Services;
use crate::crypto::{NoSigningKey, base64url, half_hash, sha256_base64url};
use crate::domain::client::{AccessTokenFormat, Client, Grant};
use crate::domain::outcome::DecidedRequest;
use crate::domain::request::AMR_DEVICE;
use crate::domain::token::{AccessToken, OPAQUE_PREFIX, REFRESH_PREFIX, RefreshFamily};
use crate::domain::{Challenge, ClientId, Secret, Timestamp};
use crate::store::sql::ledger::{IssuedTokens, NewRefreshFamily, Profile};
use crate::store::sql::tokens::NewAccessToken;
use serde::{Deserialize, Serialize};

/// The JOSE `typ` of an access token (RFC 9068 2.1).
pub const ACCESS_TOKEN_TYP: &str = "at+jwt";
/// The JOSE `typ` of an ID Token.
pub const ID_TOKEN_TYP: &str = "JWT";

/// The claims of an access token (RFC 9068 2.2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessTokenClaims {
    pub iss: String,
    pub sub: String,
    pub aud: String,
    pub client_id: ClientId,
    pub exp: i64,
    pub iat: i64,
    pub jti: String,
    pub scope: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth_time: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub acr: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub amr: Option<Vec<String>>,
}

/// The claims of an ID Token (OpenID Connect Core 2; the hashes: CIBA Core 10.3.1).
#[derive(Clone, Debug, Serialize)]
struct IdTokenClaims<'a> {
    iss: &'a str,
    sub: &'a str,
    aud: &'a ClientId,
    exp: i64,
    iat: i64,
    auth_time: i64,
    acr: &'a str,
    amr: &'a [&'a str],
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    preferred_username: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    at_hash: Option<String>,
    #[serde(
        rename = "urn:openid:params:jwt:claim:rt_hash",
        skip_serializing_if = "Option::is_none"
    )]
    rt_hash: Option<String>,
    #[serde(
        rename = "urn:openid:params:jwt:claim:auth_req_id",
        skip_serializing_if = "Option::is_none"
    )]
    auth_req_id: Option<&'a str>,
}

/// A successful token response (RFC 6749 5.1, CIBA Core 10.1.1, 10.3.1).
#[derive(Debug, Serialize)]
struct TokenResponse<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    auth_req_id: Option<&'a str>,
    access_token: &'a str,
    token_type: &'static str,
    expires_in: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh_token: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id_token: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<String>,
}

/// How a response reaches the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Via {
    /// The client fetches it at the token endpoint.
    TokenEndpoint,
    /// It is pushed, so the ID Token binds all of it together (CIBA Core 10.3.1).
    Push,
}

/// A token and its text, which leaves the server only after the Ledger has committed.
pub(super) struct MintedAccess {
    pub new: NewAccessToken,
    pub text: Secret,
}

/// A refresh token and the hash it is stored by.
pub(super) struct MintedRefresh {
    pub text: Secret,
    pub hash: String,
}

impl Services {
    /// A full set of tokens for an approval. The response is what the client will be sent.
    pub(super) fn mint(
        &self,
        decided: &DecidedRequest,
        challenge: &Challenge,
        client: &Client,
        profile: &Profile,
        via: Via,
        now: Timestamp,
    ) -> Result<(IssuedTokens, Secret), NoSigningKey> {
        let evidence = &decided.evidence;
        let family = client
            .registration
            .allows(Grant::RefreshToken)
            .then(|| RefreshFamily {
                id: self.random_id(),
                client_id: decided.client_id.clone(),
                user_id: decided.user_id.clone(),
                device_id: decided.device_id.clone(),
                subject: evidence.subject.clone(),
                scope: challenge.scope.clone(),
                acr: challenge.acr.clone(),
                auth_time: decided.decided_at,
                created_at: now,
                expires_at: now.plus(self.policy.refresh_token_lifetime),
            });
        let refresh = family.as_ref().map(|_| self.mint_refresh_token());
        let access = self.mint_access_token(
            client,
            AccessToken {
                id: self.random_id(),
                client_id: decided.client_id.clone(),
                user_id: Some(decided.user_id.clone()),
                device_id: decided.device_id.clone(),
                family_id: family.as_ref().map(|family| family.id.clone()),
                subject: evidence.subject.clone(),
                audience: self.audience(client),
                scope: challenge.scope.clone(),
                acr: Some(challenge.acr.clone()),
                auth_time: Some(decided.decided_at),
                issued_at: now,
                expires_at: now.plus(self.policy.access_token_lifetime),
            },
        )?;
        let algorithm = client.registration.id_token_algorithm;
        let bind = |text: &str| (via == Via::Push).then(|| half_hash(algorithm, text));
        let wants_profile = challenge.scope.contains("profile");
        let id_token = self.keys.sign_token(
            algorithm,
            ID_TOKEN_TYP,
            &IdTokenClaims {
                iss: &self.policy.issuer,
                sub: &evidence.subject,
                aud: &decided.client_id,
                exp: now.plus(self.policy.id_token_lifetime).secs(),
                iat: now.secs(),
                auth_time: decided.decided_at.secs(),
                acr: &challenge.acr,
                amr: AMR_DEVICE,
                name: profile.name.as_deref().filter(|_| wants_profile),
                preferred_username: wants_profile.then_some(profile.login.as_str()),
                at_hash: bind(access.text.expose()),
                rt_hash: refresh
                    .as_ref()
                    .and_then(|refresh| bind(refresh.text.expose())),
                auth_req_id: (via == Via::Push).then_some(evidence.auth_req_id.as_str()),
            },
        )?;
        let response = TokenResponse {
            auth_req_id: (via == Via::Push).then_some(evidence.auth_req_id.as_str()),
            refresh_token: refresh.as_ref().map(|refresh| refresh.text.expose()),
            id_token: Some(&id_token),
            ..self.bearer(&access)
        }
        .to_body();
        let refresh = refresh
            .zip(family)
            .map(|(refresh, family)| NewRefreshFamily {
                token_hash: refresh.hash,
                family,
            });
        let keep = via == Via::Push || !self.policy.redelivery.is_zero();
        let response_kept = keep.then(|| response.clone());
        let tokens = IssuedTokens {
            access: access.new,
            response: response_kept,
            refresh,
        };
        Ok((tokens, response))
    }

    /// A new access token and refresh token in an existing family.
    pub(super) fn mint_refreshed(
        &self,
        client: &Client,
        family: &RefreshFamily,
        now: Timestamp,
    ) -> Result<(NewAccessToken, MintedRefresh, Secret), NoSigningKey> {
        let refresh = self.mint_refresh_token();
        let access = self.mint_access_token(
            client,
            AccessToken {
                id: self.random_id(),
                client_id: family.client_id.clone(),
                user_id: Some(family.user_id.clone()),
                device_id: family.device_id.clone(),
                family_id: Some(family.id.clone()),
                subject: family.subject.clone(),
                audience: self.audience(client),
                scope: family.scope.clone(),
                acr: Some(family.acr.clone()),
                auth_time: Some(family.auth_time),
                issued_at: now,
                expires_at: now.plus(self.policy.access_token_lifetime),
            },
        )?;
        let response = TokenResponse {
            refresh_token: Some(refresh.text.expose()),
            ..self.bearer(&access)
        }
        .to_body();
        Ok((access.new, refresh, response))
    }

    /// An access token for a client itself (RFC 6749 4.4).
    pub(super) fn mint_for_client(
        &self,
        client: &Client,
        scope: crate::domain::Scope,
        now: Timestamp,
    ) -> Result<(NewAccessToken, Secret), NoSigningKey> {
        let granted = scope.to_string();
        let access = self.mint_access_token(
            client,
            AccessToken {
                id: self.random_id(),
                client_id: client.id.clone(),
                user_id: None,
                device_id: None,
                family_id: None,
                subject: client.id.to_string(),
                audience: self.audience(client),
                scope,
                acr: None,
                auth_time: None,
                issued_at: now,
                expires_at: now.plus(self.policy.access_token_lifetime),
            },
        )?;
        let response = TokenResponse {
            scope: Some(granted),
            ..self.bearer(&access)
        }
        .to_body();
        Ok((access.new, response))
    }

    /// What every response has: an access token (RFC 6749 5.1).
    fn bearer<'a>(&self, access: &'a MintedAccess) -> TokenResponse<'a> {
        TokenResponse {
            auth_req_id: None,
            access_token: access.text.expose(),
            token_type: "Bearer",
            expires_in: self.policy.access_token_lifetime.as_secs(),
            refresh_token: None,
            id_token: None,
            scope: None,
        }
    }

    fn audience(&self, client: &Client) -> String {
        client
            .registration
            .audience
            .clone()
            .unwrap_or_else(|| self.policy.issuer.clone())
    }

    fn mint_access_token(
        &self,
        client: &Client,
        token: AccessToken,
    ) -> Result<MintedAccess, NoSigningKey> {
        match client.registration.access_token_format {
            AccessTokenFormat::Opaque => {
                let text = format!("{OPAQUE_PREFIX}{}", base64url(&self.entropy.bytes::<32>()));
                let hash = Some(sha256_base64url(text.as_bytes()));
                Ok(MintedAccess {
                    new: NewAccessToken { token, hash },
                    text: Secret::new(text),
                })
            }
            AccessTokenFormat::Jwt => {
                let claims = self.access_token_claims(&token);
                let algorithm = client.registration.id_token_algorithm;
                let text = self.keys.sign_token(algorithm, ACCESS_TOKEN_TYP, &claims)?;
                Ok(MintedAccess {
                    new: NewAccessToken { token, hash: None },
                    text: Secret::new(text),
                })
            }
        }
    }

    /// What an access token says as a JWT (RFC 9068 2.2).
    pub(super) fn access_token_claims(&self, token: &AccessToken) -> AccessTokenClaims {
        AccessTokenClaims {
            iss: self.policy.issuer.clone(),
            sub: token.subject.clone(),
            aud: token.audience.clone(),
            client_id: token.client_id.clone(),
            exp: token.expires_at.secs(),
            iat: token.issued_at.secs(),
            jti: token.id.clone(),
            scope: token.scope.to_string(),
            auth_time: token.auth_time.map(Timestamp::secs),
            acr: token.acr.clone(),
            amr: token
                .user_id
                .is_some()
                .then(|| AMR_DEVICE.iter().map(ToString::to_string).collect()),
        }
    }

    fn mint_refresh_token(&self) -> MintedRefresh {
        let text = format!("{REFRESH_PREFIX}{}", base64url(&self.entropy.bytes::<32>()));
        MintedRefresh {
            hash: sha256_base64url(text.as_bytes()),
            text: Secret::new(text),
        }
    }
}

impl TokenResponse<'_> {
    fn to_body(&self) -> Secret {
        Secret::new(serde_json::to_string(self).expect("a token response serialises"))
    }
}
