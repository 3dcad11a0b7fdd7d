//! A time-out, or a client that hangs up, drops a future wherever it stands.

use crate::support::house::{access_token, cancel_after, entry};
use crate::support::{Backend, House, START, all, on_both};
use assent::domain::client::DeliveryMode;
use assent::domain::outcome::{DecidedRequest, Evidence};
use assent::domain::{ClientId, Outcome, RequestId, User};
use assent::entropy::{Entropy, SystemEntropy};
use assent::store::StoreError;
use assent::store::sql::AuditEntry;
use assent::store::sql::ledger::{IssuedTokens, Ledger, Recorded, Redemption};
use std::time::Duration;

on_both!(two_hundred_dropped_futures_leave_no_half_state);

/// Futures that are dropped anywhere between their first statement and their commit.
async fn two_hundred_dropped_futures_leave_no_half_state(backend: Backend) {
    let house = House::new(backend).await;
    house.client("bank").await;
    let alice = house.user("alice").await;
    let ledger = &house.ledger;
    let (mut ended, mut cut) = (0, 0);
    for round in 0..25_u8 {
        // Eight at a time, on four requests.
        let results = all((0..8_u8).map(|i| {
            let n = round * 4 + i / 2;
            let (ledger, alice) = (ledger.clone(), alice.clone());
            let [steps, millis] = (&SystemEntropy as &dyn Entropy).bytes();
            async move {
                let work = decide_and_redeem(&ledger, &alice, n);
                if i % 2 == 0 {
                    cancel_after(1 + usize::from(steps % 32), work).await
                } else {
                    let limit = Duration::from_millis(u64::from(millis % 8));
                    tokio::time::timeout(limit, work).await.ok()
                }
            }
        }))
        .await;
        for result in results {
            match result {
                Some(result) => {
                    result.unwrap();
                    ended += 1;
                }
                None => cut += 1,
            }
        }
    }
    assert_eq!(ended + cut, 200);
    assert!(
        cut >= 50 && ended >= 5,
        "{cut} cut, {ended} ended: the points are badly chosen"
    );
    // All of them again, each to its end: nothing is locked, and no connection is poisoned.
    let again = all((0..100_u8).map(|n| {
        let (ledger, alice) = (ledger.clone(), alice.clone());
        async move { decide_and_redeem(&ledger, &alice, n).await }
    }))
    .await;
    assert!(again.iter().all(Result::is_ok), "{again:?}");
    for (table, kind) in [
        ("outcomes", "cut.decided"),
        ("issuances WHERE token_id IS NOT NULL", "cut.issued"),
    ] {
        assert_eq!(house.backend.count(table).await, 100);
        let rows = format!("audit WHERE kind = '{kind}'");
        assert_eq!(house.backend.count(&rows).await, 100);
    }
    house.assert_audit_is_whole().await;
}

/// The `n`th request is approved and redeemed, unless that has happened.
async fn decide_and_redeem(ledger: &Ledger, user: &User, n: u8) -> Result<(), StoreError> {
    let decided = DecidedRequest {
        request_id: RequestId::from_bytes([n; 32]),
        partition: user.partition,
        client_id: ClientId::new("bank"),
        user_id: user.id.clone(),
        device_id: None,
        outcome: Outcome::Approved,
        reason: None,
        decided_at: START,
        expires_at: START,
        evidence: Evidence {
            challenge: None,
            approval: None,
            auth_req_id: "handle".into(),
            subject: "subject".into(),
            delivery_mode: DeliveryMode::Poll,
            client_notification_token: None,
            sender_constraint: None,
        },
    };
    let entry = |kind| AuditEntry { kind, ..entry() };
    let (id, partition) = (decided.request_id, decided.partition);
    let open = ledger
        .begin_decision(partition, &decided.user_id, &decided.client_id, None)
        .await?;
    if let Recorded::Lost(winner) = open.record(&decided, &[], entry("cut.decided")).await? {
        assert_eq!(winner.outcome, Outcome::Approved);
    }
    match ledger.begin_redemption(id, partition, START).await? {
        Redemption::Open(open) => {
            let tokens = IssuedTokens {
                access: access_token(&format!("token {n}"), user, &decided.client_id),
                response: None,
                refresh: None,
            };
            open.issue(&tokens, entry("cut.issued")).await
        }
        Redemption::Used(used) => {
            assert_eq!(used.token_id, Some(format!("token {n}")));
            Ok(())
        }
        _ => panic!("approved, and in time"),
    }
}
