//! Signed statements: JWS in compact form (RFC 7515), read strictly (RFC 8725).

use super::from_base64url;
pub use super::signature::{SigningKey, VerifyingKey, thumbprint};
use crate::domain::{SignatureAlgorithm, strict_json};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// The longest statement that is looked at, in bytes.
pub const MAX_LEN: usize = 16 * 1024;
/// The same for a checkpoint, which may name the heads of all 257 chains.
pub const MAX_CHECKPOINT_LEN: usize = 64 * 1024;

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
    #[error("no key fits the statement's kid and alg")]
    UnknownKey,
    #[error("the signature does not verify")]
    Signature,
    #[error("the claims are not the expected ones")]
    Claims,
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
        Self::parse_within(token, MAX_LEN)
    }

    /// As [`Jws::parse`], for a statement of up to `longest` bytes.
    ///
    /// # Errors
    /// As [`Jws::parse`].
    pub fn parse_within(token: &'a str, longest: usize) -> Result<Self, InvalidJws> {
        if token.len() > longest {
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

    /// A member of the claims while nobody has checked the signature: good for finding out whose keys
    /// to check it with, and for nothing else.
    pub fn unverified_member(&self, name: &str) -> Option<String> {
        let claims = strict_json::parse(&self.payload).ok()?;
        claims.get(name)?.as_str().map(str::to_owned)
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
        self.verify_with(&[Some(typ)], key.algorithm(), [key])
    }

    /// The same with several types, `None` being a header without one, and several keys, of which any
    /// may have signed. The algorithm is what the caller expects, whatever the header says.
    ///
    /// # Errors
    /// As [`Jws::verify`]; [`InvalidJws::UnknownKey`] when there is no key to try.
    pub fn verify_with<'k, T: DeserializeOwned>(
        self,
        typs: &[Option<&str>],
        algorithm: SignatureAlgorithm,
        keys: impl IntoIterator<Item = &'k VerifyingKey>,
    ) -> Result<T, InvalidJws> {
        let fits = |expected: &Option<&str>| match (expected, &self.typ) {
            (None, None) => true,
            (Some(expected), Some(found)) => found.eq_ignore_ascii_case(expected),
            _ => false,
        };
        if !typs.iter().any(fits) {
            return Err(InvalidJws::Typ);
        }
        if SignatureAlgorithm::of_header(&self.alg) != Some(algorithm) {
            return Err(InvalidJws::Algorithm);
        }
        let mut keys = keys
            .into_iter()
            .filter(|key| key.algorithm() == algorithm)
            .peekable();
        if keys.peek().is_none() {
            return Err(InvalidJws::UnknownKey);
        }
        if !keys.any(|key| key.verifies(self.signing_input, self.signature)) {
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
    use crate::crypto::base64url;
    use crate::crypto::generate::generate;
    use crate::crypto::jwk::PublicJwk;
    use proptest::prelude::*;
    use serde_json::json;

    fn key_for(algorithm: SignatureAlgorithm) -> SigningKey {
        let (pkcs8, public) = generate(algorithm);
        SigningKey::new(&pkcs8, public, algorithm).unwrap()
    }

    fn key() -> SigningKey {
        key_for(SignatureAlgorithm::Es256)
    }

    /// A token with any header and payload bytes, signed well.
    fn forge(key: &SigningKey, header: &str, payload: &str) -> String {
        key.sign_parts(header.as_bytes(), payload.as_bytes())
    }

    fn read(token: &str, key: &SigningKey) -> Result<Value, InvalidJws> {
        Jws::parse(token)?.verify("t", key.verifying_key())
    }

    #[test]
    fn what_we_sign_we_verify() {
        for &algorithm in SignatureAlgorithm::ALL {
            let key = key_for(algorithm);
            let token = key.sign("t", &json!({"a": 1}));
            assert_eq!(read(&token, &key), Ok(json!({"a": 1})));
            assert_eq!(Jws::parse(&token).unwrap().kid, Some(key.kid.clone()));
        }
    }

    #[test]
    fn a_key_in_pem_is_the_same_key() {
        use base64::Engine as _;
        for &algorithm in SignatureAlgorithm::ALL {
            let (pkcs8, public) = generate(algorithm);
            let body = base64::engine::general_purpose::STANDARD.encode(&pkcs8);
            let (first, second) = body.split_at(64);
            let pem = format!(
                "-----BEGIN PRIVATE KEY-----\n{first}\r\n{second}\n-----END PRIVATE KEY-----\n"
            );
            let key = SigningKey::from_pem(&pem, "ABC123DEFG", algorithm).unwrap();
            assert_eq!((key.kid.as_str(), &key.public), ("ABC123DEFG", &public));
            assert_eq!(read(&key.sign("t", &json!({})), &key), Ok(json!({})));
            for bad in [&pem[1..], &pem.replace("PRIVATE", "PUBLIC"), &body] {
                assert!(SigningKey::from_pem(bad, "k", algorithm).is_none());
            }
        }
        let (pkcs8, _) = generate(SignatureAlgorithm::Rs256);
        let body = base64::engine::general_purpose::STANDARD.encode(&pkcs8);
        let pem = format!("-----BEGIN PRIVATE KEY-----{body}-----END PRIVATE KEY-----");
        assert!(SigningKey::from_pem(&pem, "k", SignatureAlgorithm::Es256).is_none());
    }

    /// What others have signed: RFC 7515 A.2 and A.3, RFC 8037 A.4.
    #[test]
    fn what_the_standards_sign_we_verify() {
        let joe = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
        let claims =
            json!({"iss": "joe", "exp": 1_300_819_380, "http://example.com/is_root": true});
        for (algorithm, jwk, token, expected) in [
            (
                SignatureAlgorithm::Rs256,
                json!({"kty": "RSA", "e": "AQAB", "n": "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ"}),
                format!("eyJhbGciOiJSUzI1NiJ9.{joe}.cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw"),
                Ok(claims.clone()),
            ),
            (
                SignatureAlgorithm::Es256,
                json!({"kty": "EC", "crv": "P-256", "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}),
                format!("eyJhbGciOiJFUzI1NiJ9.{joe}.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q"),
                Ok(claims),
            ),
            (
                SignatureAlgorithm::EdDsa,
                json!({"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}),
                "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg".to_owned(),
                // Well signed, and not JSON.
                Err(InvalidJws::Claims),
            ),
        ] {
            let key = PublicJwk::from_jwk(&jwk).unwrap();
            let key = VerifyingKey::of_jwk(&key, algorithm).unwrap();
            let verify = |token: &str| {
                Jws::parse(token)
                    .unwrap()
                    .verify_with::<Value>(&[None], algorithm, [&key])
            };
            assert_eq!(verify(&token), expected, "{algorithm}");
            let other = token.replacen(".eyJpc3Mi", ".eyJpc4Mi", 1).replacen(".RX", ".RY", 1);
            assert_eq!(verify(&other), Err(InvalidJws::Signature), "{algorithm}");
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
