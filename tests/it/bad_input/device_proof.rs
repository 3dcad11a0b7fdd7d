//! `Authorization: DeviceProof`, at an endpoint of the device API: the others take it the same way.

use super::check::{Case, case, refuse};
use super::forge::{Pen, altered, forgeries, nameless, under_other_kids};
use super::wire::Request;
use super::{proven, with_proof};
use crate::support::{Backend, TestApp, assert_problem, on_both};
use assent::domain::Timestamp;
use assent::phone::Phone;
use assent::service::devices::Actor;
use serde_json::{Value, json};
use std::time::Duration;

const INBOX: &str = "/device/v1/requests";
const TYP: &str = "device-proof+jwt";

on_both!(
    headers,
    forged_proofs,
    claims,
    the_wrong_time,
    a_proof_is_used_once,
    devices_that_may_not,
);

async fn scene(backend: Backend) -> (TestApp, Phone, Phone) {
    let app = TestApp::new(backend).await;
    let alice = app.user("alice").await;
    let bob = app.user("bob").await;
    let phones = (app.phone(&alice).await, app.phone(&bob).await);
    (app, phones.0, phones.1)
}

fn refused(name: impl Into<String>, request: Request) -> Case {
    case(name, request, 401, "invalid_proof")
}

async fn headers(backend: Backend) {
    let (app, phone, other) = scene(backend).await;
    let proof = |phone: &Phone| phone.sign(TYP, &phone.proof_claims("GET", INBOX, b""));
    let with = |before: &str, after: &str| format!("{before}{}{after}", proof(&phone));
    #[rustfmt::skip]
    let headers: &[(&str, &[String])] = &[
        ("none", &[]),
        ("empty", &[String::new()]),
        ("scheme only", &["DeviceProof".into()]),
        ("scheme and a space", &["DeviceProof ".into()]),
        ("no scheme", &[with("", "")]),
        ("Bearer", &[with("Bearer ", "")]),
        ("DPoP", &[with("DPoP ", "")]),
        ("Basic", &[with("Basic ", "")]),
        ("two spaces", &[with("DeviceProof  ", "")]),
        ("a tab", &[with("DeviceProof\t", "")]),
        ("a comma behind", &[with("DeviceProof ", ",")]),
        ("a parameter behind", &[with("DeviceProof ", ";x=1")]),
        ("quotes", &[with("DeviceProof \"", "\"")]),
        ("as a parameter", &[with("DeviceProof token=", "")]),
        ("two in one line", &[with("DeviceProof ", &with(", DeviceProof ", ""))]),
        ("not ASCII", &["DeviceProof \u{e9}".into()]),
        ("16 KiB", &[format!("DeviceProof {}", "a".repeat(16 * 1024))]),
        ("two", &[with("DeviceProof ", ""), with("DeviceProof ", "")]),
        ("a good and an empty one", &[with("DeviceProof ", ""), String::new()]),
        ("two devices'", &[with("DeviceProof ", ""), format!("DeviceProof {}", proof(&other))]),
    ];
    let cases = headers.iter().map(|(name, values)| {
        let bare = Request::new("GET", INBOX);
        let request = values.iter().fold(bare, |r, v| r.with("authorization", v));
        refused(*name, request)
    });
    let in_dpop = Request::new("GET", INBOX).with("dpop", proof(&phone));
    let in_url = Request::new("GET", &format!("{INBOX}?proof={}", proof(&phone)));
    let elsewhere = [refused("in DPoP", in_dpop), refused("in the URL", in_url)];
    refuse(&app, cases.chain(elsewhere).collect()).await;
    let small = Request::new("GET", INBOX).with("authorization", with("dEvIcEpRoOf ", ""));
    assert_eq!(small.send(app.address()).await.status, 200);
}

async fn forged_proofs(backend: Backend) {
    let (app, phone, other) = scene(backend).await;
    let pen = Pen::of(&phone);
    let claims = phone.proof_claims("GET", INBOX, b"");
    assert_eq!(
        with_proof("GET", INBOX, &pen.sign(TYP, &claims))
            .send(app.address())
            .await
            .status,
        200
    );
    let stranger = Pen::p256();
    let others = [other.id().to_string(), stranger.kid.clone()];
    let others: Vec<&str> = others.iter().map(String::as_str).collect();
    let order = ["iss", "aud", "htm", "htu", "bh", "iat", "jti", "nonce"];
    let mut forged = forgeries(&pen, TYP, &claims);
    forged.push(nameless(&pen, TYP, &claims, &order));
    forged.extend(under_other_kids(&pen, TYP, &claims, &others));
    // Whoever makes a key of their own is not enrolled, whatever they call themselves.
    let mut own = claims.clone();
    own["iss"] = stranger.kid.as_str().into();
    forged.push(("a stranger".into(), stranger.sign(TYP, &own)));
    forged.push(("a stranger as her".into(), stranger.sign(TYP, &claims)));
    // The other phone signs as itself, in her name.
    forged.push(("the other phone".into(), Pen::of(&other).sign(TYP, &claims)));
    let cases = forged
        .iter()
        .map(|(name, jwt)| refused(name, with_proof("GET", INBOX, jwt)));
    refuse(&app, cases.collect()).await;
}

