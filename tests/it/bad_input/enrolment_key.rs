//! `POST /device/v1/enrolments`: the key, and the proof that the phone holds it.

use super::check::{case, refuse};
use super::enrolment::{PATH, TYP, enrolment, new_code, post, proof_claims, scene};
use super::forge::{Pen, altered, bend, forgeries, nameless};
use crate::support::{Backend, on_both};
use assent::crypto::sha256_base64url;
use serde_json::{Value, json};

on_both!(keys, forged_proofs, claims);

async fn keys(backend: Backend) {
    let scene = scene(backend).await;
    let (jwk, okp) = (scene.pen.jwk(), Pen::ed25519().jwk());
    let (x, y) = (jwk["x"].as_str().unwrap(), jwk["y"].as_str().unwrap());
    let edit = |jwk: &Value, name: &str, value: Value| {
        let mut jwk = jwk.clone();
        jwk[name] = value;
        jwk
    };
    let without = |jwk: &Value, name: &str| {
        let mut jwk = jwk.clone();
        jwk.as_object_mut().unwrap().remove(name);
        jwk
    };
    let bent = bend(x);
    #[rustfmt::skip]
    let mut wrong: Vec<Value> = vec![
        json!(null), json!("key"), json!(7), json!([]), json!({}), json!([jwk]), json!(jwk.to_string()),
        json!({ "keys": [jwk] }), json!({ "kty": "RSA", "n": x, "e": "AQAB" }), json!({ "kty": "oct", "k": x }),
        edit(&jwk, "kty", json!("ec")), edit(&jwk, "kty", json!("OKP")), edit(&jwk, "kty", json!(["EC"])),
        edit(&jwk, "crv", json!("P-384")), edit(&jwk, "crv", json!("p-256")), edit(&jwk, "crv", json!("secp256k1")),
        edit(&jwk, "crv", json!(null)), edit(&okp, "crv", json!("X25519")), edit(&okp, "crv", json!("Ed448")),
        edit(&okp, "kty", json!("EC")), without(&jwk, "kty"), without(&jwk, "crv"), without(&jwk, "x"),
        without(&jwk, "y"), without(&okp, "x"), edit(&jwk, "x", json!("")), edit(&jwk, "x", json!(7)),
        edit(&jwk, "x", json!(null)), edit(&jwk, "x", json!([x])), edit(&jwk, "y", json!(format!("{y}="))),
        edit(&jwk, "x", json!(bent)), edit(&jwk, "x", json!(&x[..42])), edit(&jwk, "x", json!(format!("{x}AA"))),
        edit(&jwk, "x", json!(format!("{}+", &x[..42]))), edit(&jwk, "y", json!(format!("{y}\n"))),
        edit(&okp, "x", json!("A".repeat(100_000))),
    ];
    // Whoever sends us a private key must make a new one.
    for private in ["d", "k", "p", "q"] {
        wrong.push(edit(&jwk, private, json!(x)));
        wrong.push(edit(&okp, private, json!(null)));
    }
    let key = |jwk: &Value| {
        case(
            format!("{jwk:.90}"),
            scene.with("jwk", jwk.clone()),
            422,
            "invalid_key",
        )
    };
    let mut cases: Vec<_> = wrong.iter().map(key).collect();
    // Coordinates of no point, and of other people's.
    let zero = assent::crypto::base64url(&[0; 32]);
    for (name, jwk) in [
        ("not on the curve", edit(&jwk, "y", json!(x))),
        (
            "nowhere",
            edit(&edit(&jwk, "x", json!(zero)), "y", json!(zero)),
        ),
        ("another's", Pen::p256().jwk()),
        ("another's of the other kind", okp),
    ] {
        cases.push(case(
            name,
            scene.with("jwk", jwk),
            422,
            "invalid_enrolment_proof",
        ));
    }
    // One name twice: two readers might see two keys.
    let good = scene.good().to_string();
    for (name, twice) in [
        ("x twice", good.replace(r#""kty":"#, r#""x":"AAAA","kty":"#)),
        (
            "kty twice",
            good.replace(r#""kty":"EC""#, r#""kty":"RSA","kty":"EC""#),
        ),
        (
            "crv twice",
            good.replace(r#""crv":"P-256""#, r#""crv":"P-256","\u0063rv":"P-256""#),
        ),
        (
            "d twice",
            good.replace(r#""kty":"#, r#""d":1,"d":2,"kty":"#),
        ),
        (
            "anything twice",
            good.replace(r#""kty":"#, r#""use":"sig","use":"enc","kty":"#),
        ),
        (
            "deep down twice",
            good.replace(r#""kty":"#, r#""z":[{"a":1,"a":2}],"kty":"#),
        ),
    ] {
        assert_ne!(twice, good);
        cases.push(case(name, post(twice), 400, "invalid_json"));
    }
    refuse(&scene.app, cases).await;
    scene.ends_well().await;
}

async fn forged_proofs(backend: Backend) {
    let scene = scene(backend).await;
    let claims = proof_claims(&scene.app, &scene.pen, &scene.code);
    let order = ["aud", "iat", "jti", "code_hash", "jkt", "push_target_hash"];
    let mut forged = forgeries(&scene.pen, TYP, &claims);
    forged.push(nameless(&scene.pen, TYP, &claims, &order));
    let mut cases: Vec<_> = forged
        .iter()
        .map(|(name, jwt)| scene.proof(name, jwt))
        .collect();
    // The same with a key of the other kind.
    let okp = Pen::ed25519();
    let claims = proof_claims(&scene.app, &okp, &scene.code);
    for (name, jwt) in forgeries(&okp, TYP, &claims) {
        let mut body = enrolment(&scene.app, &okp, &scene.code);
        body["proof"] = jwt.into();
        let request = post(body.to_string());
        cases.push(case(
            format!("Ed25519 {name}"),
            request,
            422,
            "invalid_enrolment_proof",
        ));
    }
    refuse(&scene.app, cases).await;
    let good = post(enrolment(&scene.app, &okp, &scene.code).to_string());
    assert_eq!(good.send(scene.app.address()).await.status, 201);
}

async fn claims(backend: Backend) {
    let scene = scene(backend).await;
    let right = proof_claims(&scene.app, &scene.pen, &scene.code);
    let (url, now) = (&scene.app.url, scene.app.now().secs());
    let (other_code, _) = new_code(&scene.app, &scene.alice).await;
    let hash = |text: &str| json!(sha256_base64url(text.as_bytes()));
    #[rustfmt::skip]
    let wrong: Vec<(&str, Value)> = vec![
        ("aud", json!(format!("{url}/"))),
        ("aud", json!(format!("{url}{PATH}"))),
        ("aud", json!([url])),
        ("aud", json!("https://evil.example")),
        ("aud", json!("")),
        ("iat", json!(now - 301)),
        ("iat", json!(now + 301)),
        ("iat", json!(0)),
        ("iat", json!(i64::MIN)),
        ("iat", json!(i64::MAX)),
        ("iat", json!(u64::MAX)),
        ("jti", json!("")),
        ("jti", json!("j".repeat(129))),
        ("code_hash", hash(&other_code)),
        ("code_hash", hash(&scene.typed)),
        ("code_hash", hash("")),
        ("code_hash", json!(scene.code)),
        ("code_hash", json!(format!("{}=", right["code_hash"].as_str().unwrap()))),
        ("jkt", json!(Pen::p256().kid)),
        ("jkt", json!(scene.pen.public.canonical_jwk())),
        ("jkt", json!("")),
        ("push_target_hash", hash("")),
        ("push_target_hash", hash("token")),
        ("push_target_hash", json!("")),
        ("push_target_hash", json!(7)),
        ("htm", json!("POST")),
        ("exp", json!(now + 60)),
    ];
    let mut cases: Vec<_> = wrong
        .into_iter()
        .map(|(name, value)| {
            let (shown, claims) = altered(&right, name, value);
            scene.proof(shown, &scene.pen.sign(TYP, &claims))
        })
        .collect();
    // A push target that the proof does not speak of, or speaks of otherwise.
    for hashed in [Value::Null, hash("other"), hash("token "), json!("token")] {
        let mut claims = right.clone();
        if !hashed.is_null() {
            claims["push_target_hash"] = hashed;
        }
        let mut body = scene.good();
        body["platform"] = "fcm".into();
        body["push_target"] = "token".into();
        body["proof"] = scene.pen.sign(TYP, &claims).into();
        let request = post(body.to_string());
        cases.push(case(
            "another push target",
            request,
            422,
            "invalid_enrolment_proof",
        ));
    }
    // A proof with another code, and the code with another's proof.
    let strange = Pen::p256();
    let strange = strange.sign(TYP, &proof_claims(&scene.app, &strange, &scene.code));
    cases.push(scene.proof("another phone's", &strange));
    let other = scene
        .pen
        .sign(TYP, &proof_claims(&scene.app, &scene.pen, &other_code));
    cases.push(scene.proof("for another code", &other));
    refuse(&scene.app, cases).await;
    scene.ends_well().await;
}
