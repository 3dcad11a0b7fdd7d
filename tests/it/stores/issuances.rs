//! The Ledger's issuances: whoever inserts first has redeemed the approval, or withdrawn it.

use super::cast::Cast;
use super::{at, id};
use crate::support::house::entry;
use crate::support::{Backend, START, all, on_both};
use assent::domain::client::DeliveryMode;
use assent::domain::device::DeviceState;
use assent::domain::outcome::Issuance;
use assent::domain::token::RefreshFamily;
use assent::domain::{Job, Outcome, Scope, Secret};
use assent::store::sql::ledger::{
    IssuedTokens, NewRefreshFamily, OpenRedemption, Redemption, UsedApproval,
};
use assent::store::{ClaimedJob, StoreError};
use std::time::Duration;

on_both!(
    one_of_many_redeems_and_the_others_read_it,
    a_redemption_that_is_dropped_is_free_again,
    only_a_fresh_approval_can_be_redeemed,
    a_withdrawn_approval_is_never_redeemed,
    nothing_is_issued_without_an_outcome,
    refresh_tokens_are_stored_with_the_issuance,
    a_failed_issuance_leaves_nothing,
    a_kept_response_is_sealed_and_erased,
    who_lost_the_lease_gives_up_nothing,
    who_is_locked_before_the_redemption_is_seen,
);

fn open(redemption: Redemption) -> Box<OpenRedemption> {
    match redemption {
        Redemption::Open(open) => open,
        other => panic!("not open: {}", describe(&other)),
    }
}

fn used(redemption: Redemption) -> UsedApproval {
    match redemption {
        Redemption::Used(used) => used,
        other => panic!("not used: {}", describe(&other)),
    }
}

fn describe(redemption: &Redemption) -> String {
    match redemption {
        Redemption::Open(_) => "open".into(),
        Redemption::Used(used) => format!("used: {}", used.kind),
        Redemption::NotApproved(outcome) => format!("not approved: {outcome}"),
        Redemption::Expired => "expired".into(),
        Redemption::Undecided => "undecided".into(),
    }
}

async fn one_of_many_redeems_and_the_others_read_it(backend: Backend) {
    let cast = Cast::new(backend).await;
    cast.decide(1, Outcome::Approved).await;
    let before = cast.house.backend.count("audit").await;
    let partition = cast.user.partition;
    let seen = all((0..32).map(|racer| {
        let (ledger, tokens) = (cast.house.ledger.clone(), cast.tokens(racer));
        async move {
            match ledger
                .begin_redemption(id(1), partition, START)
                .await
                .unwrap()
            {
                Redemption::Open(open) => {
                    open.issue(&tokens, entry()).await.unwrap();
                    (true, format!("token {racer}"))
                }
                other => (false, used(other).token_id.unwrap()),
            }
        }
    }))
    .await;
    let winners: Vec<_> = seen.iter().filter(|(won, _)| *won).collect();
    assert_eq!(winners.len(), 1);
    assert!(
        seen.iter().all(|(_, token)| *token == winners[0].1),
        "{seen:?}"
    );
    assert_eq!(cast.house.backend.count("issuances").await, 1);
    assert_eq!(cast.house.backend.count("audit").await, before + 1);
    cast.house.assert_audit_is_whole().await;
}

async fn a_redemption_that_is_dropped_is_free_again(backend: Backend) {
    let cast = Cast::new(backend).await;
    cast.decide(1, Outcome::Approved).await;
    let before = cast.chains().await;
    let (partition, ledger) = (cast.user.partition, cast.house.ledger.clone());
    let held = open(cast.redeem(1).await);
    // A rival waits for the guard, and gets what its holder left.
    let mut rival = std::pin::pin!(ledger.begin_redemption(id(1), partition, START));
    let early = tokio::time::timeout(Duration::from_millis(100), &mut rival).await;
    assert!(early.is_err(), "the rival did not wait");
    drop(held);
    drop(open(rival.await.unwrap()));
    assert_eq!(cast.chains().await, before);
    assert_eq!(cast.house.backend.count("issuances").await, 0);
    open(cast.redeem(1).await)
        .issue(&cast.tokens(1), entry())
        .await
        .unwrap();
    assert_eq!(
        used(cast.redeem(1).await).token_id.as_deref(),
        Some("token 1")
    );
    cast.house.assert_audit_is_whole().await;
}

async fn only_a_fresh_approval_can_be_redeemed(backend: Backend) {
    let cast = Cast::new(backend).await;
    let before = [
        Outcome::Approved,
        Outcome::Denied,
        Outcome::Cancelled,
        Outcome::Burned,
    ];
    for (n, outcome) in before.into_iter().enumerate() {
        cast.decide(n as u32, outcome).await;
    }
    let last = at(180).minus(Duration::from_millis(1));
    for (n, now, expected) in [
        (0, at(180), "expired"),
        (0, last, "open"),
        (1, START, "not approved: denied"),
        (2, START, "not approved: cancelled"),
        (3, START, "not approved: burned"),
        (9, START, "undecided"),
    ] {
        let ledger = &cast.house.ledger;
        let redemption = ledger
            .begin_redemption(id(n), cast.user.partition, now)
            .await
            .unwrap();
        assert_eq!(describe(&redemption), expected, "{n}");
    }
    assert_eq!(cast.house.backend.count("issuances").await, 0);
}

