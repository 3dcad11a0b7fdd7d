//! `login_hint_token` and `id_token_hint` (CIBA Core 7.1): signed well by the right key, and wrong in one
//! thing. `login_hint` has its table in `backchannel`.

use super::assertion::{OTHER_TYPS, refused};
use super::backchannel::PATH;
use super::check::{Case, case, refuse};
use super::forge::{Pen, altered, bend, forgeries, nameless, under_other_kids};
use super::wire::Request;
use crate::support::signer::Signer;
use crate::support::{Backend, RelyingParty, TestApp, approve, es256, on_both, registration};
use assent::config::Overrides;
use assent::crypto::{base64url, from_base64url};
use assent::domain::client::{HintKind, Registration};
use assent::domain::{SignatureAlgorithm, User};
use serde_json::{Value, json};
use tempfile::TempDir;

on_both!(
    login_hint_tokens,
    subject_identifiers,
    id_token_hints,
    not_one_hint,
);

pub const ISSUER: &str = "https://directory.example";

/// A server that believes the pen's hints, a bank that may send all kinds, and somebody to be asked.
struct Scene {
    app: TestApp,
    bank: RelyingParty,
    alice: User,
    pen: Pen,
    _folder: TempDir,
}

/// A server that believes what these keys sign as [`ISSUER`].
pub async fn believing(backend: Backend, keys: Value, more: Overrides) -> (TestApp, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let (jwks, settings) = (
        folder.path().join("jwks.json"),
        folder.path().join("assent.toml"),
    );
    std::fs::write(&jwks, json!({ "keys": keys }).to_string()).unwrap();
    let table = format!(
        "[[ciba.hint_issuers]]\nissuer = \"{ISSUER}\"\njwks_file = \"{}\"\n",
        jwks.display()
    );
    std::fs::write(&settings, table).unwrap();
    let app = TestApp::with_file(backend, Some(&settings), more).await;
    (app, folder)
}

async fn scene(backend: Backend) -> Scene {
    let pen = Pen::p256();
    let rsa = Signer::new(SignatureAlgorithm::Ps256).key.jwk();
    let more = vec![("ciba.open_requests_per_user", "1000".into())];
    let keys = json!([pen.jwk_with_kid(), rsa]);
    let (app, folder) = believing(backend, keys, more).await;
    let registration = Registration {
        open_requests_per_user: 1000,
        hints: HintKind::ALL.iter().copied().collect(),
        ..registration()
    };
    let bank = app.client_with("bank", registration).await;
    let alice = app.user("alice").await;
    app.phone(&alice).await;
    Scene {
        app,
        bank,
        alice,
        pen,
        _folder: folder,
    }
}

impl Scene {
    fn hinting(&self, name: &str, value: &str) -> Request {
        let value: String = url::form_urlencoded::byte_serialize(value.as_bytes()).collect();
        self.bank.form(PATH, format!("scope=openid&{name}={value}"))
    }

    fn invalid(&self, what: impl Into<String>, name: &str, token: &str) -> Case {
        case(what, self.hinting(name, token), 400, "invalid_request")
    }

    async fn assert_good(&self, name: &str, token: &str) {
        let answer = self.hinting(name, token).send(self.app.address()).await;
        assert_eq!(answer.status, 200, "{name}: {}", answer.body);
    }

    fn claims(&self) -> Value {
        let now = self.app.now().secs();
        json!({
            "iss": ISSUER, "aud": self.app.url, "iat": now, "exp": now + 60, "jti": "an identifier",
            "sub_id": { "format": "email", "email": "alice" },
        })
    }
}

const LOGIN: &str = "login_hint_token";
const ID: &str = "id_token_hint";

/// What a forger makes of any statement, and what is in order for a hint.
const IN_ORDER: &[&str] = &[
    r#"header {"alg":"ALG","kid":"KID","typ":"JWT"}"#,
    r#"header {"alg":"ALG","kid":"KID"}"#,
    "payload with an unknown member",
    "payload with an empty name",
    "iat missing",
    "iat = null",
    "jti missing",
    "jti = null",
    "aud = [",
    "kid missing",
];

