//! `GET` and `POST /userinfo`: the bearer token and where it may stand (RFC 6750).

use super::check::{Case, case, refuse};
use super::forge::{altered, bend};
use super::wire::Request;
use crate::support::{Backend, TestApp, approve, es256, on_both};
use assent::crypto::{base64url, from_base64url};
use serde::Serialize;
use serde::ser::{SerializeMap as _, Serializer};
use serde_json::{Value, json};

on_both!(headers, tokens, claims);

const PATH: &str = "/userinfo";

/// Alice, and the claims of a good access token of hers.
async fn scene(backend: Backend) -> (TestApp, Value) {
    let app = TestApp::new(backend).await;
    let (bank, _, phone) = app.cast().await;
    let id = bank.start("alice").await;
    approve(&phone, &id).await;
    let tokens = bank.poll(&id).await.json();
    let payload = tokens["access_token"]
        .as_str()
        .unwrap()
        .split('.')
        .nth(1)
        .unwrap();
    let claims = serde_json::from_slice(&from_base64url(payload).unwrap()).unwrap();
    (app, claims)
}

fn bearing(method: &str, token: &str) -> Request {
    Request::new(method, PATH).with("authorization", format!("Bearer {token}"))
}

fn invalid(name: impl Into<String>, request: Request) -> Case {
    case(name, request, 401, "invalid_token")
}

async fn headers(backend: Backend) {
    let (app, claims) = scene(backend).await;
    let token = es256(&app.services().keys, "at+jwt", &claims);
    let with = |before: &str, after: &str| format!("{before}{token}{after}");
    #[rustfmt::skip]
    let values = [
        String::new(), "Bearer".into(), "Bearer ".into(), "Bearer x".into(), with("", ""), with("Basic ", ""),
        with("DPoP ", ""), with("DeviceProof ", ""), with("Bearer", ""), with("Bearer\t", ""), with("Bearer \"", "\""),
        with("Bearer token=", ""), with("Bearer ", ", x"), with("Bearer ", " x"), with("Bearer ", ";"),
        with("Bearer Bearer ", ""), with("Bearer ", "="), "Bearer \u{e9}".into(), "a".repeat(16 * 1024),
        format!("Bearer {}", "a".repeat(16 * 1024)),
    ];
    for method in ["GET", "POST"] {
        let bare = Request::new(method, PATH);
        let mut cases = vec![invalid("no header", bare.clone())];
        for value in &values {
            let request = bare.clone().with("authorization", value);
            cases.push(invalid(format!("{value:.30}"), request));
        }
        // The header is the only place (RFC 6750 2.1; 2.2 and 2.3 are optional).
        let in_url = Request::new(method, &format!("{PATH}?access_token={token}"));
        cases.push(invalid("in the URL", in_url));
        let in_body = Request::form(PATH, format!("access_token={token}"));
        cases.push(invalid("in the body", in_body));
        cases.push(invalid(
            "in a cookie",
            bare.clone().with("cookie", with("access_token=", "")),
        ));
        let good = bearing(method, &token);
        for second in [with("Bearer ", ""), "Bearer x".into(), String::new()] {
            let twice = good.clone().with("authorization", second);
            cases.push(case("two headers", twice, 400, "invalid_request"));
        }
        refuse(&app, cases).await;
        assert_eq!(good.send(app.address()).await.status, 200);
    }
}

