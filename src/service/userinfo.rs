//! Claims about the person behind an access token (OpenID Connect Core 5.3).

use super::Services;
use super::mint::{ACCESS_TOKEN_TYP, AccessTokenClaims};
use crate::domain::{Scope, UserId};
use crate::store::StoreError;
use serde::Serialize;

#[derive(Clone, Debug, Serialize)]
pub struct UserInfo {
    pub sub: UserId,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preferred_username: Option<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum UserInfoError {
    /// Not ours, expired, or its person or client is locked (RFC 6750 3.1).
    #[error("the access token is not valid")]
    InvalidToken,
    #[error("the access token lacks the scope openid")]
    InsufficientScope,
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Services {
    /// What the token's scope lets its bearer know.
    pub async fn userinfo(&self, token: &str) -> Result<UserInfo, UserInfoError> {
        let claims: AccessTokenClaims = self
            .keys
            .verify_token(ACCESS_TOKEN_TYP, token)
            .map_err(|_| UserInfoError::InvalidToken)?;
        let now = self.clock.now();
        let issuer = &self.policy.issuer;
        if claims.iss != *issuer || claims.aud != *issuer || claims.exp <= now.secs() {
            return Err(UserInfoError::InvalidToken);
        }
        let scope = Scope::parse(&claims.scope).map_err(|_| UserInfoError::InvalidToken)?;
        if !scope.contains("openid") {
            return Err(UserInfoError::InsufficientScope);
        }
        let user = self.directory.user(&claims.sub).await?;
        let client = self.directory.client(&claims.client_id).await?;
        let user = user
            .filter(|user| user.locked_at.is_none())
            .ok_or(UserInfoError::InvalidToken)?;
        if client.is_none_or(|client| client.locked_at.is_some()) {
            return Err(UserInfoError::InvalidToken);
        }
        let profile = scope.contains("profile");
        Ok(UserInfo {
            sub: user.id,
            preferred_username: profile.then(|| user.login.as_str().to_owned()),
            name: user.name.filter(|_| profile),
        })
    }
}
