//! Replicas take over: by Sentinel, in a cluster, with and without what had been acknowledged. SQL knows
//! every decision and every token, so none is lost and none comes twice.

use super::cast::{Cast, Flow};
use super::invariants;
use super::storm::{Storm, rounds, site};
use super::wire::{Fate, Wire};
use crate::support::Backend;
use crate::support::own_redis::{Redis, RedisCluster, RedisSentinel, RedisServer, eventually};
use crate::support::process::pause;
use assent::domain::Decision;

/// A slot of each primary at the start.
const SLOTS: [u16; 3] = [0, 8_000, 16_383];

/// F1: a master dies whose replicas lack what it had acknowledged.
#[tokio::test(flavor = "multi_thread")]
async fn a_master_dies_before_it_has_replicated() {
    let sentinel = RedisSentinel::start();
    let mut storm = Storm::on_two_nodes(site(Backend::postgres().await, &sentinel.url)).await;
    storm.cast.may_forget();
    for round in 1..=rounds() {
        storm.work(6).await;
        let master = sentinel.master();
        let wire = Wire::to(master.address()).await;
        // Sentinels put replicas straight that follow somebody else, but not at once.
        for replica in sentinel.replicas_of(master) {
            replica.follow(wire.port).await;
        }
        wire.replies(Fate::Stall);
        storm.work(6).await;
        pause(storm.chance.below(500)).await;
        storm.strike();
        master.kill().await;
        sentinel.promotion(master).await;
        if round < rounds() {
            master.restart().await;
            eventually("all follow the new master", || {
                sentinel.master().info("connected_slaves") == "2"
            })
            .await;
        }
    }
    storm.work(6).await;
    storm.end("F1 master dies before it has replicated").await;
}

/// F1, slowly: everything that was decided and redeemed behind the replica's back still counts when the
/// replica is in charge, although it says otherwise.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_knows_less_takes_over() {
    let (primary, replica) = (Redis::start(), Redis::start());
    let (primary, replica) = (primary.server(), replica.server());
    let replication = Wire::to(primary.address()).await;
    replica.follow(replication.port).await;
    let wire = Wire::to(primary.address()).await;
    let site = site(
        Backend::sqlite(),
        &format!("redis://127.0.0.1:{}/0", wire.port),
    );
    let (cast, mut node) = Cast::new(&site, 1, 2).await;
    let begin = async |person: usize, decision| {
        Flow::begin(&cast.banks[0], &cast.people[person], decision).await
    };
    let mut approved = begin(0, Decision::Approve).await;
    let mut denied = begin(0, Decision::Deny).await;
    let mut redeemed = begin(0, Decision::Approve).await;
    let mut consumed = begin(1, Decision::Approve).await;
    let mut open = begin(1, Decision::Approve).await;
    consumed.decide().await;
    let known = || (standing(replica, &redeemed), standing(replica, &consumed));
    let before = ("pending".to_owned(), "approved".to_owned());
    eventually("it is replicated", || known() == before).await;

    replication.replies(Fate::Stall);
    approved.decide().await;
    denied.decide().await;
    redeemed.decide().await;
    for flow in [&mut redeemed, &mut consumed] {
        let tokens = flow.bank.poll(&flow.auth_req_id, 0).await.unwrap();
        assert_eq!(tokens.status, 200, "{tokens:?}");
        flow.tokens.push(tokens.json());
        assert_eq!(standing(primary, flow), "redeemed");
    }
    primary.kill().await;
    replica.promote();
    assert_eq!(standing(replica, &consumed), "approved", "nothing was lost");
    wire.lead_to(replica.address());

    consumed.redeem(0).await;
    approved.redeem(0).await;
    denied.redeem(0).await;
    // Until the Ledger has been read again, it stands there as if nobody had answered.
    eventually("it is told again", || {
        standing(replica, &redeemed) == "redeemed"
    })
    .await;
    redeemed.redeem(0).await;
    open.decide().await;
    open.redeem(0).await;
    node.stop().await;
    for flow in [&approved, &redeemed, &consumed, &open] {
        assert_eq!(flow.tokens.len(), 1);
    }
    invariants::check(&site, &[approved, denied, redeemed, consumed, open]).await;
}

