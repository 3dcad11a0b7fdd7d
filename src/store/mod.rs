//! What is kept, and where.
//!
//! [`sql::Directory`] and [`sql::Ledger`] are the truth and live in SQL alone. Three more stores are
//! traits, since they have two homes: SQL for the embedded server, Redis for scale.

pub mod redis;
pub mod sql;
mod waiters;

use crate::domain::delivery::{Delivery, PushRecord};
use crate::domain::job::Job;
use crate::domain::pacing::Pace;
use crate::domain::prompts::PromptBudgets;
use crate::domain::request::{BackchannelRequest, Facts, State};
use crate::domain::{DeviceId, Partition, RequestId, RequestKey, Timestamp, UserId};
use async_trait::async_trait;
use std::time::Duration;
use tokio::sync::watch;

/// How far a store's clock and a node's may differ before the node does not serve.
pub const MAX_CLOCK_DIFFERENCE: Duration = Duration::from_secs(2);

/// How long a record outlives the time in which its approval can be redeemed, so that a late poll still
/// gets the precise answer.
const AFTERLIFE: Duration = Duration::from_secs(600);

/// Why a store could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Not now; the same call may succeed later. Nothing was changed.
    #[error("the store is unavailable")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// What was to be written cannot be: a constraint forbids it, today and tomorrow. Nothing was
    /// changed.
    #[error("the store refuses what was to be written")]
    Refused(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The write may or may not have happened: read it back before answering.
    #[error("a commit did not report its result")]
    CommitUnknown(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// What is stored is not what we store. For a human to look at.
    #[error("{table} row {row}: {what}")]
    Corrupt {
        table: &'static str,
        row: String,
        what: &'static str,
    },
}

impl StoreError {
    /// Something an operator must put right; until then it is as if the store were away.
    pub fn misconfigured(error: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Unavailable(Box::new(error))
    }
}

/// Requests that wait for an answer: the projection that polls and inboxes read. It may forget;
/// the Ledger does not.
#[async_trait]
pub trait PendingRequests: Send + Sync {
    /// Claims a slot for an idempotency key before the request is created, or tells who has it.
    async fn reserve(
        &self,
        slot: &IdempotencySlot,
        now: Timestamp,
    ) -> Result<Reservation, StoreError>;

    /// Gives back a slot whose request was not created, so that its key is as good as new. One whose
    /// request is there by then, or that is somebody else's, stays. A retry that creates the request in this
    /// very moment may lose its slot; the caps still hold.
    async fn release(&self, slot: &IdempotencySlot, key: RequestKey) -> Result<(), StoreError>;

    /// Stores the request and its job in one atomic write, if the caps allow, and counts the prompt. A
    /// request that is already there is left alone and counts as created.
    async fn create(&self, new: &NewRequest, now: Timestamp) -> Result<Created, StoreError>;

    /// A client's poll: where the request stands, and whether the client kept the interval. It ends a
    /// poll of the same request that another node holds.
    async fn poll(
        &self,
        key: RequestKey,
        poll: Poll,
        now: Timestamp,
    ) -> Result<Option<Polled>, StoreError>;

    /// Where a request stands that a poll is held for.
    async fn standing(
        &self,
        key: RequestKey,
        now: Timestamp,
    ) -> Result<Option<Standing>, StoreError>;

    /// The request as it stands.
    async fn find(
        &self,
        key: RequestKey,
        now: Timestamp,
    ) -> Result<Option<BackchannelRequest>, StoreError>;

    /// The requests of one person that are still pending, oldest first; no decoys.
    async fn open_for(
        &self,
        user: &UserId,
        partition: Partition,
        now: Timestamp,
    ) -> Result<Vec<BackchannelRequest>, StoreError>;

    /// Writes what the Ledger says; idempotent. Wakes whoever waits for the request, or for its person's
    /// inbox.
    async fn project(&self, key: RequestKey, state: State) -> Result<(), StoreError>;

    /// Writes many at once: what the sweep does. States that are right already cost nothing.
    async fn project_all(&self, states: &[(RequestKey, State)]) -> Result<(), StoreError>;

    /// True for one node in each `every`, so that not all of them repeat to the projection what the
    /// Ledger knows.
    async fn take_turn(&self, every: Duration) -> Result<bool, StoreError>;

    /// A receiver that is notified when the request may have changed. Subscribe before reading.
    fn watch(&self, id: RequestId) -> watch::Receiver<u64>;

    /// A receiver that is notified when what waits for a person may have changed. Subscribe before reading.
    fn watch_inbox(&self, user: &UserId) -> watch::Receiver<u64>;

    /// Wakes whoever watches a person's inbox, on every node: something else changed that they must look at.
    async fn announce(&self, user: &UserId, partition: Partition) -> Result<(), StoreError>;

    /// Deletes what nobody can ask about any more. Returns how many requests went.
    async fn sweep(&self, now: Timestamp) -> Result<u64, StoreError>;
}

/// What became of the pushes for pending requests. It forgets them with the request.
#[async_trait]
pub trait DeliveryLog: Send + Sync {
    /// Notes what became of pushes; nothing where the request is not there.
    async fn note_pushes(
        &self,
        key: RequestKey,
        pushes: &[(DeviceId, PushRecord)],
    ) -> Result<(), StoreError>;

    /// Notes that a device has fetched the challenge; the first time counts.
    async fn note_fetched(
        &self,
        key: RequestKey,
        device: &DeviceId,
        now: Timestamp,
    ) -> Result<(), StoreError>;

    /// What is known of a request's way to the phones.
    async fn deliveries(&self, key: RequestKey) -> Result<Vec<Delivery>, StoreError>;

    /// The requests that a person's phones were to be woken for in the last day, newest first.
    async fn prompts(
        &self,
        user: &UserId,
        partition: Partition,
    ) -> Result<Vec<RequestId>, StoreError>;
}

/// An idempotency key with what it stands for.
#[derive(Clone, Debug)]
pub struct IdempotencySlot {
    /// Hash over client and key.
    pub scope_hash: String,
    /// Hash over the request without its client authentication.
    pub body_hash: String,
    /// The `auth_req_id` that the request will have, sealed.
    pub sealed_auth_req_id: String,
    pub expires_at: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reservation {
    /// The slot is ours.
    Fresh,
    /// The same request was begun before: it has this sealed `auth_req_id`.
    Replay { sealed_auth_req_id: String },
    /// The key stands for another request.
    Conflict,
}

/// A request to create, with the caps that must hold and the job that must exist with it.
#[derive(Clone, Debug)]
pub struct NewRequest {
    pub facts: Facts,
    /// What wakes the person's phones; `None`: they are not to be woken.
    pub job: Option<Job>,
    /// How often they may be woken: counted and checked with the creation.
    pub budgets: PromptBudgets,
    /// What is done instead when they have been woken too often.
    pub instead: Option<Job>,
    /// Open requests allowed for this person and client together, decoys among them.
    pub per_client: u32,
    /// Open requests allowed for this person over all clients; decoys do not count.
    pub per_user: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Created {
    /// With its job, if there was to be one.
    Yes,
    /// The person has been woken too often: it waits in the inbox alone.
    InboxOnly,
    /// This client has too many requests open for this person.
    OverClientCap,
    /// Over all clients, this person has too many requests open.
    OverUserCap,
}

/// How a poll begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Poll {
    /// It ends one that this node holds, and so does not count as early.
    pub replaces: bool,
    /// Until when it will be held, if the request is still pending; `None`: it is answered at once.
    pub held_until: Option<Timestamp>,
}

/// What a poll finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Polled {
    pub state: State,
    pub pace: Pace,
    /// Which poll of this request it is; tells it from a newer one.
    pub number: u64,
}

/// What a held poll finds when it looks again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    pub state: State,
    /// The [`Polled::number`] of the newest poll.
    pub newest_poll: u64,
}

