//! `redis.url`: where the servers are, and how they are arranged.

use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _, ProtocolVersion};
use redis::{RedisConnectionInfo, RedisResult};
use url::Url;

/// How the servers are arranged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arrangement {
    /// One server, or an address that always leads to the primary.
    Single(Address),
    /// The primary of `service` moves; the sentinels know where it is.
    Sentinel {
        sentinels: Vec<Address>,
        service: String,
    },
    /// Redis Cluster; the seeds are asked for the others.
    Cluster { seeds: Vec<Address> },
}

/// A server's host and port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Address {
    pub host: String,
    pub port: u16,
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// A `redis.url` that has been read.
#[derive(Clone)]
pub struct RedisUrl {
    pub arrangement: Arrangement,
    tls: bool,
    username: Option<String>,
    password: Option<String>,
    database: i64,
}

/// What is wrong with a `redis.url`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidUrl {
    #[error(
        "must begin with redis://, redis+sentinel:// or redis+cluster:// (with rediss for TLS)"
    )]
    Scheme,
    #[error("must name at least one server as host:port")]
    Servers,
    #[error("must end with the name of the service that the sentinels watch")]
    Service,
    #[error("must end with the number of a database, or nothing; a cluster has none")]
    Database,
}

impl RedisUrl {
    /// Reads `redis://[user:password@]host[:port][/database]`, `redis+sentinel://h:p,h:p/service` or
    /// `redis+cluster://h:p,h:p`.
    ///
    /// # Errors
    /// [`InvalidUrl`] says what is missing.
    pub fn parse(text: &str) -> Result<Self, InvalidUrl> {
        let (scheme, rest) = text.split_once("://").ok_or(InvalidUrl::Scheme)?;
        let (family, kind) = scheme.split_once('+').unwrap_or((scheme, "single"));
        let tls = match family {
            "redis" => false,
            "rediss" => true,
            _ => return Err(InvalidUrl::Scheme),
        };
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (credentials, servers) = authority
            .rsplit_once('@')
            .map_or((None, authority), |(credentials, servers)| {
                (Some(credentials), servers)
            });
        let servers = servers
            .split(',')
            .map(address)
            .collect::<Option<Vec<_>>>()
            .ok_or(InvalidUrl::Servers)?;
        let (username, password) = match credentials {
            None => (None, None),
            Some(text) => {
                let (user, password) = text.split_once(':').unwrap_or((text, ""));
                (decoded(user), decoded(password))
            }
        };
        let mut database = 0;
        let arrangement = match kind {
            "single" => {
                let [server] =
                    <[Address; 1]>::try_from(servers).map_err(|_| InvalidUrl::Servers)?;
                if !path.is_empty() {
                    database = path.parse().map_err(|_| InvalidUrl::Database)?;
                }
                Arrangement::Single(server)
            }
            "sentinel" if path.is_empty() || path.contains('/') => return Err(InvalidUrl::Service),
            "sentinel" => Arrangement::Sentinel {
                sentinels: servers,
                service: path.to_owned(),
            },
            "cluster" if !path.is_empty() => return Err(InvalidUrl::Database),
            "cluster" => Arrangement::Cluster { seeds: servers },
            _ => return Err(InvalidUrl::Scheme),
        };
        Ok(Self {
            arrangement,
            tls,
            username,
            password,
            database,
        })
    }

    /// How to connect to a server that holds data.
    pub fn data_node(&self, address: &Address) -> RedisResult<ConnectionInfo> {
        let mut login = RedisConnectionInfo::default()
            .set_protocol(ProtocolVersion::RESP3)
            .set_db(self.database);
        if let Some(username) = &self.username {
            login = login.set_username(username);
        }
        if let Some(password) = &self.password {
            login = login.set_password(password);
        }
        Ok(self.reach(address)?.set_redis_settings(login))
    }

    /// How to connect to a sentinel, which asks for no password.
    pub fn sentinel(&self, address: &Address) -> RedisResult<ConnectionInfo> {
        let login = RedisConnectionInfo::default().set_protocol(ProtocolVersion::RESP3);
        Ok(self.reach(address)?.set_redis_settings(login))
    }

    pub const fn tls(&self) -> bool {
        self.tls
    }

    fn reach(&self, Address { host, port }: &Address) -> RedisResult<ConnectionInfo> {
        let (host, port) = (host.clone(), *port);
        let address = if self.tls {
            ConnectionAddr::TcpTls {
                host,
                port,
                insecure: false,
                tls_params: None,
            }
        } else {
            ConnectionAddr::Tcp(host, port)
        };
        address.into_connection_info()
    }
}

/// `host`, `host:port` or `[address]:port`.
pub fn address(text: &str) -> Option<Address> {
    let url = Url::parse(&format!("redis://{text}")).ok()?;
    let plain = url.path().is_empty() && url.query().is_none() && url.fragment().is_none();
    let host = url.host_str().filter(|host| !host.is_empty() && plain)?;
    Some(Address {
        host: host.trim_matches(['[', ']']).to_owned(),
        port: url.port().unwrap_or(6379),
    })
}

fn decoded(text: &str) -> Option<String> {
    let text = percent_encoding::percent_decode_str(text).decode_utf8_lossy();
    (!text.is_empty()).then(|| text.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(host: &str, port: u16) -> Address {
        Address {
            host: host.into(),
            port,
        }
    }

    #[test]
    fn every_arrangement_can_be_written_down() {
        let url = RedisUrl::parse("redis://me:p%40ss@cache.example/3").unwrap();
        assert_eq!(
            url.arrangement,
            Arrangement::Single(at("cache.example", 6379))
        );
        assert_eq!(
            (url.username.as_deref(), url.password.as_deref()),
            (Some("me"), Some("p@ss"))
        );
        assert_eq!((url.database, url.tls), (3, false));

        let url = RedisUrl::parse("rediss+sentinel://a:1,b:2,[::1]:3/bank").unwrap();
        let sentinels = vec![at("a", 1), at("b", 2), at("::1", 3)];
        let service = "bank".to_owned();
        assert_eq!(
            url.arrangement,
            Arrangement::Sentinel { sentinels, service }
        );
        assert!(url.tls);

        let url = RedisUrl::parse("redis+cluster://:secret@a:1,b:2").unwrap();
        let seeds = vec![at("a", 1), at("b", 2)];
        assert_eq!(url.arrangement, Arrangement::Cluster { seeds });
        assert_eq!(
            (url.username, url.password.as_deref()),
            (None, Some("secret"))
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, problem) in [
            ("", InvalidUrl::Scheme),
            ("localhost:6379", InvalidUrl::Scheme),
            ("http://a:1", InvalidUrl::Scheme),
            ("redis+ring://a:1", InvalidUrl::Scheme),
            ("redis://", InvalidUrl::Servers),
            ("redis://a:x", InvalidUrl::Servers),
            ("redis://a:1,b:2", InvalidUrl::Servers),
            ("redis://a:1/x", InvalidUrl::Database),
            ("redis://a:1?db=1", InvalidUrl::Servers),
            ("redis+cluster://a:1/0", InvalidUrl::Database),
            ("redis+cluster://a:1,", InvalidUrl::Servers),
            ("redis+sentinel://a:1", InvalidUrl::Service),
        ] {
            assert_eq!(RedisUrl::parse(text).map(drop), Err(problem), "{text}");
        }
    }
}
