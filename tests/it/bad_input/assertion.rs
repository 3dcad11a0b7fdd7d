//! `client_assertion` (RFC 7523 3): signed well by the right key, and wrong in one thing.

use super::check::{Case, case, refuse};
use super::forge::{Pen, altered, forgeries, nameless, under_other_kids};
use super::wire::Request;
use crate::support::signer::Signer;
use crate::support::{Backend, CIBA_GRANT, TestApp, assert_oauth_error, on_both, registration};
use assent::domain::SignatureAlgorithm;
use assent::domain::client::{ClientAuthentication, KeySource, Registration};
use serde_json::{Value, json};

on_both!(statements, claims, keys, parameters);

const TYPE: &str = "urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer";

/// What a forger makes of any statement, and what is in order for this one. A bracket stands for more.
const IN_ORDER: &[&str] = &[
    r#"header {"alg":"ALG","kid":"KID","typ":"JWT"}"#,
    r#"header {"alg":"ALG","kid":"KID"}"#,
    "payload with an unknown member",
    "payload with an empty name",
    "iat missing",
    "iat = null",
    "aud = [",
    "kid missing",
];

/// The forgeries that really are: all but those in order.
pub fn refused(mut forged: Vec<(String, String)>, in_order: &[&str]) -> Vec<(String, String)> {
    let all = forged.len();
    forged.retain(|(name, _)| {
        !in_order
            .iter()
            .any(|good| name == good || (good.ends_with('[') && name.starts_with(good)))
    });
    assert_eq!(all - forged.len(), in_order.len(), "each is let off once");
    forged
}

fn request(assertion: &str) -> Request {
    let assertion: String = url::form_urlencoded::byte_serialize(assertion.as_bytes()).collect();
    with(&format!(
        "client_assertion_type={TYPE}&client_assertion={assertion}"
    ))
}

/// A token request that is good but for the client; its answer is `invalid_grant` when that is good, too.
fn with(client: &str) -> Request {
    let body = format!("grant_type={CIBA_GRANT}&auth_req_id=x&{client}");
    Request::form("/token", body)
}

fn invalid(name: impl Into<String>, assertion: &str) -> Case {
    case(name, request(assertion), 401, "invalid_client")
}

/// The client `id` with these keys.
async fn register(app: &TestApp, id: &str, algorithm: SignatureAlgorithm, keys: &[Value]) {
    let keys = KeySource::Jwks(json!({ "keys": keys }));
    let registration = Registration {
        authentication: ClientAuthentication::PrivateKeyJwt { algorithm, keys },
        ..registration()
    };
    app.client_with(id, registration).await;
}

fn named(pen: &Pen, kid: &str) -> Value {
    let mut jwk = pen.jwk();
    jwk["kid"] = json!(kid);
    jwk
}

/// Claims that are good as often as nobody has used them.
fn good_claims(app: &TestApp, id: &str) -> Value {
    let now = app.now().secs();
    json!({ "iss": id, "sub": id, "aud": app.url, "iat": now, "exp": now + 60, "jti": "an identifier" })
}

/// Nothing that was refused has used it up.
async fn assert_still_good(app: &TestApp, assertion: &str) {
    let answer = request(assertion).send(app.address()).await;
    assert_oauth_error(&answer, 400, "invalid_grant");
    let again = request(assertion).send(app.address()).await;
    assert_oauth_error(&again, 401, "invalid_client");
}

/// Types of every JWT that we or others know.
#[rustfmt::skip]
pub const OTHER_TYPS: &[&str] = &[
    "at+jwt", "application/at+jwt", "dpop+jwt", "device-proof+jwt", "ciba-challenge+jwt", "ciba-approval+jwt",
    "enrolment-proof+jwt", "assent-checkpoint+jwt", "logout+jwt", "secevent+jwt", "token-introspection+jwt",
    "oauth-authz-req+jwt", "JOSE", "JOSE+JSON", "jwt-bearer", "JWT ", " JWT", "JWTs", "application/jwt", "",
];

