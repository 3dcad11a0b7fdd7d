//! The documents of a request that goes well.

use super::{Names, assert_golden};
use crate::bad_input::forge::Pen;
use crate::bad_input::wire::Request;
use crate::bad_input::{proven, with_proof};
use crate::stream::line::Line;
use crate::support::{Backend, CIBA_GRANT, TestApp, request_id};
use assent::domain::{Decision, DenyReason};
use assent::phone::EnrolmentLink;
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn metadata_and_keys() {
    let app = TestApp::new(Backend::sqlite()).await;
    let names = Names::of(&app);
    let get = async |path: &str| names.exchange(&app, Request::new("GET", path)).await;
    let metadata = get("/.well-known/openid-configuration").await;
    assert_golden("openid-configuration", &metadata);
    assert_eq!(
        get("/.well-known/oauth-authorization-server").await,
        metadata
    );
    assert_golden("jwks", &get("/jwks").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledgement_tokens_and_userinfo() {
    let app = TestApp::new(Backend::sqlite()).await;
    let (bank, alice, phone) = app.cast().await;
    let names = Names::of(&app).with(alice.id, "<sub>");
    let ask = "scope=openid+profile&login_hint=alice&binding_message=W4SCT";
    let answer = bank.form("/bc-authorize", ask).send(app.address()).await;
    assert_golden("acknowledgement", &names.answer(&answer));
    let id = answer.json()["auth_req_id"].as_str().unwrap().to_owned();
    app.advance(3);
    crate::support::approve(&phone, &id).await;
    app.advance(4);
    let poll = format!("grant_type={CIBA_GRANT}&auth_req_id={id}");
    let answer = bank.form("/token", poll).send(app.address()).await;
    assert_golden("token-response", &names.answer(&answer));
    let bearer = format!("Bearer {}", answer.json()["access_token"].as_str().unwrap());
    let userinfo = Request::new("GET", "/userinfo").with("authorization", bearer);
    assert_golden("userinfo", &names.exchange(&app, userinfo).await);
}

/// All that a phone sends and is told, in the order of its life.
#[tokio::test(flavor = "multi_thread")]
async fn the_life_of_a_phone() {
    let app = TestApp::new(Backend::sqlite()).await;
    let bank = app.client("bank").await;
    let alice = app.user("alice").await;
    let ticket = app.services().create_enrolment(&alice).await.unwrap();
    let link = EnrolmentLink::parse(ticket.link.expose()).unwrap();
    let pen = Pen::p256();
    let names = Names::of(&app)
        .with(&pen.kid, "<device_id>")
        .with(&link.code, "<code>");

    let target_hash = assent::crypto::sha256_base64url(b"a token of the gateway");
    let proof = json!({
        "aud": app.url, "iat": app.now().secs(), "jti": "any text", "jkt": pen.kid,
        "code_hash": assent::crypto::sha256_base64url(link.code.as_bytes()),
        "push_target_hash": target_hash,
    });
    let enrolment = json!({
        "code": link.code, "jwk": pen.jwk(), "platform": "fcm", "push_target": "a token of the gateway",
        "app_id": "org.example.approver",
        "label": "Alice's phone", "app_version": "1.0", "os_version": "17",
        "proof": pen.sign("enrolment-proof+jwt", &proof),
    });
    let request =
        Request::new("POST", "/device/v1/enrolments").with("content-type", "application/json");
    let answer = names
        .exchange(&app, request.body(enrolment.to_string()))
        .await;
    let conversation = json!({ "sent": names.apply(&enrolment), "answer": answer });
    assert_golden("enrolment", &conversation);

    // From here on a phone that speaks for itself, the second of hers.
    app.advance(1);
    let phone = app.phone(&alice).await;
    let names = names.with(phone.id(), "<this_device_id>");
    let label = json!({ "label": "My old phone", "app_version": "1.1", "os_version": "18" });
    let id = bank.start("alice").await;
    let names = names.with(request_id(&id), "<request_id>");
    let get = async |path: &str| names.exchange(&app, proven(&phone, "GET", path, b"")).await;
    let change = async |method: &str, path: &str, body: Value| {
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let request = proven(&phone, method, path, body.as_bytes());
        names.exchange(&app, request).await
    };
    let described = change("PATCH", "/device/v1/device", label).await;
    let inbox = "/device/v1/requests";
    let claims = phone.proof_claims("GET", inbox, b"");
    let proof = phone.sign("device-proof+jwt", &claims);
    assert_golden("device-proof", &names.apply(&json!(proof)));
    assert_golden("inbox", &get(inbox).await);
    let (mut line, ready) = Line::of(&app, &phone).await;
    let another = bank.start("alice").await;
    let arrives = line.next().await;
    app.cancel(&bank, &another).await.unwrap();
    let conversation = json!([ready, arrives, line.next().await]);
    let named = names.clone().with(request_id(&another), "<another_id>");
    assert_golden("stream", &named.apply(&conversation));
    let path = format!("{inbox}/{}", request_id(&id));
    assert_golden("challenge", &get(&path).await);

    let shown = crate::support::show(&phone, &id).await;
    let deny = json!(phone.approval(&shown, Decision::Deny, Some(DenyReason::Fraud)));
    let deny = phone.sign("ciba-approval+jwt", &deny);
    let approve = json!(phone.approval(&shown, Decision::Approve, None));
    let approve = phone.sign("ciba-approval+jwt", &approve);
    let sent = json!({ "challenge": shown.signed, "approval": approve });
    let path = format!("{path}/decision");
    let answer = proven(&phone, "POST", &path, sent.to_string().as_bytes());
    let answer = names.exchange(&app, answer).await;
    let mut conversation = names.apply(&json!({ "sent": sent, "denied_instead": deny }));
    conversation["answer"] = answer;
    conversation["sent"]["challenge"] = "as received".into();
    assert_golden("decision", &conversation);

    assert_golden("device", &get("/device/v1/device").await);
    assert_golden("devices", &get("/device/v1/devices").await);
    let other = format!("/device/v1/devices/{}", pen.kid);
    let target = json!({
        "platform": "apns", "push_target": "another token", "app_id": "org.example.approver.ios",
    });
    let upkeep = json!({
        "PATCH /device/v1/device": described,
        "PUT /device/v1/push-target": change("PUT", "/device/v1/push-target", target).await,
        "DELETE /device/v1/devices/<device_id>": change("DELETE", &other, Value::Null).await,
        "DELETE /device/v1/device": change("DELETE", "/device/v1/device", Value::Null).await,
    });
    assert_golden("upkeep", &upkeep);
}

/// A phone with a wrong clock is given a nonce, and comes back with it.
#[tokio::test(flavor = "multi_thread")]
async fn a_phone_with_a_wrong_clock() {
    let app = TestApp::new(Backend::sqlite()).await;
    let (_, _, phone) = app.cast().await;
    let names = Names::of(&app).with(phone.id(), "<device_id>");
    let inbox = "/device/v1/requests";
    let mut claims = phone.proof_claims("GET", inbox, b"");
    claims["iat"] = 0.into();
    let send = async |claims: &Value| {
        let proof = phone.sign("device-proof+jwt", claims);
        with_proof("GET", inbox, &proof).send(app.address()).await
    };
    let refused = send(&claims).await;
    claims["nonce"] = refused.header("device-nonce").unwrap().into();
    claims["jti"] = "another identifier".into();
    let taken = send(&claims).await;
    let conversation = json!({
        "refused": names.answer(&refused),
        "second_proof": names.apply(&claims),
        "answer": names.answer(&taken),
    });
    assert_golden("device-nonce", &conversation);
}
