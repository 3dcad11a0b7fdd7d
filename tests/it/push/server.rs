//! A server with all three gateways and a person with a phone behind each.

use super::fake_apns::{self, FakeApns, KEY_ID, TEAM};
use super::fake_fcm::{self, FakeFcm};
use super::fake_push_service::{FakePushService, SUBJECT};
use crate::support::{Backend, RelyingParty, START, TestApp, approve, config, pem, request_id};
use assent::clock::ManualClock;
use assent::crypto::from_base64url;
use assent::crypto::generate::generate;
use assent::domain::delivery::DeliveryState;
use assent::domain::{DeviceId, SignatureAlgorithm, User};
use assent::phone::Phone;
use assent::service::deliveries::DeliveryReport;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;

struct Scene {
    apns: FakeApns,
    fcm: FakeFcm,
    browser: FakePushService,
    app: TestApp,
    bank: RelyingParty,
    alice: User,
    /// In the order of the gateways.
    phones: [Phone; 3],
    _folder: TempDir,
}

impl Scene {
    async fn new() -> Self {
        let clock = Arc::new(ManualClock::new(START));
        let apns = FakeApns::new(clock.clone()).await;
        let fcm = FakeFcm::new(clock.clone()).await;
        let browser = FakePushService::new(clock).await;
        let folder = tempfile::tempdir().unwrap();
        let settings = settings(&apns, &fcm, folder.path());
        let app = TestApp::with_file(Backend::sqlite(), Some(&settings), vec![]).await;
        let config = config(&app.backend, Some(&settings), vec![]);
        let gateways = assent::app::push_gateways(&config).unwrap();
        let key = gateways[2].strip_prefix("Web Push (public key ").unwrap();
        let subscription = browser.subscribe(key.trim_end_matches(')'));
        let (bank, alice) = (app.client("a-relying-party").await, app.user("alice").await);
        let phones = [
            app.phone(&alice).await,
            app.phone(&alice).await,
            app.phone(&alice).await,
        ];
        for (phone, platform, target) in [
            (&phones[0], "apns", "00fc13adff785122".to_owned()),
            (&phones[1], "fcm", "registration-token".to_owned()),
            (&phones[2], "webpush", subscription.to_string()),
        ] {
            let body = json!({ "platform": platform, "push_target": target });
            let path = "/device/v1/push-target";
            let answer = phone.call("PUT", path, Some(&body)).await.unwrap();
            assert_eq!(answer.status, 204);
        }
        Self {
            apns,
            fcm,
            browser,
            app,
            bank,
            alice,
            phones,
            _folder: folder,
        }
    }

    /// How many messages each gateway has received since this was last asked.
    fn received(&self) -> [usize; 3] {
        [
            self.apns.received().len(),
            self.fcm.received().len(),
            self.browser.received().len(),
        ]
    }
}

