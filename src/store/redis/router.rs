//! Which server has a partition, and the connection to it.
//!
//! One multiplexed connection for each primary. A command that meets a broken connection or a server that
//! is not in charge any more makes the router look around, once for everybody, and is sent a second
//! time; then it fails. Scripts can take being sent twice. The library's own clients for clusters and
//! sentinels are not used: see docs/adr/0006.

use super::failure::Failure;
use super::script::Call;
use super::servers::{Servers, Table};
use super::url::{Address, Arrangement};
use crate::domain::Partition;
use crate::store::StoreError;
use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Cmd, ErrorKind, FromRedisValue, Pipeline, RedisError, ServerErrorKind,
    Value,
};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::time::{Instant, timeout};
use tokio_util::context::TokioContext;
use tokio_util::sync::CancellationToken;

/// How often every connection shows that it lives, and the sentinels are asked who is in charge.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long a look around is believed: one for all who meet the same trouble.
const BELIEVE_FOR: Duration = Duration::from_millis(100);

/// The way to the servers. Opening it talks to nobody.
pub struct Router {
    servers: Servers,
    table: RwLock<Arc<Table>>,
    /// Held by whoever looks around.
    looking: tokio::sync::Mutex<()>,
    /// What came of the last look around, and until when that is believed.
    looked: Mutex<Option<(Instant, Result<(), String>)>>,
    /// The runtime that connections live on: those of an HTTP worker's would end with it.
    home: Handle,
}

/// One attempt's result, and over whose connection it came.
type Attempt<T> = Result<T, (Failure, Option<Address>)>;

fn is_worth_another_look<T>(attempt: &Attempt<T>) -> bool {
    matches!(attempt, Err((failure, _)) if failure.is_worth_another_look())
}

impl Router {
    pub fn new(servers: Servers) -> Self {
        Self {
            servers,
            table: RwLock::default(),
            looking: tokio::sync::Mutex::default(),
            looked: Mutex::default(),
            home: Handle::current(),
        }
    }

    /// Runs a script where its partition lives. The call is told whether it is sent a second time.
    pub async fn run<T: FromRedisValue>(
        &self,
        partition: Partition,
        call: impl Fn(bool) -> Call,
    ) -> Result<T, StoreError> {
        let table = self.table();
        let done = match self.run_on(&table, partition, &call(false)).await {
            Err((failure, address)) if failure.is_worth_another_look() => {
                let table = self.look_around(&table, failure, address).await?;
                self.run_on(&table, partition, &call(true)).await
            }
            done => done,
        };
        done.map_err(|(failure, _)| failure.into())
    }

    async fn run_on<T: FromRedisValue>(
        &self,
        table: &Table,
        partition: Partition,
        call: &Call,
    ) -> Attempt<T> {
        let unknown = ErrorKind::Server(ServerErrorKind::NoScript);
        match self.attempt(table, partition, &call.by_hash()).await {
            Err((Failure::Redis(error), _)) if error.kind() == unknown => {
                self.attempt(table, partition, &call.in_full()).await
            }
            done => done,
        }
    }

    /// Sends a command that may be sent twice.
    pub async fn ask<T: FromRedisValue>(
        &self,
        partition: Partition,
        command: &Cmd,
    ) -> Result<T, StoreError> {
        let table = self.table();
        let done = match self.attempt(&table, partition, command).await {
            Err((failure, address)) if failure.is_worth_another_look() => {
                let table = self.look_around(&table, failure, address).await?;
                self.attempt(&table, partition, command).await
            }
            done => done,
        };
        done.map_err(|(failure, _)| failure.into())
    }

    /// Sends reads, one pipeline for each server. An answer for each, in the order of the commands: where
    /// one server is out of reach, the others' answers are there all the same.
    pub async fn ask_all<T: FromRedisValue>(
        &self,
        commands: &[(Partition, Cmd)],
    ) -> Vec<Result<T, StoreError>> {
        let table = self.table();
        let mut answers = self.pipelines(&table, commands, 0..commands.len()).await;
        let again: Vec<usize> = answers
            .iter()
            .enumerate()
            .filter(|(_, answer)| is_worth_another_look(answer))
            .map(|(place, _)| place)
            .collect();
        if let Some(place) = again.first()
            && let Err((failure, address)) = std::mem::replace(&mut answers[*place], Ok(Value::Nil))
        {
            match self.look_around(&table, failure, address).await {
                Ok(table) => {
                    let better = self
                        .pipelines(&table, commands, again.iter().copied())
                        .await;
                    for (place, answer) in again.into_iter().zip(better) {
                        answers[place] = answer;
                    }
                }
                Err(error) => {
                    answers[*place] = Err((Failure::Unreachable(error.to_string()), None));
                }
            }
        }
        answers
            .into_iter()
            .map(|answer| {
                let value = answer.map_err(|(failure, _)| failure)?;
                redis::from_redis_value(value)
                    .map_err(|error| Failure::Redis(RedisError::from(error)).into())
            })
            .collect()
    }

