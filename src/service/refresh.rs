//! Exchanges a refresh token (RFC 6749 6): each once, with a family that dies of reuse (RFC 9700 4.14).

use super::Services;
use super::authenticate_client::AuthenticatedClient;
use crate::crypto::sha256_base64url;
use crate::domain::client::Grant;
use crate::domain::{Scope, Secret, Timestamp};
use crate::store::StoreError;
use crate::store::sql::tokens::{OpenRotation, Rotation, StoredRefreshToken};
use serde_json::json;

#[derive(Debug, thiserror::Error)]
pub enum RefreshError {
    /// Unknown, another client's, expired, revoked or used up: which of them is nobody's business.
    #[error("the refresh token is not valid for this client")]
    InvalidGrant,
    #[error("the scope is more than was granted")]
    Scope,
    #[error("this client may not refresh")]
    UnauthorizedClient,
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Services {
    /// Exchanges a refresh token for a new pair. Within the grace period the same token brings the same
    /// response again, so that a lost reply costs nothing; after it, reuse ends the whole family.
    pub async fn refresh(
        &self,
        client: &AuthenticatedClient,
        token: &Secret,
        scope: Option<&str>,
    ) -> Result<Secret, RefreshError> {
        if !client.registration.allows(Grant::RefreshToken) {
            return Err(RefreshError::UnauthorizedClient);
        }
        let now = self.clock.now();
        let hash = sha256_base64url(token.expose().as_bytes());
        let stored = self
            .tokens
            .refresh_token(&hash)
            .await?
            .ok_or(RefreshError::InvalidGrant)?;
        let family = &stored.family;
        if family.client_id != client.id
            || stored.family_revoked_at.is_some()
            || now >= family.expires_at
        {
            return Err(RefreshError::InvalidGrant);
        }
        if let Some(scope) = scope {
            // The same or less may be asked for (RFC 6749 6); less is granted as what it was.
            let scope = Scope::parse(scope).map_err(|_| RefreshError::Scope)?;
            if !scope.is_subset(&family.scope) {
                return Err(RefreshError::Scope);
            }
        }
        if !self.family_stands(family).await? {
            return Err(RefreshError::InvalidGrant);
        }
        if stored.used.is_some() {
            return self.used_again(&stored, now).await;
        }
        match self.tokens.begin_rotation(&stored, now).await? {
            Rotation::Open(open) => self.rotate(client, *open, now).await,
            Rotation::Taken => {
                let again = self.tokens.refresh_token(&hash).await?;
                let again = again.ok_or(RefreshError::InvalidGrant)?;
                self.used_again(&again, now).await
            }
        }
    }

    async fn rotate(
        &self,
        client: &AuthenticatedClient,
        open: OpenRotation,
        now: Timestamp,
    ) -> Result<Secret, RefreshError> {
        let family = open.family.clone();
        let standing = &open.standing;
        if standing.user.is_none()
            || !standing.client_active
            || (family.device_id.is_some() && standing.device.is_none())
        {
            return Err(RefreshError::InvalidGrant);
        }
        let (access, refresh, response) = self
            .mint_refreshed(client, &family, now)
            .map_err(StoreError::misconfigured)?;
        let payload = json!({
            "refresh_family": family.id,
            "client": family.client_id,
            "user": family.user_id,
            "token": access.token.id,
        });
        let entry = self.entry("tokens.refreshed", now, payload);
        match open.rotate(&refresh.hash, &access, &response, entry).await {
            Ok(()) => Ok(response),
            Err(StoreError::CommitUnknown(cause)) => {
                // The access token's row says whether it was this very exchange that committed.
                match self.tokens.by_id(&access.token.id).await? {
                    Some(_) => Ok(response),
                    None => Err(StoreError::Unavailable(cause).into()),
                }
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn used_again(
        &self,
        stored: &StoredRefreshToken,
        now: Timestamp,
    ) -> Result<Secret, RefreshError> {
        let Some((used_at, response)) = &stored.used else {
            return Err(RefreshError::InvalidGrant);
        };
        if stored.family_revoked_at.is_some() {
            return Err(RefreshError::InvalidGrant);
        }
        if now < used_at.plus(self.policy.refresh_grace)
            && let Some(response) = response
        {
            return Ok(response.clone());
        }
        let family = &stored.family;
        let payload = json!({
            "refresh_family": family.id,
            "client": family.client_id,
            "user": family.user_id,
            "why": "reuse of a refresh token",
        });
        let entry = self.entry("refresh_family.revoked", now, payload);
        self.tokens
            .revoke_family(&family.id, stored.partition, now, entry)
            .await?;
        tracing::warn!(client = %family.client_id, "a refresh token was used again: its family is revoked");
        metrics::counter!("assent_refresh_reuse_total").increment(1);
        Err(RefreshError::InvalidGrant)
    }
}
