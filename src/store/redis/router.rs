//! Which server has a partition, and the connection to it.
//!
//! One multiplexed connection for each primary. A command that meets a broken connection or a server that
//! is not in charge any more makes the router look around, once for everybody, and is sent a second
//! time; then it fails. Scripts can take being sent twice. The library's own clients for clusters and
//! sentinels are not used: see docs/adr/0006.

use super::keys::slot_of;
use super::script::Call;
use super::url::{Address, Arrangement, RedisUrl, address};
use crate::domain::Partition;
use crate::store::StoreError;
use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionInfo, ErrorKind, FromRedisValue, Pipeline,
    RedisError, ServerErrorKind, TlsCertificates, Value,
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
/// How long a look around in vain is believed: one for all who meet the same trouble.
const BELIEVE_FOR: Duration = Duration::from_millis(100);
const PARTITIONS: usize = 256;

/// The way to the servers. Opening it talks to nobody.
pub struct Router {
    url: RedisUrl,
    root_certificates: Option<Vec<u8>>,
    /// For one attempt at one command.
    attempt: Duration,
    table: RwLock<Arc<Table>>,
    /// Held by whoever looks around.
    looking: tokio::sync::Mutex<()>,
    /// Why the last look around that failed did, and until when that is believed.
    in_vain: Mutex<Option<(Instant, String)>>,
    /// The runtime that connections live on: those of an HTTP worker's would end with it.
    home: Handle,
}

/// Who has what, as far as is known. Replaced as a whole.
#[derive(Default)]
struct Table {
    generation: u64,
    nodes: HashMap<Address, MultiplexedConnection>,
    /// The primary of each partition.
    primaries: Vec<Option<Address>>,
}

/// Why a command has no answer.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Redis(#[from] RedisError),
    #[error("no answer from Redis within {0:?}")]
    Slow(Duration),
    #[error("no Redis server is in charge of partition {0}")]
    Nobody(u8),
    #[error("{0}")]
    Unreachable(String),
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        Self::Unavailable(Box::new(failure))
    }
}

/// Whether the server does not allow this user the command.
pub fn is_forbidden(error: &StoreError) -> bool {
    let StoreError::Unavailable(cause) = error else {
        return false;
    };
    match cause.downcast_ref() {
        Some(Failure::Redis(error)) => error.kind() == ErrorKind::Server(ServerErrorKind::NoPerm),
        _ => false,
    }
}

impl Failure {
    /// Whether another server, or the same one on another connection, may do better.
    fn is_worth_another_look(&self) -> bool {
        match self {
            Self::Nobody(_) => true,
            Self::Slow(_) | Self::Unreachable(_) => false,
            Self::Redis(error) => match error.kind() {
                ErrorKind::Server(kind) => matches!(
                    kind,
                    ServerErrorKind::Moved
                        | ServerErrorKind::Ask
                        | ServerErrorKind::TryAgain
                        | ServerErrorKind::ClusterDown
                        | ServerErrorKind::MasterDown
                        | ServerErrorKind::ReadOnly
                        | ServerErrorKind::BusyLoading
                ),
                _ => error.is_io_error() || error.is_connection_dropped(),
            },
        }
    }

    /// Whether the connection it came over is of no use any more.
    fn breaks_the_connection(&self) -> bool {
        match self {
            Self::Redis(error) => {
                error.is_io_error()
                    || error.is_connection_dropped()
                    || error.kind() == ErrorKind::Server(ServerErrorKind::ReadOnly)
            }
            Self::Slow(_) | Self::Nobody(_) | Self::Unreachable(_) => false,
        }
    }
}

/// One attempt's result, and over whose connection it came.
type Attempt<T> = Result<T, (Failure, Option<Address>)>;

impl Router {
    pub fn new(url: RedisUrl, root_certificates: Option<Vec<u8>>, attempt: Duration) -> Self {
        Self {
            url,
            root_certificates,
            attempt,
            table: RwLock::default(),
            looking: tokio::sync::Mutex::default(),
            in_vain: Mutex::default(),
            home: Handle::current(),
        }
    }