async fn statements(backend: Backend) {
    let app = TestApp::new(backend).await;
    for (id, pen) in [("bank", Pen::p256()), ("shop", Pen::ed25519())] {
        let algorithm = pen.public.algorithm();
        // The set has keys for other algorithms, which this client did not register.
        let others = SignatureAlgorithm::ALL.iter();
        let others: Vec<_> = others
            .filter(|other| **other != algorithm)
            .map(|other| Signer::new(*other))
            .collect();
        let mut keys = vec![pen.jwk_with_kid()];
        keys.extend(others.iter().map(|other| other.key.jwk()));
        register(&app, id, algorithm, &keys).await;
        let claims = good_claims(&app, id);
        let kids: Vec<String> = keys[1..]
            .iter()
            .map(|key| key["kid"].as_str().unwrap().to_owned())
            .collect();
        let kids: Vec<&str> = kids.iter().map(String::as_str).collect();

        let mut forged = forgeries(&pen, "JWT", &claims);
        forged.extend(under_other_kids(&pen, "JWT", &claims, &kids));
        let mut forged = refused(forged, IN_ORDER);
        let order = ["iss", "sub", "aud", "exp", "jti", "nbf", "iat"];
        forged.push(nameless(&pen, "JWT", &claims, &order));
        for typ in OTHER_TYPS.iter().chain(&["login-hint-token+jwt"]) {
            forged.push((format!("typ {typ:?}"), pen.sign(typ, &claims)));
        }
        for other in &others {
            let name = format!("a registered key, {}", other.key.jwk()["kty"]);
            forged.push((name, other.sign("JWT", &claims)));
        }
        let services = app.services();
        forged.extend([
            (
                "our token key".into(),
                crate::support::es256(&services.keys, "JWT", &claims),
            ),
            (
                "our challenge key".into(),
                services.keys.sign_challenge("JWT", &claims),
            ),
            (
                "our checkpoint key".into(),
                services.keys.sign_checkpoint("JWT", &claims),
            ),
        ]);
        assert!(forged.len() > 180, "only {}", forged.len());
        let cases = forged.iter().map(|(name, token)| invalid(name, token));
        refuse(&app, cases.collect()).await;
        for typ in ["JWT", "jwt", "client-authentication+jwt"] {
            let mut claims = claims.clone();
            claims["jti"] = json!(typ);
            assert_still_good(&app, &pen.sign(typ, &claims)).await;
        }
        assert_still_good(&app, &pen.sign("JWT", &claims)).await;
    }
}

async fn claims(backend: Backend) {
    let app = TestApp::new(backend).await;
    let pen = Pen::p256();
    register(
        &app,
        "bank",
        SignatureAlgorithm::Es256,
        &[pen.jwk_with_kid()],
    )
    .await;
    register(
        &app,
        "other",
        SignatureAlgorithm::Es256,
        &[Pen::p256().jwk_with_kid()],
    )
    .await;
    app.client("secretive").await;
    let locked = app.client("locked").await;
    app.services().lock_client(&locked.client.id).await.unwrap();
    let (now, url) = (app.now().secs(), app.url.clone());
    let right = good_claims(&app, "bank");
    #[rustfmt::skip]
    let wrong: Vec<(&str, Vec<Value>)> = vec![
        ("iss", names()),
        ("sub", names()),
        ("aud", vec![
            json!(""), json!(format!("{url}/")), json!(format!("{url}/token/")), json!(format!("{url}//token")),
            json!(format!("{url}/token?x=1")), json!(format!("{url}/token#x")), json!(format!("{url}/introspect")),
            json!(format!("{url}/revoke")), json!(format!("{url}/userinfo")), json!(format!("{url}/jwks")),
            json!(format!("{url} ")), json!(format!(" {url}")), json!(format!("{url}\0")), json!(url.to_uppercase()),
            json!(url.replace("http:", "https:")), json!(url.replace("127.0.0.1", "localhost")), json!("bank"),
            json!(format!("{url}@evil.example")), json!(format!("{url}.evil.example")), json!("https://evil.example"),
            json!([]), json!([[url]]), json!([null]), json!([url, 7]), json!([url, [url]]), json!(["https://evil.example"]),
            json!({ "aud": url }), json!(7), json!(true), Value::Null, json!(format!("{url},{url}")),
        ]),
        ("exp", [times(now), vec![
            json!(now), json!(now - 1), json!(0), json!(-1), json!(now + 301), json!(i64::MIN), json!(i64::MAX),
            json!(i64::MAX / 1000), json!(now * 1000),
        ]].concat()),
        ("iat", [times(now), vec![json!(now + 61), json!(i64::MAX), json!(now * 1000)]].concat()),
        ("nbf", [times(now), vec![json!(now + 61), json!(i64::MAX), json!(now * 1000)]].concat()),
        ("jti", vec![
            json!(""), json!("x".repeat(129)), json!("\u{e9}".repeat(65)), json!("x".repeat(9000)), json!(7), json!(true),
            json!(["an identifier"]), json!({ "jti": "x" }), Value::Null,
        ]),
    ];
    let mut cases = vec![];
    for (name, values) in wrong {
        for value in values {
            let optional = ["iat", "nbf"].contains(&name) && value.is_null();
            if !optional {
                let (shown, claims) = altered(&right, name, value);
                cases.push(invalid(shown, &pen.sign("JWT", &claims)));
            }
        }
    }
    // All of it another's, all of it nobody's.
    for id in ["other", "secretive", "locked", "nobody", ""] {
        let mut claims = right.clone();
        (claims["iss"], claims["sub"]) = (json!(id), json!(id));
        cases.push(invalid(format!("as {id}"), &pen.sign("JWT", &claims)));
    }
    refuse(&app, cases).await;
    assert_still_good(&app, &pen.sign("JWT", &right)).await;
}

