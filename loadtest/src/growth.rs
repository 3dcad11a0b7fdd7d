//! What polls cost as more and more requests wait in Redis, and what memory each takes with its job.
//!
//! The store is used directly: no node must take the jobs, and a million requests over HTTP would measure
//! the generator. A real request is the pattern for all others.

use crate::cast::Cast;
use crate::database::Database;
use crate::load::{self, Load, Worker};
use crate::operations::Ask;
use crate::proc;
use crate::redis_server::RedisServer;
use crate::report::{Growth, Size};
use crate::server::{Server, Settings};
use anyhow::Context as _;
use assent::app::World;
use assent::crypto::{base64url, sha256};
use assent::domain::prompts::{PromptBudget, PromptBudgets};
use assent::domain::request::{Facts, State};
use assent::domain::{Job, Partition, RequestId, RequestKey, Timestamp, UserId};
use assent::store::redis::{Redis, RedisPendingRequests, RedisUrl};
use assent::store::{Created, NewRequest, PendingRequests, Poll};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Polls at each size, at the most.
const POLLS: usize = 20_000;
/// From one size to the next, as the requests see it: no poll is early. All of them still wait.
const BETWEEN: Duration = Duration::from_secs(60);
const LIFE: Duration = Duration::from_secs(600);

/// Lets requests grow to `most` in three steps; polls some of them at each.
pub async fn growth(
    program: &Path,
    redis: &RedisServer,
    load: Load,
    most: usize,
) -> anyhow::Result<Growth> {
    let pending = store(redis)?;
    let pattern = a_real_request(program, redis, &pending).await?;
    redis.remove_keys().await?;
    let requests = Arc::new(Requests::like(pattern, pending));
    let before = redis.used_memory().await?;
    let mut sizes = Vec::new();
    let mut made = 0;
    for (step, size) in (0..).zip([most / 100, most / 10, most]) {
        let team = requests.team(load, |requests| Create {
            requests,
            first: made,
        });
        let more = Load {
            count: size - made,
            limit: LIFE,
            ..load
        };
        let (create_us, _) = cost(redis, more, team).await?;
        made = size;
        redis.settle().await?;
        let memory = redis.used_memory().await?.saturating_sub(before);
        let polls = Load {
            count: size.min(POLLS),
            ..load
        };
        let team = requests.team(load, |requests| PollSome {
            requests,
            stride: size / polls.count,
            now: BETWEEN * step,
        });
        let (poll_us, outcome) = cost(redis, polls, team).await?;
        sizes.push(Size {
            pending: size,
            memory_bytes: memory,
            create_us,
            poll_us,
            p50_ms: outcome.percentile(50),
            p99_ms: outcome.percentile(99),
        });
    }
    Ok(Growth {
        prefix: redis.prefix.clone(),
        sizes,
        keys: requests.keys(redis).await?,
    })
}

/// Runs a load and divides what it cost Redis by its operations; none may fail.
async fn cost<W: Worker>(
    redis: &RedisServer,
    load: Load,
    team: Vec<W>,
) -> anyhow::Result<(f64, load::Outcome)> {
    let before = proc::process_cpu(redis.pid)?;
    let (outcome, _) = load::run(load, team).await?;
    let spent = proc::process_cpu(redis.pid)?.saturating_sub(before);
    let done = outcome.times.len();
    anyhow::ensure!(outcome.failed == 0, "{:?}", outcome.failures);
    anyhow::ensure!(done == load.count, "only {done} of {} in time", load.count);
    Ok((spent.as_secs_f64() * 1e6 / done as f64, outcome))
}

/// What a server on this Redis writes when a person is asked.
async fn a_real_request(
    program: &Path,
    redis: &RedisServer,
    pending: &RedisPendingRequests,
) -> anyhow::Result<Facts> {
    let folder = tempfile::tempdir()?;
    let database = Database::sqlite(folder.path());
    let settings = Settings::new(folder.path(), &database.url)?.with_redis(redis);
    let mut cast = Cast::seed(&settings, 1).await?;
    let (server, _) = Server::start(program, &settings).await?;
    let (login, _phone) = cast.enrol().await?.remove(0);
    let mut ask = Ask::team(&cast.rp, 1, vec![login]).remove(0);
    ask.operate(0).await?;
    server.stop().await?;
    let keys = redis.keys("*:facts:*").await?;
    let [key] = &keys[..] else {
        anyhow::bail!("one request left {} records in Redis", keys.len());
    };
    let key = request_key(key).context("the key of a request is not what it was")?;
    let found = pending.find(key, World::real().clock.now()).await?;
    Ok(found.context("a request cannot be read back")?.facts)
}

