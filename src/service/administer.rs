//! What an operator does from the command line.

use super::Services;
use crate::crypto::base64url;
use crate::domain::client::{Client, ClientAuthMethod, DeliveryMode};
use crate::domain::user::Login;
use crate::domain::{ClientId, Scope, Secret, User, UserId};
use crate::store::StoreError;
use serde_json::json;
use std::time::Duration;

/// A client to register.
#[derive(Clone, Debug)]
pub struct NewClient {
    /// `None`: a random id.
    pub id: Option<ClientId>,
    pub name: String,
    pub auth_method: ClientAuthMethod,
    pub scope: Scope,
    pub open_requests_per_user: u32,
    pub long_poll: Duration,
}

impl Services {
    /// A new secret: 256 random bits behind a prefix that secret scanners can find.
    fn new_client_secret(&self) -> Secret {
        Secret::new(format!(
            "assent_cs_{}",
            base64url(&self.entropy.bytes::<32>())
        ))
    }

    /// Registers a client. Its secret is returned once and never again; `None` when the id is taken.
    pub async fn add_client(&self, new: NewClient) -> Result<Option<(Client, Secret)>, StoreError> {
        let now = self.clock.now();
        let id = new
            .id
            .unwrap_or_else(|| ClientId::new(format!("client-{}", self.random_id())));
        let secret = self.new_client_secret();
        let client = Client {
            secret: self.keys.secret_verifier(&id, &secret),
            id,
            name: new.name,
            auth_method: new.auth_method,
            scope: new.scope,
            delivery_mode: DeliveryMode::Poll,
            open_requests_per_user: new.open_requests_per_user,
            long_poll: new.long_poll,
            created_at: now,
            locked_at: None,
        };
        let payload = json!({
            "client": client.id,
            "auth_method": client.auth_method,
            "scope": client.scope,
            "delivery_mode": client.delivery_mode,
        });
        let added = self
            .directory
            .insert_client(&client, self.entry("client.added", now, payload))
            .await?;
        Ok(added.then_some((client, secret)))
    }

    /// Gives a client a new secret; the old one ends at once. `None` when there is no such client.
    pub async fn rotate_client_secret(&self, id: &ClientId) -> Result<Option<Secret>, StoreError> {
        let now = self.clock.now();
        let secret = self.new_client_secret();
        let verifier = self.keys.secret_verifier(id, &secret);
        let entry = self.entry("client.secret_rotated", now, json!({ "client": id }));
        let replaced = self.directory.replace_secret(id, &verifier, entry).await?;
        Ok(replaced.then_some(secret))
    }

    /// Locks a client: it can ask for nothing, and what was approved for it yields no tokens.
    pub async fn lock_client(&self, id: &ClientId) -> Result<bool, StoreError> {
        let now = self.clock.now();
        let entry = self.entry("client.locked", now, json!({ "client": id }));
        self.directory.lock_client(id, now, entry).await
    }

    /// Adds a person; `None` when the login is taken.
    pub async fn add_user(
        &self,
        login: Login,
        name: Option<String>,
    ) -> Result<Option<User>, StoreError> {
        let now = self.clock.now();
        let id = UserId::new(self.random_id());
        let user = User {
            partition: self.keys.partition(&id),
            id,
            login,
            name,
            created_at: now,
            locked_at: None,
        };
        let entry = self.entry("user.added", now, json!({ "user": user.id }));
        Ok(self
            .directory
            .insert_user(&user, entry)
            .await?
            .then_some(user))
    }

    /// Locks a person: nobody can ask them, what is open is cancelled, and what they approved but
    /// nobody redeemed yields no tokens. Returns how many requests were cancelled.
    pub async fn lock_user(&self, user: &User) -> Result<usize, StoreError> {
        let now = self.clock.now();
        let entry = self.entry("user.locked", now, json!({ "user": user.id }));
        self.directory.lock_user(user, now, entry).await?;
        // Also when somebody else locked first: their cancelling may have been interrupted.
        self.cancel_all(&user.id, "user locked").await
    }
}
