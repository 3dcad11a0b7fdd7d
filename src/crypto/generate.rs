//! New key pairs: PKCS #8 and the public half. The provider draws the randomness.

use super::base64url;
use super::jwk::PublicJwk;
use crate::domain::SignatureAlgorithm;
use crate::domain::device::PublicKey;
use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RsaKeyPair,
};
use zeroize::Zeroizing;

/// The size of our RSA keys. A signature with 3072 bits takes almost three times as long (ADR 0005), and
/// what these keys protect is over in minutes; who wants more strength takes ES256, which is the default.
const RSA_SIZE: KeySize = KeySize::Rsa2048;

/// A PKCS #8 document. Gone from memory when it is dropped.
pub type Pkcs8 = Zeroizing<Vec<u8>>;

/// A new key for signatures of one algorithm. RSA takes its time: 60 ms at the median, often more, and
/// seconds in an unoptimised build.
pub fn generate(algorithm: SignatureAlgorithm) -> (Pkcs8, PublicJwk) {
    match algorithm {
        SignatureAlgorithm::Es256 => {
            let (private, public) = generate_p256();
            (private, public.into())
        }
        SignatureAlgorithm::EdDsa => {
            let (private, public) = generate_ed25519();
            (private, public.into())
        }
        SignatureAlgorithm::Ps256 | SignatureAlgorithm::Rs256 => generate_rsa(),
    }
}

/// A new P-256 key.
pub fn generate_p256() -> (Pkcs8, PublicKey) {
    let pair =
        EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("the provider makes keys");
    let pkcs8 = pair.to_pkcs8v1().expect("a new key can be written");
    // An uncompressed point: 0x04, x, y (SEC 1, 2.3.3).
    let point = pair.public_key().as_ref();
    let public = PublicKey::P256 {
        x: base64url(&point[1..33]),
        y: base64url(&point[33..65]),
    };
    (Zeroizing::new(pkcs8.as_ref().to_vec()), public)
}

/// A new Ed25519 key.
pub fn generate_ed25519() -> (Pkcs8, PublicKey) {
    let pair = Ed25519KeyPair::generate().expect("the provider makes keys");
    let pkcs8 = pair.to_pkcs8v1().expect("a new key can be written");
    let public = PublicKey::Ed25519 {
        x: base64url(pair.public_key().as_ref()),
    };
    (Zeroizing::new(pkcs8.as_ref().to_vec()), public)
}

fn generate_rsa() -> (Pkcs8, PublicJwk) {
    let pair = RsaKeyPair::generate(RSA_SIZE).expect("the provider makes keys");
    let pkcs8: Pkcs8V1Der<'_> = pair.as_der().expect("a new key can be written");
    let public = PublicJwk::rsa(
        pair.public_key()
            .modulus()
            .big_endian_without_leading_zero(),
        pair.public_key()
            .exponent()
            .big_endian_without_leading_zero(),
    );
    (Zeroizing::new(pkcs8.as_ref().to_vec()), public)
}
