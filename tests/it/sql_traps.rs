//! The traps of `sqlx::Any` (docs/adr/0004-sqlx-any.md), on real databases, through our own [`Db`].

mod dropped;
mod lent;
mod lost_commits;
mod migrations;
mod severed;

use crate::support::{Backend, House, START, on_both};
use assent::store::StoreError;
use assent::store::sql::Db;
use sqlx::Row as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

on_both!(
    every_connection_has_its_settings,
    a_transaction_that_reads_first_can_still_write,
    a_failed_statement_and_a_drop_leave_nothing,
    a_returning_write_is_not_believed_before_its_commit,
);

#[test]
fn one_place_commits() {
    let sql = ["\"BEGIN", "\"COMMIT", "\"ROLLBACK", "\"SAVEPOINT"];
    for (file, source) in sources("src") {
        let transactions = ["sqlx::Transaction", "begin_with", ".begin()"];
        let home = file.ends_with("store/sql/db.rs");
        for (line, text) in code(&source) {
            let begins = transactions.iter().any(|name| text.contains(name));
            let ours = text.contains("self.db.begin()") || text.contains(" db.begin()");
            assert!(home || ours || !begins, "{}:{line}: {text}", file.display());
            let spelled = sql.iter().any(|word| text.contains(word));
            let dialect = file.ends_with("store/sql/dialect.rs");
            assert!(dialect || !spelled, "{}:{line}: {text}", file.display());
        }
        // In its home: the one of `Tx`, and the one of the migrator.
        let commits = source.matches("execute(COMMIT)").count();
        assert_eq!(commits, usize::from(home), "in {}", file.display());
        let migrators = source.matches(".commit()").count();
        assert!(!home || migrators == 1, "{migrators} more in db.rs");
    }
}

/// `fetch_one` and `fetch_optional` stop at the first row and may never see that the write failed.
#[test]
fn writes_that_return_rows_are_read_to_the_end() {
    let mut writes = 0;
    for (file, source) in sources("src/store/sql") {
        // The dialect holds the text of one of them.
        let returning = source.match_indices("RETURNING");
        for (at, _) in returning.chain(source.match_indices(".claim_jobs()")) {
            let rest = &source[at..];
            let Some(call) = [".fetch_", ".execute("]
                .iter()
                .filter_map(|call| rest.find(call))
                .min()
            else {
                continue;
            };
            let in_doc = source[..at]
                .rsplit('\n')
                .next()
                .is_some_and(|line| line.trim().starts_with("//"));
            if !in_doc {
                assert!(
                    rest[call..].starts_with(".fetch_all("),
                    "{}: {rest:.200}",
                    file.display()
                );
                writes += 1;
            }
        }
    }
    assert!(writes >= 2, "the writes were not found");
}

/// One lock order: whoever writes to a chain takes its head before anything else.
#[test]
fn the_head_is_taken_first() {
    let mut writers = 0;
    for (file, source) in sources("src/store/sql") {
        let name = file.to_string_lossy();
        let homes = ["ledger.rs", "tokens.rs", "keys.rs", "/directory/"];
        // In audit.rs itself: the helper through which single changes go.
        let source = match file.ends_with("audit.rs") {
            true => source.split("pub struct AuditLog").next().unwrap(),
            false => &source,
        };
        if file.ends_with("audit.rs") || homes.iter().any(|home| name.contains(home)) {
            for (at, begin) in source.match_indices("db.begin().await?;") {
                let next = source[at + begin.len()..].trim_start();
                let next = next.replace("audit::", "");
                let taken = next.starts_with("let head = take_head(&mut tx, ");
                assert!(taken, "{}: {next:.80}", file.display());
                writers += 1;
            }
        }
    }
    assert!(writers >= 10, "the writers were not found");
}

/// The lines of code, without comments.
fn code(source: &str) -> impl Iterator<Item = (usize, &str)> {
    let numbered = source.lines().enumerate().map(|(i, line)| (i + 1, line));
    numbered.filter(|(_, line)| !line.trim().starts_with("//"))
}

fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let source = fs::read_to_string(&path).unwrap();
                found.push((path, source));
            }
        }
    }
    found
}

/// Only types that `Any` reads alike from both databases; and both have the same columns.
#[tokio::test]
async fn all_columns_are_text_or_bigint() {
    let (sqlite, postgres) = (Backend::sqlite(), Backend::empty_postgres().await);
    for backend in [&sqlite, &postgres] {
        Db::migrate(&backend.url()).await.unwrap();
    }
    let on_sqlite = sqlite
        .column(
            "SELECT lower(m.name || '.' || c.name || ' ' || c.type) FROM sqlite_master m \
             JOIN pragma_table_info(m.name) c WHERE m.type = 'table' AND m.name <> '_sqlx_migrations' \
             ORDER BY 1",
        )
        .await;
    let on_postgres = postgres
        .column(
            "SELECT table_name || '.' || column_name || ' ' || data_type FROM information_schema.columns \
             WHERE table_schema = 'public' AND table_name <> '_sqlx_migrations' ORDER BY 1",
        )
        .await;
    assert!(on_sqlite.len() > 50, "{on_sqlite:?}");
    assert_eq!(on_sqlite, on_postgres);
    for column in on_sqlite {
        assert!(
            column.ends_with(" text") || column.ends_with(" bigint"),
            "{column}"
        );
    }
}

