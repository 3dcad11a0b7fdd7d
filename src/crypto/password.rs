//! Secrets that people choose: argon2id (RFC 9106), slow on purpose.

use crate::domain::Secret;
use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};
use std::sync::OnceLock;

/// Hashes a secret; the salt is the library's.
pub fn hash(secret: &Secret) -> String {
    Argon2::default()
        .hash_password(secret.expose().as_bytes())
        .expect("the default parameters hash any secret")
        .to_string()
}

/// Whether a secret is the one behind a hash. Without a hash the same work is done and the answer is no.
pub fn matches(hash: Option<&str>, secret: &Secret) -> bool {
    static NOBODYS: OnceLock<String> = OnceLock::new();
    let nobodys = || {
        NOBODYS
            .get_or_init(|| self::hash(&Secret::new("nobody's".into())))
            .as_str()
    };
    let against = hash.unwrap_or_else(nobodys);
    let right = PasswordHash::new(against).is_ok_and(|parsed| {
        Argon2::default()
            .verify_password(secret.expose().as_bytes(), &parsed)
            .is_ok()
    });
    right & hash.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_matches_its_own_hash_only() {
        let secret = Secret::new("4711".into());
        let hashed = hash(&secret);
        assert!(matches(Some(&hashed), &secret));
        assert!(!matches(Some(&hashed), &Secret::new("4712".into())));
        assert!(!matches(None, &Secret::new("nobody's".into())));
        assert!(!matches(Some("damaged"), &secret));
        assert_ne!(hash(&secret), hashed);
    }
}