async fn login_hint_tokens(backend: Backend) {
    let scene = scene(backend).await;
    let (pen, url, now) = (&scene.pen, &scene.app.url, scene.app.now().secs());
    let right = scene.claims();
    let mut forged = forgeries(pen, "JWT", &right);
    forged.extend(under_other_kids(pen, "JWT", &right, &[]));
    let mut forged = refused(forged, IN_ORDER);
    let order = ["iss", "aud", "exp", "iat", "jti", "sub_id"];
    forged.push(nameless(pen, "JWT", &right, &order));
    for typ in OTHER_TYPS.iter().chain(&["client-authentication+jwt"]) {
        forged.push((format!("typ {typ:?}"), pen.sign(typ, &right)));
    }
    let keys = &scene.app.services().keys;
    forged.push(("our token key".into(), es256(keys, "JWT", &right)));
    #[rustfmt::skip]
    let wrong: Vec<(&str, Vec<Value>)> = vec![
        ("iss", vec![
            json!(""), json!(format!("{ISSUER}/")), json!(ISSUER.to_uppercase()), json!(format!(" {ISSUER}")), json!(url),
            json!("https://evil.example"), json!(format!("{ISSUER}\0")), json!(format!("{ISSUER}.evil.example")), json!("bank"),
        ]),
        ("aud", vec![
            json!(""), json!(format!("{url}/")), json!(format!("{url}/token")), json!(format!("{url}/bc-authorize")),
            json!(url.to_uppercase()), json!("bank"), json!(ISSUER), json!([]), json!([[url]]), json!([url, 7]), json!(7),
            json!(["https://evil.example"]),
        ]),
        ("exp", vec![
            json!((now + 60).to_string()), json!(now as f64 + 30.5), json!(1e300), json!(u64::MAX), json!(true),
        ]),
        ("iat", vec![json!(now + 61), json!(i64::MAX), json!(now * 1000), json!("now"), json!(u64::MAX), json!(1.5)]),
        ("jti", vec![json!(7), json!(["x"]), json!({}), json!(true)]),
    ];
    for (name, values) in wrong {
        for value in values {
            let (shown, claims) = altered(&right, name, value);
            forged.push((shown, pen.sign("JWT", &claims)));
        }
    }
    assert!(forged.len() > 180, "only {}", forged.len());
    let mut cases: Vec<_> = forged
        .iter()
        .map(|(name, token)| scene.invalid(name, LOGIN, token))
        .collect();
    for expired in [now, now - 1, 0, -1, i64::MIN] {
        let (shown, claims) = altered(&right, "exp", json!(expired));
        let request = scene.hinting(LOGIN, &pen.sign("JWT", &claims));
        cases.push(case(shown, request, 400, "expired_login_hint_token"));
    }
    // Expired, and not even its issuer's: that comes first.
    let (_, old) = altered(&right, "exp", json!(now));
    let strange = Pen::p256().sign("JWT", &old);
    cases.push(scene.invalid("expired and forged", LOGIN, &strange));
    refuse(&scene.app, cases).await;
    // None of it has used up the right one, which is good once.
    let good = pen.sign("JWT", &right);
    scene.assert_good(LOGIN, &good).await;
    let again = scene.invalid("again", LOGIN, &good);
    refuse(&scene.app, vec![again]).await;
}

