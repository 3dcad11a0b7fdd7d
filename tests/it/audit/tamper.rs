//! Somebody who can write to the database changes the past.

use super::changes::{CHECKPOINTS, ROWS};
use super::{checkpoint, verify};
use crate::support::{Backend, House, TestApp, approve, on_both};
use assent::crypto::audit_chain::{CHECKPOINT_TYP, Checkpoint, GENESIS, payload_hash, row_hash};
use assent::crypto::{base64url, from_base64url};
use assent::service::Services;

on_both!(
    every_change_to_the_rows_is_found,
    every_change_to_the_checkpoints_is_found,
    a_chain_that_was_computed_again_is_found,
    what_was_cut_off_is_known_elsewhere,
);

/// A server with a past: alice's chain has five rows, all signed off, and the system's two.
struct Past {
    app: TestApp,
    chain: i64,
}

const TABLES: [&str; 5] = [
    "audit_heads",
    "audit",
    "audit_payloads",
    "checkpoints",
    "anchored_heads",
];

impl Past {
    async fn new(backend: Backend) -> Self {
        let app = TestApp::new(backend).await;
        let (bank, alice, phone) = app.cast().await;
        assert!(app.services().checkpoint().await.unwrap());
        let id = bank.start("alice").await;
        approve(&phone, &id).await;
        assert!(app.services().checkpoint().await.unwrap());
        assert_eq!(bank.poll(&id).await.status, 200);
        assert!(app.services().checkpoint().await.unwrap());
        for table in TABLES {
            let save = format!("CREATE TABLE saved_{table} AS SELECT * FROM {table}");
            app.backend.execute(&save).await;
        }
        let chain = i64::from(alice.partition.0);
        let past = Self { app, chain };
        past.assert_whole().await;
        past
    }

    fn services(&self) -> &Services {
        self.app.services()
    }

    async fn assert_whole(&self) {
        let report = verify(self.services()).await;
        assert!(report.is_whole(), "{:?}", report.findings);
        assert_eq!(
            (
                report.rows,
                report.checkpoints,
                report.not_anchored,
                report.erased
            ),
            (7, 3, 0, 0)
        );
    }

    /// Everything as it was.
    async fn restore(&self) {
        for table in TABLES.iter().rev() {
            self.app
                .backend
                .execute(&format!("DELETE FROM {table}"))
                .await;
        }
        for table in TABLES {
            let restore = format!("INSERT INTO {table} SELECT * FROM saved_{table}");
            self.app.backend.execute(&restore).await;
        }
    }

    /// Changes the database and asserts that the audit says so; then undoes it.
    async fn assert_found(&self, statements: &str, finding: &str) {
        for statement in statements.split(';') {
            let statement = statement.trim().replace(":p", &self.chain.to_string());
            let changed = self.app.backend.execute(&statement).await;
            assert!(changed > 0, "{statement} changed nothing");
        }
        let found = verify(self.services()).await.findings;
        let expected = finding.replace(":p", &self.chain.to_string());
        assert!(
            found.iter().any(|found| found.contains(&expected)),
            "{statements}\n  is to be found as {expected:?}; what was found: {found:?}"
        );
        self.restore().await;
    }
}

async fn every_change_to_the_rows_is_found(backend: Backend) {
    let past = Past::new(backend).await;
    for (statements, finding) in ROWS {
        past.assert_found(statements, finding).await;
    }
    // A payload that hands its bytes to its salt: the hash over both is the same.
    let column = async |column| {
        let select = format!(
            "SELECT {column} FROM audit_payloads WHERE partition = {} AND seq = 4",
            past.chain
        );
        past.app.backend.column(&select).await.remove(0)
    };
    let (salt, payload) = (column("salt").await, column("payload").await);
    let all = [from_base64url(&salt).unwrap(), payload.into_bytes()].concat();
    let moved = format!(
        "UPDATE audit_payloads SET salt = '{}', payload = '' WHERE partition = :p AND seq = 4",
        base64url(&all)
    );
    past.assert_found(&moved, "chain :p: the payload of row 4 was changed")
        .await;
    past.assert_whole().await;
}

async fn every_change_to_the_checkpoints_is_found(backend: Backend) {
    let past = Past::new(backend).await;
    for (statements, finding) in CHECKPOINTS {
        past.assert_found(statements, finding).await;
    }
    // Signed with another of our keys, over the same claims.
    let statements = past.services().audit_log.checkpoints().await.unwrap();
    let claims = checkpoint(past.services(), &statements[2]);
    let forged = past.services().keys.sign_challenge(CHECKPOINT_TYP, &claims);
    let update = format!("UPDATE checkpoints SET statement = '{forged}' WHERE seq = 3");
    past.assert_found(&update, "checkpoint 3: the signature does not verify")
        .await;
    // Signed by the right key in another history of the same deployment: a backup that went another way.
    let elsewhere = |change: &dyn Fn(&mut Checkpoint)| {
        let mut claims = claims.clone();
        change(&mut claims);
        let statement = past
            .services()
            .keys
            .sign_checkpoint(CHECKPOINT_TYP, &claims);
        format!("UPDATE checkpoints SET statement = '{statement}' WHERE seq = 3")
    };
    for (update, finding) in [
        (
            elsewhere(&|c| c.previous = "another".into()),
            "does not follow the one before",
        ),
        (elsewhere(&|c| c.seq = 4), "does not follow the one before"),
        (elsewhere(&|c| c.rows += 1), "its root does not add up"),
        (
            elsewhere(&|c| c.root = "another".into()),
            "its root does not add up",
        ),
        (elsewhere(&|c| c.moved.clear()), "its root does not add up"),
    ] {
        past.assert_found(&update, &format!("checkpoint 3: {finding}"))
            .await;
    }
    past.assert_whole().await;
}

