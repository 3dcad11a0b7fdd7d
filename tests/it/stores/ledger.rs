//! The Ledger's outcomes: whoever inserts first has decided.

use super::cast::Cast;
use super::{at, id};
use crate::support::house::entry;
use crate::support::{Backend, START, all, on_both};
use assent::domain::approval::DenyReason;
use assent::domain::device::DeviceState;
use assent::domain::outcome::{DecidedRequest, Evidence, Issuance};
use assent::domain::request::State;
use assent::domain::{ClientId, Outcome, RequestId};
use assent::store::StoreError;
use assent::store::sql::ledger::{Recorded, Redemption, Standings};
use std::time::Duration;

on_both!(
    one_of_many_decides_and_the_others_read_what,
    a_decision_that_is_not_recorded_never_was,
    what_was_decided_is_read_back_whole,
    evidence_opens_in_its_own_row_only,
    a_decision_about_a_stranger_is_refused,
    who_is_locked_before_the_decision_is_seen,
    a_lock_waits_for_the_decision_that_was_first,
    states_are_listed_page_by_page,
);

async fn one_of_many_decides_and_the_others_read_what(backend: Backend) {
    let cast = Cast::new(backend).await;
    let before = cast.house.backend.count("audit").await;
    for round in 0..3 {
        let recorded = all((0..24).map(|racer| {
            let outcome = [Outcome::Approved, Outcome::Denied, Outcome::Cancelled][racer % 3];
            let mut decided = cast.decided(round, outcome);
            decided.evidence.auth_req_id = format!("racer {racer}");
            let ledger = cast.house.ledger.clone();
            async move {
                let (user, client) = (&decided.user_id, &decided.client_id);
                let open = ledger
                    .begin_decision(decided.partition, user, client, None)
                    .await?;
                let recorded = open.record(&decided, &[], entry()).await?;
                Ok::<_, StoreError>((decided, recorded))
            }
        }))
        .await;
        let (mut winners, mut read) = (Vec::new(), Vec::new());
        for recorded in recorded {
            match recorded.unwrap() {
                (decided, Recorded::First) => winners.push(decided),
                (_, Recorded::Lost(winner)) => read.push(winner),
            }
        }
        assert_eq!((winners.len(), read.len()), (1, 23));
        for winner in read {
            assert_eq!(winner.outcome, winners[0].outcome);
            assert_eq!(winner.evidence.auth_req_id, winners[0].evidence.auth_req_id);
        }
    }
    assert_eq!(cast.house.backend.count("outcomes").await, 3);
    assert_eq!(cast.house.backend.count("audit").await, before + 3);
    cast.house.assert_audit_is_whole().await;
}

async fn a_decision_that_is_not_recorded_never_was(backend: Backend) {
    let cast = Cast::new(backend).await;
    let before = cast.chains().await;
    drop(cast.begin().await);
    assert_eq!(cast.chains().await, before);
    cast.decide(1, Outcome::Approved).await;
    let decided = cast.chains().await;
    assert_ne!(decided, before);
    // Whoever comes second takes the head and puts it back.
    let late = cast
        .begin()
        .await
        .record(&cast.decided(1, Outcome::Denied), &[], entry())
        .await;
    assert!(matches!(late.unwrap(), Recorded::Lost(winner) if winner.outcome == Outcome::Approved));
    assert_eq!(cast.chains().await, decided);
    cast.house.assert_audit_is_whole().await;
}

async fn what_was_decided_is_read_back_whole(backend: Backend) {
    let cast = Cast::new(backend).await;
    assert!(cast.house.ledger.lookup(id(1)).await.unwrap().is_none());
    let plain = cast.decided(1, Outcome::Cancelled);
    let full = cast.decided(2, Outcome::Denied);
    let written = [
        DecidedRequest {
            device_id: None,
            evidence: Evidence {
                challenge: None,
                approval: None,
                ..plain.evidence.clone()
            },
            ..plain
        },
        DecidedRequest {
            reason: Some(DenyReason::Fraud),
            decided_at: at(7),
            evidence: Evidence {
                auth_req_id: "Überweisung \u{1f4b6}".into(),
                client_notification_token: Some("notify me".into()),
                sender_constraint: Some(serde_json::json!({ "jkt": "thumbprint" })),
                ..full.evidence.clone()
            },
            ..full
        },
    ];
    for decided in written {
        let recorded = cast.begin().await.record(&decided, &[], entry()).await;
        assert!(matches!(recorded.unwrap(), Recorded::First));
        let found = cast.house.ledger.lookup(decided.request_id).await.unwrap();
        let (found, used) = found.unwrap();
        assert!(used.is_none());
        // The evidence has no `==` and no telling `Debug`, since it holds secrets.
        assert_eq!(format!("{found:?}"), format!("{decided:?}"));
        let json = |decided: &DecidedRequest| serde_json::to_value(&decided.evidence).unwrap();
        assert_eq!(json(&found), json(&decided));
    }
}