    /// The answers to the commands at these places.
    async fn pipelines(
        &self,
        table: &Table,
        commands: &[(Partition, Cmd)],
        places: impl Iterator<Item = usize>,
    ) -> Vec<Attempt<Value>> {
        let mut answers = Vec::new();
        let mut by_node: HashMap<&Address, (Pipeline, Vec<usize>)> = HashMap::new();
        for (at, place) in places.enumerate() {
            let (partition, command) = &commands[place];
            match table.primary(*partition) {
                Ok(address) => {
                    let (pipeline, ats) = by_node.entry(address).or_default();
                    pipeline.add_command(command.clone());
                    ats.push(at);
                    answers.push(Ok(Value::Nil));
                }
                Err(failure) => answers.push(Err((failure, None))),
            }
        }
        for (address, (mut pipeline, ats)) in by_node {
            pipeline.ignore_errors();
            let sent = async {
                let mut connection = table.connection(address)?;
                let sent = pipeline.query_async::<Vec<Value>>(&mut connection);
                let slow = || Failure::Slow(self.servers.attempt);
                let values = timeout(self.servers.attempt, sent).await;
                Ok::<_, Failure>(values.map_err(|_| slow())??)
            };
            match sent.await {
                Ok(values) => {
                    for (at, value) in ats.into_iter().zip(values) {
                        let failed = |error: RedisError| (error.into(), Some(address.clone()));
                        answers[at] = value.extract_error().map_err(failed);
                    }
                }
                Err(failure) => {
                    let failure = Arc::new(failure);
                    for at in ats {
                        let shared = Failure::Shared(failure.clone());
                        answers[at] = Err((shared, Some(address.clone())));
                    }
                }
            }
        }
        answers
    }

    async fn attempt<T: FromRedisValue>(
        &self,
        table: &Table,
        partition: Partition,
        command: &Cmd,
    ) -> Attempt<T> {
        let address = table
            .primary(partition)
            .map_err(|failure| (failure, None))?;
        let failed = |failure| (failure, Some(address.clone()));
        let mut connection = table.connection(address).map_err(failed)?;
        match timeout(self.servers.attempt, command.query_async(&mut connection)).await {
            Ok(answer) => answer.map_err(|error| failed(error.into())),
            Err(_) => Err(failed(Failure::Slow(self.servers.attempt))),
        }
    }

    fn table(&self) -> Arc<Table> {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        table.clone()
    }

    pub const fn arrangement(&self) -> &Arrangement {
        &self.servers.url.arrangement
    }

    /// Who is in charge of a partition; `None`: nobody.
    pub async fn primary_of(&self, partition: Partition) -> Result<Option<Address>, StoreError> {
        let mut table = self.table();
        if table.primaries.is_empty() {
            table = self
                .look_around(&table, Failure::Nobody(partition.0), None)
                .await?;
        }
        Ok(table.primary(partition).ok().cloned())
    }

    /// The addresses of all primaries that are connected.
    pub fn connected(&self) -> Vec<Address> {
        self.table().nodes.keys().cloned().collect()
    }

    /// Finds out who is in charge now: once, however many ask. `seen` is what led to the failure.
    async fn look_around(
        &self,
        seen: &Table,
        failure: Failure,
        address: Option<Address>,
    ) -> Result<Arc<Table>, StoreError> {
        let broken = address.filter(|_| failure.breaks_the_connection());
        // As long as two attempts, so that whoever waits here is answered in time.
        let looked = timeout(self.servers.attempt * 2, self.look_around_now(seen, broken)).await;
        match looked {
            Ok(table) => table.map_err(StoreError::from),
            Err(_) => Err(Failure::Slow(self.servers.attempt * 2).into()),
        }
    }

