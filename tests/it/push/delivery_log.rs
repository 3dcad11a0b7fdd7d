//! The real program against all three gateways: what an operator is shown of each attempt.

use super::fake_apns::{self, FakeApns};
use super::fake_fcm::{self, FakeFcm};
use super::fake_push_service::FakePushService;
use super::server::settings;
use crate::support::process::{Site, pause};
use crate::support::{Backend, config};
use assent::app::World;
use assent::clock::ManualClock;
use assent::domain::Decision;
use assent::phone::http::{HttpClient, basic};
use assent::phone::{EnrolmentLink, Phone};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// What is asked again until it says what is waited for.
async fn eventually(mut look: impl FnMut() -> Value, done: impl Fn(&Value) -> bool) -> Value {
    loop {
        let seen = look();
        if done(&seen) {
            return seen;
        }
        pause(50).await;
    }
}

async fn enrol(site: &Site, platform: &str, target: &str) -> Phone {
    let ticket = site.json(&["enrol", "alice"]);
    let link = EnrolmentLink::parse(ticket["link"].as_str().unwrap()).unwrap();
    let World { clock, entropy, .. } = World::real();
    let phone = Phone::enrol(&link, platform, clock, entropy).await.unwrap();
    let body = json!({ "platform": platform, "push_target": target });
    let answer = phone.call("PUT", "/device/v1/push-target", Some(&body));
    assert_eq!(answer.await.unwrap().status, 204);
    phone
}

#[tokio::test(flavor = "multi_thread")]
async fn each_attempt_at_each_gateway_is_logged_and_shown() {
    // The gateways' clock is a little ahead of the server's, and stands still.
    let soon = World::real().clock.now().plus(Duration::from_secs(30));
    let clock = Arc::new(ManualClock::new(soon));
    let apns = FakeApns::new(clock.clone()).await;
    let fcm = FakeFcm::new(clock.clone()).await;
    let browser = FakePushService::new(clock).await;
    let site = Site::new(Backend::sqlite());
    let file = settings(&apns, &fcm, site.folder());
    let named = config(&site.backend, Some(&file), vec![]);
    let gateways = assent::app::push_gateways(&named).unwrap();
    let key = gateways[2].strip_prefix("Web Push (public key ").unwrap();
    let subscription = browser.subscribe(key.trim_end_matches(')')).to_string();

    site.run(&["migrate"]);
    let bank = site.json(&["client", "add", "Example Bank"]);
    site.json(&["user", "add", "alice"]);
    let serve = site.command(&["serve", "--config", file.to_str().unwrap()]);
    let mut server = site.serve_by(serve).await;
    let iphone = enrol(&site, "apns", "00fc13adff785122").await;
    let android = enrol(&site, "fcm", "registration-token").await;
    let laptop = enrol(&site, "webpush", &subscription).await;

    // Apple is busy, Google says that it does not know the phone any more, the browser's service takes it.
    apns.reply([fake_apns::Reply::refuse(503, "ServiceUnavailable")]);
    let detail = json!({
        "@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError",
        "errorCode": "UNREGISTERED",
    });
    let unregistered = json!({ "error": { "code": 404, "details": [detail] } });
    fcm.reply([fake_fcm::Reply::refuse(404, unregistered)]);
    let text = |name: &str| bank[name].as_str().unwrap().to_owned();
    let credentials = basic(&text("client_id"), &text("client_secret"));
    let asked = HttpClient::new()
        .form(
            &format!("{}/bc-authorize", site.url),
            &[("authorization", &credentials)],
            &[("scope", "openid"), ("login_hint", "alice")],
        )
        .await
        .unwrap();
    assert_eq!(asked.status, 200, "{}", asked.body);
    let of = |shown: &Value, phone: &Phone| {
        let all = shown.as_array().unwrap().iter();
        let mut of_phone = all.filter(|one| one["device_id"] == phone.id().as_str());
        of_phone.next().cloned().unwrap_or_default()
    };
    let log = || site.json(&["push", "log", "alice"]);
    let shown = eventually(log, |shown| of(shown, &iphone)["state"] == "accepted").await;
    for (phone, state, attempts, reason) in [
        (&iphone, "accepted", 2, Value::Null),
        (&android, "dead", 1, json!("UNREGISTERED")),
        (&laptop, "accepted", 1, Value::Null),
    ] {
        let one = of(&shown, phone);
        assert_eq!(one["state"], state, "{one}\n{}", server.log());
        let push = &one["push"];
        assert_eq!(
            (&push["attempts"], &push["reason"]),
            (&json!(attempts), &reason)
        );
    }
    let waiting = laptop.inbox().await.unwrap()[0].id;
    let request = laptop.show(waiting).await.unwrap();
    assert_eq!(of(&log(), &laptop)["state"], "fetched");
    laptop
        .answer(&request, Decision::Approve, None)
        .await
        .unwrap();
    assert_eq!(of(&log(), &laptop)["state"], "answered");
    // The iPhone is told that it is over.
    let signals = |said: &str| said.matches("signal=\"request.resolved\"").count();
    while signals(&server.log()) == 0 {
        pause(50).await;
    }
    let table = site.run(&["push", "log", "alice"]).stdout;
    for words in [
        "accepted  2",
        "dead      1         UNREGISTERED",
        "answered  1",
    ] {
        assert!(table.contains(words), "{words}: {table}");
    }
    server.stop().await;
    let said = server.log();
    let attempts: Vec<_> = said
        .lines()
        .filter(|line| line.contains("took_ms="))
        .collect();
    assert_eq!(attempts.len(), 5, "{said}");
    for words in [
        "platform=\"apns\" signal=\"request.waiting\"",
        "outcome=Retry { reason: Reason { text: \"ServiceUnavailable\"",
        "outcome=TokenDead",
        "platform=\"webpush\" signal=\"request.waiting\"",
        "platform=\"apns\" signal=\"request.resolved\"",
    ] {
        assert!(
            attempts.iter().any(|line| line.contains(words)),
            "{words}: {said}"
        );
    }
    println!("{table}\n{}", attempts.join("\n"));
}