async fn a_withdrawn_approval_is_never_redeemed(backend: Backend) {
    let cast = Cast::new(backend).await;
    cast.decide(1, Outcome::Approved).await;
    open(cast.redeem(1).await).void(entry()).await.unwrap();
    let (_, found) = cast.house.ledger.lookup(id(1)).await.unwrap().unwrap();
    for found in [found.unwrap(), used(cast.redeem(1).await)] {
        assert_eq!((found.kind, found.issued_at), (Issuance::Voided, START));
        assert!(found.token_id.is_none() && found.response.is_none());
    }
    cast.house.assert_audit_is_whole().await;
}

/// The foreign key, on the connections that the server really uses.
async fn nothing_is_issued_without_an_outcome(backend: Backend) {
    let cast = Cast::new(backend).await;
    let insert =
        "INSERT INTO issuances (request_id, kind, issued_at) VALUES ('nobody', 'issued', 0)";
    let mut writer = cast.house.db().writer().await.unwrap();
    let refused = sqlx::query(insert).execute(&mut *writer).await.unwrap_err();
    assert!(
        refused
            .as_database_error()
            .unwrap()
            .is_foreign_key_violation(),
        "{refused}"
    );
    drop(writer);
    cast.decide(1, Outcome::Approved).await;
    open(cast.redeem(1).await)
        .issue(&cast.tokens(1), entry())
        .await
        .unwrap();
    let mut writer = cast.house.db().writer().await.unwrap();
    let delete = sqlx::query("DELETE FROM outcomes")
        .execute(&mut *writer)
        .await
        .unwrap_err();
    assert!(
        delete
            .as_database_error()
            .unwrap()
            .is_foreign_key_violation(),
        "{delete}"
    );
}

fn with_family(cast: &Cast, n: u32, family: &str) -> IssuedTokens {
    IssuedTokens {
        refresh: Some(NewRefreshFamily {
            family: RefreshFamily {
                id: family.into(),
                client_id: cast.client.id.clone(),
                user_id: cast.user.id.clone(),
                device_id: Some(cast.device.id.clone()),
                subject: cast.user.id.to_string(),
                scope: Scope::parse("openid profile").unwrap(),
                acr: "urn:assent:acr:device".into(),
                auth_time: START,
                created_at: START,
                expires_at: at(3600),
            },
            token_hash: format!("hash {n}"),
        }),
        ..cast.tokens(n)
    }
}

async fn refresh_tokens_are_stored_with_the_issuance(backend: Backend) {
    let cast = Cast::new(backend).await;
    cast.decide(1, Outcome::Approved).await;
    open(cast.redeem(1).await)
        .issue(&with_family(&cast, 1, "family"), entry())
        .await
        .unwrap();
    let family = "SELECT id || '|' || request_id || '|' || client_id || '|' || user_id || '|' || device_id \
                  || '|' || scope || '|' || created_at || '|' || expires_at FROM refresh_families \
                  WHERE revoked_at IS NULL";
    let expected = [
        "family".to_owned(),
        id(1).to_string(),
        "bank".to_owned(),
        cast.user.id.to_string(),
        cast.device.id.to_string(),
        "openid profile".to_owned(),
        START.millis().to_string(),
        at(3600).millis().to_string(),
    ];
    assert_eq!(
        cast.house.backend.column(family).await,
        [expected.join("|")]
    );
    let token = "SELECT token_hash || '|' || family_id || '|' || created_at FROM refresh_tokens \
                 WHERE used_at IS NULL AND response IS NULL";
    let expected = format!("hash 1|family|{}", START.millis());
    assert_eq!(cast.house.backend.column(token).await, [expected]);
}

/// Tokens whose last row cannot be written were never issued: the approval can be redeemed again.
async fn a_failed_issuance_leaves_nothing(backend: Backend) {
    let cast = Cast::new(backend).await;
    for n in 1..=2 {
        cast.decide(n, Outcome::Approved).await;
    }
    open(cast.redeem(1).await)
        .issue(&with_family(&cast, 1, "family"), entry())
        .await
        .unwrap();
    let before = cast.house.backend.dump().await;
    // A family that is there already, and a token that is.
    for taken in [
        with_family(&cast, 2, "family"),
        with_family(&cast, 1, "another"),
    ] {
        let issued = open(cast.redeem(2).await).issue(&taken, entry()).await;
        assert!(matches!(issued, Err(StoreError::Refused(_))), "{issued:?}");
        assert!(cast.house.backend.dump().await == before);
    }
    open(cast.redeem(2).await)
        .issue(&with_family(&cast, 2, "another"), entry())
        .await
        .unwrap();
    cast.house.assert_audit_is_whole().await;
}

