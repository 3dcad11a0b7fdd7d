//! The wire to Redis: held, slow, cut at the worst moment. What cannot be asked is refused; what was
//! carried out and not answered is asked again.

use super::cast::{Cast, assert_unavailable};
use super::invariants;
use super::storm::{Storm, rounds, site};
use super::wire::{Breach, Fate, Wire};
use crate::support::own_redis::{Redis, RedisServer, eventually};
use crate::support::process::{Site, pause};
use crate::support::{Backend, assert_oauth_error, assert_problem};
use assent::domain::Decision;
use assent::phone::http::{Answer, HttpClient};
use std::time::Duration;
use tokio::task::JoinSet;

fn url(wire: &Wire) -> String {
    format!("redis://127.0.0.1:{}/0", wire.port)
}

/// What the database answers alone, once the proof is found to be new.
const DEVICES: &str = "/device/v1/devices";

/// A proof that a phone made once, sent as often as anybody likes.
async fn replay(site: &Site, proof: &str) -> Answer {
    let url = format!("{}{DEVICES}", site.url);
    let proof = format!("DeviceProof {proof}");
    let headers = [("authorization", proof.as_str())];
    HttpClient::new().get(&url, &headers).await.unwrap()
}

/// F7: as long as Redis cannot be asked, everybody is told to come back; nobody is let in unchecked, and
/// the server recovers by itself.
async fn while_unreachable(
    fault: &str,
    begin: impl Fn(&RedisServer, &Wire),
    end: impl Fn(&RedisServer, &Wire),
) {
    let redis = Redis::start();
    let wire = Wire::to(redis.server().address()).await;
    let site = site(Backend::sqlite(), &url(&wire));
    let (cast, mut node) = Cast::new(&site, 1, 1).await;
    let mut flow = cast.begin(Decision::Approve).await;
    let shown = flow.look().await;
    let held = cast.begin(Decision::Deny).await;
    let (bank, person) = (flow.bank.clone(), flow.person.clone());
    let phone = &person.phone;
    let claims = phone.proof_claims("GET", DEVICES, b"");
    let proof = phone.sign("device-proof+jwt", &claims);
    assert_eq!(replay(&site, &proof).await.status, 200);
    let mut polls = JoinSet::new();
    for _ in 0..20 {
        let (bank, id) = (bank.clone(), held.auth_req_id.clone());
        polls.spawn(async move { bank.poll(&id, 30).await.unwrap() });
    }
    pause(300).await;

    begin(redis.server(), &wire);
    let (polled, asked, decided, inbox, replayed) = tokio::join!(
        bank.poll(&flow.auth_req_id, 0),
        bank.ask("key", &flow.person.login),
        phone.try_answer(&shown, Decision::Approve, None),
        phone.call("GET", "/device/v1/requests", None),
        replay(&site, &proof),
    );
    for answer in [
        polled.unwrap(),
        asked.unwrap(),
        decided.unwrap(),
        inbox.unwrap(),
        replayed,
    ] {
        assert_unavailable(&answer);
    }
    let unwell = site.run(&["healthcheck"]);
    assert_eq!(unwell.code, Some(1), "{fault}");
    assert!(
        unwell.stderr.contains("not ready: Redis is"),
        "{fault}: {unwell:?}"
    );
    for answer in polls.join_all().await {
        // A newer poll ends the older one.
        if answer.status != 400 {
            assert_unavailable(&answer);
        }
    }

    end(redis.server(), &wire);
    flow.send(&shown).await;
    flow.redeem(0).await;
    assert_eq!(
        (flow.tokens.len(), flow.end.as_str()),
        (1, "invalid_grant"),
        "{fault}"
    );
    let replayed = replay(&site, &proof).await;
    assert_problem(&replayed, 401, "proof_replayed");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_swallows_everything() {
    while_unreachable(
        "swallowed",
        |_, wire| wire.both(Fate::Drop),
        // What was swallowed leaves connections out of step: as when a firewall forgets them.
        |server, wire| {
            wire.both(Fate::Pass);
            wire.lead_to(server.address());
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_is_slow() {
    let slow = Fate::Delay(Duration::from_millis(800));
    while_unreachable(
        "slow",
        |_, wire| wire.replies(slow),
        |_, wire| wire.replies(Fate::Pass),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_is_held() {
    while_unreachable(
        "held",
        |server, _| server.signal("STOP"),
        |server, _| server.signal("CONT"),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_is_not_there() {
    while_unreachable(
        "not there",
        // Nobody listens at the discard port.
        |_, wire| wire.lead_to("127.0.0.1:9".into()),
        |server, wire| wire.lead_to(server.address()),
    )
    .await;
}

/// F9: each script's request or reply is lost, one after the other, and nobody notices.
#[tokio::test(flavor = "multi_thread")]
async fn each_script_is_cut_off_once() {
    let redis = Redis::start();
    let server = redis.server();
    let wire = Wire::to(server.address()).await;
    let site = site(Backend::sqlite(), &url(&wire));
    let (cast, mut node) = Cast::new(&site, 1, 1).await;
    let mut flows = Vec::new();
    for breach in [Breach::BeforeItsReply, Breach::BeforeItArrives] {
        for script in [
            "reserve",
            "create",
            "claim",
            "note",
            "settle",
            "first_use",
            "poll",
            "project",
        ] {
            let hash = hash_of(server, script);
            wire.break_at(breach, move |bytes| {
                bytes
                    .windows(hash.len())
                    .any(|window| window == hash.as_bytes())
            });
            let mut flow = cast.begin(Decision::Approve).await;
            // One that was asked twice behind the client's back must not count as too early.
            let poll = flow.bank.poll(&flow.auth_req_id, 0).await.unwrap();
            assert_oauth_error(&poll, 400, "authorization_pending");
            flow.decide().await;
            flow.redeem(0).await;
            eventually("the script runs", || wire.has_broken()).await;
            let trouble = flow.trouble;
            assert_eq!(
                (trouble.refused, trouble.dropped),
                (0, 0),
                "{script}, {breach:?}"
            );
            assert_eq!(flow.tokens.len(), 1, "{script}, {breach:?}");
            flows.push(flow);
        }
    }
    let kept = server.cli(&["keys", "*:state:*"]);
    assert_eq!(kept.lines().count(), flows.len(), "I10");
    node.stop().await;
    invariants::check(&site, &flows).await;
    println!(
        "F9 scripts cut off: {} requests, {0} decisions acknowledged, 0 lost, 0 doubled",
        flows.len()
    );
}

/// As servers know it, and as it is sent.
fn hash_of(server: &RedisServer, script: &str) -> String {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/store/redis/scripts");
    let text = std::fs::read_to_string(format!("{folder}/{script}.lua")).unwrap();
    server.cli(&["script", "load", &text]).trim().to_owned()
}

/// F20: the servers forget every script, all the time.
#[tokio::test(flavor = "multi_thread")]
async fn scripts_are_forgotten() {
    let redis = Redis::start();
    let mut storm = Storm::on_one_node(site(Backend::sqlite(), &redis.url)).await;
    storm.strike();
    for _ in 0..60 * rounds() {
        redis.server().cli(&["script", "flush"]);
        pause(50).await;
    }
    storm.work(6).await;
    let flows = storm.end("F20 scripts forgotten").await;
    for flow in &flows {
        assert_eq!((flow.trouble.refused, flow.trouble.dropped), (0, 0));
    }
}
