//! A client proves who it is by a signed statement (RFC 7523 3, OpenID Connect Core 9).

use super::authenticate_client::{ClientAuthError, KnownClient};
use super::{CLOCKS_APART, Services};
use crate::crypto::jose::{InvalidJws, Jws};
use crate::crypto::{ClientKeySet, sha256_base64url};
use crate::domain::client::{ClientAuthentication, KeySource};
use crate::domain::{Client, ClientId, Secret, SignatureAlgorithm, Timestamp};
use crate::outbound::{Method, OutboundRequest};
use serde::Deserialize;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::OwnedMutexGuard;

/// How far ahead an assertion may expire.
const MAX_LIFETIME: Duration = Duration::from_secs(300);
/// How far a client's clock may be ahead of ours.
const SKEW: Duration = Duration::from_secs(60);
/// How long fetched keys are good.
const KEYS_LIFETIME: Duration = Duration::from_secs(600);
/// How soon keys may be fetched again for a `kid` they lack.
const REFETCH_AFTER: Duration = Duration::from_secs(30);
/// How long fetched keys serve when no newer ones can be had.
const STALE_KEYS_LIFETIME: Duration = Duration::from_secs(3600);
/// The types an assertion may have; most have none (RFC 7523 3, RFC 7523bis).
const TYPS: &[Option<&str>] = &[None, Some("JWT"), Some("client-authentication+jwt")];
/// How many clients' keys are remembered.
const CACHE_SIZE: usize = 10_000;

/// The claims of an assertion.
#[derive(Debug, Deserialize)]
struct Assertion {
    iss: String,
    sub: String,
    aud: Audience,
    exp: i64,
    jti: String,
    nbf: Option<i64>,
    iat: Option<i64>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

impl Services {
    pub(super) async fn authenticate_by_assertion(
        &self,
        named: Option<&ClientId>,
        assertion: &Secret,
    ) -> Result<KnownClient, ClientAuthError> {
        let now = self.clock.now();
        let jws = Jws::parse(assertion.expose()).map_err(|_| ClientAuthError::Invalid)?;
        let id = jws
            .unverified_member("iss")
            .as_deref()
            .and_then(ClientId::parse);
        let id = id.ok_or(ClientAuthError::Invalid)?;
        if named.is_some_and(|named| *named != id) {
            return Err(ClientAuthError::Invalid);
        }
        let client = self.registered(&id, now).await?;
        let ClientAuthentication::PrivateKeyJwt { algorithm, keys } =
            &client.registration.authentication
        else {
            return Err(ClientAuthError::Invalid);
        };
        let claims = self
            .verify_assertion(&client, *algorithm, keys, assertion, now)
            .await?;
        self.check_claims(&claims, &id, now)?;
        let use_id = format!(
            "client|{}|{}",
            sha256_base64url(id.as_str().as_bytes()),
            sha256_base64url(claims.jti.as_bytes())
        );
        let until = Timestamp::from_secs(claims.exp).plus(SKEW + CLOCKS_APART);
        if !self.replays.first_use(&use_id, until, now).await? {
            return Err(ClientAuthError::Invalid);
        }
        Ok(client)
    }

    /// Verifies with the keys at hand; where they are fetched and lack the one that signed, once more
    /// with fresh ones, but not more often than every so many seconds.
    async fn verify_assertion(
        &self,
        client: &Client,
        algorithm: SignatureAlgorithm,
        source: &KeySource,
        assertion: &Secret,
        now: Timestamp,
    ) -> Result<Assertion, ClientAuthError> {
        let verify = |keys: &ClientKeySet| {
            let jws = Jws::parse(assertion.expose())?;
            keys.verify(jws, algorithm, TYPS)
        };
        let settled = |cached: &Option<(Arc<ClientKeySet>, Timestamp)>| {
            let (keys, fetched_at) = cached.as_ref()?;
            let age = now.since(*fetched_at);
            let fixed = matches!(source, KeySource::Jwks(_));
            match verify(keys) {
                Err(InvalidJws::UnknownKey) if !fixed && age >= REFETCH_AFTER => None,
                result if fixed || age < KEYS_LIFETIME => {
                    Some(result.map_err(|_| ClientAuthError::Invalid))
                }
                _ => None,
            }
        };
        if let Some(result) = settled(&self.client_keys.get(&client.id, source)) {
            return result;
        }
        // However many come at once, in a client's name or not, its endpoint is called once.
        let _turn = self.client_keys.turn(&client.id).await;
        let cached = self.client_keys.get(&client.id, source);
        if let Some(result) = settled(&cached) {
            return result;
        }
        let keys = match (self.obtain_keys(source).await, cached) {
            (Some(keys), _) => {
                let keys = Arc::new(keys);
                self.client_keys
                    .put(&client.id, source.clone(), keys.clone(), now);
                keys
            }
            // Better the keys of before than none, for a while.
            (None, Some((keys, fetched_at))) if now.since(fetched_at) < STALE_KEYS_LIFETIME => keys,
            (None, _) => {
                // Remembered too, or every assertion in the client's name would call its endpoint.
                let none = Arc::new(ClientKeySet::default());
                self.client_keys.put(&client.id, source.clone(), none, now);
                return Err(ClientAuthError::Invalid);
            }
        };
        verify(&keys).map_err(|_| ClientAuthError::Invalid)
    }