/// RFC 9493: an object with the members of its format, and no others.
async fn subject_identifiers(backend: Backend) {
    let scene = scene(backend).await;
    let (pen, url, id) = (&scene.pen, &scene.app.url, &scene.alice.id);
    let mut right = scene.claims();
    right.as_object_mut().unwrap().remove("jti");
    #[rustfmt::skip]
    let invalid = [
        Value::Null, json!(7), json!(true), json!(""), json!("alice"), json!([]), json!({}), json!([{}]), json!("email"),
        json!({ "email": "alice" }), json!({ "format": "email" }), json!({ "format": "Email", "email": "alice" }),
        json!({ "format": "", "email": "alice" }), json!({ "format": null, "email": "alice" }),
        json!({ "format": 1, "email": "alice" }), json!({ "format": ["email"], "email": "alice" }),
        json!({ "format": "email", "email": null }), json!({ "format": "email", "email": 7 }),
        json!({ "format": "email", "email": ["alice"] }), json!({ "format": "email", "email": { "x": "alice" } }),
        json!({ "format": "email", "Email": "alice" }), json!({ "format": "email", "uri": "acct:alice" }),
        json!({ "format": "email", "email": "alice", "phone_number": "bob" }),
        json!({ "format": "email", "email": "alice", "x": 1 }),
        json!({ "format": "opaque", "id": id, "email": "bob" }),
        json!(["email", "alice"]), json!(["opaque", id]), json!(["iss_sub", url, id]), json!([["email", "alice"]]),
        json!([{ "format": "email", "email": "alice" }]), json!({ "email": { "email": "alice" } }),
        json!({ "format": "account" }), json!({ "format": "account", "uri": "alice" }),
        json!({ "format": "account", "uri": "ACCT:alice" }), json!({ "format": "account", "uri": "mailto:alice" }),
        json!({ "format": "iss_sub", "iss": url }), json!({ "format": "iss_sub", "sub": id }),
        json!({ "format": "opaque" }), json!({ "format": "opaque", "id": 7 }), json!({ "format": "phone_number" }),
        json!({ "format": "did", "url": "did:example:1" }), json!({ "format": "uri", "uri": "https://alice.example" }),
        json!({ "format": "aliases", "identifiers": [{ "format": "email", "email": "alice" }] }),
        json!({ "format": "decentralized", "url": "x" }), json!({ "format": "unknown" }),
    ];
    #[rustfmt::skip]
    let nobody = [
        json!({ "format": "email", "email": "" }), json!({ "format": "email", "email": "alice@" }),
        json!({ "format": "email", "email": "alice\0" }), json!({ "format": "email", "email": "x".repeat(9000) }),
        json!({ "format": "email", "email": "%" }), json!({ "format": "account", "uri": "acct:" }),
        json!({ "format": "account", "uri": "acct:acct:alice" }), json!({ "format": "opaque", "id": "" }),
        json!({ "format": "opaque", "id": "alice" }), json!({ "format": "opaque", "id": "' OR '1'='1" }),
        json!({ "format": "iss_sub", "iss": "", "sub": id }), json!({ "format": "iss_sub", "iss": ISSUER, "sub": id }),
        json!({ "format": "iss_sub", "iss": format!("{url}/"), "sub": id }),
        json!({ "format": "iss_sub", "iss": url, "sub": "alice" }), json!({ "format": "opaque", "id": "\0" }),
        json!({ "format": "iss_sub", "iss": url, "sub": "\0" }), json!({ "format": "opaque", "id": "x".repeat(9000) }),
        json!({ "format": "opaque", "id": format!("{id}\0") }), json!({ "format": "opaque", "id": format!("{id} ") }),
        json!({ "format": "phone_number", "phone_number": "\0" }), json!({ "format": "iss_sub", "iss": "\0", "sub": id }),
    ];
    let token = |sub_id: &Value| {
        let (shown, claims) = altered(&right, "sub_id", sub_id.clone());
        (shown, pen.sign("JWT", &claims))
    };
    let mut cases = vec![];
    for sub_id in &invalid {
        let (shown, token) = token(sub_id);
        cases.push(scene.invalid(shown, LOGIN, &token));
    }
    for sub_id in &nobody {
        let (shown, token) = token(sub_id);
        let request = scene.hinting(LOGIN, &token);
        cases.push(case(shown, request, 400, "unknown_user_id"));
    }
    let old =
        json!({ "iss": ISSUER, "aud": url, "iat": 1, "exp": 9_999_999_999_i64, "sub": "alice" });
    cases.push(scene.invalid("sub for sub_id", LOGIN, &pen.sign("JWT", &old)));
    refuse(&scene.app, cases).await;
    for sub_id in [
        json!({ "format": "email", "email": "alice" }),
        json!({ "format": "opaque", "id": id }),
        json!({ "format": "iss_sub", "iss": url, "sub": id }),
    ] {
        scene.assert_good(LOGIN, &token(&sub_id).1).await;
    }
}

