//! The keys that a client signs with: a JWK set as it registered it or as its `jwks_uri` serves it
//! (RFC 7517 5), read strictly.

use super::jose::{InvalidJws, Jws, VerifyingKey};
use super::jwk::{InvalidJwk, PublicJwk};
use crate::domain::{SignatureAlgorithm, strict_json};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// The longest set that is looked at, in bytes.
pub const MAX_LEN: usize = 256 * 1024;
/// The most keys in a set, of whatever kind.
pub const MAX_KEYS: usize = 100;
/// The most keys that one statement is tried against. Only a statement without `kid`, or a set with the
/// same `kid` again and again, could ask for more work.
const MAX_TRIES: usize = 4;

/// A client's keys, ready to verify.
#[derive(Clone, Debug, Default)]
pub struct ClientKeySet(Vec<ClientKey>);

/// One key for one algorithm: an RSA key that names none stands here twice.
#[derive(Clone, Debug)]
struct ClientKey {
    kid: Option<String>,
    key: VerifyingKey,
}

/// Why a text is not a key set we accept. `key` counts from 1.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKeySet {
    #[error("a key set may have 256 KiB")]
    TooLong,
    #[error("a key set may have 100 keys")]
    TooMany,
    #[error("not a JSON object whose keys is an array of objects; no member may stand twice")]
    Form,
    #[error("key {key}: {why}")]
    Key { key: usize, why: InvalidJwk },
    #[error("key {key}: kid, use, alg and key_ops must be text, the last an array of it")]
    Member { key: usize },
    #[error("key {key}: its alg is for another type of key")]
    Algorithm { key: usize },
}

impl ClientKeySet {
    /// Reads a JWK set. Keys of types we do not know, for encryption, or for algorithms we do not speak
    /// are passed over (RFC 7517 5); a key that we would use and cannot is an error, since its owner
    /// will want to know. A key that shows its private half spoils the whole set.
    ///
    /// # Errors
    /// [`InvalidKeySet`] says which key and why.
    pub fn parse(json: &[u8]) -> Result<Self, InvalidKeySet> {
        if json.len() > MAX_LEN {
            return Err(InvalidKeySet::TooLong);
        }
        let set = strict_json::parse(json).map_err(|_| InvalidKeySet::Form)?;
        let jwks = set.get("keys").and_then(Value::as_array);
        let jwks = jwks.ok_or(InvalidKeySet::Form)?;
        if jwks.len() > MAX_KEYS {
            return Err(InvalidKeySet::TooMany);
        }
        let mut keys = Vec::new();
        for (index, jwk) in jwks.iter().enumerate() {
            let key = index + 1;
            if !jwk.is_object() {
                return Err(InvalidKeySet::Form);
            }
            let public = match PublicJwk::from_jwk(jwk) {
                Ok(public) => public,
                Err(InvalidJwk::UnknownType) => continue,
                Err(why) => return Err(InvalidKeySet::Key { key, why }),
            };
            let named = Named::read(jwk).ok_or(InvalidKeySet::Member { key })?;
            if !named.signs {
                continue;
            }
            let algorithms = match named.alg.map(SignatureAlgorithm::of_header) {
                None => SignatureAlgorithm::ALL.to_vec(),
                Some(None) => continue,
                Some(Some(alg)) if public.fits(alg) => vec![alg],
                Some(Some(_)) => return Err(InvalidKeySet::Algorithm { key }),
            };
            let verifying = algorithms
                .into_iter()
                .filter_map(|algorithm| VerifyingKey::of_jwk(&public, algorithm));
            keys.extend(verifying.map(|key| ClientKey {
                kid: named.kid.map(str::to_owned),
                key,
            }));
        }
        Ok(Self(keys))
    }

    /// Whether any key can have signed with this algorithm.
    pub fn has_key_for(&self, algorithm: SignatureAlgorithm) -> bool {
        self.0.iter().any(|key| key.key.algorithm() == algorithm)
    }

    /// Verifies a statement of the client. `algorithm` is the one the client has registered; `typs` are
    /// the types it may have, `None` standing for a header without one.
    ///
    /// Of keys that share a `kid` the one that fits the algorithm counts, as FAPI 2.0 asks. A statement
    /// that names a `kid` is never tried with a key of another name or of none.
    ///
    /// # Errors
    /// As [`Jws::verify_with`]. [`InvalidJws::UnknownKey`]: a newer set may have the key, if the client
    /// publishes one.
    pub fn verify<T: DeserializeOwned>(
        &self,
        jws: Jws<'_>,
        algorithm: SignatureAlgorithm,
        typs: &[Option<&str>],
    ) -> Result<T, InvalidJws> {
        let kid = jws.kid.clone();
        let candidates = self
            .0
            .iter()
            .filter(|key| key.key.algorithm() == algorithm)
            .filter(|key| kid.is_none() || key.kid == kid)
            .map(|key| &key.key)
            .take(MAX_TRIES);
        jws.verify_with(typs, algorithm, candidates)
    }
}

/// What a JWK says about itself beside the key (RFC 7517 4).
struct Named<'a> {
    kid: Option<&'a str>,
    alg: Option<&'a str>,
    signs: bool,
}

impl<'a> Named<'a> {
    /// `None` when a member is not of its type.
    fn read(jwk: &'a Value) -> Option<Self> {
        let text = |name: &str| match jwk.get(name) {
            None => Some(None),
            Some(value) => value.as_str().map(Some),
        };
        let operations = match jwk.get("key_ops") {
            None => None,
            Some(value) => {
                let texts = value.as_array()?.iter().map(Value::as_str);
                Some(texts.collect::<Option<Vec<_>>>()?)
            }
        };
        let for_signatures = text("use")?.is_none_or(|r#use| r#use == "sig");
        let verifies = operations.is_none_or(|operations| operations.contains(&"verify"));
        Some(Self {
            kid: text("kid")?,
            alg: text("alg")?,
            signs: for_signatures && verifies,
        })
    }
}

#[cfg(test)]
mod tests;
