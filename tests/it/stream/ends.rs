//! What ends a stream, and what a node holds of them.

use super::line::{Line, PATH};
use crate::support::{Backend, TestApp, approve};
use assent::phone::Phone;
use assent::phone::http::Answer;
use serde_json::json;
use std::time::Duration;
use tokio_tungstenite::tungstenite::Message;

async fn scene() -> (TestApp, crate::support::RelyingParty, Phone) {
    let app = TestApp::new(Backend::sqlite()).await;
    let (bank, _, phone) = app.cast().await;
    (app, bank, phone)
}

/// Until this node holds so many.
pub async fn until_held(app: &TestApp, streams: usize) {
    let settles = async {
        while app.services().open_streams() != streams {
            crate::support::process::pause(5).await;
        }
    };
    let settled = tokio::time::timeout(Duration::from_secs(20), settles).await;
    settled.expect("the node's streams settle");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_draining_node_says_goodbye_and_waits_for_nobody() {
    let (app, _, phone) = scene().await;
    let (mut line, _) = Line::of(&app, &phone).await;
    let mut unproven = Line::open(&app).await;
    until_held(&app, 2).await;
    app.server.core.shutdown.draining.cancel();
    line.closes_with(1001).await;
    unproven.closes_with(1001).await;
    line.falls_silent().await;
    app.server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_phone_that_does_not_prove_itself_is_sent_away() {
    let (app, _, _) = scene().await;
    let mut line = Line::open(&app).await;
    until_held(&app, 1).await;
    app.advance(4);
    // It is alive, but that is no proof.
    line.send(Message::Ping("here".into())).await;
    app.advance(1);
    line.ends_with("phone_silent", 1008).await;
    until_held(&app, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_phone_that_answers_no_ping_is_gone() {
    let (app, bank, phone) = scene().await;
    let (mut alive, _) = Line::of(&app, &phone).await;
    let (dead, _) = Line::of(&app, &phone).await;
    until_held(&app, 2).await;
    for _ in 0..4 {
        app.advance(20);
        // Who reads answers, and gets its news all the same; after that it has answered every ping.
        let id = bank.start("alice").await;
        assert_eq!(alive.next().await["type"], "request");
        approve(&phone, &id).await;
        assert_eq!(alive.next().await["type"], "resolved");
    }
    until_held(&app, 1).await;
    let (mut dead, mut last) = (dead, json!(null));
    while last["type"] != "problem" {
        last = dead.next().await;
    }
    assert_eq!(last["problem"]["code"], "phone_silent");
    bank.start("alice").await;
    assert_eq!(alive.next().await["type"], "request");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_devices_streams_the_newest_stay() {
    let (app, bank, phone) = scene().await;
    let (first, _) = Line::of(&app, &phone).await;
    let (mut second, _) = Line::of(&app, &phone).await;
    let (mut third, _) = Line::of(&app, &phone).await;
    first.ends_with("stream_replaced", 1008).await;
    bank.start("alice").await;
    assert_eq!(second.next().await["type"], "request");
    assert_eq!(third.next().await["type"], "request");
    drop((second, third));
    until_held(&app, 0).await;
}

/// Streams have a cap of their own, and take nobody else's place.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_holds_so_many_streams_beside_its_requests() {
    let settings = vec![
        ("server.max_in_progress", "8".into()),
        ("server.max_streams", "12".into()),
    ];
    let app = TestApp::with(Backend::sqlite(), settings).await;
    let (bank, _, _) = app.cast().await;
    let bob = app.user("bob").await;
    let mut phones = Vec::new();
    for _ in 0..6 {
        phones.push(app.phone(&bob).await);
    }
    let mut lines = Vec::new();
    for phone in phones.iter().chain(&phones) {
        lines.push(Line::of(&app, phone).await);
    }
    bank.start("alice").await;
    let refused = upgrade(&app, "nothing", "13").await;
    assert_eq!(refused.status, 503, "{}", refused.body);
    assert_eq!(refused.json()["code"], "temporarily_unavailable");
    assert_eq!(refused.header("retry-after"), Some("2"));
    lines.pop();
    until_held(&app, 11).await;
    Line::of(&app, &phones[0]).await;
    let metrics = format!("{}/metrics", app.management_url);
    let metrics = app.http.get(&metrics, &[]).await.unwrap().body;
    assert!(metrics.contains("assent_streams_open"), "{metrics}");
}

/// A WebSocket's first words, but for the header `left_out`.
async fn upgrade(app: &TestApp, left_out: &str, version: &str) -> Answer {
    let mut headers = vec![
        ("connection", "upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", version),
        ("sec-websocket-key", "x3JJHMbDL1EzLkh9GBhXDw=="),
    ];
    headers.retain(|(name, _)| *name != left_out);
    let url = format!("{}{PATH}", app.url);
    app.http.get(&url, &headers).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_wants_no_websocket_is_told_that_there_is_no_other() {
    let (app, _, _) = scene().await;
    for (left_out, version) in [
        ("connection", "13"),
        ("upgrade", "13"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "13"),
        ("nothing", "8"),
    ] {
        let answer = upgrade(&app, left_out, version).await;
        assert_eq!(answer.status, 426, "{left_out}: {}", answer.body);
        assert_eq!(answer.json()["code"], "upgrade_required");
        assert_eq!(answer.header("upgrade"), Some("websocket"));
        assert_eq!(answer.header("sec-websocket-version"), Some("13"));
    }
    let url = format!("{}{PATH}", app.url);
    let answer = app.http.send("POST", &url, &[], vec![]).await.unwrap();
    assert_eq!(answer.status, 405);
    assert_eq!(app.services().open_streams(), 0);
}

/// Nothing is said that has not been looked up: a stream without its store ends.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ends_with_the_store_that_it_reads() {
    let (app, _, phone) = scene().await;
    let (line, _) = Line::of(&app, &phone).await;
    app.backend.execute("DROP TABLE pending_requests").await;
    app.advance(10);
    line.ends_with("temporarily_unavailable", 1013).await;
    let (app, _, phone) = scene().await;
    let (line, _) = Line::of(&app, &phone).await;
    app.backend
        .execute("UPDATE devices SET public_jwk = 'x'")
        .await;
    app.advance(10);
    line.ends_with("internal_error", 1011).await;
}
