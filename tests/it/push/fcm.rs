//! Google's gateway: what it is sent, and what each of its answers means.

use super::fake_fcm::{FakeFcm, PROJECT, Reply};
use super::{Line, dead, known, misconfigured, our_bug, policy, retry, throttled};
use crate::support::START;
use assent::clock::ManualClock;
use assent::domain::device::Platform;
use assent::outbound::Outbound;
use assent::push::fcm::{InvalidServiceAccount, ServiceAccount};
use assent::push::{Fcm, PushOutcome, PushRouter, Reason, Signal};
use serde_json::{Value, json};
use std::sync::Arc;

const TARGET: &str = "fGw0qy4TQfmX:APA91bH_registration-token/with?odd characters";

impl Line<FakeFcm> {
    pub async fn new() -> Self {
        let fake = FakeFcm::new(Arc::new(ManualClock::new(START))).await;
        let outbound = Outbound::new(policy());
        let account = ServiceAccount::parse(&fake.service_account).unwrap();
        let mut router = PushRouter::default();
        let fcm = Fcm::new(account, &fake.url, outbound.unwrap());
        router.fcm.add(None, fcm);
        Self {
            clock: fake.clock.clone(),
            fake,
            router,
            device: super::device(Platform::Fcm, TARGET),
        }
    }

    async fn answered(&self, reply: Reply) -> PushOutcome {
        self.fake.reply([reply]);
        self.send().await
    }
}

fn accepted() -> PushOutcome {
    PushOutcome::Accepted {
        id: Some(format!("projects/{PROJECT}/messages/0:1")),
    }
}

/// An error as FCM writes it: with its own code, or only with Google's general one.
fn error(status: u16, general: &str, code: Option<&str>, message: &str) -> Reply {
    let details: Vec<_> = code
        .iter()
        .map(|code| {
            json!({
                "@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError",
                "errorCode": code,
            })
        })
        .collect();
    let error = json!({
        "code": status, "message": message, "status": general, "details": details,
    });
    Reply::refuse(status, json!({ "error": error }))
}

#[tokio::test]
async fn a_message_holds_a_reference_and_nothing_else() {
    let line = Line::<FakeFcm>::new().await;
    line.advance(20);
    assert_eq!(line.send().await, accepted());
    let received = line.fake.received();
    assert_eq!(received.len(), 1);
    assert_eq!(
        received[0].path,
        format!("/v1/projects/{PROJECT}/messages:send")
    );
    assert_eq!(received[0].authorization, "Bearer access-token-1");
    assert_eq!(
        serde_json::from_str::<Value>(&received[0].body).unwrap(),
        json!({
            "message": {
                "token": TARGET,
                "data": {
                    "reference": "cmVmZXJlbmNlLTIyLWNocw",
                    "signal": "request.waiting",
                },
                "android": {
                    "priority": "HIGH",
                    "ttl": "100s",
                    "collapse_key": "cmVmZXJlbmNlLTIyLWNocw",
                },
            },
        })
    );
}

#[tokio::test]
async fn what_is_silent_is_not_urgent() {
    let line = Line::<FakeFcm>::new().await;
    for (signal, name, priority) in [
        (Signal::Resolved, "request.resolved", "NORMAL"),
        (Signal::Test, "push.test", "HIGH"),
    ] {
        assert_eq!(line.signal(signal).await, accepted());
        let body: Value = serde_json::from_str(&line.fake.received()[0].body).unwrap();
        let message = &body["message"];
        let reference = "cmVmZXJlbmNlLTIyLWNocw";
        assert_eq!(
            message["data"],
            json!({ "reference": reference, "signal": name })
        );
        assert_eq!(message["android"]["priority"], priority);
        assert_eq!(message["android"]["collapse_key"], reference);
    }
}

