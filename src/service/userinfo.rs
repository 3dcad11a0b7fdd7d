//! Claims about the person behind an access token (OpenID Connect Core 5.3).

use super::Services;
use crate::store::StoreError;
use serde::Serialize;

#[derive(Clone, Debug, Serialize)]
pub struct UserInfo {
    pub sub: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preferred_username: Option<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum UserInfoError {
    /// Not ours, not for us, expired or revoked in any way (RFC 6750 3.1).
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
        let known = self.find_access_token(token).await?;
        let known = known
            .filter(|known| known.is_active(self.clock.now()))
            .ok_or(UserInfoError::InvalidToken)?;
        let (token, scope) = (known.token.clone(), known.token.scope);
        if token.audience != self.policy.issuer {
            return Err(UserInfoError::InvalidToken);
        }
        if !scope.contains("openid") {
            return Err(UserInfoError::InsufficientScope);
        }
        let user = match &token.user_id {
            None => None,
            Some(id) => self.directory.user(id).await?,
        };
        let user = user.ok_or(UserInfoError::InvalidToken)?;
        let profile = scope.contains("profile");
        Ok(UserInfo {
            sub: token.subject,
            preferred_username: profile.then(|| user.login.as_str().to_owned()),
            name: user.name.filter(|_| profile),
        })
    }
}
