//! A service gets a token for itself (RFC 6749 4.4).

use super::Services;
use super::authenticate_client::AuthenticatedClient;
use crate::domain::client::Grant;
use crate::domain::{Scope, Secret};
use crate::store::StoreError;
use serde_json::json;

#[derive(Debug, thiserror::Error)]
pub enum ClientCredentialsError {
    #[error("this client may not act for itself")]
    UnauthorizedClient,
    #[error("scope is malformed or more than this client may ask for")]
    Scope,
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Services {
    /// A token for the client itself. Without a `scope` it gets all it may have, but never `openid`:
    /// there is no person in it.
    pub async fn client_credentials(
        &self,
        client: &AuthenticatedClient,
        scope: Option<&str>,
    ) -> Result<Secret, ClientCredentialsError> {
        let stored = self.directory.client(&client.id).await?;
        let allowed = stored.is_some_and(|stored| stored.locked_at.is_none());
        if !allowed || !client.registration.allows(Grant::ClientCredentials) {
            return Err(ClientCredentialsError::UnauthorizedClient);
        }
        let may = client.registration.scope.without(&["openid", "profile"]);
        let scope = match scope {
            None => may.ok_or(ClientCredentialsError::Scope)?,
            Some(text) => {
                let wanted = Scope::parse(text).map_err(|_| ClientCredentialsError::Scope)?;
                if !may.is_some_and(|may| wanted.is_subset(&may)) {
                    return Err(ClientCredentialsError::Scope);
                }
                wanted
            }
        };
        let now = self.clock.now();
        let (token, response) = self
            .mint_for_client(client, scope, now)
            .map_err(StoreError::misconfigured)?;
        let payload = json!({
            "client": client.id,
            "token": token.token.id,
            "scope": token.token.scope,
        });
        self.tokens
            .issue_to_client(&token, self.entry("tokens.issued", now, payload))
            .await?;
        Ok(response)
    }
}
