//! The device API's upkeep: what the phone says of itself, its push target, its siblings.

use super::check::{Case, case, refuse};
use super::proven;
use super::shapes::{BAD_PLATFORMS, BAD_TEXTS, NOT_JSON, bad_json, bad_push_targets};
use super::wire::Request;
use crate::support::{Backend, TestApp, on_both};
use assent::phone::Phone;
use assent::service::devices::Actor;
use serde_json::{Value, json};

const DEVICE: &str = "/device/v1/device";
const PUSH_TARGET: &str = "/device/v1/push-target";

on_both!(
    descriptions,
    push_targets,
    other_devices,
    bodies_nobody_asked_for
);

async fn scene(backend: Backend) -> (TestApp, Phone) {
    let app = TestApp::new(backend).await;
    let alice = app.user("alice").await;
    let phone = app.phone(&alice).await;
    (app, phone)
}

/// With a content type also when there is no body.
fn send(phone: &Phone, method: &str, target: &str, body: impl AsRef<[u8]>) -> Request {
    let request = proven(phone, method, target, body.as_ref()).without("content-type");
    request.with("content-type", "application/json")
}

/// What is wrong with the body as such.
fn shapes(phone: &Phone, method: &str, target: &str, good: &Value, members: &[&str]) -> Vec<Case> {
    let mut cases: Vec<_> = bad_json(good, members)
        .into_iter()
        .map(|(name, body)| case(name, send(phone, method, target, body), 400, "invalid_json"))
        .collect();
    for types in NOT_JSON {
        let bare = send(phone, method, target, good.to_string()).without("content-type");
        let request = types
            .iter()
            .fold(bare, |r, value| r.with("content-type", value));
        cases.push(case(
            format!("type {types:?}"),
            request,
            415,
            "unsupported_media_type",
        ));
    }
    let large = good.to_string() + &" ".repeat(256 * 1024);
    let request = send(phone, method, target, large);
    cases.push(case("too large", request, 413, "payload_too_large"));
    cases
}

async fn descriptions(backend: Backend) {
    let (app, phone) = scene(backend).await;
    let good = json!({ "label": "mine", "app_version": "2.0", "os_version": "18" });
    let members = ["label", "app_version", "os_version"];
    let mut cases = shapes(&phone, "PATCH", DEVICE, &good, &members);
    let long = "x".repeat(65);
    for name in members {
        for text in BAD_TEXTS.iter().copied().chain([&*long]) {
            // The other members are good: all or nothing.
            let mut body = good.clone();
            body[name] = text.into();
            let request = send(&phone, "PATCH", DEVICE, body.to_string());
            cases.push(case(
                format!("{name} {text:.40?}"),
                request,
                400,
                "invalid_request",
            ));
        }
    }
    for name in [
        "platform",
        "push_target",
        "state",
        "device_id",
        "user_id",
        "created_at",
        "current",
    ] {
        let mut body = good.clone();
        body[name] = "x".into();
        let request = send(&phone, "PATCH", DEVICE, body.to_string());
        cases.push(case(format!("{name} too"), request, 400, "invalid_json"));
    }
    refuse(&app, cases).await;
    // Nothing to change is no mistake; null is as good as absent.
    for body in ["{}", r#"{"label":null}"#, " {} "] {
        let answer = send(&phone, "PATCH", DEVICE, body)
            .send(app.address())
            .await;
        assert_eq!(
            (answer.status, &answer.json()["label"]),
            (200, &json!("test phone")),
            "{body}"
        );
    }
}

async fn push_targets(backend: Backend) {
    let (app, phone) = scene(backend).await;
    let good = json!({ "platform": "fcm", "push_target": "token" });
    let mut cases = shapes(
        &phone,
        "PUT",
        PUSH_TARGET,
        &good,
        &["platform", "push_target"],
    );
    let put = |body: String| send(&phone, "PUT", PUSH_TARGET, body);
    for platform in BAD_PLATFORMS {
        let body = format!(r#"{{"platform":{platform},"push_target":null}}"#);
        cases.push(case(
            format!("platform {platform}"),
            put(body),
            400,
            "invalid_json",
        ));
    }
    for body in [
        "{}",
        r#"{"push_target":null}"#,
        r#"{"push_target":"token"}"#,
    ] {
        cases.push(case(body, put(body.into()), 400, "invalid_json"));
    }
    for (platform, target) in bad_push_targets() {
        let body = json!({ "platform": platform, "push_target": target }).to_string();
        cases.push(case(
            format!("{platform} {target:.40?}"),
            put(body),
            400,
            "invalid_request",
        ));
    }
    refuse(&app, cases).await;
    for body in [good.to_string(), r#"{"platform":"none"}"#.into()] {
        assert_eq!(put(body).send(app.address()).await.status, 204);
    }
}

async fn other_devices(backend: Backend) {
    let (app, phone) = scene(backend).await;
    let bob = app.user("bob").await;
    let (bobs, gone) = (app.phone(&bob).await, app.phone(&bob).await);
    let directory = &app.services().directory;
    let device = directory.device(&gone.id()).await.unwrap().unwrap();
    app.services()
        .revoke_device(&device, Actor::Operator)
        .await
        .unwrap();
    let id = bobs.id().to_string();
    #[rustfmt::skip]
    let targets = [
        id.clone(), gone.id().to_string(), "A".repeat(43), "A".repeat(42), "A".repeat(44), "A".repeat(5000),
        id.to_uppercase(), format!("{id}="), format!("{id}%3D"), format!("{id}%00"), "*".into(), "%25".into(), "_".into(),
        "%27+OR+%271%27=%271".into(), "me".into(), "current".into(), "did:jwk:x".into(), bob.id.to_string(),
        format!("%20{}", phone.id()), format!("{}%0a", phone.id()), phone.id().as_str().to_lowercase(),
    ];
    let cases = targets.iter().map(|target| {
        let target = format!("/device/v1/devices/{target}");
        let request = proven(&phone, "DELETE", &target, b"");
        case(format!("{target:.80}"), request, 404, "device_not_found")
    });
    refuse(&app, cases.collect()).await;
    // She cannot tell Bob's phones from none at all.
    let delete = async |id: &str| {
        let request = proven(&phone, "DELETE", &format!("/device/v1/devices/{id}"), b"");
        request.send(app.address()).await.body
    };
    assert_eq!(delete(&id).await, delete(&"A".repeat(43)).await);
}

/// Where no body is expected none is looked at, but the proof speaks of it, and so does the limit.
async fn bodies_nobody_asked_for(backend: Backend) {
    let (app, phone) = scene(backend).await;
    let inbox = "/device/v1/requests";
    let get = |body: &[u8]| proven(&phone, "GET", inbox, body);
    let large = get(&b" ".repeat(256 * 1024 + 1));
    let added = get(b"").body("{}");
    let zipped = get(b"{}")
        .body(b"\x1f\x8b\x08\0")
        .with("content-encoding", "gzip");
    refuse(
        &app,
        vec![
            case("too large", large, 413, "payload_too_large"),
            case("added", added, 401, "invalid_proof"),
            case("packed", zipped, 401, "invalid_proof"),
        ],
    )
    .await;
    let odd = get(b"\0\xff{")
        .without("content-type")
        .send(app.address())
        .await;
    assert_eq!(odd.status, 200, "{}", odd.body);
}
