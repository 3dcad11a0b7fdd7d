//! Redis loses data, all of it or the last of it, or has no room for more: nothing that was acknowledged is
//! lost, nothing happens twice, and what is forgotten is said to be over.

use super::cast::{Cast, assert_unavailable};
use super::invariants;
use super::storm::{Storm, rounds, site};
use crate::support::own_redis::{Redis, RedisServer, eventually};
use crate::support::process::pause;
use crate::support::{Backend, assert_oauth_error};
use assent::domain::Decision;
use sqlx::{AnyConnection, Connection as _};

/// F5: a power cut takes the last writes that Redis had acknowledged.
#[tokio::test(flavor = "multi_thread")]
async fn the_tail_of_the_file_is_cut_off() {
    let redis = Redis::start();
    let server = redis.server();
    let mut storm = Storm::on_one_node(site(Backend::sqlite(), &redis.url)).await;
    storm.cast.may_forget();
    for _ in 0..2 * rounds() {
        storm.work(6).await;
        let cut = 1_000 + storm.chance.below(50_000);
        storm.strike();
        server.kill().await;
        server.cut_aof(cut);
        server.restart().await;
    }
    storm.work(6).await;
    storm.end("F5 tail of the file cut off").await;
}

/// F6: everything is gone, while the server runs or while it was down.
#[tokio::test(flavor = "multi_thread")]
async fn everything_is_gone() {
    let redis = Redis::start();
    let server = redis.server();
    let mut storm = Storm::on_one_node(site(Backend::sqlite(), &redis.url)).await;
    storm.cast.may_forget();
    for _ in 0..2 * rounds() {
        storm.work(6).await;
        storm.strike();
        server.cli(&["flushall"]);
        storm.work(6).await;
        storm.strike();
        server.kill().await;
        server.wipe();
        server.restart().await;
    }
    storm.work(6).await;
    storm.end("F6 everything gone").await;
}

/// F6, slowly: whoever had approved is believed, whoever had not has to be asked again.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_decided_survives_the_loss_of_everything() {
    let redis = Redis::start();
    let site = site(Backend::sqlite(), &redis.url);
    let (cast, mut server) = Cast::new(&site, 1, 1).await;
    let mut approved = cast.begin(Decision::Approve).await;
    let mut denied = cast.begin(Decision::Deny).await;
    let mut open = cast.begin(Decision::Approve).await;
    approved.decide().await;
    denied.decide().await;
    let shown = open.look().await;
    redis.server().cli(&["flushall"]);
    cast.may_forget();
    approved.redeem(0).await;
    denied.redeem(0).await;
    open.redeem(0).await;
    open.send(&shown).await;
    open.redeem(0).await;
    assert_eq!(approved.tokens.len(), 1);
    assert_eq!(denied.end, "access_denied");
    assert_eq!(
        (open.end.as_str(), open.acknowledged),
        ("expired_token", false)
    );
    server.stop().await;
    invariants::check(&site, &[approved, denied, open]).await;
}

/// F6, at the worst moment: the decision has been read and not yet recorded when everything is lost, and the
/// relying party comes in between. It is told that the request is over; what was decided can be fetched all
/// the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_decision_crosses_the_loss_of_everything() {
    let redis = Redis::start();
    let site = site(Backend::sqlite(), &redis.url);
    let (cast, mut node) = Cast::new(&site, 1, 1).await;
    let mut flow = cast.begin(Decision::Approve).await;
    let shown = flow.look().await;
    let (bank, person) = (flow.bank.clone(), flow.person.clone());
    let mut writer = AnyConnection::connect(&site.backend.url()).await.unwrap();
    sqlx::raw_sql("BEGIN IMMEDIATE")
        .execute(&mut writer)
        .await
        .unwrap();
    redis.server().cli(&["config", "resetstat"]);
    let decided = person.phone.try_answer(&shown, Decision::Approve, None);
    let lost = async {
        eventually("the request is read", || {
            let counted = redis.server().cli(&["info", "commandstats"]);
            counted.contains("cmdstat_hget:")
        })
        .await;
        redis.server().cli(&["flushall"]);
        let told = bank.poll(&flow.auth_req_id, 0).await.unwrap();
        assert_oauth_error(&told, 400, "expired_token");
        sqlx::raw_sql("ROLLBACK")
            .execute(&mut writer)
            .await
            .unwrap();
    };
    let (decided, ()) = tokio::join!(decided, lost);
    assert_eq!(decided.unwrap().status, 200);
    flow.acknowledged = true;
    flow.redeem(0).await;
    assert_eq!(flow.tokens.len(), 1);
    node.stop().await;
    invariants::check(&site, &[flow]).await;
}

