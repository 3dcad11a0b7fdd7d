//! A phone's stream: what it hears of its inbox, and when it hears no more.

mod ends;
pub mod line;
mod nonsense;

use crate::support::{
    Backend, Ground, TestApp, approve, deny, everywhere, on_every_redis, request_id,
};
use assent::domain::ClientId;
use assent::phone::stream::News;
use assent::service::devices::Actor;
use line::Line;
use serde_json::{Value, json};

everywhere!(
    a_phone_hears_what_waits_and_what_becomes_of_it,
    a_revoked_device_hears_no_more,
    locking_a_person_ends_what_waits,
    a_lost_wake_up_costs_time_alone,
);

on_every_redis!(a_phone_hears_at_one_node_what_happens_at_another);

fn entry(app: &TestApp, auth_req_id: &str) -> Value {
    let now = app.now().secs();
    json!({ "id": request_id(auth_req_id), "created_at": now, "expires_at": now + 120 })
}

fn waits(app: &TestApp, auth_req_id: &str) -> Value {
    let mut message = entry(app, auth_req_id);
    message["type"] = "request".into();
    message
}

fn resolved(auth_req_id: &str) -> Value {
    json!({ "type": "resolved", "id": request_id(auth_req_id) })
}

async fn a_phone_hears_what_waits_and_what_becomes_of_it(ground: Ground) {
    let app = TestApp::on(ground).await;
    let (bank, alice, phone) = app.cast().await;
    let other = app.phone(&alice).await;
    let bob = app.user("bob").await;
    let bobs = app.phone(&bob).await;
    let first = bank.start("alice").await;
    let (mut line, ready) = Line::of(&app, &phone).await;
    let requests = json!([entry(&app, &first)]);
    assert_eq!(ready, json!({ "type": "ready", "requests": requests }));
    let (mut bobs_line, ready) = Line::of(&app, &bobs).await;
    assert_eq!(ready, json!({ "type": "ready", "requests": [] }));

    let second = bank.start("alice").await;
    assert_eq!(line.next().await, waits(&app, &second));
    approve(&other, &first).await;
    assert_eq!(line.next().await, resolved(&first));
    // What the phone answers itself, too, so that it need not keep two books.
    deny(&phone, &second).await;
    assert_eq!(line.next().await, resolved(&second));
    let third = bank.start("alice").await;
    assert_eq!(line.next().await, waits(&app, &third));
    app.cancel(&bank, &third).await.unwrap();
    assert_eq!(line.next().await, resolved(&third));
    let fourth = bank.start("alice").await;
    assert_eq!(line.next().await, waits(&app, &fourth));
    app.advance(120);
    assert_eq!(line.next().await, resolved(&fourth));

    // Nothing of it was Bob's.
    let his = bank.start("bob").await;
    assert_eq!(bobs_line.next().await, waits(&app, &his));
}

async fn a_revoked_device_hears_no_more(ground: Ground) {
    let app = TestApp::on(ground).await;
    let (_, alice, phone) = app.cast().await;
    let other = app.phone(&alice).await;
    let (line, _) = Line::of(&app, &phone).await;
    let (others, _) = Line::of(&app, &other).await;
    // By the person, with another phone.
    let path = format!("/device/v1/devices/{}", phone.id());
    let answer = other.call("DELETE", &path, None).await.unwrap();
    assert_eq!(answer.status, 204, "{}", answer.body);
    line.ends_with("device_revoked", 1008).await;
    // By an operator.
    let device = app.services().directory.device(&other.id()).await;
    let device = device.unwrap().unwrap();
    app.services()
        .revoke_device(&device, Actor::Operator)
        .await
        .unwrap();
    others.ends_with("device_revoked", 1008).await;
    let mut line = Line::open(&app).await;
    line.prove(&phone, line::PATH).await;
    line.ends_with("device_revoked", 1008).await;
}

async fn locking_a_person_ends_what_waits(ground: Ground) {
    let app = TestApp::on(ground).await;
    let (bank, alice, phone) = app.cast().await;
    let id = bank.start("alice").await;
    let (mut line, _) = Line::of(&app, &phone).await;
    app.services().lock_user(&alice).await.unwrap();
    assert_eq!(line.next().await, resolved(&id));
}

/// Written behind everybody's back: the stream looks by itself.
async fn a_lost_wake_up_costs_time_alone(ground: Ground) {
    let app = TestApp::on(ground).await;
    let (bank, _, phone) = app.cast().await;
    let id = bank.start("alice").await;
    let (mut line, _) = Line::of(&app, &phone).await;
    // A client that is locked may not ask, and nobody is told of that.
    let bank_id = ClientId::new("bank");
    assert!(app.services().lock_client(&bank_id).await.unwrap());
    app.advance(9);
    // The wire is quiet: a ping that the phone sends is answered first.
    line.send(tokio_tungstenite::tungstenite::Message::Ping(
        "still there?".into(),
    ))
    .await;
    app.advance(1);
    assert_eq!(line.next().await, resolved(&id));
}

async fn a_phone_hears_at_one_node_what_happens_at_another((first, second): (TestApp, TestApp)) {
    let (bank, alice, phone) = first.cast().await;
    let other = first.phone(&alice).await;
    let (mut line, _) = Line::of(&second, &phone).await;
    for _ in 0..3 {
        let id = bank.start("alice").await;
        assert_eq!(line.next().await, waits(&first, &id));
        approve(&other, &id).await;
        assert_eq!(line.next().await, resolved(&id));
        let id = bank.start("alice").await;
        assert_eq!(line.next().await, waits(&first, &id));
        first.cancel(&bank, &id).await.unwrap();
        assert_eq!(line.next().await, resolved(&id));
    }
    let path = format!("/device/v1/devices/{}", phone.id());
    let answer = other.call("DELETE", &path, None).await.unwrap();
    assert_eq!(answer.status, 204, "{}", answer.body);
    line.ends_with("device_revoked", 1008).await;
}

/// The phone in the terminal speaks the same language.
#[tokio::test(flavor = "multi_thread")]
async fn the_phone_of_this_program_has_a_stream() {
    let app = TestApp::new(Backend::sqlite()).await;
    let (bank, _, phone) = app.cast().await;
    let first = bank.start("alice").await;
    let mut stream = phone.stream().await.unwrap();
    let News::Ready { requests } = stream.next().await.unwrap() else {
        panic!("a stream begins with all that waits");
    };
    assert_eq!(requests[0].id, request_id(&first));
    let second = bank.start("alice").await;
    let News::Request(waiting) = stream.next().await.unwrap() else {
        panic!("another waits");
    };
    assert_eq!(waiting.id, request_id(&second));
    deny(&phone, &first).await;
    let News::Resolved { id } = stream.next().await.unwrap() else {
        panic!("it was answered");
    };
    assert_eq!(id, request_id(&first));
    let answer = phone.call("DELETE", "/device/v1/device", None).await;
    assert_eq!(answer.unwrap().status, 204);
    let ended = stream.next().await.unwrap_err().to_string();
    assert!(ended.contains("device_revoked"), "{ended}");
    let refused = phone.stream().await.err().unwrap().to_string();
    assert!(refused.contains("device_revoked"), "{refused}");
}
