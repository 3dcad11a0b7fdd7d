//! Apple's gateway: what it is sent, and what each of its answers means.

use super::fake_apns::{FakeApns, KEY_ID, Received, Reply, TEAM};
use super::{Line, after, dead, known, misconfigured, our_bug, policy, retry, throttled};
use crate::support::START;
use assent::clock::ManualClock;
use assent::crypto::jose::SigningKey;
use assent::domain::device::Platform;
use assent::domain::{SignatureAlgorithm, Timestamp};
use assent::outbound::{Outbound, OutboundPolicy};
use assent::push::apns::ApnsSettings;
use assent::push::{Apns, PushOutcome, PushRouter, Reason, Signal};
use serde_json::{Value, json};
use std::sync::Arc;

const TARGET: &str = "00fc13adff785122b4ad28809a3420982341241421348097878e577c991de8f0";
const TOPIC: &str = "org.example.approver";
const MINUTES: u64 = 60;

impl Line<FakeApns> {
    pub async fn new() -> Self {
        let fake = FakeApns::new(Arc::new(ManualClock::new(START))).await;
        let root = fake.root_der.clone();
        Self::trusting(fake, root)
    }

    fn trusting(fake: FakeApns, root: Vec<u8>) -> Self {
        let key = SigningKey::from_pem(&fake.key_pem, KEY_ID, SignatureAlgorithm::Es256);
        let outbound = Outbound::over_http2(OutboundPolicy {
            extra_roots: vec![root],
            ..policy()
        });
        let settings = ApnsSettings {
            base_url: fake.url.clone(),
            team_id: TEAM.into(),
            key: key.unwrap(),
            topic: TOPIC.into(),
        };
        let mut router = PushRouter::default();
        router
            .apns
            .add(None, Apns::new(settings, outbound.unwrap()));
        Self {
            clock: fake.clock.clone(),
            fake,
            router,
            device: super::device(Platform::Apns, TARGET),
        }
    }

    /// What one answer is taken for.
    async fn answered(&self, reply: Reply) -> PushOutcome {
        self.fake.reply([reply]);
        self.send().await
    }
}

fn accepted() -> PushOutcome {
    PushOutcome::Accepted {
        id: Some("5a5a5a5a-5a5a-4a5a-9a5a-5a5a5a5a5a5a".into()),
    }
}

#[tokio::test]
async fn a_message_has_every_header_and_says_nothing() {
    let line = Line::<FakeApns>::new().await;
    assert_eq!(line.send().await, accepted());
    let received = line.fake.received();
    let [
        Received {
            method,
            path,
            headers,
            body,
            ..
        },
    ] = &received[..]
    else {
        panic!("{received:?}");
    };
    assert_eq!(
        (method.as_str(), path),
        ("POST", &format!("/3/device/{TARGET}"))
    );
    let mut headers = headers.clone();
    let token = headers.remove("authorization").unwrap();
    assert!(token.starts_with("bearer ey"), "{token}");
    for ours in ["user-agent", "content-length", "accept", "accept-encoding"] {
        headers.remove(ours);
    }
    let expected = [
        ("apns-collapse-id", "cmVmZXJlbmNlLTIyLWNocw".to_owned()),
        ("apns-expiration", after(120).secs().to_string()),
        ("apns-id", "5a5a5a5a-5a5a-4a5a-9a5a-5a5a5a5a5a5a".to_owned()),
        ("apns-priority", "10".to_owned()),
        ("apns-push-type", "alert".to_owned()),
        ("apns-topic", TOPIC.to_owned()),
        ("content-type", "application/json".to_owned()),
    ];
    let expected = expected.map(|(name, value)| (name.to_owned(), value));
    assert_eq!(headers.into_iter().collect::<Vec<_>>(), expected);
    assert_eq!(
        serde_json::from_str::<Value>(body).unwrap(),
        json!({
            "aps": {
                "alert": { "loc-key": "request.waiting" },
                "sound": "default",
                "mutable-content": 0,
            },
            "reference": "cmVmZXJlbmNlLTIyLWNocw",
            "signal": "request.waiting",
        })
    );
}

