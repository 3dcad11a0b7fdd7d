//! Connections, transactions and migrations.

use super::dialect::Dialect;
use crate::domain::Timestamp;
use crate::store::StoreError;
use sqlx::any::{AnyConnectOptions, AnyPoolOptions};
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::pool::PoolConnection;
use sqlx::{
    Any, AnyConnection, AnyPool, ConnectOptions as _, Connection as _, Executor as _, Row as _,
};
use std::ops::{Deref, DerefMut};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio_util::context::TokioContext;

static MIGRATIONS: Migrator = sqlx::migrate!("./migrations");

/// A database that is open.
#[derive(Clone, Debug)]
pub struct Db {
    write: AnyPool,
    read: AnyPool,
    dialect: Dialect,
    /// Where connections live: the runtime that opened the database. Those that an HTTP worker opened on
    /// its own would break for all others as soon as that worker ends, as it does in a drain.
    home: Handle,
}

/// Why a database cannot be used. The text tells an operator what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("database.url must begin with sqlite: or postgres:")]
    Scheme,
    #[error("cannot connect to the database; check database.url and that the server runs")]
    Connect(#[source] sqlx::Error),
    #[error("the database has not been set up; run `assent migrate` first")]
    NotMigrated,
    #[error(
        "the database is at schema version {found}, this program needs {needed}; run `assent migrate` with the newest assent"
    )]
    Schema { found: i64, needed: i64 },
    #[error("the migration failed and nothing was changed")]
    Migrate(#[source] MigrateError),
    #[error("the database did not take a setting: `{query}` says {found:?}, must be {needed:?}")]
    Setting {
        query: &'static str,
        found: String,
        needed: &'static str,
    },
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        use sqlx::error::ErrorKind;
        match error.as_database_error().map(|error| error.kind()) {
            None | Some(ErrorKind::Other) => Self::Unavailable(Box::new(error)),
            Some(_) => Self::Refused(Box::new(error)),
        }
    }
}

impl Db {
    /// Opens a database that has been migrated.
    ///
    /// # Errors
    /// [`OpenError`] says what an operator must do.
    pub async fn open(url: &str) -> Result<Self, OpenError> {
        sqlx::any::install_default_drivers();
        let dialect = Dialect::of(url).ok_or(OpenError::Scheme)?;
        let write = pool(url, dialect, dialect.writers()).await?;
        let read = match dialect {
            Dialect::Sqlite => pool(url, dialect, 4).await?,
            Dialect::Postgres => write.clone(),
        };
        let db = Self {
            write,
            read,
            dialect,
            home: Handle::current(),
        };
        db.check_settings().await?;
        db.check_schema().await?;
        Ok(db)
    }

    /// Brings the database to this program's schema; does nothing when it is there already. Any number
    /// of processes may do this at once.
    ///
    /// # Errors
    /// [`OpenError`]; a failed set of migrations leaves nothing behind.
    pub async fn migrate(url: &str) -> Result<(), OpenError> {
        sqlx::any::install_default_drivers();
        let dialect = Dialect::of(url).ok_or(OpenError::Scheme)?;
        dialect.prepare(url);
        // A connection of its own, closed whatever happens: a lock that outlives a failure would block
        // the next migrator for ever.
        let mut connection = connect(url).await?;
        let done = migrate_on(&mut connection, dialect).await;
        let closed = connection.close().await;
        done.map_err(OpenError::Migrate)?;
        closed.map_err(OpenError::Connect)
    }

    async fn check_settings(&self) -> Result<(), OpenError> {
        for pool in [&self.write, &self.read] {
            for &(query, needed) in self.dialect.must_hold() {
                let row = sqlx::query(query)
                    .fetch_one(pool)
                    .await
                    .map_err(OpenError::Connect)?;
                let found: String = row.try_get(0).map_err(OpenError::Connect)?;
                if found != needed {
                    return Err(OpenError::Setting {
                        query,
                        found,
                        needed,
                    });
                }
            }
        }
        Ok(())
    }