    /// Runs a script where its partition lives.
    pub async fn run<T: FromRedisValue>(
        &self,
        partition: Partition,
        call: impl Fn(bool) -> Call,
    ) -> Result<T, StoreError> {
        let table = self.table();
        let first = match self.run_on(&table, partition, &call(false)).await {
            Err((failure, address)) if failure.is_worth_another_look() => {
                let table = self.look_around(&table, failure, address).await?;
                self.run_on(&table, partition, &call(true)).await
            }
            done => done,
        };
        first.map_err(|(failure, _)| failure.into())
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
        let first = match self.attempt(&table, partition, command).await {
            Err((failure, address)) if failure.is_worth_another_look() => {
                let table = self.look_around(&table, failure, address).await?;
                self.attempt(&table, partition, command).await
            }
            done => done,
        };
        first.map_err(|(failure, _)| failure.into())
    }

    /// Sends reads, one pipeline for each server. Answers come in the order of the commands.
    pub async fn ask_all<T: FromRedisValue>(
        &self,
        commands: &[(Partition, Cmd)],
    ) -> Result<Vec<T>, StoreError> {
        let table = self.table();
        let answers = match self.pipelines(&table, commands).await {
            Err((failure, address)) if failure.is_worth_another_look() => {
                let table = self.look_around(&table, failure, address).await?;
                self.pipelines(&table, commands).await
            }
            done => done,
        };
        answers
            .map_err(|(failure, _)| StoreError::from(failure))?
            .into_iter()
            .map(|value| redis::from_redis_value(value).map_err(RedisError::from))
            .map(|value| value.map_err(|error| Failure::Redis(error).into()))
            .collect()
    }

    async fn pipelines(&self, table: &Table, commands: &[(Partition, Cmd)]) -> Attempt<Vec<Value>> {
        let mut by_node: HashMap<&Address, (Pipeline, Vec<usize>)> = HashMap::new();
        for (place, (partition, command)) in commands.iter().enumerate() {
            let address = table
                .primary(*partition)
                .map_err(|failure| (failure, None))?;
            let (pipeline, places) = by_node.entry(address).or_default();
            pipeline.add_command(command.clone());
            places.push(place);
        }
        let mut answers = vec![Value::Nil; commands.len()];
        for (address, (pipeline, places)) in by_node {
            let failed = |failure| (failure, Some(address.clone()));
            let mut connection = table.connection(address).map_err(failed)?;
            let sent = pipeline.query_async::<Vec<Value>>(&mut connection);
            let values = timeout(self.attempt, sent)
                .await
                .map_err(|_| failed(Failure::Slow(self.attempt)))?
                .map_err(|error| failed(error.into()))?;
            for (place, value) in places.into_iter().zip(values) {
                answers[place] = value;
            }
        }
        Ok(answers)
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
        match timeout(self.attempt, command.query_async(&mut connection)).await {
            Ok(answer) => answer.map_err(|error| failed(error.into())),
            Err(_) => Err(failed(Failure::Slow(self.attempt))),
        }
    }

    fn table(&self) -> Arc<Table> {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        table.clone()
    }

