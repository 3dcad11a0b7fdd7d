//! F16: more than the nodes can do, by clients that come again at once.

use super::cast::{Bank, assert_unavailable};
use super::storm::{Storm, rounds};
use crate::support::Backend;
use crate::support::own_redis::Redis;
use crate::support::process::{Site, pause};
use assent::clock::{Clock as _, SystemClock};
use assent::phone::http::Answer;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::task::JoinSet;

/// Clients that never wait, each with a connection of its own.
const IMPATIENT: usize = 48;
const FOR: Duration = Duration::from_secs(5);

/// While the crowd is refused, those who were asked before get their answers through; when it is gone, all
/// is as before at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_that_comes_again_at_once_keeps_nobody_from_deciding() {
    let redis = Redis::start();
    let site = Site::with(
        Backend::postgres().await,
        vec![
            ("ciba.interval", "1s".into()),
            ("redis.url", redis.url.clone()),
            ("server.max_in_progress", "16".into()),
        ],
    );
    let mut storm = Storm::on_one_node(site).await;
    // It asks for somebody whom nobody knows, so that it takes no places from the others.
    let crowd = Bank::register(&storm.site, "crowd", &[]);
    storm.work(4).await;
    storm.strike();
    let until = SystemClock.now().plus(FOR * rounds() as u32);
    let mut impatient = JoinSet::new();
    for number in 0..IMPATIENT {
        let crowd = crowd.clone();
        impatient.spawn(async move {
            let mut statuses = BTreeMap::new();
            let mut asked = 0;
            while SystemClock.now() < until {
                asked += 1;
                let key = format!("crowd-{number}-{asked}");
                let answer: Answer = crowd.ask(&key, "nobody").await.unwrap();
                *statuses.entry(answer.status).or_insert(0) += 1;
                if answer.status != 400 {
                    assert_unavailable(&answer);
                }
            }
            statuses
        });
    }
    storm.work(6).await;
    let mut statuses = BTreeMap::new();
    for of_one in impatient.join_all().await {
        for (status, count) in of_one {
            *statuses.entry(status).or_insert(0) += count;
        }
    }
    println!("F16 the crowd was told: {statuses:?}");
    assert!(
        statuses.get(&503).is_some_and(|refused| *refused > 0),
        "{statuses:?}"
    );
    pause(200).await;
    let answer = crowd.ask("afterwards", "nobody").await.unwrap();
    assert_eq!(answer.status, 400, "{answer:?}");
    storm.work(4).await;
    storm.end("F16 a crowd that comes again at once").await;
}
