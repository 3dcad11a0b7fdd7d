//! Enrolments: one code, one device.

use super::at;
use crate::support::house::{entry, new_device, new_enrolment};
use crate::support::{Backend, House, START, all, on_both};
use assent::domain::{Device, Timestamp};
use assent::entropy::{Entropy, SystemEntropy};
use assent::store::sql::directory::{Bound, NewEnrolment};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

on_both!(
    one_enrolment_binds_one_device,
    a_closed_enrolment_binds_none,
    a_code_that_looks_like_another_is_not_stored,
    a_code_that_looks_like_another_is_made_again,
);

async fn one_enrolment_binds_one_device(backend: Backend) {
    let house = House::new(backend).await;
    let user = house.user("alice").await;
    let enrolment = new_enrolment(&user, "1");
    house
        .directory
        .insert_enrolment(&enrolment, user.partition, entry())
        .await
        .unwrap();
    let before = house.backend.count("audit").await;
    let bound = all((0..16).map(|_| {
        let (directory, device, partition) =
            (house.directory.clone(), new_device(&user), user.partition);
        async move {
            let bound = directory
                .bind_device("link 1", &device, partition, START, entry(), None)
                .await;
            (device.id, bound.unwrap())
        }
    }))
    .await;
    let winners: Vec<_> = bound
        .iter()
        .filter(|(_, bound)| *bound == Bound::Yes)
        .collect();
    assert_eq!(winners.len(), 1);
    assert!(bound.iter().all(|(_, bound)| *bound != Bound::KnownDevice));
    let devices = house.directory.devices_of(&user.id).await.unwrap();
    assert_eq!(devices.len(), 1);
    assert_eq!(devices[0].id, winners[0].0);
    let found = house.directory.enrolment("link 1").await.unwrap().unwrap();
    assert_eq!(found.enrolment.device_id.as_ref(), Some(&devices[0].id));
    assert_eq!(house.backend.count("audit").await, before + 1);
    house.assert_audit_is_whole().await;
}

async fn a_closed_enrolment_binds_none(backend: Backend) {
    let house = House::new(backend).await;
    let user = house.user("alice").await;
    for name in ["old", "guessed", "open"] {
        let enrolment = new_enrolment(&user, name);
        house
            .directory
            .insert_enrolment(&enrolment, user.partition, entry())
            .await
            .unwrap();
    }
    let bind = async |link: &str, device: Device, now: Timestamp| {
        let bound = house
            .directory
            .bind_device(link, &device, user.partition, now, entry(), None);
        bound.await.unwrap()
    };
    let device = new_device(&user);
    assert_eq!(
        bind("link old", device.clone(), at(600)).await,
        Bound::Closed
    );
    assert_eq!(
        bind("link unknown", device.clone(), START).await,
        Bound::Closed
    );
    for _ in 0..5 {
        house
            .directory
            .count_wrong_try("link guessed")
            .await
            .unwrap();
    }
    assert_eq!(
        bind("link guessed", device.clone(), START).await,
        Bound::Closed
    );
    assert_eq!(house.backend.count("devices").await, 0);
    let last = at(600).minus(Duration::from_millis(1));
    assert_eq!(bind("link open", device.clone(), last).await, Bound::Yes);
    assert_eq!(
        bind("link open", new_device(&user), last).await,
        Bound::Closed
    );
    // A key that is a device already opens no other door.
    assert_eq!(
        bind("link old", device.clone(), START).await,
        Bound::KnownDevice
    );
    assert_eq!(house.backend.count("devices").await, 1);
}

/// The look-up part of a typed code is short: in time two are alike.
async fn a_code_that_looks_like_another_is_not_stored(backend: Backend) {
    let house = House::new(backend).await;
    let user = house.user("alice").await;
    let first = new_enrolment(&user, "1");
    let insert = async |new: NewEnrolment| {
        house
            .directory
            .insert_enrolment(&new, user.partition, entry())
            .await
            .unwrap()
    };
    assert!(insert(first.clone()).await);
    let before = house.backend.dump().await;
    let mut second = new_enrolment(&user, "2");
    second.lookup_hash = first.lookup_hash;
    assert!(!insert(second.clone()).await);
    assert!(house.backend.dump().await == before);
    second.lookup_hash = "lookup 2".into();
    assert!(insert(second.clone()).await);
}

/// Every 16 bytes come several times before others come.
struct Stutter(AtomicU8);

impl Entropy for Stutter {
    fn fill(&self, buffer: &mut [u8]) {
        match buffer.len() {
            16 => buffer.fill(self.0.fetch_add(1, Ordering::SeqCst) / 8),
            _ => SystemEntropy.fill(buffer),
        }
    }
}

async fn a_code_that_looks_like_another_is_made_again(backend: Backend) {
    let house = House::with_entropy(backend, Arc::new(Stutter(AtomicU8::new(0)))).await;
    let user = house.user("alice").await;
    let mut codes = BTreeSet::new();
    for _ in 0..4 {
        let ticket = house.create_enrolment(&user).await.unwrap();
        codes.insert(ticket.typed_code.expose().to_owned());
    }
    assert_eq!(codes.len(), 4, "{codes:?}");
    assert_eq!(house.backend.count("enrolments").await, 4);
    let rows = "audit WHERE kind = 'enrolment.created'";
    assert_eq!(house.backend.count(rows).await, 4);
}