/// Almost the client's name.
fn names() -> Vec<Value> {
    #[rustfmt::skip]
    let mut names: Vec<Value> = [
        "", " ", "bank ", " bank", "BANK", "bank\0", "bank\n", "b\u{430}nk", "ban", "banks", "other", "nobody", "secretive",
        "locked", "%62ank", "bank,other", "https://bank.example", "' OR '1'='1", "*", "%",
    ]
    .iter()
    .map(|name| json!(name))
    .collect();
    names.push(json!("b".repeat(9000)));
    names.extend([
        json!(["bank"]),
        json!({ "id": "bank" }),
        json!(7),
        json!(false),
    ]);
    names.push(Value::Null);
    names
}

/// No time at all.
fn times(now: i64) -> Vec<Value> {
    #[rustfmt::skip]
    let times = vec![
        json!((now + 60).to_string()), json!(now as f64 + 30.5), json!(1e300), json!(-1e300), json!(u64::MAX),
        json!([now]), json!({ "at": now }), json!(true), json!(""), json!("soon"), Value::Null,
    ];
    times
}

/// Which key of the set counts.
async fn keys(backend: Backend) {
    let app = TestApp::new(backend).await;
    let pens: Vec<Pen> = (0..6).map(|_| Pen::p256()).collect();
    let es256 = SignatureAlgorithm::Es256;
    let bare = |pen: &Pen| pen.jwk();
    let encrypts = |pen: &Pen| {
        let mut key = pen.jwk_with_kid();
        key["use"] = json!("enc");
        key
    };
    let only_signs = |pen: &Pen| {
        let mut key = pen.jwk_with_kid();
        key["key_ops"] = json!(["sign"]);
        key
    };
    let elsewhere = |pen: &Pen| {
        let mut key = pen.jwk_with_kid();
        key["alg"] = json!("ES384");
        key
    };
    // A set, the one who signs, and whether that is the client.
    #[rustfmt::skip]
    let table: Vec<(&str, Vec<Value>, bool)> = vec![
        ("its key", vec![pens[0].jwk_with_kid()], true),
        ("its second key", vec![pens[1].jwk_with_kid(), pens[0].jwk_with_kid()], true),
        ("no key", vec![], false),
        ("not its key", vec![pens[1].jwk_with_kid()], false),
        ("another key under its kid", vec![named(&pens[1], &pens[0].kid)], false),
        ("its key under another kid", vec![named(&pens[0], "x")], false),
        ("its key without kid", vec![bare(&pens[0])], false),
        ("two keys under its kid", vec![named(&pens[1], &pens[0].kid), pens[0].jwk_with_kid()], true),
        ("the same key twice", vec![pens[0].jwk_with_kid(), pens[0].jwk_with_kid()], true),
        ("an RSA key under its kid before", vec![rsa(&pens[0].kid), pens[0].jwk_with_kid()], true),
        ("more keys under its kid than are tried", (1..6).map(|n| named(&pens[n], &pens[0].kid))
            .chain([pens[0].jwk_with_kid()]).collect(), false),
        ("for encryption", vec![encrypts(&pens[0])], false),
        ("not to verify with", vec![only_signs(&pens[0])], false),
        ("a secret beside", vec![json!({ "kty": "oct", "k": "c2VjcmV0", "kid": pens[0].kid })], false),
    ];
    for (n, (name, set, good)) in table.iter().enumerate() {
        let id = format!("bank-{n}");
        register(&app, &id, es256, set).await;
        let assertion = pens[0].sign("JWT", &good_claims(&app, &id));
        if *good {
            assert_still_good(&app, &assertion).await;
        } else {
            refuse(&app, vec![invalid(*name, &assertion)]).await;
        }
    }
    // A key for another algorithm of its curve spoils the set it stands in.
    register(&app, "elsewhere", es256, &[elsewhere(&pens[0])]).await;
    let assertion = pens[0].sign("JWT", &good_claims(&app, "elsewhere"));
    refuse(&app, vec![invalid("alg of another", &assertion)]).await;
}

