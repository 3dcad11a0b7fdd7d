//! What the stores promise, on every database.
//!
//! A case of the traits takes [`Stores`] and knows nothing of what is behind them; the
//! implementations that it runs against are listed in [`in_every_store`]. Ledger and Directory are
//! SQL alone and are tested as they are.

mod cast;
mod deliveries;
mod differential;
mod directory;
mod enrolments;
mod issuances;
mod jobs;
mod ledger;
mod lost_shard;
mod pending;
mod projection;
mod redis_records;
mod replay;

use crate::support::{Backend, House, RedisServers, START};
use assent::crypto::sha256;
use assent::domain::client::DeliveryMode;
use assent::domain::prompts::{PromptBudget, PromptBudgets};
use assent::domain::request::{ACR_DEVICE, Facts};
use assent::domain::{ClientId, Job, Partition, RequestId, RequestKey, Scope, Timestamp, UserId};
use assent::store::sql::jobs::PENDING_QUEUE;
use assent::store::sql::{SqlDeliveryLog, SqlJobQueue, SqlPendingRequests, SqlReplayCache};
use assent::store::{DeliveryLog, JobQueue, NewRequest, PendingRequests, ReplayCache};
use std::sync::Arc;
use std::time::Duration;

/// One implementation of the traits, empty. Jobs get into the queue with a request.
pub struct Stores {
    pub pending: Arc<dyn PendingRequests>,
    pub jobs: Arc<dyn JobQueue>,
    pub deliveries: Arc<dyn DeliveryLog>,
    pub replays: Arc<dyn ReplayCache>,
    /// What keeps them alive.
    _behind: Box<dyn std::any::Any + Send + Sync>,
}

impl Stores {
    pub async fn sql(backend: Backend) -> Self {
        let house = House::new(backend).await;
        let db = house.db().clone();
        Self {
            pending: Arc::new(SqlPendingRequests::new(db.clone(), INTERVAL)),
            jobs: Arc::new(SqlJobQueue::new(db.clone(), PENDING_QUEUE)),
            deliveries: Arc::new(SqlDeliveryLog::new(db.clone())),
            replays: Arc::new(SqlReplayCache::new(db)),
            _behind: Box::new(house),
        }
    }

    pub fn redis(servers: RedisServers) -> Self {
        let redis = servers.open();
        Self {
            pending: Arc::new(redis.pending(INTERVAL)),
            jobs: Arc::new(redis.jobs()),
            deliveries: Arc::new(redis.deliveries()),
            replays: Arc::new(redis.replays([0; 16])),
            _behind: Box::new(redis),
        }
    }
}

/// A case against each implementation: `in_every_store!(name)` makes `name::sqlite`, `name::redis` and so
/// on of an async function that takes `&Stores`. The next implementation is a line here.
macro_rules! in_every_store {
    ($($case:ident),+ $(,)?) => {
        mod in_every_store {
            $(mod $case {
                use crate::stores::Stores;
                use crate::support::{Backend, RedisServers};

                #[tokio::test(flavor = "multi_thread")]
                async fn sqlite() {
                    super::super::$case(&Stores::sql(Backend::sqlite()).await).await;
                }

                #[tokio::test(flavor = "multi_thread")]
                async fn postgres() {
                    super::super::$case(&Stores::sql(Backend::postgres().await).await).await;
                }

                #[tokio::test(flavor = "multi_thread")]
                async fn redis() {
                    super::super::$case(&Stores::redis(RedisServers::single())).await;
                }

                #[tokio::test(flavor = "multi_thread")]
                async fn redis_sentinel() {
                    super::super::$case(&Stores::redis(RedisServers::sentinel())).await;
                }

                #[tokio::test(flavor = "multi_thread")]
                async fn redis_cluster() {
                    super::super::$case(&Stores::redis(RedisServers::cluster())).await;
                }
            })+
        }
    };
}
pub(crate) use in_every_store;

/// Where everybody lives.
pub const PARTITION: Partition = Partition(7);

/// What clients must leave between two polls.
const INTERVAL: Duration = Duration::from_secs(5);

/// `seconds` after the start.
pub const fn at(seconds: i64) -> Timestamp {
    Timestamp::from_millis(START.millis() + 1000 * seconds)
}

/// The id of the `n`th request of a test.
pub fn id(n: u32) -> RequestId {
    RequestId::from_bytes(sha256(&n.to_be_bytes()))
}

/// Where the `n`th request of a test is found.
pub fn key(n: u32) -> RequestKey {
    RequestKey {
        partition: PARTITION,
        id: id(n),
    }
}

/// Budgets that nobody exceeds.
pub const NO_BUDGETS: PromptBudgets = {
    let ample = PromptBudget::new(u32::MAX, Duration::from_secs(3600));
    PromptBudgets([ample; 3])
};

/// The job that a request comes with.
pub fn job_of(new: NewRequest) -> Job {
    new.job.expect("a request that wakes phones")
}

/// The `n`th request of a test, by `bank` for `alice`, open for 120 s.
pub fn new_request(n: u32) -> NewRequest {
    request_of(n, "bank", "alice", START)
}

pub fn request_of(n: u32, client: &str, user: &str, now: Timestamp) -> NewRequest {
    let facts = Facts {
        id: id(n),
        client_id: ClientId::new(client),
        user_id: UserId::new(user),
        partition: PARTITION,
        sealed_auth_req_id: format!("sealed {n}"),
        sealed_notification_token: None,
        sector: None,
        scope: Scope::parse("openid").unwrap(),
        acr: ACR_DEVICE.into(),
        binding_message: None,
        authorization_details: None,
        delivery_mode: DeliveryMode::Poll,
        matching_digits: None,
        decoy: false,
        created_at: now,
        expires_at: now.plus(Duration::from_secs(120)),
    };
    NewRequest {
        job: Some(Job::NotifyDevice {
            request_id: facts.id,
            partition: facts.partition,
            user_id: facts.user_id.clone(),
            expires_at: facts.expires_at,
        }),
        budgets: NO_BUDGETS,
        instead: None,
        facts,
        per_client: 1000,
        per_user: 1000,
    }
}