#[tokio::test]
async fn what_is_silent_wakes_nobody_and_takes_no_other_messages_place() {
    let line = Line::<FakeApns>::new().await;
    assert_eq!(line.signal(Signal::Resolved).await, accepted());
    let received = line.fake.received();
    let header = |name: &str| received[0].headers.get(name).map(String::as_str);
    assert_eq!(header("apns-push-type"), Some("background"));
    assert_eq!(header("apns-priority"), Some("5"));
    assert_eq!(header("apns-expiration"), Some("0"));
    assert_eq!(header("apns-collapse-id"), None);
    assert_eq!(
        serde_json::from_str::<Value>(&received[0].body).unwrap(),
        json!({
            "aps": { "content-available": 1, "mutable-content": 0 },
            "reference": "cmVmZXJlbmNlLTIyLWNocw",
            "signal": "request.resolved",
        })
    );
    assert_eq!(line.signal(Signal::Test).await, accepted());
    let received = line.fake.received();
    assert_eq!(received[0].headers["apns-push-type"], "alert");
    let body: Value = serde_json::from_str(&received[0].body).unwrap();
    assert_eq!(body["aps"]["alert"]["loc-key"], "push.test");
}

#[tokio::test]
async fn each_answer_means_what_apple_says() {
    let line = Line::<FakeApns>::new().await;
    // Before anything has worked, a bad token may be the wrong environment: no phone loses its target.
    let bad = || Reply::refuse(400, "BadDeviceToken");
    assert_eq!(
        line.answered(bad()).await,
        misconfigured(known("BadDeviceToken"))
    );
    assert_eq!(line.send().await, accepted());
    assert_eq!(line.answered(bad()).await, dead(known("BadDeviceToken")));

    for (status, reasons, meaning) in [
        (
            400,
            &[
                "DeviceTokenNotForTopic",
                "TopicDisallowed",
                "MissingTopic",
                "BadTopic",
            ][..],
            misconfigured as fn(Reason) -> PushOutcome,
        ),
        (
            400,
            &[
                "BadCollapseId",
                "BadExpirationDate",
                "BadMessageId",
                "BadPriority",
                "InvalidPushType",
                "DuplicateHeaders",
                "PayloadEmpty",
                "MissingDeviceToken",
            ],
            our_bug,
        ),
        (400, &["IdleTimeout"], retry),
        (
            403,
            &[
                "ExpiredProviderToken",
                "InvalidProviderToken",
                "MissingProviderToken",
                "BadCertificate",
                "BadCertificateEnvironment",
                "Forbidden",
                "UnrelatedKeyIdInToken",
                "BadEnvironmentKeyIdInToken",
            ],
            misconfigured,
        ),
        (404, &["BadPath"], our_bug),
        (405, &["MethodNotAllowed"], our_bug),
        (410, &["Unregistered", "ExpiredToken"], dead),
        (413, &["PayloadTooLarge"], our_bug),
        (
            429,
            &["TooManyRequests", "TooManyProviderTokenUpdates"],
            |reason| throttled(reason, 10),
        ),
        (500, &["InternalServerError"], retry),
        (503, &["ServiceUnavailable", "Shutdown"], retry),
    ] {
        for reason in reasons {
            let outcome = line.answered(Reply::refuse(status, reason)).await;
            assert_eq!(outcome, meaning(known(reason)), "{status}");
        }
        // The status alone decides about what Apple may think of tomorrow, and the word is kept.
        let outcome = line.answered(Reply::refuse(status, "Brand\nNew!")).await;
        let unknown = Reason::unknown(status, "BrandNew");
        let meaning = if status == 400 { our_bug } else { meaning };
        assert_eq!(outcome, meaning(unknown), "{status}");
    }
    let there = format!("{}/3/device/00", line.fake.url);
    let elsewhere = vec![("location", there)];
    line.fake.received();
    for reply in [
        Reply::Say(307, elsewhere, Value::Null),
        Reply::Say(204, vec![], Value::Null),
    ] {
        let Reply::Say(status, ..) = reply else {
            unreachable!()
        };
        let outcome = line.answered(reply).await;
        assert_eq!(outcome, misconfigured(Reason::unknown(status, "")));
        assert_eq!(line.fake.received().len(), 1, "nobody goes there");
    }
}

