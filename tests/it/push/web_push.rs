//! Push services of browsers: what they are sent, what the browser reads, and what their answers mean.

use super::fake_push_service::{FakePushService, Reply, SUBJECT};
use super::{Line, dead, known, misconfigured, our_bug, policy, retry, throttled};
use crate::support::START;
use crate::support::pem;
use assent::clock::ManualClock;
use assent::crypto::generate::generate;
use assent::crypto::jose::SigningKey;
use assent::domain::device::Platform;
use assent::domain::{Secret, SignatureAlgorithm};
use assent::outbound::Outbound;
use assent::push::web_push::WebPushSettings;
use assent::push::{PushOutcome, PushRouter, Reason, Signal, WebPush};
use serde_json::{Value, json};
use std::sync::Arc;

fn vapid_key() -> String {
    pem("PRIVATE KEY", &generate(SignatureAlgorithm::Es256).0)
}

impl Line<FakePushService> {
    pub async fn new(allowed_hosts: &[&str]) -> Self {
        let fake = FakePushService::new(Arc::new(ManualClock::new(START))).await;
        let outbound = Outbound::new(policy());
        let key = SigningKey::from_pem(&vapid_key(), "vapid", SignatureAlgorithm::Es256);
        let settings = WebPushSettings {
            key: key.unwrap(),
            subject: SUBJECT.into(),
            allowed_hosts: allowed_hosts
                .iter()
                .map(|host| (*host).to_owned())
                .collect(),
        };
        let web_push = WebPush::new(settings, outbound.unwrap()).unwrap();
        let subscription = fake.subscribe(&web_push.public_key()).to_string();
        let mut router = PushRouter::default();
        router.web_push = Some(web_push);
        Self {
            clock: fake.clock.clone(),
            fake,
            router,
            device: super::device(Platform::WebPush, &subscription),
        }
    }

    /// The same browser with its subscription changed.
    pub fn change(&mut self, change: impl FnOnce(&mut Value)) {
        let text = self.device.push_target.as_ref().unwrap().expose();
        let mut subscription = serde_json::from_str(text).unwrap();
        change(&mut subscription);
        self.device.push_target = Some(Secret::new(subscription.to_string()));
    }
}

fn accepted() -> PushOutcome {
    PushOutcome::Accepted { id: None }
}

fn answered(status: u16) -> Reason {
    known(&format!("the push service answered {status}"))
}

#[tokio::test]
async fn only_the_browser_can_read_a_message_which_says_nothing() {
    let line = Line::<FakePushService>::new(&["127.0.0.1"]).await;
    assert_eq!(line.send().await, accepted());
    line.advance(100);
    assert_eq!(line.send().await, accepted());
    let received = line.fake.received();
    let shown = |at: usize| {
        let it = &received[at];
        [&it.path, &it.ttl, &it.urgency, &it.topic].map(String::as_str)
    };
    assert_eq!(
        shown(0),
        ["/push/capability", "120", "high", "cmVmZXJlbmNlLTIyLWNocw"]
    );
    assert_eq!(
        shown(1),
        ["/push/capability", "20", "high", "cmVmZXJlbmNlLTIyLWNocw"]
    );
    for message in &received {
        assert!(message.authorization.starts_with("vapid t=ey"));
        assert_eq!(
            serde_json::from_str::<Value>(&message.text).unwrap(),
            json!({ "reference": "cmVmZXJlbmNlLTIyLWNocw", "signal": "request.waiting" })
        );
        let raw = String::from_utf8_lossy(&message.raw);
        assert!(
            !raw.contains("reference") && !raw.contains("waiting"),
            "{raw}"
        );
    }
    assert_ne!(received[0].raw, received[1].raw);
}

#[tokio::test]
async fn what_is_silent_is_not_urgent() {
    let line = Line::<FakePushService>::new(&["127.0.0.1"]).await;
    for (signal, name, urgency) in [
        (Signal::Resolved, "request.resolved", "normal"),
        (Signal::Test, "push.test", "high"),
    ] {
        assert_eq!(line.signal(signal).await, accepted());
        let [message] = &line.fake.received()[..] else {
            panic!("one message")
        };
        let reference = "cmVmZXJlbmNlLTIyLWNocw";
        assert_eq!(
            serde_json::from_str::<Value>(&message.text).unwrap(),
            json!({ "reference": reference, "signal": name })
        );
        assert_eq!(
            (message.urgency.as_str(), message.topic.as_str()),
            (urgency, reference)
        );
    }
}

