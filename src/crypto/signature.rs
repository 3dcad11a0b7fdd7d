//! Keys that sign and keys that verify, each for one algorithm.
//!
//! Private keys are parsed once and kept: `jsonwebtoken` would parse the key again for each signature,
//! which for RSA costs more than the signature itself (ADR 0005).

use super::base64url;
use super::jose::Jws;
use super::jwk::PublicJwk;
use crate::domain::device::PublicKey;
use crate::domain::{DeviceId, SignatureAlgorithm};
use aws_lc_rs::digest;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256,
    RSA_PSS_SHA256, RsaEncoding, RsaKeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Serialize;
use serde_json::{Value, json};
use std::fmt;
use zeroize::Zeroizing;

/// The key a statement is checked with: one key, one algorithm.
#[derive(Clone)]
pub struct VerifyingKey {
    algorithm: SignatureAlgorithm,
    key: DecodingKey,
}

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VerifyingKey({})", self.algorithm)
    }
}

impl VerifyingKey {
    /// A device's key. `None` when the coordinates are not base64url.
    pub fn new(key: &PublicKey) -> Option<Self> {
        Self::of_jwk(&key.clone().into(), key.algorithm())
    }

    /// Any key, for one of the algorithms it fits; `None` for another.
    pub fn of_jwk(key: &PublicJwk, algorithm: SignatureAlgorithm) -> Option<Self> {
        if !key.fits(algorithm) {
            return None;
        }
        let key = match key {
            PublicJwk::Curve(PublicKey::P256 { x, y }) => DecodingKey::from_ec_components(x, y),
            PublicJwk::Curve(PublicKey::Ed25519 { x }) => DecodingKey::from_ed_components(x),
            PublicJwk::Rsa { n, e } => DecodingKey::from_rsa_components(n, e),
        };
        Some(Self {
            algorithm,
            key: key.ok()?,
        })
    }

    pub const fn algorithm(&self) -> SignatureAlgorithm {
        self.algorithm
    }

    /// Whether `signature`, in base64url, is this key's over `message`. A key that turns out to be none
    /// has signed nothing.
    pub(super) fn verifies(&self, message: &str, signature: &str) -> bool {
        let algorithm = match self.algorithm {
            SignatureAlgorithm::Es256 => Algorithm::ES256,
            SignatureAlgorithm::EdDsa => Algorithm::EdDSA,
            SignatureAlgorithm::Ps256 => Algorithm::PS256,
            SignatureAlgorithm::Rs256 => Algorithm::RS256,
        };
        jsonwebtoken::crypto::verify(signature, message.as_bytes(), &self.key, algorithm)
            .unwrap_or(false)
    }
}

/// The RFC 7638 thumbprint of a key: a device's id.
pub fn thumbprint(key: &PublicKey) -> DeviceId {
    DeviceId::new(PublicJwk::from(key.clone()).thumbprint())
}

