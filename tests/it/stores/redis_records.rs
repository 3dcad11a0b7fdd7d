//! What another version of the program may have left in Redis, and what nobody should have.

use super::{Stores, at, id, job_of, key, new_request, request_of};
use crate::support::RedisServers;
use crate::support::own_redis::Redis;
use assent::domain::DeviceId;
use assent::domain::request::State;
use assent::store::{Poll, StoreError};
use std::time::Duration;

const LEASE: Duration = Duration::from_secs(30);

fn stores(redis: &Redis) -> Stores {
    Stores::redis(RedisServers {
        url: redis.url.clone(),
        prefix: "assent".into(),
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_version_may_add_to_a_record() {
    let redis = Redis::start();
    let (stores, server) = (stores(&redis), redis.server());
    let new = new_request(1);
    stores.pending.create(&new, at(0)).await.unwrap();
    let facts = format!("assent:{{7}}:facts:{}", id(1));
    let more = server
        .cli(&["get", &facts])
        .trim()
        .replacen('{', r#"{"later":[1],"#, 1);
    assert_eq!(server.cli(&["set", &facts, &more, "keepttl"]).trim(), "OK");
    let state = format!("assent:{{7}}:state:{}", id(1));
    server.cli(&["hset", &state, "z", "later"]);
    let found = stores.pending.find(key(1), at(1)).await.unwrap().unwrap();
    assert_eq!((found.facts, found.state), (new.facts, State::Pending));
    let polled = stores.pending.poll(key(1), Poll::default(), at(1)).await;
    assert_eq!(polled.unwrap().unwrap().state, State::Pending);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_nobody_can_read_holds_up_no_other() {
    let redis = Redis::start();
    let (stores, server) = (stores(&redis), redis.server());
    for n in 1..=2 {
        let due = at(i64::from(n));
        let new = request_of(n, "bank", "alice", due);
        stores.pending.create(&new, due).await.unwrap();
    }
    let strange = job_of(new_request(1)).id();
    server.cli(&["hset", "assent:{7}:jobs", &strange, r#"0 {"kind":"later"}"#]);
    let mut claimed = Vec::new();
    for _ in 0..2 {
        claimed.extend(stores.jobs.claim(1, LEASE, at(5)).await.unwrap());
    }
    assert_eq!(claimed.len(), 1);
    assert_eq!(claimed[0].id, job_of(new_request(2)).id());
    // It waits under its lease for a node that can.
    assert_eq!(stores.jobs.depth().await.unwrap().alive, 2);
    assert!(
        stores
            .jobs
            .claim(9, LEASE, at(34))
            .await
            .unwrap()
            .is_empty()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_record_is_reported_with_its_place() {
    let redis = Redis::start();
    let (stores, server) = (stores(&redis), redis.server());
    for n in 1..=2 {
        let new = request_of(n, "bank", &format!("user {n}"), at(0));
        stores.pending.create(&new, at(0)).await.unwrap();
    }
    let place = |n| format!("assent:{{7}}:state:{}", id(n));
    server.cli(&[
        "set",
        &format!("assent:{{7}}:facts:{}", id(1)),
        "{}",
        "keepttl",
    ]);
    server.cli(&["hset", &place(2), "s", "perhaps"]);
    for (n, damaged) in [(1, "facts"), (2, "state")] {
        let found = stores.pending.find(key(n), at(1)).await;
        assert!(
            matches!(&found, Err(StoreError::Corrupt { row, what, .. })
                if *row == place(n) && *what == damaged),
            "{found:?}"
        );
    }
    // A poll needs no facts, and the Ledger's word mends a state.
    let polled = stores.pending.poll(key(1), Poll::default(), at(1)).await;
    assert_eq!(polled.unwrap().unwrap().state, State::Pending);
    stores.pending.project(key(2), State::Denied).await.unwrap();
    let polled = stores.pending.poll(key(2), Poll::default(), at(1)).await;
    assert_eq!(polled.unwrap().unwrap().state, State::Denied);
}

/// Whatever is written runs out by itself.
#[tokio::test(flavor = "multi_thread")]
async fn every_key_of_a_request_has_an_end() {
    let redis = Redis::start();
    let (stores, server) = (stores(&redis), redis.server());
    stores.pending.create(&new_request(1), at(0)).await.unwrap();
    stores
        .replays
        .first_use("proof", at(60), at(0))
        .await
        .unwrap();
    stores
        .pending
        .reserve(&super::pending::slot("body", "sealed"), at(0))
        .await
        .unwrap();
    assert!(
        stores
            .pending
            .take_turn(Duration::from_secs(2))
            .await
            .unwrap()
    );
    let device = DeviceId::new("one");
    let noted = stores.deliveries.note_fetched(key(1), &device, at(0));
    noted.await.unwrap();
    let claimed = stores.jobs.claim(1, LEASE, at(0)).await.unwrap();
    assert!(stores.jobs.bury(&claimed[0], "dead", at(1)).await.unwrap());
    let keys = server.cli(&["keys", "*"]);
    let mut seen = 0;
    for name in keys.lines() {
        let left: i64 = server.cli(&["pttl", name]).trim().parse().unwrap();
        assert!(left > 0, "{name} never ends");
        seen += 1;
    }
    assert_eq!(seen, 9, "{keys}");
}