/// Evidence is sealed for its row: moved to another one it does not open, and says where.
async fn evidence_opens_in_its_own_row_only(backend: Backend) {
    let cast = Cast::new(backend).await;
    for n in 1..=3 {
        cast.decide(n, Outcome::Approved).await;
    }
    let sealed = cast
        .house
        .backend
        .column("SELECT evidence FROM outcomes")
        .await;
    assert!(
        sealed
            .iter()
            .all(|text| !text.contains("handle") && !text.contains("challenge"))
    );
    for (n, evidence) in [
        (
            1,
            format!(
                "(SELECT evidence FROM outcomes WHERE request_id = '{}')",
                id(3)
            ),
        ),
        (2, "'damaged'".into()),
    ] {
        let update = format!(
            "UPDATE outcomes SET evidence = {evidence} WHERE request_id = '{}'",
            id(n)
        );
        assert_eq!(cast.house.backend.execute(&update).await, 1);
        let corrupt = |error: &StoreError| matches!(error, StoreError::Corrupt { table: "outcomes", row, what: "evidence" } if *row == id(n).to_string());
        let ledger = &cast.house.ledger;
        let looked_up = ledger.lookup(id(n)).await.map(|_| ());
        let redeemed = ledger
            .begin_redemption(id(n), cast.user.partition, START)
            .await
            .map(|_| ());
        let recorded = cast
            .begin()
            .await
            .record(&cast.decided(n, Outcome::Denied), &[], entry())
            .await
            .map(|_| ());
        for result in [looked_up, redeemed, recorded] {
            assert!(result.as_ref().is_err_and(corrupt), "{result:?}");
        }
    }
    assert!(cast.house.ledger.lookup(id(3)).await.unwrap().is_some());
    // A state that no outcome has is found as well.
    cast.house
        .backend
        .execute("UPDATE outcomes SET outcome = 'perhaps'")
        .await;
    let result = cast.house.ledger.lookup(id(3)).await.map(|_| ());
    assert!(
        matches!(
            result,
            Err(StoreError::Corrupt {
                what: "outcome",
                ..
            })
        ),
        "{result:?}"
    );
}

/// No caller does this; the foreign keys are there should one ever try.
async fn a_decision_about_a_stranger_is_refused(backend: Backend) {
    let cast = Cast::new(backend).await;
    let before = cast.chains().await;
    let stranger = DecidedRequest {
        client_id: ClientId::new("nobody"),
        ..cast.decided(1, Outcome::Approved)
    };
    let recorded = cast.begin().await.record(&stranger, &[], entry()).await;
    assert!(
        matches!(recorded, Err(StoreError::Refused(_))),
        "{recorded:?}"
    );
    assert_eq!(cast.chains().await, before);
    assert_eq!(cast.house.backend.count("outcomes").await, 0);
    cast.decide(1, Outcome::Approved).await;
}

async fn who_is_locked_before_the_decision_is_seen(backend: Backend) {
    let cast = Cast::new(backend).await;
    let directory = &cast.house.directory;
    let standing = async || {
        let standing = cast.begin().await.standing.clone();
        (
            standing.user.is_some(),
            standing.client_active,
            standing.device,
        )
    };
    let key = Some(cast.device.key.clone());
    assert_eq!(standing().await, (true, true, key.clone()));

    // Somebody else's device does not count.
    let bob = cast.house.user("bob").await;
    let (user, client) = (&bob.id, &cast.client.id);
    let begun =
        cast.house
            .ledger
            .begin_decision(bob.partition, user, client, Some(&cast.device.id));
    assert_eq!(begun.await.unwrap().standing.device, None);

    for (from, to, seen) in [
        (DeviceState::Active, DeviceState::Pending, None),
        (DeviceState::Pending, DeviceState::Active, key.clone()),
        (DeviceState::Active, DeviceState::Revoked, None),
    ] {
        let moved = directory
            .move_device(&cast.device, &[from], to, START, entry(), None)
            .await;
        assert!(moved.unwrap());
        assert_eq!(standing().await, (true, true, seen));
    }
    assert!(
        directory
            .lock_client(&cast.client.id, START, entry())
            .await
            .unwrap()
    );
    assert_eq!(standing().await, (true, false, None));
    assert!(
        directory
            .lock_user(&cast.user, START, entry())
            .await
            .unwrap()
    );
    assert_eq!(standing().await, (false, false, None));
}

