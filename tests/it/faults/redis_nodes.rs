//! Several nodes on one Redis: restarted one after the other, and what would happen without the Ledger's
//! fence.

use super::busy::{Busy, Chance};
use super::cast::{Cast, Flow};
use super::invariants;
use super::storm::{rounds, site};
use super::wire::{Fate, Wire};
use crate::support::Backend;
use crate::support::own_redis::{Redis, eventually};
use crate::support::process::Site;
use assent::domain::Decision;
use std::sync::Arc;

/// F18: behind a load balancer, nodes are replaced under load. Held polls go on at the other node; every
/// node ends by itself, and nobody is refused.
#[tokio::test(flavor = "multi_thread")]
async fn nodes_are_restarted_one_after_the_other() {
    let redis = Redis::start();
    let front = Wire::to("127.0.0.1:9".into()).await;
    let issuer = format!("http://127.0.0.1:{}", front.port);
    let site = Site::with(
        Backend::postgres().await,
        vec![
            ("ciba.interval", "1s".into()),
            ("redis.url", redis.url.clone()),
            ("server.issuer", issuer.clone()),
        ],
    );
    let address = |url: &str| url.trim_start_matches("http://").to_owned();
    front.lead_to(address(&site.url));
    let (mut cast, first) = Cast::new(&site, 2, 6).await;
    for bank in &mut cast.banks {
        Arc::get_mut(bank).expect("nobody is busy yet").url = issuer.clone();
    }
    let (second, url) = site.serve_another().await;
    let mut nodes = [(first, address(&site.url)), (second, address(&url))];
    let busy = Busy::start(&cast, Chance::new().seed);
    for round in 0..2 * rounds() {
        let (leaves, stays) = (round % 2, 1 - round % 2);
        busy.finish(8).await;
        front.lead_to(nodes[stays].1.clone());
        nodes[leaves].0.stop().await;
        let log = nodes[leaves].0.log();
        assert!(
            log.contains("drained") && !log.contains("panicked"),
            "{log}"
        );
        let (node, url) = site.serve_another().await;
        nodes[leaves] = (node, address(&url));
    }
    busy.finish(8).await;
    let flows = busy.stop().await;
    for (mut node, _) in nodes {
        node.stop().await;
    }
    invariants::check(&site, &flows).await;
    let refused: u32 = flows.iter().map(|flow| flow.trouble.refused).sum();
    let dropped: u32 = flows.iter().map(|flow| flow.trouble.dropped).sum();
    println!(
        "F18 nodes restarted one after the other: {} requests, {refused} answers of 503, {dropped} dropped",
        flows.len()
    );
    assert_eq!(refused, 0, "a node that drains refuses nobody");
}

/// F1 once more, with a Ledger that forgets what it issued: then the token comes twice. So the tests of F1
/// see the fence, and not something else that would keep a second token away.
#[tokio::test(flavor = "multi_thread")]
async fn without_the_fence_a_token_comes_twice() {
    assert_eq!(redeemed_behind_the_replicas_back(true).await, 400);
    assert_eq!(redeemed_behind_the_replicas_back(false).await, 200);
}

/// Redeems an approval on a primary whose replica does not learn of it, lets the replica take over, and
/// polls again. Returns the status of that second poll.
async fn redeemed_behind_the_replicas_back(has_fence: bool) -> u16 {
    let (primary, replica) = (Redis::start(), Redis::start());
    let (primary, replica) = (primary.server(), replica.server());
    let replication = Wire::to(primary.address()).await;
    replica.follow(replication.port).await;
    let wire = Wire::to(primary.address()).await;
    let url = format!("redis://127.0.0.1:{}/0", wire.port);
    let site = site(Backend::sqlite(), &url);
    let (cast, mut node) = Cast::new(&site, 1, 1).await;
    if !has_fence {
        let forget = "CREATE TRIGGER forget AFTER INSERT ON issuances \
             BEGIN DELETE FROM issuances WHERE request_id = NEW.request_id; END";
        site.backend.execute(forget).await;
    }
    let mut flow = Flow::begin(&cast.banks[0], &cast.people[0], Decision::Approve).await;
    flow.decide().await;
    let approved = || {
        let key = replica.cli(&["keys", &format!("*:state:{}", flow.id())]);
        replica.cli(&["hget", key.trim(), "s"]).trim() == "approved"
    };
    eventually("the approval is replicated", approved).await;

    replication.replies(Fate::Stall);
    let first = flow.bank.poll(&flow.auth_req_id, 0).await.unwrap();
    assert_eq!(first.status, 200, "{first:?}");
    primary.kill().await;
    replica.promote();
    assert!(approved(), "nothing was lost");
    wire.lead_to(replica.address());
    let second = loop {
        let answer = flow.bank.poll(&flow.auth_req_id, 0).await.unwrap();
        if answer.status != 503 {
            break answer.status;
        }
    };
    node.stop().await;
    second
}
