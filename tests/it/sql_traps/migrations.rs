//! Migrations: any number of processes, whole or not at all, and never another text.

use crate::support::{Backend, House, config, on_both};
use assent::domain::key::Purpose;
use assent::store::sql::{Db, OpenError};
use std::process::{Command, Stdio};

on_both!(
    three_processes_migrate_one_fresh_database,
    a_failed_migration_leaves_nothing_behind,
    a_changed_migration_is_refused,
    a_database_that_does_not_fit_is_refused,
    migrating_again_changes_nothing,
);

/// The program itself, as an operator or three pods starting at once would run it.
fn migrate(backend: &Backend) -> Command {
    let config = config(backend, None, vec![]);
    let mut command = Command::new(env!("CARGO_BIN_EXE_assent"));
    command
        .arg("migrate")
        .env_clear()
        .env("ASSENT_SERVER__MODE", "dev")
        .env("ASSENT_SERVER__ISSUER", "http://127.0.0.1:1")
        .env("ASSENT_DATABASE__URL", &config.database.url)
        .env(
            "ASSENT_KEYS__DEPLOYMENT_KEY",
            config.deployment_key().unwrap().expose(),
        )
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    command
}

/// A database of the same kind with nothing in it.
async fn empty(backend: &Backend) -> Backend {
    match backend {
        Backend::Sqlite(_) => Backend::sqlite(),
        Backend::Postgres(_) => Backend::empty_postgres().await,
    }
}

async fn three_processes_migrate_one_fresh_database(backend: Backend) {
    sqlx::any::install_default_drivers();
    for round in 0..4 {
        let backend = empty(&backend).await;
        let processes: Vec<_> = (0..3).map(|_| migrate(&backend).spawn().unwrap()).collect();
        for process in processes {
            let output = process.wait_with_output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success(), "round {round}: {said}");
        }
        // Keys for each purpose, made once, said once in the audit; every process opens them.
        let purposes = backend
            .column("SELECT DISTINCT purpose FROM keys ORDER BY purpose")
            .await;
        let mut expected: Vec<_> = Purpose::ALL.iter().map(ToString::to_string).collect();
        expected.sort();
        assert_eq!(purposes, expected);
        assert_eq!(
            backend.count("keys").await,
            expected.len() + 1,
            "tokens have two algorithms"
        );
        assert_eq!(
            backend.count("audit WHERE kind = 'keys.generated'").await,
            1
        );
    }
}

/// The last statement meets a table that is there already.
async fn a_failed_migration_leaves_nothing_behind(backend: Backend) {
    let backend = empty(&backend).await;
    sqlx::any::install_default_drivers();
    backend.execute("CREATE TABLE replays (strange TEXT)").await;
    let tables = match &backend {
        Backend::Sqlite(_) => {
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name <> '_sqlx_migrations'"
        }
        Backend::Postgres(_) => {
            "SELECT CAST(tablename AS TEXT) FROM pg_tables WHERE schemaname = 'public' \
             AND tablename <> '_sqlx_migrations'"
        }
    };
    for _ in 0..2 {
        let failed = Db::migrate(&backend.url()).await.unwrap_err();
        assert!(matches!(failed, OpenError::Migrate(_)), "{failed:?}");
        assert_eq!(
            failed.to_string(),
            "the migration failed and nothing was changed"
        );
        assert_eq!(backend.column(tables).await, ["replays"]);
        let opened = Db::open(&backend.url()).await.unwrap_err();
        assert!(matches!(opened, OpenError::NotMigrated), "{opened:?}");
    }
    let said = migrate(&backend).output().unwrap();
    assert!(!said.status.success());
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(
        said.contains("nothing was changed") && said.contains("replays"),
        "{said}"
    );
    // No lock is left either: with the obstacle gone, the next one gets through.
    backend.execute("DROP TABLE replays").await;
    Db::migrate(&backend.url()).await.unwrap();
    Db::open(&backend.url()).await.unwrap().close().await;
}

async fn a_changed_migration_is_refused(backend: Backend) {
    let house = House::new(backend).await;
    let before = house.backend.dump().await;
    let checksum = match house.backend {
        Backend::Sqlite(_) => "X'00'",
        Backend::Postgres(_) => r"'\x00'",
    };
    let change = format!("UPDATE _sqlx_migrations SET checksum = {checksum}");
    assert!(house.backend.execute(&change).await > 0);
    let refused = Db::migrate(&house.backend.url()).await.unwrap_err();
    let OpenError::Migrate(cause) = &refused else {
        panic!("{refused:?}");
    };
    assert!(
        matches!(cause, sqlx::migrate::MigrateError::VersionMismatch(1)),
        "{cause:?}"
    );
    assert!(house.backend.dump().await == before);
}

async fn a_database_that_does_not_fit_is_refused(backend: Backend) {
    let backend = empty(&backend).await;
    sqlx::any::install_default_drivers();
    let url = backend.url();
    let opened = async || Db::open(&url).await.unwrap_err();
    let fresh = opened().await;
    assert!(matches!(fresh, OpenError::NotMigrated), "{fresh:?}");
    assert_eq!(
        fresh.to_string(),
        "the database has not been set up; run `assent migrate` first"
    );

    Db::migrate(&url).await.unwrap();
    let needed: i64 = backend
        .column("SELECT CAST(MAX(version) AS TEXT) FROM _sqlx_migrations")
        .await[0]
        .parse()
        .unwrap();
    let copy = format!(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
         SELECT {}, description, success, checksum, execution_time FROM _sqlx_migrations \
         WHERE version = {needed}",
        needed + 1
    );
    backend.execute(&copy).await;
    let newer = opened().await;
    assert!(
        matches!(newer, OpenError::Schema { found, needed: n } if found == needed + 1 && n == needed),
        "{newer:?}"
    );
    assert!(
        newer
            .to_string()
            .contains("run `assent migrate` with the newest assent"),
        "{newer}"
    );
    let refused = Db::migrate(&url).await.unwrap_err();
    assert!(matches!(refused, OpenError::Migrate(_)), "{refused:?}");

    backend.execute("DELETE FROM _sqlx_migrations").await;
    let unfinished = opened().await;
    assert!(
        matches!(unfinished, OpenError::NotMigrated),
        "{unfinished:?}"
    );
}

#[tokio::test]
async fn what_is_no_database_is_refused() {
    for (url, says) in [
        (
            "mysql://root@127.0.0.1/assent",
            "must begin with sqlite: or postgres:",
        ),
        ("assent.db", "must begin with sqlite: or postgres:"),
        (
            "sqlite:///nowhere/at/all/assent.db?mode=rwc",
            "check database.url",
        ),
        // It cannot write ahead, so a power cut would cost it what it has promised.
        ("sqlite::memory:", "did not take a setting"),
    ] {
        let refused = Db::open(url).await.unwrap_err().to_string();
        assert!(refused.contains(says), "{url}: {refused}");
    }
}

async fn migrating_again_changes_nothing(backend: Backend) {
    let house = House::new(backend).await;
    house.client("bank").await;
    let before = house.backend.dump().await;
    // Beside a server that runs, too.
    house.node().await.db.close().await;
    assert!(house.backend.dump().await == before);
}