/// Reads `prefix:{partition}:facts:id`.
fn request_key(name: &str) -> Option<RequestKey> {
    let (_, rest) = name.split_once(":{")?;
    let (partition, id) = rest.split_once("}:facts:")?;
    Some(RequestKey {
        partition: Partition(partition.parse().ok()?),
        id: RequestId::parse(id)?,
    })
}

fn store(redis: &RedisServer) -> anyhow::Result<RedisPendingRequests> {
    let redis = Redis::new(assent::store::redis::Settings {
        url: RedisUrl::parse(&redis.url)?,
        prefix: redis.prefix.clone(),
        timeout: Duration::from_secs(5),
        root_certificates: None,
    });
    Ok(redis.pending(Duration::from_secs(5)))
}

/// Any number of requests, each of a person of its own.
struct Requests {
    pattern: Facts,
    pending: RedisPendingRequests,
    /// When all of them are made.
    now: Timestamp,
    run: [u8; 16],
}

impl Requests {
    fn like(pattern: Facts, pending: RedisPendingRequests) -> Self {
        let World { clock, entropy, .. } = World::real();
        Self {
            pattern,
            pending,
            now: clock.now(),
            run: entropy.bytes(),
        }
    }

    /// The facts of a request that would be hard to tell from a real one.
    fn facts(&self, number: usize) -> Facts {
        let hash = |what: &str| sha256(format!("{what} {number} {:?}", self.run).as_bytes());
        let id = RequestId::from_bytes(hash("request"));
        let mut user = base64url(&hash("user"));
        user.truncate(self.pattern.user_id.as_str().len());
        Facts {
            id,
            partition: Partition(id.as_bytes()[0]),
            user_id: UserId::new(user),
            sector: None,
            created_at: self.now,
            expires_at: self.now.plus(LIFE),
            ..self.pattern.clone()
        }
    }

    fn team<W>(self: &Arc<Self>, load: Load, member: impl Fn(Arc<Self>) -> W) -> Vec<W> {
        (0..load.connections)
            .map(|_| member(self.clone()))
            .collect()
    }

    /// What the keys of one request take, and its part of those that a partition's requests share.
    async fn keys(&self, redis: &RedisServer) -> anyhow::Result<Vec<(&'static str, u64)>> {
        let Facts {
            id,
            user_id,
            partition,
            ..
        } = self.facts(0);
        let name = |rest: String| format!("{}:{{{}}}:{rest}", redis.prefix, partition.0);
        let jobs = name("jobs".into());
        let waiting: u64 = redis.ask(redis::cmd("HLEN").arg(&jobs)).await?;
        let mut sizes = Vec::new();
        for (kind, key, shared_by) in [
            ("state", name(format!("state:{id}")), 1),
            ("facts", name(format!("facts:{id}")), 1),
            ("open", name(format!("open:{user_id}")), 1),
            ("prompts", name(format!("prompts:{user_id}")), 1),
            ("due", name("due".into()), waiting),
            ("jobs", jobs, waiting),
        ] {
            sizes.push((kind, redis.memory_of(&key).await? / shared_by.max(1)));
        }
        Ok(sizes)
    }
}

/// As the settings have it.
const BUDGETS: PromptBudgets = PromptBudgets([
    PromptBudget::new(3, Duration::from_secs(300)),
    PromptBudget::new(10, Duration::from_secs(3600)),
    PromptBudget::new(20, Duration::from_secs(86_400)),
]);

struct Create {
    requests: Arc<Requests>,
    first: usize,
}

impl Worker for Create {
    async fn operate(&mut self, number: usize) -> anyhow::Result<()> {
        let facts = self.requests.facts(self.first + number);
        let new = NewRequest {
            job: Some(Job::NotifyDevice {
                request_id: facts.id,
                partition: facts.partition,
                user_id: facts.user_id.clone(),
                expires_at: facts.expires_at,
            }),
            budgets: BUDGETS,
            instead: None,
            facts,
            per_client: 3,
            per_user: 5,
        };
        let created = self
            .requests
            .pending
            .create(&new, self.requests.now)
            .await?;
        anyhow::ensure!(created == Created::Yes, "a request is not created");
        Ok(())
    }
}

/// Polls evenly over all that wait.
struct PollSome {
    requests: Arc<Requests>,
    stride: usize,
    now: Duration,
}

impl Worker for PollSome {
    async fn operate(&mut self, number: usize) -> anyhow::Result<()> {
        let key = self.requests.facts(number * self.stride).key();
        let now = self.requests.now.plus(self.now);
        let polled = self
            .requests
            .pending
            .poll(key, Poll::default(), now)
            .await?;
        let pending = polled.is_some_and(|polled| polled.state == State::Pending);
        anyhow::ensure!(pending, "a request does not wait any more");
        Ok(())
    }
}
