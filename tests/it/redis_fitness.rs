//! What a server says at start about a Redis that is not fit for its task, and how it may be reached.

use crate::support::RedisServers;
use crate::support::own_redis::{Redis as OwnRedis, RedisServer};
use assent::clock::{Clock as _, SystemClock};
use assent::domain::Timestamp;
use assent::store::redis::{Redis, RedisUrl, Settings};
use std::time::Duration;

fn open(url: &str, root_certificates: Option<Vec<u8>>) -> Redis {
    Redis::new(Settings {
        url: RedisUrl::parse(url).unwrap(),
        prefix: "assent".into(),
        timeout: Duration::from_millis(500),
        root_certificates,
    })
}

/// What is said about the servers at a URL, by a node whose clock is right.
async fn said(url: &str) -> String {
    said_at(url, SystemClock.now()).await
}

async fn said_at(url: &str, now: Timestamp) -> String {
    match open(url, None).check(|| now).await {
        Ok(()) => "fit".into(),
        Err(unfit) => unfit.to_string(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_arrangement_of_servers_is_fit() {
    for servers in [
        RedisServers::single(),
        RedisServers::sentinel(),
        RedisServers::cluster(),
    ] {
        assert_eq!(said(&servers.url).await, "fit", "{}", servers.url);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_said_with_what_to_do() {
    let redis = OwnRedis::start();
    let (server, url) = (redis.server(), &redis.url);
    let all_is_well = || server.cli(&["config", "set", "maxmemory-policy", "noeviction"]);

    server.cli(&["config", "set", "maxmemory-policy", "allkeys-lru"]);
    let policy = said(url).await;
    assert!(
        policy.contains("CONFIG SET maxmemory-policy noeviction"),
        "{policy}"
    );
    all_is_well();

    let late = SystemClock.now().plus(Duration::from_secs(3));
    let clock = said_at(url, late).await;
    assert!(
        clock.contains("differ by") && clock.contains("NTP"),
        "{clock}"
    );

    let as_cluster = said(
        &url.replace("redis://", "redis+cluster://")
            .replace("/0", ""),
    )
    .await;
    assert!(
        as_cluster.contains("write redis://host:port"),
        "{as_cluster}"
    );
    let cluster = RedisServers::cluster().url;
    let seed = cluster
        .split("://")
        .nth(1)
        .unwrap()
        .split(',')
        .next()
        .unwrap();
    let as_single = said(&format!("redis://{seed}")).await;
    assert!(as_single.contains("write redis+cluster://"), "{as_single}");

    let nobody = said("redis://127.0.0.1:1").await;
    assert!(nobody.contains("no server can be reached"), "{nobody}");
    let sentinel = RedisServers::sentinel().url.replace("/assent", "/other");
    let nobody = said(&sentinel).await;
    assert!(nobody.contains("no server can be reached"), "{nobody}");
    assert_eq!(said(url).await, "fit");
}

/// A user that may do what assent does and nothing dangerous.
#[tokio::test(flavor = "multi_thread")]
async fn a_user_without_dangerous_commands_is_enough() {
    let redis = OwnRedis::start();
    let server = redis.server();
    let allow = |more: &str| {
        let rules =
            format!("acl setuser bank on >p@ss ~assent:* &assent:* +@all -@dangerous {more}");
        let rules: Vec<&str> = rules.split_whitespace().collect();
        assert_eq!(server.cli(&rules).trim(), "OK");
    };
    let as_bank = |password: &str| format!("redis://bank:{password}@{}/0", server.address());
    allow("");
    let no_info = said(&as_bank("p%40ss")).await;
    assert!(no_info.contains("ACL SETUSER <user> +info"), "{no_info}");
    allow("+info");
    assert_eq!(said(&as_bank("p%40ss")).await, "fit");
    let wrong = said(&as_bank("wrong")).await;
    assert!(wrong.contains("check the address, the password"), "{wrong}");

    // And all that a server does.
    let url = as_bank("p%40ss");
    let ground = crate::support::Ground::with_redis(
        crate::support::Backend::sqlite(),
        RedisServers {
            url,
            prefix: "assent".into(),
        },
    );
    let app = crate::support::TestApp::on(ground).await;
    let (bank, _, phone) = app.cast().await;
    let id = bank.start("alice").await;
    assert_eq!(app.run_jobs().await, 1);
    crate::support::approve(&phone, &id).await;
    assert_eq!(bank.poll(&id).await.status, 200);
    assert_eq!(app.waiting_jobs().await, 0);
}

/// Makes a server speak TLS as well. Returns the port, and the certificate to trust.
fn speak_tls(server: &RedisServer, folder: &std::path::Path) -> (u16, Vec<u8>) {
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let (certificate, key) = (folder.join("cert.pem"), folder.join("key.pem"));
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let port = {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        free.local_addr().unwrap().port()
    };
    let said = server.cli(&[
        "config",
        "set",
        "tls-auth-clients",
        "no",
        "tls-cert-file",
        certificate.to_str().unwrap(),
        "tls-key-file",
        key.to_str().unwrap(),
        "tls-ca-cert-file",
        certificate.to_str().unwrap(),
        "tls-port",
        &port.to_string(),
    ]);
    assert_eq!(said.trim(), "OK");
    (port, made.cert.pem().into_bytes())
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_is_spoken_with_whom_the_operator_trusts() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let redis = OwnRedis::start();
    let folder = tempfile::tempdir().unwrap();
    let (port, root) = speak_tls(redis.server(), folder.path());
    let url = format!("rediss://127.0.0.1:{port}/0");
    let trusting = open(&url, Some(root));
    trusting.check(|| SystemClock.now()).await.unwrap();
    let stranger = open(&url, None).check(|| SystemClock.now()).await;
    let refused = stranger.unwrap_err().to_string();
    assert!(refused.contains("no server can be reached"), "{refused}");
}
