//! What may be used once is used once.

use super::{Stores, at, in_every_store};
use crate::support::{START, all};
use assent::domain::Timestamp;
use std::time::Duration;

in_every_store!(
    the_first_use_is_the_only_one,
    one_of_two_hundred_is_first,
    what_has_expired_is_free_again,
    a_crowd_shares_what_has_expired_once,
);

async fn the_first_use_is_the_only_one(stores: &Stores) {
    let first = async |id, expires, now| {
        let used = stores.replays.first_use(id, at(expires), at(now)).await;
        used.unwrap()
    };
    assert!(first("a", 60, 0).await);
    assert!(!first("a", 60, 0).await);
    // A later end does not make it new, and does not end its memory earlier.
    assert!(!first("a", 600, 1).await);
    assert!(!first("a", 2, 1).await);
    assert!(!first("a", 60, 59).await);
    assert!(first("b", 60, 0).await);
    assert!(first("A", 60, 0).await);
}

async fn one_of_two_hundred_is_first(stores: &Stores) {
    let firsts = crowd(stores, at(60), START).await;
    assert_eq!(firsts, 1);
}

async fn what_has_expired_is_free_again(stores: &Stores) {
    let replays = &stores.replays;
    assert!(replays.first_use("a", at(60), START).await.unwrap());
    assert!(replays.first_use("b", at(90), START).await.unwrap());
    let last = at(60).minus(Duration::from_millis(1));
    assert!(!replays.first_use("a", at(120), last).await.unwrap());
    assert!(replays.first_use("a", at(120), at(60)).await.unwrap());
    assert!(!replays.first_use("a", at(120), at(61)).await.unwrap());
    // The sweep takes what has expired and nothing else.
    replays.sweep(at(100)).await.unwrap();
    assert!(!replays.first_use("a", at(120), at(100)).await.unwrap());
    assert!(replays.first_use("b", at(120), at(100)).await.unwrap());
    assert_eq!(replays.sweep(at(100)).await.unwrap(), 0);
}

async fn a_crowd_shares_what_has_expired_once(stores: &Stores) {
    assert!(
        stores
            .replays
            .first_use("proof", at(60), START)
            .await
            .unwrap()
    );
    assert_eq!(crowd(stores, at(120), at(60)).await, 1);
}

/// How many of two hundred at once are told to be the first.
async fn crowd(stores: &Stores, expires_at: Timestamp, now: Timestamp) -> usize {
    let firsts = all((0..200).map(|_| {
        let replays = stores.replays.clone();
        async move { replays.first_use("proof", expires_at, now).await.unwrap() }
    }))
    .await;
    firsts.into_iter().filter(|first| *first).count()
}