fn rsa(kid: &str) -> Value {
    let mut key = Signer::new(SignatureAlgorithm::Ps256).key.jwk();
    key["kid"] = json!(kid);
    key
}

/// The parameters around it.
async fn parameters(backend: Backend) {
    let app = TestApp::new(backend).await;
    let pen = Pen::p256();
    register(
        &app,
        "bank",
        SignatureAlgorithm::Es256,
        &[pen.jwk_with_kid()],
    )
    .await;
    let shop = app.client("shop").await;
    let good = pen.sign("JWT", &good_claims(&app, "bank"));
    let assertion = format!("client_assertion={good}");
    let both = format!("client_assertion_type={TYPE}&{assertion}");
    #[rustfmt::skip]
    let table = [
        (assertion.clone(), 401),
        (format!("client_assertion_type=&{assertion}"), 401),
        (format!("client_assertion_type=x&{assertion}"), 401),
        (format!("client_assertion_type={TYPE}%20&{assertion}"), 401),
        (format!("client_assertion_type={}&{assertion}", TYPE.to_uppercase()), 401),
        (format!("client_assertion_type={}&{assertion}", TYPE.replace("jwt-bearer", "saml2-bearer")), 401),
        (format!("client_assertion_type={}&{assertion}", TYPE.replace("client-assertion-type", "grant-type")), 401),
        (format!("Client_Assertion_Type={TYPE}&{assertion}"), 401),
        (format!("client_assertion_type={TYPE}"), 401),
        (format!("client_assertion_type={TYPE}&client_assertion="), 401),
        (format!("client_assertion_type={TYPE}&client_assertion=+{good}"), 401),
        (format!("client_assertion_type={TYPE}&client_assertion={good}+"), 401),
        (format!("client_assertion_type={TYPE}&client_assertion={good}%0a"), 401),
        (format!("client_assertion_type={TYPE}&client_assertion=Bearer+{good}"), 401),
        (format!("client_assertion_type={TYPE}&client_assertion={good}%00"), 400),
        (format!("client_assertion_type={TYPE}&client_assertion={good}%ff"), 400),
        (format!("client_assertion_type={TYPE}&assertion={good}"), 401),
        (format!("{both}&client_id=shop"), 401),
        (format!("{both}&client_id=nobody"), 401),
        (format!("{both}&client_id=BANK"), 401),
        (format!("{both}&client_id=bank+"), 401),
        (format!("{both}&client_id={}", "b".repeat(300)), 401),
        (format!("{both}&client_secret=x"), 400),
        (format!("{both}&client_id=shop&client_secret={}", shop.secret), 400),
        (format!("{both}&client_assertion={good}"), 400),
        (format!("{both}&client_assertion="), 400),
        (format!("{both}&client_assertion_type={TYPE}"), 400),
        (format!("{both}&client_id=bank&client_id=bank"), 400),
    ];
    let mut cases = vec![];
    for (client, status) in &table {
        let error = if *status == 401 {
            "invalid_client"
        } else {
            "invalid_request"
        };
        cases.push(case(
            client.replace(&good, "JWT"),
            with(client),
            *status,
            error,
        ));
    }
    let header = with(&both).with("authorization", &shop.credentials);
    cases.push(case("a header, too", header, 400, "invalid_request"));
    for scheme in ["Bearer", "Basic", "DPoP"] {
        let header = with("").with("authorization", format!("{scheme} {good}"));
        cases.push(case(format!("as {scheme}"), header, 401, "invalid_client"));
    }
    let in_url = format!("/token?{both}");
    let in_url = Request::form(&in_url, format!("grant_type={CIBA_GRANT}&auth_req_id=x"));
    cases.push(case("in the URL", in_url, 401, "invalid_client"));
    refuse(&app, cases).await;
    let beside = with(&format!("{both}&client_id=bank&client_secret="));
    let answer = beside.send(app.address()).await;
    assert_oauth_error(&answer, 400, "invalid_grant");
}
