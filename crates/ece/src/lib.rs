//! Message encryption for Web Push (RFC 8291), the content coding `aes128gcm` (RFC 8188) in one record.
//!
//! The crate `web-push` calls a crate of this name, and of that just what stands here. The one that is
//! published does it with OpenSSL; this one with aws-lc, as everything else in assent, and `[patch]` in the
//! root's Cargo.toml puts it in its place.

pub mod legacy;

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::agreement::{ECDH_P256, PrivateKey, UnparsedPublicKey, agree};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};

/// Bytes of a record (RFC 8188 2.1). Ours is the only one, and shorter.
const RECORD_SIZE: u32 = 4096;
/// Marks the last record (RFC 8188 2).
const LAST_RECORD: u8 = 2;
const AUTH_SECRET_LEN: usize = 16;
const SALT_LEN: usize = 16;
const TAG_LEN: usize = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The subscription's public key is no point on P-256.
    PublicKey,
    /// The subscription's secret has not 16 bytes.
    AuthSecret,
    /// More than one record can hold.
    TooLong,
    /// A coding that nobody should use any more.
    Legacy,
    /// The provider failed.
    Provider,
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::PublicKey => "the subscription's public key is not a point on P-256",
            Self::AuthSecret => "the subscription's secret must have 16 bytes",
            Self::TooLong => "the message does not fit into one record",
            Self::Legacy => "the coding aesgcm is not offered",
            Self::Provider => "the cryptographic provider failed",
        })
    }
}

impl std::error::Error for Error {}

pub type Result<T> = std::result::Result<T, Error>;

/// Encrypts for a subscription: its public key as an uncompressed point, and its secret.
pub fn encrypt(remote_pub: &[u8], remote_auth: &[u8], data: &[u8]) -> Result<Vec<u8>> {
    let key = PrivateKey::generate(&ECDH_P256).map_err(|_| Error::Provider)?;
    encrypt_by(&key, salt()?, remote_pub, remote_auth, data)
}

#[expect(
    clippy::disallowed_methods,
    reason = "whoever calls us has no salt to give"
)]
fn salt() -> Result<[u8; SALT_LEN]> {
    let mut salt = [0; SALT_LEN];
    aws_lc_rs::rand::fill(&mut salt).map_err(|_| Error::Provider)?;
    Ok(salt)
}

fn encrypt_by(
    key: &PrivateKey,
    salt: [u8; SALT_LEN],
    remote_pub: &[u8],
    remote_auth: &[u8],
    data: &[u8],
) -> Result<Vec<u8>> {
    if remote_auth.len() != AUTH_SECRET_LEN {
        return Err(Error::AuthSecret);
    }
    if data.len() + 1 + TAG_LEN > RECORD_SIZE as usize {
        return Err(Error::TooLong);
    }
    let public = key.compute_public_key().map_err(|_| Error::Provider)?;
    let public = public.as_ref();
    // RFC 8291 3.3 and 3.4: what both sides can compute, bound to the secret and to both keys.
    let info = [b"WebPush: info\0", remote_pub, public].concat();
    let remote = UnparsedPublicKey::new(&ECDH_P256, remote_pub);
    let input_key = agree(key, remote, Error::PublicKey, |shared| {
        derive::<32>(remote_auth, shared, &info)
    })?;
    let content_key: [u8; 16] = derive(&salt, &input_key, b"Content-Encoding: aes128gcm\0")?;
    let nonce: [u8; 12] = derive(&salt, &input_key, b"Content-Encoding: nonce\0")?;

    let mut record = [data, &[LAST_RECORD]].concat();
    UnboundKey::new(&AES_128_GCM, &content_key)
        .map(LessSafeKey::new)
        .and_then(|key| {
            key.seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::empty(),
                &mut record,
            )
        })
        .map_err(|_| Error::Provider)?;
    // RFC 8188 2.1: salt, record size, the length of the key's name and the name, which is our key.
    let name_len = [public.len() as u8];
    let record_size = RECORD_SIZE.to_be_bytes();
    Ok([&salt, record_size.as_slice(), &name_len, public, &record].concat())
}

/// HKDF with SHA-256 (RFC 5869).
fn derive<const N: usize>(salt: &[u8], key: &[u8], info: &[u8]) -> Result<[u8; N]> {
    struct Length(usize);
    impl KeyType for Length {
        fn len(&self) -> usize {
            self.0
        }
    }
    let mut derived = [0; N];
    Salt::new(HKDF_SHA256, salt)
        .extract(key)
        .expand(&[info], Length(N))
        .and_then(|output| output.fill(&mut derived))
        .map_err(|_| Error::Provider)?;
    Ok(derived)
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    fn bytes(text: &str) -> Vec<u8> {
        URL_SAFE_NO_PAD.decode(text).unwrap()
    }

    const UA_PUBLIC: &str =
        "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4";
    const AUTH_SECRET: &str = "BTBZMqHH6r4Tts7J_aSIgg";

    #[test]
    fn the_example_of_the_standard_comes_out() {
        // RFC 8291, appendix A.
        let key = bytes("yfWPiYE-n46HLnH0KqZOF1fJJU3MYrct3AELtAQ-oRw");
        let key = PrivateKey::from_private_key(&ECDH_P256, &key).unwrap();
        let salt = bytes("DGv6ra1nlYgDCS1FRnbzlw").try_into().unwrap();
        let message = encrypt_by(
            &key,
            salt,
            &bytes(UA_PUBLIC),
            &bytes(AUTH_SECRET),
            b"When I grow up, I want to be a watermelon",
        );
        let expected = "DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIg\
                        Dll6e3vCYLocInmYWAmS6TlzAC8wEqKK6PBru3jl7A_yl95bQpu6cVPTpK4Mqgkf1CXztLVB\
                        St2Ks3oZwbuwXPXLWyouBWLVWGNWQexSgSxsj_Qulcy4a-fN";
        assert_eq!(URL_SAFE_NO_PAD.encode(message.unwrap()), expected);
    }

    #[test]
    fn every_message_has_a_key_and_a_salt_of_its_own() {
        let encrypt = || encrypt(&bytes(UA_PUBLIC), &bytes(AUTH_SECRET), b"again").unwrap();
        let (first, second) = (encrypt(), encrypt());
        assert_ne!(first[..16], second[..16]);
        assert_ne!(first[21..86], second[21..86]);
    }

    #[test]
    fn what_is_no_subscription_is_refused() {
        let (public, auth) = (bytes(UA_PUBLIC), bytes(AUTH_SECRET));
        let mut off_the_curve = public.clone();
        off_the_curve[64] ^= 1;
        for (public, auth, data, why) in [
            (&off_the_curve[..], &auth[..], 1, Error::PublicKey),
            (&public[..64], &auth[..], 1, Error::PublicKey),
            (&[][..], &auth[..], 1, Error::PublicKey),
            (&public[..], &auth[..15], 1, Error::AuthSecret),
            (&public[..], &auth[..], 4096 - 16, Error::TooLong),
        ] {
            assert_eq!(encrypt(public, auth, &vec![0; data]), Err(why));
        }
        assert!(encrypt(&public, &auth, &[0; 4096 - 17]).is_ok());
    }
}