async fn a_kept_response_is_sealed_and_erased(backend: Backend) {
    let cast = Cast::new(backend).await;
    for n in 1..=3 {
        cast.decide(n, Outcome::Approved).await;
        let ledger = &cast.house.ledger;
        let begun = ledger.begin_redemption(id(n), cast.user.partition, at(i64::from(n)));
        let kept = IssuedTokens {
            response: Some(Secret::new(format!("response {n}"))),
            ..cast.tokens(n)
        };
        open(begun.await.unwrap())
            .issue(&kept, entry())
            .await
            .unwrap();
    }
    let response = async |n| {
        let (_, found) = cast.house.ledger.lookup(id(n)).await?.unwrap();
        let found = found.unwrap();
        assert_eq!(found.issued_at, at(i64::from(n)));
        Ok::<_, StoreError>(found.response.map(|response| response.expose().to_owned()))
    };
    for n in 1..=3 {
        assert_eq!(response(n).await.unwrap(), Some(format!("response {n}")));
    }
    let stored = cast
        .house
        .backend
        .column("SELECT response FROM issuances")
        .await;
    assert!(stored.iter().all(|sealed| !sealed.contains("response")));
    // Sealed for its own row.
    let moved = format!(
        "UPDATE issuances SET response = (SELECT response FROM issuances WHERE request_id = '{}') \
         WHERE request_id = '{}'",
        id(3),
        id(2)
    );
    assert_eq!(cast.house.backend.execute(&moved).await, 1);
    let found = response(2).await;
    assert!(
        matches!(&found, Err(StoreError::Corrupt { table: "issuances", row, what: "response" }) if *row == id(2).to_string()),
        "{found:?}"
    );
    // Those that were issued up to a point in time go; the issuance stays.
    let erase = async |until| cast.house.ledger.erase_responses(at(until)).await.unwrap();
    assert_eq!(erase(0).await, 0);
    assert_eq!(erase(2).await, 2);
    assert_eq!(erase(2).await, 0);
    assert_eq!(response(1).await.unwrap(), None);
    assert_eq!(response(2).await.unwrap(), None);
    assert_eq!(response(3).await.unwrap().as_deref(), Some("response 3"));
    assert_eq!(cast.house.backend.count("issuances").await, 3);
}

async fn who_is_locked_before_the_redemption_is_seen(backend: Backend) {
    let cast = Cast::new(backend).await;
    cast.decide(1, Outcome::Approved).await;
    let directory = &cast.house.directory;
    let standing = async || {
        let standing = open(cast.redeem(1).await).standing.clone();
        (
            standing.user.is_some(),
            standing.client_active,
            standing.device,
        )
    };
    assert_eq!(
        standing().await,
        (true, true, Some(cast.device.key.clone()))
    );
    let revoked = directory.move_device(
        &cast.device,
        &[DeviceState::Active],
        DeviceState::Revoked,
        START,
        entry(),
        None,
    );
    assert!(revoked.await.unwrap());
    assert_eq!(standing().await, (true, true, None));
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

/// Only the attempt that holds the job may end what it was to deliver: another may deliver it now.
async fn who_lost_the_lease_gives_up_nothing(backend: Backend) {
    let cast = Cast::new(backend).await;
    let mut decided = cast.decided(1, Outcome::Approved);
    decided.evidence.delivery_mode = DeliveryMode::Push;
    let told = [Job::notify_client(&decided).unwrap()];
    let recorded = cast.begin().await.record(&decided, &told, entry()).await;
    recorded.unwrap();
    let tokens = IssuedTokens {
        response: Some(Secret::new("the response".into())),
        ..cast.tokens(1)
    };
    let redemption = open(cast.redeem(1).await);
    redemption.issue(&tokens, entry()).await.unwrap();
    let [_, queue] = &cast.house.core.queues;
    let lease = Duration::from_secs(30);
    let claim = async |now| queue.claim(1, lease, now).await.unwrap().remove(0);
    let (lost, held) = (claim(START).await, claim(at(30)).await);
    let give_up = async |claim: &ClaimedJob| {
        let partition = cast.user.partition;
        let ledger = &cast.house.ledger;
        ledger
            .give_up_tokens(claim, id(1), partition, "refused", at(31), entry())
            .await
            .unwrap()
    };
    let before = cast.house.backend.dump().await;
    assert!(!give_up(&lost).await);
    assert_eq!(cast.house.backend.dump().await, before);
    assert!(give_up(&held).await);
    assert!(!give_up(&held).await, "there is nothing left to give up");
    let dead = queue.dead(9).await.unwrap();
    assert_eq!((dead.len(), dead[0].error.as_str()), (1, "refused"));
    let revoked = "access_tokens WHERE revoked_at IS NOT NULL";
    assert_eq!(cast.house.backend.count(revoked).await, 1);
    cast.house.assert_audit_is_whole().await;
}