#[tokio::test]
async fn times_that_come_with_an_answer_are_kept() {
    let line = Line::<FakeApns>::new().await;
    let gone = json!({ "reason": "ExpiredToken", "timestamp": START.millis() - 4711 });
    let since = Some(Timestamp::from_millis(START.millis() - 4711));
    let reason = known("ExpiredToken");
    assert_eq!(
        line.answered(Reply::Say(410, vec![], gone)).await,
        PushOutcome::TokenDead { reason, since }
    );
    for (status, reason) in [(429, "TooManyRequests"), (503, "ServiceUnavailable")] {
        for text in ["77", "Thu, 01 Jan 2026 00:01:17 GMT"] {
            let headers = vec![("retry-after", text.to_owned())];
            let reply = Reply::Say(status, headers, json!({ "reason": reason }));
            assert_eq!(
                line.answered(reply).await,
                throttled(known(reason), 77),
                "{text}"
            );
        }
        let headers = vec![("retry-after", "soon".to_owned())];
        let reply = Reply::Say(status, headers, json!({ "reason": reason }));
        assert_ne!(line.answered(reply).await, throttled(known(reason), 77));
    }
}

#[tokio::test]
async fn what_is_no_device_token_is_sent_nowhere() {
    let mut line = Line::<FakeApns>::new().await;
    let long = "a".repeat(201);
    for target in ["../../elsewhere", "00fc?x", "00 fc", long.as_str()] {
        line.device = super::device(Platform::Apns, target);
        assert_eq!(line.send().await, dead(known("not a device token")));
    }
    assert!(line.fake.received().is_empty());
}

#[tokio::test]
async fn a_provider_token_lives_between_twenty_and_sixty_minutes() {
    let line = Line::<FakeApns>::new().await;
    // A push every five minutes, for four hours.
    for _ in 0..48 {
        assert_eq!(line.send().await, accepted());
        line.advance(5 * MINUTES);
    }
    assert_eq!(line.fake.tokens_made_at(), [0, 3000, 6000, 9000, 12000]);
    // After a long silence the first push has a fresh one.
    line.advance(600 * MINUTES);
    assert_eq!(line.send().await, accepted());
    assert_eq!(line.fake.tokens_made_at().len(), 6);
}

#[tokio::test]
async fn an_expired_provider_token_is_renewed_once() {
    let line = Line::<FakeApns>::new().await;
    let expired = || Reply::refuse(403, "ExpiredProviderToken");
    assert_eq!(line.send().await, accepted());
    // Too young to be replaced: something else is wrong.
    line.advance(19 * MINUTES);
    assert_eq!(
        line.answered(expired()).await,
        misconfigured(known("ExpiredProviderToken"))
    );
    assert_eq!(line.fake.received().len(), 2);
    line.advance(MINUTES);
    assert_eq!(line.answered(expired()).await, accepted());
    assert_eq!(line.fake.received().len(), 2, "once more with a new token");
    assert_eq!(line.fake.tokens_made_at(), [0, 1200]);
    line.advance(20 * MINUTES);
    line.fake.reply([expired(), expired(), expired()]);
    assert_eq!(
        line.send().await,
        misconfigured(known("ExpiredProviderToken"))
    );
    assert_eq!(line.fake.received().len(), 2, "and no more than once");
}