/// A private key that has been parsed.
enum Pair {
    P256(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
    Rsa(RsaKeyPair, &'static dyn RsaEncoding),
}

impl Pair {
    fn parse(algorithm: SignatureAlgorithm, pkcs8: &[u8]) -> Option<Self> {
        let rsa = |padding| Some(Self::Rsa(RsaKeyPair::from_pkcs8(pkcs8).ok()?, padding));
        match algorithm {
            SignatureAlgorithm::Es256 => {
                EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8)
                    .ok()
                    .map(Self::P256)
            }
            SignatureAlgorithm::EdDsa => Ed25519KeyPair::from_pkcs8(pkcs8).ok().map(Self::Ed25519),
            SignatureAlgorithm::Ps256 => rsa(&RSA_PSS_SHA256),
            SignatureAlgorithm::Rs256 => rsa(&RSA_PKCS1_SHA256),
        }
    }

    fn public(&self) -> PublicJwk {
        match self {
            Self::P256(pair) => {
                // An uncompressed point: 0x04, x, y (SEC 1, 2.3.3).
                let point = pair.public_key().as_ref();
                PublicJwk::Curve(PublicKey::P256 {
                    x: base64url(&point[1..33]),
                    y: base64url(&point[33..65]),
                })
            }
            Self::Ed25519(pair) => PublicJwk::Curve(PublicKey::Ed25519 {
                x: base64url(pair.public_key().as_ref()),
            }),
            Self::Rsa(pair, _) => PublicJwk::rsa(
                pair.public_key()
                    .modulus()
                    .big_endian_without_leading_zero(),
                pair.public_key()
                    .exponent()
                    .big_endian_without_leading_zero(),
            ),
        }
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        let hash = || digest::digest(&digest::SHA256, message);
        match self {
            Self::P256(pair) => pair
                .sign_digest(&hash())
                .map(|signature| signature.as_ref().to_vec()),
            Self::Ed25519(pair) => Ok(pair.sign(message).as_ref().to_vec()),
            Self::Rsa(pair, padding) => {
                let mut signature = vec![0; pair.public_key().modulus_len()];
                pair.sign_digest(*padding, &hash(), &mut signature)
                    .map(|()| signature)
            }
        }
        .expect("a checked key signs")
    }
}

/// The first PKCS #8 document of a text.
fn pkcs8_of_pem(pem: &str) -> Option<Zeroizing<Vec<u8>>> {
    let (_, rest) = pem.split_once("-----BEGIN PRIVATE KEY-----")?;
    let (body, _) = rest.split_once("-----END PRIVATE KEY-----")?;
    let body: String = body.split_ascii_whitespace().collect();
    let der = STANDARD.decode(Zeroizing::new(body).as_bytes()).ok()?;
    Some(Zeroizing::new(der))
}

/// A private key with its public half and its `kid`.
pub struct SigningKey {
    pub kid: String,
    pub public: PublicJwk,
    pair: Pair,
    verifying: VerifyingKey,
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({} {})", self.algorithm(), self.kid)
    }
}

impl SigningKey {
    /// From a PKCS #8 document and its public half; `None` unless they belong together and can sign
    /// with this algorithm.
    pub fn new(pkcs8: &[u8], public: PublicJwk, algorithm: SignatureAlgorithm) -> Option<Self> {
        let key = Self {
            kid: public.thumbprint(),
            pair: Pair::parse(algorithm, pkcs8)?,
            verifying: VerifyingKey::of_jwk(&public, algorithm)?,
            public,
        };
        // A key that cannot sign is found now, not at the first token.
        let token = key.sign("key-check", &serde_json::json!({}));
        Jws::parse(&token)
            .ok()?
            .verify::<Value>("key-check", &key.verifying)
            .ok()?;
        Some(key)
    }

    /// From a PKCS #8 document in PEM (RFC 7468 10), as push gateways hand them out, under the name that the
    /// gateway knows it by. `None` unless it can sign with this algorithm.
    pub fn from_pem(pem: &str, kid: &str, algorithm: SignatureAlgorithm) -> Option<Self> {
        let pkcs8 = pkcs8_of_pem(pem)?;
        let public = Pair::parse(algorithm, &pkcs8)?.public();
        Some(Self {
            kid: kid.to_owned(),
            ..Self::new(&pkcs8, public, algorithm)?
        })
    }

    /// A device's key.
    pub fn of_device(pkcs8: &[u8], public: PublicKey) -> Option<Self> {
        let algorithm = public.algorithm();
        Self::new(pkcs8, public.into(), algorithm)
    }

    pub const fn algorithm(&self) -> SignatureAlgorithm {
        self.verifying.algorithm
    }

    pub const fn verifying_key(&self) -> &VerifyingKey {
        &self.verifying
    }

    /// Signs claims as a statement of the type `typ`.
    pub fn sign(&self, typ: &str, claims: &impl Serialize) -> String {
        let header = json!({ "alg": self.algorithm(), "kid": self.kid, "typ": typ });
        // Our own claim types always serialise.
        let claims = serde_json::to_vec(claims).expect("claims serialise");
        self.sign_parts(header.to_string().as_bytes(), &claims)
    }

    pub(super) fn sign_parts(&self, header: &[u8], claims: &[u8]) -> String {
        let mut token = base64url(header);
        token.push('.');
        token.push_str(&base64url(claims));
        let signature = self.pair.sign(token.as_bytes());
        token.push('.');
        token.push_str(&base64url(&signature));
        token
    }

    /// The public key as a member of a JWK set (RFC 7517 5).
    pub fn jwk(&self) -> Value {
        self.public.to_jwk(&self.kid, self.algorithm())
    }
}
