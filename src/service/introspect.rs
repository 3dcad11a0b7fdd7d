//! Is this token still good? (RFC 7662)

use super::Services;
use super::authenticate_client::AuthenticatedClient;
use super::mint::{ACCESS_TOKEN_TYP, AccessTokenClaims};
use crate::crypto::sha256_base64url;
use crate::domain::token::{KnownToken, OPAQUE_PREFIX, REFRESH_PREFIX};
use crate::domain::{ClientId, Secret, Timestamp};
use crate::store::StoreError;
use serde::Serialize;

/// What is said of a token (RFC 7662 2.2). Of one that is not active, nothing but that.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Introspection {
    pub active: bool,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub token: Option<ActiveToken>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ActiveToken {
    pub iss: String,
    pub client_id: ClientId,
    pub sub: String,
    pub scope: String,
    pub exp: i64,
    pub iat: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aud: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jti: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub acr: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth_time: Option<i64>,
}

impl Services {
    /// What the caller may know of a token: its own client, or the audience it was made for. For
    /// anybody else it is as if it were not active.
    pub async fn introspect(
        &self,
        caller: &AuthenticatedClient,
        token: &Secret,
    ) -> Result<Introspection, StoreError> {
        let now = self.clock.now();
        if token.expose().starts_with(REFRESH_PREFIX) {
            return self.introspect_refresh_token(caller, token, now).await;
        }
        let known = self.find_access_token(token.expose()).await?;
        let known = known.filter(|known| known.is_active(now));
        let may_know = |known: &KnownToken| {
            known.token.client_id == caller.id
                || known.token.audience == caller.id.as_str()
                || caller.registration.audience.as_ref() == Some(&known.token.audience)
        };
        Ok(known
            .filter(may_know)
            .map_or_else(Introspection::default, |known| {
                let token = known.token;
                Introspection {
                    active: true,
                    token: Some(ActiveToken {
                        iss: self.policy.issuer.clone(),
                        client_id: token.client_id,
                        sub: token.subject,
                        scope: token.scope.to_string(),
                        exp: token.expires_at.secs(),
                        iat: token.issued_at.secs(),
                        aud: Some(token.audience),
                        jti: Some(token.id),
                        token_type: Some("Bearer"),
                        acr: token.acr,
                        auth_time: token.auth_time.map(Timestamp::secs),
                    }),
                }
            }))
    }

    async fn introspect_refresh_token(
        &self,
        caller: &AuthenticatedClient,
        token: &Secret,
        now: Timestamp,
    ) -> Result<Introspection, StoreError> {
        let hash = sha256_base64url(token.expose().as_bytes());
        let stored = self.tokens.refresh_token(&hash).await?;
        let good = stored.filter(|stored| {
            stored.family.client_id == caller.id
                && stored.family_revoked_at.is_none()
                && stored.used.is_none()
                && now < stored.family.expires_at
        });
        let Some(stored) = good else {
            return Ok(Introspection::default());
        };
        if !self.family_stands(&stored.family).await? {
            return Ok(Introspection::default());
        }
        let family = stored.family;
        Ok(Introspection {
            active: true,
            token: Some(ActiveToken {
                iss: self.policy.issuer.clone(),
                client_id: family.client_id,
                sub: family.subject,
                scope: family.scope.to_string(),
                exp: family.expires_at.secs(),
                iat: family.created_at.secs(),
                aud: None,
                jti: None,
                token_type: None,
                acr: Some(family.acr),
                auth_time: Some(family.auth_time.secs()),
            }),
        })
    }

    /// The record of an access token of either format; `None` for what we did not issue.
    pub(super) async fn find_access_token(
        &self,
        token: &str,
    ) -> Result<Option<KnownToken>, StoreError> {
        if token.starts_with(OPAQUE_PREFIX) {
            return self
                .tokens
                .by_hash(&sha256_base64url(token.as_bytes()))
                .await;
        }
        let claims = self
            .keys
            .verify_token::<AccessTokenClaims>(ACCESS_TOKEN_TYP, token);
        let Ok(claims) = claims else { return Ok(None) };
        let known = self.tokens.by_id(&claims.jti).await?;
        // The token and its record must tell the same, or one of them is not ours.
        Ok(known.filter(|known| claims == self.access_token_claims(&known.token)))
    }
}
