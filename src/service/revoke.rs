//! Ends tokens before their time (RFC 7009).

use super::Services;
use super::authenticate_client::AuthenticatedClient;
use crate::crypto::sha256_base64url;
use crate::domain::token::{REFRESH_PREFIX, RefreshFamily};
use crate::domain::{Secret, Timestamp};
use crate::store::StoreError;
use serde_json::json;

impl Services {
    /// Ends a token of the calling client. A refresh token takes its whole family along. A token that is
    /// unknown, or another client's, is left alone, and the caller learns nothing (RFC 7009 2.2).
    pub async fn revoke(
        &self,
        caller: &AuthenticatedClient,
        token: &Secret,
    ) -> Result<(), StoreError> {
        let now = self.clock.now();
        if token.expose().starts_with(REFRESH_PREFIX) {
            let hash = sha256_base64url(token.expose().as_bytes());
            let stored = self.tokens.refresh_token(&hash).await?;
            let Some(stored) = stored.filter(|stored| stored.family.client_id == caller.id) else {
                return Ok(());
            };
            let payload = json!({
                "refresh_family": stored.family.id,
                "client": caller.id,
                "user": stored.family.user_id,
                "why": "revoked by the client",
            });
            let entry = self.entry("refresh_family.revoked", now, payload);
            self.tokens
                .revoke_family(&stored.family.id, stored.partition, now, entry)
                .await?;
            return Ok(());
        }
        let known = self.find_access_token(token.expose()).await?;
        let Some(known) = known.filter(|known| known.token.client_id == caller.id) else {
            return Ok(());
        };
        let partition = match &known.token.user_id {
            None => None,
            Some(user) => self.directory.user(user).await?.map(|user| user.partition),
        };
        let payload = json!({
            "token": known.token.id,
            "client": caller.id,
            "user": known.token.user_id,
        });
        let entry = self.entry("token.revoked", now, payload);
        self.tokens
            .revoke_token(&known.token.id, partition, now, entry)
            .await?;
        Ok(())
    }

    /// Whether the person, client and device behind a family are all still good.
    pub(super) async fn family_stands(&self, family: &RefreshFamily) -> Result<bool, StoreError> {
        let user = self.directory.user(&family.user_id).await?;
        let client = self.directory.client(&family.client_id).await?;
        let device = match &family.device_id {
            None => None,
            Some(id) => self.directory.device(id).await?,
        };
        let too_old =
            |not_before: Option<Timestamp>| not_before.is_some_and(|at| family.created_at < at);
        Ok(
            user.is_some_and(|user| user.locked_at.is_none() && !too_old(user.tokens_not_before))
                && client.is_some_and(|client| {
                    client.locked_at.is_none() && !too_old(client.tokens_not_before)
                })
                && device.is_none_or(|device| {
                    device.state == crate::domain::device::DeviceState::Active
                }),
        )
    }
}
