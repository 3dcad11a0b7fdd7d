//! A commit that reports no result is unknown: it is read back, and the answer is true.

use super::severed::{Cut, Wire};
use crate::support::house::entry;
use crate::support::{
    Backend, RelyingParty, TestApp, approve, assert_oauth_error, assert_problem, on_both,
    request_id, show,
};
use assent::domain::Decision;
use assent::phone::Phone;
use assent::phone::http::Answer;
use assent::service::cancel::Cancelled;
use assent::service::reconcile::Standings;
use assent::store::StoreError;
use assent::store::sql::ledger::Redemption;

on_both!(a_commit_that_fails_is_told_and_can_be_tried_again);

/// Commits of transactions that write audit rows fail, until [`disarm`].
async fn arm(backend: &Backend) {
    for table in [
        "CREATE TABLE parent (id TEXT NOT NULL PRIMARY KEY)",
        "CREATE TABLE trap (id TEXT REFERENCES parent (id) DEFERRABLE INITIALLY DEFERRED)",
    ] {
        backend.execute(table).await;
    }
    let trigger = "CREATE TRIGGER trap AFTER INSERT ON audit";
    let insert = "INSERT INTO trap (id) VALUES ('orphan');";
    match backend {
        Backend::Sqlite(_) => {
            backend
                .execute(&format!("{trigger} BEGIN {insert} END"))
                .await;
        }
        Backend::Postgres(_) => {
            backend
                .execute(&format!(
                    "CREATE FUNCTION trap() RETURNS trigger LANGUAGE plpgsql \
                     AS $$ BEGIN {insert} RETURN NULL; END $$"
                ))
                .await;
            backend
                .execute(&format!("{trigger} FOR EACH ROW EXECUTE FUNCTION trap()"))
                .await;
        }
    }
}

async fn disarm(backend: &Backend) {
    match backend {
        Backend::Sqlite(_) => backend.execute("DROP TRIGGER trap").await,
        Backend::Postgres(_) => backend.execute("DROP FUNCTION trap CASCADE").await,
    };
    backend.execute("DROP TABLE trap").await;
    backend.execute("DROP TABLE parent").await;
}

async fn try_approve(phone: &Phone, id: &str) -> Answer {
    let shown = show(phone, id).await;
    phone
        .try_answer(&shown, Decision::Approve, None)
        .await
        .unwrap()
}

/// What every failed commit must be like, to the phone, to the relying party and in the database.
async fn a_commit_that_fails_is_told_and_can_be_tried_again(backend: Backend) {
    let app = TestApp::new(backend).await;
    let (bank, _, phone) = app.cast().await;
    let id = bank.start("alice").await;

    let before = app.state().await;
    arm(&app.backend).await;
    let answer = try_approve(&phone, &id).await;
    assert_problem(&answer, 503, "temporarily_unavailable");
    assert!(answer.header("retry-after").is_some());
    let cancelled = app.cancel(&bank, &id).await;
    assert!(cancelled.is_err(), "{cancelled:?}");
    assert!(app.state().await == before, "something was left behind");
    disarm(&app.backend).await;
    approve(&phone, &id).await;

    let before = app.state().await;
    arm(&app.backend).await;
    let answer = bank.poll(&id).await;
    assert_oauth_error(&answer, 503, "temporarily_unavailable");
    assert!(answer.header("retry-after").is_some());
    assert!(app.state().await == before, "something was left behind");
    disarm(&app.backend).await;
    assert_eq!(bank.poll(&id).await.status, 200);
    assert_oauth_error(&bank.poll(&id).await, 400, "invalid_grant");
    assert_whole(&app).await;
}

/// A server whose wire to PostgreSQL can be cut, and a request that waits.
struct Scene {
    wire: Wire,
    app: TestApp,
    bank: RelyingParty,
    phone: Phone,
    id: String,
}

impl Scene {
    async fn new(settings: &[(&'static str, &str)]) -> Self {
        let backend = Backend::postgres().await;
        let wire = Wire::new(&backend.url()).await;
        let mut settings: Vec<_> = settings
            .iter()
            .map(|(key, value)| (*key, (*value).to_owned()))
            .collect();
        settings.push(("database.url", wire.url.clone()));
        let app = TestApp::with(backend, settings).await;
        let (bank, _, phone) = app.cast().await;
        let id = bank.start("alice").await;
        Self {
            wire,
            app,
            bank,
            phone,
            id,
        }
    }

    async fn rows(&self) -> (usize, usize) {
        let count = |table| self.app.backend.count(table);
        (count("outcomes").await, count("issuances").await)
    }
}

async fn assert_whole(app: &TestApp) {
    let report = app.services().verify_audit(None).await.unwrap();
    assert!(report.is_whole(), "{:?}", report.findings);
}

/// The server has committed and only its answer is lost: reading back finds the truth.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_answer_is_lost_is_read_back() {
    let scene = Scene::new(&[]).await;
    let shown = show(&scene.phone, &scene.id).await;
    // The replay cache's write commits by itself; the next `COMMIT` is the decision's.
    scene.wire.arm(Cut::AfterCommit);
    scene
        .phone
        .answer(&shown, Decision::Approve, None)
        .await
        .unwrap();
    assert!(scene.wire.was_cut());
    assert_eq!(scene.rows().await, (1, 0));

    scene.wire.arm(Cut::AfterCommit);
    let answer = scene.bank.poll(&scene.id).await;
    assert!(scene.wire.was_cut());
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(scene.rows().await, (1, 1));
    assert_oauth_error(&scene.bank.poll(&scene.id).await, 400, "invalid_grant");
    assert_whole(&scene.app).await;
}

/// The commit never reached the server: nothing has happened, and that is said.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_never_arrived_is_tried_again() {
    let scene = Scene::new(&[]).await;
    let shown = show(&scene.phone, &scene.id).await;
    let before = scene.app.state().await;
    scene.wire.arm(Cut::BeforeCommit);
    let answer = scene
        .phone
        .try_answer(&shown, Decision::Approve, None)
        .await
        .unwrap();
    assert!(scene.wire.was_cut());
    assert_problem(&answer, 503, "temporarily_unavailable");
    assert!(scene.app.state().await == before);
    scene
        .phone
        .answer(&shown, Decision::Approve, None)
        .await
        .unwrap();

