//! The stored keys, opened, as they stand at one moment.

use super::jose::{InvalidJws, Jws, MAX_CHECKPOINT_LEN, SigningKey};
use super::jwk::PublicJwk;
use super::key_record::{DeploymentKey, KeyRecord, KeyRingError, key_states};
use super::mac::MacKey;
use super::seal::SealKey;
use crate::domain::key::{KeyPolicy, KeyState, Purpose};
use crate::domain::{SignatureAlgorithm, Timestamp};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What every request works with. Never changed, only replaced by a newer one.
pub(super) struct OpenKeys {
    pub id_mac: Versions<MacKey>,
    pub pepper: Versions<MacKey>,
    pub data_seal: Versions<SealKey>,
    pub subject: Versions<MacKey>,
    pub device_nonce: Versions<MacKey>,
    pub token_signing: Signers,
    pub challenge_signing: Signers,
    pub audit: Signers,
}

/// The versions of a secret key: one makes, all check.
pub(super) struct Versions<K> {
    active: u32,
    keys: BTreeMap<u32, Arc<K>>,
}

impl<K> Versions<K> {
    /// The version to make something with.
    pub fn active(&self) -> (u32, &K) {
        (self.active, &self.keys[&self.active])
    }

    /// The version that stays the longest.
    pub fn oldest(&self) -> &K {
        let first = self.keys.values().next();
        first.map_or_else(|| self.active().1, Arc::as_ref)
    }

    pub fn get(&self, version: u32) -> Option<&K> {
        self.keys.get(&version).map(Arc::as_ref)
    }

    /// The active one first, then the others from the newest: what was made lately is found soon.
    pub fn all(&self) -> impl Iterator<Item = &K> {
        let others = self.keys.iter().rev();
        let others = others.filter(|(version, _)| **version != self.active);
        std::iter::once(self.active().1).chain(others.map(|(_, key)| key.as_ref()))
    }
}

/// The key pairs of one purpose, oldest first, whatever their algorithm and state.
pub(super) struct Signers(Vec<Signer>);

struct Signer {
    version: u32,
    state: KeyState,
    verifies_hints: bool,
    revoked_at: Option<Timestamp>,
    key: Arc<SigningKey>,
}

impl Signers {
    /// The key to sign with.
    pub fn active(&self, algorithm: SignatureAlgorithm) -> Option<&SigningKey> {
        let fits = |signer: &&Signer| {
            signer.state == KeyState::Active && signer.key.algorithm() == algorithm
        };
        self.0.iter().rev().find(fits).map(|signer| &*signer.key)
    }

    /// Verifies a statement that is still in use.
    pub fn verify<T: DeserializeOwned>(&self, typ: &str, token: &str) -> Result<T, InvalidJws> {
        self.verify_where(typ, Jws::parse(token)?, |signer| {
            signer.state.is_published()
        })
    }

    /// Verifies a token that only says who its bearer once was.
    pub fn verify_hint<T: DeserializeOwned>(
        &self,
        typ: &str,
        token: &str,
    ) -> Result<T, InvalidJws> {
        self.verify_where(typ, Jws::parse(token)?, |signer| signer.verifies_hints)
    }

    /// Verifies a statement that is kept: the key may be long gone. One that was revoked counts for what
    /// says of itself that it is older; that holds only where something else proves the statement's age.
    pub fn verify_kept<T: DeserializeOwned>(
        &self,
        typ: &str,
        token: &str,
    ) -> Result<T, InvalidJws> {
        let jws = Jws::parse_within(token, MAX_CHECKPOINT_LEN)?;
        let signer = jws.kid.as_deref().and_then(|kid| self.by_kid(kid));
        let revoked_at = signer.and_then(|signer| signer.revoked_at);
        let claims: Value = self.verify_where(typ, jws, |_| true)?;
        let issued_at = claims["iat"].as_i64().map(Timestamp::from_secs);
        if revoked_at.is_some_and(|revoked| issued_at.is_none_or(|issued| issued > revoked)) {
            return Err(InvalidJws::Signature);
        }
        serde_json::from_value(claims).map_err(|_| InvalidJws::Claims)
    }

    fn verify_where<T: DeserializeOwned>(
        &self,
        typ: &str,
        jws: Jws<'_>,
        accepts: impl Fn(&Signer) -> bool,
    ) -> Result<T, InvalidJws> {
        let signer = jws.kid.as_deref().and_then(|kid| self.by_kid(kid));
        let signer = signer.filter(|signer| accepts(signer));
        let key = signer.ok_or(InvalidJws::Signature)?.key.verifying_key();
        jws.verify(typ, key)
    }

    fn by_kid(&self, kid: &str) -> Option<&Signer> {
        self.0.iter().find(|signer| signer.key.kid == kid)
    }

    /// The published keys as a JWK set (RFC 7517 5).
    pub fn jwks(&self) -> Value {
        let published = self.0.iter().filter(|signer| signer.state.is_published());
        let keys: Vec<_> = published.map(|signer| signer.key.jwk()).collect();
        serde_json::json!({ "keys": keys })
    }
}

