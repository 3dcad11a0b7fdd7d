//! Who is the relying party?

use super::Services;
use crate::domain::client::{ClientAuthentication, SecretTransport};
use crate::domain::{Client, ClientId, Secret, Timestamp};
use crate::store::StoreError;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How many clients are remembered at a time.
const CACHE_SIZE: usize = 10_000;

/// How long a client is known when the database cannot be asked: as long as a request can live.
const KNOWN_FOR: Duration = Duration::from_secs(600);
/// How long a database that did not answer is left alone.
const DATABASE_RESTS: Duration = Duration::from_secs(1);

/// What a client sent to prove who it is.
#[derive(Clone, Debug)]
pub enum Credentials {
    /// RFC 6749 2.3.1.
    Secret {
        client_id: ClientId,
        secret: Secret,
        transport: SecretTransport,
    },
    /// RFC 7523 2.2; `client_id` is what the form said besides, if anything.
    Assertion {
        client_id: Option<ClientId>,
        assertion: Secret,
    },
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

/// A client whose credentials are right as far as is known: the database may not have been asked.
#[derive(Clone, Debug)]
pub struct KnownClient {
    client: AuthenticatedClient,
    is_confirmed: bool,
}

impl KnownClient {
    /// The client, if the database has confirmed it lately. Without that it may learn that its request is
    /// pending, and nothing else.
    ///
    /// # Errors
    /// The database could not be asked.
    pub fn confirmed(&self) -> Result<&AuthenticatedClient, StoreError> {
        if self.is_confirmed {
            Ok(&self.client)
        } else {
            Err(StoreError::Unavailable(
                "the client is known from before alone".into(),
            ))
        }
    }
}

impl std::ops::Deref for KnownClient {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
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
    ) -> Result<KnownClient, ClientAuthError> {
        match credentials {
            Credentials::Secret {
                client_id,
                secret,
                transport,
            } => {
                self.authenticate_by_secret(client_id, secret, *transport)
                    .await
            }
            Credentials::Assertion {
                client_id,
                assertion,
            } => {
                self.authenticate_by_assertion(client_id.as_ref(), assertion)
                    .await
            }
        }
    }

    async fn authenticate_by_secret(
        &self,
        id: &ClientId,
        secret: &Secret,
        transport: SecretTransport,
    ) -> Result<KnownClient, ClientAuthError> {
        let now = self.clock.now();
        if let Some(client) = self.clients.get(id, now)
            && self.accepts(id, Some(&client), secret, transport)
        {
            return Ok(confirmed(client));
        }
        let stored = match self.stored(id, now).await {
            Ok(stored) => stored,
            // Who is wrong now is told what an unknown client is told.
            Err(error) => {
                let known = self.last_seen(id, error, now)?;
                if !self.accepts(id, Some(&*known), secret, transport) {
                    return Err(known
                        .confirmed()
                        .map_or_else(Into::into, |_| ClientAuthError::Invalid));
                }
                return Ok(known);
            }
        };
        if !self.accepts(id, stored.as_ref(), secret, transport) {
            return Err(ClientAuthError::Invalid);
        }
        self.remember(stored, now)
    }

    /// The client as stored. A database that has just failed to answer is not asked again about a client
    /// that is known from before: its polls must not each wait for nothing.
    async fn stored(&self, id: &ClientId, now: Timestamp) -> Result<Option<Client>, StoreError> {
        if self.clients.is_database_resting(id, now) {
            return Err(StoreError::Unavailable(
                "the database did not answer a moment ago".into(),
            ));
        }
        let stored = self.directory.client(id).await;
        if matches!(stored, Err(StoreError::Unavailable(_))) {
            self.clients.let_database_rest(id, now.plus(DATABASE_RESTS));
        }
        stored
    }

    /// The client as it was when the database could last be asked, if that is not too long ago and the
    /// database is but away.
    fn last_seen(
        &self,
        id: &ClientId,
        error: StoreError,
        now: Timestamp,
    ) -> Result<KnownClient, StoreError> {
        let is_away = matches!(error, StoreError::Unavailable(_));
        let known = self.clients.last_seen(id, now).filter(|_| is_away);
        Ok(KnownClient {
            client: AuthenticatedClient(known.ok_or(error)?),
            is_confirmed: false,
        })
    }

    fn accepts(
        &self,
        id: &ClientId,
        client: Option<&Client>,
        secret: &Secret,
        transport: SecretTransport,
    ) -> bool {
        let verifier = client.and_then(|client| client.secret.as_ref());
        let right = self.keys.secret_matches(id, secret, verifier);
        let method = ClientAuthentication::Secret(transport);
        right & client.is_some_and(|client| client.registration.authentication == method)
    }

    /// The client as cached, or as stored.
    pub(super) async fn registered(
        &self,
        id: &ClientId,
        now: Timestamp,
    ) -> Result<KnownClient, ClientAuthError> {
        match self.clients.get(id, now) {
            Some(client) => Ok(confirmed(client)),
            None => match self.stored(id, now).await {
                Ok(stored) => self.remember(stored, now),
                Err(error) => Ok(self.last_seen(id, error, now)?),
            },
        }
    }

    fn remember(
        &self,
        stored: Option<Client>,
        now: Timestamp,
    ) -> Result<KnownClient, ClientAuthError> {
        let client = Arc::new(stored.ok_or(ClientAuthError::Invalid)?);
        self.clients
            .put(client.clone(), now, now.plus(self.policy.client_cache));
        Ok(confirmed(client))
    }
}

const fn confirmed(client: Arc<Client>) -> KnownClient {
    KnownClient {
        client: AuthenticatedClient(client),
        is_confirmed: true,
    }
}

/// Registrations of clients that authenticated lately.
#[derive(Debug, Default)]
pub(super) struct ClientCache(Mutex<HashMap<ClientId, Seen>>);

#[derive(Debug)]
struct Seen {
    client: Arc<Client>,
    /// From then on the database is asked.
    fresh_until: Timestamp,
    /// From then on it is not believed even if the database cannot be asked.
    known_until: Timestamp,
    /// Until then the database is not asked about this client.
    rests_until: Option<Timestamp>,
}

impl ClientCache {
    fn get(&self, id: &ClientId, now: Timestamp) -> Option<Arc<Client>> {
        let cache = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = cache.get(id).filter(|seen| now < seen.fresh_until)?;
        Some(seen.client.clone())
    }

    fn last_seen(&self, id: &ClientId, now: Timestamp) -> Option<Arc<Client>> {
        let cache = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = cache.get(id).filter(|seen| now < seen.known_until)?;
        Some(seen.client.clone())
    }

    fn is_database_resting(&self, id: &ClientId, now: Timestamp) -> bool {
        let cache = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let rests_until = cache.get(id).and_then(|seen| seen.rests_until);
        rests_until.is_some_and(|until| now < until)
    }

    fn let_database_rest(&self, id: &ClientId, until: Timestamp) {
        let mut cache = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(seen) = cache.get_mut(id) {
            seen.rests_until = Some(until);
        }
    }

    fn put(&self, client: Arc<Client>, now: Timestamp, fresh_until: Timestamp) {
        let mut cache = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if cache.len() >= CACHE_SIZE {
            cache.retain(|_, seen| now < seen.fresh_until);
        }
        if cache.len() >= CACHE_SIZE {
            cache.clear();
        }
        let seen = Seen {
            fresh_until,
            known_until: now.plus(KNOWN_FOR),
            rests_until: None,
            client,
        };
        cache.insert(seen.client.id.clone(), seen);
    }
}
