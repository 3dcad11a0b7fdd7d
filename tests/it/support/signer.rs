//! Somebody with a key who signs statements: a client with `private_key_jwt`, an issuer of hints.

use assent::crypto::generate;
use assent::crypto::jose::SigningKey;
use assent::domain::SignatureAlgorithm;
use serde_json::{Value, json};

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
