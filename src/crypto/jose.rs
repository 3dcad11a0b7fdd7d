//! Signed statements: JWS in compact form (RFC 7515), read strictly (RFC 8725).

use super::{base64url, from_base64url, sha256_base64url};
use crate::domain::DeviceId;
use crate::domain::device::PublicKey;
use crate::domain::strict_json;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::fmt;

/// The longest statement that is looked at, in bytes.
pub const MAX_LEN: usize = 16 * 1024;

/// Why a text is not a statement we accept. The sender learns no more than this.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidJws {
    #[error("not a compact JWS")]
    Form,
    #[error("the header is not acceptable")]
    Header,
    #[error("typ is not the expected one")]
    Typ,
    #[error("alg is not the key's")]
    Algorithm,
    #[error("the signature does not verify")]
    Signature,
    #[error("the claims are not the expected ones")]
    Claims,
}

/// The key a statement is checked with: one key, one algorithm.
#[derive(Clone)]
pub struct VerifyingKey {
    algorithm: Algorithm,
    key: DecodingKey,
}

impl VerifyingKey {
    /// `None` when the coordinates are not base64url.
    pub fn new(key: &PublicKey) -> Option<Self> {
        let (algorithm, key) = match key {
            PublicKey::P256 { x, y } => (Algorithm::ES256, DecodingKey::from_ec_components(x, y)),
            PublicKey::Ed25519 { x } => (Algorithm::EdDSA, DecodingKey::from_ed_components(x)),
        };
        Some(Self {
            algorithm,
            key: key.ok()?,
        })
    }
}

/// The RFC 7638 thumbprint of a key: a device's id, and the `kid` of ours.
pub fn thumbprint(key: &PublicKey) -> DeviceId {
    DeviceId::new(sha256_base64url(key.canonical_jwk().as_bytes()))
}

/// A private key with its public half and its `kid`.
pub struct SigningKey {
    pub kid: String,
    pub public: PublicKey,
    algorithm: Algorithm,
    private: EncodingKey,
    verifying: VerifyingKey,
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.kid)
    }
}

impl SigningKey {
    /// From a PKCS #8 document and its public half.
    pub fn new(pkcs8: &[u8], public: PublicKey) -> Option<Self> {
        let (algorithm, private) = match public {
            PublicKey::P256 { .. } => (Algorithm::ES256, EncodingKey::from_ec_der(pkcs8)),
            PublicKey::Ed25519 { .. } => (Algorithm::EdDSA, EncodingKey::from_ed_der(pkcs8)),
        };
        let verifying = VerifyingKey::new(&public)?;
        let key = Self {
            kid: thumbprint(&public).to_string(),
            public,
            algorithm,
            private,
            verifying,
        };
        // A key that cannot sign is found now, not at the first token.
        let token = key.sign("key-check", &serde_json::json!({}));
        Jws::parse(&token)
            .ok()?
            .verify::<Value>("key-check", &key.verifying)
            .ok()?;
        Some(key)
    }

    pub const fn verifying_key(&self) -> &VerifyingKey {
        &self.verifying
    }

    /// Signs claims as a statement of the type `typ`.
    pub fn sign(&self, typ: &str, claims: &impl Serialize) -> String {
        let header =
            serde_json::json!({ "alg": self.public.algorithm(), "kid": self.kid, "typ": typ });
        // Our own claim types always serialise, and a checked key always signs.
        let claims = serde_json::to_vec(claims).expect("claims serialise");
        let mut token = base64url(header.to_string().as_bytes());
        token.push('.');
        token.push_str(&base64url(&claims));
        let signature = jsonwebtoken::crypto::sign(token.as_bytes(), &self.private, self.algorithm)
            .expect("a checked key signs");
        token.push('.');
        token.push_str(&signature);
        token
    }

    /// The public key as a member of a JWK set (RFC 7517 5).
    pub fn jwk(&self) -> Value {
        public_jwk(&self.public, &self.kid)
    }
}

/// A public key as a member of a JWK set (RFC 7517 5).
pub fn public_jwk(key: &PublicKey, kid: &str) -> Value {
    let mut jwk: Value = serde_json::from_str(&key.canonical_jwk()).unwrap_or_default();
    jwk["kid"] = kid.into();
    jwk["use"] = "sig".into();
    jwk["alg"] = key.algorithm().into();
    jwk
}

/// A statement whose form is right and whose signature nobody has checked yet.
pub struct Jws<'a> {
    pub kid: Option<String>,
    typ: Option<String>,
    alg: String,
    signing_input: &'a str,
    payload: Vec<u8>,
    signature: &'a str,
}