/// The other order: both take the partition's head first, so the lock waits and comes after.
async fn a_lock_waits_for_the_decision_that_was_first(backend: Backend) {
    let cast = Cast::new(backend).await;
    let open = cast.begin().await;
    let (directory, user) = (cast.house.directory.clone(), cast.user.clone());
    let mut lock = std::pin::pin!(directory.lock_user(&user, START, entry()));
    let early = tokio::time::timeout(Duration::from_millis(100), &mut lock).await;
    assert!(early.is_err(), "the lock did not wait");
    let recorded = open
        .record(&cast.decided(1, Outcome::Approved), &[], entry())
        .await;
    assert!(matches!(recorded.unwrap(), Recorded::First));
    assert!(lock.await.unwrap());
    cast.house.assert_audit_is_whole().await;
}

async fn states_are_listed_page_by_page(backend: Backend) {
    let cast = Cast::new(backend).await;
    let mut expected = Vec::new();
    for n in 0..11 {
        let (outcome, state) = [
            (Outcome::Approved, State::Approved),
            (Outcome::Denied, State::Denied),
            (Outcome::Cancelled, State::Cancelled),
            (Outcome::Burned, State::Burned),
        ][n as usize % 4];
        cast.decide(n, outcome).await;
        expected.push((id(n), state));
    }
    // What became of an approval counts more than the approval.
    for (n, issuance) in [(4, Issuance::Issued), (8, Issuance::Voided)] {
        let Redemption::Open(open) = cast.redeem(n).await else {
            panic!("approved and unused");
        };
        match issuance {
            Issuance::Issued => open.issue(&cast.tokens(n), entry()).await.unwrap(),
            Issuance::Voided => open.void(entry()).await.unwrap(),
        }
        expected[n as usize].1 = issuance.into();
    }
    // One that ends later, and is alone in the end.
    let late = DecidedRequest {
        expires_at: at(600),
        ..cast.decided(11, Outcome::Denied)
    };
    cast.begin()
        .await
        .record(&late, &[], entry())
        .await
        .unwrap();
    let mut all_states = expected.clone();
    all_states.push((id(11), State::Denied));

    let list = async |these, limit: u32, now| {
        let (mut after, mut listed, mut pages) = (None::<String>, Vec::new(), 0);
        loop {
            let ledger = &cast.house.ledger;
            let page = ledger
                .standing_states(these, after.as_deref(), limit, at(now))
                .await;
            let page = page.unwrap();
            assert!(page.states.len() <= limit as usize && page.damaged.is_empty());
            assert_eq!(page.is_full, page.states.len() == limit as usize);
            pages += 1;
            after = page.last;
            assert!(
                page.states
                    .iter()
                    .all(|(key, _)| key.partition == cast.user.partition)
            );
            listed.extend(page.states.into_iter().map(|(key, state)| (key.id, state)));
            if after.is_none() {
                return (listed, pages);
            }
        }
    };
    let by_text =
        |states: &mut Vec<_>| states.sort_by_key(|(id, _): &(RequestId, State)| id.to_string());
    for (limit, pages) in [(5, 4), (12, 2), (500, 2), (1, 13)] {
        let (mut listed, seen) = list(Standings::All, limit, 179).await;
        by_text(&mut listed);
        by_text(&mut all_states);
        assert_eq!(
            (listed, seen),
            (all_states.clone(), pages),
            "pages of {limit}"
        );
    }
    let mut unused = all_states.clone();
    unused.retain(|(request, _)| ![id(4), id(8)].contains(request));
    for limit in [3, 500] {
        let mut listed = list(Standings::Unused, limit, 179).await.0;
        by_text(&mut listed);
        assert_eq!(listed, unused, "pages of {limit}");
    }
    assert_eq!(
        list(Standings::All, 5, 180).await.0,
        [(id(11), State::Denied)]
    );
    assert!(list(Standings::All, 5, 660).await.0.is_empty());
}