async fn claims(backend: Backend) {
    let (app, phone, other) = scene(backend).await;
    let url = &app.url;
    let target = format!("{INBOX}?after=1");
    let upper = url.to_uppercase();
    let https = url.replace("http:", "https:");
    let localhost = url.replace("127.0.0.1", "localhost");
    let hash = assent::crypto::sha256_base64url(b"");
    #[rustfmt::skip]
    let wrong: Vec<(&str, Value)> = vec![
        ("iss", json!(other.id())),
        ("iss", json!(url)),
        ("iss", json!("")),
        ("aud", json!(format!("{url}/"))),
        ("aud", json!(upper)),
        ("aud", json!(https)),
        ("aud", json!(localhost)),
        ("aud", json!("https://evil.example")),
        ("aud", json!([url])),
        ("aud", json!("")),
        ("htm", json!("get")),
        ("htm", json!("POST")),
        ("htm", json!("HEAD")),
        ("htm", json!("*")),
        ("htm", json!("")),
        ("htu", json!(format!("{url}{INBOX}"))),
        ("htu", json!(target)),
        ("htu", json!(format!("{url}{target}&b=2"))),
        ("htu", json!(format!("{url}{target}#x"))),
        ("htu", json!(format!("{url}/{target}"))),
        ("htu", json!(format!("{url}{INBOX}/?after=1"))),
        ("htu", json!(format!("{url}/device/v1/device"))),
        ("htu", json!(format!("{url}/device/v1/%72equests?after=1"))),
        ("htu", json!(format!("{upper}{target}"))),
        ("htu", json!(format!("{https}{target}"))),
        ("htu", json!(format!("{localhost}{target}"))),
        ("htu", json!(format!("https://evil.example{target}"))),
        ("htu", json!("*")),
        ("htu", json!("")),
        ("bh", json!(assent::crypto::sha256_base64url(b"x"))),
        ("bh", json!(format!("{hash}="))),
        ("bh", json!(hash.to_uppercase())),
        ("bh", json!("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")),
        ("bh", json!("")),
        ("iat", json!(format!("{}", app.now().secs()))),
        ("iat", json!(app.now().secs() as f64)),
        ("iat", json!(u64::MAX)),
        ("jti", json!("")),
        ("jti", json!("j".repeat(15))),
        ("jti", json!("j".repeat(129))),
        ("jti", json!(7)),
        ("nonce", json!(7)),
        ("nonce", json!(["x"])),
        ("exp", json!(app.now().secs() + 60)),
        ("nbf", json!(app.now().secs())),
        ("ath", json!("x")),
        ("sub", json!(phone.id())),
    ];
    let good = || phone.proof_claims("GET", &target, b"");
    let cases = wrong.into_iter().map(|(name, value)| {
        let (shown, claims) = altered(&good(), name, value);
        refused(shown, with_proof("GET", &target, &phone.sign(TYP, &claims)))
    });
    let mut cases: Vec<_> = cases.collect();
    // A proof for one body does not carry another.
    let device = "/device/v1/device";
    let (mine, changed) = (br#"{"label":"mine"}"#, br#"{"label":"Mine"}"#);
    for (name, body) in [
        ("another body", &changed[..]),
        ("no body", b""),
        ("a longer body", b"{} "),
    ] {
        let request = proven(&phone, "PATCH", device, mine).body(body);
        cases.push(refused(name, request));
    }
    let mut moved = proven(&phone, "GET", INBOX, b"");
    moved.target = device.into();
    cases.push(refused("another path", moved.clone()));
    moved.method = "DELETE".into();
    cases.push(refused("another path and method", moved));
    refuse(&app, cases).await;
    let good = with_proof("GET", &target, &phone.sign(TYP, &good()));
    assert_eq!(good.send(app.address()).await.status, 200);
}

async fn the_wrong_time(backend: Backend) {
    let (app, phone, _) = scene(backend).await;
    let now = app.now().secs();
    let at = |iat: i64, nonce: Option<&str>| {
        let mut claims = phone.proof_claims("GET", INBOX, b"");
        claims["iat"] = iat.into();
        if let Some(nonce) = nonce {
            claims["nonce"] = nonce.into();
        }
        with_proof("GET", INBOX, &phone.sign(TYP, &claims))
    };
    let keys = &app.services().keys;
    let minute = Duration::from_secs(60);
    let nonce = |at: Timestamp| keys.device_nonce(at, minute);
    let old = nonce(app.now().minus(minute * 2));
    let early = nonce(app.now().plus(minute * 2));
    let fresh = nonce(app.now());
    let bent = fresh.to_uppercase();
    let long = "n".repeat(4000);
    let late = |name: &str, request| case(name, request, 401, "clock_skew");
    let mut cases: Vec<_> = [now - 61, now + 61, 0, -1, now * 1000, i64::MIN, i64::MAX]
        .into_iter()
        .map(|iat| late(&format!("iat {iat}"), at(iat, None)))
        .collect();
    for wrong in ["", "x", &old, &early, &bent, &long, &format!("{fresh} ")] {
        cases.push(late(&format!("nonce {wrong:.20}"), at(0, Some(wrong))));
    }
    refuse(&app, cases).await;
    let told = at(0, None).send(app.address()).await;
    assert_eq!(told.header("device-nonce"), Some(&*fresh));
    for (iat, nonce) in [
        (now - 60, None),
        (now + 60, None),
        (0, Some(fresh.as_str())),
        (now, Some("nonsense where none is needed")),
    ] {
        let answer = at(iat, nonce).send(app.address()).await;
        assert_eq!(answer.status, 200, "{iat} {nonce:?}: {}", answer.body);
    }
}

async fn a_proof_is_used_once(backend: Backend) {
    let (app, phone, other) = scene(backend).await;
    let request = proven(&phone, "GET", INBOX, b"");
    // From the furthest future there is: valid for two minutes, to the very last moment.
    let mut claims = phone.proof_claims("GET", INBOX, b"");
    claims["iat"] = (app.now().secs() + 60).into();
    let early = with_proof("GET", INBOX, &phone.sign(TYP, &claims));
    // With a nonce: valid for as long as the nonce is.
    let nonce = app
        .services()
        .keys
        .device_nonce(app.now(), Duration::from_secs(60));
    let mut claims = phone.proof_claims("GET", INBOX, b"");
    claims["iat"] = 0.into();
    claims["nonce"] = nonce.into();
    let by_nonce = with_proof("GET", INBOX, &phone.sign(TYP, &claims));
    for request in [&request, &early, &by_nonce] {
        assert_eq!(request.send(app.address()).await.status, 200);
    }
    let replayed =
        |name: &str, request: &Request| case(name, request.clone(), 401, "proof_replayed");
    let mut same_jti = phone.proof_claims("GET", "/device/v1/device", b"");
    same_jti["jti"] = claims["jti"].clone();
    let elsewhere = with_proof("GET", "/device/v1/device", &phone.sign(TYP, &same_jti));
    refuse(
        &app,
        vec![
            replayed("again", &request),
            replayed("early, again", &early),
            replayed("by nonce, again", &by_nonce),
            replayed("its jti elsewhere", &elsewhere),
        ],
    )
    .await;
    // Another device's identifiers are its own.
    let mut theirs = other.proof_claims("GET", INBOX, b"");
    theirs["jti"] = claims["jti"].clone();
    let theirs = with_proof("GET", INBOX, &other.sign(TYP, &theirs));
    assert_eq!(theirs.send(app.address()).await.status, 200);
    for (seconds, request) in [(60, &request), (59, &early), (0, &by_nonce), (1, &early)] {
        app.advance(seconds);
        app.services().sweep().await.unwrap();
        let answer = request.send(app.address()).await;
        assert_problem(&answer, 401, "proof_replayed");
    }
    app.clock.advance(Duration::from_millis(1));
    for request in [&request, &early, &by_nonce] {
        assert_problem(&request.send(app.address()).await, 401, "clock_skew");
    }
}

async fn devices_that_may_not(backend: Backend) {
    let app = TestApp::with(backend, vec![("devices.confirm", "true".into())]).await;
    let alice = app.user("alice").await;
    let (pending, revoked) = (app.phone(&alice).await, app.phone(&alice).await);
    let directory = &app.services().directory;
    let device = directory.device(&revoked.id()).await.unwrap().unwrap();
    app.services()
        .revoke_device(&device, Actor::Operator)
        .await
        .unwrap();
    let mut cases = vec![];
    for (phone, code) in [
        (&pending, "device_unconfirmed"),
        (&revoked, "device_revoked"),
    ] {
        for (method, path, body) in [
            ("GET", INBOX.to_owned(), ""),
            ("GET", format!("{INBOX}/{}", phone.id()), ""),
            ("POST", format!("{INBOX}/{}/decision", phone.id()), "{}"),
            ("GET", "/device/v1/device".into(), ""),
            ("PATCH", "/device/v1/device".into(), "{}"),
            ("DELETE", "/device/v1/device".into(), ""),
            ("PUT", "/device/v1/push-target".into(), "{}"),
            ("GET", "/device/v1/devices".into(), ""),
            ("DELETE", format!("/device/v1/devices/{}", pending.id()), ""),
        ] {
            let request = proven(phone, method, &path, body.as_bytes());
            cases.push(case(format!("{code} {method} {path}"), request, 403, code));
            // Who does not hold the key does not learn the state.
            let claims = phone.proof_claims(method, &path, body.as_bytes());
            let mut stranger = Pen::p256();
            stranger.kid = phone.id().to_string();
            let request = with_proof(method, &path, &stranger.sign(TYP, &claims)).body(body);
            cases.push(refused(format!("a stranger {method} {path}"), request));
        }
    }
    refuse(&app, cases).await;
}
