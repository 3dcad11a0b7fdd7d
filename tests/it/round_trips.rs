//! What a poll that finds nothing new costs in round trips: counted by Redis itself.

use crate::support::own_redis::{Redis, RedisServer};
use crate::support::signer::Signer;
use crate::support::{
    Backend, CIBA_GRANT, Ground, RedisServers, TestApp, assert_oauth_error, registration,
};
use assent::domain::SignatureAlgorithm;
use assent::domain::client::{ClientAuthentication, KeySource, Registration};
use serde_json::json;
use std::collections::BTreeMap;

const POLLS: u64 = 10;

async fn app(redis: &Redis) -> TestApp {
    let servers = RedisServers {
        url: redis.url.clone(),
        prefix: "assent".into(),
    };
    TestApp::on(Ground::with_redis(Backend::sqlite(), servers)).await
}

/// How often each command was called since the counts were reset. What a script calls counts as well.
fn calls(server: &RedisServer) -> BTreeMap<String, u64> {
    let stats = server.cli(&["info", "commandstats"]);
    let mut calls = BTreeMap::new();
    for line in stats.lines() {
        let Some((name, counts)) = line
            .strip_prefix("cmdstat_")
            .and_then(|l| l.split_once(':'))
        else {
            continue;
        };
        let count = counts
            .split(',')
            .next()
            .unwrap()
            .trim_start_matches("calls=");
        calls.insert(name.to_owned(), count.parse().unwrap());
    }
    // Ours, and the heartbeat of the connections.
    for name in ["info", "config|resetstat", "ping", "command|docs", "hello"] {
        calls.remove(name);
    }
    calls
}

fn counts(expected: &[(&str, u64)]) -> BTreeMap<String, u64> {
    let named = expected
        .iter()
        .map(|(name, count)| ((*name).to_owned(), *count));
    named.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pending_poll_is_one_round_trip() {
    let redis = Redis::start();
    let app = app(&redis).await;
    let (bank, _, _) = app.cast().await;
    let id = bank.start("alice").await;
    assert_oauth_error(&bank.poll(&id).await, 400, "authorization_pending");
    redis.server().cli(&["config", "resetstat"]);
    for _ in 0..POLLS {
        app.advance(5);
        assert_oauth_error(&bank.poll(&id).await, 400, "authorization_pending");
    }
    // One script, which reads once and writes once.
    let expected = [("evalsha", POLLS), ("hmget", POLLS), ("hset", POLLS)];
    assert_eq!(calls(redis.server()), counts(&expected));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pending_poll_by_assertion_is_two() {
    let redis = Redis::start();
    let app = app(&redis).await;
    let alice = app.user("alice").await;
    let _phone = app.phone(&alice).await;
    let algorithm = SignatureAlgorithm::Es256;
    let signer = Signer::new(algorithm);
    let keys = KeySource::Jwks(signer.jwks());
    let authentication = ClientAuthentication::PrivateKeyJwt { algorithm, keys };
    let signing = Registration {
        authentication,
        ..registration()
    };
    app.client_with("bank", signing).await;
    let send = async |path: &str, number: u64, parameters: &[(&str, &str)]| {
        let now = app.now().secs();
        let jti = format!("assertion {number}");
        let claims =
            json!({ "iss": "bank", "sub": "bank", "aud": app.url, "exp": now + 60, "jti": jti });
        let assertion = signer.sign("JWT", &claims);
        let proof = [
            (
                "client_assertion_type",
                "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
            ),
            ("client_assertion", assertion.as_str()),
        ];
        let url = format!("{}{path}", app.url);
        let parameters = [&proof[..], parameters].concat();
        app.http.form(&url, &[], &parameters).await.unwrap()
    };
    let asked = [("scope", "openid"), ("login_hint", "alice")];
    let asked = send("/bc-authorize", 0, &asked).await.json();
    let id = asked["auth_req_id"].as_str().unwrap();
    let poll = [("grant_type", CIBA_GRANT), ("auth_req_id", id)];
    assert_oauth_error(
        &send("/token", 1, &poll).await,
        400,
        "authorization_pending",
    );
    redis.server().cli(&["config", "resetstat"]);
    for number in 0..POLLS {
        app.advance(5);
        let answer = send("/token", 2 + number, &poll).await;
        assert_oauth_error(&answer, 400, "authorization_pending");
    }
    let expected = [
        ("evalsha", 2 * POLLS),
        ("get", POLLS),
        ("hmget", POLLS),
        ("hset", POLLS),
        ("set", POLLS),
    ];
    assert_eq!(calls(redis.server()), counts(&expected));
}
