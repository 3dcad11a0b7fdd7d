//! A part of a running Redis: the keys below a prefix that is made for one run and gone after it.

use crate::database::is_loopback;
use crate::proc;
use crate::stopwatch::pause;
use anyhow::Context as _;
use assent::app::World;
use assent::crypto::base64url;
use redis::Cmd;
use redis::aio::MultiplexedConnection;
use std::time::Duration;
use url::Url;

pub struct RedisServer {
    /// For `redis.url`.
    pub url: String,
    /// For `redis.prefix`.
    pub prefix: String,
    /// The process that does the work.
    pub pid: u32,
    connection: MultiplexedConnection,
}

impl RedisServer {
    /// A fresh prefix on a running server. Without `pid`, the server says which process it is.
    pub async fn connect(url: &Url, pid: Option<u32>) -> anyhow::Result<Self> {
        let client = redis::Client::open(url.as_str()).context("--redis is not a server's URL")?;
        let connection = client.get_multiplexed_async_connection().await;
        let connection = connection
            .context("cannot connect to --redis; start one with scripts/redis start DIR")?;
        // As long as the default, so that the names take as much room.
        let random = base64url(&World::real().entropy.bytes::<3>());
        let mut server = Self {
            url: url.to_string(),
            prefix: format!("l-{random}"),
            pid: pid.unwrap_or_default(),
            connection,
        };
        if pid.is_none() {
            server.pid = u32::try_from(server.info("server", "process_id").await?)?;
            // In a container it counts its processes differently: then the name is another's.
            let name = proc::name_of(server.pid).unwrap_or_default();
            anyhow::ensure!(
                name.starts_with("redis") || name.starts_with("valkey"),
                "the process of Redis is not to be seen here; give --redis-pid"
            );
        }
        Ok(server)
    }

    pub async fn ask<T: redis::FromRedisValue>(&self, command: &Cmd) -> anyhow::Result<T> {
        Ok(command.query_async(&mut self.connection.clone()).await?)
    }

    /// Memory that the server has given out for data and all else (`used_memory`), in bytes.
    pub async fn used_memory(&self) -> anyhow::Result<u64> {
        self.info("memory", "used_memory").await
    }

    /// What one key takes with all that is in it, in bytes.
    pub async fn memory_of(&self, key: &str) -> anyhow::Result<u64> {
        let mut command = redis::cmd("MEMORY");
        command.arg("USAGE").arg(key).arg("SAMPLES").arg(0);
        self.ask(&command).await
    }

    /// The keys of this run that match a pattern.
    pub async fn keys(&self, pattern: &str) -> anyhow::Result<Vec<String>> {
        let mut keys = Vec::new();
        self.scan(pattern, async |found: Vec<String>| {
            keys.extend(found);
            Ok(())
        })
        .await?;
        Ok(keys)
    }

    /// Deletes the keys of this run.
    pub async fn remove_keys(&self) -> anyhow::Result<()> {
        self.scan("*", async |found: Vec<String>| {
            if found.is_empty() {
                return Ok(());
            }
            self.ask(redis::cmd("UNLINK").arg(found)).await
        })
        .await
    }

    /// Waits until nothing goes on beside the commands: no rewrite of the append-only file.
    pub async fn settle(&self) -> anyhow::Result<()> {
        for _ in 0..300 {
            let rewrites = self.info("persistence", "aof_rewrite_in_progress").await?;
            if rewrites + self.info("persistence", "rdb_bgsave_in_progress").await? == 0 {
                return Ok(());
            }
            pause(Duration::from_millis(200)).await;
        }
        anyhow::bail!("Redis does not come to the end of writing its file")
    }

    async fn scan(
        &self,
        pattern: &str,
        mut take: impl AsyncFnMut(Vec<String>) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let mut cursor = 0_u64;
        loop {
            let mut command = redis::cmd("SCAN");
            let pattern = format!("{}:{pattern}", self.prefix);
            command.arg(cursor).arg("MATCH").arg(pattern);
            let (next, found) = self.ask(command.arg("COUNT").arg(1_000)).await?;
            take(found).await?;
            if next == 0 {
                return Ok(());
            }
            cursor = next;
        }
    }

    async fn info(&self, section: &str, name: &str) -> anyhow::Result<u64> {
        let text: String = self.ask(redis::cmd("INFO").arg(section)).await?;
        let value = text.lines().find_map(|line| {
            let (found, value) = line.trim_end().split_once(':')?;
            (found == name).then(|| value.parse().ok())?
        });
        value.with_context(|| format!("Redis does not tell its {name}"))
    }
}

/// Whether a URL names one server on this very machine.
pub fn is_one_here(url: &Url) -> bool {
    url.scheme() == "redis" && is_loopback(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_server_on_this_machine_is_put_under_load() {
        for (url, here) in [
            ("redis://127.0.0.1:6379/0", true),
            ("redis://localhost", true),
            ("rediss://127.0.0.1", false),
            ("redis+cluster://127.0.0.1:6379", false),
            ("redis://192.0.2.1", false),
        ] {
            assert_eq!(is_one_here(&Url::parse(url).unwrap()), here, "{url}");
        }
    }
}