    async fn look_around_now(
        &self,
        seen: &Table,
        broken: Option<Address>,
    ) -> Result<Arc<Table>, Failure> {
        let _alone = self.looking.lock().await;
        let current = self.table();
        if current.generation != seen.generation {
            return Ok(current);
        }
        match self.looked_lately() {
            Some(Err(trouble)) => return Err(Failure::Unreachable(trouble)),
            // Who is in charge was seen a moment ago; but a wire that broke since has to be mended.
            Some(Ok(())) if broken.is_none() => return Ok(current),
            Some(Ok(())) | None => {}
        }
        let found = self.servers.find(&current, broken);
        let table = TokioContext::new(found, self.home.clone()).await;
        let result = table.as_ref().map(drop).map_err(ToString::to_string);
        let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        *looked = Some((now() + BELIEVE_FOR, result));
        drop(looked);
        let table = Arc::new(table?);
        *self.table.write().unwrap_or_else(PoisonError::into_inner) = table.clone();
        Ok(table)
    }

    /// What somebody else found out a moment ago.
    fn looked_lately(&self) -> Option<Result<(), String>> {
        let looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        let (until, result) = looked.as_ref()?;
        (now() < *until).then(|| result.clone())
    }

    /// A connection of its own to some primary, whose pushes go to `sender`.
    pub async fn listen(
        &self,
        turn: usize,
        sender: tokio::sync::mpsc::UnboundedSender<redis::PushInfo>,
    ) -> Result<(Address, MultiplexedConnection), StoreError> {
        let nobody = Failure::Unreachable("no server is known yet".into());
        let mut addresses = self.connected();
        if addresses.is_empty() {
            self.look_around(&self.table(), nobody, None).await?;
            addresses = self.connected();
        }
        addresses.sort_by_key(ToString::to_string);
        let address = addresses
            .get(turn % addresses.len().max(1))
            .ok_or_else(|| Failure::Unreachable("no server is known".into()))?;
        let info = self.servers.url.data_node(address).map_err(Failure::from)?;
        let config = AsyncConnectionConfig::new().set_push_sender(sender);
        let connection = self.servers.connect_with(&info, config).await?;
        Ok((address.clone(), connection))
    }

    /// The partitions that live where this one does, itself among them.
    pub fn neighbours(&self, partition: Partition) -> Vec<Partition> {
        let table = self.table();
        let home = table.primary(partition).ok();
        let lives_there = |other: &Partition| {
            *other == partition || home.is_some() && table.primary(*other).ok() == home
        };
        (0..=u8::MAX).map(Partition).filter(lives_there).collect()
    }

    /// Whether a server is a primary that this node is connected to.
    pub fn is_connected(&self, address: &Address) -> bool {
        self.table().nodes.contains_key(address)
    }

    /// Until `stop`: sees to it that every connection leads to a server that lives and is in charge.
    pub async fn keep(self: Arc<Self>, stop: CancellationToken) {
        while timeout(LOOK_EVERY, stop.cancelled()).await.is_err() {
            let table = self.table();
            if let Some(failure) = self.first_trouble(&table).await {
                let (failure, address) = failure;
                tracing::warn!(%failure, "a Redis server is out of reach: looking around");
                let looked = timeout(
                    self.servers.attempt * 4,
                    self.look_around_now(&table, address),
                );
                if let Ok(Err(failure)) = looked.await {
                    tracing::error!(%failure, "Redis cannot be reached");
                }
            }
        }
    }

    async fn first_trouble(&self, table: &Table) -> Option<(Failure, Option<Address>)> {
        for (address, connection) in &table.nodes {
            let mut connection = connection.clone();
            let ping = redis::cmd("PING");
            let sent = ping.query_async::<Value>(&mut connection);
            let failure = match timeout(self.servers.attempt, sent).await {
                Ok(Ok(_)) => continue,
                Ok(Err(error)) => Failure::Redis(error),
                Err(_) => Failure::Slow(self.servers.attempt),
            };
            return Some((failure, Some(address.clone())));
        }
        if let Arrangement::Sentinel { sentinels, service } = &self.servers.url.arrangement {
            let asked = TokioContext::new(
                self.servers.ask_sentinels(sentinels, service),
                self.home.clone(),
            );
            if let Ok(address) = asked.await
                && !table.nodes.contains_key(&address)
            {
                let moved = Failure::Unreachable(format!("{service} is now at {address}"));
                return Some((moved, None));
            }
        }
        None
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "how long a failed look around is believed: real time, whatever the Clock shows"
)]
fn now() -> Instant {
    Instant::now()
}
