//! `assent demo` and `assent dev`.

use super::{fails, succeeds};
use crate::support::process::{Site, finish, free_port, pause, program, variable};
use crate::support::{Backend, CIBA_GRANT};
use assent::clock::{Clock as _, SystemClock};
use assent::phone::http::{Answer, HttpClient, basic};
use serde_json::Value;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

#[test]
fn the_demo_needs_nothing_and_checks_everything() {
    let folder = tempfile::tempdir().unwrap();
    let done = finish(program(folder.path(), &["demo"]));
    assert_eq!((done.code, done.stderr.as_str()), (Some(0), ""), "{done:?}");
    assert!(
        done.stdout.contains("ID Token\n{") && done.stdout.contains("\"urn:assent:acr:device\"")
    );
    assert!(done.stdout.contains("access_denied") && !done.stdout.contains("FAILED"));
    assert!(done.stdout.ends_with(" checks, 0 failed\n"), "{done:?}");
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
    assert!(left.is_empty(), "the demo left {left:?}");

    let done = finish(program(folder.path(), &["demo", "--json"]));
    let told: Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!((done.code, &told["failed"]), (Some(0), &Value::from(0)));
    assert!(told["checks"].as_array().unwrap().len() >= 14);
    let done = finish(program(folder.path(), &["demo", "--verbose"]));
    assert!(done.stderr.contains("tokens issued") && done.code == Some(0));
}

/// Ended in the middle of its journey: nobody takes that for a success.
#[cfg(feature = "failpoints")]
#[test]
fn the_demo_fails_when_its_server_dies() {
    let folder = tempfile::tempdir().unwrap();
    let mut demo = program(folder.path(), &["demo"]);
    demo.env("ASSENT_FAILPOINT", "decide.after_projection");
    let done = finish(demo);
    assert_ne!(done.code, Some(0), "{done:?}");
    assert!(!done.stdout.contains("checks, 0 failed"), "{done:?}");
}

/// An operator's environment names the real database and the real key: the demo touches neither.
#[test]
fn the_demo_keeps_off_the_database_of_the_environment() {
    let folder = tempfile::tempdir().unwrap();
    let real = folder.path().join("real.db");
    let url = format!("sqlite://{}?mode=rwc", real.display());
    std::fs::write(folder.path().join("url"), &url).unwrap();
    for (key, value) in [
        (
            "database.url_file",
            folder.path().join("url").display().to_string(),
        ),
        ("database.url", url),
        (
            "keys.deployment_key",
            "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA".into(),
        ),
        ("server.mode", "production".into()),
        ("server.issuer", "https://as.example".into()),
    ] {
        let mut demo = program(folder.path(), &["demo"]);
        demo.env(variable(key), value);
        let done = finish(demo);
        assert_eq!(done.code, Some(0), "{key}: {done:?}");
        assert!(!real.exists(), "{key}");
    }
}

async fn send(printed: &Value, path: &str, parameters: &[(&str, &str)]) -> Answer {
    let text = |name: &str| printed[name].as_str().unwrap();
    let credentials = basic(text("client_id"), text("client_secret"));
    let headers = [("authorization", credentials.as_str())];
    let url = format!("{}{path}", text("issuer"));
    HttpClient::new()
        .form(&url, &headers, parameters)
        .await
        .unwrap()
}

/// All that `assent dev` prints works as printed, also when it is started again.
#[tokio::test(flavor = "multi_thread")]
async fn dev_prints_what_works() {
    let site = Site::new(Backend::sqlite());
    let listen = format!("127.0.0.1:{}", free_port());
    let management = format!("127.0.0.1:{}", free_port());
    let dev = [
        "dev",
        "--listen",
        &listen,
        "--management",
        &management,
        "--json",
    ];
    let mut secrets = Vec::new();
    for _ in 0..2 {
        // Its own settings win over those of the environment.
        let mut command = site.command(&dev);
        command.env(variable("database.url_file"), "/absent");
        let mut server = site.launch(command);
        let until = SystemClock.now().plus(Duration::from_secs(30));
        while serde_json::from_str::<Value>(&server.output()).is_err() {
            assert!(SystemClock.now() < until, "{}", server.log());
            pause(50).await;
        }
        let printed: Value = serde_json::from_str(&server.output()).unwrap();
        assert_eq!(printed["issuer"], format!("http://{listen}"));
        let asked = send(
            &printed,
            "/bc-authorize",
            &[
                ("scope", "openid"),
                ("login_hint", "alice"),
                ("binding_message", "W4SCT"),
            ],
        )
        .await;
        let id = asked.json()["auth_req_id"].as_str().unwrap().to_owned();
        let phone = printed["phone"].as_str().unwrap();
        succeeds(&site, &["phone", "--file", phone, "approve"]);
        let poll = [("grant_type", CIBA_GRANT), ("auth_req_id", id.as_str())];
        assert_eq!(send(&printed, "/token", &poll).await.status, 200);

        let config = printed["config"].as_str().unwrap();
        let list = program(
            site.folder(),
            &["--config", config, "user", "list", "--json"],
        );
        let listed: Value = serde_json::from_str(&finish(list).stdout).unwrap();
        assert_eq!(listed[0]["login"], "alice");
        let other = printed["enrolment_link"].as_str().unwrap();
        let file = format!("other-{}.json", secrets.len());
        succeeds(&site, &["phone", "--file", &file, "enrol", other]);
        secrets.push(printed["client_secret"].clone());
        server.stop().await;
    }
    assert_ne!(secrets[0], secrets[1]);
    for name in ["deployment.key", "phone.json", "assent.db"] {
        let path = site.folder().join("assent-data").join(name);
        let mode = std::fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    assert_eq!(
        site.backend.count("sqlite_master").await,
        0,
        "the site's own database"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn dev_says_what_to_do_when_it_cannot_start() {
    let site = Site::new(Backend::sqlite());
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = taken.local_addr().unwrap().to_string();
    fails(
        &site,
        &["dev", "--listen", &listen, "--management", "127.0.0.1:0"],
        "is it in use?",
    );
    std::fs::write(site.folder().join("file"), "").unwrap();
    fails(
        &site,
        &["dev", "--data", "file/below"],
        "cannot make file/below",
    );
}
