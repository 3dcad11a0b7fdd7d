//! What tests stand on: databases, Redis, and one node or two.

use super::{Backend, RedisServers, TestApp};
use assent::config::Overrides;
use std::sync::Arc;

/// A test on each database: `on_both!(name)` makes `name::sqlite` and `name::postgres` of an async
/// function that takes a [`Backend`].
macro_rules! on_both {
    ($($name:ident),+ $(,)?) => {
        mod on_both {
            $(mod $name {
                use crate::support::Backend;

                #[tokio::test(flavor = "multi_thread")]
                async fn sqlite() {
                    super::super::$name(Backend::sqlite()).await;
                }

                #[tokio::test(flavor = "multi_thread")]
                async fn postgres() {
                    super::super::$name(Backend::postgres().await).await;
                }
            })+
        }
    };
}
pub(crate) use on_both;

/// A test on each ground that a server can stand on: `everywhere!(name)` makes `name::sqlite`,
/// `name::postgres` and `name::redis` of an async function that takes a [`Ground`].
macro_rules! everywhere {
    ($($name:ident),+ $(,)?) => {
        mod everywhere {
            $(mod $name {
                use crate::support::{Backend, Ground, RedisServers};

                #[tokio::test(flavor = "multi_thread")]
                async fn sqlite() {
                    super::super::$name(Ground::new(Backend::sqlite())).await;
                }

                #[tokio::test(flavor = "multi_thread")]
                async fn postgres() {
                    super::super::$name(Ground::new(Backend::postgres().await)).await;
                }

                #[tokio::test(flavor = "multi_thread")]
                async fn redis() {
                    let ground = Ground::with_redis(Backend::sqlite(), RedisServers::single());
                    super::super::$name(ground).await;
                }
            })+
        }
    };
}
pub(crate) use everywhere;

/// A test on each arrangement of Redis servers: `on_every_redis!(name)` makes `name::single`, `name::sentinel` and
/// `name::cluster` of an async function that takes two nodes of one issuer.
macro_rules! on_every_redis {
    ($($name:ident),+ $(,)?) => {
        mod on_every_redis {
            $(mod $name {
                use crate::support::{RedisServers, nodes};

                #[tokio::test(flavor = "multi_thread")]
                async fn single() {
                    super::super::$name(nodes(RedisServers::single()).await).await;
                }

                #[tokio::test(flavor = "multi_thread")]
                async fn sentinel() {
                    super::super::$name(nodes(RedisServers::sentinel()).await).await;
                }

                #[tokio::test(flavor = "multi_thread")]
                async fn cluster() {
                    super::super::$name(nodes(RedisServers::cluster()).await).await;
                }
            })+
        }
    };
}
pub(crate) use on_every_redis;

/// What a server stands on: a database, and Redis or not.
pub struct Ground {
    pub backend: Arc<Backend>,
    pub redis: Option<RedisServers>,
}

impl Ground {
    pub fn new(backend: Backend) -> Self {
        Self {
            backend: Arc::new(backend),
            redis: None,
        }
    }

    pub fn with_redis(backend: Backend, redis: RedisServers) -> Self {
        Self {
            redis: Some(redis),
            ..Self::new(backend)
        }
    }

    pub fn settings(&self) -> Overrides {
        self.redis.iter().flat_map(RedisServers::settings).collect()
    }
}

/// Two nodes of one issuer, on one database and one Redis.
pub async fn nodes(redis: RedisServers) -> (TestApp, TestApp) {
    let first = TestApp::on(Ground::with_redis(Backend::sqlite(), redis)).await;
    let second = first.node().await;
    (first, second)
}
