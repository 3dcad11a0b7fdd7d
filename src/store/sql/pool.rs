//! Connections that are kept open, and who may use one.
//!
//! Not sqlx's pool: that asks every connection whether it still lives each time it is given back, which
//! costs as much as the read it was lent for, and waits for ever where no answer comes. Here a connection
//! is asked only when there is reason to doubt it, and every wait has an end.

use super::dialect::{Dialect, ROLLBACK};
use futures_util::future::BoxFuture;
use futures_util::stream::{BoxStream, TryStreamExt as _, try_unfold};
use sqlx::any::{AnyConnectOptions, AnyQueryResult, AnyRow, AnyStatement, AnyTypeInfo};
use sqlx::error::ErrorKind as DatabaseErrorKind;
use sqlx::{
    Any, AnyConnection, ConnectOptions as _, Connection as _, Describe, Either, Error, Execute,
    Executor, SqlStr,
};
use std::fmt;
use std::io::ErrorKind;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_util::context::TokioContext;

/// How long one waits while all connections are in use.
const WAIT_FOR_TURN: Duration = Duration::from_secs(10);

pub struct Pool {
    options: AnyConnectOptions,
    dialect: Dialect,
    size: u32,
    permits: Arc<Semaphore>,
    /// The one used last lies on top. `None`: closed.
    idle: Mutex<Option<Vec<Idle>>>,
    /// Where connections live: the runtime that opened the database. Those that an HTTP worker opened on
    /// its own would break for all others as soon as that worker ends, as it does in a drain.
    home: Handle,
}

struct Idle {
    connection: AnyConnection,
    since: Instant,
    doubted: bool,
}

impl Pool {
    pub fn new(options: AnyConnectOptions, dialect: Dialect, size: u32) -> Arc<Self> {
        Arc::new(Self {
            options,
            dialect,
            size,
            permits: Arc::new(Semaphore::new(size as usize)),
            idle: Mutex::new(Some(Vec::new())),
            home: Handle::current(),
        })
    }

    /// Lends a connection that lives, as far as one can know.
    pub async fn lend(self: &Arc<Self>) -> Result<Lent, Error> {
        let permit = timeout(WAIT_FOR_TURN, self.permits.clone().acquire_owned()).await;
        let permit = permit
            .map_err(|_| Error::PoolTimedOut)?
            .map_err(|_| Error::PoolClosed)?;
        let raw = timeout(self.dialect.wait_for_database(), self.living_or_new()).await;
        Ok(Lent {
            connection: Some(Connection {
                raw: raw.map_err(|_| Error::PoolTimedOut)??,
                health: Health::Sound,
                patience: self.dialect.patience(),
            }),
            in_transaction: false,
            pool: self.clone(),
            permit: Some(permit),
        })
    }

    async fn living_or_new(&self) -> Result<AnyConnection, Error> {
        match self.living().await {
            Some(connection) => Ok(connection),
            None => TokioContext::new(self.connect(), self.home.clone()).await,
        }
    }

    /// An idle connection, asked if it lives where that is in doubt.
    async fn living(&self) -> Option<AnyConnection> {
        loop {
            let mut idle = self.idle().as_mut()?.pop()?;
            if !idle.doubted && self.is_fresh(idle.since) || idle.connection.ping().await.is_ok() {
                return Some(idle.connection);
            }
            self.doubt_all();
        }
    }

    async fn connect(&self) -> Result<AnyConnection, Error> {
        let mut connection = self.options.connect().await?;
        connection.execute(self.dialect.after_connect()).await?;
        Ok(connection)
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "a socket ages by the machine's clock, whatever the house thinks the time is"
    )]
    fn is_fresh(&self, since: Instant) -> bool {
        let trust = self.dialect.trusts_idle_for();
        trust.is_none_or(|trust| since.elapsed() < trust)
    }

    /// One connection was lost, so the others may be: the database was started again, or is another.
    fn doubt_all(&self) {
        for idle in self.idle().iter_mut().flatten() {
            idle.doubted = true;
        }
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "a socket ages by the machine's clock, whatever the house thinks the time is"
    )]
    fn put_back(&self, connection: AnyConnection) {
        if let Some(idle) = self.idle().as_mut() {
            idle.push(Idle {
                connection,
                since: Instant::now(),
                doubted: false,
            });
        }
    }

    fn idle(&self) -> MutexGuard<'_, Option<Vec<Idle>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes every connection, when its work is done.
    pub async fn close(&self) {
        let all_returned = self.permits.acquire_many(self.size).await;
        let idle = self.idle().take();
        self.permits.close();
        drop(all_returned);
        for idle in idle.into_iter().flatten() {
            // A goodbye: the server notices without it.
            let _ = timeout(self.dialect.patience(), idle.connection.close()).await;
        }
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("size", &self.size).finish()
    }
}