    fn check_claims(
        &self,
        claims: &Assertion,
        id: &ClientId,
        now: Timestamp,
    ) -> Result<(), ClientAuthError> {
        let issuer = &self.policy.issuer;
        // CIBA Core 7.1: the issuer, or the endpoint it is sent to, by any of their names.
        let ours = |aud: &String| {
            let endpoint = aud.strip_prefix(issuer.as_str());
            matches!(endpoint, Some("" | "/token" | "/bc-authorize"))
        };
        let for_us = match &claims.aud {
            Audience::One(aud) => ours(aud),
            Audience::Many(auds) => auds.iter().any(ours),
        };
        let exp = Timestamp::from_secs(claims.exp);
        let ahead =
            |at: Option<i64>| at.is_some_and(|at| Timestamp::from_secs(at).since(now) > SKEW);
        let good = claims.iss == id.as_str()
            && claims.sub == id.as_str()
            && for_us
            && now < exp
            && exp.since(now) <= MAX_LIFETIME
            && !ahead(claims.iat)
            && !ahead(claims.nbf)
            && (1..=128).contains(&claims.jti.len());
        if good {
            Ok(())
        } else {
            Err(ClientAuthError::Invalid)
        }
    }

    /// The client's public keys, from its registration or from where it publishes them.
    async fn obtain_keys(&self, source: &KeySource) -> Option<ClientKeySet> {
        let uri = match source {
            KeySource::Jwks(set) => return ClientKeySet::parse(set.to_string().as_bytes()).ok(),
            KeySource::JwksUri(uri) => uri,
        };
        let request = OutboundRequest {
            method: Method::Get,
            url: uri.clone(),
            headers: vec![("accept", "application/json".to_owned())],
            body: Vec::new(),
            ignore_answer_body: false,
        };
        let fetched = match self.outbound.send(request).await {
            Ok(response) if response.status == 200 => {
                ClientKeySet::parse(&response.body).map_err(|error| error.to_string())
            }
            Ok(response) => Err(format!("it answers {}", response.status)),
            Err(error) => Err(error.to_string()),
        };
        fetched
            .inspect_err(|error| tracing::warn!(error, "a client's jwks_uri is of no use"))
            .ok()
    }
}

/// Keys of clients, parsed.
#[derive(Default)]
pub(super) struct ClientKeyCache {
    cached: Mutex<HashMap<ClientId, Cached>>,
    /// Whose keys are being fetched.
    turns: Mutex<HashMap<ClientId, Arc<tokio::sync::Mutex<()>>>>,
}

struct Cached {
    source: KeySource,
    keys: Arc<ClientKeySet>,
    fetched_at: Timestamp,
}

impl ClientKeyCache {
    /// One at a time for each client.
    async fn turn(&self, id: &ClientId) -> OwnedMutexGuard<()> {
        let turn = {
            let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
            turns.retain(|_, turn| Arc::strong_count(turn) > 1);
            turns.entry(id.clone()).or_default().clone()
        };
        turn.lock_owned().await
    }

    /// The keys, if they came from this very source: a changed registration begins anew.
    fn get(&self, id: &ClientId, source: &KeySource) -> Option<(Arc<ClientKeySet>, Timestamp)> {
        let cache = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
        let cached = cache.get(id).filter(|cached| cached.source == *source)?;
        Some((cached.keys.clone(), cached.fetched_at))
    }

    fn put(&self, id: &ClientId, source: KeySource, keys: Arc<ClientKeySet>, now: Timestamp) {
        let mut cache = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
        if cache.len() >= CACHE_SIZE {
            cache.clear();
        }
        cache.insert(
            id.clone(),
            Cached {
                source,
                keys,
                fetched_at: now,
            },
        );
    }
}
