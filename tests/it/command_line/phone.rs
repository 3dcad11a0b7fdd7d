//! A phone in the terminal against a real server, and the devices it becomes.

use super::{fails, makes_no_sense, succeeds};
use crate::support::process::{Site, pause};
use crate::support::{Backend, CIBA_GRANT, request_id};
use assent::clock::{Clock as _, SystemClock};
use assent::phone::http::{Answer, HttpClient, basic};
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

/// A relying party that was added with `assent client add`.
struct Bank {
    url: String,
    credentials: String,
    http: HttpClient,
}

impl Bank {
    fn new(site: &Site) -> Self {
        let added = site.json(&["client", "add", "Example Bank", "--id", "bank"]);
        Self {
            url: site.url.clone(),
            credentials: basic("bank", added["client_secret"].as_str().unwrap()),
            http: HttpClient::new(),
        }
    }

    async fn send(&self, path: &str, parameters: &[(&str, &str)]) -> Answer {
        let headers = [("authorization", self.credentials.as_str())];
        let url = format!("{}{path}", self.url);
        self.http.form(&url, &headers, parameters).await.unwrap()
    }

    async fn ask(&self, message: &str) -> String {
        let asked = self
            .send(
                "/bc-authorize",
                &[
                    ("scope", "openid"),
                    ("login_hint", "alice"),
                    ("binding_message", message),
                ],
            )
            .await;
        assert_eq!(asked.status, 200, "{asked:?}");
        asked.json()["auth_req_id"].as_str().unwrap().to_owned()
    }

    /// The error that a poll gets; empty for tokens.
    async fn poll(&self, id: &str) -> String {
        let parameters = [("grant_type", CIBA_GRANT), ("auth_req_id", id)];
        let answer = self.send("/token", &parameters).await.json();
        answer["error"].as_str().unwrap_or_default().to_owned()
    }
}

