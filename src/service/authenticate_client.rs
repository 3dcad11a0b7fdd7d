//! Who is the relying party?

use super::Services;
use crate::domain::client::ClientAuthMethod;
use crate::domain::{Client, ClientId, Secret, Timestamp};
use crate::store::StoreError;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// How many clients are remembered at a time.
const CACHE_SIZE: usize = 10_000;

/// What a client sent to prove who it is (RFC 6749 2.3.1).
#[derive(Clone, Debug)]
pub struct Credentials {
    pub client_id: ClientId,
    pub secret: Secret,
    pub method: ClientAuthMethod,
}

/// A client that has proven who it is. Only this module makes one.
#[derive(Clone, Debug)]
pub struct AuthenticatedClient(Arc<Client>);

impl std::ops::Deref for AuthenticatedClient {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.0
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ClientAuthError {
    /// Unknown, wrong secret or wrong method: which of them is nobody's business.
    #[error("client authentication failed")]
    Invalid,
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Services {
    /// Checks a client's credentials against the cached registration, and, when that fails, once
    /// against the stored one: so a rotated secret works at once, and a wrong secret takes the same
    /// path as an unknown client.
    ///
    /// A lock is not looked at here: the use cases do, where it counts, without a cache.
    pub async fn authenticate_client(
        &self,
        credentials: &Credentials,
    ) -> Result<AuthenticatedClient, ClientAuthError> {
        let now = self.clock.now();
        if let Some(client) = self.clients.get(&credentials.client_id, now)
            && self.accepts(Some(&client), credentials)
        {
            return Ok(AuthenticatedClient(client));
        }
        let stored = self.directory.client(&credentials.client_id).await?;
        if !self.accepts(stored.as_ref(), credentials) {
            return Err(ClientAuthError::Invalid);
        }
        let client = Arc::new(stored.ok_or(ClientAuthError::Invalid)?);
        self.clients
            .put(client.clone(), now, now.plus(self.policy.client_cache));
        Ok(AuthenticatedClient(client))
    }

    fn accepts(&self, client: Option<&Client>, credentials: &Credentials) -> bool {
        let verifier = client.map(|client| &client.secret);
        let secret =
            self.keys
                .secret_matches(&credentials.client_id, &credentials.secret, verifier);
        let method = client.is_some_and(|client| client.auth_method == credentials.method);
        secret & method
    }
}

/// Registrations of clients that authenticated lately.
#[derive(Debug, Default)]
pub(super) struct ClientCache(Mutex<HashMap<ClientId, (Arc<Client>, Timestamp)>>);

impl ClientCache {
    fn get(&self, id: &ClientId, now: Timestamp) -> Option<Arc<Client>> {
        let cache = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        cache
            .get(id)
            .filter(|(_, until)| now < *until)
            .map(|(client, _)| client.clone())
    }

    fn put(&self, client: Arc<Client>, now: Timestamp, until: Timestamp) {
        let mut cache = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if cache.len() >= CACHE_SIZE {
            cache.retain(|_, (_, until)| now < *until);
        }
        if cache.len() >= CACHE_SIZE {
            cache.clear();
        }
        cache.insert(client.id.clone(), (client, until));
    }
}
