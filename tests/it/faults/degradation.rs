//! One part is away or slow: what goes on without it does, everything else says so and changes nothing.

use super::cast::assert_unavailable;
use super::postgres::Cluster;
use super::wire::{Fate, Wire};
use crate::support::process::pause;
use crate::support::{Backend, Ground, RedisServers, TestApp, approve, assert_oauth_error, show};
use assent::domain::Decision;
use std::collections::BTreeMap;
use std::io::Write as _;
use std::time::Duration;
use tokio::task::JoinSet;

/// Pending polls touch Redis alone; whatever needs the truth waits for the truth.
#[tokio::test(flavor = "multi_thread")]
async fn without_the_database_pending_polls_go_on() {
    let cluster = Cluster::start();
    let backend = Backend::Postgres(cluster.url.clone());
    let app = TestApp::on(Ground::with_redis(backend, RedisServers::single())).await;
    let (bank, _, phone) = app.cast().await;
    let stranger = app.client("stranger").await;
    let pending = bank.start("alice").await;
    let approved = bank.start("alice").await;
    approve(&phone, &approved).await;
    let shown = show(&phone, &pending).await;
    assert_oauth_error(&bank.poll(&pending).await, 400, "authorization_pending");

    cluster.script("stop");
    // For longer than a registration is fresh.
    for _ in 0..5 {
        app.advance(10);
        let answer = bank.poll(&pending).await;
        assert_oauth_error(&answer, 400, "authorization_pending");
    }
    let slow = bank.poll(&pending).await;
    assert_oauth_error(&slow, 400, "slow_down");
    // A wrong secret gets nothing by it, nor does somebody who has not been seen.
    let mut thief = bank.clone();
    thief.credentials = assent::phone::http::basic("bank", "wrong");
    for answer in [
        thief.poll(&pending).await,
        stranger.poll(&pending).await,
        bank.poll(&approved).await,
        bank.ask(&[("scope", "openid"), ("login_hint", "alice")])
            .await,
        phone
            .call("GET", "/device/v1/requests", None)
            .await
            .unwrap(),
        phone
            .try_answer(&shown, Decision::Approve, None)
            .await
            .unwrap(),
    ] {
        assert_unavailable(&answer);
    }
    let readyz = format!("{}/readyz", app.management_url);
    let ready = app.http.get(&readyz, &[]).await.unwrap();
    assert_eq!(ready.status, 503);

    cluster.script("start");
    // Who is known from before alone gets no tokens by that, although the database is there again.
    assert_unavailable(&bank.poll(&approved).await);
    app.advance(10);
    approve(&phone, &pending).await;
    for id in [&pending, &approved] {
        assert_eq!(bank.poll(id).await.status, 200);
        assert_oauth_error(&bank.poll(id).await, 400, "invalid_grant");
    }
}

async fn redis_behind_a_wire() -> (Wire, RedisServers) {
    let redis = RedisServers::single();
    let server = redis
        .url
        .trim_start_matches("redis://")
        .trim_end_matches("/0");
    let wire = Wire::to(server.to_owned()).await;
    let url = format!("redis://127.0.0.1:{}/0", wire.port);
    (wire, RedisServers { url, ..redis })
}

/// Redis cannot be reached, or does not answer: nobody is let past a check that cannot be made.
#[tokio::test(flavor = "multi_thread")]
async fn without_redis_nothing_is_skipped() {
    let (wire, redis) = redis_behind_a_wire().await;
    let ground = Ground::with_redis(Backend::sqlite(), redis);
    let app = TestApp::on_with(ground, vec![("redis.timeout", "300ms".into())]).await;
    let (bank, _, phone) = app.cast().await;
    let pending = bank.start("alice").await;
    let approved = bank.start("alice").await;
    approve(&phone, &approved).await;
    let shown = show(&phone, &pending).await;
    let before = app.state().await;

    for fate in [Fate::Stall, Fate::Drop] {
        wire.both(fate);
        for answer in [
            bank.poll(&pending).await,
            bank.poll(&approved).await,
            bank.ask(&[("scope", "openid"), ("login_hint", "alice")])
                .await,
            // A proof may be used once: who cannot tell does not let anybody in.
            phone
                .call("GET", "/device/v1/requests", None)
                .await
                .unwrap(),
            phone
                .try_answer(&shown, Decision::Approve, None)
                .await
                .unwrap(),
        ] {
            assert_unavailable(&answer);
        }
        // What was given out long ago is still known to be over, without any store.
        assert_oauth_error(&bank.poll("AQ").await, 400, "invalid_grant");
        wire.both(Fate::Pass);
        let back = async || bank.poll(&pending).await.status == 400;
        let mut tries = 0;
        while !back().await {
            tries += 1;
            assert!(tries < 50, "Redis is back, and nobody notices");
            pause(100).await;
        }
    }
    assert_eq!(app.state().await, before, "something was decided");
    app.advance(60);
    approve(&phone, &pending).await;
    for id in [&pending, &approved] {
        assert_eq!(bank.poll(id).await.status, 200);
    }
}

/// Requests that never come to their end keep nobody out.
#[tokio::test(flavor = "multi_thread")]
async fn who_sends_no_body_takes_no_place() {
    let limit = ("server.max_in_progress", "8".into());
    let app = TestApp::with(Backend::sqlite(), vec![limit]).await;
    let (bank, _, _) = app.cast().await;
    let address = app.url.trim_start_matches("http://");
    let head = "POST /token HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\
                Content-Type: application/x-www-form-urlencoded\r\n\r\n";
    let mut begun = Vec::new();
    for _ in 0..16 {
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        stream.write_all(head.as_bytes()).unwrap();
        begun.push(stream);
    }
    pause(200).await;
    let id = bank.start("alice").await;
    assert_oauth_error(&bank.poll(&id).await, 400, "authorization_pending");
}

/// More than the node can do: what begins is refused, what decides gets through.
#[tokio::test(flavor = "multi_thread")]
async fn a_busy_node_gives_up_what_begins_first() {
    let (wire, redis) = redis_behind_a_wire().await;
    let ground = Ground::with_redis(Backend::sqlite(), redis);
    let limit = ("server.max_in_progress", "8".into());
    let app = TestApp::on_with(ground, vec![limit]).await;
    let (bank, _, phone) = app.cast().await;
    let id = bank.start("alice").await;
    let shown = show(&phone, &id).await;

    wire.both(Fate::Delay(Duration::from_millis(300)));
    let mut asked = JoinSet::new();
    for _ in 0..24 {
        let bank = bank.clone();
        asked.spawn(async move {
            let parameters = [("scope", "openid"), ("login_hint", "alice")];
            bank.ask(&parameters).await
        });
    }
    pause(150).await;
    let (decided, polled) = tokio::join!(
        phone.try_answer(&shown, Decision::Approve, None),
        bank.poll(&id),
    );
    assert_eq!(decided.unwrap().status, 200);
    assert!(polled.status != 503, "{}", polled.body);
    let mut statuses = BTreeMap::new();
    while let Some(answer) = asked.join_next().await {
        let answer = answer.unwrap();
        *statuses.entry(answer.status).or_insert(0) += 1;
        if answer.status == 503 {
            assert_unavailable(&answer);
        }
    }
    println!("24 requests at once: {statuses:?}");
    assert!(statuses[&503] >= 12, "{statuses:?}");
    // And it is over as soon as the crowd has gone.
    wire.both(Fate::Pass);
    app.advance(300);
    bank.start("alice").await;
}