fn ticket(site: &Site) -> Value {
    site.json(&["enrol", "alice"])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_phone_is_enrolled_and_answers() {
    let site = Site::new(Backend::sqlite());
    let _server = site.serve().await;
    let bank = Bank::new(&site);
    succeeds(&site, &["user", "add", "alice"]);
    let link = ticket(&site)["link"].as_str().unwrap().to_owned();
    let enrolled = succeeds(&site, &["phone", "enrol", &link, "--label", "Alice's"]);
    assert!(
        enrolled.contains("The key is in assent-data/phone.json"),
        "{enrolled}"
    );
    let file = site.folder().join("assent-data/phone.json");
    let mode = std::fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(succeeds(&site, &["phone", "list"]), "Nothing waits.\n");
    assert_eq!(site.json(&["phone", "list"]), json!([]));
    fails(&site, &["phone", "approve"], "nothing waits for an answer");

    let first = bank.ask("W4SCT").await;
    let shown = succeeds(&site, &["phone", "list"]);
    let id = request_id(&first).to_string();
    let expected = format!(
        "request          {id}\nrequester        Example Bank\nscope            openid\n\
         binding_message  W4SCT  (as the requester says)\n"
    );
    assert_eq!(shown, expected);
    let challenge = &site.json(&["phone", "list"])[0];
    assert_eq!(
        (&challenge["jti"], &challenge["client"]["name"]),
        (&json!(id), &json!("Example Bank"))
    );
    assert_eq!(
        succeeds(&site, &["phone", "approve"]),
        format!("{expected}Approved.\n")
    );
    assert_eq!(bank.poll(&first).await, "");

    // Of several one has to be named.
    let (second, third) = (bank.ask("second").await, bank.ask("third").await);
    let several = "several requests wait; name one: see `assent phone list`";
    fails(&site, &["phone", "approve"], several);
    fails(&site, &["phone", "deny"], several);
    let id = request_id(&second).to_string();
    let denied = site.json(&["phone", "deny", &id, "--reason", "mistake"]);
    assert_eq!(denied, json!({ "id": id, "decision": "deny" }));
    let approved = site.json(&["phone", "approve", &request_id(&third).to_string()]);
    assert_eq!(approved["decision"], "approve");
    assert_eq!(bank.poll(&second).await, "access_denied");
    assert_eq!(bank.poll(&third).await, "");

    fails(&site, &["phone", "approve", &id], "already_decided");
    fails(
        &site,
        &["phone", "approve", "nonsense"],
        "no request id; see `assent phone list`",
    );
    let unknown = request_id("nobody asked this").to_string();
    fails(&site, &["phone", "approve", &unknown], "request_not_found");
    let reasons = "it is one of fraud, mistake";
    makes_no_sense(&site, &["phone", "deny", "--reason", "whim"], reasons);
}

#[tokio::test(flavor = "multi_thread")]
async fn enrolment_fails_with_what_to_do() {
    let site = Site::new(Backend::sqlite());
    let server = site.serve().await;
    succeeds(&site, &["user", "add", "alice"]);
    let enrol = |more: &[&str]| [&["phone", "enrol"][..], more].concat().join("\n");
    let run = |more: &[&str], words: &str| {
        let arguments = enrol(more);
        fails(&site, &arguments.split('\n').collect::<Vec<_>>(), words);
    };
    fails(
        &site,
        &["phone", "list"],
        "enrol a phone first: assent phone enrol LINK",
    );
    run(&["nonsense"], "with a typed code also give --issuer URL");
    run(
        &["nonsense", "--issuer", &site.url],
        "copy it whole from `assent enrol`",
    );
    run(
        &["AAAAA-BBBBB-CCCCCC", "--issuer", &site.url],
        "invalid_enrolment_code",
    );
    run(
        &["AAAAA-BBBBB-CCCCCC", "--issuer", "http://127.0.0.1:1"],
        "the server cannot be reached",
    );
    run(
        &["AAAAA-BBBBB-CCCCCC", "--issuer", "nonsense"],
        "--issuer must be the server's URL",
    );
    assert!(
        !site.folder().join("assent-data/phone.json").exists(),
        "what fails leaves no phone"
    );

    let code = ticket(&site)["code"].as_str().unwrap().to_lowercase();
    let device = site.json(&[
        "phone", "--file", "a/b.json", "enrol", &code, "--issuer", &site.url,
    ]);
    assert_eq!(device["file"], "a/b.json");
    run(&[&code, "--issuer", &site.url], "invalid_enrolment_code");
    let again = [
        "phone", "--file", "a/b.json", "enrol", &code, "--issuer", &site.url,
    ];
    fails(
        &site,
        &again,
        "holds a phone already; name another with --file",
    );
    for (name, content) in [("empty", ""), ("nonsense", "{}"), ("text", "hello")] {
        std::fs::write(site.folder().join(name), content).unwrap();
        fails(
            &site,
            &["phone", "--file", name, "list"],
            "does not hold a phone",
        );
    }
    // Somebody put another server's challenge keys into the file: nothing is shown or signed.
    let file = site.folder().join("a/b.json");
    let text = std::fs::read_to_string(&file).unwrap();
    let mut phone: Value = serde_json::from_str(&text).unwrap();
    phone["challenge_keys"] = json!({ "keys": [] });
    std::fs::write(&file, phone.to_string()).unwrap();
    let bank = Bank::new(&site);
    bank.ask("W4SCT").await;
    fails(
        &site,
        &["phone", "--file", "a/b.json", "approve"],
        "do not answer it",
    );

    drop(server);
    fails(
        &site,
        &["phone", "--file", "a/b.json", "list"],
        "the server cannot be reached: ",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_are_confirmed_listed_and_revoked() {
    let site = Site::with(Backend::sqlite(), vec![("devices.confirm", "true".into())]);
    let _server = site.serve().await;
    succeeds(&site, &["user", "add", "alice"]);
    let link = ticket(&site)["link"].as_str().unwrap().to_owned();
    let id = site.json(&["phone", "enrol", &link])["device_id"].clone();
    let id = id.as_str().unwrap();
    fails(&site, &["phone", "list"], "device_unconfirmed");
    let state = || site.json(&["device", "list", "alice"])[0]["state"].clone();
    assert_eq!(state(), "pending");
    let table = succeeds(&site, &["device", "list", "alice"]);
    assert!(table.starts_with("DEVICE_ID ") && table.contains("pending  terminal  none"));

    assert_eq!(
        succeeds(&site, &["device", "confirm", id]),
        "The device is active.\n"
    );
    assert_eq!(state(), "active");
    assert_eq!(succeeds(&site, &["phone", "list"]), "Nothing waits.\n");
    fails(&site, &["device", "confirm", id], "it is active");
    let revoked = site.json(&["device", "revoke", id]);
    assert_eq!(revoked, json!({ "device_id": id, "state": "revoked" }));
    fails(
        &site,
        &["device", "revoke", id],
        "the device is revoked already",
    );
    fails(&site, &["device", "confirm", id], "it is revoked");
    fails(&site, &["phone", "list"], "device_revoked");
    let listed = site.json(&["device", "list", "alice"]);
    assert_eq!(listed[0]["state"], "revoked");
    assert!(listed[0]["revoked_at"].is_i64() && listed[0]["public_jwk"].is_null());
}

#[tokio::test(flavor = "multi_thread")]
async fn watching_shows_each_request_as_it_comes() {
    let site = Site::new(Backend::sqlite());
    let _server = site.serve().await;
    let bank = Bank::new(&site);
    succeeds(&site, &["user", "add", "alice"]);
    let link = ticket(&site)["link"].as_str().unwrap().to_owned();
    succeeds(&site, &["phone", "enrol", &link]);
    bank.ask("first").await;
    let mut watch = site.launch(site.command(&["phone", "watch"]));
    let until = SystemClock.now().plus(Duration::from_secs(20));
    let shows = |watch: &crate::support::process::ServerProcess, text: &str| {
        watch.output().matches(text).count()
    };
    while shows(&watch, "first") == 0 && SystemClock.now() < until {
        pause(50).await;
    }
    bank.ask("second").await;
    while shows(&watch, "second") == 0 && SystemClock.now() < until {
        pause(50).await;
    }
    let output = watch.output();
    assert!(
        output.starts_with("Watching; answer in another terminal"),
        "{output}"
    );
    assert_eq!(
        (shows(&watch, "first"), shows(&watch, "second")),
        (1, 1),
        "{output}"
    );
    // Not INT, which whoever runs tests in the background of a shell has told them to ignore.
    watch.signal("TERM");
    watch.ended(Duration::from_secs(5)).await;
}

/// A server that goes away and comes back, and one that has no stream to give.
#[tokio::test(flavor = "multi_thread")]
async fn watching_outlives_a_server() {
    let site = Site::new(Backend::sqlite());
    let mut server = site.serve().await;
    let bank = Bank::new(&site);
    succeeds(&site, &["user", "add", "alice"]);
    let link = ticket(&site)["link"].as_str().unwrap().to_owned();
    succeeds(&site, &["phone", "enrol", &link]);
    bank.ask("first").await;
    let mut watch = site.launch(site.command(&["phone", "watch"]));
    let shows = async |text: &str| {
        let until = SystemClock.now().plus(Duration::from_secs(30));
        while !watch.output().contains(text) {
            let late = SystemClock.now() > until;
            assert!(!late, "{text}: {}{}", watch.output(), watch.log());
            pause(50).await;
        }
    };
    shows("first").await;
    server.stop().await;
    let none = ("ASSENT_SERVER__MAX_STREAMS", "0");
    let mut server = site.serve_with(&[none]).await;
    bank.ask("second").await;
    shows("second").await;
    server.stop().await;
    let _server = site.serve().await;
    bank.ask("third").await;
    shows("third").await;
    let id = site.json(&["device", "list", "alice"])[0]["device_id"].clone();
    site.json(&["device", "revoke", id.as_str().unwrap()]);
    watch.ended(Duration::from_secs(30)).await;
    assert!(watch.log().contains("device_revoked"), "{}", watch.log());
}

/// A code is good once: a phone that cannot be kept does not use it up.
#[tokio::test(flavor = "multi_thread")]
async fn a_phone_that_cannot_be_kept_is_not_enrolled() {
    let site = Site::new(Backend::sqlite());
    let _server = site.serve().await;
    succeeds(&site, &["user", "add", "alice"]);
    let link = ticket(&site)["link"].as_str().unwrap().to_owned();
    std::fs::write(site.folder().join("taken"), "").unwrap();
    let enrol = |file| ["phone", "--file", file, "enrol", link.as_str()];
    let words = "cannot write the phone to taken/phone.json";
    fails(&site, &enrol("taken/phone.json"), words);
    assert_eq!(site.json(&["device", "list", "alice"]), json!([]));

    succeeds(&site, &enrol("phone.json"));
    // And one that is refused leaves no file behind.
    fails(
        &site,
        &enrol("late.json"),
        "the enrolment code is not valid",
    );
    assert!(!site.folder().join("late.json").exists());
}