/// Where a request stands, as a server knows it.
fn standing(server: &RedisServer, flow: &Flow) -> String {
    let key = server.cli(&["keys", &format!("*:state:{}", flow.id())]);
    server.cli(&["hget", key.trim(), "s"]).trim().to_owned()
}

/// F4: a master dies, another takes over, and the old one comes back.
#[tokio::test(flavor = "multi_thread")]
async fn an_old_master_comes_back() {
    let sentinel = RedisSentinel::start();
    let mut storm = Storm::on_two_nodes(site(Backend::postgres().await, &sentinel.url)).await;
    storm.cast.may_forget();
    for _ in 0..rounds() {
        storm.work(6).await;
        let master = sentinel.master();
        storm.strike();
        master.kill().await;
        sentinel.promotion(master).await;
        master.restart().await;
        storm.work(6).await;
        eventually("the old master follows", || {
            master.info("master_link_status") == "up"
        })
        .await;
    }
    storm.work(6).await;
    storm
        .end("F4 Sentinel's failover, old master returns")
        .await;
}

/// F2: one primary of a cluster after the other dies.
#[tokio::test(flavor = "multi_thread")]
async fn primaries_of_a_cluster_die() {
    let cluster = RedisCluster::start();
    let mut storm = Storm::on_two_nodes(site(Backend::postgres().await, &cluster.url)).await;
    storm.cast.may_forget();
    for round in 0..2 * rounds() {
        let slot = SLOTS[round % SLOTS.len()];
        storm.work(6).await;
        pause(storm.chance.below(300)).await;
        let primary = cluster.owner(slot, &cluster.servers[0]).clone();
        storm.strike();
        primary.kill().await;
        cluster.promotion(slot, &primary).await;
        storm.work(6).await;
        primary.restart().await;
        eventually("the dead one follows", || {
            primary.info("master_link_status") == "up"
        })
        .await;
    }
    storm.work(6).await;
    storm.end("F2 cluster primary killed").await;
}

/// F3: a primary is held for 8 seconds, which is long enough to be replaced, and goes on in the belief
/// that it still is one.
#[tokio::test(flavor = "multi_thread")]
async fn a_primary_of_a_cluster_is_held() {
    let cluster = RedisCluster::start();
    let mut storm = Storm::on_two_nodes(site(Backend::postgres().await, &cluster.url)).await;
    storm.cast.may_forget();
    for round in 0..rounds() {
        let slot = SLOTS[round % SLOTS.len()];
        storm.work(6).await;
        let primary = cluster.owner(slot, &cluster.servers[0]).clone();
        storm.strike();
        primary.signal("STOP");
        pause(8_000).await;
        primary.signal("CONT");
        storm.work(6).await;
    }
    storm.work(6).await;
    storm.end("F3 cluster primary held for 8 s").await;
}

/// F19: the slots of people who are being asked move, there and back. Nothing is even forgotten.
#[tokio::test(flavor = "multi_thread")]
async fn slots_move() {
    let cluster = RedisCluster::start();
    let mut storm = Storm::on_two_nodes(site(Backend::postgres().await, &cluster.url)).await;
    let primaries = SLOTS.map(|slot| cluster.owner(slot, &cluster.servers[0]));
    let mut moved = 0;
    for round in 0..2 * rounds() {
        storm.work(6).await;
        let (from, to) = (primaries[round % 3], primaries[(round + 1) % 3]);
        storm.strike();
        for slot in cluster.slots_with(":state:", from) {
            cluster.move_slot(slot, from, to);
            moved += 1;
        }
    }
    storm.work(6).await;
    storm.end("F19 slots move").await;
    assert!(moved > 0, "nobody's slot moved");
}
