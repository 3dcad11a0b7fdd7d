//! What the settings may say of gateways, and what an operator is told when they are wrong.

use crate::support::pem;
use crate::support::{Backend, START, TestApp};
use assent::app::push_gateways;
use assent::config::Config;
use assent::crypto::generate::generate;
use assent::domain::SignatureAlgorithm;
use std::path::Path;

/// The gateways of a settings file with this text, or what is wrong with it.
fn gateways(folder: &Path, text: &str) -> Result<Vec<String>, String> {
    let file = folder.join("assent.toml");
    let text = text.replace("FOLDER", folder.to_str().unwrap());
    std::fs::write(&file, text).unwrap();
    let needed = [
        ("server.mode", "dev"),
        ("server.issuer", "https://as.example"),
        ("database.url", "sqlite:///tmp/x.db"),
    ];
    let needed = needed.map(|(key, value)| (key, value.to_owned())).to_vec();
    let config = Config::load(Some(&file), &needed).map_err(|error| error.to_string())?;
    push_gateways(&config).map_err(|error| format!("{error:#}"))
}

const APNS: &str = "[[push.apns]]\nteam_id = 'T'\nkey_id = 'K'\nkey_file = 'FOLDER/ec.pem'\ntopic = 'org.example.a'\n";
const WEB_PUSH: &str =
    "[push.web_push]\nvapid_key_file = 'FOLDER/ec.pem'\nsubject = 'mailto:o@bank.example'\n";

#[test]
fn an_operator_is_told_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let write = |name: &str, algorithm| {
        let key = pem("PRIVATE KEY", &generate(algorithm).0);
        std::fs::write(folder.join(name), &key).unwrap();
        key
    };
    let keys = [
        write("ec.pem", SignatureAlgorithm::Es256),
        write("rsa.pem", SignatureAlgorithm::Rs256),
    ];
    assert_eq!(gateways(folder, ""), Ok(vec![]));
    let named =
        format!("{APNS}app_id = 'a'\n{APNS}app_id = 'b'\nenvironment = 'sandbox'\n{WEB_PUSH}");
    let names = gateways(folder, &named).unwrap();
    assert_eq!(names[..2], ["APNs (org.example.a)", "APNs (org.example.a)"]);
    assert!(names[2].starts_with("Web Push (public key B"), "{names:?}");

    let fcm = "[[push.fcm]]\nservice_account_file = 'FOLDER/rsa.pem'\n";
    for (text, told) in [
        (
            format!("{APNS}{APNS}"),
            "push.apns: has two sets of credentials",
        ),
        (
            format!("{fcm}{fcm}"),
            "push.fcm: has two sets of credentials",
        ),
        (
            format!("{APNS}app_id = 'a b'\n"),
            "push.apns: app_id must have",
        ),
        (
            APNS.replace("ec.pem", "none.pem"),
            "push.apns: key_file: cannot read",
        ),
        (
            APNS.replace("ec.pem", "rsa.pem"),
            "rsa.pem is not a P-256 key",
        ),
        (format!("{APNS}environment = 'test'\n"), "environment"),
        (format!("{APNS}key = 'secret'\n"), "key"),
        (
            format!("{APNS}base_url = 'http://10.0.0.1'\n"),
            "push.apns: base_url: the URL must begin with https://",
        ),
        (
            fcm.to_owned(),
            "rsa.pem: not the JSON file of a service account",
        ),
        (WEB_PUSH.replace("ec.pem", "rsa.pem"), "push.web_push: "),
        (
            WEB_PUSH.replace("mailto:", ""),
            "push.web_push.subject: must be a mailto:",
        ),
    ] {
        let error = gateways(folder, &text).unwrap_err();
        assert!(error.contains(told), "{text}: {error}");
        for key in &keys {
            let secret = key.lines().nth(1).unwrap();
            assert!(!error.contains(secret), "{error}");
        }
    }
}

/// Nothing is set up for a phone's platform: that is nobody's mistake, and nothing is tried again.
#[tokio::test(flavor = "multi_thread")]
async fn a_phone_without_a_gateway_waits_until_it_is_opened() {
    let folder = tempfile::tempdir().unwrap();
    let key = pem("PRIVATE KEY", &generate(SignatureAlgorithm::Es256).0);
    std::fs::write(folder.path().join("ec.pem"), key).unwrap();
    let file = folder.path().join("assent.toml");
    let text = WEB_PUSH.replace("FOLDER", folder.path().to_str().unwrap());
    std::fs::write(&file, text).unwrap();
    let app = TestApp::with_file(Backend::sqlite(), Some(&file), vec![]).await;
    let (bank, alice, phone) = app.cast().await;
    for platform in ["apns", "fcm"] {
        let body = serde_json::json!({ "platform": platform, "push_target": "00ff" });
        let answer = phone
            .call("PUT", "/device/v1/push-target", Some(&body))
            .await;
        assert_eq!(answer.unwrap().status, 204);
        bank.start("alice").await;
        app.run_jobs().await;
        assert_eq!(app.waiting_jobs().await, 0);
    }
    assert_eq!(
        app.backend
            .count("devices WHERE push_target IS NOT NULL")
            .await,
        1
    );
    assert_eq!(
        phone.inbox().await.unwrap().len(),
        app.open_requests(&alice).await
    );
    assert_eq!(app.now(), START);
}

/// What the guide tells an operator to write down.
#[test]
fn the_settings_in_the_guide_open_all_gateways() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let key = |algorithm| pem("PRIVATE KEY", &generate(algorithm).0);
    let account = serde_json::json!({
        "project_id": "p", "private_key_id": "k", "client_email": "push@p.example",
        "private_key": key(SignatureAlgorithm::Rs256), "token_uri": "https://oauth2.googleapis.com/token",
    });
    for (file, text) in [
        ("AuthKey_ABC123DEFG.p8", key(SignatureAlgorithm::Es256)),
        ("vapid.pem", key(SignatureAlgorithm::Es256)),
        ("firebase.json", account.to_string()),
    ] {
        std::fs::write(folder.join(file), text).unwrap();
    }
    let guide = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/guide/push.md");
    let guide = std::fs::read_to_string(guide).unwrap();
    let blocks = guide.split("```toml\n").skip(1);
    let settings: String = blocks.filter_map(|rest| rest.split("```").next()).collect();
    let opened = gateways(folder, &settings.replace("/etc/assent", "FOLDER")).unwrap();
    assert_eq!(opened.len(), 3, "{opened:?}");
    assert_eq!(opened[0], "APNs (com.example.bank)");
}
