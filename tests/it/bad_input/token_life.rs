//! `POST /introspect` and `POST /revoke`: the form, and everything that is no token of the caller's.

use super::check::{Case, assert_tells_nothing, assert_unchanged, case, refuse};
use super::forge::{Pen, bend};
use super::wire::{FORM, Request};
use crate::support::{Backend, RelyingParty, TestApp, approve, es256, on_both, show};
use assent::crypto::{base64url, from_base64url};
use assent::domain::client::{AccessTokenFormat, Grant, Registration};
use assent::phone::Phone;
use serde_json::{Value, json};

on_both!(forms, what_is_no_token_of_the_caller_is_nothing);

const PATHS: [&str; 2] = ["/introspect", "/revoke"];

/// A client with refresh tokens.
async fn client(app: &TestApp, id: &str, access_token_format: AccessTokenFormat) -> RelyingParty {
    let mut registration = Registration {
        access_token_format,
        ..crate::support::registration()
    };
    registration.grants.insert(Grant::RefreshToken);
    app.client_with(id, registration).await
}

async fn tokens(client: &RelyingParty, phone: &Phone) -> Value {
    let id = client.start("alice").await;
    approve(phone, &id).await;
    let answer = client.poll(&id).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.json()
}

/// Bodies around a good pair, all of them `invalid_request`; also what is wrong with it in the URL,
/// under another content type, and by its size.
pub fn bad_forms(client: &RelyingParty, path: &str, name: &str, value: &str) -> Vec<Case> {
    let good = format!("{name}={value}");
    let upper = name.to_uppercase();
    #[rustfmt::skip]
    let bodies = [
        String::new(), "&&".into(), "=".into(), name.into(), format!("{name}="), format!("{name}=&{name}="),
        format!("={value}"), format!("{upper}={value}"), format!("+{name}={value}"), format!("{name}%20={value}"),
        format!("{name}[]={value}"), format!("{name}.0={value}"), format!("x={value}"), format!("{name};{value}"),
        json!({ name: value }).to_string(), format!("{good}&{good}"), format!("{good}&{name}=x"),
        format!("{good}&{name}="), format!("{good}&{name}"), format!("{name}=&{good}"),
        format!("{good}&%{:02x}{}=x", name.as_bytes()[0], &name[1..]), format!("{good}&x=1&x=1"),
        format!("{good}&token_type_hint=access_token&token_type_hint=access_token"),
        format!("{good}&x=%00"), format!("{good}%00"), format!("{name}=%00"), format!("{good}\0"), format!("{good}%ff"),
        format!("{good}%c0%80"), format!("{good}%ed%a0%80"), format!("{good}%"), format!("{good}%4"),
        format!("{good}%zz"), format!("{good}&x%ff=1"), format!("{good}&client_id={0}&client_id={0}", client.client.id),
        (0..101).map(|i| format!("p{i}=1&")).collect::<String>() + &good,
    ];
    let invalid = "invalid_request";
    let mut cases: Vec<_> = bodies
        .iter()
        .map(|body| {
            let name = format!("{path} {body:.90}");
            case(name, client.form(path, body), 400, invalid)
        })
        .collect();
    let latin = [good.as_bytes(), b"\xe9"].concat();
    cases.push(case("Latin-1", client.form(path, latin), 400, invalid));
    for size in [64 * 1024 + 1, 300 * 1024] {
        let body = format!("{good}&x={}", "a".repeat(size - good.len() - 3));
        cases.push(case("too large", client.form(path, body), 413, invalid));
    }
    #[rustfmt::skip]
    let types: [&[&str]; 8] = [
        &[], &[""], &["text/plain"], &["application/json"], &["multipart/form-data; boundary=x"], &[FORM, FORM],
        &["application/x-www-form-urlencodedx"], &["application/x-www-form-urlencoded, application/json"],
    ];
    for types in types {
        let bare = client.form(path, &good).without("content-type");
        let request = types
            .iter()
            .fold(bare, |r, value| r.with("content-type", value));
        cases.push(case(format!("type {types:?}"), request, 400, invalid));
    }
    let in_url = client.form(&format!("{path}?{good}"), "");
    cases.push(case("in the URL", in_url, 400, invalid));
    let in_cookie = client.form(path, "").with("cookie", &good);
    cases.push(case("in a cookie", in_cookie, 400, invalid));
    for method in ["GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "post"] {
        let mut request = client.form(path, &good);
        request.method = method.into();
        if method != "HEAD" {
            cases.push(case(format!("{method} {path}"), request, 405, invalid));
        }
    }
    // Nobody, and a bearer of what is asked about.
    let nobody = Request::form(path, &good);
    cases.push(case("no client", nobody.clone(), 401, "invalid_client"));
    let bearer = nobody.with("authorization", format!("Bearer {value}"));
    cases.push(case("a bearer", bearer, 401, "invalid_client"));
    cases
}

