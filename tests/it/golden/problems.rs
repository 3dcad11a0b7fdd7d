//! Every problem document of the device API. A title belongs to its code (RFC 9457 3.1.3); what is wrong
//! this time says `detail`.

use super::{Names, assert_golden};
use crate::bad_input::forge::Pen;
use crate::bad_input::wire::{Request, exchange, parse};
use crate::bad_input::{proven, with_proof};
use crate::stream::line::{self, Line};
use crate::support::pem;
use crate::support::process::pause;
use crate::support::{Backend, TestApp, registration, request_id, show as look};
use assent::crypto::generate::generate;
use assent::domain::client::Registration;
use assent::domain::{Decision, SignatureAlgorithm};
use assent::phone::{Phone, ShownRequest};
use assent::service::devices::Actor;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::pin::pin;
use tokio_tungstenite::tungstenite::Message;

/// The settings of a server that sends to one push service.
fn web_push(folder: &Path) -> PathBuf {
    let key = folder.join("vapid.pem");
    let pkcs8 = generate(SignatureAlgorithm::Es256).0;
    std::fs::write(&key, pem("PRIVATE KEY", &pkcs8)).unwrap();
    let settings = folder.join("assent.toml");
    let text = format!(
        "[push.web_push]\nvapid_key_file = {key:?}\nsubject = 'mailto:o@bank.example'\n\
         allowed_hosts = ['push.example.org']\n"
    );
    std::fs::write(&settings, text).unwrap();
    settings
}

