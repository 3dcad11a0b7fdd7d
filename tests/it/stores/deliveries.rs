//! What became of pushes: two halves, noted by the server and by the phone.

use super::pending::create;
use super::{PARTITION, Stores, at, id, in_every_store, key, new_request, request_of};
use assent::domain::delivery::{Delivery, DeliveryState, PushRecord};
use assent::domain::{DeviceId, UserId};

in_every_store!(
    each_half_is_noted_by_itself,
    nothing_is_noted_of_a_request_that_is_not_there,
    prompts_are_listed_newest_first,
);

fn push(state: DeliveryState, attempts: u32) -> PushRecord {
    PushRecord {
        state,
        at: at(1),
        attempts,
        not_before: Some(at(2)),
        gateway_id: None,
        reason: Some("503 \"quoted\" Überlast".into()),
    }
}

async fn each_half_is_noted_by_itself(stores: &Stores) {
    create(stores, &new_request(1)).await;
    create(stores, &new_request(2)).await;
    let log = &stores.deliveries;
    assert_eq!(log.deliveries(key(1)).await.unwrap(), []);
    let [one, two, three] = ["one", "two", "three"].map(DeviceId::new);
    let first = [
        (one.clone(), push(DeliveryState::Queued, 1)),
        (two.clone(), push(DeliveryState::Dead, 1)),
    ];
    log.note_pushes(key(1), &first).await.unwrap();
    log.note_fetched(key(1), &one, at(3)).await.unwrap();
    log.note_fetched(key(1), &three, at(4)).await.unwrap();
    // The first time counts for the phone, the last for the server.
    log.note_fetched(key(1), &one, at(9)).await.unwrap();
    let accepted = PushRecord {
        gateway_id: Some("gateway's id".into()),
        reason: None,
        ..push(DeliveryState::Accepted, 2)
    };
    let second = [(one.clone(), accepted.clone())];
    log.note_pushes(key(1), &second).await.unwrap();
    log.note_pushes(key(1), &[]).await.unwrap();
    let mut found = log.deliveries(key(1)).await.unwrap();
    found.sort_by(|a, b| a.device.as_str().cmp(b.device.as_str()));
    let delivery = |device: &DeviceId, push: Option<&PushRecord>, fetched: Option<i64>| Delivery {
        device: device.clone(),
        push: push.cloned(),
        fetched_at: fetched.map(at),
    };
    let expected = [
        delivery(&one, Some(&accepted), Some(3)),
        delivery(&three, None, Some(4)),
        delivery(&two, Some(&first[1].1), None),
    ];
    assert_eq!(found, expected);
    let states = found.iter().map(Delivery::state).collect::<Vec<_>>();
    let fetched = DeliveryState::Fetched;
    assert_eq!(states, [fetched, fetched, DeliveryState::Dead]);
    assert_eq!(log.deliveries(key(2)).await.unwrap(), []);
}

async fn nothing_is_noted_of_a_request_that_is_not_there(stores: &Stores) {
    let log = &stores.deliveries;
    let device = DeviceId::new("one");
    let pushes = [(device.clone(), push(DeliveryState::Accepted, 1))];
    log.note_pushes(key(1), &pushes).await.unwrap();
    log.note_fetched(key(1), &device, at(1)).await.unwrap();
    assert_eq!(log.deliveries(key(1)).await.unwrap(), []);
}

async fn prompts_are_listed_newest_first(stores: &Stores) {
    for (n, user, second) in [
        (1, "alice", 5),
        (2, "bob", 6),
        (3, "alice", 7),
        (4, "alice", 6),
    ] {
        create(stores, &request_of(n, "bank", user, at(second))).await;
    }
    let alice = UserId::new("alice");
    let prompts = stores.deliveries.prompts(&alice, PARTITION).await.unwrap();
    assert_eq!(prompts, [3, 4, 1].map(id));
}
