//! Keyed hashes (HMAC-SHA-256, RFC 2104).

use aws_lc_rs::hmac;
use subtle::ConstantTimeEq as _;

/// One key that hashes.
pub struct MacKey(hmac::Key);

impl MacKey {
    pub fn new(key: &[u8; 32]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key))
    }

    /// Hashes the parts under a `label`. Each part is prefixed by its length, so that no two lists of
    /// parts look alike.
    pub fn mac(&self, label: &str, parts: &[&[u8]]) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.0);
        for part in std::iter::once(label.as_bytes()).chain(parts.iter().copied()) {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        let mut mac = [0; 32];
        mac.copy_from_slice(context.sign().as_ref());
        mac
    }
}

/// Whether two hashes are the same, in a time that does not depend on where they differ.
pub fn equal(a: &[u8], b: &[u8]) -> bool {
    a.ct_eq(b).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_do_not_run_together() {
        let key = MacKey::new(&[1; 32]);
        assert_eq!(key.mac("l", &[b"ab", b"c"]), key.mac("l", &[b"ab", b"c"]));
        assert_ne!(key.mac("l", &[b"ab", b"c"]), key.mac("l", &[b"a", b"bc"]));
        assert_ne!(key.mac("l", &[b"ab"]), key.mac("m", &[b"ab"]));
        assert!(equal(b"same", b"same") && !equal(b"same", b"sane") && !equal(b"a", b"ab"));
    }
}
