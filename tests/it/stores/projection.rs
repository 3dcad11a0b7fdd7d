//! Pending requests: the inbox, and what the Ledger says of them.

use super::pending::{create, slot, state};
use super::{PARTITION, Stores, at, id, in_every_store, key, new_request, request_of};
use crate::support::START;
use assent::domain::UserId;
use assent::domain::request::State;
use std::time::Duration;
use tokio::sync::watch;

in_every_store!(
    the_inbox_shows_what_waits_for_this_person,
    the_projection_repeats_itself_without_harm,
    a_redeemed_request_stays_redeemed,
    many_states_are_projected_at_once,
    a_projection_wakes_who_waits,
    what_is_long_over_is_swept,
);

async fn the_inbox_shows_what_waits_for_this_person(stores: &Stores) {
    let inbox = async |user: &str, now| {
        let open = stores
            .pending
            .open_for(&UserId::new(user), PARTITION, at(now))
            .await
            .unwrap();
        assert!(open.iter().all(|request| request.state == State::Pending));
        open.into_iter()
            .map(|request| request.facts.id)
            .collect::<Vec<_>>()
    };
    assert!(inbox("alice", 0).await.is_empty());
    // Oldest first, whichever ends first.
    let mut long = request_of(1, "bank", "alice", at(0));
    long.facts.expires_at = at(300);
    create(stores, &long).await;
    for n in 2..10 {
        let client = ["bank", "shop"][n as usize % 2];
        create(stores, &request_of(n, client, "alice", at(i64::from(n)))).await;
    }
    create(stores, &request_of(10, "bank", "bob", at(0))).await;
    assert_eq!(
        inbox("alice", 10).await,
        (1..10).map(id).collect::<Vec<_>>()
    );
    assert_eq!(inbox("bob", 10).await, [id(10)]);
    // Neither what is decided nor what has run out.
    for (n, state) in [
        (2, State::Approved),
        (3, State::Denied),
        (4, State::Cancelled),
    ] {
        stores.pending.project(key(n), state).await.unwrap();
    }
    assert_eq!(inbox("alice", 126).await, [1, 7, 8, 9].map(id));
    assert_eq!(inbox("alice", 129).await, [id(1)]);
    assert!(inbox("alice", 300).await.is_empty());
}

async fn the_projection_repeats_itself_without_harm(stores: &Stores) {
    let pending = &*stores.pending;
    // Nobody knows this request, and that stays so.
    pending.project(key(9), State::Approved).await.unwrap();
    assert_eq!(pending.find(key(9), START).await.unwrap(), None);
    for (n, end) in [
        State::Approved,
        State::Denied,
        State::Cancelled,
        State::Burned,
    ]
    .into_iter()
    .enumerate()
    {
        let n = n as u32;
        create(stores, &new_request(n)).await;
        for _ in 0..2 {
            pending.project(key(n), end).await.unwrap();
            assert_eq!(state(pending, key(n)).await, end);
        }
    }
    // An approval can be withdrawn, and can run out.
    pending.project(key(0), State::Cancelled).await.unwrap();
    assert_eq!(state(pending, key(0)).await, State::Cancelled);
    create(stores, &new_request(5)).await;
    pending.project(key(5), State::Approved).await.unwrap();
    let expired = pending.find(key(5), at(180)).await.unwrap().unwrap();
    assert_eq!(expired.state, State::Expired);
}

async fn a_redeemed_request_stays_redeemed(stores: &Stores) {
    create(stores, &new_request(1)).await;
    stores
        .pending
        .project(key(1), State::Redeemed)
        .await
        .unwrap();
    // A sweep that read the Ledger a moment earlier says "approved".
    stores
        .pending
        .project(key(1), State::Approved)
        .await
        .unwrap();
    assert_eq!(state(&*stores.pending, key(1)).await, State::Redeemed);
    stores
        .pending
        .project_all(&[(key(1), State::Approved)])
        .await
        .unwrap();
    assert_eq!(state(&*stores.pending, key(1)).await, State::Redeemed);
}

async fn many_states_are_projected_at_once(stores: &Stores) {
    const STATES: [State; 5] = [
        State::Approved,
        State::Denied,
        State::Cancelled,
        State::Burned,
        State::Redeemed,
    ];
    let count = 41;
    for n in 0..count {
        create(stores, &new_request(n)).await;
        // Some are right already.
        if n % 3 == 0 {
            let state = STATES[n as usize % 5];
            stores.pending.project(key(n), state).await.unwrap();
        }
    }
    // Every seventh is one that the store has lost.
    let states: Vec<_> = (0..count)
        .flat_map(|n| [(n, STATES[n as usize % 5]), (n + 1000, State::Approved)])
        .filter(|(n, _)| *n < 1000 || n % 7 == 0)
        .map(|(n, state)| (key(n), state))
        .collect();
    for _ in 0..2 {
        stores.pending.project_all(&states).await.unwrap();
        for n in 0..count {
            assert_eq!(
                state(&*stores.pending, key(n)).await,
                STATES[n as usize % 5],
                "{n}"
            );
        }
    }
    assert_eq!(stores.pending.find(key(1001), START).await.unwrap(), None);
    stores.pending.project_all(&[]).await.unwrap();
}

async fn a_projection_wakes_who_waits(stores: &Stores) {
    create(stores, &new_request(1)).await;
    create(stores, &new_request(2)).await;
    let watch = |n| stores.pending.watch(id(n));
    let (mut first, mut second, mut other) = (watch(1), watch(1), watch(2));
    stores
        .pending
        .project(key(1), State::Approved)
        .await
        .unwrap();
    woken(&mut first).await;
    woken(&mut second).await;
    assert!(!other.has_changed().unwrap());
    stores
        .pending
        .project_all(&[(key(2), State::Denied)])
        .await
        .unwrap();
    woken(&mut other).await;
    // A sweep in between takes nobody's wake-up away.
    stores.pending.sweep(START).await.unwrap();
    stores
        .pending
        .project(key(1), State::Cancelled)
        .await
        .unwrap();
    woken(&mut first).await;
}

async fn woken(watch: &mut watch::Receiver<u64>) {
    let changed = tokio::time::timeout(Duration::from_secs(2), watch.changed()).await;
    changed.expect("somebody was not woken").unwrap();
}

async fn what_is_long_over_is_swept(stores: &Stores) {
    create(stores, &new_request(1)).await;
    stores
        .pending
        .project(key(1), State::Approved)
        .await
        .unwrap();
    stores
        .pending
        .reserve(&slot("body", "first"), START)
        .await
        .unwrap();
    // As long as an approval can be redeemed, and a while longer, a poll gets its precise answer.
    for now in [START, at(120), at(179), at(240)] {
        stores.pending.sweep(now).await.unwrap();
        assert!(
            stores.pending.find(key(1), now).await.unwrap().is_some(),
            "{now:?}"
        );
    }
    let next_day = at(86_400);
    create(stores, &request_of(2, "bank", "alice", next_day)).await;
    stores.pending.sweep(next_day).await.unwrap();
    assert_eq!(stores.pending.find(key(1), next_day).await.unwrap(), None);
    assert!(
        stores
            .pending
            .find(key(2), next_day)
            .await
            .unwrap()
            .is_some()
    );
    assert_eq!(stores.pending.sweep(next_day).await.unwrap(), 0);
}
