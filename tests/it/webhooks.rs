//! What the operator's systems are told of, how it is signed, and what happens when they do not listen.

use crate::golden::{Names, assert_golden};
use crate::support::process::pause;
use crate::support::rp_endpoint::{Notification, Reply, RpEndpoint};
use crate::support::{Backend, Ground, TestApp, deny, everywhere, registration, request_id, show};
use assent::app::{Core, World};
use assent::config::Overrides;
use assent::crypto::sha256;
use assent::domain::client::{Delivery, Registration};
use assent::domain::{Decision, DenyReason, Event, EventKind};
use assent::service::devices::Actor;
use assent::service::notify_client::Delivered;
use assent::store::JobQueue;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::task::JoinSet;

const SECRETS: [&str; 2] = [
    "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD",
    "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4vMDEyMzQ1Njc4OTo7PD0+Pw==",
];

everywhere!(
    each_event_is_told_and_names_nobody,
    nobody_is_told_where_nobody_asked,
);

fn settings(endpoint: &RpEndpoint) -> Overrides {
    vec![
        ("webhook.url", endpoint.url.clone()),
        ("webhook.secret", SECRETS.join(" ")),
    ]
}

/// HMAC-SHA-256 from its definition (RFC 2104), and not as the server makes it.
fn hmac(key: &[u8], message: &[u8]) -> [u8; 32] {
    let padded = |pad: u8| -> Vec<u8> {
        let key = key.iter().copied().chain(std::iter::repeat(0));
        key.take(64).map(|byte| byte ^ pad).collect()
    };
    let inner = sha256(&[&padded(0x36), message].concat());
    sha256(&[&padded(0x5c), &inner[..]].concat())
}

/// Checks one message as a receiver does, with either of the secrets.
#[track_caller]
fn assert_signed(message: &Notification) {
    let (id, at) = (
        message.header("webhook-id"),
        message.header("webhook-timestamp"),
    );
    let signed = format!("{id}.{at}.{}", message.body);
    let signature = message.header("webhook-signature");
    let signatures: Vec<&str> = signature.split(' ').collect();
    assert_eq!(signatures.len(), SECRETS.len());
    for (secret, signature) in SECRETS.iter().zip(signatures) {
        let key = STANDARD.decode(secret.strip_prefix("whsec_").unwrap());
        let expected = STANDARD.encode(hmac(&key.unwrap(), signed.as_bytes()));
        assert_eq!(signature, format!("v1,{expected}"));
    }
    assert!(id.starts_with("evt_") && !id.contains('.'), "{id}");
    assert_eq!(message.content_type, "application/json");
}

/// A phone comes, and goes by its owner; another goes by an operator; a client cannot be told; a person is
/// asked too often, and reports a fraud.
async fn let_things_happen(app: &TestApp, rp: &RpEndpoint) -> Names {
    let shop = app
        .client_with(
            "rp-1",
            Registration {
                delivery: Delivery::Ping {
                    endpoint: rp.url.clone(),
                },
                ..registration()
            },
        )
        .await;
    let alice = app.user("alice").await;
    let (phone, other) = (app.phone(&alice).await, app.phone(&alice).await);
    let id = shop.start_told("alice").await;
    deny(&phone, &id).await;
    let bank = app.client("rp-2").await;
    let mut last = String::new();
    for _ in 0..3 {
        last = bank.start("alice").await;
    }
    let shown = show(&phone, &last).await;
    let fraud = Some(DenyReason::Fraud);
    phone.answer(&shown, Decision::Deny, fraud).await.unwrap();
    let path = format!("/device/v1/devices/{}", other.id());
    for expected in [204, 404] {
        let answer = phone.call("DELETE", &path, None).await.unwrap();
        assert_eq!(answer.status, expected, "{}", answer.body);
    }
    let device = app.services().directory.device(&phone.id()).await;
    let device = device.unwrap().unwrap();
    let revoke = async || app.services().revoke_device(&device, Actor::Operator).await;
    assert!(revoke().await.unwrap());
    assert!(!revoke().await.unwrap());
    Names::of(app)
        .with(&alice.id, "<user>")
        .with(phone.id(), "<device>")
        .with(other.id(), "<other_device>")
        .with(request_id(&id), "<request>")
        .with(request_id(&last), "<fraud>")
}

