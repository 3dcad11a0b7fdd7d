//! `assent push test`, against a gateway that answers as Apple's does; and what an operator sees of one that fails.

use super::{assert_fails_with, fails, succeeds};
use crate::push::fake_apns::{FakeApns, KEY_ID, Reply, TEAM};
use crate::support::house::bind_device;
use crate::support::process::{Site, pause};
use crate::support::{Backend, pem, registration};
use assent::app::Core;
use assent::clock::{Clock as _, ManualClock, SystemClock};
use assent::domain::device::Platform;
use assent::domain::user::Login;
use assent::domain::{Device, Secret};
use assent::phone::http::{HttpClient, basic};
use assent::service::devices::Actor;
use serde_json::{Value, json};
use std::sync::Arc;

const TARGET: &str = "00fc13adff785122b4ad28809a3420982341241421348097878e577c991de8f0";

/// An installation, with Alice's phone and the gateway that wakes it.
struct Scene {
    site: Site,
    core: Core,
    device: Device,
    apns: FakeApns,
}

impl Scene {
    async fn new() -> Self {
        let site = Site::new(Backend::sqlite());
        let core = site.core().await;
        let services = &core.services;
        let login = Login::parse("alice").unwrap();
        let alice = services.add_user(login, None).await.unwrap().unwrap();
        let device = bind_device(&services.directory, &alice).await;
        let apns = FakeApns::new(Arc::new(ManualClock::new(SystemClock.now()))).await;
        let file = |name: &str, text: &str| {
            let path = site.folder().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let key = file("AuthKey.p8", &apns.key_pem);
        let root = file("root.pem", &pem("CERTIFICATE", &apns.root_der));
        let text = format!(
            "outbound.extra_roots_file = {root:?}\n\
             [[push.apns]]\nteam_id = '{TEAM}'\nkey_id = '{KEY_ID}'\nkey_file = {key:?}\n\
             topic = 'org.example.approver'\nbase_url = '{}'\n",
            apns.url
        );
        file("assent.toml", &text);
        let scene = Self {
            site,
            core,
            device,
            apns,
        };
        scene.register(Platform::Apns, Some(TARGET)).await;
        scene
    }

    async fn register(&self, platform: Platform, target: Option<&str>) {
        let target = target.map(|target| Secret::new(target.into()));
        let directory = &self.core.services.directory;
        let now = SystemClock.now();
        directory
            .set_push_target(&self.device.id, platform, target.as_ref(), None, now)
            .await
            .unwrap();
    }

    fn arguments(&self) -> [&str; 5] {
        let device = self.device.id.as_str();
        ["push", "test", device, "--config", "assent.toml"]
    }

    /// What programs and people are told when it does not go well; the words are in the explanation.
    #[track_caller]
    fn refused(&self, outcome: &str, reason: Option<&str>, words: &str) {
        let json = [&self.arguments()[..], &["--json"]].concat();
        let done = self.site.run(&json);
        assert_eq!(done.code, Some(1), "{done:?}");
        let told: Value = serde_json::from_str(&done.stdout).unwrap();
        assert_eq!(
            (&told["outcome"], &told["reason"]),
            (&json!(outcome), &json!(reason)),
            "{told}"
        );
        assert!(told["gateway_id"].is_null());
        assert!(
            told["explanation"].as_str().unwrap().contains(words),
            "{told}"
        );
        assert_fails_with(&done, words);
    }

    async fn has_target(&self) -> bool {
        let directory = &self.core.services.directory;
        let device = directory.device(&self.device.id).await.unwrap().unwrap();
        device.push_target.is_some()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_test_is_sent_and_shown() {
    let scene = Scene::new().await;
    let said = succeeds(&scene.site, &scene.arguments());
    assert!(
        said.starts_with("apns: accepted\nThe gateway has taken it."),
        "{said}"
    );
    let [message] = &scene.apns.received()[..] else {
        panic!("one message")
    };
    assert_eq!(message.path, format!("/3/device/{TARGET}"));
    assert_eq!(message.headers["apns-push-type"], "alert");
    assert!(message.body.contains(r#""loc-key":"push.test""#));
    assert!(!message.body.contains(scene.device.id.as_str()));

    let too_many = "TooManyProviderTokenUpdates";
    scene.refused("throttled", Some(too_many), "each test makes one");
    scene.apns.received();
    scene.apns.forget_tokens();
    let told = scene.site.json(&scene.arguments());
    assert_eq!(told["outcome"], "accepted");
    assert_eq!(told["platform"], "apns");
    assert_eq!(told["device_id"], scene.device.id.as_str());
    let message = &scene.apns.received()[0];
    assert_eq!(told["gateway_id"], message.headers["apns-id"].as_str());
}

#[tokio::test(flavor = "multi_thread")]
async fn each_outcome_is_explained() {
    let scene = Scene::new().await;
    let later = vec![("retry-after", "3600".to_owned())];
    let busy = json!({ "reason": "TooManyRequests" });
    for (reply, outcome, reason, words) in [
        (
            Reply::Say(429, later, busy),
            "throttled",
            "TooManyRequests",
            "try again after 20",
        ),
        (
            Reply::refuse(503, "ServiceUnavailable"),
            "retry",
            "ServiceUnavailable",
            "has trouble",
        ),
        (
            Reply::refuse(403, "InvalidProviderToken"),
            "misconfigured",
            "InvalidProviderToken",
            "compare team_id, key_id",
        ),
        (
            Reply::refuse(400, "PayloadEmpty"),
            "our_bug",
            "PayloadEmpty",
            "please report it",
        ),
        (
            Reply::Say(
                410,
                vec![],
                json!({ "reason": "Unregistered", "timestamp": 1 }),
            ),
            "token_dead",
            "Unregistered",
            "the newer one is kept",
        ),
    ] {
        scene.apns.forget_tokens();
        scene.apns.reply([reply]);
        scene.refused(outcome, Some(reason), words);
        assert!(scene.has_target().await, "{outcome}");
    }
    scene.apns.received();
    scene.register(Platform::Apns, Some(TARGET)).await;
    scene.apns.forget_tokens();
    scene.apns.reply([Reply::refuse(410, "Unregistered")]);
    scene.refused("token_dead", Some("Unregistered"), "open the app");
    assert!(!scene.has_target().await);
    let buried = "audit WHERE kind = 'device.push_target_dead'";
    assert_eq!(scene.site.backend.count(buried).await, 1);
    scene.refused("unreachable", None, "has no push target");
    assert_eq!(scene.apns.received().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_cannot_be_reached_is_told_why() {
    let scene = Scene::new().await;
    scene.register(Platform::None, None).await;
    scene.refused("unreachable", None, "platform none");
    scene.register(Platform::Fcm, Some("token")).await;
    scene.refused("unreachable", None, "[[push.fcm]] is missing");
    scene.register(Platform::WebPush, Some("{}")).await;
    scene.refused("unreachable", None, "[push.web_push] is missing");
    // Without any gateway the server's own stand-in would take it.
    let bare = ["push", "test", scene.device.id.as_str()];
    let done = scene.site.run(&bare);
    assert_eq!(
        (done.code, done.stdout.as_str()),
        (Some(1), "webpush: unreachable\n")
    );
    assert_fails_with(&done, "[push.web_push] is missing");
    assert!(scene.apns.received().is_empty());

    fails(
        &scene.site,
        &["push", "test", "x"],
        "there is no such device",
    );
    let services = &scene.core.services;
    services
        .revoke_device(&scene.device, Actor::Operator)
        .await
        .unwrap();
    fails(&scene.site, &scene.arguments(), "the device is revoked");
}

/// What it shows of requests that are there: `push::delivery_log`.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_without_requests_says_so() {
    let scene = Scene::new().await;
    let nothing = "No request of the last minutes is known.\n";
    assert_eq!(succeeds(&scene.site, &["push", "log", "alice"]), nothing);
    let words = "nobody has the login bob";
    fails(&scene.site, &["push", "log", "bob"], words);
}

/// One line in the log and one number to watch, however many people are asked meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_fails_is_told_once() {
    let scene = Scene::new().await;
    let services = &scene.core.services;
    let down = || Reply::refuse(503, "ServiceUnavailable");
    scene.apns.reply((0..100).map(|_| down()));
    let (client, secret) = services
        .add_client(None, registration())
        .await
        .unwrap()
        .unwrap();
    let credentials = basic(client.id.as_str(), secret.unwrap().expose());
    let target = Secret::new(TARGET.into());
    let now = SystemClock.now();
    for number in 0..25 {
        let login = Login::parse(&format!("person-{number}")).unwrap();
        let user = services.add_user(login, None).await.unwrap().unwrap();
        let device = bind_device(&services.directory, &user).await;
        let directory = &services.directory;
        let set = directory.set_push_target(&device.id, Platform::Apns, Some(&target), None, now);
        set.await.unwrap();
    }
    let command = scene.site.command(&["serve", "--config", "assent.toml"]);
    let mut server = scene.site.serve_by(command).await;
    let http = HttpClient::new();
    for number in 0..25 {
        let url = format!("{}/bc-authorize", scene.site.url);
        let login = format!("person-{number}");
        let form = [("scope", "openid"), ("login_hint", login.as_str())];
        let answer = http
            .form(&url, &[("authorization", &credentials)], &form)
            .await;
        assert_eq!(answer.unwrap().status, 200);
    }
    let metrics = format!("{}/metrics", scene.site.management_url);
    let mut seen = String::new();
    for _ in 0..1000 {
        seen = http.get(&metrics, &[]).await.unwrap().body;
        if seen.contains("assent_pushes_held_back_total") {
            break;
        }
        pause(20).await;
    }
    for line in [
        r#"assent_push_gateways_failing{platform="apns"} 1"#,
        r#"assent_pushes_held_back_total{platform="apns",why="failing"}"#,
        r#"assent_pushes_total{platform="apns",outcome="retry"}"#,
    ] {
        assert!(seen.contains(line), "{line}: {seen}");
    }
    assert!(!seen.contains("held_back\""), "no attempt was made: {seen}");
    server.stop().await;
    let log = server.log();
    let errors: Vec<_> = log.lines().filter(|line| line.contains("ERROR")).collect();
    let [error] = errors[..] else { panic!("{log}") };
    assert!(
        error.contains("a push gateway fails and is left alone"),
        "{error}"
    );
    assert!(
        error.contains(r#"name="all""#) && error.contains("ServiceUnavailable"),
        "{error}"
    );
}