async fn tokens(backend: Backend) {
    let (app, claims) = scene(backend).await;
    let keys = &app.services().keys;
    let token = es256(keys, "at+jwt", &claims);
    let parts: Vec<&str> = token.split('.').collect();
    let (h, p, s) = (parts[0], parts[1], parts[2]);
    let header: Value = serde_json::from_slice(&from_base64url(h).unwrap()).unwrap();
    let mut cases: Vec<_> = [
        String::new(),
        "..".into(),
        format!("{h}.{p}"),
        format!("{h}.{p}."),
        format!(".{p}.{s}"),
        format!("{h}.{p}.{s}.{s}"),
        format!("{h}.{p}.{s}="),
        format!("{h}.{p}.{}", bend(s)),
        format!("{h}.{p}.{}", base64url(&[0; 64])),
        format!("{h}.{p}.{}", "A".repeat(20_000)),
        token.replace('.', ".."),
        token.to_lowercase(),
        es256(keys, "JWT", &claims),
        es256(keys, "", &claims),
        es256(keys, "at+jwt+x", &claims),
        es256(keys, "token-introspection+jwt", &claims),
        keys.sign_challenge("at+jwt", &claims),
        keys.sign_checkpoint("at+jwt", &claims),
        super::forge::Pen::p256().sign("at+jwt", &claims),
        es256(keys, "at+jwt", &json!([claims])),
        es256(
            keys,
            "at+jwt",
            &json!(claims.as_object().unwrap().values().collect::<Vec<_>>()),
        ),
        es256(keys, "at+jwt", &Value::Null),
        es256(keys, "at+jwt", &"text"),
        es256(keys, "at+jwt", &json!({})),
    ]
    .iter()
    .map(|token| invalid(format!("{token:.60}"), bearing("GET", token)))
    .collect();
    // Another header over the same signature; another byte anywhere.
    for (name, value) in [
        ("alg", json!("none")),
        ("alg", json!("HS256")),
        ("kid", json!("x")),
        ("kid", json!("../../../dev/null")),
        ("kid", Value::Null),
        ("typ", json!("JWT")),
        ("crit", json!(["exp"])),
        ("jku", json!("https://evil.example")),
    ] {
        let (shown, header) = altered(&header, name, value);
        let header = base64url(header.to_string().as_bytes());
        cases.push(invalid(
            &shown,
            bearing("GET", &format!("{header}.{p}.{s}")),
        ));
        cases.push(invalid(shown, bearing("GET", &format!("{header}.{p}."))));
    }
    for at in (0..token.len()).step_by(11) {
        let letter = if &token[at..=at] == "A" { "B" } else { "A" };
        let changed = format!("{}{letter}{}", &token[..at], &token[at + 1..]);
        cases.push(invalid(format!("byte {at}"), bearing("GET", &changed)));
    }
    refuse(&app, cases).await;
}

/// Claims with one name twice: no parser of ours would write that.
struct Twice<'a>(&'a Value, &'a str, Value);

impl Serialize for Twice<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (name, value) in self.0.as_object().unwrap() {
            map.serialize_entry(name, value)?;
        }
        map.serialize_entry(self.1, &self.2)?;
        map.end()
    }
}

async fn claims(backend: Backend) {
    let (app, right) = scene(backend).await;
    let (url, now) = (&app.url, app.now().secs());
    let mallory = app.user("mallory").await;
    app.services().lock_user(&mallory).await.unwrap();
    let locked = app.client("locked").await;
    app.services().lock_client(&locked.client.id).await.unwrap();
    #[rustfmt::skip]
    let wrong: Vec<(&str, Value)> = vec![
        ("iss", json!("https://evil.example")),
        ("iss", json!(format!("{url}/"))),
        ("iss", json!("")),
        ("aud", json!("bank")),
        ("aud", json!(format!("{url}/"))),
        ("aud", json!(format!("{url}/userinfo"))),
        ("aud", json!([url])),
        ("aud", json!([url, "bank"])),
        ("aud", json!("")),
        ("exp", json!(now)),
        ("exp", json!(now - 1)),
        ("exp", json!(0)),
        ("exp", json!(i64::MIN)),
        ("exp", json!(u64::MAX)),
        ("exp", json!(now as f64 + 600.5)),
        ("exp", json!((now + 600).to_string())),
        ("sub", json!("nobody")),
        ("sub", json!(mallory.id)),
        ("sub", json!("alice")),
        ("sub", json!("")),
        ("sub", json!(7)),
        ("client_id", json!("nobody")),
        ("client_id", json!("locked")),
        ("client_id", json!("")),
        ("scope", json!("")),
        ("scope", json!("openid  profile")),
        ("scope", json!("profile")),
        ("scope", json!("openid payments")),
        ("scope", json!("openid\nprofile")),
        ("scope", json!(["openid"])),
    ];
    let keys = &app.services().keys;
    let sign = |claims: &Value| bearing("GET", &es256(keys, "at+jwt", claims));
    let mut cases = vec![];
    for (name, value) in wrong {
        let (shown, claims) = altered(&right, name, value);
        cases.push(invalid(shown, sign(&claims)));
    }
    for name in right.as_object().unwrap().keys() {
        let (shown, claims) = altered(&right, name, Value::Null);
        cases.push(invalid(shown, sign(&claims)));
        let mut without = right.clone();
        without.as_object_mut().unwrap().remove(name);
        cases.push(invalid(format!("{name} missing"), sign(&without)));
        let twice = es256(keys, "at+jwt", &Twice(&right, name, right[name].clone()));
        cases.push(invalid(format!("{name} twice"), bearing("GET", &twice)));
    }
    refuse(&app, cases).await;
    // The last second is good, the next is not.
    let last = sign(&right);
    app.advance(599);
    assert_eq!(last.send(app.address()).await.status, 200);
    app.advance(1);
    assert_eq!(last.send(app.address()).await.status, 401);
}
