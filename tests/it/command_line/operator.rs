//! Clients, people, codes and keys.

use super::{fails, makes_no_sense, succeeds};
use crate::support::process::Site;
use crate::support::{Backend, on_both};
use serde_json::{Value, json};

on_both!(
    clients_are_added_listed_rotated_and_locked,
    people_are_added_listed_locked_and_get_codes,
);

pub fn migrated(backend: Backend) -> Site {
    let site = Site::new(backend);
    assert_eq!(succeeds(&site, &["migrate"]), "The database is ready.\n");
    assert_eq!(site.json(&["migrate"]), json!({ "migrated": true }));
    site
}

async fn clients_are_added_listed_rotated_and_locked(backend: Backend) {
    let site = migrated(backend);
    let empty = "There are no clients; make one with `assent client add NAME`.\n";
    assert_eq!(succeeds(&site, &["client", "list"]), empty);
    assert_eq!(site.json(&["client", "list"]), json!([]));

    let added = succeeds(&site, &["client", "add", "Example Bank", "--id", "bank"]);
    assert!(added.starts_with("client_id      bank\nclient_secret  assent_cs_"));
    assert!(
        added.ends_with("The secret is not shown again.\n"),
        "{added}"
    );
    let made_up = site.json(&["client", "add", "Crème & Söhne"]);
    assert!(
        made_up["client_id"]
            .as_str()
            .unwrap()
            .starts_with("client-")
    );
    let method = ["--auth-method", "client_secret_post", "--long-poll", "30"];
    let arguments = [&["client", "add", "Shop", "--scope", "openid"], &method[..]].concat();
    let shop = site.json(&arguments);
    let shop = shop["client_id"].as_str().unwrap();

    let listed = site.json(&["client", "list"]);
    assert_eq!(listed.as_array().unwrap().len(), 3);
    for row in listed.as_array().unwrap() {
        assert!(
            row["client_id"].is_string() && row["created_at"].is_i64(),
            "{row}"
        );
        assert!(row["locked_at"].is_null(), "{row}");
    }
    let table = succeeds(&site, &["client", "list"]);
    assert!(table.starts_with("CLIENT_ID "), "{table}");
    assert!(table.contains("Crème & Söhne") && !table.contains("assent_cs_"));
    let secret = site.json(&["client", "rotate-secret", "bank"]);
    assert_eq!(secret["client_id"], "bank");
    assert!(!added.contains(secret["client_secret"].as_str().unwrap()));
    assert!(succeeds(&site, &["client", "rotate-secret", "bank"]).starts_with("client_secret  "));
    assert_eq!(
        succeeds(&site, &["client", "lock", "bank"]),
        "bank is locked.\n"
    );
    assert!(site.json(&["client", "list"])[0]["locked_at"].is_i64());
    assert_eq!(site.json(&["client", "lock", shop])["locked"], true);

    let before = site.backend.dump().await;
    let taken = ["client", "add", "Other", "--id", "bank"];
    fails(
        &site,
        &taken,
        "this client_id is taken; choose another with --id",
    );
    let add = |more: &[&'static str]| [&["client", "add"][..], more].concat();
    fails(
        &site,
        &add(&["Bank", "--id", "a b"]),
        "1 to 255 visible ASCII characters",
    );
    fails(
        &site,
        &add(&["Bank", "--scope", "open\"id"]),
        "scope must be tokens",
    );
    let unknown = "there is no client with a secret by this id; see `assent client list`";
    fails(&site, &["client", "rotate-secret", "nobody"], unknown);
    let locked = "no such client, or it is locked already; see `assent client list`";
    fails(&site, &["client", "lock", "bank"], locked);
    fails(&site, &["client", "lock", "nobody"], locked);
    let methods = "it is one of client_secret_basic, client_secret_post, private_key_jwt";
    makes_no_sense(&site, &add(&["Bank", "--auth-method", "none"]), methods);
    makes_no_sense(&site, &add(&["Bank", "--long-poll", "31"]), "0..=30");
    makes_no_sense(
        &site,
        &add(&["Bank", "--open-requests", "x"]),
        "open-requests",
    );
    makes_no_sense(&site, &add(&[]), "<NAME>");
    assert_eq!(
        site.backend.dump().await,
        before,
        "what fails changes nothing"
    );
}

async fn people_are_added_listed_locked_and_get_codes(backend: Backend) {
    let site = migrated(backend);
    let empty = "There is nobody; add somebody with `assent user add LOGIN`.\n";
    assert_eq!(succeeds(&site, &["user", "list"]), empty);
    let added = succeeds(&site, &["user", "add", "alice", "--name", "Alice Example"]);
    assert!(added.starts_with("sub    ") && added.ends_with("Next: assent enrol alice\n"));
    let bob = site.json(&["user", "add", "bob@example.com"]);
    assert_eq!(bob["login"], "bob@example.com");
    let listed = site.json(&["user", "list"]);
    assert_eq!(listed.as_array().unwrap().len(), 2);
    assert_eq!(
        (&listed[0]["login"], &listed[0]["name"]),
        (&json!("alice"), &json!("Alice Example"))
    );
    assert_eq!(
        (&listed[1]["sub"], &listed[1]["locked_at"]),
        (&bob["sub"], &Value::Null)
    );
    assert!(succeeds(&site, &["user", "list"]).contains("Alice Example  no\n"));

    // A code in every form that is asked for; each command makes new ones.
    let ticket = succeeds(&site, &["enrol", "alice"]);
    assert!(
        ticket.starts_with(&format!("link   {}/enrol#i=", site.url)),
        "{ticket}"
    );
    assert!(ticket.contains("\ncode   ") && ticket.contains("assent phone enrol '"));
    assert!(succeeds(&site, &["enrol", "alice", "--qr"]).contains('█'));
    let ticket = site.json(&["enrol", "alice", "--qr"]);
    assert_eq!(ticket["code"].as_str().unwrap().len(), 18);
    assert!(ticket["expires_at"].is_i64());
    let no_device = "There is no device; enrol one with `assent enrol USER`.\n";
    assert_eq!(succeeds(&site, &["device", "list", "alice"]), no_device);

    let locked = "bob@example.com is locked; open requests cancelled: 0.\n";
    // Again: an interrupted one is finished that way.
    for _ in 0..2 {
        assert_eq!(
            succeeds(&site, &["user", "lock", "bob@example.com"]),
            locked
        );
    }
    let again = site.json(&["user", "lock", "bob@example.com"]);
    assert_eq!(
        again,
        json!({ "sub": bob["sub"], "locked": true, "cancelled_requests": 0 })
    );
    assert!(site.json(&["user", "list"])[1]["locked_at"].is_i64());

    let before = site.backend.dump().await;
    let taken = "this login is taken; see `assent user list`";
    fails(&site, &["user", "add", "alice"], taken);
    fails(&site, &["user", "add", "ALICE"], taken);
    let rule = "a login is 1 to 128 visible characters without spaces";
    for login in ["", " ", "a b", "a\nb", &"x".repeat(129)] {
        fails(&site, &["user", "add", login], rule);
    }
    let nobody = "nobody has the login carol; see `assent user list`";
    for command in [&["user", "lock"][..], &["enrol"], &["device", "list"]] {
        fails(&site, &[command, &["carol"]].concat(), nobody);
    }
    fails(
        &site,
        &["enrol", "bob@example.com"],
        "is locked and cannot enrol a phone",
    );
    let unknown = "there is no such device; see `assent device list USER`";
    let nowhere = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    for id in ["nonsense", nowhere] {
        fails(&site, &["device", "confirm", id], unknown);
        fails(&site, &["device", "revoke", id], unknown);
    }
    assert_eq!(
        site.backend.dump().await,
        before,
        "what fails changes nothing"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_listed_without_what_is_secret() {
    let site = migrated(Backend::sqlite());
    let keys = site.json(&["keys", "list"]);
    let keys = keys.as_array().unwrap();
    assert!(keys.len() >= 8);
    for key in keys {
        assert!(
            key["version"].is_i64() && key["created_at"].is_i64(),
            "{key}"
        );
        assert!(!key.to_string().contains("wrapped"), "{key}");
        assert!(key["public_jwk"]["d"].is_null());
        let public = ["token-signing", "challenge-signing", "audit"];
        let is_public = public.contains(&key["purpose"].as_str().unwrap());
        assert_eq!(key["public_jwk"].is_object(), is_public, "{key}");
    }
    assert!(succeeds(&site, &["keys", "list"]).starts_with("PURPOSE "));
}

#[tokio::test(flavor = "multi_thread")]
async fn nonsense_is_answered_with_how_it_is_meant() {
    let site = Site::new(Backend::sqlite());
    makes_no_sense(&site, &["bogus"], "unrecognized subcommand 'bogus'");
    makes_no_sense(&site, &["client", "bogus"], "unrecognized subcommand");
    makes_no_sense(
        &site,
        &["serve", "--bogus"],
        "unexpected argument '--bogus'",
    );
    makes_no_sense(&site, &["user", "add"], "<LOGIN>");
    makes_no_sense(
        &site,
        &["dev", "--listen", "nowhere"],
        "invalid value 'nowhere'",
    );
    for missing in [&[][..], &["client"], &["phone"]] {
        let done = site.run(missing);
        assert_eq!(done.code, Some(2), "{done:?}");
        assert!(done.stderr.contains("Usage: assent"), "{done:?}");
    }
    let help = succeeds(&site, &["--help"]);
    let commands = help.split("Commands:\n").nth(1).unwrap();
    let commands = commands.split("\n\n").next().unwrap();
    let mut seen = 0;
    for line in commands.lines() {
        let (name, says) = line.trim().split_once(' ').unwrap();
        assert!(!says.trim().is_empty(), "{name} does not say what it does");
        if name != "help" {
            assert!(succeeds(&site, &[name, "--help"]).contains("Usage: assent"));
            seen += 1;
        }
    }
    assert!(seen >= 12, "{help}");
    assert!(succeeds(&site, &["--version"]).starts_with("assent "));
}