async fn id_token_hints(backend: Backend) {
    let scene = scene(backend).await;
    let app = &scene.app;
    let phone = app.phone(&scene.alice).await;
    let asked = scene.bank.start("alice").await;
    approve(&phone, &asked).await;
    let tokens = scene.bank.poll(&asked).await.json();
    let token = tokens["id_token"].as_str().unwrap();
    let parts: Vec<&str> = token.split('.').collect();
    let (h, p, s) = (parts[0], parts[1], parts[2]);
    let read =
        |part: &str| -> Value { serde_json::from_slice(&from_base64url(part).unwrap()).unwrap() };
    let (header, right) = (read(h), read(p));
    let keys = &app.services().keys;
    let sign = |claims: &Value| es256(keys, "JWT", claims);
    let (url, now) = (&app.url, app.now().secs());
    let lifetime = 90 * 24 * 3600;
    #[rustfmt::skip]
    let mut wrong: Vec<(String, String)> = [
        "", ".", "..", "x", "a.b.c", "null", "{}", "alice", "eyJhbGciOiJub25lIn0.e30.",
    ]
    .map(|garbage| (garbage.to_owned(), format!("x{garbage}")))
    .into();
    #[rustfmt::skip]
    wrong.extend([
        ("no signature", format!("{h}.{p}.")), ("two parts", format!("{h}.{p}")), ("no header", format!(".{p}.{s}")),
        ("four parts", format!("{h}.{p}.{s}.{s}")), ("a dot behind", format!("{token}.")),
        ("padding", format!("{token}=")), ("a space before", format!(" {token}")), ("a space behind", format!("{token} ")),
        ("a newline behind", format!("{token}\n")), ("quoted", format!("\"{token}\"")), ("twice", format!("{token},{token}")),
        ("spare bits", format!("{h}.{p}.{}", bend(s))), ("zeroes", format!("{h}.{p}.{}", base64url(&[0; 64]))),
        ("Bearer", format!("Bearer {token}")), ("longer than 16 KiB", format!("{h}.{p}.{}", "A".repeat(20_000))),
        ("our challenge key", keys.sign_challenge("JWT", &right)),
        ("our checkpoint key", keys.sign_checkpoint("JWT", &right)),
        ("a stranger's key", Pen::p256().sign("JWT", &right)), ("the hint issuer's key", scene.pen.sign("JWT", &right)),
        ("an array", sign(&json!([right]))), ("nothing", sign(&json!({}))), ("null", sign(&Value::Null)),
        ("values alone", sign(&json!([right["iss"], right["sub"], right["aud"], right["exp"]]))),
        ("text", sign(&json!("alice"))), ("the access token", tokens["access_token"].as_str().unwrap().to_owned()),
    ].map(|(name, token)| (name.to_owned(), token)));
    for typ in OTHER_TYPS {
        wrong.push((format!("typ {typ:?}"), es256(keys, typ, &right)));
    }
    for (name, value) in [
        ("alg", json!("none")),
        ("alg", json!("HS256")),
        ("alg", json!("PS256")),
        ("alg", Value::Null),
        ("kid", json!("x")),
        ("kid", json!("../../../dev/null")),
        ("kid", Value::Null),
        ("typ", json!("at+jwt")),
        ("crit", json!(["exp"])),
        ("b64", json!(false)),
        ("jku", json!("https://evil.example")),
        ("jwk", scene.pen.jwk()),
    ] {
        let (shown, header) = altered(&header, name, value);
        let header = base64url(header.to_string().as_bytes());
        wrong.push((shown.clone(), format!("{header}.{p}.{s}")));
        wrong.push((format!("{shown}, unsigned"), format!("{header}.{p}.")));
    }
    for at in (0..token.len()).step_by(11) {
        let letter = if &token[at..=at] == "A" { "B" } else { "A" };
        let changed = format!("{}{letter}{}", &token[..at], &token[at + 1..]);
        wrong.push((format!("byte {at}"), changed));
    }
    #[rustfmt::skip]
    let claims: Vec<(&str, Vec<Value>)> = vec![
        ("iss", vec![
            json!(""), json!(format!("{url}/")), json!(ISSUER), json!("https://evil.example"), json!([url]), json!(7), Value::Null,
        ]),
        ("aud", vec![
            json!(""), json!("BANK"), json!("bank "), json!("other"), json!(url), json!([]), json!(["other"]),
            json!({ "aud": "bank" }), json!(7), Value::Null,
        ]),
        ("exp", vec![
            json!(now - lifetime), json!(0), json!(-1), json!(i64::MIN), json!(u64::MAX), json!(1.5), json!("soon"),
            json!([now]), Value::Null,
        ]),
        ("sub", vec![json!(7), json!([scene.alice.id]), json!({}), Value::Null]),
    ];
    let mut cases = vec![];
    for (name, values) in claims {
        for value in values {
            let (shown, claims) = altered(&right, name, value);
            wrong.push((shown, sign(&claims)));
        }
        let mut without = right.clone();
        without.as_object_mut().unwrap().remove(name);
        wrong.push((format!("{name} missing"), sign(&without)));
    }
    for sub in ["", "alice", "nobody", "' OR '1'='1", "\0"] {
        let (shown, claims) = altered(&right, "sub", json!(sub));
        let request = scene.hinting(ID, &sign(&claims));
        cases.push(case(shown, request, 400, "unknown_user_id"));
    }
    for (name, token) in &wrong {
        cases.push(scene.invalid(name, ID, token));
    }
    refuse(app, cases).await;
    scene.assert_good(ID, token).await;
    let (_, oldest) = altered(&right, "exp", json!(now - lifetime + 1));
    scene.assert_good(ID, &sign(&oldest)).await;
}

