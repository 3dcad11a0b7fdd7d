//! A database of a test's own.

use assent::entropy::{Entropy, SystemEntropy};
use assent::store::sql::Db;
use sqlx::{AssertSqlSafe, Connection as _, Row as _};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use tempfile::TempDir;
use tokio::sync::OnceCell;

/// A database; it goes away with the test, or with its cluster.
pub enum Backend {
    Sqlite(TempDir),
    Postgres(String),
}

const TABLES: &[&str] = &[
    "keys",
    "clients",
    "users",
    "devices",
    "enrolments",
    "outcomes",
    "issuances",
    "refresh_families",
    "refresh_tokens",
    "access_tokens",
    "pairwise_subjects",
    "audit_heads",
    "audit",
    "audit_payloads",
    "checkpoints",
    "pending_requests",
    "idempotency_keys",
    "jobs",
];

impl Backend {
    pub fn sqlite() -> Self {
        Self::Sqlite(tempfile::tempdir().unwrap())
    }

    /// A new database on the cluster that `scripts/test` has started. It is migrated already: a copy
    /// is made sooner than a migration.
    pub async fn postgres() -> Self {
        static MIGRATED: OnceCell<String> = OnceCell::const_new();
        let template = MIGRATED.get_or_init(async || {
            let url = Self::empty_postgres().await.url();
            Db::migrate(&url).await.unwrap();
            url.rsplit_once('/').unwrap().1.to_owned()
        });
        Self::create(template.await).await
    }

    /// As [`Backend::postgres`], with nothing in it.
    pub async fn empty_postgres() -> Self {
        Self::create("template1").await
    }

    async fn create(template: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        static RUN: OnceLock<[u8; 4]> = OnceLock::new();
        let cluster = cluster();
        // A cluster may hold databases of an earlier process with this number.
        let run = RUN.get_or_init(|| (&SystemEntropy as &dyn Entropy).bytes());
        let name = format!(
            "assent_{}_{:08x}_{}",
            std::process::id(),
            u32::from_be_bytes(*run),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        sqlx::any::install_default_drivers();
        let mut connection = sqlx::AnyConnection::connect(&cluster)
            .await
            .expect("the cluster runs");
        let create = format!("CREATE DATABASE {name} TEMPLATE {template}");
        sqlx::raw_sql(AssertSqlSafe(create))
            .execute(&mut connection)
            .await
            .unwrap();
        connection.close().await.unwrap();
        let (server, _) = cluster.rsplit_once('/').expect("a URL with a database");
        Self::Postgres(format!("{server}/{name}"))
    }

    pub fn url(&self) -> String {
        match self {
            Self::Sqlite(folder) => {
                format!("sqlite://{}/assent.db?mode=rwc", folder.path().display())
            }
            Self::Postgres(url) => url.clone(),
        }
    }

    /// Runs one statement behind the server's back. Returns how many rows it changed.
    pub async fn execute(&self, sql: &str) -> u64 {
        let mut connection = sqlx::AnyConnection::connect(&self.url()).await.unwrap();
        let done = sqlx::query(AssertSqlSafe(sql.to_owned()))
            .execute(&mut connection)
            .await
            .unwrap();
        connection.close().await.unwrap();
        done.rows_affected()
    }

    /// Lets every `event` (INSERT, UPDATE or DELETE) on a table fail, as on a disk that is full.
    pub async fn refuse(&self, event: &str, table: &str) {
        let trigger = format!("CREATE TRIGGER refuse_{event}_{table} BEFORE {event} ON {table}");
        match self {
            Self::Sqlite(_) => {
                let action = "BEGIN SELECT RAISE(ABORT, 'refused by the test'); END";
                self.execute(&format!("{trigger} {action}")).await;
            }
            Self::Postgres(_) => {
                let function = "CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql \
                     AS $$ BEGIN RAISE EXCEPTION 'refused by the test'; END $$";
                self.execute(function).await;
                let action = "FOR EACH STATEMENT EXECUTE FUNCTION refuse()";
                self.execute(&format!("{trigger} {action}")).await;
            }
        }
    }

    /// Ends what [`Backend::refuse`] began.
    pub async fn allow(&self, event: &str, table: &str) {
        let trigger = format!("DROP TRIGGER refuse_{event}_{table}");
        match self {
            Self::Sqlite(_) => self.execute(&trigger).await,
            Self::Postgres(_) => self.execute(&format!("{trigger} ON {table}")).await,
        };
    }

    /// The first column of a query's rows, as text.
    pub async fn column(&self, sql: &str) -> Vec<String> {
        let mut connection = sqlx::AnyConnection::connect(&self.url()).await.unwrap();
        let rows = sqlx::query(AssertSqlSafe(sql.to_owned()))
            .fetch_all(&mut connection)
            .await
            .unwrap();
        connection.close().await.unwrap();
        rows.iter()
            .map(|row| row.try_get::<String, _>(0).unwrap())
            .collect()
    }

    pub async fn count(&self, table: &str) -> usize {
        let counts = self
            .column(&format!("SELECT CAST(COUNT(*) AS TEXT) FROM {table}"))
            .await;
        counts[0].parse().unwrap()
    }

    /// Every row of every table that matters, as text: two dumps are equal when nothing changed.
    pub async fn dump(&self) -> Vec<(String, Vec<String>)> {
        sqlx::any::install_default_drivers();
        let mut connection = sqlx::AnyConnection::connect(&self.url()).await.unwrap();
        let mut tables = Vec::new();
        for table in TABLES {
            let rows = sqlx::query(AssertSqlSafe(format!("SELECT * FROM {table}")))
                .fetch_all(&mut connection)
                .await
                .unwrap();
            let mut texts: Vec<String> = rows
                .iter()
                .map(|row| {
                    let cell = |i| match row.try_get::<Option<String>, _>(i) {
                        Ok(text) => format!("{text:?}"),
                        Err(_) => format!("{:?}", row.try_get::<Option<i64>, _>(i).unwrap()),
                    };
                    (0..row.len()).map(cell).collect::<Vec<_>>().join("|")
                })
                .collect();
            texts.sort();
            tables.push(((*table).to_owned(), texts));
        }
        connection.close().await.unwrap();
        tables
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "how scripts/test names its cluster"
)]
fn cluster() -> String {
    std::env::var("ASSENT_TEST_POSTGRES").expect(
        "ASSENT_TEST_POSTGRES is not set: run scripts/test, or start a cluster with scripts/postgres",
    )
}
