//! Each code that no other test is about, met once; docs/errors.md is the table of all of them.

use crate::support::{
    Backend, RelyingParty, TestApp, approve, assert_oauth_error, assert_problem, registration,
    request_id, show,
};
use assent::clock::ManualClock;
use assent::domain::approval::APPROVAL_TYP;
use assent::domain::client::{Grant, Registration};
use assent::domain::{Decision, Scope};
use assent::entropy::SystemEntropy;
use assent::phone::http::Answer;
use assent::phone::{EnrolmentLink, Phone};
use assent::service::devices::Actor;
use serde_json::{Value, json};
use std::sync::Arc;

const INBOX: &str = "/device/v1/requests";
const ENROLMENTS: &str = "/device/v1/enrolments";

async fn scene() -> (TestApp, RelyingParty, Phone) {
    let app = TestApp::new(Backend::sqlite()).await;
    let (bank, _, phone) = app.cast().await;
    (app, bank, phone)
}

/// A request to the device API with a proof made of these claims.
async fn call(app: &TestApp, phone: &Phone, method: &str, path: &str, claims: &Value) -> Answer {
    let proof = format!("DeviceProof {}", phone.sign("device-proof+jwt", claims));
    let headers = [("authorization", proof.as_str())];
    app.http
        .send(method, &format!("{}{path}", app.url), &headers, vec![])
        .await
        .unwrap()
}

