//! Keys and what is done with them. The only place that names a cryptographic library.
//!
//! One deployment key wraps a [`KeyRing`] of versioned random keys, each for one purpose:
//! [`mac`] makes and checks handles and hashes, [`seal`] hides values at rest, [`jose`] signs and
//! verifies statements, [`audit_chain`] links the audit's rows. What clients sign is checked with the
//! keys they publish: [`ClientKeySet`].

pub mod audit_chain;
pub mod auth_req_id;
pub mod client_keys;
pub mod generate;
pub mod jose;
pub mod jwk;
pub mod key_record;
pub mod key_ring;
pub mod mac;
mod open_keys;
pub mod password;
pub mod seal;
pub mod signature;
pub mod webhook;

pub use client_keys::ClientKeySet;
pub use key_record::{
    DeploymentKey, KeyRecord, KeyRingError, NewKey, generate_missing, key_states,
};
pub use key_ring::{KeyRing, NoSigningKey};

use crate::domain::SignatureAlgorithm;
use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// SHA-256 (FIPS 180-4).
pub fn sha256(data: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, data).as_ref());
    hash
}

/// base64url(SHA-256(data)), as JOSE hashes are written.
pub fn sha256_base64url(data: &[u8]) -> String {
    base64url(&sha256(data))
}

/// The left half of a text's hash, base64url: `at_hash` and its kin (OpenID Connect Core 3.1.3.6). The
/// hash is the algorithm's own: SHA-512 for Ed25519, else SHA-256.
pub fn half_hash(algorithm: SignatureAlgorithm, text: &str) -> String {
    let hash = match algorithm {
        SignatureAlgorithm::EdDsa => digest::digest(&digest::SHA512, text.as_bytes()),
        SignatureAlgorithm::Es256 | SignatureAlgorithm::Ps256 | SignatureAlgorithm::Rs256 => {
            digest::digest(&digest::SHA256, text.as_bytes())
        }
    };
    let hash = hash.as_ref();
    base64url(&hash[..hash.len() / 2])
}

/// base64url without padding (RFC 7515 2).
pub fn base64url(data: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(data)
}

/// Reads base64url without padding; `None` for anything but the canonical text.
pub fn from_base64url(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}
