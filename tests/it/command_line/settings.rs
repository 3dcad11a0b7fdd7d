//! `assent config`: what `serve` would make of the settings.

use super::{fails, succeeds};
use crate::support::Backend;
use crate::support::process::{Site, finish, variable};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn settings_are_checked_as_serve_would() {
    let site = Site::new(Backend::sqlite());
    let good = succeeds(&site, &["config", "check"]);
    assert!(good.starts_with("The settings are good.\n"), "{good}");
    assert!(
        good.contains(&site.url) && !good.contains("dGVzd"),
        "{good}"
    );
    assert_eq!(
        site.json(&["config", "check"]),
        json!({ "good": true, "issuer": site.url })
    );
    let defaults = succeeds(&site, &["config", "defaults"]);
    assert!(defaults.contains("[server]") && defaults.contains("redelivery = \"0s\""));
    assert_eq!(
        format!(
            "{}\n",
            site.json(&["config", "defaults"])["toml"]
                .as_str()
                .unwrap()
                .trim_end()
        ),
        defaults
    );

    for (key, value, words) in [
        ("log.filter", "assent=loud", "log.filter cannot be read"),
        ("log.format", "xml", "log.format"),
        (
            "keys.deployment_key",
            "AAAA",
            "is not 32 bytes of base64url",
        ),
        ("server.public_listen", "everywhere", "server.public_listen"),
        ("ciba.interval", "0s", "ciba.interval: must be at least 1s"),
        (
            "ciba.max_expiry",
            "601s",
            "ciba.max_expiry: must be at most 600s",
        ),
        ("ciba.default_expiry", "601s", "ciba.default_expiry"),
        ("ciba.max_long_poll", "31s", "ciba.max_long_poll"),
        ("ciba.redelivery", "61s", "ciba.redelivery"),
        (
            "ciba.open_requests_per_user",
            "0",
            "ciba.open_requests_per_user",
        ),
        ("tokens.access_token_lifetime", "16m", "from 1s to 15m"),
        ("server.nonsense", "1", "nonsense"),
        ("nonsense.nonsense", "1", "nonsense"),
    ] {
        let mut check = site.command(&["config", "check"]);
        check.env(variable(key), value);
        let done = finish(check);
        assert_eq!(
            (done.code, done.stdout.as_str()),
            (Some(1), ""),
            "{key}: {done:?}"
        );
        super::assert_fails_with(&done, words);
    }
    std::fs::create_dir(site.folder().join("folder")).unwrap();
    for (file, content, words) in [
        ("absent.toml", None, "not found"),
        ("folder", None, "not found"),
        ("broken.toml", Some("[server\n"), "line 1"),
        (
            "typo.toml",
            Some("[server]\nisuer = 'x'\n"),
            "unknown field `isuer`",
        ),
        ("type.toml", Some("[ciba]\ninterval = 5\n"), "ciba.interval"),
        ("bytes.toml", Some("\u{0}\u{1}"), "line 1"),
    ] {
        if let Some(content) = content {
            std::fs::write(site.folder().join(file), content).unwrap();
        }
        let arguments = ["config", "check", "--config", file];
        fails(&site, &arguments, words);
        fails(&site, &arguments, "Run `assent config defaults`");
    }
    // A file is read, and the environment wins over it.
    std::fs::write(
        site.folder().join("good.toml"),
        "[ciba]\ninterval = \"7s\"\n",
    )
    .unwrap();
    let check = ["config", "check", "--config", "good.toml"];
    assert!(succeeds(&site, &check).contains("interval: 7s"));
    let mut command = site.command(&check);
    command.env(variable("ciba.interval"), "9s");
    assert!(finish(command).stdout.contains("interval: 9s"));
}