    async fn check_schema(&self) -> Result<(), OpenError> {
        let needed = MIGRATIONS
            .iter()
            .map(|migration| migration.version)
            .max()
            .unwrap_or(0);
        let found = sqlx::query("SELECT MAX(version) FROM _sqlx_migrations WHERE success")
            .fetch_one(&self.read)
            .await
            .and_then(|row| row.try_get::<Option<i64>, _>(0));
        match found {
            Ok(Some(found)) if found == needed => Ok(()),
            Ok(Some(found)) => Err(OpenError::Schema { found, needed }),
            Ok(None) | Err(sqlx::Error::Database(_)) => Err(OpenError::NotMigrated),
            Err(error) => Err(OpenError::Connect(error)),
        }
    }

    pub(super) const fn dialect(&self) -> Dialect {
        self.dialect
    }

    pub const fn dialect_name(&self) -> &'static str {
        self.dialect.name()
    }

    /// Begins a writing transaction. It is rolled back unless it is committed.
    pub async fn begin(&self) -> Result<Tx, StoreError> {
        let begin = self.write.begin_with(self.dialect.begin());
        Ok(Tx(self.at_home(begin).await?))
    }

    /// A connection for several reads.
    pub async fn reader(&self) -> Result<PoolConnection<Any>, StoreError> {
        Ok(self.at_home(self.read.acquire()).await?)
    }

    /// A connection for one write that is a transaction of its own. Not for statements with
    /// `RETURNING`: their result may be reported before the commit fails.
    pub async fn writer(&self) -> Result<PoolConnection<Any>, StoreError> {
        Ok(self.at_home(self.write.acquire()).await?)
    }

    /// What time the database thinks it is.
    pub async fn now(&self) -> Result<Timestamp, StoreError> {
        let mut reader = self.reader().await?;
        let row = sqlx::query(self.dialect.clock())
            .fetch_one(&mut *reader)
            .await?;
        Ok(Timestamp::from_millis(row.try_get(0)?))
    }

    /// Connects, if it has to, on the runtime that opened the database.
    fn at_home<F: Future>(&self, connect: F) -> TokioContext<F> {
        TokioContext::new(connect, self.home.clone())
    }

    /// Closes every connection, when their work is done.
    pub async fn close(&self) {
        self.read.close().await;
        self.write.close().await;
    }
}

/// A writing transaction. Dropped without [`Tx::commit`], it never happened: so an error passed on by
/// `?` can never be followed by a commit.
pub struct Tx(sqlx::Transaction<'static, Any>);

impl Tx {
    /// The only place that commits.
    ///
    /// # Errors
    /// [`StoreError::CommitUnknown`]: the commit may have happened. Read back before answering.
    pub async fn commit(self) -> Result<(), StoreError> {
        self.0
            .commit()
            .await
            .map_err(|error| StoreError::CommitUnknown(Box::new(error)))
    }
}

impl Deref for Tx {
    type Target = AnyConnection;

    fn deref(&self) -> &AnyConnection {
        &self.0
    }
}

impl DerefMut for Tx {
    fn deref_mut(&mut self) -> &mut AnyConnection {
        &mut self.0
    }
}

async fn connect(url: &str) -> Result<AnyConnection, OpenError> {
    options(url)?.connect().await.map_err(OpenError::Connect)
}

fn options(url: &str) -> Result<AnyConnectOptions, OpenError> {
    let options: AnyConnectOptions = url.parse().map_err(OpenError::Connect)?;
    Ok(options.disable_statement_logging())
}

async fn pool(url: &str, dialect: Dialect, size: u32) -> Result<AnyPool, OpenError> {
    AnyPoolOptions::new()
        .max_connections(size)
        .acquire_timeout(Duration::from_secs(10))
        .test_before_acquire(matches!(dialect, Dialect::Postgres))
        .after_connect(move |connection, _| {
            Box::pin(async move { connection.execute(dialect.after_connect()).await.map(drop) })
        })
        .connect_with(options(url)?)
        .await
        .map_err(OpenError::Connect)
}

async fn migrate_on(connection: &mut AnyConnection, dialect: Dialect) -> Result<(), MigrateError> {
    if !dialect.migrates_in_transaction() {
        return MIGRATIONS.run(connection).await;
    }
    connection.execute(dialect.after_connect()).await?;
    // Another process may be migrating on a slow disk: wait for it longer than a request would.
    connection.execute("PRAGMA busy_timeout = 60000").await?;
    let mut tx = connection.begin_with(dialect.begin()).await?;
    MIGRATIONS.run(&mut *tx).await?;
    tx.commit().await?;
    Ok(())
}