#[tokio::test(flavor = "multi_thread")]
async fn every_problem() {
    let app = TestApp::with(Backend::sqlite(), vec![("devices.confirm", "true".into())]).await;
    let (bank, alice) = (app.client("bank").await, app.user("alice").await);
    let directory = &app.services().directory;
    let phone = app.phone(&alice).await;
    let pending = app.phone(&alice).await;
    let revoked = app.phone(&alice).await;
    let device = async |id| directory.device(&id).await.unwrap().unwrap();
    app.services()
        .confirm_device(&device(phone.id()).await)
        .await
        .unwrap();
    app.services()
        .revoke_device(&device(revoked.id()).await, Actor::Operator)
        .await
        .unwrap();
    let names = Names::of(&app);
    let folder = tempfile::tempdir().unwrap();
    let mut elsewhere = Vec::new();
    let mut problems = Map::new();
    let mut show = async |name: &str, request: Request| {
        let answer = names.exchange(&app, request).await;
        assert!(problems.insert(name.into(), answer).is_none(), "{name}");
    };
    let (inbox, me) = ("/device/v1/requests", "/device/v1/device");
    let get = |path: &str| proven(&phone, "GET", path, b"");
    let patch = |body: &str| proven(&phone, "PATCH", me, body.as_bytes());

    show("not_found", Request::new("GET", "/nowhere")).await;
    show("method_not_allowed", Request::new("PUT", me)).await;
    show("payload_too_large", patch(&" ".repeat(257 * 1024))).await;
    let text = patch("{}")
        .without("content-type")
        .with("content-type", "text/plain");
    show("unsupported_media_type", text).await;
    show("invalid_json", patch("{\n  \"label\": 7\n}")).await;
    show("invalid_json, array", patch("[]")).await;
    show("invalid_request, text", patch(r#"{"label":""}"#)).await;
    let target = br#"{"platform":"none","push_target":"x"}"#;
    show(
        "invalid_request, push target",
        proven(&phone, "PUT", "/device/v1/push-target", target),
    )
    .await;
    let browser =
        TestApp::with_file(Backend::sqlite(), Some(&web_push(folder.path())), vec![]).await;
    let (_, _, browsers) = browser.cast().await;
    for (name, target) in [
        ("invalid_push_target", "x".to_owned()),
        (
            "push_service_not_allowed",
            json!({ "endpoint": "https://elsewhere.example/", "keys": { "p256dh": "BA", "auth": "AA" } })
                .to_string(),
        ),
    ] {
        let body = json!({ "platform": "webpush", "push_target": target }).to_string();
        let request = proven(&browsers, "PUT", "/device/v1/push-target", body.as_bytes());
        let answer = Names::of(&browser).exchange(&browser, request).await;
        elsewhere.push((name, answer));
    }
    show("invalid_proof, none", Request::new("GET", inbox)).await;
    show("invalid_proof", with_proof("GET", inbox, "x")).await;
    let once = get(inbox);
    assert_eq!(once.send(app.address()).await.status, 200);
    show("proof_replayed", once).await;
    let mut late = phone.proof_claims("GET", inbox, b"");
    late["iat"] = 0.into();
    show(
        "clock_skew",
        with_proof("GET", inbox, &phone.sign("device-proof+jwt", &late)),
    )
    .await;
    show("device_revoked", proven(&revoked, "GET", inbox, b"")).await;
    show("device_unconfirmed", proven(&pending, "GET", inbox, b"")).await;
    show(
        "device_not_found",
        proven(&phone, "DELETE", "/device/v1/devices/x", b""),
    )
    .await;
    show("request_not_found", get("/device/v1/requests/x")).await;

    // A request, wrongly answered; then rightly, then late, then not allowed any more.
    let id = bank.start("alice").await;
    let seen = look(&phone, &id).await;
    let decide = |id: &str, challenge: &str, approval: &str| {
        let body = json!({ "challenge": challenge, "approval": approval }).to_string();
        proven(
            &phone,
            "POST",
            &format!("{inbox}/{}/decision", request_id(id)),
            body.as_bytes(),
        )
    };
    let sign = |change: &dyn Fn(&mut Value)| {
        let mut approval = json!(phone.approval(&seen, Decision::Approve, None));
        change(&mut approval);
        phone.sign("ciba-approval+jwt", &approval)
    };
    let right = sign(&|_| {});
    show("invalid_challenge", decide(&id, "x", &right)).await;
    let wrong = |approval: &str| decide(&id, &seen.signed, approval);
    show("invalid_approval, no statement", wrong("x")).await;
    show(
        "invalid_approval, typ",
        wrong(&phone.sign("JWT", &json!({}))),
    )
    .await;
    show(
        "invalid_approval, key",
        wrong(&pending.sign("ciba-approval+jwt", &json!({}))),
    )
    .await;
    show(
        "invalid_approval, claims",
        wrong(&phone.sign("ciba-approval+jwt", &json!({}))),
    )
    .await;
    show(
        "invalid_approval, iss",
        wrong(&sign(&|a| a["iss"] = "x".into())),
    )
    .await;
    show(
        "invalid_approval, aud",
        wrong(&sign(&|a| a["aud"] = "x".into())),
    )
    .await;
    show(
        "invalid_approval, challenge_hash",
        wrong(&sign(&|a| a["challenge_hash"] = "x".into())),
    )
    .await;
    show(
        "invalid_approval, iat",
        wrong(&sign(&|a| a["iat"] = 0.into())),
    )
    .await;
    show(
        "invalid_approval, jti",
        wrong(&sign(&|a| a["jti"] = "".into())),
    )
    .await;
    show(
        "invalid_approval, reason",
        wrong(&sign(&|a| a["reason"] = "fraud".into())),
    )
    .await;
    show(
        "invalid_approval, code",
        wrong(&sign(&|a| a["code"] = "1".into())),
    )
    .await;
    phone.answer(&seen, Decision::Deny, None).await.unwrap();
    show("already_decided", wrong(&right)).await;

    // A request that asks for a code, five times wrongly.
    let with_code = Registration {
        matching_code: Some(6),
        open_requests_per_user: 6,
        ..registration()
    };
    let shop = app.client_with("shop", with_code).await;
    let answer_with = |seen: &ShownRequest, code: Option<&str>| {
        let mut approval = json!(phone.approval(seen, Decision::Approve, None));
        approval["code"] = code.into();
        let approval = phone.sign("ciba-approval+jwt", &approval);
        let id = seen.challenge.jti;
        let body = json!({ "challenge": seen.signed, "approval": approval }).to_string();
        proven(
            &phone,
            "POST",
            &format!("{inbox}/{id}/decision"),
            body.as_bytes(),
        )
    };
    for n in 0..6 {
        let asked = shop
            .ask(&[("scope", "openid"), ("login_hint", "alice")])
            .await;
        let asked = asked.json();
        let seen = look(&phone, asked["auth_req_id"].as_str().unwrap()).await;
        let code = asked["matching_code"].as_str().unwrap();
        if n == 0 {
            show("invalid_approval, no code", answer_with(&seen, None)).await;
        }
        let wrong = if code == "000000" { "000001" } else { "000000" };
        match n {
            0 => show("wrong_code", answer_with(&seen, Some(wrong))).await,
            5 => show("code_entry_blocked", answer_with(&seen, Some(code))).await,
            _ => drop(phone.approve_with_code(&seen, wrong).await.unwrap()),
        }
    }
    let late = bank.start("alice").await;
    app.advance(120);
    show(
        "request_expired",
        get(&format!("{inbox}/{}", request_id(&late))),
    )
    .await;
    let locked = bank.start("alice").await;
    let seen = look(&phone, &locked).await;
    app.services().lock_client(&bank.client.id).await.unwrap();
    let approval = json!(phone.approval(&seen, Decision::Approve, None));
    let approval = phone.sign("ciba-approval+jwt", &approval);
    show(
        "decision_not_allowed",
        decide(&locked, &seen.signed, &approval),
    )
    .await;

    let ticket = app.services().create_enrolment(&alice).await.unwrap();
    let code = ticket.typed_code.expose();
    let enrol = |pen: &Pen, code: &str, jwk: Value, proof: &str| {
        let hash = assent::crypto::sha256_base64url(code.replace('-', "").as_bytes());
        let claims = json!({
            "aud": app.url, "iat": app.now().secs(), "jti": "x", "code_hash": hash, "jkt": pen.kid,
        });
        let right = pen.sign("enrolment-proof+jwt", &claims);
        let proof = if proof.is_empty() { &right } else { proof };
        let body = json!({
            "code": code, "jwk": jwk, "platform": "none", "label": "x", "app_version": "1", "os_version": "1",
            "proof": proof,
        });
        let request = Request::new("POST", "/device/v1/enrolments").body(body.to_string());
        request.with("content-type", "application/json")
    };
    let new = Pen::p256();
    show("invalid_enrolment_code", enrol(&new, "x", new.jwk(), "")).await;
    show("invalid_key, type", enrol(&new, code, json!({}), "")).await;
    show(
        "invalid_key, coordinate",
        enrol(&new, code, json!({ "kty": "OKP", "crv": "Ed25519" }), ""),
    )
    .await;
    let mut private = new.jwk();
    private["d"] = "x".into();
    show("invalid_key, private", enrol(&new, code, private, "")).await;
    show(
        "invalid_enrolment_proof, no statement",
        enrol(&new, code, new.jwk(), "x"),
    )
    .await;
    let stray = new.sign(
        "enrolment-proof+jwt",
        &json!({
            "aud": app.url, "iat": 0, "jti": "x", "code_hash": "x", "jkt": "x",
        }),
    );
    show(
        "invalid_enrolment_proof, claims",
        enrol(&new, code, new.jwk(), &stray),
    )
    .await;
    let old = Pen::of(&phone);
    show("device_known", enrol(&old, code, old.jwk(), "")).await;

    show("upgrade_required", Request::new("GET", line::PATH)).await;
    let over_a_stream = over_a_stream(&app, &phone, &names).await;

    app.backend
        .execute("UPDATE devices SET public_jwk = 'x'")
        .await;
    show("internal_error", get(inbox)).await;
    app.backend
        .execute("ALTER TABLE devices RENAME TO away")
        .await;
    show("temporarily_unavailable", get(inbox)).await;
    // Last, since it takes its time: a body of which the end does not come.
    let whole = patch("{}").to_bytes();
    let mut answering = pin!(exchange(app.address(), &whole[..whole.len() - 1]));
    let said = loop {
        tokio::select! {
            said = &mut answering => break said,
            () = pause(20) => app.advance(11),
        }
    };
    let late = names.answer(&parse(&said).unwrap());
    problems.insert("request_timeout".into(), late);
    for (name, answer) in elsewhere {
        problems.insert(name.into(), answer);
    }
    problems.extend(over_a_stream);

    let mut titles = BTreeMap::new();
    for answer in problems.values() {
        let (code, title) = (&answer["body"]["code"], &answer["body"]["title"]);
        let first = titles.entry(code.to_string()).or_insert(title);
        assert_eq!(*first, title, "of {code}");
    }
    assert_golden("problems", &Value::Object(problems));
}

/// Over a stream: the same documents, and then the end.
async fn over_a_stream(app: &TestApp, phone: &Phone, names: &Names) -> Vec<(String, Value)> {
    let mut shown = Vec::new();
    let mut show = async |name: &str, line: Line, code: u16| {
        let problem = line.ends_with(name, code).await;
        let document = json!({ "body": names.apply(&problem), "closed": code });
        shown.push((format!("{name}, stream"), document));
    };
    let mut line = Line::open(app).await;
    line.send(Message::binary("x")).await;
    show("message_not_text", line, 1008).await;
    let mut line = Line::open(app).await;
    line.send(Message::text("x".repeat(16 * 1024 + 1))).await;
    show("message_too_large", line, 1009).await;
    let mut line = Line::open(app).await;
    for _ in 0..101 {
        line.send(Message::Ping("x".into())).await;
    }
    show("too_many_messages", line, 1008).await;
    let mut line = Line::open(app).await;
    let mut late = phone.proof_claims("GET", line::PATH, b"");
    late["iat"] = 0.into();
    let proof = phone.sign("device-proof+jwt", &late);
    line.say(json!({ "proof": proof })).await;
    show("clock_skew", line, 1008).await;
    let (first, _) = Line::of(app, phone).await;
    let (_second, _) = Line::of(app, phone).await;
    let (_third, _) = Line::of(app, phone).await;
    show("stream_replaced", first, 1008).await;
    let line = Line::open(app).await;
    while app.services().open_streams() != 3 {
        pause(5).await;
    }
    app.advance(5);
    show("phone_silent", line, 1008).await;
    shown
}
