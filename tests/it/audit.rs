//! Can the audit be believed? What is changed is found, and what is not written down does not happen.

mod changes;
mod tamper;

use crate::support::house::entry;
use crate::support::{
    Backend, House, TestApp, all, approve, assert_oauth_error, assert_problem, deny, on_both, show,
};
use assent::crypto::audit_chain::{CHECKPOINT_TYP, Checkpoint};
use assent::domain::user::Login;
use assent::domain::{Decision, Partition, User, UserId};
use assent::service::Services;
use assent::service::audit::AuditReport;
use assent::store::sql::AuditEntry;
use serde_json::json;

on_both!(
    the_audit_tells_what_happened_and_is_signed_off,
    an_erased_payload_leaves_the_chain_whole,
    no_audit_row_no_decision,
    an_audit_that_grows_is_whole_at_every_moment,
    checkpoints_of_two_nodes_make_one_chain,
    one_checkpoint_can_cover_every_chain,
);

pub async fn verify(services: &Services) -> AuditReport {
    services.verify_audit(None).await.unwrap()
}

pub fn checkpoint(services: &Services, statement: &str) -> Checkpoint {
    services
        .keys
        .verify_checkpoint(CHECKPOINT_TYP, statement)
        .unwrap()
}

async fn the_audit_tells_what_happened_and_is_signed_off(backend: Backend) {
    let app = TestApp::new(backend).await;
    let services = app.services();
    // A new database has one row: its keys.
    let first = verify(services).await;
    assert_eq!((first.chains, first.rows, first.not_anchored), (1, 1, 1));

    let (bank, alice, phone) = app.cast().await;
    let approved = bank.start("alice").await;
    approve(&phone, &approved).await;
    let tokens = bank.poll(&approved).await;
    assert_eq!(tokens.status, 200);
    let denied = bank.start("alice").await;
    deny(&phone, &denied).await;
    let cancelled = bank.start("alice").await;
    app.cancel(&bank, &cancelled).await.unwrap();

    let kinds = async |partition: i64| {
        let rows = services.audit_log.rows(partition, 0, 100).await.unwrap();
        rows.into_iter().map(|row| row.kind).collect::<Vec<_>>()
    };
    assert_eq!(kinds(256).await, ["keys.generated", "client.added"]);
    let of_alice = [
        "user.added",
        "enrolment.created",
        "device.enrolled",
        "request.decided",
        "tokens.issued",
        "request.decided",
        "request.decided",
    ];
    let partition = i64::from(alice.partition.0);
    assert_eq!(kinds(partition).await, of_alice);
    // It names people, never secrets.
    let payloads = app
        .backend
        .column("SELECT payload FROM audit_payloads")
        .await
        .join("\n");
    let access_token = tokens.json()["access_token"].as_str().unwrap().to_owned();
    assert!(payloads.contains(alice.id.as_str()) && payloads.contains(phone.id().as_str()));
    for secret in [&approved, &denied, &cancelled, &bank.secret, &access_token] {
        assert!(!payloads.contains(secret.as_str()));
    }

    assert!(services.checkpoint().await.unwrap());
    let report = AuditReport {
        chains: 2,
        rows: 9,
        checkpoints: 1,
        ..AuditReport::default()
    };
    assert_eq!(verify(services).await, report);
    // Nothing new, nothing to sign.
    assert!(!services.checkpoint().await.unwrap());
    // What comes later is counted until the next one.
    app.user("bob").await;
    let grown = verify(services).await;
    assert!(grown.is_whole());
    assert_eq!((grown.rows, grown.not_anchored), (10, 1));
    assert!(services.checkpoint().await.unwrap());
    assert_eq!(verify(services).await.not_anchored, 0);
    // A checkpoint says what moved, and where everything stands.
    let statements = services.audit_log.checkpoints().await.unwrap();
    let last = checkpoint(services, &statements[1]);
    assert_eq!((last.seq, last.rows, last.iss), (2, 10, app.url.clone()));
    assert_eq!(last.moved.len(), 1);
    let report = services.verify_audit(Some(&statements[0])).await.unwrap();
    assert!(report.is_whole(), "{:?}", report.findings);
}

async fn an_erased_payload_leaves_the_chain_whole(backend: Backend) {
    let app = TestApp::new(backend).await;
    let (_, alice, _) = app.cast().await;
    app.services().checkpoint().await.unwrap();
    let erase = format!(
        "DELETE FROM audit_payloads WHERE partition = {}",
        alice.partition.0
    );
    assert_eq!(app.backend.execute(&erase).await, 3);
    let report = verify(app.services()).await;
    assert!(report.is_whole(), "{:?}", report.findings);
    assert_eq!((report.rows, report.erased, report.not_anchored), (5, 3, 0));
}

