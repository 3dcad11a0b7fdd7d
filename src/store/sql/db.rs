//! Connections, transactions and migrations.

use super::dialect::{COMMIT, Dialect};
use super::pool::{Connection, Lent, Pool};
use crate::domain::Timestamp;
use crate::store::StoreError;
use sqlx::any::AnyConnectOptions;
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::{AnyConnection, ConnectOptions as _, Connection as _, Executor as _, Row as _};
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

static MIGRATIONS: Migrator = sqlx::migrate!("./migrations");

/// A database that is open.
#[derive(Clone, Debug)]
pub struct Db {
    write: Arc<Pool>,
    read: Arc<Pool>,
    dialect: Dialect,
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
        let options = options(url)?;
        let write = Pool::new(options.clone(), dialect, dialect.writers());
        let read = match dialect {
            Dialect::Sqlite => Pool::new(options, dialect, 4),
            Dialect::Postgres => write.clone(),
        };
        let db = Self {
            write,
            read,
            dialect,
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
            let mut connection = pool.lend().await.map_err(OpenError::Connect)?;
            for &(query, needed) in self.dialect.must_hold() {
                let row = sqlx::query(query)
                    .fetch_one(&mut *connection)
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
        let mut reader = self.read.lend().await.map_err(OpenError::Connect)?;
        let found = sqlx::query("SELECT MAX(version) FROM _sqlx_migrations WHERE success")
            .fetch_one(&mut *reader)
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
        let mut lent = self.write.lend().await?;
        // Before the word is out: a future that is dropped here may have begun it.
        lent.in_transaction = true;
        (&mut *lent).execute(self.dialect.begin()).await?;
        Ok(Tx(lent))
    }

    /// A connection for several reads.
    pub async fn reader(&self) -> Result<Lent, StoreError> {
        Ok(self.read.lend().await?)
    }

    /// A connection for one write that is a transaction of its own. Not for statements with
    /// `RETURNING`: their result may be reported before the commit fails.
    pub async fn writer(&self) -> Result<Lent, StoreError> {
        Ok(self.write.lend().await?)
    }

    /// What time the database thinks it is.
    pub async fn now(&self) -> Result<Timestamp, StoreError> {
        let mut reader = self.reader().await?;
        let row = sqlx::query(self.dialect.clock())
            .fetch_one(&mut *reader)
            .await?;
        Ok(Timestamp::from_millis(row.try_get(0)?))
    }

    /// Closes every connection, when their work is done.
    pub async fn close(&self) {
        self.read.close().await;
        self.write.close().await;
    }
}

/// A writing transaction. Dropped without [`Tx::commit`], it never happened: so an error passed on by
/// `?` can never be followed by a commit.
pub struct Tx(Lent);

impl Tx {
    /// The only place that commits.
    ///
    /// # Errors
    /// [`StoreError::CommitUnknown`]: the commit may have happened. Read back before answering.
    pub async fn commit(mut self) -> Result<(), StoreError> {
        match (&mut *self.0).execute(COMMIT).await {
            Ok(_) => {
                self.0.in_transaction = false;
                Ok(())
            }
            Err(error) => Err(StoreError::CommitUnknown(Box::new(error))),
        }
    }
}

impl Deref for Tx {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.0
    }
}

impl DerefMut for Tx {
    fn deref_mut(&mut self) -> &mut Connection {
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