async fn forms(backend: Backend) {
    let app = TestApp::new(backend).await;
    let (_, _, phone) = app.cast().await;
    let shop = client(&app, "shop", AccessTokenFormat::Jwt).await;
    let tokens = tokens(&shop, &phone).await;
    for kind in ["access_token", "refresh_token"] {
        let token = tokens[kind].as_str().unwrap();
        for path in PATHS {
            refuse(&app, bad_forms(&shop, path, "token", token)).await;
        }
        // After all that it is as good as before.
        assert_eq!(shop.introspect(token).await.json()["active"], true);
    }
}

/// Whatever is not a token we made for this client: it does not exist for it, to the byte.
async fn what_is_no_token_of_the_caller_is_nothing(backend: Backend) {
    let app = TestApp::new(backend).await;
    let (bank, alice, phone) = app.cast().await;
    let shop = client(&app, "shop", AccessTokenFormat::Jwt).await;
    let opaque = client(&app, "opaque", AccessTokenFormat::Opaque).await;
    let mine = tokens(&shop, &phone).await;
    let theirs = tokens(&client(&app, "other", AccessTokenFormat::Jwt).await, &phone).await;
    let hidden = tokens(&opaque, &phone).await;
    let text = |tokens: &Value, name: &str| tokens[name].as_str().unwrap().to_owned();
    let (access, refresh) = (text(&mine, "access_token"), text(&mine, "refresh_token"));
    let waiting = bank.start("alice").await;
    let shown = show(&phone, &waiting).await;
    let services = app.services();
    services.checkpoint().await.unwrap();
    let checkpoints = app
        .backend
        .column("SELECT statement FROM checkpoints")
        .await;
    let proof = phone.proof_claims("GET", "/device/v1/requests", b"");
    let claims = claims(&access);
    let mut wrong: Vec<(String, String)> = Vec::new();
    #[rustfmt::skip]
    let others = [
        ("another's access token", text(&theirs, "access_token")),
        ("another's refresh token", text(&theirs, "refresh_token")),
        ("another's opaque token", text(&hidden, "access_token")),
        ("another's ID Token", text(&theirs, "id_token")),
        ("an ID Token", text(&mine, "id_token")),
        ("a challenge", shown.signed),
        ("a checkpoint", checkpoints[0].clone()),
        ("a handle", waiting.clone()),
        ("a proof", phone.sign("device-proof+jwt", &proof)),
        ("an approval", phone.sign("ciba-approval+jwt", &json!({ "iss": phone.id() }))),
        ("the client's secret", shop.secret.clone()),
        ("a person", alice.id.to_string()),
        ("a jti", claims["jti"].as_str().unwrap().to_owned()),
        ("claims of a person unknown", es256(&services.keys, "at+jwt", &with(&claims, "sub", json!("nobody")))),
        ("claims of another client", es256(&services.keys, "at+jwt", &with(&claims, "client_id", json!("bank")))),
        ("claims of more", es256(&services.keys, "at+jwt", &with(&claims, "scope", json!("openid profile payments")))),
        ("claims of longer", es256(&services.keys, "at+jwt", &with(&claims, "exp", json!(9_999_999_999_i64)))),
        ("a jti of nobody", es256(&services.keys, "at+jwt", &with(&claims, "jti", json!("x")))),
        ("typ JWT", es256(&services.keys, "JWT", &claims)),
        ("no typ", es256(&services.keys, "", &claims)),
        ("the challenge key", services.keys.sign_challenge("at+jwt", &claims)),
        ("the checkpoint key", services.keys.sign_checkpoint("at+jwt", &claims)),
        ("a strange key", Pen::p256().sign("at+jwt", &claims)),
        ("a strange key of another kind", Pen::ed25519().sign("at+jwt", &claims)),
        ("unsigned", unsigned(&access)),
        ("a claim twice", twice(&access)),
    ];
    wrong.extend(others.map(|(name, token)| (name.to_owned(), token)));
    let opaque_token = text(&hidden, "access_token");
    for token in [&access, &refresh, &opaque_token] {
        wrong.extend(misspelled(token));
    }
    for garbage in GARBAGE {
        wrong.push(((*garbage).to_owned(), (*garbage).to_owned()));
    }
    wrong.push(("60 KiB".into(), "A".repeat(60_000)));
    wrong.push((
        "60 KiB, refresh".into(),
        "assent_rt_".to_owned() + &"A".repeat(60_000),
    ));
    wrong.push((
        "60 KiB, opaque".into(),
        "assent_at_".to_owned() + &"A".repeat(60_000),
    ));
    wrong.push(("30,000 dots".into(), ".".repeat(30_000)));

    let before = app.state().await;
    for (name, token) in &wrong {
        for hint in [
            "",
            "&token_type_hint=access_token",
            "&token_type_hint=refresh_token",
            "&token_type_hint=x",
        ] {
            let value: String = url::form_urlencoded::byte_serialize(token.as_bytes()).collect();
            let body = format!("token={value}{hint}");
            let ask = shop.form("/introspect", &body);
            let answer = ask.send(app.address()).await;
            assert_eq!(
                (answer.status, answer.body.as_str()),
                (200, r#"{"active":false}"#),
                "{name}"
            );
            assert_eq!(answer.header("cache-control"), Some("no-store"), "{name}");
            assert_tells_nothing(&ask, &answer);
            let revoke = shop.form("/revoke", &body).send(app.address()).await;
            assert_eq!((revoke.status, revoke.body.as_str()), (200, ""), "{name}");
            assert_eq!(revoke.header("cache-control"), Some("no-store"), "{name}");
            if name.starts_with("byte") {
                break; // One of the hints is enough for these.
            }
        }
    }
    assert_unchanged(&before, &app.state().await);
    for token in [&access, &refresh] {
        assert_eq!(shop.introspect(token).await.json()["active"], true);
    }
    assert_eq!(
        opaque.introspect(&opaque_token).await.json()["active"],
        true
    );
}

#[rustfmt::skip]
const GARBAGE: &[&str] = &[
    "x", " ", "+", ".", "..", "...", "a.b.c", "null", "0", "-1", "[]", "{}", "true", "%", "*", "_", "'", "\"", "\\",
    "' OR '1'='1", "'; DROP TABLE access_tokens;--", "../../etc/passwd", "\u{e9}", "\u{202e}", "\u{1f4a3}", "\n", "\t",
    "assent_rt_", "assent_at_", "assent_rt_x", "assent_at_x", "assent_rt_assent_at_", "assent_xx_AAAA", "ASSENT_RT_AAAA",
    " assent_rt_x", "assent_rt_%", "assent_rt_'", "assent_at_' OR '1'='1", "Bearer x", "Basic YmFuazp4",
    "assent_rt_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "assent_at_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
    "eyJhbGciOiJub25lIn0.e30.", "eyJhbGciOiJub25lIn0.e30.AAAA", "eyJhbGciOiJFUzI1NiIsInR5cCI6ImF0K2p3dCJ9.e30.AAAA",
];

/// A token in other words.
fn misspelled(token: &str) -> Vec<(String, String)> {
    let last = token.len() - 1;
    #[rustfmt::skip]
    let mut wrong: Vec<String> = vec![
        format!(" {token}"), format!("{token} "), format!("\t{token}"), format!("{token}\n"), format!("\u{feff}{token}"),
        format!("\"{token}\""), format!("{token}="), format!("{token}A"), format!("{token}."), format!("{token}{token}"),
        format!("{token},{token}"), format!("{token} {token}"), token[..last].into(), token[1..].into(), bend(token),
        token.to_uppercase(), token.to_lowercase(), token.chars().rev().collect(), format!("Bearer {token}"),
        base64url(token.as_bytes()), token.replacen('_', "%5f", 1), token.replacen('.', "%2e", 1),
    ];
    wrong.retain(|other| other != token);
    let named = |other: String| (format!("{other:.60}"), other);
    let mut wrong: Vec<_> = wrong.into_iter().map(named).collect();
    for at in (0..=last).step_by(if last > 100 { 7 } else { 1 }) {
        let letter = if &token[at..=at] == "A" { "B" } else { "A" };
        let changed = format!("{}{letter}{}", &token[..at], &token[at + 1..]);
        wrong.push((format!("byte {at}"), changed));
    }
    wrong
}

fn claims(token: &str) -> Value {
    let payload = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&from_base64url(payload).unwrap()).unwrap()
}

fn with(claims: &Value, name: &str, value: Value) -> Value {
    let mut changed = claims.clone();
    changed[name] = value;
    changed
}

fn unsigned(token: &str) -> String {
    let header = base64url(br#"{"alg":"none","typ":"at+jwt"}"#);
    let payload = token.split('.').nth(1).unwrap();
    format!("{header}.{payload}.")
}

/// The first claim stands twice; the signature is that of before.
fn twice(token: &str) -> String {
    let parts: Vec<&str> = token.split('.').collect();
    let payload = claims(token).to_string();
    let (name, value) = payload[1..].split_once(',').map_or(("", ""), |first| first);
    let payload = base64url(format!("{{{name},{name},{value}").as_bytes());
    format!("{}.{payload}.{}", parts[0], parts[2])
}