#[tokio::test]
async fn after_too_many_updates_none_is_made_for_twenty_minutes() {
    let line = Line::<FakeApns>::new().await;
    let too_many = || Reply::refuse(429, "TooManyProviderTokenUpdates");
    assert_eq!(line.send().await, accepted());
    line.advance(45 * MINUTES);
    let outcome = line.answered(too_many()).await;
    assert!(
        matches!(outcome, PushOutcome::Throttled { .. }),
        "{outcome:?}"
    );
    // The old one is good for an hour; after that there is none until the twenty minutes are over.
    line.advance(14 * MINUTES);
    assert_eq!(line.send().await, accepted());
    assert_eq!(line.fake.tokens_made_at(), [0]);
    line.advance(MINUTES);
    line.fake.received();
    let reason = known("TooManyProviderTokenUpdates");
    assert_eq!(line.send().await, throttled(reason, 65 * 60));
    assert!(line.fake.received().is_empty());
    line.advance(5 * MINUTES);
    assert_eq!(line.send().await, accepted());
    assert_eq!(line.fake.tokens_made_at(), [0, 65 * 60]);
}

#[tokio::test]
async fn many_pushes_at_once_share_one_token_and_one_connection() {
    let line = Arc::new(Line::<FakeApns>::new().await);
    let sends = (0..20).map(|_| {
        let line = line.clone();
        async move { line.send().await }
    });
    for outcome in crate::support::all(sends).await {
        assert_eq!(outcome, accepted());
    }
    assert_eq!(line.fake.tokens_made_at(), [0]);
    let received = line.fake.received();
    assert_eq!(received.len(), 20);
    assert!(received.iter().all(|message| message.connection == 1));
}

#[tokio::test]
async fn a_gateway_that_goes_away_is_found_again() {
    let line = Line::<FakeApns>::new().await;
    for connection in 1..4 {
        assert_eq!(line.send().await, accepted());
        line.fake.reply([Reply::GoAway]);
        assert_eq!(line.send().await, accepted());
        let received = line.fake.received();
        let over: Vec<_> = received.iter().map(|message| message.connection).collect();
        assert_eq!(over, [connection, connection]);
    }
}

/// In the middle of a message, before the answer and in it.
#[tokio::test]
async fn a_gateway_that_goes_away_at_once_costs_another_try() {
    let line = Line::<FakeApns>::new().await;
    assert_eq!(line.send().await, accepted());
    let broken = || retry(known("no answer: broken"));
    for (reply, meaning, messages) in [
        (Reply::GoAwayUnanswered, broken(), 1),
        (Reply::GoAwayHalfway(200), broken(), 1),
        (Reply::GoAwayHalfway(503), broken(), 1),
        (Reply::NotLookedAt, accepted(), 2),
    ] {
        line.fake.received();
        assert_eq!(line.answered(reply.clone()).await, meaning, "{reply:?}");
        assert_eq!(line.fake.received().len(), messages, "{reply:?}");
        assert_eq!(line.send().await, accepted(), "over a new connection");
    }
}

#[tokio::test]
async fn slow_and_endless_answers_end_by_themselves() {
    let line = Line::<FakeApns>::new().await;
    let slow = line.answered(Reply::Hang).await;
    assert_eq!(slow, retry(known("no answer: timeout")));
    let endless = line.answered(Reply::Endless(503)).await;
    assert_eq!(endless, retry(known("no answer: too_large")));
    assert_eq!(line.send().await, accepted(), "neither holds up the next");
    // A gateway under a root that nobody trusts.
    let other = FakeApns::new(line.fake.clock.clone()).await;
    let stranger = Line::<FakeApns>::trusting(other, line.fake.root_der.clone());
    assert_eq!(stranger.send().await, retry(known("no answer: tls")));
    assert!(stranger.fake.received().is_empty());
}
