//! Gateways that fail or are slow: who is left alone, for how long, and who goes on meanwhile.

use super::fake_apns::FakeApns;
use super::fake_fcm::FakeFcm;
use super::fake_push_service::FakePushService;
use super::{Line, after, fake_apns, fake_fcm, known, policy, retry};
use crate::support::process::pause;
use assent::domain::{AppId, Secret};
use assent::outbound::Outbound;
use assent::push::fcm::ServiceAccount;
use assent::push::{Fcm, PushOutcome};
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::task::JoinSet;

fn held_back(text: &str, seconds: u64) -> PushOutcome {
    PushOutcome::HeldBack {
        reason: known(text),
        until: after(seconds),
    }
}

fn failing(until: u64) -> PushOutcome {
    held_back("the gateway fails", until)
}

fn is_accepted(outcome: &PushOutcome) -> bool {
    matches!(outcome, PushOutcome::Accepted { .. })
}

impl<Fake> Line<Fake> {
    /// Sends so many, whatever comes of them.
    async fn send_times(&self, times: usize) {
        for _ in 0..times {
            let outcome = self.send().await;
            assert!(!matches!(outcome, PushOutcome::HeldBack { .. }));
        }
    }

    /// Whether the next one gets through; the clock must stand where the breaker, if open, rests.
    async fn is_open(&self) -> bool {
        matches!(self.send().await, PushOutcome::HeldBack { .. })
    }
}

#[tokio::test]
async fn a_gateway_that_fails_is_left_alone_and_tried_by_one() {
    let line = Line::<FakeApns>::new().await;
    let down = || fake_apns::Reply::refuse(503, "ServiceUnavailable");
    let in_a_row = |times| line.fake.reply((0..times).map(|_| down()));
    in_a_row(19);
    line.send_times(20).await;
    in_a_row(20);
    line.send_times(20).await;
    assert_eq!(line.fake.received().len(), 40);

    assert_eq!(line.send().await, failing(30));
    line.advance(29);
    assert_eq!(line.send().await, failing(30));
    assert!(line.fake.received().is_empty());
    // One try, which fails; from then on thirty seconds more.
    line.advance(1);
    in_a_row(1);
    assert_eq!(line.send().await, retry(known("ServiceUnavailable")));
    assert_eq!(line.send().await, failing(60));
    line.advance(30);
    line.send_times(3).await;
    assert_eq!(line.fake.received().len(), 4);
    in_a_row(1);
    line.send_times(2).await;
}

#[tokio::test]
async fn what_is_about_one_phone_closes_the_way_to_no_other() {
    let line = Line::<FakeApns>::new().await;
    for (status, reason) in [
        (400, "BadDeviceToken"),
        (400, "DeviceTokenNotForTopic"),
        (410, "Unregistered"),
        (429, "TooManyRequests"),
        (413, "PayloadTooLarge"),
    ] {
        let replies = (0..20).map(|_| fake_apns::Reply::refuse(status, reason));
        line.fake.reply(replies);
        line.send_times(21).await;
    }
    // Ours is wrong, whoever is to be reached; and a 503 is one, whether it says when to come back or not.
    let later = vec![("retry-after", "1".to_owned())];
    for reply in [
        fake_apns::Reply::refuse(403, "InvalidProviderToken"),
        fake_apns::Reply::refuse(400, "TopicDisallowed"),
        fake_apns::Reply::Say(503, later, Value::Null),
    ] {
        let line = Line::<FakeApns>::new().await;
        line.fake.reply((0..20).map(|_| reply.clone()));
        line.send_times(20).await;
        assert!(line.is_open().await, "{reply:?}");
        // A target that is none is told so, and says nothing about the gateway.
        line.advance(30);
        let mut other = line;
        let good = other
            .device
            .push_target
            .replace(Secret::new("no token".into()));
        assert!(matches!(other.send().await, PushOutcome::TokenDead { .. }));
        other.device.push_target = good;
        other.fake.reply([reply]);
        other.send_times(1).await;
        assert!(other.is_open().await);
    }
}

#[tokio::test]
async fn a_phone_of_another_project_closes_the_way_to_no_other() {
    let line = Line::<FakeFcm>::new().await;
    let refuse = |status: u16, code: &str| {
        let error = json!({ "code": status, "status": code });
        fake_fcm::Reply::refuse(status, json!({ "error": error }))
    };
    line.fake
        .reply((0..20).map(|_| refuse(403, "SENDER_ID_MISMATCH")));
    line.send_times(21).await;
    line.fake
        .reply((0..20).map(|_| refuse(403, "PERMISSION_DENIED")));
    line.send_times(20).await;
    assert!(line.is_open().await);
}

/// Each set of credentials for itself, and the failures that many share are one.
#[tokio::test]
async fn one_project_that_fails_does_not_stop_another() {
    let mut line = Line::<FakeFcm>::new().await;
    let other = FakeFcm::new(line.clock.clone()).await;
    let account = ServiceAccount::parse(&other.service_account).unwrap();
    let fcm = Fcm::new(account, &other.url, Outbound::new(policy()).unwrap());
    line.router.fcm.add(Some(AppId::new("other")), fcm);
    // All who wait for a token learn from one that there is none.
    let unavailable = || fake_fcm::Reply::refuse(503, Value::Null);
    line.fake.reply_for_token([unavailable()]);
    line.send_times(25).await;
    for second in 0..20 {
        line.advance(1);
        let open = line.is_open().await;
        assert!(!open, "{second}");
        if second == 0 {
            line.fake.revoke_token();
            line.fake.reply_for_token((0..20).map(|_| unavailable()));
        }
    }
    line.advance(1);
    assert!(!line.is_open().await, "the twentieth");
    assert!(line.is_open().await);
    line.device.app_id = Some(AppId::new("other"));
    assert!(is_accepted(&line.send().await));
}

#[tokio::test]
async fn one_push_service_that_is_down_does_not_stop_the_others() {
    let mut line = Line::<FakePushService>::new(&["127.0.0.1", "localhost"]).await;
    line.fake.reply((0..20).map(|_| (500, None)));
    line.send_times(20).await;
    assert_eq!(line.send().await, failing(30));
    let there = line.fake.url.clone();
    line.change(|subscription| {
        let elsewhere = there.replace("127.0.0.1", "localhost");
        subscription["endpoint"] = format!("{elsewhere}/push/capability").into();
    });
    assert!(!line.is_open().await);
    // What a phone has registered cannot be told from what we do wrong: neither closes the way.
    line.fake.reply((0..20).map(|_| (403, None)));
    line.send_times(21).await;
}

#[tokio::test]
async fn no_more_than_so_many_wait_for_a_slow_gateway() {
    let line = Arc::new(Line::<FakeFcm>::new().await);
    assert!(is_accepted(&line.send().await));
    line.fake.reply((0..64).map(|_| fake_fcm::Reply::Hang));
    let mut waiting = JoinSet::new();
    for _ in 0..64 {
        let line = line.clone();
        waiting.spawn(async move { line.send().await });
    }
    let mut arrived = line.fake.received().len() - 1;
    while arrived < 64 {
        pause(5).await;
        arrived += line.fake.received().len();
    }
    assert_eq!(line.send().await, held_back("the gateway is slow", 1));
    // Those that are given up leave their places.
    waiting.shutdown().await;
    assert!(is_accepted(&line.send().await));
}