#[tokio::test]
async fn each_answer_means_what_google_says() {
    let line = Line::<FakeFcm>::new().await;
    let bad_token = || {
        let message = "The registration token is not a valid FCM registration token";
        error(400, "INVALID_ARGUMENT", Some("INVALID_ARGUMENT"), message)
    };
    // As long as no message was ever accepted, it may be the message.
    assert_eq!(
        line.answered(bad_token()).await,
        our_bug(known("INVALID_ARGUMENT"))
    );
    assert_eq!(line.send().await, accepted());
    assert_eq!(
        line.answered(bad_token()).await,
        dead(known("INVALID_ARGUMENT"))
    );
    // The other shape of a 400, with or without FCM's own code, is about the message.
    let violations = json!({
        "@type": "type.googleapis.com/google.rpc.BadRequest",
        "fieldViolations": [{ "field": "message.android.ttl", "description": "Illegal format" }],
    });
    let general = json!({
        "code": 400, "status": "INVALID_ARGUMENT", "details": [violations],
        "message": "Invalid value at 'message.android.ttl', not a registration token",
    });
    let mut both = general.clone();
    both["details"].as_array_mut().unwrap().push(json!({
        "@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError",
        "errorCode": "INVALID_ARGUMENT",
    }));
    for error in [general, both] {
        let reply = Reply::refuse(400, json!({ "error": error }));
        assert_eq!(
            line.answered(reply).await,
            our_bug(known("INVALID_ARGUMENT"))
        );
    }

    for (status, general, code, meaning) in [
        (
            404,
            "NOT_FOUND",
            Some("UNREGISTERED"),
            dead(known("UNREGISTERED")),
        ),
        (
            404,
            "NOT_FOUND",
            None,
            misconfigured(Reason::unknown(404, "NOT_FOUND")),
        ),
        (
            400,
            "INVALID_ARGUMENT",
            Some("INVALID_ARGUMENT"),
            our_bug(known("INVALID_ARGUMENT")),
        ),
        (
            400,
            "FAILED_PRECONDITION",
            None,
            our_bug(Reason::unknown(400, "FAILED_PRECONDITION")),
        ),
        (
            403,
            "PERMISSION_DENIED",
            Some("SENDER_ID_MISMATCH"),
            misconfigured(known("SENDER_ID_MISMATCH")),
        ),
        (
            403,
            "PERMISSION_DENIED",
            None,
            misconfigured(known("PERMISSION_DENIED")),
        ),
        (403, "NEW", None, misconfigured(Reason::unknown(403, "NEW"))),
        (
            429,
            "RESOURCE_EXHAUSTED",
            Some("QUOTA_EXCEEDED"),
            throttled(known("QUOTA_EXCEEDED"), 60),
        ),
        (429, "NEW", None, throttled(Reason::unknown(429, "NEW"), 60)),
        (500, "INTERNAL", Some("INTERNAL"), retry(known("INTERNAL"))),
        (
            503,
            "UNAVAILABLE",
            Some("UNAVAILABLE"),
            retry(known("UNAVAILABLE")),
        ),
        (502, "", None, retry(Reason::unknown(502, ""))),
        (302, "", None, misconfigured(Reason::unknown(302, ""))),
        (413, "", None, our_bug(Reason::unknown(413, ""))),
    ] {
        let outcome = line
            .answered(error(status, general, code, "as it is"))
            .await;
        assert_eq!(outcome, meaning, "{status} {general} {code:?}");
    }
    for (status, code) in [(429, "QUOTA_EXCEEDED"), (503, "UNAVAILABLE")] {
        let Reply::Say(_, _, body) = error(status, code, Some(code), "") else {
            unreachable!()
        };
        let outcome = line.answered(Reply::Say(status, Some("17"), body)).await;
        assert_eq!(outcome, throttled(known(code), 17));
    }
    assert_eq!(line.fake.tokens_made(), 1);
}

#[tokio::test]
async fn a_refused_token_is_renewed_once() {
    let line = Line::<FakeFcm>::new().await;
    assert_eq!(line.send().await, accepted());
    line.fake.revoke_token();
    line.fake.received();
    assert_eq!(line.send().await, accepted());
    assert_eq!(line.fake.received().len(), 2);
    let made = line.fake.tokens_made();
    // What another gateway has against Google is not mended by a token of ours.
    for (code, tries) in [("UNAUTHENTICATED", 2), ("THIRD_PARTY_AUTH_ERROR", 1)] {
        let refuse = || error(401, "UNAUTHENTICATED", Some(code), "");
        line.fake.reply((0..tries).map(|_| refuse()));
        assert_eq!(line.send().await, misconfigured(known(code)));
        assert_eq!(line.fake.received().len(), tries, "no more than once");
    }
    assert_eq!(line.fake.tokens_made(), made + 1);
}

