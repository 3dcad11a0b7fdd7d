//! Where pending requests, their jobs and what was used live: in the database, or in Redis.

use crate::config::Config;
use crate::entropy::Entropy;
use crate::store::redis::{Redis, RedisUrl, Settings};
use crate::store::sql::jobs::PENDING_QUEUE;
use crate::store::sql::{Db, SqlDeliveryLog, SqlJobQueue, SqlPendingRequests, SqlReplayCache};
use crate::store::{DeliveryLog, JobQueue, PendingRequests, ReplayCache};
use anyhow::Context as _;
use std::sync::Arc;

pub struct FastPath {
    pub pending: Arc<dyn PendingRequests>,
    pub jobs: Arc<dyn JobQueue>,
    pub deliveries: Arc<dyn DeliveryLog>,
    pub replays: Arc<dyn ReplayCache>,
    /// `None`: all is in the database.
    pub redis: Option<Redis>,
}

impl FastPath {
    pub fn open(config: &Config, db: &Db, entropy: &dyn Entropy) -> anyhow::Result<Self> {
        if config.redis.url.is_empty() {
            Ok(Self::in_database(config, db))
        } else {
            Self::in_redis(config, entropy)
        }
    }

    fn in_database(config: &Config, db: &Db) -> Self {
        Self {
            pending: Arc::new(SqlPendingRequests::new(db.clone(), config.ciba.interval)),
            jobs: Arc::new(SqlJobQueue::new(db.clone(), PENDING_QUEUE)),
            deliveries: Arc::new(SqlDeliveryLog::new(db.clone())),
            replays: Arc::new(SqlReplayCache::new(db.clone())),
            redis: None,
        }
    }

    fn in_redis(config: &Config, entropy: &dyn Entropy) -> anyhow::Result<Self> {
        let root_certificates = match config.redis.root_file.as_str() {
            "" => None,
            file => Some(std::fs::read(file).with_context(|| {
                format!("redis.root_file: cannot read certificates from {file}")
            })?),
        };
        // The Redis library takes the process's provider. Somebody may have set the same one before.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let redis = Redis::new(Settings {
            url: RedisUrl::parse(&config.redis.url).context("redis.url")?,
            prefix: config.redis.prefix.clone(),
            timeout: config.redis.timeout,
            root_certificates,
        });
        Ok(Self {
            pending: Arc::new(redis.pending(config.ciba.interval)),
            jobs: Arc::new(redis.jobs()),
            deliveries: Arc::new(redis.deliveries()),
            replays: Arc::new(redis.replays(entropy.bytes())),
            redis: Some(redis),
        })
    }
}
