//! How a server stops: everybody is answered, nothing new is taken, and it is gone in time (I12).

use super::busy::Busy;
use super::cast::{Bank, Cast};
use super::invariants;
use crate::support::process::{Site, pause};
use crate::support::{Backend, CIBA_GRANT, on_both};
use assent::clock::{Clock as _, SystemClock};
use assent::domain::Decision;
use assent::phone::http::{Answer, HttpClient};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;
use tokio::task::JoinSet;

on_both!(
    a_draining_server_answers_everybody_and_goes,
    a_restart_under_load_loses_nothing,
);

/// A poll whose body is still on its way: a request in progress for as long as a test likes.
struct SlowPoll {
    stream: TcpStream,
    rest: Vec<u8>,
}

impl SlowPoll {
    fn begin(site: &Site, bank: &Bank, auth_req_id: &str) -> Self {
        let body = format!("grant_type={CIBA_GRANT}&auth_req_id={auth_req_id}");
        let head = format!(
            "POST /token HTTP/1.1\r\nHost: localhost\r\nAuthorization: {}\r\n\
             Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n",
            bank.credentials,
            body.len()
        );
        let address = site.url.trim_start_matches("http://");
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(&body.as_bytes()[..10]).unwrap();
        Self {
            stream,
            rest: body.as_bytes()[10..].to_vec(),
        }
    }

    /// Sends the rest and reads the whole answer.
    fn finish(mut self) -> String {
        self.stream.write_all(&self.rest).unwrap();
        let mut answer = String::new();
        self.stream.read_to_string(&mut answer).unwrap();
        answer
    }
}

async fn readyz(site: &Site) -> Answer {
    let url = format!("{}/readyz", site.management_url);
    HttpClient::new().get(&url, &[]).await.unwrap()
}

async fn a_draining_server_answers_everybody_and_goes(backend: Backend) {
    // Most of the workers are idle, and end at once: what they opened must still work for the others.
    let site = Site::with(backend, vec![("server.workers", "4".into())]);
    let (cast, mut server) = Cast::new(&site, 1, 1).await;
    let mut held = JoinSet::new();
    for _ in 0..4 {
        let flow = cast.begin(Decision::Approve).await;
        held.spawn(async move { flow.bank.poll(&flow.auth_req_id, 30).await });
    }
    let mut redeemed = cast.begin(Decision::Approve).await;
    redeemed.decide().await;
    let slow = SlowPoll::begin(&site, &redeemed.bank, &redeemed.auth_req_id);
    pause(500).await;
    assert_eq!(readyz(&site).await.status, 200);
    assert!(held.try_join_next().is_none(), "a poll was not held");

    server.signal("TERM");
    let began = SystemClock.now();
    for answer in held.join_all().await {
        let answer = answer.expect("a held poll was not answered");
        assert_eq!(
            answer.json()["error"],
            "authorization_pending",
            "{answer:?}"
        );
    }
    let waited = SystemClock.now().since(began);
    assert!(waited < Duration::from_secs(5), "held for {waited:?}");

    // One request is still in progress: the server says that it drains, and takes nothing new.
    let ready = readyz(&site).await;
    assert_eq!((ready.status, ready.body.as_str()), (503, "draining\n"));
    let refused = redeemed.bank.poll(&redeemed.auth_req_id, 0).await;
    assert!(refused.is_err(), "{refused:?}");

    let answer = slow.finish();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    let status = server.ended(Duration::from_secs(25)).await;
    assert_eq!(status.code(), Some(0), "{}", server.log());
    assert!(server.log().contains("drained"), "{}", server.log());
    assert_eq!(site.backend.count("issuances").await, 1);
    // What happened last is signed off.
    let report = site.json(&["audit", "verify"]);
    assert_eq!(report["not_anchored"], 0, "{report}\n{}", server.log());
}

/// Stopped and started under load, as in a rolling restart: relying parties and phones only notice that
/// nobody listens for a moment.
async fn a_restart_under_load_loses_nothing(backend: Backend) {
    let site = Site::with(backend, vec![("ciba.interval", "1s".into())]);
    let (cast, mut server) = Cast::new(&site, 2, 6).await;
    let busy = Busy::start(&cast, 7);
    for _ in 0..2 {
        busy.finish(5).await;
        server.stop().await;
        server = site.serve().await;
    }
    let flows = busy.stop().await;
    server.stop().await;
    invariants::check(&site, &flows).await;
    let lost = flows
        .iter()
        .filter(|flow| flow.decision == Decision::Approve && flow.tokens.is_empty());
    assert_eq!(lost.count(), 0, "a response was lost");
    let refused: u32 = flows.iter().map(|flow| flow.trouble.refused).sum();
    assert_eq!(refused, 0, "what a draining server takes on, it does");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_at_once() {
    let site = Site::new(Backend::sqlite());
    let (cast, mut server) = Cast::new(&site, 1, 1).await;
    let flow = cast.begin(Decision::Approve).await;
    let _slow = SlowPoll::begin(&site, &flow.bank, &flow.auth_req_id);
    pause(200).await;
    server.signal("TERM");
    pause(500).await;
    assert_eq!(readyz(&site).await.body, "draining\n");
    server.signal("TERM");
    let status = server.ended(Duration::from_secs(2)).await;
    assert_eq!(status.code(), Some(1));
    let log = server.log();
    assert!(
        log.contains("stopped before everything was drained"),
        "{log}"
    );
}

/// A request that never ends does not keep the server.
#[tokio::test(flavor = "multi_thread")]
async fn draining_has_an_end() {
    let settings = vec![("server.drain_timeout", "1s".into())];
    let site = Site::with(Backend::sqlite(), settings);
    let (cast, mut server) = Cast::new(&site, 1, 1).await;
    let flow = cast.begin(Decision::Approve).await;
    let _slow = SlowPoll::begin(&site, &flow.bank, &flow.auth_req_id);
    pause(200).await;
    server.signal("INT");
    server.ended(Duration::from_secs(8)).await;
}

/// Whoever sees that a port is open may ask the server to stop, though it still opens its database.
#[tokio::test(flavor = "multi_thread")]
async fn a_signal_at_the_first_sign_of_life_is_heard() {
    let site = Site::new(Backend::sqlite());
    let address = site.management_url.trim_start_matches("http://");
    for _ in 0..3 {
        let mut server = site.launch(site.command(&["serve", "--migrate"]));
        while TcpStream::connect(address).is_err() {
            pause(1).await;
        }
        server.stop().await;
    }
}