/// Who changes a row and computes all hashes after it anew has a chain without a fault. The
/// checkpoints have seen another one.
async fn a_chain_that_was_computed_again_is_found(backend: Backend) {
    let past = Past::new(backend).await;
    let (app, chain) = (&past.app, past.chain);
    let change =
        format!("UPDATE audit SET kind = 'user.imported' WHERE partition = {chain} AND seq = 1");
    app.backend.execute(&change).await;
    compute_again(&past).await;
    let rows = |seqs: &[i64]| {
        let seen = |seq| format!("chain {chain}: row {seq} is not the one a checkpoint has seen");
        seqs.iter().map(seen).collect::<Vec<_>>()
    };
    assert_eq!(
        verify(past.services()).await.findings,
        rows(&[3, 4, 5]),
        "what the three checkpoints have seen"
    );
    // The next checkpoint signs the chain as it is now, and that does not make it good.
    app.user("bob").await;
    assert!(app.services().checkpoint().await.unwrap());
    assert_eq!(verify(past.services()).await.findings, rows(&[3, 4, 5]));
    past.restore().await;

    // A row that was taken out, with the rest moved up.
    for statement in [
        "DELETE FROM audit_payloads WHERE partition = :p AND seq >= 4",
        "DELETE FROM audit WHERE partition = :p AND seq = 4",
        "UPDATE audit SET seq = 4 WHERE partition = :p AND seq = 5",
    ] {
        app.backend
            .execute(&statement.replace(":p", &chain.to_string()))
            .await;
    }
    compute_again(&past).await;
    let found = verify(past.services()).await.findings;
    assert!(
        found
            .iter()
            .any(|found| found.contains("1 rows are missing at the end")),
        "{found:?}"
    );
}

/// What the forger does: every hash and the head as they would be, had it always been so.
async fn compute_again(past: &Past) {
    let (chain, backend) = (past.chain, &past.app.backend);
    let rows = past.services().audit_log.rows(chain, 0, 100).await.unwrap();
    let mut hash = GENESIS.to_owned();
    let mut last = 0;
    for row in rows {
        let hashed = match &row.payload {
            Some((salt, payload)) => payload_hash(&from_base64url(salt).unwrap(), payload),
            None => row.payload_hash,
        };
        hash = row_hash(&hash, chain, row.seq, row.at, &row.kind, &hashed);
        last = row.seq;
        let update = format!(
            "UPDATE audit SET payload_hash = '{hashed}', hash = '{hash}' WHERE partition = {chain} AND seq = {last}"
        );
        backend.execute(&update).await;
    }
    let head =
        format!("UPDATE audit_heads SET seq = {last}, hash = '{hash}' WHERE partition = {chain}");
    backend.execute(&head).await;
}

/// Whoever takes rows *and* the checkpoints that have seen them leaves an audit that is shorter and has
/// no fault. Only a checkpoint that was kept elsewhere knows better.
async fn what_was_cut_off_is_known_elsewhere(backend: Backend) {
    let past = Past::new(backend).await;
    let (app, chain) = (&past.app, past.chain);
    let kept = past.services().audit_log.checkpoints().await.unwrap();
    for kept in &kept {
        let report = past
            .services()
            .verify_audit(Some(&format!("{kept}\n")))
            .await
            .unwrap();
        assert!(report.is_whole(), "{:?}", report.findings);
    }
    for statement in [
        "DELETE FROM audit_payloads WHERE partition = :p AND seq = 5",
        "DELETE FROM audit WHERE partition = :p AND seq = 5",
        "UPDATE audit_heads SET seq = 4, hash = (SELECT hash FROM audit WHERE partition = :p AND seq = 4) \
         WHERE partition = :p",
        "DELETE FROM checkpoints WHERE seq = 3",
    ] {
        app.backend
            .execute(&statement.replace(":p", &chain.to_string()))
            .await;
    }
    assert!(verify(past.services()).await.is_whole());
    let report = past.services().verify_audit(Some(&kept[2])).await.unwrap();
    assert_eq!(
        report.findings,
        ["checkpoint 3 kept elsewhere is not among the stored ones: the audit was cut or replaced"]
    );
    assert!(
        past.services()
            .verify_audit(Some(&kept[1]))
            .await
            .unwrap()
            .is_whole()
    );
    past.restore().await;

    // A checkpoint of another deployment, or of nobody.
    let elsewhere = House::new(Backend::sqlite()).await;
    elsewhere.checkpoint().await.unwrap();
    let foreign = elsewhere.audit_log.checkpoints().await.unwrap().remove(0);
    for foreign in [foreign.as_str(), "", "nonsense"] {
        let report = past.services().verify_audit(Some(foreign)).await.unwrap();
        assert_eq!(
            report.findings,
            ["the checkpoint kept elsewhere was not signed by this audit's key"]
        );
    }

    // The newest checkpoint alone: its rows count as not signed off, and whoever signs next is at odds
    // with what the writer remembers.
    app.backend
        .execute("DELETE FROM checkpoints WHERE seq = 3")
        .await;
    let report = verify(past.services()).await;
    assert_eq!((report.is_whole(), report.not_anchored), (true, 1));
    app.user("bob").await;
    assert!(app.services().checkpoint().await.unwrap());
    let found = verify(past.services()).await.findings;
    assert_eq!(found, ["checkpoint 3: its root does not add up"]);
}
