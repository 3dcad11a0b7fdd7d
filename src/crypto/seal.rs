//! Values at rest: AES-256-GCM-SIV (RFC 8452), bound to the place they belong to.
//!
//! The SIV mode keeps its promise even if a random nonce ever repeats. The associated data names table
//! and row, so a value moved to another row does not open.

use super::{base64url, from_base64url};
use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, Nonce, RandomizedNonceKey};
use zeroize::Zeroizing;

const NONCE_LEN: usize = 12;

/// One key that seals and opens.
pub struct SealKey(RandomizedNonceKey);

/// The text does not open: another key, another place, or damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a sealed value does not open with this key in this place")]
pub struct CannotOpen;

impl SealKey {
    /// From 32 random bytes.
    pub fn new(key: &[u8; 32]) -> Self {
        // The only error is a wrong length, which the type rules out.
        Self(RandomizedNonceKey::new(&AES_256_GCM_SIV, key).expect("32 bytes make a key"))
    }

    /// Seals `plain` for the place that `context` names. The result is base64url text.
    pub fn seal(&self, context: &str, plain: &[u8]) -> String {
        let mut buffer = plain.to_vec();
        let nonce = self
            .0
            .seal_in_place_append_tag(Aad::from(context), &mut buffer)
            .expect("sealing fails only beyond 64 GiB");
        buffer.splice(0..0, nonce.as_ref().iter().copied());
        base64url(&buffer)
    }

    /// Opens what [`SealKey::seal`] made for the same `context`.
    ///
    /// # Errors
    /// [`CannotOpen`], whatever the cause.
    pub fn open(&self, context: &str, sealed: &str) -> Result<Zeroizing<Vec<u8>>, CannotOpen> {
        let mut bytes = Zeroizing::new(from_base64url(sealed).ok_or(CannotOpen)?);
        let (nonce, body) = bytes.split_at_mut_checked(NONCE_LEN).ok_or(CannotOpen)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| CannotOpen)?;
        let plain = self
            .0
            .open_in_place(nonce, Aad::from(context), body)
            .map_err(|_| CannotOpen)?;
        Ok(Zeroizing::new(plain.to_vec()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_opens_in_its_own_place_only() {
        let key = SealKey::new(&[1; 32]);
        let sealed = key.seal("outcomes|a", b"evidence");
        assert_eq!(
            key.open("outcomes|a", &sealed).unwrap().as_slice(),
            b"evidence"
        );
        assert_eq!(key.open("outcomes|b", &sealed).unwrap_err(), CannotOpen);
        assert_eq!(
            SealKey::new(&[2; 32])
                .open("outcomes|a", &sealed)
                .unwrap_err(),
            CannotOpen
        );
        for damaged in ["", "AAAA", &sealed[1..], &format!("{sealed}A")] {
            assert_eq!(key.open("outcomes|a", damaged).unwrap_err(), CannotOpen);
        }
        assert_ne!(key.seal("outcomes|a", b"evidence"), sealed);
    }
}