/// A body with a good proof, whatever it holds.
async fn send(app: &TestApp, phone: &Phone, path: &str, content_type: &str, body: &str) -> Answer {
    let claims = phone.proof_claims("PUT", path, body.as_bytes());
    let proof = format!("DeviceProof {}", phone.sign("device-proof+jwt", &claims));
    let headers = [
        ("authorization", proof.as_str()),
        ("content-type", content_type),
    ];
    app.http
        .send("PUT", &format!("{}{path}", app.url), &headers, body.into())
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_token_endpoint_has_three_grants() {
    let (_, bank, _) = scene().await;
    for grant in ["authorization_code", "password", "x"] {
        let answer = bank.post("/token", &[("grant_type", grant)]).await;
        assert_oauth_error(&answer, 400, "unsupported_grant_type");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn methods_and_paths_that_are_not_there() {
    let (app, _, phone) = scene().await;
    for path in ["/bc-authorize", "/token", "/introspect", "/revoke"] {
        let answer = app.http.get(&format!("{}{path}", app.url), &[]).await;
        let answer = answer.unwrap();
        assert_oauth_error(&answer, 405, "invalid_request");
        assert_eq!(answer.header("allow"), Some("POST"));
    }
    let answer = phone.call("PUT", INBOX, None).await.unwrap();
    assert_problem(&answer, 405, "method_not_allowed");
    let answer = phone.call("GET", "/device/v2/requests", None).await;
    assert_problem(&answer.unwrap(), 404, "not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn userinfo_says_what_a_token_lacks() {
    let app = TestApp::new(Backend::sqlite()).await;
    let scope = Scope::parse("accounts").unwrap();
    let service = Registration {
        grants: [Grant::ClientCredentials].into_iter().collect(),
        ..Registration::new("Service", scope)
    };
    let service = app.client_with("service", service).await;
    let tokens = service
        .post("/token", &[("grant_type", "client_credentials")])
        .await;
    let tokens = tokens.json();
    let good = format!("Bearer {}", tokens["access_token"].as_str().unwrap());
    let url = format!("{}/userinfo", app.url);
    let get = async |headers: &[(&str, &str)]| app.http.get(&url, headers).await.unwrap();

    let missing = get(&[]).await;
    assert_oauth_error(&missing, 401, "invalid_token");
    // RFC 6750 3.1: who sent no token is told of no error in the challenge.
    assert_eq!(
        missing.header("www-authenticate"),
        Some(r#"Bearer realm="assent""#)
    );
    let wrong = get(&[("authorization", "Bearer x")]).await;
    assert_oauth_error(&wrong, 401, "invalid_token");
    let narrow = get(&[("authorization", &good)]).await;
    assert_oauth_error(&narrow, 403, "insufficient_scope");
    let challenge = narrow.header("www-authenticate").unwrap();
    assert!(challenge.contains(r#"error="insufficient_scope""#));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_has_to_prove_itself() {
    let (app, _, phone) = scene().await;
    let none = app.http.get(&format!("{}{INBOX}", app.url), &[]).await;
    let none = none.unwrap();
    assert_problem(&none, 401, "invalid_proof");
    assert_eq!(
        none.header("www-authenticate"),
        Some(r#"DeviceProof realm="assent""#)
    );
    let other_path = phone.proof_claims("GET", "/device/v1/devices", b"");
    let answer = call(&app, &phone, "GET", INBOX, &other_path).await;
    assert_problem(&answer, 401, "invalid_proof");

    let claims = phone.proof_claims("GET", INBOX, b"");
    let first = call(&app, &phone, "GET", INBOX, &claims).await;
    assert_eq!(first.status, 200);
    let again = call(&app, &phone, "GET", INBOX, &claims).await;
    assert_problem(&again, 401, "proof_replayed");

    let mut late = phone.proof_claims("GET", INBOX, b"");
    late["iat"] = (app.now().secs() - 600).into();
    let answer = call(&app, &phone, "GET", INBOX, &late).await;
    assert_problem(&answer, 401, "clock_skew");
    late["nonce"] = answer.header("device-nonce").unwrap().into();
    assert_eq!(call(&app, &phone, "GET", INBOX, &late).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_may_not() {
    let (app, _, phone) = scene().await;
    let directory = &app.services().directory;
    let device = directory.device(&phone.id()).await.unwrap().unwrap();
    let operator = Actor::Operator;
    assert!(
        app.services()
            .revoke_device(&device, operator)
            .await
            .unwrap()
    );
    let answer = phone.call("GET", INBOX, None).await.unwrap();
    assert_problem(&answer, 403, "device_revoked");

    let confirm = vec![("devices.confirm", "true".into())];
    let app = TestApp::with(Backend::sqlite(), confirm).await;
    let (_, _, phone) = app.cast().await;
    let answer = phone.call("GET", INBOX, None).await.unwrap();
    assert_problem(&answer, 403, "device_unconfirmed");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_device_than_ones_own_is_not_there() {
    let (app, _, phone) = scene().await;
    let bob = app.user("bob").await;
    let bobs = app.phone(&bob).await;
    for id in [bobs.id().to_string(), "x".into()] {
        let path = format!("/device/v1/devices/{id}");
        let answer = phone.call("DELETE", &path, None).await.unwrap();
        assert_problem(&answer, 404, "device_not_found");
    }
    assert!(bobs.inbox().await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_a_phone_may_not_send() {
    let (app, _, phone) = scene().await;
    let path = "/device/v1/push-target";
    let good = r#"{"platform":"none","push_target":null}"#;
    let json = "application/json";
    let answer = send(&app, &phone, path, "text/plain", good).await;
    assert_problem(&answer, 415, "unsupported_media_type");
    for bad in ["", "{", r#"{"platform":"none","x":1}"#] {
        let answer = send(&app, &phone, path, json, bad).await;
        assert_problem(&answer, 400, "invalid_json");
    }
    let unfit = r#"{"platform":"none","push_target":"somewhere"}"#;
    let answer = send(&app, &phone, path, json, unfit).await;
    assert_problem(&answer, 400, "invalid_request");
    let large = " ".repeat(256 * 1024 + 1);
    let answer = send(&app, &phone, path, json, &large).await;
    assert_problem(&answer, 413, "payload_too_large");
    assert_eq!(send(&app, &phone, path, json, good).await.status, 204);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_a_phone_cannot_decide() {
    let (app, bank, phone) = scene().await;
    let get = async |id: &str| {
        let path = format!("{INBOX}/{id}");
        phone.call("GET", &path, None).await.unwrap()
    };
    assert_problem(&get("x").await, 404, "request_not_found");

    let id = bank.start("alice").await;
    let shown = show(&phone, &id).await;
    let path = format!("{INBOX}/{}/decision", request_id(&id));
    let decide = async |challenge: &str, claims: &Value| {
        let approval = phone.sign(APPROVAL_TYP, claims);
        let body = json!({ "challenge": challenge, "approval": approval });
        phone.call("POST", &path, Some(&body)).await.unwrap()
    };
    let good = json!(phone.approval(&shown, Decision::Approve, None));
    let other = bank.start("alice").await;
    let others = show(&phone, &other).await.signed;
    assert_problem(&decide("x", &good).await, 422, "invalid_challenge");
    assert_problem(&decide(&others, &good).await, 422, "invalid_challenge");
    let mut unfit = good.clone();
    unfit["challenge_hash"] = "x".into();
    let answer = decide(&shown.signed, &unfit).await;
    assert_problem(&answer, 422, "invalid_approval");
    assert_eq!(decide(&shown.signed, &good).await.status, 200);
    let deny = json!(phone.approval(&shown, Decision::Deny, None));
    let answer = decide(&shown.signed, &deny).await;
    assert_problem(&answer, 409, "already_decided");

    // The other one's client is locked while the person looks at it.
    let shown = show(&phone, &other).await;
    let client = &bank.client.id;
    assert!(app.services().lock_client(client).await.unwrap());
    let answer = phone.try_answer(&shown, Decision::Approve, None).await;
    assert_problem(&answer.unwrap(), 403, "decision_not_allowed");
    app.advance(121);
    let answer = get(&request_id(&other).to_string()).await;
    assert_problem(&answer, 410, "request_expired");
}

#[tokio::test(flavor = "multi_thread")]
async fn phones_that_cannot_be_enrolled() {
    let (app, _, phone) = scene().await;
    let bob = app.user("bob").await;
    let ticket = app.services().create_enrolment(&bob).await.unwrap();
    let code = ticket.link.expose();
    let link = EnrolmentLink::parse(code).unwrap();
    let url = format!("{}{ENROLMENTS}", app.url);
    let enrol = async |body: &Value| app.http.json("POST", &url, &[], body).await.unwrap();

    let wrong = phone.enrolment(&"A".repeat(43), "x").unwrap();
    assert_problem(&enrol(&wrong).await, 403, "invalid_enrolment_code");
    let mut body = phone.enrolment(&link.code, "x").unwrap();
    let jwk = body["jwk"].clone();
    body["jwk"] = json!({ "kty": "oct", "k": "AAAA" });
    assert_problem(&enrol(&body).await, 422, "invalid_key");
    body["jwk"] = jwk;
    body["proof"] = wrong["proof"].clone();
    assert_problem(&enrol(&body).await, 422, "invalid_enrolment_proof");
    let known = phone.enrolment(&link.code, "x").unwrap();
    assert_problem(&enrol(&known).await, 409, "device_known");
    // None of it has used up the code.
    let clock = Arc::new(ManualClock::new(app.now()));
    let enrolled = Phone::enrol(&link, "new", clock, Arc::new(SystemEntropy)).await;
    assert!(enrolled.is_ok());
}

/// What a store cannot do is told without what it said.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_fails() {
    let (app, bank, phone) = scene().await;
    let id = bank.start("alice").await;
    approve(&phone, &id).await;
    app.backend.execute("DROP TABLE pending_requests").await;
    let answer = bank
        .ask(&[("scope", "openid"), ("login_hint", "alice")])
        .await;
    assert_oauth_error(&answer, 503, "temporarily_unavailable");
    assert_eq!(answer.header("retry-after"), Some("2"));
    let answer = phone.call("GET", INBOX, None).await.unwrap();
    assert_problem(&answer, 503, "temporarily_unavailable");
    assert_eq!(answer.header("retry-after"), Some("2"));
}

/// A row that makes no sense, in either API.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_holds_nonsense() {
    let (app, bank, phone) = scene().await;
    let spoil = async |sql: &str| assert_eq!(app.backend.execute(sql).await, 1);
    spoil("UPDATE devices SET public_jwk = 'x'").await;
    let answer = phone.call("GET", INBOX, None).await.unwrap();
    assert_problem(&answer, 500, "internal_error");
    spoil("UPDATE clients SET registration = 'x'").await;
    let answer = bank
        .ask(&[("scope", "openid"), ("login_hint", "alice")])
        .await;
    assert_oauth_error(&answer, 500, "server_error");
    assert!(!answer.body.contains("registration"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_withdraws_its_own_request_only() {
    let cancel = vec![("ciba.cancel_endpoint", "true".into())];
    let app = TestApp::with(Backend::sqlite(), cancel).await;
    let (bank, _, phone) = app.cast().await;
    let shop = app.client("shop").await;
    let cancel = async |client: &RelyingParty, id: &str| {
        client.post("/bc-cancel", &[("auth_req_id", id)]).await
    };
    let id = bank.start("alice").await;
    assert_oauth_error(&cancel(&shop, &id).await, 400, "invalid_grant");
    for _ in 0..2 {
        assert_eq!(cancel(&bank, &id).await.status, 204);
    }
    assert_oauth_error(&bank.poll(&id).await, 400, "access_denied");

    let id = bank.start("alice").await;
    approve(&phone, &id).await;
    assert_eq!(bank.poll(&id).await.status, 200);
    assert_oauth_error(&cancel(&bank, &id).await, 400, "invalid_request");
}

/// A client that has no such grant.
#[tokio::test(flavor = "multi_thread")]
async fn a_grant_that_was_not_registered() {
    let app = TestApp::new(Backend::sqlite()).await;
    let bank = app.client_with("bank", registration()).await;
    let refused = bank.refresh("assent_rt_x").await;
    assert_oauth_error(&refused, 400, "unauthorized_client");
}