/// None, two, three: whatever they are worth.
async fn not_one_hint(backend: Backend) {
    let scene = scene(backend).await;
    let token = scene.pen.sign("JWT", &scene.claims());
    let (login, hint) = ("login_hint=alice", format!("{LOGIN}={token}"));
    #[rustfmt::skip]
    let bodies = [
        String::new(), "login_hint=".into(), format!("{LOGIN}="), format!("{ID}="), "login_hint".into(),
        format!("login_hint=&{LOGIN}=&{ID}="), format!("{login}&{hint}"), format!("{hint}&{login}"),
        format!("{login}&{ID}={token}"), format!("{hint}&{ID}={token}"), format!("{login}&{hint}&{ID}={token}"),
        format!("{login}&{LOGIN}=+"), format!("{login}&{ID}=x"), format!("{hint}&login_hint=+"), format!("{hint}&{ID}=+"),
        format!("{login}&{LOGIN}=x&{ID}=x"), format!("{hint}&{hint}"), format!("{login}&{login}"),
        format!("{hint}&{LOGIN}="), format!("LOGIN_HINT_TOKEN={token}"), format!("hint={token}"),
    ];
    let cases = bodies.iter().map(|hints| {
        let request = scene.bank.form(PATH, format!("scope=openid&{hints}"));
        case(
            hints.replace(&token, "JWT"),
            request,
            400,
            "invalid_request",
        )
    });
    refuse(&scene.app, cases.collect()).await;
    // The one it has was not used up.
    let one = format!("scope=openid&{hint}&login_hint=&{ID}=");
    let answer = scene.bank.form(PATH, one).send(scene.app.address()).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
}