pub fn settings(apns: &FakeApns, fcm: &FakeFcm, folder: &Path) -> PathBuf {
    let file = |name: &str, text: &str| {
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let key = file("AuthKey.p8", &apns.key_pem);
    let root = file("root.pem", &pem("CERTIFICATE", &apns.root_der));
    let account = file("account.json", &fcm.service_account);
    let vapid = generate(SignatureAlgorithm::Es256).0;
    let vapid = file("vapid.pem", &pem("PRIVATE KEY", &vapid));
    let text = format!(
        "outbound.extra_roots_file = {root:?}\n\
         [[push.apns]]\nteam_id = '{TEAM}'\nkey_id = '{KEY_ID}'\nkey_file = {key:?}\n\
         topic = 'org.example.approver'\nbase_url = '{}/'\n\
         [[push.fcm]]\nservice_account_file = {account:?}\nbase_url = '{}'\n\
         [push.web_push]\nvapid_key_file = {vapid:?}\nsubject = '{SUBJECT}'\n\
         allowed_hosts = ['127.0.0.1']\n",
        apns.url, fcm.url
    );
    file("assent.toml", &text)
}

#[tokio::test(flavor = "multi_thread")]
async fn three_phones_are_woken_and_their_gateways_told_nothing() {
    let scene = Scene::new().await;
    let busy = fake_apns::Reply::refuse(503, "ServiceUnavailable");
    scene.apns.reply([busy]);
    let id = scene.bank.start("alice").await;
    scene.app.run_jobs().await;
    assert_eq!(scene.received(), [1, 1, 1]);
    scene.app.advance(1);
    scene.app.run_jobs().await;
    assert_eq!(scene.received(), [1, 0, 0], "again where it failed");
    let recorded = scene.app.push.sent();
    assert!(recorded.is_empty(), "that is for servers without gateways");
    approve(&scene.phones[2], &id).await;
    assert_eq!(scene.bank.poll(&id).await.status, 200);

    let heard = scene.apns.heard() + &scene.fcm.heard() + &scene.browser.heard();
    let heard = readable(&heard);
    // The scan can see: headers, paths, and what is signed, encoded or encrypted.
    for there in [
        "apns-topic",
        "/3/device/00fc13adff785122",
        "messages:send",
        "firebase.messaging",
        "urgency: high",
        r#""signal":"request.waiting""#,
        TEAM,
    ] {
        assert!(heard.contains(there), "{there}: {heard}");
    }
    let hash = request_id(&id);
    let hex: String = hash.as_bytes().iter().map(|b| format!("{b:02x}")).collect();
    let (sub, request) = (scene.alice.id.to_string(), hash.to_string());
    let phones = scene.phones.each_ref().map(|phone| phone.id().to_string());
    let words = [
        "alice",
        "Alice Example",
        "W4SCT",
        "Example Bank",
        "a-relying-party",
        "openid",
        "test phone",
        &scene.app.url,
        &id[..20],
        &request[..20],
        &hex[..20],
        &sub,
        &phones[0],
        &phones[1],
        &phones[2],
    ];
    for word in words {
        assert!(!heard.contains(word), "{word}: {heard}");
    }
}

/// A text with all that is base64url in it written out beside it, to any depth.
fn readable(text: &str) -> String {
    let in_base64 = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let parts = text.split(|c| !in_base64(c)).filter(|part| part.len() >= 8);
    let read = parts.filter_map(from_base64url);
    let read = read.filter_map(|bytes| String::from_utf8(bytes).ok());
    let more: Vec<_> = read.map(|part| readable(&part)).collect();
    format!("{text}\n{}", more.join("\n"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_a_gateway_calls_dead_is_forgotten() {
    let scene = Scene::new().await;
    let gone = |since: i64| {
        let body = json!({ "reason": "Unregistered", "timestamp": START.millis() + since });
        fake_apns::Reply::Say(410, vec![], body)
    };
    let detail = json!({
        "@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError",
        "errorCode": "UNREGISTERED",
    });
    let unregistered = json!({ "error": { "code": 404, "details": [detail] } });
    let with_target = "devices WHERE push_target IS NOT NULL";
    // Apple says since when; the phone has registered its target again after that.
    scene.apns.reply([gone(-1), gone(1000)]);
    scene.fcm.reply([
        fake_fcm::Reply::Say(200, None, Value::Null),
        fake_fcm::Reply::refuse(404, unregistered),
    ]);
    scene.browser.reply([(201, None), (410, None)]);
    for (targets, received) in [(3, [1, 1, 1]), (0, [1, 1, 1]), (0, [0, 0, 0])] {
        scene.bank.start("alice").await;
        scene.app.run_jobs().await;
        assert_eq!(scene.app.backend.count(with_target).await, targets);
        assert_eq!(scene.received(), received);
    }
}

/// Device, state, attempts, and what the gateway said.
type Way = (DeviceId, DeliveryState, u32, Option<String>);

/// How far Alice's only request came.
async fn ways(scene: &Scene) -> Vec<Way> {
    let services = scene.app.services();
    let delivered = services.deliveries_of(&scene.alice).await.unwrap();
    let way = |one: DeliveryReport| {
        let push = one.delivery.push.unwrap();
        (one.delivery.device, one.state, push.attempts, push.reason)
    };
    let mut ways: Vec<_> = delivered.into_iter().map(way).collect();
    let order = |way: &Way| scene.phones.iter().position(|phone| phone.id() == way.0);
    ways.sort_by_key(order);
    ways
}

#[tokio::test(flavor = "multi_thread")]
async fn the_way_to_each_phone_is_known_and_those_that_rang_hear_of_the_end() {
    let scene = Scene::new().await;
    let [iphone, android, browser] = scene.phones.each_ref().map(Phone::id);
    let busy = fake_apns::Reply::refuse(503, "ServiceUnavailable");
    scene.apns.reply([busy]);
    scene.browser.reply([(403, None)]);
    let id = scene.bank.start("alice").await;
    scene.app.run_jobs().await;
    let reason = |text: &str| Some(text.to_owned());
    let expected = [
        (
            iphone.clone(),
            DeliveryState::Queued,
            1,
            reason("ServiceUnavailable"),
        ),
        (android.clone(), DeliveryState::Accepted, 1, None),
        (
            browser.clone(),
            DeliveryState::Failed,
            1,
            reason("the push service answered 403"),
        ),
    ];
    assert_eq!(ways(&scene).await, expected);
    scene.app.advance(1);
    scene.app.run_jobs().await;
    assert_eq!(scene.received(), [2, 1, 1]);
    approve(&scene.phones[1], &id).await;
    let expected = [
        (iphone, DeliveryState::Accepted, 2, None),
        (android, DeliveryState::Answered, 1, None),
        (
            browser,
            DeliveryState::Failed,
            1,
            reason("the push service answered 403"),
        ),
    ];
    assert_eq!(ways(&scene).await, expected);
    // The iPhone's notification goes away; the others have none, or know.
    scene.app.run_jobs().await;
    let [silent] = &scene.apns.received()[..] else {
        panic!("one push for the end");
    };
    assert_eq!(silent.headers["apns-push-type"], "background");
    assert!(silent.body.contains("request.resolved"), "{}", silent.body);
    assert_eq!(scene.received(), [0, 0, 0]);
}