#[tokio::test]
async fn each_answer_means_what_the_standard_says() {
    let line = Line::<FakePushService>::new(&["127.0.0.1"]).await;
    for (status, retry_after, meaning) in [
        (200, None, accepted()),
        (201, None, accepted()),
        (202, None, accepted()),
        (404, None, dead(answered(404))),
        (410, None, dead(answered(410))),
        (401, None, misconfigured(answered(401))),
        (403, None, misconfigured(answered(403))),
        (400, None, our_bug(answered(400))),
        (413, None, our_bug(answered(413))),
        (429, None, throttled(answered(429), 60)),
        (429, Some("7"), throttled(answered(429), 7)),
        (406, Some("7"), throttled(answered(406), 7)),
        (500, None, retry(answered(500))),
        (503, Some("7"), throttled(answered(503), 7)),
        (302, None, misconfigured(Reason::unknown(302, ""))),
        (418, None, misconfigured(Reason::unknown(418, ""))),
    ] {
        line.fake.reply([(status, retry_after)]);
        assert_eq!(line.send().await, meaning, "{status} {retry_after:?}");
    }
    // A subscription for the key before.
    line.fake.subscribe("another key");
    assert_eq!(line.send().await, misconfigured(answered(403)));
}

/// Nothing is read but the status: neither what has no end nor what breaks off keeps us.
#[tokio::test]
async fn only_a_status_counts_as_an_answer() {
    for (reply, meaning) in [
        (Reply::Hang, retry(known("no answer: timeout"))),
        (Reply::Endless(201), accepted()),
        (Reply::Endless(410), dead(answered(410))),
        (Reply::Cut(503), retry(answered(503))),
        (
            Reply::Redirect(307),
            misconfigured(Reason::unknown(307, "")),
        ),
    ] {
        let line = Line::<FakePushService>::new(&["127.0.0.1"]).await;
        line.fake.reply([reply.clone()]);
        assert_eq!(line.send().await, meaning, "{reply:?}");
        assert_eq!(line.send().await, accepted());
        assert_eq!(line.fake.received().len(), 2, "nobody goes elsewhere");
    }
}

#[tokio::test]
async fn a_phone_does_not_choose_what_we_call() {
    for (allowed, reached) in [
        (&["127.0.0.1"][..], true),
        (&[], false),
        (&["fcm.googleapis.com", "*.push.apple.com"], false),
        (&["*"], false),
        (&["*27.0.0.1"], false),
        (&["*.0.0.1"], true),
        (&["27.0.0.1"], false),
    ] {
        let line = Line::<FakePushService>::new(allowed).await;
        let expected = if reached {
            accepted()
        } else {
            PushOutcome::Unreachable
        };
        assert_eq!(line.send().await, expected, "{allowed:?}");
        assert_eq!(line.fake.received().len(), usize::from(reached));
    }
    let mut line = Line::<FakePushService>::new(&["127.0.0.1", "localhost"]).await;
    let port = line.fake.url.rsplit_once(':').unwrap().1.to_owned();
    for endpoint in [
        format!("http://fcm.googleapis.com@127.0.0.1:{port}/"),
        format!("http://10.0.0.1:{port}/"),
        "file:///etc/passwd".into(),
        "no url".into(),
    ] {
        line.change(|subscription| subscription["endpoint"] = endpoint.as_str().into());
        assert_eq!(line.send().await, PushOutcome::Unreachable, "{endpoint}");
    }
    assert!(line.fake.received().is_empty());
}

#[tokio::test]
async fn what_is_no_subscription_is_dead() {
    for (member, value) in [
        ("p256dh", json!("")),
        ("p256dh", json!("BCVxsr7N")),
        ("auth", json!("AAAA")),
        ("auth", json!("!")),
        ("auth", json!(null)),
    ] {
        let mut line = Line::<FakePushService>::new(&["127.0.0.1"]).await;
        line.change(|subscription| subscription["keys"][member] = value);
        assert_eq!(
            line.send().await,
            dead(known("not a subscription")),
            "{member}"
        );
        assert!(line.fake.received().is_empty());
    }
    let mut line = Line::<FakePushService>::new(&["127.0.0.1"]).await;
    line.device.push_target = Some(Secret::new("token".into()));
    assert_eq!(line.send().await, dead(known("not a subscription")));
}
