//! Somebody with a key who signs statements: a client with `private_key_jwt`, an issuer of hints.

use assent::crypto::generate;
use assent::crypto::jose::SigningKey;
use assent::domain::SignatureAlgorithm;
use base64::Engine as _;
use serde_json::{Value, json};
use std::fmt::Write as _;

pub struct Signer {
    pub key: SigningKey,
}

impl Signer {
    pub fn new(algorithm: SignatureAlgorithm) -> Self {
        let (private, public) = generate::generate(algorithm);
        Self {
            key: SigningKey::new(&private, public, algorithm).unwrap(),
        }
    }

    /// The JWK set that this signer publishes.
    pub fn jwks(&self) -> Value {
        json!({ "keys": [self.key.jwk()] })
    }

    pub fn sign(&self, typ: &str, claims: &Value) -> String {
        self.key.sign(typ, claims)
    }
}

/// A text in PEM.
pub fn pem(label: &str, der: &[u8]) -> String {
    let body = base64::engine::general_purpose::STANDARD.encode(der);
    let mut pem = format!("-----BEGIN {label}-----\n");
    for line in body.as_bytes().chunks(64) {
        writeln!(pem, "{}", std::str::from_utf8(line).unwrap()).unwrap();
    }
    pem + &format!("-----END {label}-----\n")
}