    let before = scene.app.state().await;
    scene.wire.arm(Cut::BeforeCommit);
    let answer = scene.bank.poll(&scene.id).await;
    assert!(scene.wire.was_cut());
    assert_oauth_error(&answer, 503, "temporarily_unavailable");
    assert!(scene.app.state().await == before);
    assert_eq!(scene.bank.poll(&scene.id).await.status, 200);
    assert_whole(&scene.app).await;
}

/// The database is gone after the commit, so nobody can read it back. Then 503 is the truth: the phone
/// sends its answer again, and the relying party gets its lost tokens again where that is allowed.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_cannot_be_read_back_is_not_guessed() {
    for (redelivery, then) in [("60s", 200), ("0s", 400)] {
        let scene = Scene::new(&[("ciba.redelivery", redelivery)]).await;
        let shown = show(&scene.phone, &scene.id).await;
        scene.wire.arm(Cut::AfterCommitForGood);
        let answer = scene
            .phone
            .try_answer(&shown, Decision::Approve, None)
            .await
            .unwrap();
        assert!(scene.wire.was_cut());
        assert_problem(&answer, 503, "temporarily_unavailable");
        assert_eq!(scene.rows().await, (1, 0));
        scene.wire.mend();
        // The same answer again is welcome; the opposite comes too late.
        scene
            .phone
            .answer(&shown, Decision::Approve, None)
            .await
            .unwrap();
        let opposite = scene
            .phone
            .try_answer(&shown, Decision::Deny, None)
            .await
            .unwrap();
        assert_eq!(opposite.status, 409, "{}", opposite.body);
        // What the decision could not tell the projection, the sweep does.
        scene
            .app
            .services()
            .reconcile(Standings::All)
            .await
            .unwrap();

        scene.wire.arm(Cut::AfterCommitForGood);
        let answer = scene.bank.poll(&scene.id).await;
        assert!(scene.wire.was_cut());
        assert_oauth_error(&answer, 503, "temporarily_unavailable");
        assert_eq!(scene.rows().await, (1, 1));
        scene.wire.mend();
        let answer = scene.bank.poll(&scene.id).await;
        assert_eq!(answer.status, then, "{}", answer.body);
        assert_eq!(scene.rows().await, (1, 1));
        assert_whole(&scene.app).await;
    }
}

/// PostgreSQL itself ends the connection in the middle of the commit, as a fail-over does.
#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_dies_in_its_commit_has_not_committed() {
    let scene = Scene::new(&[]).await;
    let backend = &scene.app.backend;
    backend
        .execute(
            "CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql \
             AS $$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END $$",
        )
        .await;
    let trigger = "CREATE CONSTRAINT TRIGGER die AFTER INSERT ON audit \
         DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION die()";
    let before = scene.app.state().await;
    backend.execute(trigger).await;
    let answer = try_approve(&scene.phone, &scene.id).await;
    assert_problem(&answer, 503, "temporarily_unavailable");
    let cancelled = scene.app.cancel(&scene.bank, &scene.id).await;
    assert!(cancelled.is_err(), "{cancelled:?}");
    assert!(scene.app.state().await == before);
    backend.execute("DROP TRIGGER die ON audit").await;
    approve(&scene.phone, &scene.id).await;

    let before = scene.app.state().await;
    backend.execute(trigger).await;
    assert_oauth_error(
        &scene.bank.poll(&scene.id).await,
        503,
        "temporarily_unavailable",
    );
    assert!(scene.app.state().await == before);
    backend.execute("DROP TRIGGER die ON audit").await;
    let cancelled = scene.app.cancel(&scene.bank, &scene.id).await;
    assert_eq!(cancelled.unwrap(), Cancelled::Yes);
    assert_oauth_error(&scene.bank.poll(&scene.id).await, 400, "access_denied");
    assert_whole(&scene.app).await;
}

/// The same, by another connection, while a decision waits for its commit: what the operator's
/// `pg_terminate_backend` or the loss of the primary does to a guard that is held.
#[tokio::test(flavor = "multi_thread")]
async fn a_guard_whose_connection_was_ended_writes_nothing() {
    let scene = Scene::new(&[]).await;
    approve(&scene.phone, &scene.id).await;
    let services = scene.app.services();
    let before = scene.app.state().await;
    let id = request_id(&scene.id);
    let (decided, _) = services.ledger.lookup(id).await.unwrap().unwrap();
    let begun = services
        .ledger
        .begin_redemption(id, decided.partition, scene.app.now())
        .await;
    let Redemption::Open(open) = begun.unwrap() else {
        panic!("approved and unused");
    };
    let kill = "SELECT CAST(pg_terminate_backend(pid) AS TEXT) FROM pg_stat_activity \
         WHERE datname = current_database() AND state = 'idle in transaction'";
    assert_eq!(scene.app.backend.column(kill).await, ["true"]);
    let failed = open.void(entry()).await;
    assert!(
        matches!(failed, Err(StoreError::Unavailable(_))),
        "{failed:?}"
    );
    assert!(scene.app.state().await == before);
    assert_eq!(scene.bank.poll(&scene.id).await.status, 200);
    assert_whole(&scene.app).await;
}
