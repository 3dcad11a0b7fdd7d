//! The Redis servers that `scripts/test` has started for all tests; each test has key names of its own.

use assent::config::Overrides;
use assent::entropy::{Entropy, SystemEntropy};
use assent::store::redis::{Redis, RedisUrl, Settings};
use std::time::Duration;

/// One arrangement of servers, and a prefix that no other test has.
#[derive(Clone)]
pub struct RedisServers {
    pub url: String,
    pub prefix: String,
}

impl RedisServers {
    pub fn single() -> Self {
        Self::named("ASSENT_TEST_REDIS")
    }

    pub fn sentinel() -> Self {
        Self::named("ASSENT_TEST_REDIS_SENTINEL")
    }

    pub fn cluster() -> Self {
        Self::named("ASSENT_TEST_REDIS_CLUSTER")
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "how scripts/test names its servers"
    )]
    fn named(variable: &str) -> Self {
        let url = std::env::var(variable).unwrap_or_else(|_| {
            panic!("{variable} is not set: run scripts/test, or start servers with scripts/redis")
        });
        let random = u64::from_be_bytes((&SystemEntropy as &dyn Entropy).bytes());
        Self {
            url,
            prefix: format!("test-{random:016x}"),
        }
    }

    /// What a server is told about them.
    pub fn settings(&self) -> Overrides {
        vec![
            ("redis.url", self.url.clone()),
            ("redis.prefix", self.prefix.clone()),
            ("redis.timeout", "2s".into()),
        ]
    }

    /// A node's way to them.
    pub fn open(&self) -> Redis {
        Redis::new(Settings {
            url: RedisUrl::parse(&self.url).unwrap(),
            prefix: self.prefix.clone(),
            timeout: Duration::from_secs(2),
            root_certificates: None,
        })
    }
}