/// Rule 1: an audit that cannot be written stops everything that must be in it.
async fn no_audit_row_no_decision(backend: Backend) {
    let app = TestApp::new(backend).await;
    let (bank, _, phone) = app.cast().await;
    let (first, second) = (bank.start("alice").await, bank.start("alice").await);
    approve(&phone, &second).await;
    let shown = show(&phone, &first).await;
    let before = app.state().await;
    for table in ["audit", "audit_payloads"] {
        app.backend.refuse("INSERT", table).await;
        for decision in [Decision::Approve, Decision::Deny] {
            let answer = phone.try_answer(&shown, decision, None).await.unwrap();
            assert_problem(&answer, 503, "temporarily_unavailable");
            assert!(answer.header("retry-after").is_some());
        }
        let answer = bank.poll(&second).await;
        assert_oauth_error(&answer, 503, "temporarily_unavailable");
        assert!(answer.header("retry-after").is_some());
        for id in [&first, &second] {
            let cancelled = app.cancel(&bank, id).await;
            assert!(cancelled.is_err(), "{cancelled:?}");
        }
        assert!(
            app.services()
                .add_user(Login::parse("bob").unwrap(), None)
                .await
                .is_err()
        );
        assert!(
            app.state().await == before,
            "something happened without its audit row"
        );
        app.backend.allow("INSERT", table).await;
    }
    phone.answer(&shown, Decision::Approve, None).await.unwrap();
    for id in [&first, &second] {
        assert_eq!(bank.poll(id).await.status, 200);
    }
    assert!(verify(app.services()).await.is_whole());
}

/// One row in the chain of `partition`: a person who is added.
async fn grow(services: &Services, partition: u8, name: String) {
    let user = User {
        id: UserId::new(name.clone()),
        partition: Partition(partition),
        login: Login::parse(&name).unwrap(),
        name: None,
        created_at: services.clock.now(),
        locked_at: None,
        tokens_not_before: None,
    };
    let entry = AuditEntry {
        payload: json!({ "user": name }),
        ..entry()
    };
    assert!(services.directory.insert_user(&user, entry).await.unwrap());
}

/// `assent audit verify` beside a server that works must not cry wolf.
async fn an_audit_that_grows_is_whole_at_every_moment(backend: Backend) {
    let house = House::new(backend).await;
    let auditor = house.node().await;
    let services = &house.core.services;
    let growing = all((0..4_u8).map(|writer| {
        let services = services.clone();
        async move {
            for n in 0..40 {
                grow(&services, writer % 2, format!("{writer}-{n}")).await;
            }
        }
    }));
    let watching = async {
        let mut reports = Vec::new();
        for _ in 0..40 {
            auditor.services.checkpoint().await.unwrap();
            reports.push(verify(&auditor.services).await);
        }
        reports
    };
    let (_, reports) = tokio::join!(growing, watching);
    for report in &reports {
        assert!(report.is_whole(), "{:?}", report.findings);
    }
    assert!(reports.windows(2).all(|pair| pair[0].rows <= pair[1].rows));
    let last = verify(services).await;
    assert_eq!(last.rows, 161);
}

async fn checkpoints_of_two_nodes_make_one_chain(backend: Backend) {
    let house = House::new(backend).await;
    let nodes = [house.core.services.clone(), house.node().await.services];
    let mut made = 0;
    for round in 0..10 {
        grow(&house, round, format!("{round}")).await;
        let results = all((0..4).map(|n| {
            let services = nodes[n % 2].clone();
            async move { services.checkpoint().await.unwrap() }
        }))
        .await;
        let new = results.into_iter().filter(|made| *made).count();
        assert!(new >= 1, "nobody signed");
        made += new;
    }
    let statements = house.audit_log.checkpoints().await.unwrap();
    assert_eq!(statements.len(), made);
    for (i, statement) in statements.iter().enumerate() {
        assert_eq!(checkpoint(&house, statement).seq, i as i64 + 1);
    }
    let report = verify(&house).await;
    assert!(report.is_whole(), "{:?}", report.findings);
    assert_eq!((report.checkpoints, report.not_anchored), (made, 0));
}

/// After an import of many people, say: all 257 heads have moved, with numbers that have grown long.
async fn one_checkpoint_can_cover_every_chain(backend: Backend) {
    let house = House::new(backend).await;
    let long = format!(
        "UPDATE audit_heads SET seq = 1000000000000 + partition, hash = '{}'",
        "h".repeat(43)
    );
    house.backend.execute(&long).await;
    assert!(house.checkpoint().await.unwrap());
    let statements = house.audit_log.checkpoints().await.unwrap();
    assert_eq!(checkpoint(&house, &statements[0]).moved.len(), 257);
    // And another one after it.
    house
        .backend
        .execute("UPDATE audit_heads SET seq = seq + 1")
        .await;
    assert!(house.checkpoint().await.unwrap());
}
