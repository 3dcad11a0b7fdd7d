//! Pending requests in Redis.

use super::keys::Keys;
use super::record::{DECOY, TAG_LEN, read_facts, tag, write_facts, write_job};
use super::router::Router;
use super::schedule::Schedule;
use super::script::{CREATE, POLL, PROJECT, RELEASE, RESERVE};
use super::wake::Wake;
use super::{millis, ttl};
use crate::domain::pacing::{MAX_INTERVAL, Pace, SLOW_DOWN, TOLERANCE};
use crate::domain::request::{BackchannelRequest, Facts, State, redeemable_until};
use crate::domain::{Job, Partition, RequestId, RequestKey, Timestamp, UserId};
use crate::store::waiters::Waiters;
use crate::store::{
    AFTERLIFE, Created, IdempotencySlot, NewRequest, PendingRequests, Poll, Polled, Reservation,
    Standing, StoreError,
};
use async_trait::async_trait;
use redis::Cmd;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

pub struct RedisPendingRequests {
    pub(super) router: Arc<Router>,
    pub(super) keys: Keys,
    pub(super) waiters: Arc<Waiters<RequestId>>,
    pub(super) inboxes: Arc<Waiters<UserId>>,
    pub(super) schedule: Arc<Schedule>,
    /// What clients must leave between two polls.
    pub(super) interval: Duration,
}

impl RedisPendingRequests {
    fn corrupt(&self, key: RequestKey, what: &'static str) -> StoreError {
        StoreError::Corrupt {
            table: "redis",
            row: self.keys.state(key.partition, key.id),
            what,
        }
    }

    /// The stored state as it stands; `None` once it would have been forgotten.
    fn at(
        &self,
        key: RequestKey,
        state: &str,
        expires_at: i64,
        now: Timestamp,
    ) -> Result<Option<State>, StoreError> {
        let state: State = state.parse().map_err(|_| self.corrupt(key, "state"))?;
        let expires_at = Timestamp::from_millis(expires_at);
        Ok((now < forgotten_at(expires_at)).then(|| state.at(expires_at, now)))
    }

    fn facts(&self, key: RequestKey, text: &str) -> Result<Facts, StoreError> {
        read_facts(key, text).ok_or_else(|| self.corrupt(key, "facts"))
    }
}

/// When nobody can ask about a request any more.
fn forgotten_at(expires_at: Timestamp) -> Timestamp {
    redeemable_until(expires_at).plus(AFTERLIFE)
}

#[async_trait]
impl PendingRequests for RedisPendingRequests {
    async fn reserve(
        &self,
        slot: &IdempotencySlot,
        now: Timestamp,
    ) -> Result<Reservation, StoreError> {
        let (partition, key) = self.keys.slot(&slot.scope_hash);
        let (answer, sealed_auth_req_id): (String, String) = self
            .router
            .run(partition, |_| {
                RESERVE
                    .keys([key.clone()])
                    .arg(now.millis())
                    .arg(&slot.body_hash)
                    .arg(&slot.sealed_auth_req_id)
                    .arg(slot.expires_at.millis())
                    .arg(ttl(slot.expires_at, now))
            })
            .await?;
        match answer.as_str() {
            "fresh" => Ok(Reservation::Fresh),
            "replay" => Ok(Reservation::Replay { sealed_auth_req_id }),
            _ => Ok(Reservation::Conflict),
        }
    }

    /// The slot and the request lie in different partitions, so this is two steps.
    async fn release(&self, slot: &IdempotencySlot, key: RequestKey) -> Result<(), StoreError> {
        let mut command = redis::cmd("EXISTS");
        command.arg(self.keys.state(key.partition, key.id));
        let is_there: u8 = self.router.ask(key.partition, &command).await?;
        if is_there == 1 {
            return Ok(());
        }
        let (partition, slot_key) = self.keys.slot(&slot.scope_hash);
        let release = |_| {
            RELEASE
                .keys([slot_key.clone()])
                .arg(&slot.sealed_auth_req_id)
        };
        self.router.run::<u8>(partition, release).await.map(drop)
    }

