use super::*;
use crate::crypto::generate::generate;
use crate::crypto::jose::SigningKey;
use serde_json::json;

use SignatureAlgorithm::{EdDsa, Es256, Ps256, Rs256};

const TYPS: &[Option<&str>] = &[None, Some("JWT"), Some("client-authentication+jwt")];

fn key(algorithm: SignatureAlgorithm) -> SigningKey {
    let (pkcs8, public) = generate(algorithm);
    SigningKey::new(&pkcs8, public, algorithm).unwrap()
}

fn parse(keys: &[Value]) -> Result<ClientKeySet, InvalidKeySet> {
    ClientKeySet::parse(json!({ "keys": keys }).to_string().as_bytes())
}

/// The key as a JWK with some members changed; null takes one away.
fn jwk(key: &SigningKey, members: &Value) -> Value {
    let mut jwk = key.jwk();
    for (name, value) in members.as_object().unwrap() {
        match value {
            Value::Null => drop(jwk.as_object_mut().unwrap().remove(name)),
            value => jwk[name] = value.clone(),
        }
    }
    jwk
}

fn token(key: &SigningKey, kid: Option<&str>, alg: &str) -> String {
    let mut header = json!({ "alg": alg, "typ": "JWT" });
    if let Some(kid) = kid {
        header["kid"] = kid.into();
    }
    key.sign_parts(header.to_string().as_bytes(), br#"{"iss":"bank"}"#)
}

fn check(set: &ClientKeySet, token: &str, algorithm: SignatureAlgorithm) -> Result<(), InvalidJws> {
    let claims: Value = set.verify(Jws::parse(token)?, algorithm, TYPS)?;
    assert_eq!(claims, json!({"iss": "bank"}));
    Ok(())
}

#[test]
fn each_algorithm_verifies_when_it_is_the_registered_one() {
    let keys: Vec<_> = SignatureAlgorithm::ALL.iter().map(|&a| key(a)).collect();
    let set = parse(&keys.iter().map(SigningKey::jwk).collect::<Vec<_>>()).unwrap();
    for key in &keys {
        let token = token(key, Some(&key.kid), key.algorithm().as_str());
        for &registered in SignatureAlgorithm::ALL {
            let expected = match registered == key.algorithm() {
                true => Ok(()),
                false => Err(InvalidJws::Algorithm),
            };
            assert_eq!(check(&set, &token, registered), expected, "{registered}");
        }
        assert!(set.has_key_for(key.algorithm()));
        let jws = Jws::parse(&token).unwrap();
        assert_eq!(jws.unverified_member("iss").as_deref(), Some("bank"));
        assert_eq!(jws.unverified_member("sub"), None);
    }
    let ed = &keys[1];
    let fully_specified = token(ed, Some(&ed.kid), "Ed25519");
    assert_eq!(check(&set, &fully_specified, EdDsa), Ok(()));
}

#[test]
fn a_header_cannot_choose_how_it_is_checked() {
    let rsa = key(Ps256);
    // Without alg the key may be used for both; what is registered decides.
    let set = parse(&[jwk(&rsa, &json!({"alg": null}))]).unwrap();
    assert!(set.has_key_for(Ps256) && set.has_key_for(Rs256) && !set.has_key_for(Es256));
    let good = token(&rsa, Some(&rsa.kid), "PS256");
    assert_eq!(check(&set, &good, Ps256), Ok(()));
    assert_eq!(check(&set, &good, Rs256), Err(InvalidJws::Algorithm));
    // A PSS signature under a header that says PKCS #1.
    let lies = token(&rsa, Some(&rsa.kid), "RS256");
    assert_eq!(check(&set, &lies, Rs256), Err(InvalidJws::Signature));
    for alg in ["none", "HS256", "PS512", "ps256"] {
        let token = token(&rsa, Some(&rsa.kid), alg);
        assert_eq!(
            check(&set, &token, Ps256),
            Err(InvalidJws::Algorithm),
            "{alg}"
        );
    }
    // With alg the key is for that algorithm alone.
    let set = parse(&[rsa.jwk()]).unwrap();
    assert_eq!(check(&set, &lies, Rs256), Err(InvalidJws::UnknownKey));
}

#[test]
fn the_type_is_one_of_those_expected() {
    let ec = key(Es256);
    let set = parse(&[ec.jwk()]).unwrap();
    for (header, good) in [
        (r#"{"alg":"ES256"}"#, true),
        (r#"{"alg":"ES256","typ":"jwt"}"#, true),
        (r#"{"alg":"ES256","typ":"client-authentication+jwt"}"#, true),
        (r#"{"alg":"ES256","typ":"at+jwt"}"#, false),
        (r#"{"alg":"ES256","typ":"dpop+jwt"}"#, false),
        (r#"{"alg":"ES256","typ":""}"#, false),
    ] {
        let token = ec.sign_parts(header.as_bytes(), br#"{"iss":"bank"}"#);
        let expected = if good { Ok(()) } else { Err(InvalidJws::Typ) };
        assert_eq!(check(&set, &token, Es256), expected, "{header}");
    }
    let strict: Result<Value, _> = set.verify(
        Jws::parse(&ec.sign_parts(br#"{"alg":"ES256"}"#, b"{}")).unwrap(),
        Es256,
        &[Some("oauth-authz-req+jwt")],
    );
    assert_eq!(strict, Err(InvalidJws::Typ));
}

#[test]
fn the_kid_finds_the_key_and_a_doubled_one_finds_the_fitting() {
    let (a, b, c, rsa) = (key(Es256), key(Es256), key(Es256), key(Rs256));
    let same = json!({"kid": "1"});
    let set = parse(&[
        jwk(&rsa, &same),
        jwk(&a, &same),
        jwk(&b, &same),
        jwk(&c, &json!({"kid": null})),
    ])
    .unwrap();
    assert_eq!(check(&set, &token(&a, Some("1"), "ES256"), Es256), Ok(()));
    assert_eq!(check(&set, &token(&b, Some("1"), "ES256"), Es256), Ok(()));
    assert_eq!(check(&set, &token(&rsa, Some("1"), "RS256"), Rs256), Ok(()));
    let stranger = token(&key(Es256), Some("1"), "ES256");
    assert_eq!(check(&set, &stranger, Es256), Err(InvalidJws::Signature));
    // A name that nobody has is a reason to fetch the set again; a nameless key does not answer to it.
    for (key, kid) in [(&a, "2"), (&c, "1"), (&c, "2")] {
        let found = check(&set, &token(key, Some(kid), "ES256"), Es256);
        assert!(found.is_err(), "{kid}");
        assert_eq!(found == Err(InvalidJws::UnknownKey), kid == "2");
    }
    // No name: any key that fits.
    for key in [&a, &b, &c] {
        assert_eq!(check(&set, &token(key, None, "ES256"), Es256), Ok(()));
    }
    assert_eq!(
        check(&parse(&[]).unwrap(), &stranger, Es256),
        Err(InvalidJws::UnknownKey)
    );
}

#[test]
fn nobody_makes_us_try_a_hundred_keys() {
    let keys: Vec<_> = (0..=MAX_TRIES).map(|_| key(EdDsa)).collect();
    let nameless = json!({"kid": null});
    let set = parse(&keys.iter().map(|k| jwk(k, &nameless)).collect::<Vec<_>>()).unwrap();
    let found: Vec<_> = keys
        .iter()
        .map(|key| check(&set, &token(key, None, "EdDSA"), EdDsa).is_ok())
        .collect();
    assert_eq!(found, [true, true, true, true, false]);
}

#[test]
fn keys_for_other_things_are_passed_over() {
    let ec = key(Es256);
    for members in [
        json!({"use": "enc"}),
        json!({"key_ops": ["sign"]}),
        json!({"key_ops": []}),
        json!({"use": "sig", "key_ops": ["encrypt"]}),
        json!({"alg": "ES512"}),
        json!({"alg": "ECDH-ES"}),
        json!({"crv": "P-521"}),
        json!({"kty": "AKP"}),
    ] {
        let set = parse(&[jwk(&ec, &members)]).unwrap();
        assert!(!set.has_key_for(Es256), "{members}");
    }
    for members in [
        json!({}),
        json!({"use": null, "alg": null, "kid": null}),
        json!({"key_ops": ["verify", "sign"], "use": null}),
        json!({"x5c": ["AA"], "x5t": "AA", "unheard": {"of": []}}),
    ] {
        let set = parse(&[jwk(&ec, &members)]).unwrap();
        assert!(set.has_key_for(Es256), "{members}");
    }
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    let ec = key(Es256);
    let why = |members: Value| parse(&[ec.jwk(), jwk(&ec, &members)]).unwrap_err();
    let of_key = |why| InvalidKeySet::Key { key: 2, why };
    assert_eq!(why(json!({"d": "AA"})), of_key(InvalidJwk::Private));
    assert_eq!(
        why(json!({"kty": "oct", "k": "AA"})),
        of_key(InvalidJwk::Private)
    );
    // Also where the key itself would be passed over.
    assert_eq!(
        why(json!({"use": "enc", "d": "AA"})),
        of_key(InvalidJwk::Private)
    );
    assert_eq!(why(json!({"y": ec.jwk()["x"]})), of_key(InvalidJwk::Point));
    assert_eq!(
        why(json!({"kty": "RSA", "n": "wQ", "e": "AQAB"})),
        of_key(InvalidJwk::RsaModulus)
    );
    for members in [
        json!({"kid": 1}),
        json!({"use": []}),
        json!({"alg": {}}),
        json!({"key_ops": "verify"}),
        json!({"key_ops": [1]}),
    ] {
        assert_eq!(
            why(members.clone()),
            InvalidKeySet::Member { key: 2 },
            "{members}"
        );
    }
    assert_eq!(
        why(json!({"alg": "PS256"})),
        InvalidKeySet::Algorithm { key: 2 }
    );
    for text in [
        "",
        "[]",
        "{}",
        r#"{"keys":{}}"#,
        r#"{"keys":["key"]}"#,
        r#"{"keys":[],"keys":[]}"#,
        r#"{"keys":[{"kty":"EC","kty":"EC"}]}"#,
    ] {
        let found = ClientKeySet::parse(text.as_bytes()).unwrap_err();
        assert_eq!(found, InvalidKeySet::Form, "{text}");
    }
}

#[test]
fn a_set_has_an_end() {
    let ec = key(Es256).jwk();
    assert!(parse(&vec![ec.clone(); MAX_KEYS]).is_ok());
    assert_eq!(
        parse(&vec![ec; MAX_KEYS + 1]).unwrap_err(),
        InvalidKeySet::TooMany
    );
    let of = |len: usize| {
        let text = format!(r#"{{"keys":[],"x":"{}"}}"#, "x".repeat(len - 18));
        assert_eq!(text.len(), len);
        ClientKeySet::parse(text.as_bytes())
    };
    assert!(of(MAX_LEN).is_ok());
    assert_eq!(of(MAX_LEN + 1).unwrap_err(), InvalidKeySet::TooLong);
}