fn keys(server: &RedisServer) -> Vec<String> {
    let keys = server.cli(&["keys", "*"]);
    let mut keys: Vec<String> = keys.lines().map(str::to_owned).collect();
    keys.sort();
    keys
}

/// F8: no room for a write. Nobody is told anything else, and no write is half done.
#[tokio::test(flavor = "multi_thread")]
async fn there_is_no_room() {
    let redis = Redis::start();
    let server = redis.server();
    let site = site(Backend::sqlite(), &redis.url);
    let (cast, mut node) = Cast::new(&site, 1, 1).await;
    let mut flow = cast.begin(Decision::Approve).await;
    let shown = flow.look().await;
    let (bank, phone) = (&flow.bank, &flow.person.phone);
    let full = |full: bool| {
        let limit = if full { "1" } else { "0" };
        server.cli(&["config", "set", "maxmemory", limit]);
    };
    // The worker has settled its job: nothing changes any more by itself, but for keys that run out.
    eventually("the job is done", || {
        !keys(server).iter().any(|key| key.ends_with(":due"))
    })
    .await;
    let lasting = || -> Vec<String> {
        let keys = keys(server).into_iter();
        keys.filter(|key| !key.ends_with(":turn")).collect()
    };
    let before = lasting();
    full(true);
    let (polled, asked, decided, inbox) = tokio::join!(
        bank.poll(&flow.auth_req_id, 0),
        bank.ask("key", &flow.person.login),
        phone.try_answer(&shown, Decision::Approve, None),
        phone.call("GET", "/device/v1/requests", None),
    );
    for answer in [
        polled.unwrap(),
        asked.unwrap(),
        decided.unwrap(),
        inbox.unwrap(),
    ] {
        assert_unavailable(&answer);
    }
    assert_eq!(lasting(), before, "something was written all the same");
    full(false);
    let asked = bank.ask("key", &flow.person.login).await.unwrap();
    assert_eq!(asked.status, 200, "{asked:?}");
    let again = bank.ask("key", &flow.person.login).await.unwrap();
    assert_eq!(asked.json()["auth_req_id"], again.json()["auth_req_id"]);
    flow.send(&shown).await;
    flow.redeem(0).await;
    assert_eq!(flow.tokens.len(), 1);
    node.stop().await;
}

/// F8 under load: full and not full in turn.
#[tokio::test(flavor = "multi_thread")]
async fn there_is_no_room_now_and_then() {
    let redis = Redis::start();
    let server = redis.server();
    let mut storm = Storm::on_one_node(site(Backend::sqlite(), &redis.url)).await;
    for _ in 0..3 * rounds() {
        storm.work(4).await;
        storm.strike();
        server.cli(&["config", "set", "maxmemory", "1"]);
        pause(100 + storm.chance.below(900)).await;
        server.cli(&["config", "set", "maxmemory", "0"]);
    }
    storm.work(4).await;
    let flows = storm.end("F8 no room").await;
    assert!(
        flows.iter().any(|flow| flow.trouble.refused > 0),
        "nothing was disturbed"
    );
}