    pub const fn arrangement(&self) -> &Arrangement {
        &self.url.arrangement
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
        let looked = timeout(self.attempt * 2, self.look_around_now(seen, broken)).await;
        match looked {
            Ok(table) => table.map_err(StoreError::from),
            Err(_) => Err(Failure::Slow(self.attempt * 2).into()),
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
        if let Some(trouble) = self.lately_in_vain() {
            return Err(Failure::Unreachable(trouble));
        }
        let table = TokioContext::new(self.discover(&current, broken), self.home.clone()).await;
        let table = Arc::new(table.inspect_err(|failure| {
            let mut in_vain = self.in_vain.lock().unwrap_or_else(PoisonError::into_inner);
            *in_vain = Some((now() + BELIEVE_FOR, failure.to_string()));
        })?);
        *self.table.write().unwrap_or_else(PoisonError::into_inner) = table.clone();
        Ok(table)
    }

    /// Why somebody else looked in vain a moment ago.
    fn lately_in_vain(&self) -> Option<String> {
        let in_vain = self.in_vain.lock().unwrap_or_else(PoisonError::into_inner);
        let (until, trouble) = in_vain.as_ref()?;
        (now() < *until).then(|| trouble.clone())
    }

    async fn discover(&self, old: &Table, broken: Option<Address>) -> Result<Table, Failure> {
        let usable = |address: &Address| {
            let kept = old.nodes.get(address);
            kept.filter(|_| broken.as_ref() != Some(address)).cloned()
        };
        let primaries = match &self.url.arrangement {
            Arrangement::Single(address) => vec![Some(address.clone()); PARTITIONS],
            Arrangement::Sentinel { sentinels, service } => {
                let address = self.ask_sentinels(sentinels, service).await?;
                vec![Some(address); PARTITIONS]
            }
            Arrangement::Cluster { seeds } => {
                let known = old
                    .nodes
                    .keys()
                    .filter(|address| broken.as_ref() != Some(*address));
                let asked: Vec<Address> = known.chain(seeds).cloned().collect();
                self.ask_cluster(&asked, usable).await?
            }
        };
        let mut nodes = HashMap::new();
        let mut trouble = None;
        for address in primaries.iter().flatten() {
            if nodes.contains_key(address) {
                continue;
            }
            let connection = match usable(address) {
                Some(connection) => Ok(connection),
                None => self.connect(&self.url.data_node(address)?).await,
            };
            match connection {
                Ok(connection) => {
                    nodes.insert(address.clone(), connection);
                }
                // The other servers go on: only its own partitions are out of reach.
                Err(failure) => trouble = Some(failure),
            }
        }
        match trouble {
            Some(failure) if nodes.is_empty() => Err(failure),
            _ => Ok(Table {
                generation: old.generation + 1,
                nodes,
                primaries,
            }),
        }
    }

    async fn ask_sentinels(
        &self,
        sentinels: &[Address],
        service: &str,
    ) -> Result<Address, Failure> {
        let mut trouble = Failure::Unreachable("there are no sentinels".into());
        for sentinel in sentinels {
            match self.ask_sentinel(sentinel, service).await {
                Ok(address) => return Ok(address),
                Err(failure) => trouble = failure,
            }
        }
        Err(trouble)
    }

    async fn ask_sentinel(&self, sentinel: &Address, service: &str) -> Result<Address, Failure> {
        let mut connection = self.connect(&self.url.sentinel(sentinel)?).await?;
        let mut command = redis::cmd("SENTINEL");
        command.arg("get-master-addr-by-name").arg(service);
        let asked = timeout(self.attempt, command.query_async(&mut connection)).await;
        let answer: Option<(String, u16)> = asked.map_err(|_| Failure::Slow(self.attempt))??;
        let unknown = || format!("the sentinel at {sentinel} does not know a service {service}");
        let (host, port) = answer.ok_or_else(|| Failure::Unreachable(unknown()))?;
        Ok(Address { host, port })
    }

    async fn ask_cluster(
        &self,
        asked: &[Address],
        usable: impl Fn(&Address) -> Option<MultiplexedConnection>,
    ) -> Result<Vec<Option<Address>>, Failure> {
        let mut trouble = Failure::Unreachable("no server of the cluster is known".into());
        for address in asked {
            let connection = match usable(address) {
                Some(connection) => Ok(connection),
                None => self.connect(&self.url.data_node(address)?).await,
            };
            let answer = match connection {
                Ok(mut connection) => {
                    let mut command = redis::cmd("CLUSTER");
                    command.arg("SLOTS");
                    let sent = command.query_async::<Value>(&mut connection);
                    match timeout(self.attempt, sent).await {
                        Ok(answer) => answer.map_err(Failure::from),
                        Err(_) => Err(Failure::Slow(self.attempt)),
                    }
                }
                Err(failure) => Err(failure),
            };
            match answer {
                Ok(answer) => return Ok(primaries(&answer, address)),
                Err(failure) => trouble = failure,
            }
        }
        Err(trouble)
    }

    async fn connect(&self, info: &ConnectionInfo) -> Result<MultiplexedConnection, Failure> {
        self.connect_with(info, AsyncConnectionConfig::new()).await
    }

    async fn connect_with(
        &self,
        info: &ConnectionInfo,
        config: AsyncConnectionConfig,
    ) -> Result<MultiplexedConnection, Failure> {
        let client = match &self.root_certificates {
            Some(root) if self.url.tls() => {
                let certificates = TlsCertificates {
                    client_tls: None,
                    root_cert: Some(root.clone()),
                };
                Client::build_with_tls(info.clone(), certificates)?
            }
            _ => Client::open(info.clone())?,
        };
        let config = config
            .set_connection_timeout(Some(self.attempt))
            .set_response_timeout(Some(self.attempt));
        Ok(client
            .get_multiplexed_async_connection_with_config(&config)
            .await?)
    }

    /// A connection of its own to some primary, whose pushes go to `sender`.
    pub async fn listen(
        &self,
        turn: usize,
        sender: tokio::sync::mpsc::UnboundedSender<redis::PushInfo>,
    ) -> Result<MultiplexedConnection, StoreError> {
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
        let info = self.url.data_node(address).map_err(Failure::from)?;
        let config = AsyncConnectionConfig::new().set_push_sender(sender);
        Ok(self.connect_with(&info, config).await?)
    }

    /// Until `stop`: sees to it that every connection leads to a server that lives and is in charge.
    pub async fn keep(self: Arc<Self>, stop: CancellationToken) {
        while timeout(LOOK_EVERY, stop.cancelled()).await.is_err() {
            let table = self.table();
            if let Some(failure) = self.first_trouble(&table).await {
                let (failure, address) = failure;
                tracing::warn!(%failure, "a Redis server is out of reach: looking around");
                let looked = timeout(self.attempt * 4, self.look_around_now(&table, address));
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
            let failure = match timeout(self.attempt, sent).await {
                Ok(Ok(_)) => continue,
                Ok(Err(error)) => Failure::Redis(error),
                Err(_) => Failure::Slow(self.attempt),
            };
            return Some((failure, Some(address.clone())));
        }
        if let Arrangement::Sentinel { sentinels, service } = &self.url.arrangement {
            let asked =
                TokioContext::new(self.ask_sentinels(sentinels, service), self.home.clone());
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

impl Table {
    fn primary(&self, partition: Partition) -> Result<&Address, Failure> {
        let primary = self.primaries.get(usize::from(partition.0));
        primary
            .and_then(Option::as_ref)
            .ok_or(Failure::Nobody(partition.0))
    }

    fn connection(&self, address: &Address) -> Result<MultiplexedConnection, Failure> {
        let connection = self.nodes.get(address).cloned();
        connection.ok_or_else(|| {
            let gone = std::io::Error::new(std::io::ErrorKind::NotConnected, "not connected");
            Failure::Redis(gone.into())
        })
    }
}

/// The primary of each partition in an answer to CLUSTER SLOTS; `asked` stands for a server that does not
/// know its own name.
fn primaries(answer: &Value, asked: &Address) -> Vec<Option<Address>> {
    let mut ranges = Vec::new();
    if let Value::Array(entries) = answer {
        for entry in entries {
            let Value::Array(entry) = entry else { continue };
            let [
                Value::Int(first),
                Value::Int(last),
                Value::Array(primary),
                ..,
            ] = &entry[..]
            else {
                continue;
            };
            let [host, Value::Int(port), ..] = &primary[..] else {
                continue;
            };
            let host = match host {
                Value::BulkString(host) => String::from_utf8_lossy(host).into_owned(),
                Value::SimpleString(host) => host.clone(),
                _ => String::new(),
            };
            let named = address(&format!("{}:{port}", bracketed(&host)));
            let unnamed = u16::try_from(*port).map(|port| Address {
                host: asked.host.clone(),
                port,
            });
            if let Some(address) = named.or_else(|| unnamed.ok()) {
                ranges.push((*first..=*last, address));
            }
        }
    }
    (0..=u8::MAX)
        .map(|partition| {
            let slot = i64::from(slot_of(Partition(partition)));
            let range = ranges.iter().find(|(slots, _)| slots.contains(&slot));
            range.map(|(_, address)| address.clone())
        })
        .collect()
}

fn bracketed(host: &str) -> String {
    if host.contains(':') {
        format!("[{host}]")
    } else {
        host.to_owned()
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "how long a failed look around is believed: real time, whatever the Clock shows"
)]
fn now() -> Instant {
    Instant::now()
}