/// What the last statement left behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Health {
    /// It came to its end.
    Sound,
    /// It broke a constraint, or was dropped before its end.
    Unfinished,
    /// It failed, as it would on a connection that is no more.
    Failed,
    /// The database did not say a word for longer than we wait. Nobody knows what it will still do.
    Silent,
}

/// A connection whose every statement has an end.
#[derive(Debug)]
pub struct Connection {
    raw: AnyConnection,
    health: Health,
    /// How long the database may be silent.
    patience: Duration,
}

impl Connection {
    /// Waits for one word of the database, `None` being its last.
    async fn listen<T>(
        health: &mut Health,
        patience: Duration,
        word: impl Future<Output = Result<Option<T>, Error>>,
    ) -> Result<Option<T>, Error> {
        let Ok(word) = timeout(patience, word).await else {
            *health = Health::Silent;
            let silence = std::io::Error::new(ErrorKind::TimedOut, "the database does not answer");
            return Err(Error::Io(silence));
        };
        match &word {
            Ok(Some(_)) => {}
            Ok(None) => *health = Health::Sound,
            Err(Error::Database(error)) if !matches!(error.kind(), DatabaseErrorKind::Other) => {}
            Err(_) => *health = Health::Failed,
        }
        word
    }
}

impl<'c> Executor<'c> for &'c mut Connection {
    type Database = Any;

    fn fetch_many<'e, 'q: 'e, E>(
        self,
        query: E,
    ) -> BoxStream<'e, Result<Either<AnyQueryResult, AnyRow>, Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Any>,
    {
        let patience = self.patience;
        self.health = Health::Unfinished;
        let begun = (self.raw.fetch_many(query), &mut self.health);
        Box::pin(try_unfold(begun, move |(mut words, health)| async move {
            let word = Connection::listen(health, patience, words.try_next()).await?;
            Ok(word.map(|word| (word, (words, health))))
        }))
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<Option<AnyRow>, Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Any>,
    {
        self.health = Health::Unfinished;
        Box::pin(async move {
            let word = self.raw.fetch_optional(query);
            Connection::listen(&mut self.health, self.patience, word).await
        })
    }

    fn prepare_with<'e>(
        self,
        sql: SqlStr,
        parameters: &'e [AnyTypeInfo],
    ) -> BoxFuture<'e, Result<AnyStatement, Error>>
    where
        'c: 'e,
    {
        self.health = Health::Unfinished;
        self.raw.prepare_with(sql, parameters)
    }

    fn describe<'e>(self, sql: SqlStr) -> BoxFuture<'e, Result<Describe<Any>, Error>>
    where
        'c: 'e,
    {
        self.health = Health::Unfinished;
        self.raw.describe(sql)
    }
}

/// A connection that goes back to its pool when it is dropped.
#[derive(Debug)]
pub struct Lent {
    /// There until it is dropped.
    connection: Option<Connection>,
    /// Something has to be rolled back before anybody else may have it.
    pub(super) in_transaction: bool,
    pool: Arc<Pool>,
    permit: Option<OwnedSemaphorePermit>,
}

impl Lent {
    /// For work that may take its time: behind the requests, over many rows.
    pub fn patient(mut self) -> Self {
        self.patience = self.pool.dialect.patience_with_sweeps();
        self
    }
}

impl Deref for Lent {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        self.connection.as_ref().expect("there until it is dropped")
    }
}

impl DerefMut for Lent {
    fn deref_mut(&mut self) -> &mut Connection {
        self.connection.as_mut().expect("there until it is dropped")
    }
}

impl Drop for Lent {
    #[expect(
        clippy::disallowed_methods,
        reason = "it ends within the pool's patience, and closing the pool waits for its permit"
    )]
    fn drop(&mut self) {
        let Some(Connection {
            mut raw, health, ..
        }) = self.connection.take()
        else {
            return;
        };
        if matches!(health, Health::Failed | Health::Silent) {
            self.pool.doubt_all();
        }
        match health {
            Health::Sound if !self.in_transaction => self.pool.put_back(raw),
            Health::Silent => {}
            Health::Sound | Health::Unfinished | Health::Failed => {
                let (pool, permit) = (self.pool.clone(), self.permit.take());
                let in_transaction = self.in_transaction;
                self.pool.home.spawn(async move {
                    let asked = async {
                        match in_transaction {
                            true => raw.execute(ROLLBACK).await.map(drop),
                            false => raw.ping().await,
                        }
                    };
                    match timeout(pool.dialect.patience(), asked).await {
                        Ok(Ok(())) => pool.put_back(raw),
                        Ok(Err(_)) | Err(_) => pool.doubt_all(),
                    }
                    drop(permit);
                });
            }
        }
    }
}