    async fn create(&self, new: &NewRequest, now: Timestamp) -> Result<Created, StoreError> {
        let facts = &new.facts;
        let RequestKey { partition, id } = facts.key();
        let text = write_facts(facts);
        let decoy = if facts.decoy { DECOY } else { "" };
        let tag = format!("{}{decoy}", tag(&facts.client_id));
        // Id and text; empty where there is none.
        let work = |job: &Option<Job>| match job {
            None => [String::new(), String::new()],
            Some(job) => [job.id(), write_job(job)],
        };
        let (job, instead) = (work(&new.job), work(&new.instead));
        let answer: String = self
            .router
            .run(partition, |_| {
                let call = CREATE
                    .keys([
                        self.keys.state(partition, id),
                        self.keys.facts(partition, id),
                        self.keys.open(partition, &facts.user_id),
                        self.keys.due(partition),
                        self.keys.jobs(partition),
                        self.keys.prompts(partition, &facts.user_id),
                    ])
                    .arg(now.millis())
                    .arg(id.to_string())
                    .arg(&tag)
                    .arg(facts.user_id.as_str())
                    .arg(facts.expires_at.millis())
                    .arg(ttl(forgotten_at(facts.expires_at), now))
                    .arg(new.per_client)
                    .arg(new.per_user)
                    .arg(millis(self.interval))
                    .arg(&text)
                    .arg(&job)
                    .arg(&instead)
                    .arg(self.keys.channel())
                    .arg(Wake::Job(partition).to_string())
                    .arg(Wake::Inbox(facts.user_id.clone()).to_string())
                    .arg(millis(new.budgets.memory()));
                new.budgets.0.iter().fold(call, |call, budget| {
                    call.arg(now.minus(budget.within).millis())
                        .arg(budget.prompts)
                })
            })
            .await?;
        let created = match answer.as_str() {
            "yes" => Created::Yes,
            "inbox only" => Created::InboxOnly,
            "over client cap" => return Ok(Created::OverClientCap),
            _ => return Ok(Created::OverUserCap),
        };
        self.inboxes.wake(&facts.user_id);
        self.schedule.note(partition, now);
        Ok(created)
    }

    async fn poll(
        &self,
        key: RequestKey,
        poll: Poll,
        now: Timestamp,
    ) -> Result<Option<Polled>, StoreError> {
        let answer: Option<(String, i64, String, u64)> = self
            .router
            .run(key.partition, |repeated| {
                POLL.keys([self.keys.state(key.partition, key.id)])
                    .arg(now.millis())
                    .arg(u8::from(poll.replaces))
                    .arg(poll.held_until.map_or(0, Timestamp::millis))
                    .arg(u8::from(repeated))
                    .arg(millis(TOLERANCE))
                    .arg(millis(SLOW_DOWN))
                    .arg(millis(MAX_INTERVAL))
                    .arg(self.keys.channel())
                    .arg(Wake::Request(key.id).to_string())
            })
            .await?;
        let Some((state, expires_at, pace, number)) = answer else {
            return Ok(None);
        };
        let pace = match pace.as_str() {
            "broken" => Pace::Broken,
            _ => Pace::Kept,
        };
        let state = self.at(key, &state, expires_at, now)?;
        Ok(state.map(|state| Polled {
            state,
            pace,
            number,
        }))
    }

    async fn standing(
        &self,
        key: RequestKey,
        now: Timestamp,
    ) -> Result<Option<Standing>, StoreError> {
        let mut command = redis::cmd("HMGET");
        command
            .arg(self.keys.state(key.partition, key.id))
            .arg(&["s", "e", "n"]);
        let stored: (Option<String>, Option<i64>, Option<u64>) =
            self.router.ask(key.partition, &command).await?;
        let (Some(state), Some(expires_at), number) = stored else {
            return Ok(None);
        };
        let state = self.at(key, &state, expires_at, now)?;
        Ok(state.map(|state| Standing {
            state,
            newest_poll: number.unwrap_or(0),
        }))
    }

    async fn find(
        &self,
        key: RequestKey,
        now: Timestamp,
    ) -> Result<Option<BackchannelRequest>, StoreError> {
        Ok(self.find_all(&[key], now).await?.pop())
    }

    async fn open_for(
        &self,
        user: &UserId,
        partition: Partition,
        now: Timestamp,
    ) -> Result<Vec<BackchannelRequest>, StoreError> {
        let mut command = redis::cmd("ZRANGE");
        command
            .arg(self.keys.open(partition, user))
            .arg(format!("({}", now.millis()))
            .arg("+inf")
            .arg("BYSCORE");
        let members: Vec<String> = self.router.ask(partition, &command).await?;
        let keys: Vec<RequestKey> = members
            .iter()
            .filter(|member| member.len() == ID_LEN + TAG_LEN)
            .filter_map(|member| RequestId::parse(member.get(..ID_LEN)?))
            .map(|id| RequestKey { partition, id })
            .collect();
        let mut open = self.find_all(&keys, now).await?;
        open.retain(|request| request.state == State::Pending);
        open.sort_by_key(|request| (request.facts.created_at, request.facts.id));
        Ok(open)
    }

