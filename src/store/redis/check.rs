//! Whether the servers are fit for what they are to keep.

use super::Redis;
use super::failure::{is_forbidden, is_no_cluster};
use super::router::Router;
use super::url::Arrangement;
use crate::domain::{Partition, Timestamp};
use crate::store::{MAX_CLOCK_DIFFERENCE, StoreError};
use redis::Value;
use std::collections::HashMap;
use std::time::Duration;

/// What an operator must change about Redis.
#[derive(Debug, thiserror::Error)]
pub enum Unfit {
    #[error(
        "redis.url: no server can be reached; check the address, the password, and that it runs"
    )]
    Unreachable(#[source] StoreError),
    #[error("redis.url: the server is version {0}; assent needs 7.0 or later")]
    Version(String),
    #[error(
        "redis.url: the server may throw keys away when it is full (maxmemory-policy {0}); run \
         `CONFIG SET maxmemory-policy noeviction` on every server, and write it into their settings"
    )]
    Eviction(String),
    #[error(
        "redis.url: the server does not say its maxmemory-policy; allow this user INFO: \
         ACL SETUSER <user> +info"
    )]
    NoInfo,
    #[error("redis.url: the server is part of a cluster; write redis+cluster://host:port,…")]
    IsCluster,
    #[error("redis.url: the server is not part of a cluster; write redis://host:port")]
    IsNoCluster,
    #[error("redis.url: the server's clock and ours differ by {0:?}; set both by NTP")]
    Clock(Duration),
}

impl From<StoreError> for Unfit {
    fn from(error: StoreError) -> Self {
        if is_no_cluster(&error) {
            Self::IsNoCluster
        } else {
            Self::Unreachable(error)
        }
    }
}

impl Redis {
    /// Whether every primary is new enough, keeps what it is given, and shows the right time.
    ///
    /// # Errors
    /// [`Unfit`] says what to change.
    pub async fn check(&self, now: impl Fn() -> Timestamp) -> Result<(), Unfit> {
        let mut answered = false;
        let mut trouble = None;
        for partition in self.one_of_each_primary().await? {
            match check_primary(&self.router, partition, &now).await {
                Ok(()) => answered = true,
                // One that is away is no reason to keep a node from serving the others' people.
                Err(Unfit::Unreachable(error)) => {
                    tracing::warn!(%error, partition = partition.0, "a Redis server cannot be reached");
                    trouble = Some(error);
                }
                Err(unfit) => return Err(unfit),
            }
        }
        match trouble {
            Some(error) if !answered => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// What the clock of a primary shows that answers.
    ///
    /// # Errors
    /// None of them does.
    pub async fn now(&self) -> Result<Timestamp, StoreError> {
        let mut trouble =
            StoreError::Unavailable("no Redis server is in charge of anything".into());
        for partition in self.one_of_each_primary().await? {
            match time(&self.router, partition).await {
                Ok(now) => return Ok(now),
                Err(error) => trouble = error,
            }
        }
        Err(trouble)
    }

    /// A partition of each primary that is known.
    async fn one_of_each_primary(&self) -> Result<Vec<Partition>, StoreError> {
        let mut seen = Vec::new();
        let mut partitions = Vec::new();
        for partition in (0..=u8::MAX).map(Partition) {
            if let Some(address) = self.router.primary_of(partition).await?
                && !seen.contains(&address)
            {
                seen.push(address);
                partitions.push(partition);
            }
        }
        if partitions.is_empty() {
            let nobody = "no Redis server is in charge of anything";
            return Err(StoreError::Unavailable(nobody.into()));
        }
        Ok(partitions)
    }
}

async fn check_primary(
    router: &Router,
    partition: Partition,
    now: &impl Fn() -> Timestamp,
) -> Result<(), Unfit> {
    let info = redis::cmd("INFO");
    let info: String = router.ask(partition, &info).await.map_err(|error| {
        if is_forbidden(&error) {
            Unfit::NoInfo
        } else {
            error.into()
        }
    })?;
    let info: HashMap<&str, &str> = info
        .lines()
        .filter_map(|line| line.split_once(':'))
        .collect();
    let says = |name: &str| info.get(name).copied().unwrap_or_default();
    // Valkey names the Redis version that it speaks like.
    let version = says("redis_version");
    let major = version
        .split('.')
        .next()
        .and_then(|major| major.parse().ok());
    if major.is_none_or(|major: u32| major < 7) {
        return Err(Unfit::Version(version.to_owned()));
    }
    if says("maxmemory_policy") != "noeviction" {
        return Err(Unfit::Eviction(says("maxmemory_policy").to_owned()));
    }
    let is_cluster = says("cluster_enabled") == "1";
    match router.arrangement() {
        Arrangement::Single(_) | Arrangement::Sentinel { .. } if is_cluster => {
            return Err(Unfit::IsCluster);
        }
        _ => {}
    }
    let theirs = time(router, partition).await?;
    let ours = now();
    let apart = ours.since(theirs).max(theirs.since(ours));
    if apart > MAX_CLOCK_DIFFERENCE {
        return Err(Unfit::Clock(apart));
    }
    Ok(())
}

async fn time(router: &Router, partition: Partition) -> Result<Timestamp, StoreError> {
    let answer: Value = router.ask(partition, &redis::cmd("TIME")).await?;
    let (seconds, micros): (i64, i64) = redis::from_redis_value(answer)
        .map_err(|error| StoreError::Unavailable(Box::new(error)))?;
    Ok(Timestamp::from_millis(seconds * 1000 + micros / 1000))
}
