//! Where phones are reached: what they may register, and how they learn that it is gone.

use crate::bad_input::forge::Pen;
use crate::bad_input::wire::Request;
use crate::support::pem;
use crate::support::{Backend, TestApp, assert_problem, on_both};
use assent::crypto::generate::generate;
use assent::crypto::sha256_base64url;
use assent::domain::SignatureAlgorithm;
use assent::phone::Phone;
use assent::phone::http::Answer;
use serde_json::{Value, json};

on_both!(a_phone_says_which_app_is_woken);

async fn put(phone: &Phone, body: Value) -> Answer {
    let path = "/device/v1/push-target";
    phone.call("PUT", path, Some(&body)).await.unwrap()
}

async fn a_phone_says_which_app_is_woken(backend: Backend) {
    let app = TestApp::new(backend).await;
    let (_, _, phone) = app.cast().await;
    let directory = &app.services().directory;
    for (body, app_id) in [
        (json!({ "app_id": "a" }), Some("a")),
        (json!({}), Some("a")),
        (json!({ "app_id": "b" }), Some("b")),
        (json!({ "app_id": null }), None),
        (json!({}), None),
    ] {
        let mut whole = body.clone();
        whole["platform"] = "fcm".into();
        whole["push_target"] = "target".into();
        assert_eq!(put(&phone, whole).await.status, 204);
        let device = directory.device(&phone.id()).await.unwrap().unwrap();
        let found = device.app_id.as_ref().map(|id| id.as_str());
        assert_eq!(found, app_id, "{body}");
    }
    for app_id in ["", "a b", &"a".repeat(256)] {
        let body = json!({ "platform": "fcm", "push_target": "x", "app_id": app_id });
        assert_problem(&put(&phone, body).await, 400, "invalid_request");
    }
}

/// A server that wakes iPhones and the browsers of one push service.
async fn server(folder: &std::path::Path) -> TestApp {
    let key = pem("PRIVATE KEY", &generate(SignatureAlgorithm::Es256).0);
    let file = folder.join("ec.pem");
    std::fs::write(&file, key).unwrap();
    let settings = folder.join("assent.toml");
    let text = format!(
        "[[push.apns]]\nteam_id = 'T'\nkey_id = 'K'\nkey_file = {file:?}\ntopic = 'org.example.a'\n\
         [push.web_push]\nvapid_key_file = {file:?}\nsubject = 'mailto:o@bank.example'\n\
         allowed_hosts = ['push.example.org']\n"
    );
    std::fs::write(&settings, text).unwrap();
    TestApp::with_file(Backend::sqlite(), Some(&settings), vec![]).await
}

fn subscription(endpoint: &str) -> String {
    json!({ "endpoint": endpoint, "keys": { "p256dh": "BA", "auth": "AA" } }).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nothing_could_be_sent_to_is_refused_when_it_is_registered() {
    let folder = tempfile::tempdir().unwrap();
    let app = server(folder.path()).await;
    let (_, alice, phone) = app.cast().await;
    let good = subscription("https://push.example.org/capability");
    let elsewhere = subscription("https://elsewhere.example/capability");
    let other_port = subscription("https://push.example.org:8443/capability");
    let not_allowed = "push_service_not_allowed";
    let taken = json!({ "platform": "webpush", "push_target": good });
    assert_eq!(put(&phone, taken).await.status, 204);
    for (platform, target, code) in [
        ("webpush", elsewhere.as_str(), not_allowed),
        ("webpush", other_port.as_str(), not_allowed),
        (
            "webpush",
            &subscription("http://push.example.org/"),
            not_allowed,
        ),
        (
            "webpush",
            &subscription("https://push.example.org@x.example/"),
            not_allowed,
        ),
        ("webpush", &subscription("no url"), not_allowed),
        ("webpush", "token", "invalid_push_target"),
        (
            "webpush",
            r#"{"endpoint":"https://push.example.org/"}"#,
            "invalid_push_target",
        ),
        ("apns", "../00ff", "invalid_push_target"),
    ] {
        let body = json!({ "platform": platform, "push_target": target });
        assert_problem(&put(&phone, body).await, 422, code);
    }
    let directory = &app.services().directory;
    let device = directory.device(&phone.id()).await.unwrap().unwrap();
    let target = device.push_target.unwrap();
    assert_eq!(target.expose(), good, "the old one is kept");
    // No gateway is set up for it, so that nobody knows better.
    let body = json!({ "platform": "fcm", "push_target": "any token" });
    assert_eq!(put(&phone, body).await.status, 204);
    let body = json!({ "platform": "apns", "push_target": "00fC" });
    assert_eq!(put(&phone, body).await.status, 204);

    // The same at enrolment, which does not use the code up.
    let ticket = app.services().create_enrolment(&alice).await.unwrap();
    let code = ticket.typed_code.expose();
    let pen = Pen::p256();
    let enrol = async |target: &str| {
        let proof = json!({
            "aud": app.url, "iat": app.now().secs(), "jti": "x", "jkt": pen.kid,
            "code_hash": sha256_base64url(code.replace('-', "").as_bytes()),
            "push_target_hash": sha256_base64url(target.as_bytes()),
        });
        let body = json!({
            "code": code, "jwk": pen.jwk(), "platform": "webpush", "push_target": target, "label": "x",
            "app_version": "1", "os_version": "1", "proof": pen.sign("enrolment-proof+jwt", &proof),
        });
        let request = Request::new("POST", "/device/v1/enrolments").body(body.to_string());
        let request = request.with("content-type", "application/json");
        request.send(app.address()).await
    };
    assert_problem(&enrol(&elsewhere).await, 422, not_allowed);
    assert_problem(&enrol("token").await, 422, "invalid_push_target");
    assert_eq!(enrol(&good).await.status, 201);
}
