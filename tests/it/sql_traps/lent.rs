//! Connections are lent without being asked each time, and nobody waits for one that is silent.

use super::severed::{Cut, Wire};
use crate::support::{Backend, House, TestApp, assert_oauth_error, assert_problem, on_both, show};
use assent::domain::Decision;
use assent::service::reconcile::Standings;
use assent::store::StoreError;
use assent::store::sql::Db;
use sqlx::Row as _;

on_both!(what_is_left_open_is_rolled_back_before_the_next);

async fn read(db: &Db) -> Result<i64, StoreError> {
    let mut reader = db.reader().await?;
    let rows = sqlx::query("SELECT COUNT(*) FROM replays")
        .fetch_all(&mut *reader)
        .await?;
    Ok(rows[0].get(0))
}

/// The server's processes that belong to this database, ended as by a restart.
async fn end_all(backend: &Backend) {
    backend
        .execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
             WHERE datname = current_database() AND pid <> pg_backend_pid()",
        )
        .await;
}

/// A database behind a wire, and how we reach it.
async fn behind_a_wire() -> (Backend, Wire, Db) {
    let backend = Backend::postgres().await;
    let wire = Wire::new(&backend.url()).await;
    let db = Db::open(&wire.url).await.unwrap();
    (backend, wire, db)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_is_one_round_trip() {
    let (_backend, wire, db) = behind_a_wire().await;
    read(&db).await.unwrap();
    let before = wire.said();
    for _ in 0..20 {
        read(&db).await.unwrap();
    }
    assert_eq!(wire.said() - before, 20);
}

/// Sixteen connections die at once; whoever comes next may notice, and nobody after that.
#[tokio::test(flavor = "multi_thread")]
async fn a_restart_costs_one_error_at_most() {
    let backend = Backend::postgres().await;
    let db = Db::open(&backend.url()).await.unwrap();
    for _ in 0..3 {
        let mut held = Vec::new();
        for _ in 0..16 {
            let mut reader = db.reader().await.unwrap();
            let found = sqlx::query("SELECT 1").fetch_all(&mut *reader).await;
            found.unwrap();
            held.push(reader);
        }
        drop(held);
        end_all(&backend).await;
        let mut errors = 0;
        for _ in 0..20 {
            errors += usize::from(read(&db).await.is_err());
        }
        assert!(errors <= 1, "{errors} of 20 reads failed");
    }
}

/// A transaction that nobody ended holds its locks no longer than its guard.
async fn what_is_left_open_is_rolled_back_before_the_next(backend: Backend) {
    let house = House::new(backend).await;
    let insert = "INSERT INTO replays (id, expires_at) VALUES ('a', 0)";
    for _ in 0..40 {
        let mut tx = house.db().begin().await.unwrap();
        sqlx::query(insert).execute(&mut *tx).await.unwrap();
    }
    assert_eq!(read(house.db()).await.unwrap(), 0);
    let mut tx = house.db().begin().await.unwrap();
    sqlx::query(insert).execute(&mut *tx).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(read(house.db()).await.unwrap(), 1);
}

/// More connections than the pool has fall silent, at every kind of statement: each wait ends, and when
/// the database speaks again, so does the pool.
#[tokio::test(flavor = "multi_thread")]
async fn a_silent_database_is_given_up() {
    let (_backend, wire, db) = behind_a_wire().await;
    let mut tx = db.begin().await.unwrap();
    let mut reader = db.reader().await.unwrap();
    read(&db).await.unwrap();
    wire.silence();
    let insert = sqlx::query("INSERT INTO replays (id, expires_at) VALUES ('a', 0)");
    let select = sqlx::query("SELECT 1");
    let (written, found, begun, new) = tokio::join!(
        insert.execute(&mut *tx),
        select.fetch_one(&mut *reader),
        db.begin(),
        crate::support::all((0..20).map(|_| {
            let db = db.clone();
            async move { read(&db).await }
        })),
    );
    assert!(written.is_err() && found.is_err());
    assert!(matches!(begun.err(), Some(StoreError::Unavailable(_))));
    for read in new {
        assert!(matches!(read, Err(StoreError::Unavailable(_))), "{read:?}");
    }
    drop((tx, reader));
    wire.mend();
    assert_eq!(read(&db).await.unwrap(), 0);
    let mut held = Vec::new();
    for _ in 0..16 {
        held.push(db.writer().await.unwrap());
    }
    drop(held);
    db.close().await;
    assert!(db.reader().await.is_err(), "it is closed");
}

/// The commit has happened, and nobody says so: that is unknown, and told as such.
#[tokio::test(flavor = "multi_thread")]
async fn silence_at_a_commit_is_not_taken_for_an_answer() {
    let backend = Backend::postgres().await;
    let wire = Wire::new(&backend.url()).await;
    let settings = vec![("database.url", wire.url.clone())];
    let app = TestApp::with(backend, settings).await;
    let (bank, _, phone) = app.cast().await;
    let id = bank.start("alice").await;
    let shown = show(&phone, &id).await;

    wire.arm(Cut::SilentAfterCommit);
    let answer = phone.try_answer(&shown, Decision::Approve, None).await;
    let answer = answer.unwrap();
    assert!(wire.was_cut());
    assert_problem(&answer, 503, "temporarily_unavailable");
    assert!(answer.header("retry-after").is_some());
    let polled = bank.poll(&id).await;
    assert_oauth_error(&polled, 503, "temporarily_unavailable");
    assert!(polled.header("retry-after").is_some());
    wire.mend();
    assert_eq!(app.backend.count("outcomes").await, 1);
    // The same answer again is welcome, and the tokens are there.
    phone.answer(&shown, Decision::Approve, None).await.unwrap();
    app.services().reconcile(Standings::All).await.unwrap();
    assert_eq!(bank.poll(&id).await.status, 200);
    let report = app.services().verify_audit(None).await.unwrap();
    assert!(report.is_whole(), "{:?}", report.findings);
}