async fn each_event_is_told_and_names_nobody(ground: Ground) {
    let endpoint = RpEndpoint::new(&[]).await;
    let app = TestApp::on_with(ground, settings(&endpoint)).await;
    let rp = RpEndpoint::new(&[Reply::Status(400)]).await;
    let names = let_things_happen(&app, &rp).await;
    app.advance(60);
    app.run_jobs().await;
    let told = endpoint.received();
    let mut bodies = Vec::new();
    for message in &told {
        assert_signed(message);
        // The time of the attempt: a receiver refuses what is old.
        let at = message.header("webhook-timestamp");
        assert_eq!(at, app.now().secs().to_string());
        for personal in ["alice", "Alice", "test phone", "Example Bank", "W4SCT"] {
            assert!(!message.body.contains(personal), "{}", message.body);
        }
        bodies.push(names.apply(&message.json()));
    }
    let ids: BTreeSet<_> = told.iter().map(|one| one.header("webhook-id")).collect();
    assert_eq!(ids.len(), told.len(), "each event has an id of its own");
    bodies.sort_by_key(Value::to_string);
    assert_golden("webhooks", &json!(bodies));
    app.run_jobs().await;
    assert_eq!(endpoint.received().len(), told.len(), "each is told once");
}

async fn nobody_is_told_where_nobody_asked(ground: Ground) {
    let app = TestApp::on(ground).await;
    let rp = RpEndpoint::new(&[Reply::Status(400)]).await;
    let_things_happen(&app, &rp).await;
    let written = "jobs WHERE id LIKE 'publish_event:%'";
    assert_eq!(app.backend.count(written).await, 0);
    app.run_jobs().await;
    assert_eq!(rp.received().len(), 1);
    assert_eq!(app.backend.count(written).await, 0);
}

/// A server whose endpoint answers so, with one event to tell.
async fn one_event(replies: &[Reply]) -> (TestApp, RpEndpoint) {
    let endpoint = RpEndpoint::new(replies).await;
    let app = TestApp::with(Backend::sqlite(), settings(&endpoint)).await;
    let alice = app.user("alice").await;
    app.phone(&alice).await;
    (app, endpoint)
}

