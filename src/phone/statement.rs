//! Reads signed statements with somebody's published keys.

use crate::crypto::jose::{Jws, VerifyingKey};
use crate::domain::device::PublicKey;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// A JWK set (RFC 7517 5).
#[derive(Clone, Copy, Debug)]
pub struct KeySet<'a>(&'a Value);

impl<'a> KeySet<'a> {
    pub const fn new(set: &'a Value) -> Self {
        Self(set)
    }

    /// The claims of a statement that one of the keys has signed as a `typ`; `None` for any other.
    pub fn verify<T: DeserializeOwned>(&self, typ: &str, token: &str) -> Option<T> {
        let jws = Jws::parse(token).ok()?;
        let kid = jws.kid.clone()?;
        let jwk = self.0["keys"]
            .as_array()?
            .iter()
            .find(|jwk| jwk["kid"] == kid.as_str())?;
        let key = VerifyingKey::new(&PublicKey::from_jwk(jwk).ok()?)?;
        jws.verify(typ, &key).ok()
    }
}