/// The records of one purpose, each with its state.
type Stored<'a> = Vec<(&'a KeyRecord, KeyState)>;

impl OpenKeys {
    /// Opens all records. What `before` holds already is taken from there: a key is unwrapped, parsed
    /// and checked against its public half once in the life of a process.
    ///
    /// # Errors
    /// When a key does not open or a purpose has none to work with.
    pub fn open(
        records: &[KeyRecord],
        deployment: &DeploymentKey,
        policy: &KeyPolicy,
        now: Timestamp,
        before: Option<&Self>,
    ) -> Result<Self, KeyRingError> {
        let states = key_states(records, now);
        let stored = |purpose: Purpose| -> Stored<'_> {
            let all = records.iter().zip(states.iter().copied());
            all.filter(|(record, _)| record.purpose == purpose)
                .collect()
        };
        let mac = |bytes: &[u8]| bytes.try_into().ok().map(MacKey::new);
        let seal = |bytes: &[u8]| bytes.try_into().ok().map(SealKey::new);
        let secrets = |purpose, before| secrets(purpose, &stored(purpose), deployment, mac, before);
        let pairs =
            |purpose, before| pairs(purpose, &stored(purpose), deployment, policy, now, before);
        Ok(Self {
            id_mac: secrets(Purpose::IdMac, before.map(|keys| &keys.id_mac))?,
            pepper: secrets(Purpose::SecretPepper, before.map(|keys| &keys.pepper))?,
            data_seal: self::secrets(
                Purpose::DataSeal,
                &stored(Purpose::DataSeal),
                deployment,
                seal,
                before.map(|keys| &keys.data_seal),
            )?,
            subject: secrets(Purpose::Subject, before.map(|keys| &keys.subject))?,
            device_nonce: secrets(Purpose::DeviceNonce, before.map(|keys| &keys.device_nonce))?,
            token_signing: pairs(
                Purpose::TokenSigning,
                before.map(|keys| &keys.token_signing),
            )?,
            challenge_signing: pairs(
                Purpose::ChallengeSigning,
                before.map(|keys| &keys.challenge_signing),
            )?,
            audit: pairs(Purpose::Audit, before.map(|keys| &keys.audit))?,
        })
    }
}

fn secrets<K>(
    purpose: Purpose,
    stored: &Stored<'_>,
    deployment: &DeploymentKey,
    parse: impl Fn(&[u8]) -> Option<K>,
    before: Option<&Versions<K>>,
) -> Result<Versions<K>, KeyRingError> {
    let mut keys = BTreeMap::new();
    let mut active = None;
    for &(record, state) in stored {
        let version = record.version;
        if version > purpose.max_version() {
            return Err(KeyRingError::Damaged { purpose, version });
        }
        let known = before.and_then(|before| before.keys.get(&version));
        let key = match known {
            Some(key) => key.clone(),
            None => {
                let key = parse(&deployment.unwrap(record)?);
                Arc::new(key.ok_or(KeyRingError::Damaged { purpose, version })?)
            }
        };
        if state == KeyState::Active {
            active = Some(version);
        }
        if state != KeyState::Revoked {
            keys.insert(version, key);
        }
    }
    let active = active.ok_or(KeyRingError::Missing(purpose))?;
    Ok(Versions { active, keys })
}

fn pairs(
    purpose: Purpose,
    stored: &Stored<'_>,
    deployment: &DeploymentKey,
    policy: &KeyPolicy,
    now: Timestamp,
    before: Option<&Signers>,
) -> Result<Signers, KeyRingError> {
    let mut signers = Vec::new();
    for &(record, state) in stored {
        let version = record.version;
        let known = before.and_then(|Signers(before)| {
            let signer = before.iter().find(|signer| signer.version == version)?;
            Some(signer.key.clone())
        });
        let key = match known {
            Some(key) => key,
            None => {
                let key = parse_pair(&deployment.unwrap(record)?, record);
                Arc::new(key.ok_or(KeyRingError::Damaged { purpose, version })?)
            }
        };
        signers.push(Signer {
            version,
            state,
            verifies_hints: record.life.verifies_hints(policy, now),
            revoked_at: record.life.revoked_at,
            key,
        });
    }
    if signers
        .iter()
        .any(|signer| signer.state == KeyState::Active)
    {
        Ok(Signers(signers))
    } else {
        Err(KeyRingError::Missing(purpose))
    }
}

/// The public half is stored in the open: it counts only if the wrapped half belongs to it. So nobody
/// who can merely write to the database adds a key of their own.
fn parse_pair(pkcs8: &[u8], record: &KeyRecord) -> Option<SigningKey> {
    let jwk = serde_json::from_str(record.public_jwk.as_deref()?).ok()?;
    SigningKey::new(pkcs8, PublicJwk::from_jwk(&jwk).ok()?, record.algorithm?)
}
