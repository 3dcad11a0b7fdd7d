//! Finds out which server has a partition, in each arrangement of servers.

use super::failure::Failure;
use super::keys::slot_of;
use super::url::{Address, Arrangement, RedisUrl, address};
use crate::domain::Partition;
use futures_util::future::join_all;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, ConnectionInfo, TlsCertificates, Value};
use std::collections::{HashMap, HashSet};
use std::time::Duration;
use tokio::time::timeout;

const PARTITIONS: usize = 256;

/// Who has what, as far as is known. Replaced as a whole.
#[derive(Default)]
pub struct Table {
    pub generation: u64,
    pub nodes: HashMap<Address, MultiplexedConnection>,
    /// The primary of each partition.
    pub primaries: Vec<Option<Address>>,
}

impl Table {
    pub fn primary(&self, partition: Partition) -> Result<&Address, Failure> {
        let primary = self.primaries.get(usize::from(partition.0));
        primary
            .and_then(Option::as_ref)
            .ok_or(Failure::Nobody(partition.0))
    }

    pub fn connection(&self, address: &Address) -> Result<MultiplexedConnection, Failure> {
        let connection = self.nodes.get(address).cloned();
        connection.ok_or_else(|| {
            let gone = std::io::Error::new(std::io::ErrorKind::NotConnected, "not connected");
            Failure::Redis(gone.into())
        })
    }
}

/// The servers as they were named to us, and how they are spoken to.
pub struct Servers {
    pub url: RedisUrl,
    pub root_certificates: Option<Vec<u8>>,
    /// For one attempt at one command.
    pub attempt: Duration,
}

impl Servers {
    /// Who is in charge now. Connections of `old` are kept, but for a `broken` one.
    pub async fn find(&self, old: &Table, broken: Option<Address>) -> Result<Table, Failure> {
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
        let addresses: HashSet<&Address> = primaries.iter().flatten().collect();
        // All at once: several that do not answer must not keep what the others have to say.
        let connections = addresses
            .into_iter()
            .map(|address| self.reach(address, usable(address)));
        let connections = join_all(connections);
        let mut nodes = HashMap::new();
        let mut trouble = None;
        for connection in connections.await {
            match connection {
                Ok((address, connection)) => {
                    nodes.insert(address, connection);
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

    /// A server, over the connection there is or a new one.
    async fn reach(
        &self,
        address: &Address,
        kept: Option<MultiplexedConnection>,
    ) -> Result<(Address, MultiplexedConnection), Failure> {
        let connection = match kept {
            Some(connection) => connection,
            None => self.connect(&self.url.data_node(address)?).await?,
        };
        Ok((address.clone(), connection))
    }

    /// Whom most of the sentinels name that answer: one that was cut off with an old primary still names
    /// that one.
    pub async fn ask_sentinels(
        &self,
        sentinels: &[Address],
        service: &str,
    ) -> Result<Address, Failure> {
        let asked = sentinels
            .iter()
            .map(|sentinel| self.ask_sentinel(sentinel, service));
        let mut trouble = Failure::Unreachable("there are no sentinels".into());
        let mut named: HashMap<Address, usize> = HashMap::new();
        for answer in join_all(asked).await {
            match answer {
                Ok(address) => *named.entry(address).or_default() += 1,
                Err(failure) => trouble = failure,
            }
        }
        let most = named.into_iter().max_by_key(|(_, votes)| *votes);
        most.map(|(address, _)| address).ok_or(trouble)
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

    pub async fn connect_with(
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
            // Whoever sends something waits no longer than it wants, and does not call it a broken wire.
            .set_response_timeout(None);
        Ok(client
            .get_multiplexed_async_connection_with_config(&config)
            .await?)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Value::BulkString(text.into())
    }

    fn entry(slots: [i64; 2], host: Value, port: i64) -> Value {
        let [first, last] = slots.map(Value::Int);
        let id = text("id");
        let primary = Value::Array(vec![host, Value::Int(port), id]);
        Value::Array(vec![first, last, primary])
    }

    #[test]
    fn an_answer_to_cluster_slots_tells_who_has_what() {
        let asked = Address {
            host: "seed".into(),
            port: 1,
        };
        let answer = Value::Array(vec![
            entry([0, 8_191], text("a"), 7_000),
            entry([8_192, 13_000], text("::1"), 7_001),
            // A server that does not know its own name is where it was asked.
            entry([13_001, 14_000], Value::Nil, 7_002),
        ]);
        let primaries = primaries(&answer, &asked);
        assert_eq!(primaries.len(), PARTITIONS);
        for (partition, primary) in (0..=u8::MAX).zip(primaries) {
            let expected = match slot_of(Partition(partition)) {
                0..=8_191 => Some(("a", 7_000)),
                8_192..=13_000 => Some(("::1", 7_001)),
                13_001..=14_000 => Some(("seed", 7_002)),
                _ => None,
            };
            let found = primary
                .as_ref()
                .map(|found| (found.host.as_str(), found.port));
            assert_eq!(found, expected, "{partition}");
        }
    }

    #[test]
    fn an_answer_that_is_none_gives_nobody_anything() {
        let asked = Address {
            host: "seed".into(),
            port: 1,
        };
        let strange = Value::Array(vec![Value::Nil, Value::Array(vec![Value::Int(1)])]);
        for answer in [Value::Nil, text("what?"), strange] {
            assert!(primaries(&answer, &asked).iter().all(Option::is_none));
        }
    }
}
