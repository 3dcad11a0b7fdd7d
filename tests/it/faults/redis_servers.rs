//! What the faults of Redis rest on: that servers lose what these tests say they lose, and that the wire
//! does what it is told.

use super::wire::{Breach, Fate, Wire};
use crate::support::own_redis::{Redis, RedisCluster, RedisSentinel, eventually};
use crate::support::process::pause;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

#[tokio::test(flavor = "multi_thread")]
async fn a_server_keeps_its_data_but_for_what_is_cut_off() {
    let redis = Redis::start();
    let server = redis.server();
    for number in 0..100 {
        server.cli(&["rpush", "list", &number.to_string()]);
    }
    server.kill().await;
    server.restart().await;
    assert_eq!(server.cli(&["llen", "list"]).trim(), "100");
    server.kill().await;
    server.cut_aof(100);
    server.restart().await;
    let left: u32 = server.cli(&["llen", "list"]).trim().parse().unwrap();
    assert!((90..100).contains(&left), "{left} are left");
    server.kill().await;
    server.wipe();
    server.restart().await;
    assert_eq!(server.cli(&["dbsize"]).trim(), "0");
}

/// Asynchronous replication: what was acknowledged while the wire was held is not on the replica.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_behind_a_held_wire_lacks_what_was_acknowledged() {
    let (primary, replica) = (Redis::start(), Redis::start());
    let (primary, replica) = (primary.server(), replica.server());
    let wire = Wire::to(primary.address()).await;
    replica.follow(wire.port).await;
    primary.cli(&["set", "before", "1"]);
    eventually("it is replicated", || {
        replica.cli(&["exists", "before"]).trim() == "1"
    })
    .await;
    wire.replies(Fate::Stall);
    assert_eq!(primary.cli(&["set", "after", "1"]).trim(), "OK");
    primary.kill().await;
    replica.promote();
    assert_eq!(replica.cli(&["exists", "before", "after"]).trim(), "1");
    assert_eq!(replica.info("role"), "master");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_replaces_a_dead_primary_and_moves_slots() {
    let cluster = RedisCluster::start();
    let first = cluster.owner(0, &cluster.servers[0]);
    let last = cluster.owner(16_383, first);
    assert_ne!(first.port, last.port);
    first.cli(&["set", "{22179}:key", "value"]);
    assert_eq!(cluster.slots_with("key", first), [1].into());
    cluster.move_slot(1, first, last);
    assert_eq!(last.cli(&["get", "{22179}:key"]).trim(), "value");
    eventually("all know of the move", || {
        cluster.owner(1, &cluster.servers[5]).port == last.port
    })
    .await;
    first.kill().await;
    let promoted = cluster.promotion(100, first).await;
    assert_eq!(promoted.info("role"), "master");
    first.restart().await;
    eventually("the dead one comes back as a replica", || {
        first.info("role") == "slave"
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sentinels_replace_a_master_that_is_held() {
    let sentinel = RedisSentinel::start();
    let master = sentinel.master();
    assert_eq!(sentinel.replicas_of(master).count(), 2);
    master.signal("STOP");
    let promoted = sentinel.promotion(master).await;
    assert_ne!(promoted.port, master.port);
    master.signal("CONT");
}

/// A server that answers every byte with the next letter, one at a time.
async fn echo() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    #[expect(clippy::disallowed_methods, reason = "ends with the test's runtime")]
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut byte = [0];
            while let Ok(1) = stream.read(&mut byte).await {
                stream.write_all(&[byte[0] + 1]).await.unwrap();
            }
            let _ = stream.write_all(b"end").await;
        }
    });
    address
}

/// What arrives within a moment.
async fn heard(stream: &mut TcpStream) -> String {
    let mut all = Vec::new();
    let mut buffer = [0; 64];
    loop {
        tokio::select! {
            read = stream.read(&mut buffer) => match read {
                Ok(0) | Err(_) => {
                    all.push(b'.');
                    break;
                }
                Ok(count) => all.extend_from_slice(&buffer[..count]),
            },
            () = pause(200) => break,
        }
    }
    String::from_utf8(all).unwrap()
}

/// A full stop means that the connection has ended.
#[tokio::test(flavor = "multi_thread")]
async fn the_wire_does_what_it_is_told() {
    let server = echo().await;
    let wire = Wire::to(server.clone()).await;
    let connect = async || TcpStream::connect(("127.0.0.1", wire.port)).await.unwrap();
    let mut stream = connect().await;
    let ask = async |stream: &mut TcpStream, text: &str| {
        stream.write_all(text.as_bytes()).await.unwrap();
        heard(stream).await
    };
    assert_eq!(ask(&mut stream, "ab").await, "bc");
    wire.requests(Fate::Stall);
    assert_eq!(ask(&mut stream, "ab").await, "");
    wire.requests(Fate::Drop);
    assert_eq!(ask(&mut stream, "cd").await, "");
    wire.requests(Fate::Pass);
    assert_eq!(ask(&mut stream, "ef").await, "fg", "dropped for good");
    wire.replies(Fate::Stall);
    assert_eq!(ask(&mut stream, "ab").await, "");
    wire.replies(Fate::Pass);
    assert_eq!(heard(&mut stream).await, "bc", "held, and let go");
    wire.replies(Fate::Delay(Duration::from_millis(400)));
    assert_eq!(ask(&mut stream, "a").await, "");
    pause(250).await;
    assert_eq!(heard(&mut stream).await, "b");
    wire.both(Fate::Drop);
    assert_eq!(ask(&mut stream, "a").await, "");
    wire.both(Fate::Pass);
    wire.replies(Fate::CutAfter(3));
    assert_eq!(ask(&mut stream, "abcdef").await, "bcd.");
    wire.replies(Fate::Pass);

    let mut stream = connect().await;
    wire.break_at(Breach::BeforeItArrives, |bytes| bytes.contains(&b'x'));
    assert_eq!(ask(&mut stream, "a").await, "b");
    assert!(!wire.has_broken());
    assert_eq!(ask(&mut stream, "x").await, ".");
    assert!(wire.has_broken());

    let mut stream = connect().await;
    wire.requests(Fate::HalfClose);
    assert_eq!(heard(&mut stream).await, "end.");
    wire.requests(Fate::Pass);

    let mut stream = connect().await;
    assert_eq!(ask(&mut stream, "a").await, "b");
    wire.lead_to(echo().await);
    assert_eq!(heard(&mut stream).await, ".");
    assert_eq!(ask(&mut connect().await, "a").await, "b");
}
