//! Public keys in the form that the world exchanges them in (RFC 7517).

use super::{base64url, from_base64url, sha256_base64url};
use crate::domain::SignatureAlgorithm;
use crate::domain::device::{InvalidPublicKey, PublicKey};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ED25519, ParsedPublicKey};
use serde_json::Value;

/// An RSA modulus in bits: the least that FAPI 2.0 5.4 allows, and a most, since the cost of checking a
/// signature grows with the square.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=4096;

/// A public key that signatures are checked with: the two kinds a device may use, and RSA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PublicJwk {
    Curve(PublicKey),
    /// Modulus and exponent in base64url (RFC 7518 6.3.1).
    Rsa {
        n: String,
        e: String,
    },
}

/// Why a JWK of a known type is not a key we check signatures with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidJwk {
    #[error("the key type or curve is not one we know")]
    UnknownType,
    #[error(transparent)]
    Curve(InvalidPublicKey),
    #[error("the point is not on the curve")]
    Point,
    #[error("the key holds private or secret parts; send the public key only")]
    Private,
    #[error("n and e must be unpadded base64url without leading zero bytes")]
    RsaEncoding,
    #[error("an RSA modulus must be odd and have 2048 to 4096 bits")]
    RsaModulus,
    #[error("an RSA exponent must be odd, at least 3 and at most 32 bits long")]
    RsaExponent,
}

impl From<PublicKey> for PublicJwk {
    fn from(key: PublicKey) -> Self {
        Self::Curve(key)
    }
}

impl PublicJwk {
    /// Reads a JWK and looks at everything that a signature's check would otherwise trip over.
    ///
    /// # Errors
    /// [`InvalidJwk::UnknownType`] for what a key set may hold beside our kinds of keys; any other for
    /// a key that should have been right.
    pub fn from_jwk(jwk: &Value) -> Result<Self, InvalidJwk> {
        let private = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];
        if private.iter().any(|name| jwk.get(name).is_some()) {
            return Err(InvalidJwk::Private);
        }
        match jwk["kty"].as_str() {
            Some("EC" | "OKP") => {
                let key = PublicKey::from_jwk(jwk).map_err(|why| match why {
                    InvalidPublicKey::Type => InvalidJwk::UnknownType,
                    InvalidPublicKey::Private => InvalidJwk::Private,
                    InvalidPublicKey::Coordinate => InvalidJwk::Curve(why),
                })?;
                if is_on_curve(&key) {
                    Ok(Self::Curve(key))
                } else {
                    Err(InvalidJwk::Point)
                }
            }
            Some("RSA") => rsa(jwk["n"].as_str(), jwk["e"].as_str()),
            _ => Err(InvalidJwk::UnknownType),
        }
    }

    /// Modulus and exponent as big-endian bytes without leading zeroes.
    pub fn rsa(n: &[u8], e: &[u8]) -> Self {
        Self::Rsa {
            n: base64url(n),
            e: base64url(e),
        }
    }

    /// The JWK with its required members only, in the order of RFC 7638 3.3.
    pub fn canonical_jwk(&self) -> String {
        match self {
            Self::Curve(key) => key.canonical_jwk(),
            Self::Rsa { n, e } => format!(r#"{{"e":"{e}","kty":"RSA","n":"{n}"}}"#),
        }
    }

    /// The RFC 7638 thumbprint: the `kid` of our keys.
    pub fn thumbprint(&self) -> String {
        sha256_base64url(self.canonical_jwk().as_bytes())
    }

    /// Whether signatures of this algorithm can be made by such a key.
    pub const fn fits(&self, algorithm: SignatureAlgorithm) -> bool {
        match self {
            Self::Curve(PublicKey::P256 { .. }) => matches!(algorithm, SignatureAlgorithm::Es256),
            Self::Curve(PublicKey::Ed25519 { .. }) => {
                matches!(algorithm, SignatureAlgorithm::EdDsa)
            }
            Self::Rsa { .. } => matches!(
                algorithm,
                SignatureAlgorithm::Ps256 | SignatureAlgorithm::Rs256
            ),
        }
    }

    /// This key as a member of a JWK set (RFC 7517 5).
    pub fn to_jwk(&self, kid: &str, algorithm: SignatureAlgorithm) -> Value {
        let mut jwk: Value = serde_json::from_str(&self.canonical_jwk()).unwrap_or_default();
        jwk["kid"] = kid.into();
        jwk["use"] = "sig".into();
        jwk["alg"] = algorithm.as_str().into();
        jwk
    }
}

/// The provider refuses a P-256 point that is not on the curve. For Ed25519 it looks at the length only
/// and refuses when it comes to a signature.
fn is_on_curve(key: &PublicKey) -> bool {
    match key {
        PublicKey::P256 { x, y } => {
            let (Some(x), Some(y)) = (from_base64url(x), from_base64url(y)) else {
                return false;
            };
            // An uncompressed point (SEC 1, 2.3.3).
            let point = [&[4], x.as_slice(), y.as_slice()].concat();
            ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).is_ok()
        }
        PublicKey::Ed25519 { x } => {
            from_base64url(x).is_some_and(|x| ParsedPublicKey::new(&ED25519, x).is_ok())
        }
    }
}