    async fn project(&self, key: RequestKey, state: State) -> Result<(), StoreError> {
        let mut command = redis::cmd("HMGET");
        command
            .arg(self.keys.state(key.partition, key.id))
            .arg(&["s", "u", "c"]);
        let stored: (Option<String>, Option<String>, Option<String>) =
            self.router.ask(key.partition, &command).await?;
        let (Some(stored), Some(user), Some(client)) = stored else {
            return Ok(());
        };
        if stored == state.as_str() {
            return Ok(());
        }
        let user = UserId::new(user);
        let done: u8 = self
            .router
            .run(key.partition, |_| {
                PROJECT
                    .keys([
                        self.keys.state(key.partition, key.id),
                        self.keys.open(key.partition, &user),
                    ])
                    .arg(state.as_str())
                    .arg(format!("{}{client}", key.id))
                    .arg(self.keys.channel())
                    .arg(Wake::Request(key.id).to_string())
                    .arg(Wake::Inbox(user.clone()).to_string())
            })
            .await?;
        if done == 1 {
            self.waiters.wake(&key.id);
            self.inboxes.wake(&user);
        }
        Ok(())
    }

    async fn project_all(&self, states: &[(RequestKey, State)]) -> Result<(), StoreError> {
        let stored = |(key, _): &(RequestKey, State)| {
            let mut command = redis::cmd("HGET");
            command.arg(self.keys.state(key.partition, key.id)).arg("s");
            (key.partition, command)
        };
        let reads: Vec<(Partition, Cmd)> = states.iter().map(stored).collect();
        let stored: Vec<Result<Option<String>, _>> = self.router.ask_all(&reads).await;
        // A server that is away must not keep the others from being told.
        let mut trouble = None;
        for ((key, state), stored) in states.iter().zip(stored) {
            let told = match stored {
                Ok(Some(stored)) if stored != state.as_str() => self.project(*key, *state).await,
                stored => stored.map(drop),
            };
            trouble = trouble.or(told.err());
        }
        trouble.map_or(Ok(()), Err)
    }

    async fn take_turn(&self, every: Duration) -> Result<bool, StoreError> {
        let (partition, key) = self.keys.turn();
        let mut command = redis::cmd("SET");
        command
            .arg(key)
            .arg(1)
            .arg("NX")
            .arg("PX")
            .arg(millis(every));
        let taken: Option<String> = self.router.ask(partition, &command).await?;
        Ok(taken.is_some())
    }

    fn watch(&self, id: RequestId) -> watch::Receiver<u64> {
        self.waiters.watch(id)
    }

    fn watch_inbox(&self, user: &UserId) -> watch::Receiver<u64> {
        self.inboxes.watch(user.clone())
    }

    async fn announce(&self, user: &UserId, partition: Partition) -> Result<(), StoreError> {
        self.inboxes.wake(user);
        let mut command = redis::cmd("PUBLISH");
        command
            .arg(self.keys.channel())
            .arg(Wake::Inbox(user.clone()).to_string());
        self.router.ask::<u64>(partition, &command).await.map(drop)
    }

    /// Keys run out by themselves; only who waits here is swept.
    async fn sweep(&self, _now: Timestamp) -> Result<u64, StoreError> {
        self.waiters.sweep();
        self.inboxes.sweep();
        Ok(0)
    }
}

/// The length of a request id's text.
const ID_LEN: usize = 43;

impl RedisPendingRequests {
    /// Those of the requests that are there, in one round trip for each server.
    async fn find_all(
        &self,
        keys: &[RequestKey],
        now: Timestamp,
    ) -> Result<Vec<BackchannelRequest>, StoreError> {
        let reads = keys.iter().flat_map(|key| {
            let mut facts = redis::cmd("GET");
            facts.arg(self.keys.facts(key.partition, key.id));
            let mut state = redis::cmd("HGET");
            state.arg(self.keys.state(key.partition, key.id)).arg("s");
            [(key.partition, facts), (key.partition, state)]
        });
        let reads: Vec<(Partition, Cmd)> = reads.collect();
        let stored: Vec<Option<String>> = self
            .router
            .ask_all(&reads)
            .await
            .into_iter()
            .collect::<Result<_, StoreError>>()?;
        let mut found = Vec::new();
        for (key, pair) in keys.iter().zip(stored.chunks(2)) {
            let [Some(facts), Some(state)] = pair else {
                continue;
            };
            let facts = self.facts(*key, facts)?;
            let expires_at = facts.expires_at.millis();
            if let Some(state) = self.at(*key, state, expires_at, now)? {
                found.push(BackchannelRequest { facts, state });
            }
        }
        Ok(found)
    }
}