#[tokio::test]
async fn an_access_token_is_kept_until_five_minutes_before_its_end() {
    let line = Line::<FakeFcm>::new().await;
    for (seconds, tokens) in [(0, 1), (3298, 1), (1, 2), (3298, 2), (1, 3), (7200, 4)] {
        line.advance(seconds);
        assert_eq!(line.send().await, accepted());
        assert_eq!(line.fake.tokens_made(), tokens);
    }
}

#[tokio::test]
async fn many_pushes_at_once_fetch_one_token() {
    let line = Arc::new(Line::<FakeFcm>::new().await);
    let sends = || {
        (0..20).map(|_| {
            let line = line.clone();
            async move { line.send().await }
        })
    };
    // A failure is for all who waited, too: only one of them asked.
    line.fake.reply_for_token([Reply::refuse(503, Value::Null)]);
    for outcome in crate::support::all(sends()).await {
        assert_eq!(outcome, retry(Reason::unknown(503, "")));
    }
    assert_eq!(line.fake.tokens_made(), 0);
    line.advance(1);
    for outcome in crate::support::all(sends()).await {
        assert_eq!(outcome, accepted());
    }
    assert_eq!(line.fake.tokens_made(), 1);
    assert_eq!(line.fake.received().len(), 20);
}

#[tokio::test]
async fn each_refusal_of_a_token_means_something() {
    for (reply, meaning) in [
        (
            Reply::refuse(400, json!({ "error": "invalid_grant" })),
            misconfigured(known("token endpoint: invalid_grant")),
        ),
        (
            Reply::refuse(401, json!({ "error": "brand_new" })),
            misconfigured(Reason::unknown(401, "brand_new")),
        ),
        (
            Reply::Say(429, Some("9"), Value::Null),
            throttled(Reason::unknown(429, ""), 9),
        ),
        (
            Reply::refuse(500, Value::Null),
            retry(Reason::unknown(500, "")),
        ),
        (
            Reply::refuse(200, json!({ "access_token": 7 })),
            misconfigured(Reason::unknown(200, "")),
        ),
        (
            Reply::refuse(302, Value::Null),
            misconfigured(Reason::unknown(302, "")),
        ),
    ] {
        // Not asked again within the second.
        let line = Line::<FakeFcm>::new().await;
        line.fake.reply_for_token([reply]);
        assert_eq!(line.send().await, meaning);
        assert_eq!(line.send().await, meaning);
        line.advance(1);
        assert_eq!(line.send().await, accepted());
    }
}

#[tokio::test]
async fn what_is_no_proper_answer_costs_another_try() {
    for (reply, meaning) in [
        (Reply::Hang, retry(known("no answer: timeout"))),
        (Reply::Endless(200), retry(known("no answer: too_large"))),
        (Reply::Endless(503), retry(known("no answer: too_large"))),
        (Reply::Cut(503), retry(known("no answer: broken"))),
        (
            Reply::Redirect(307),
            misconfigured(Reason::unknown(307, "")),
        ),
    ] {
        let line = Line::<FakeFcm>::new().await;
        assert_eq!(line.answered(reply.clone()).await, meaning, "{reply:?}");
        assert_eq!(line.fake.received().len(), 1, "nobody goes elsewhere");
        assert_eq!(line.send().await, accepted());
        line.fake.revoke_token();
        line.fake.reply_for_token([reply.clone()]);
        assert_eq!(line.send().await, meaning, "{reply:?} for a token");
        assert_eq!(line.fake.received().len(), 2, "nobody goes elsewhere");
    }
}

#[tokio::test]
async fn a_file_that_is_no_service_account_is_refused() {
    let fake = FakeFcm::new(Arc::new(ManualClock::new(START))).await;
    let good: Value = serde_json::from_str(&fake.service_account).unwrap();
    let parse = |text: String| ServiceAccount::parse(&text).map(|_| ());
    assert!(parse(good.to_string()).is_ok());
    for (member, value, why) in [
        ("project_id", json!("../x"), "its project_id is not one"),
        ("project_id", json!(""), "its project_id is not one"),
        (
            "private_key",
            json!("a secret"),
            "its private_key is not an RSA key in PEM",
        ),
        (
            "private_key",
            json!(null),
            "not the JSON file of a service account",
        ),
        (
            "token_uri",
            json!(7),
            "not the JSON file of a service account",
        ),
    ] {
        let mut bad = good.clone();
        bad[member] = value;
        let refused: InvalidServiceAccount = parse(bad.to_string()).unwrap_err();
        assert_eq!(refused.to_string(), why, "{member}");
    }
}