fn rsa(n: Option<&str>, e: Option<&str>) -> Result<PublicJwk, InvalidJwk> {
    let number = |text: Option<&str>| {
        text.and_then(from_base64url)
            .filter(|bytes| bytes.first().is_some_and(|first| *first != 0))
            .ok_or(InvalidJwk::RsaEncoding)
    };
    let (n, e) = (number(n)?, number(e)?);
    let bits = |bytes: &[u8]| bytes.len() * 8 - bytes[0].leading_zeros() as usize;
    let odd = |bytes: &[u8]| bytes[bytes.len() - 1] % 2 == 1;
    if !RSA_BITS.contains(&bits(&n)) || !odd(&n) {
        return Err(InvalidJwk::RsaModulus);
    }
    if bits(&e) < 2 || bits(&e) > 32 || !odd(&e) {
        return Err(InvalidJwk::RsaExponent);
    }
    Ok(PublicJwk::rsa(&n, &e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    // RFC 7638 3.1: the key and its thumbprint.
    const N: &str = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw";

    fn modulus(bytes: usize, first: u8, last: u8) -> String {
        let mut n = vec![0x5a; bytes];
        (n[0], n[bytes - 1]) = (first, last);
        base64url(&n)
    }

    #[test]
    fn the_example_of_the_rfc() {
        let key = PublicJwk::from_jwk(&json!({"kty": "RSA", "n": N, "e": "AQAB"})).unwrap();
        assert_eq!(
            key.thumbprint(),
            "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"
        );
        assert!(key.fits(SignatureAlgorithm::Ps256) && key.fits(SignatureAlgorithm::Rs256));
        assert!(!key.fits(SignatureAlgorithm::Es256) && !key.fits(SignatureAlgorithm::EdDsa));
        let published = key.to_jwk("k", SignatureAlgorithm::Ps256);
        assert_eq!(
            published,
            json!({"kty": "RSA", "n": N, "e": "AQAB", "kid": "k", "use": "sig", "alg": "PS256"})
        );
    }

    #[test]
    fn an_rsa_key_must_be_of_a_sane_size() {
        for (n, e, why) in [
            (modulus(128, 0x80, 1), "AQAB", Some(InvalidJwk::RsaModulus)),
            (modulus(256, 0x7f, 1), "AQAB", Some(InvalidJwk::RsaModulus)), // 2047 bits
            (modulus(256, 0x80, 1), "AQAB", None),
            (modulus(512, 0xff, 1), "AQAB", None),
            (modulus(513, 0x01, 1), "AQAB", Some(InvalidJwk::RsaModulus)), // 4097 bits
            (modulus(256, 0x80, 2), "AQAB", Some(InvalidJwk::RsaModulus)),
            (modulus(257, 0, 1), "AQAB", Some(InvalidJwk::RsaEncoding)),
            (modulus(256, 0x80, 1), "Aw", None),
            (modulus(256, 0x80, 1), "AQ", Some(InvalidJwk::RsaExponent)), // 1: a signature is the text
            (modulus(256, 0x80, 1), "BA", Some(InvalidJwk::RsaExponent)),
            (
                modulus(256, 0x80, 1),
                "AQAAAAE",
                Some(InvalidJwk::RsaExponent),
            ),
            (modulus(256, 0x80, 1), "", Some(InvalidJwk::RsaEncoding)),
            (
                modulus(256, 0x80, 1),
                "AQAB=",
                Some(InvalidJwk::RsaEncoding),
            ),
        ] {
            let found = PublicJwk::from_jwk(&json!({"kty": "RSA", "n": n, "e": e})).err();
            assert_eq!(found, why, "{} bytes, e {e}", n.len() * 3 / 4);
        }
        let missing = PublicJwk::from_jwk(&json!({"kty": "RSA", "n": N}));
        assert_eq!(missing, Err(InvalidJwk::RsaEncoding));
    }

    #[test]
    fn a_point_must_be_on_its_curve() {
        let x = "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4";
        let y = "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM";
        let ec = |x: &str, y: &str| {
            PublicJwk::from_jwk(&json!({"kty": "EC", "crv": "P-256", "x": x, "y": y}))
        };
        assert!(ec(x, y).is_ok());
        assert_eq!(ec(y, x), Err(InvalidJwk::Point));
        assert_eq!(
            ec(&base64url(&[0; 32]), &base64url(&[0; 32])),
            Err(InvalidJwk::Point)
        );
        assert_eq!(
            ec(x, &y[1..]),
            Err(InvalidJwk::Curve(InvalidPublicKey::Coordinate))
        );
    }

    #[test]
    fn what_is_secret_or_unknown() {
        for name in ["d", "p", "q", "dp", "dq", "qi", "oth", "k"] {
            let mut jwk = json!({"kty": "RSA", "n": N, "e": "AQAB"});
            jwk[name] = "AQAB".into();
            assert_eq!(
                PublicJwk::from_jwk(&jwk),
                Err(InvalidJwk::Private),
                "{name}"
            );
        }
        for jwk in [
            json!({"kty": "oct"}),
            json!({"kty": "EC", "crv": "P-384", "x": "AA", "y": "AA"}),
            json!({"kty": "OKP", "crv": "Ed448", "x": "AA"}),
            json!({"kty": "AKP", "alg": "ML-DSA-44"}),
            json!({"kty": 1}),
            json!({}),
            json!("key"),
        ] {
            assert_eq!(
                PublicJwk::from_jwk(&jwk),
                Err(InvalidJwk::UnknownType),
                "{jwk}"
            );
        }
    }
}