impl<'a> Jws<'a> {
    /// Takes the three parts apart.
    ///
    /// # Errors
    /// [`InvalidJws::Form`] or [`InvalidJws::Header`]. Refused are: padding and other non-canonical
    /// base64url, members that stand twice, `crit` and `b64` (RFC 7515 4.1.11, RFC 7797), and every
    /// header that would bring a key of the sender's choice.
    pub fn parse(token: &'a str) -> Result<Self, InvalidJws> {
        if token.len() > MAX_LEN {
            return Err(InvalidJws::Form);
        }
        let (signing_input, signature) = token.rsplit_once('.').ok_or(InvalidJws::Form)?;
        let (header, payload) = signing_input.split_once('.').ok_or(InvalidJws::Form)?;
        let decode = |part: &str| {
            from_base64url(part)
                .filter(|b| !b.is_empty())
                .ok_or(InvalidJws::Form)
        };
        let (header, payload) = (decode(header)?, decode(payload)?);
        decode(signature)?;
        let header = strict_json::parse(&header).map_err(|_| InvalidJws::Header)?;
        let members = header.as_object().ok_or(InvalidJws::Header)?;
        let forbidden = ["crit", "b64", "zip", "jku", "jwk", "x5u", "x5c", "enc"];
        if forbidden.iter().any(|name| members.contains_key(*name)) {
            return Err(InvalidJws::Header);
        }
        let text = |name: &str| match members.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(InvalidJws::Header),
        };
        Ok(Self {
            kid: text("kid")?,
            typ: text("typ")?,
            alg: text("alg")?.ok_or(InvalidJws::Header)?,
            signing_input,
            payload,
            signature,
        })
    }

    /// Checks type, algorithm and signature, then reads the claims.
    ///
    /// # Errors
    /// The first check that fails, in that order; claims are read only from a verified payload.
    pub fn verify<T: DeserializeOwned>(
        self,
        typ: &str,
        key: &VerifyingKey,
    ) -> Result<T, InvalidJws> {
        if !self
            .typ
            .is_some_and(|found| found.eq_ignore_ascii_case(typ))
        {
            return Err(InvalidJws::Typ);
        }
        if self.alg.parse::<Algorithm>().ok() != Some(key.algorithm) {
            return Err(InvalidJws::Algorithm);
        }
        let verified = jsonwebtoken::crypto::verify(
            self.signature,
            self.signing_input.as_bytes(),
            &key.key,
            key.algorithm,
        );
        if !verified.unwrap_or(false) {
            return Err(InvalidJws::Signature);
        }
        let claims = strict_json::parse(&self.payload).map_err(|_| InvalidJws::Claims)?;
        // Claims are an object (RFC 7519 7.2); an array of their values would do for a derived reader.
        if !claims.is_object() {
            return Err(InvalidJws::Claims);
        }
        serde_json::from_value(claims).map_err(|_| InvalidJws::Claims)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::key_ring::{generate_ed25519, generate_p256};
    use proptest::prelude::*;
    use serde_json::json;

    fn key() -> SigningKey {
        let (pkcs8, public) = generate_p256();
        SigningKey::new(&pkcs8, public).unwrap()
    }

    /// A token with any header and payload bytes, signed well.
    fn forge(key: &SigningKey, header: &str, payload: &str) -> String {
        let input = format!(
            "{}.{}",
            base64url(header.as_bytes()),
            base64url(payload.as_bytes())
        );
        let signature =
            jsonwebtoken::crypto::sign(input.as_bytes(), &key.private, key.algorithm).unwrap();
        format!("{input}.{signature}")
    }

    fn read(token: &str, key: &SigningKey) -> Result<Value, InvalidJws> {
        Jws::parse(token)?.verify("t", key.verifying_key())
    }

    #[test]
    fn what_we_sign_we_verify() {
        let (pkcs8, public) = generate_ed25519();
        for key in [key(), SigningKey::new(&pkcs8, public).unwrap()] {
            let token = key.sign("t", &json!({"a": 1}));
            assert_eq!(read(&token, &key), Ok(json!({"a": 1})));
            assert_eq!(Jws::parse(&token).unwrap().kid, Some(key.kid.clone()));
        }
    }

    #[test]
    fn every_weak_header_is_refused() {
        let key = key();
        for (header, why) in [
            (r#"{"alg":"none","typ":"t"}"#, InvalidJws::Algorithm),
            (r#"{"alg":"HS256","typ":"t"}"#, InvalidJws::Algorithm),
            (r#"{"alg":"RS256","typ":"t"}"#, InvalidJws::Algorithm),
            (r#"{"alg":"EdDSA","typ":"t"}"#, InvalidJws::Algorithm),
            (r#"{"alg":"es256","typ":"t"}"#, InvalidJws::Algorithm),
            (r#"{"typ":"t"}"#, InvalidJws::Header),
            (r#"{"alg":["ES256"],"typ":"t"}"#, InvalidJws::Header),
            (r#"{"alg":"ES256"}"#, InvalidJws::Typ),
            (r#"{"alg":"ES256","typ":"at+jwt"}"#, InvalidJws::Typ),
            (r#"{"alg":"ES256","typ":"t","typ":"t"}"#, InvalidJws::Header),
            (
                r#"{"alg":"ES256","typ":"t","crit":["exp"]}"#,
                InvalidJws::Header,
            ),
            (
                r#"{"alg":"ES256","typ":"t","b64":false}"#,
                InvalidJws::Header,
            ),
            (r#"{"alg":"ES256","typ":"t","jwk":{}}"#, InvalidJws::Header),
            (
                r#"{"alg":"ES256","typ":"t","jku":"https://evil.example"}"#,
                InvalidJws::Header,
            ),
            (r#"{"alg":"ES256","typ":"t","x5c":[]}"#, InvalidJws::Header),
            (r#"{"alg":"ES256","typ":"t","kid":7}"#, InvalidJws::Header),
            ("[]", InvalidJws::Header),
            ("x", InvalidJws::Header),
        ] {
            assert_eq!(read(&forge(&key, header, "{}"), &key), Err(why), "{header}");
        }
        assert_eq!(
            read(&forge(&key, r#"{"alg":"ES256","typ":"T"}"#, "{}"), &key),
            Ok(json!({}))
        );
        let doubled = forge(
            &key,
            r#"{"alg":"ES256","typ":"t"}"#,
            r#"{"sub":"a","sub":"b"}"#,
        );
        assert_eq!(read(&doubled, &key), Err(InvalidJws::Claims));
        for payload in ["null", "[]", r#"["a"]"#, r#""a""#] {
            let token = forge(&key, r#"{"alg":"ES256","typ":"t"}"#, payload);
            assert_eq!(read(&token, &key), Err(InvalidJws::Claims), "{payload}");
        }
    }

    #[test]
    fn every_odd_spelling_is_refused() {
        let key = key();
        let token = key.sign("t", &json!({"a": 1}));
        let parts: Vec<&str> = token.split('.').collect();
        for odd in [
            String::new(),
            ".".into(),
            "..".into(),
            format!("{}.{}", parts[0], parts[1]),
            format!("{token}.x"),
            format!("{token}="),
            format!("{}=.{}.{}", parts[0], parts[1], parts[2]),
            format!("{}.{}.", parts[0], parts[1]),
            format!(" {token}"),
            format!("{token}\n"),
            token.replace('.', ".."),
            format!("{}.{}.{}", parts[0], "x".repeat(MAX_LEN), parts[2]),
        ] {
            assert!(Jws::parse(&odd).is_err(), "{odd:.80}");
        }
        // The last character of a 64-byte signature carries bits that must be zero.
        let mut bent = token.clone();
        let last = bent.pop().unwrap();
        bent.push(char::from(last as u8 + 1));
        assert!(read(&bent, &key).is_err());
        assert_eq!(read(&token, &self::key()), Err(InvalidJws::Signature));
    }

    #[test]
    fn a_signature_of_zeroes_is_none() {
        // CVE-2022-21449: r = s = 0 verifies for any message in a careless implementation.
        let key = key();
        let token = key.sign("t", &json!({}));
        let input = token.rsplit_once('.').unwrap().0;
        let zero = format!("{input}.{}", base64url(&[0; 64]));
        assert_eq!(read(&zero, &key), Err(InvalidJws::Signature));
    }

    proptest! {
        #[test]
        fn no_changed_byte_goes_unseen(at in 0_usize..400, to in "[A-Za-z0-9_.-]") {
            let key = key();
            let token = key.sign("t", &json!({"amount": "12.50", "payee": "x"}));
            let at = at % token.len();
            let mut changed = token.clone();
            changed.replace_range(at..=at, &to);
            prop_assume!(changed != token);
            prop_assert!(read(&changed, &key).is_err());
        }

        #[test]
        fn no_text_makes_the_parser_fall_over(token in ".{0,200}|[A-Za-z0-9_-]{0,80}(\\.[A-Za-z0-9_-]{0,80}){0,4}") {
            let _ = Jws::parse(&token);
        }
    }
}