/// Not only on the first connection of a pool: on every one it may ever open.
async fn every_connection_has_its_settings(backend: Backend) {
    let house = House::new(backend).await;
    let (settings, readers): (&[_], _) = match house.backend {
        Backend::Sqlite(_) => (
            &[
                ("SELECT journal_mode FROM pragma_journal_mode", "wal"),
                (
                    "SELECT CAST(synchronous AS TEXT) FROM pragma_synchronous",
                    "2",
                ),
                (
                    "SELECT CAST(foreign_keys AS TEXT) FROM pragma_foreign_keys",
                    "1",
                ),
                (
                    "SELECT CAST(timeout AS TEXT) FROM pragma_busy_timeout",
                    "10000",
                ),
            ],
            4,
        ),
        Backend::Postgres(_) => (
            &[
                ("SELECT current_setting('lock_timeout')", "4s"),
                ("SELECT current_setting('statement_timeout')", "20s"),
                (
                    "SELECT current_setting('idle_in_transaction_session_timeout')",
                    "30s",
                ),
                ("SELECT current_setting('fsync')", "on"),
                ("SELECT current_setting('synchronous_commit')", "on"),
            ],
            // One pool for both: leave room for the writer.
            15,
        ),
    };
    let mut held = vec![house.db().writer().await.unwrap()];
    for _ in 0..readers {
        held.push(house.db().reader().await.unwrap());
    }
    for connection in &mut held {
        for (query, expected) in settings {
            let row = sqlx::query(*query)
                .fetch_one(&mut **connection)
                .await
                .unwrap();
            assert_eq!(row.get::<String, _>(0), *expected, "{query}");
        }
    }
}

/// On SQLite only because it began as a writer: with a plain `BEGIN` it would lose to anybody who writes
/// after its first read, another process for instance, and fail without waiting.
async fn a_transaction_that_reads_first_can_still_write(backend: Backend) {
    let house = House::new(backend).await;
    let other = house.node().await;
    let mut tx = house.db().begin().await.unwrap();
    let read = sqlx::query("SELECT id FROM replays")
        .fetch_all(&mut *tx)
        .await;
    assert!(read.unwrap().is_empty());
    let rival = other.services.replays.first_use("rival", START, START);
    let (rival, ours) = tokio::join!(rival, async {
        let insert = "INSERT INTO replays (id, expires_at) VALUES ('ours', 0)";
        // Time for the rival to write, if it can.
        let pause = std::future::pending::<()>();
        let _ = tokio::time::timeout(Duration::from_millis(50), pause).await;
        sqlx::query(insert).execute(&mut *tx).await?;
        tx.commit().await
    });
    ours.unwrap();
    assert!(rival.unwrap());
    assert_eq!(count(house.db(), "replays").await, 2);
}

async fn count(db: &Db, table: &'static str) -> i64 {
    let query = match table {
        "replays" => "SELECT COUNT(*) FROM replays",
        _ => "SELECT COUNT(*) FROM trap",
    };
    let mut reader = db.reader().await.unwrap();
    sqlx::query(query)
        .fetch_one(&mut *reader)
        .await
        .unwrap()
        .get(0)
}

/// An error that `?` passes on drops the transaction: no way leads from it to a commit. Where somebody
/// swallows the error, PostgreSQL says that the commit went well, and has stored nothing.
async fn a_failed_statement_and_a_drop_leave_nothing(backend: Backend) {
    let house = House::new(backend).await;
    let insert = "INSERT INTO replays (id, expires_at) VALUES ($1, 0)";
    let work = async |commits: bool| -> Result<(), StoreError> {
        let mut tx = house.db().begin().await?;
        sqlx::query(insert).bind("a").execute(&mut *tx).await?;
        let failed = sqlx::query(insert).bind("a").execute(&mut *tx).await;
        if !commits {
            failed?;
        }
        tx.commit().await
    };
    let failed = work(false).await;
    assert!(matches!(failed, Err(StoreError::Refused(_))), "{failed:?}");
    assert_eq!(count(house.db(), "replays").await, 0);
    let swallowed = work(true).await;
    assert!(swallowed.is_ok());
    let stored = match house.backend {
        Backend::Sqlite(_) => 1,
        Backend::Postgres(_) => 0,
    };
    assert_eq!(count(house.db(), "replays").await, stored);
    // Whatever happened, the next one finds a connection that works.
    assert!(house.replays.first_use("b", START, START).await.unwrap());
}

/// A constraint that is checked at the commit shows it: in autocommit `fetch_one` has its row and
/// reports success, and nothing is stored.
async fn a_returning_write_is_not_believed_before_its_commit(backend: Backend) {
    let house = House::new(backend).await;
    for table in [
        "CREATE TABLE parent (id TEXT NOT NULL PRIMARY KEY)",
        "CREATE TABLE trap (id TEXT REFERENCES parent (id) DEFERRABLE INITIALLY DEFERRED)",
    ] {
        house.backend.execute(table).await;
    }
    let insert = "INSERT INTO trap (id) VALUES ('orphan') RETURNING id";
    let db = house.db();

    let mut writer = db.writer().await.unwrap();
    let one = sqlx::query(insert).fetch_one(&mut *writer).await;
    drop(writer);
    assert!(one.is_ok(), "the trap is gone");
    assert_eq!(count(db, "trap").await, 0);

    let mut writer = db.writer().await.unwrap();
    let all = sqlx::query(insert).fetch_all(&mut *writer).await;
    drop(writer);
    assert!(all.is_err());

    let mut tx = db.begin().await.unwrap();
    assert_eq!(
        sqlx::query(insert).fetch_all(&mut *tx).await.unwrap().len(),
        1
    );
    let committed = tx.commit().await;
    assert!(
        matches!(committed, Err(StoreError::CommitUnknown(_))),
        "{committed:?}"
    );
    assert_eq!(count(db, "trap").await, 0);
    assert!(house.replays.first_use("a", START, START).await.unwrap());
}
