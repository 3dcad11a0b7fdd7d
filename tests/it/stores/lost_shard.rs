//! A primary of a cluster is lost with its replica: whoever lives elsewhere notices nothing.

use super::{INTERVAL, at, id};
use crate::support::RedisServers;
use crate::support::own_redis::{RedisCluster, eventually};
use assent::clock::{Clock as _, SystemClock};
use assent::domain::request::State;
use assent::domain::{Job, Partition, RequestKey};
use assent::store::{JobQueue as _, NewRequest, PendingRequests as _};
use std::time::Duration;

const LEASE: Duration = Duration::from_secs(30);

/// The `n`th request, in a partition of its own.
fn request_in(n: u8) -> NewRequest {
    let mut new = super::request_of(u32::from(n), "bank", &format!("user {n}"), at(0));
    new.facts.partition = Partition(n);
    new.job = Some(Job::NotifyDevice {
        request_id: new.facts.id,
        partition: Partition(n),
        user_id: new.facts.user_id.clone(),
        expires_at: new.facts.expires_at,
    });
    new
}

#[tokio::test(flavor = "multi_thread")]
async fn the_others_go_on() {
    let cluster = RedisCluster::start();
    let redis = RedisServers {
        url: cluster.url.clone(),
        prefix: "assent".into(),
    }
    .open();
    let (pending, jobs) = (redis.pending(INTERVAL), redis.jobs());
    let keys: Vec<RequestKey> = (0..=u8::MAX)
        .map(|n| RequestKey {
            partition: Partition(n),
            id: id(u32::from(n)),
        })
        .collect();
    for n in 0..=u8::MAX {
        pending.create(&request_in(n), at(0)).await.unwrap();
    }

    // The primary of slot 0, and whoever could take its place.
    let lost = cluster.owner(0, &cluster.servers[0]).clone();
    let own = lost.cli(&["cluster", "myid"]).trim().to_owned();
    let replicas = lost.cli(&["cluster", "replicas", &own]);
    let is_replica = |port: u16| replicas.contains(&format!(":{port}@"));
    for server in &cluster.servers {
        if is_replica(server.port) {
            server.kill().await;
        }
    }
    lost.kill().await;
    let alive = cluster.other_than(&lost);
    let alive = if is_replica(alive.port) {
        let lives = |server: &&_| {
            let server: &crate::support::own_redis::RedisServer = server;
            server.port != lost.port && !is_replica(server.port)
        };
        cluster.servers.iter().find(lives).unwrap()
    } else {
        alive
    };
    eventually("the cluster knows it", || {
        let nodes = alive.cli(&["cluster", "nodes"]);
        nodes
            .lines()
            .any(|line| line.starts_with(&own) && line.contains("fail"))
    })
    .await;

    let mut found = 0;
    for key in &keys {
        found += usize::from(pending.find(*key, at(1)).await.is_ok_and(|f| f.is_some()));
    }
    assert!((100..240).contains(&found), "{found} of 256 are there");
    let states: Vec<_> = keys.iter().map(|key| (*key, State::Denied)).collect();
    assert!(
        pending.project_all(&states).await.is_err(),
        "some cannot be told"
    );
    let mut told = 0;
    for key in &keys {
        let standing = pending.standing(*key, at(1)).await;
        told += usize::from(standing.is_ok_and(|s| s.is_some_and(|s| s.state == State::Denied)));
    }
    assert_eq!(told, found, "everybody else is told");

    let mut claimed = 0;
    for second in 0..600 {
        if let Ok(jobs) = jobs.claim(32, LEASE, at(1 + second / 100)).await {
            claimed += jobs.len();
        }
        if claimed == found {
            break;
        }
    }
    assert_eq!(claimed, found, "everybody else's jobs are done");
    redis.check(|| SystemClock.now()).await.unwrap();
    assert!(redis.now().await.is_ok());
}

/// One that does not answer costs a wait now and then, and not one for each who lives there.
#[tokio::test(flavor = "multi_thread")]
async fn a_silent_one_holds_up_no_job_of_the_others() {
    let cluster = RedisCluster::start();
    let redis = RedisServers {
        url: cluster.url.clone(),
        prefix: "assent".into(),
    }
    .open();
    let (pending, jobs) = (redis.pending(INTERVAL), redis.jobs());
    for n in 0..=u8::MAX {
        pending.create(&request_in(n), at(0)).await.unwrap();
    }
    let silent = cluster.owner(0, &cluster.servers[0]).clone();
    let own = silent.cli(&["cluster", "myid"]).trim().to_owned();
    let replicas = silent.cli(&["cluster", "replicas", &own]);
    let is_replica = |port: u16| replicas.contains(&format!(":{port}@"));
    let held = |signal: &str| {
        silent.signal(signal);
        let all = cluster.servers.iter();
        all.filter(|server| is_replica(server.port))
            .for_each(|server| server.signal(signal));
    };
    held("STOP");
    let work = async {
        let mut claimed = 0;
        while claimed < 100 {
            if let Ok(jobs) = jobs.claim(32, LEASE, at(1)).await {
                claimed += jobs.len();
            }
        }
    };
    // Two seconds for each of its eighty people would be far more.
    let done = tokio::time::timeout(Duration::from_secs(45), work).await;
    held("CONT");
    done.expect("the others' jobs wait for it");
}