/// Work that is due at some time. A claim is a lease: the job comes back unless it is acknowledged.
#[async_trait]
pub trait JobQueue: Send + Sync {
    /// Takes up to `limit` due jobs, counts the attempt and hides them until the lease ends.
    async fn claim(
        &self,
        limit: u32,
        lease: Duration,
        now: Timestamp,
    ) -> Result<Vec<ClaimedJob>, StoreError>;

    /// The job is done. False when the lease was lost to another attempt.
    async fn ack(&self, claim: &ClaimedJob) -> Result<bool, StoreError>;

    /// Try again at `due`. False when the lease was lost.
    async fn retry(
        &self,
        claim: &ClaimedJob,
        due: Timestamp,
        error: &str,
    ) -> Result<bool, StoreError>;

    /// Never try again, and keep it for people to see. False when the lease was lost.
    async fn bury(
        &self,
        claim: &ClaimedJob,
        error: &str,
        now: Timestamp,
    ) -> Result<bool, StoreError>;

    /// Up to `limit` buried jobs, newest first.
    async fn dead(&self, limit: u32) -> Result<Vec<DeadJob>, StoreError>;

    /// Makes a buried job due at `now`. False: there is none by this id.
    async fn replay(&self, id: &str, now: Timestamp) -> Result<bool, StoreError>;

    /// How many jobs are alive, and how many dead.
    async fn depth(&self) -> Result<QueueDepth, StoreError>;
}

/// A job under lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimedJob {
    pub id: String,
    pub job: Job,
    /// This attempt's number, from 1; fences the acknowledgement.
    pub attempt: u32,
}

/// A job that was given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadJob {
    pub id: String,
    pub attempts: u32,
    pub dead_at: Timestamp,
    pub error: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueDepth {
    pub alive: u64,
    pub dead: u64,
}

/// Remembers what may be used once (RFC 7519 4.1.7, RFC 7523 3).
#[async_trait]
pub trait ReplayCache: Send + Sync {
    /// True when `id` is seen for the first time; it is remembered until `expires_at`.
    async fn first_use(
        &self,
        id: &str,
        expires_at: Timestamp,
        now: Timestamp,
    ) -> Result<bool, StoreError>;

    /// Forgets what has expired. Returns how many entries went.
    async fn sweep(&self, now: Timestamp) -> Result<u64, StoreError>;
}
