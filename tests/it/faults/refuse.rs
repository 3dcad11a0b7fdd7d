//! A server that cannot serve does not start: it says why and what to do next, and changes nothing.

use crate::support::process::{Finished, Site, finish, program, variable};
use crate::support::{Backend, on_both};
use std::net::TcpListener;

on_both!(
    a_database_without_tables_is_left_as_it_is,
    a_wrong_deployment_key_opens_and_changes_nothing,
    a_newer_database_is_left_as_it_is,
);

const WRONG_KEY: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// Exit code 1, and all of these words.
#[track_caller]
fn refused(finished: &Finished, words: &[&str]) {
    assert_eq!(finished.code, Some(1), "{finished:?}");
    for word in words {
        assert!(finished.stderr.contains(word), "{word}: {finished:?}");
    }
    assert!(!finished.stderr.contains("panicked"), "{finished:?}");
}

fn serve_with(site: &Site, key: &str, value: &str) -> Finished {
    let mut command = site.command(&["serve"]);
    command.env(variable(key), value);
    finish(command)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_is_named_before_anything_is_opened() {
    for key in ["server.public_listen", "server.management_listen"] {
        let site = Site::new(Backend::sqlite());
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap().to_string();
        let mut serve = site.command(&["serve", "--migrate"]);
        serve.env(variable(key), &address);
        let finished = finish(serve);
        let cannot = format!("cannot listen on {address}; is it in use?");
        refused(&finished, &[&cannot, &format!("Set {key} to another")]);
        assert_eq!(site.backend.count("sqlite_master").await, 0);
    }
}

async fn a_database_without_tables_is_left_as_it_is(backend: Backend) {
    let site = Site::new(backend);
    if matches!(site.backend, Backend::Postgres(_)) {
        for sql in ["DROP SCHEMA public CASCADE", "CREATE SCHEMA public"] {
            site.backend.execute(sql).await;
        }
    }
    for command in [&["serve"][..], &["user", "list"], &["audit", "verify"]] {
        refused(
            &site.run(command),
            &["the database has not been set up; run `assent migrate` first"],
        );
    }
    let tables = match &site.backend {
        Backend::Sqlite(_) => "sqlite_master",
        Backend::Postgres(_) => "pg_tables WHERE schemaname = 'public'",
    };
    assert_eq!(site.backend.count(tables).await, 0);
    // What the message says helps.
    assert_eq!(site.run(&["migrate"]).code, Some(0));
    assert_eq!(site.run(&["user", "list"]).code, Some(0));
}

async fn a_wrong_deployment_key_opens_and_changes_nothing(backend: Backend) {
    let site = Site::new(backend);
    assert_eq!(site.run(&["migrate"]).code, Some(0));
    let before = site.backend.dump().await;
    let words = [
        "the deployment key does not open",
        "check keys.deployment_key",
    ];
    refused(&serve_with(&site, "keys.deployment_key", WRONG_KEY), &words);
    for arguments in [&["migrate"][..], &["client", "add", "Bank"]] {
        let mut command = site.command(arguments);
        command.env(variable("keys.deployment_key"), WRONG_KEY);
        refused(&finish(command), &words);
    }
    assert_eq!(site.backend.dump().await, before);

    // Nor when a key is missing, as after an upgrade that knows one more: a new key under the wrong one
    // would lock out the right one for ever.
    site.backend
        .execute("DELETE FROM keys WHERE purpose = 'id-mac'")
        .await;
    let before = site.backend.dump().await;
    refused(&serve_with(&site, "keys.deployment_key", WRONG_KEY), &words);
    assert_eq!(site.backend.dump().await, before);
    assert_eq!(site.run(&["user", "list"]).code, Some(0));
}

async fn a_newer_database_is_left_as_it_is(backend: Backend) {
    let site = Site::new(backend);
    assert_eq!(site.run(&["migrate"]).code, Some(0));
    let newer = match &site.backend {
        Backend::Sqlite(_) => "x'00'",
        Backend::Postgres(_) => "'\\x00'",
    };
    site.backend
        .execute(&format!(
            "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
             VALUES (99990101000000, 'from the future', TRUE, {newer}, 0)"
        ))
        .await;
    let before = site.backend.dump().await;
    refused(
        &site.run(&["serve"]),
        &["schema version 99990101000000", "with the newest assent"],
    );
    refused(&site.run(&["migrate"]), &["nothing was changed"]);
    assert_eq!(site.backend.dump().await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_are_missing_or_wrong_are_named() {
    let site = Site::new(Backend::sqlite());
    let absent = site.folder().join("absent");
    let absent = absent.to_str().unwrap();
    for (key, value, words) in [
        (
            "server.issuer",
            "",
            &["server.issuer", "set it, or ASSENT_SERVER__ISSUER"][..],
        ),
        ("server.issuer", "http://as.example", &["only on loopback"]),
        (
            "server.mode",
            "production",
            &["server.issuer", "must be https"],
        ),
        (
            "database.url",
            "",
            &["database.url", "ASSENT_DATABASE__URL"],
        ),
        ("database.url", "mysql://x", &["database.url", "sqlite:"]),
        (
            "database.url",
            "sqlite:///absent/x.db",
            &["check database.url"],
        ),
        ("database.url_file", absent, &["database.url_file", absent]),
        ("keys.deployment_key", "AAAA", &["32 bytes of base64url"]),
        ("ciba.interval", "5", &["ciba.interval", "duration"]),
        (
            "ciba.intervall",
            "5s",
            &["intervall", "assent config defaults"],
        ),
        ("log.filter", "assent=loud", &["log.filter"]),
    ] {
        refused(&serve_with(&site, key, value), words);
    }
    let missing = site.run(&["serve", "--config", "absent.toml"]);
    refused(
        &missing,
        &["absent.toml", "not found", "assent config defaults"],
    );

    // Without any settings at all.
    let finished = finish(program(site.folder(), &["serve"]));
    refused(
        &finished,
        &[
            "server.issuer",
            "is empty; set it, or ASSENT_SERVER__ISSUER",
        ],
    );
}