fn ledger_jobs(app: &TestApp) -> &Arc<dyn JobQueue> {
    &app.server.core.queues[1]
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_told_again_until_it_is_heard() {
    let replies = [
        Reply::Status(500),
        Reply::Reset,
        Reply::Status(429),
        Reply::Status(408),
        Reply::Status(404),
        Reply::Status(401),
        Reply::Redirect,
        Reply::Status(200),
    ];
    let (app, endpoint) = one_event(&replies).await;
    let mut wait = 5.0;
    for tries in 1..=replies.len() {
        app.run_jobs().await;
        let told = endpoint.received();
        assert_eq!(told.len(), tries);
        let (first, last) = (&told[0], &told[tries - 1]);
        assert_signed(last);
        assert_eq!(first.header("webhook-id"), last.header("webhook-id"));
        assert_eq!(first.body, last.body);
        let at = last.header("webhook-timestamp");
        assert_eq!(at, app.now().secs().to_string());
        // Twice as long each time, give or take a fifth.
        app.advance((wait * 0.79) as u64);
        app.run_jobs().await;
        assert_eq!(endpoint.received().len(), tries, "too early");
        app.advance((wait * 0.42) as u64 + 1);
        wait *= 2.0;
    }
    assert_eq!(ledger_jobs(&app).depth().await.unwrap().alive, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_is_gone_is_left_alone_until_somebody_says_otherwise() {
    let (app, endpoint) = one_event(&[Reply::Status(410)]).await;
    app.run_jobs().await;
    app.advance(4000);
    app.run_jobs().await;
    let told = endpoint.received();
    assert_eq!(told.len(), 1);
    let dead = ledger_jobs(&app).dead(10).await.unwrap();
    let [dead] = &dead[..] else {
        panic!("one is dead, and nothing tells of it: {dead:?}");
    };
    assert_eq!(
        dead.id,
        format!("publish_event:{}", told[0].header("webhook-id"))
    );
    assert!(dead.error.contains("410"), "{}", dead.error);
    let depth = ledger_jobs(&app).depth().await.unwrap();
    assert_eq!((depth.alive, depth.dead), (0, 1));

    assert!(ledger_jobs(&app).replay(&dead.id, app.now()).await.unwrap());
    app.run_jobs().await;
    let again = endpoint.received();
    assert_eq!(again.len(), 2);
    assert_signed(&again[1]);
    assert_eq!(again[1].body, told[0].body);
    assert_eq!(again[1].header("webhook-id"), told[0].header("webhook-id"));
    assert_eq!(ledger_jobs(&app).depth().await.unwrap().dead, 0);
}

/// A slow endpoint has so many messages at a time; what comes meanwhile waits without blame.
#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_does_not_answer_takes_sixteen_hands_and_no_more() {
    // The sixteen wait for five seconds each: a machine may be too slow to have them all wait at once.
    for _ in 0..5 {
        if let Some((one_more, after)) = seventeenth().await {
            assert!(matches!(one_more, Delivered::NotNow { .. }), "{one_more:?}");
            assert_eq!(after, Delivered::Done);
            return;
        }
    }
    panic!("sixteen never waited at once");
}

/// What becomes of one more event while sixteen are being told, and of one after them; `None`: one of the
/// sixteen was given up before.
async fn seventeenth() -> Option<(Delivered, Delivered)> {
    let endpoint = RpEndpoint::new(&[Reply::Hang; 16]).await;
    let app = TestApp::with(Backend::sqlite(), settings(&endpoint)).await;
    let alice = app.user("alice").await;
    let device = app.phone(&alice).await.id();
    let publish = |number: usize| {
        let services = app.server.core.services.clone();
        let event = Event {
            id: format!("evt_{number}"),
            at: app.now(),
            partition: alice.partition,
            kind: EventKind::DeviceEnrolled {
                user: alice.id.clone(),
                device: device.clone(),
            },
        };
        async move { services.publish_event(&event).await }
    };
    let mut hanging: JoinSet<_> = (0..16).map(publish).collect();
    while endpoint.received().len() < 16 {
        pause(5).await;
        if hanging.try_join_next().is_some() {
            return None;
        }
    }
    let one_more = publish(16).await;
    if hanging.try_join_next().is_some() {
        return None;
    }
    hanging.shutdown().await;
    Some((one_more, publish(17).await))
}

#[tokio::test(flavor = "multi_thread")]
async fn after_three_days_it_is_given_up() {
    let (app, endpoint) = one_event(&[Reply::Status(500); 200]).await;
    let hours = async |hours: u64| {
        for _ in 0..hours * 2 {
            app.advance(1800);
            app.run_jobs().await;
        }
        ledger_jobs(&app).depth().await.unwrap()
    };
    assert_eq!(hours(70).await.alive, 1);
    let tries = endpoint.received().len();
    assert!((45..120).contains(&tries), "an hour apart: {tries}");
    let depth = hours(2).await;
    assert_eq!((depth.alive, depth.dead), (0, 1));
    hours(5).await;
    let last = endpoint.received().len();
    hours(5).await;
    assert_eq!(endpoint.received().len(), last, "nobody tells of it");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_may_not_be_called_is_refused_at_the_start() {
    let backend = Backend::sqlite();
    for url in ["http://siem.example/hook", "ftp://127.0.0.1/", "siem"] {
        let settings = vec![
            ("webhook.url", url.to_owned()),
            ("webhook.secret", SECRETS[0].to_owned()),
        ];
        let config = crate::support::config(&backend, None, settings);
        let opened = Core::migrate_and_open(&config, World::real()).await;
        let refused = format!("{:#}", opened.err().unwrap());
        assert!(refused.contains("webhook.url"), "{refused}");
    }
}
