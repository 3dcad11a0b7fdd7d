//! How statements are signed.

use serde::{Deserialize, Serialize};

text_enum! {
    /// A JWS algorithm we sign and verify with (RFC 7518 3.1, RFC 8037 3.1). Nothing else exists here:
    /// neither `none` nor a MAC can be asked for, not even by mistake.
    SignatureAlgorithm: "signature algorithm" {
        /// ECDSA on P-256 with SHA-256: what is used unless a client registered another.
        Es256 = "ES256",
        /// Ed25519.
        EdDsa = "EdDSA",
        /// RSASSA-PSS with SHA-256.
        Ps256 = "PS256",
        /// RSASSA-PKCS1-v1_5 with SHA-256.
        Rs256 = "RS256",
    }
}

impl SignatureAlgorithm {
    /// From the `alg` of a JWS or a JWK. Ed25519 has two names: `EdDSA` and, fully specified, `Ed25519`
    /// (RFC 9864 2.2).
    pub fn of_header(alg: &str) -> Option<Self> {
        match alg {
            "Ed25519" => Some(Self::EdDsa),
            _ => alg.parse().ok(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_four_can_be_named() {
        for &algorithm in SignatureAlgorithm::ALL {
            assert_eq!(
                SignatureAlgorithm::of_header(algorithm.as_str()),
                Some(algorithm)
            );
        }
        assert_eq!(
            SignatureAlgorithm::of_header("Ed25519"),
            Some(SignatureAlgorithm::EdDsa)
        );
        for alg in [
            "none", "None", "", "HS256", "es256", "ES384", "RS512", "Ed448", "ES256 ",
        ] {
            assert_eq!(SignatureAlgorithm::of_header(alg), None, "{alg}");
        }
    }
}
