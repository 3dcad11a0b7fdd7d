//! Pending requests of the embedded server: a table for the facts, process memory for pacing and
//! wake-ups.

use super::db::{Db, Tx};
use super::jobs::{self, PENDING_QUEUE};
use super::row::Located;
use crate::domain::pacing::{Pace, PollPacing};
use crate::domain::request::{BackchannelRequest, State};
use crate::domain::{Partition, RequestId, RequestKey, Timestamp, UserId};
use crate::store::waiters::Waiters;
use crate::store::{
    AFTERLIFE, Created, IdempotencySlot, NewRequest, PendingRequests, Poll, Polled, Reservation,
    Standing, StoreError,
};
use async_trait::async_trait;
use sqlx::any::AnyRow;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// One process holds all polls and knows by itself which is the newest: for the store all are alike.
const ONLY_NODE: u64 = 0;

/// How long prompts are kept: longer than any budget's span.
const PROMPTS_KEPT: Duration = Duration::from_secs(24 * 3600);

/// How many states are read at a time; a fixed number, so that one prepared statement serves.
const CHUNK: usize = 16;
const STATES_OF_CHUNK: &str = "SELECT request_id, state FROM pending_requests WHERE request_id IN \
     ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)";

pub struct SqlPendingRequests {
    db: Db,
    interval: Duration,
    pacing: Mutex<HashMap<RequestId, (PollPacing, Timestamp)>>,
    waiters: Waiters<RequestId>,
    inboxes: Waiters<UserId>,
}

impl SqlPendingRequests {
    /// `interval` is what clients must leave between two polls.
    pub fn new(db: Db, interval: Duration) -> Self {
        Self {
            db,
            interval,
            pacing: Mutex::default(),
            waiters: Waiters::default(),
            inboxes: Waiters::default(),
        }
    }

    fn pace(&self, request: &BackchannelRequest, replaces: bool, now: Timestamp) -> Pace {
        let mut table = self.pacing.lock().unwrap_or_else(PoisonError::into_inner);
        let (pacing, _) = table
            .entry(request.facts.id)
            .or_insert_with(|| (PollPacing::new(self.interval), request.facts.expires_at));
        if replaces {
            pacing.replace(now);
            Pace::Kept
        } else {
            pacing.poll(now)
        }
    }
}

#[async_trait]
impl PendingRequests for SqlPendingRequests {
    async fn reserve(
        &self,
        slot: &IdempotencySlot,
        now: Timestamp,
    ) -> Result<Reservation, StoreError> {
        let mut tx = self.db.begin().await?;
        let taken = sqlx::query(
            "INSERT INTO idempotency_keys (scope_hash, body_hash, auth_req_id, expires_at) \
             VALUES ($1, $2, $3, $4) ON CONFLICT (scope_hash) DO UPDATE SET \
             body_hash = excluded.body_hash, auth_req_id = excluded.auth_req_id, \
             expires_at = excluded.expires_at WHERE idempotency_keys.expires_at <= $5",
        )
        .bind(&slot.scope_hash)
        .bind(&slot.body_hash)
        .bind(&slot.sealed_auth_req_id)
        .bind(slot.expires_at.millis())
        .bind(now.millis())
        .execute(&mut *tx)
        .await?;
        if taken.rows_affected() == 1 {
            tx.commit().await?;
            return Ok(Reservation::Fresh);
        }
        let rows = sqlx::query(
            "SELECT scope_hash, body_hash, auth_req_id FROM idempotency_keys WHERE scope_hash = $1",
        )
        .bind(&slot.scope_hash)
        .fetch_all(&mut *tx)
        .await?;
        let missing = || StoreError::Corrupt {
            table: "idempotency_keys",
            row: slot.scope_hash.clone(),
            what: "conflicts but is not there",
        };
        let row = Located::new(
            rows.first().ok_or_else(missing)?,
            "idempotency_keys",
            "scope_hash",
        );
        if row.text("body_hash")? != slot.body_hash {
            return Ok(Reservation::Conflict);
        }
        Ok(Reservation::Replay {
            sealed_auth_req_id: row.text("auth_req_id")?,
        })
    }

    async fn release(&self, slot: &IdempotencySlot, key: RequestKey) -> Result<(), StoreError> {
        let mut writer = self.db.writer().await?;
        sqlx::query(
            "DELETE FROM idempotency_keys WHERE scope_hash = $1 AND auth_req_id = $2 AND NOT EXISTS \
             (SELECT 1 FROM pending_requests WHERE request_id = $3)",
        )
        .bind(&slot.scope_hash)
        .bind(&slot.sealed_auth_req_id)
        .bind(key.id.to_string())
        .execute(&mut *writer)
        .await?;
        Ok(())
    }

    async fn create(&self, new: &NewRequest, now: Timestamp) -> Result<Created, StoreError> {
        let facts = &new.facts;
        let mut tx = self.db.begin().await?;
        // One creation at a time for one person, so that two cannot both see room for one.
        sqlx::query(
            "INSERT INTO request_caps (user_id, changes) VALUES ($1, 1) \
             ON CONFLICT (user_id) DO UPDATE SET changes = request_caps.changes + 1",
        )
        .bind(facts.user_id.as_str())
        .execute(&mut *tx)
        .await?;
        let rows = sqlx::query(
            "SELECT COUNT(CASE WHEN decoy = 0 THEN 1 END) AS of_user, \
             COUNT(CASE WHEN client_id = $2 THEN 1 END) AS of_client, \
             COUNT(CASE WHEN request_id = $5 THEN 1 END) AS of_request \
             FROM pending_requests WHERE user_id = $1 \
             AND (request_id = $5 OR (state = $3 AND expires_at > $4))",
        )
        .bind(facts.user_id.as_str())
        .bind(facts.client_id.as_str())
        .bind(State::Pending.as_str())
        .bind(now.millis())
        .bind(facts.id.to_string())
        .fetch_all(&mut *tx)
        .await?;
        let missing = || StoreError::Corrupt {
            table: "pending_requests",
            row: facts.id.to_string(),
            what: "no count",
        };
        let open = Located::new(
            rows.first().ok_or_else(missing)?,
            "pending_requests",
            "of_user",
        );
        // What exists, decided or not, takes no room: its retry gets the answer it had.
        if open.number("of_request")? == 0 {
            if open.number("of_client")? >= i64::from(new.per_client) {
                return Ok(Created::OverClientCap);
            }
            if open.number("of_user")? >= i64::from(new.per_user) {
                return Ok(Created::OverUserCap);
            }
        }
        let inserted = sqlx::query(
            "INSERT INTO pending_requests (request_id, client_id, user_id, state, expires_at, delete_at, \
             facts, decoy) VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (request_id) DO NOTHING",
        )
        .bind(facts.id.to_string())
        .bind(facts.client_id.as_str())
        .bind(facts.user_id.as_str())
        .bind(State::Pending.as_str())
        .bind(facts.expires_at.millis())
        .bind(facts.redeemable_until().plus(AFTERLIFE).millis())
        .bind(serde_json::to_string(facts).expect("facts serialise"))
        .bind(i64::from(facts.decoy))
        .execute(&mut *tx)
        .await?;
        let mut created = Created::Yes;
        let mut job = new.job.as_ref();
        if inserted.rows_affected() == 0 {
            job = None;
        } else if job.is_some() && !count_prompt(&mut tx, new, now).await? {
            created = Created::InboxOnly;
            job = new.instead.as_ref();
        }
        if let Some(job) = job {
            jobs::insert(&mut tx, PENDING_QUEUE, job, now).await?;
        }
        tx.commit().await?;
        self.inboxes.wake(&facts.user_id);
        Ok(created)
    }

    async fn poll(
        &self,
        key: RequestKey,
        poll: Poll,
        now: Timestamp,
    ) -> Result<Option<Polled>, StoreError> {
        let Some(request) = self.find(key, now).await? else {
            return Ok(None);
        };
        let pace = match request.state {
            State::Pending => self.pace(&request, poll.replaces, now),
            _ => Pace::Kept,
        };
        Ok(Some(Polled {
            state: request.state,
            pace,
            number: ONLY_NODE,
        }))
    }

    async fn standing(
        &self,
        key: RequestKey,
        now: Timestamp,
    ) -> Result<Option<Standing>, StoreError> {
        let request = self.find(key, now).await?;
        Ok(request.map(|request| Standing {
            state: request.state,
            newest_poll: ONLY_NODE,
        }))
    }

    async fn find(
        &self,
        RequestKey { id, .. }: RequestKey,
        now: Timestamp,
    ) -> Result<Option<BackchannelRequest>, StoreError> {
        let mut reader = self.db.reader().await?;
        let rows = sqlx::query(
            "SELECT request_id, state, facts FROM pending_requests WHERE request_id = $1",
        )
        .bind(id.to_string())
        .fetch_all(&mut *reader)
        .await?;
        rows.first()
            .map(|row| request(row).map(|request| request.at(now)))
            .transpose()
    }

    async fn open_for(
        &self,
        user: &UserId,
        _partition: Partition,
        now: Timestamp,
    ) -> Result<Vec<BackchannelRequest>, StoreError> {
        let mut reader = self.db.reader().await?;
        let rows = sqlx::query(
            "SELECT request_id, state, facts FROM pending_requests \
             WHERE user_id = $1 AND state = $2 AND expires_at > $3 AND decoy = 0",
        )
        .bind(user.as_str())
        .bind(State::Pending.as_str())
        .bind(now.millis())
        .fetch_all(&mut *reader)
        .await?;
        let mut open: Vec<_> = rows
            .iter()
            .map(request)
            .collect::<Result<_, StoreError>>()?;
        open.sort_by_key(|request| (request.facts.created_at, request.facts.id));
        Ok(open)
    }

    async fn project(
        &self,
        RequestKey { id, .. }: RequestKey,
        state: State,
    ) -> Result<(), StoreError> {
        let mut writer = self.db.writer().await?;
        // A redeemed request stays redeemed: a sweep that read the Ledger just before is out of date.
        let rows = sqlx::query(
            "UPDATE pending_requests SET state = $2 WHERE request_id = $1 AND state <> $2 AND state <> $3 \
             RETURNING request_id, user_id",
        )
        .bind(id.to_string())
        .bind(state.as_str())
        .bind(State::Redeemed.as_str())
        .fetch_all(&mut *writer)
        .await?;
        if let Some(row) = rows.first() {
            let row = Located::new(row, "pending_requests", "request_id");
            self.waiters.wake(&id);
            self.inboxes.wake(&UserId::new(row.text("user_id")?));
        }
        Ok(())
    }

    async fn project_all(&self, states: &[(RequestKey, State)]) -> Result<(), StoreError> {
        for chunk in states.chunks(CHUNK) {
            let mut reader = self.db.reader().await?;
            let mut query = sqlx::query(STATES_OF_CHUNK);
            for i in 0..CHUNK {
                query = query.bind(chunk.get(i).map(|(key, _)| key.id.to_string()));
            }
            let rows = query.fetch_all(&mut *reader).await?;
            drop(reader);
            let mut stored = HashMap::new();
            for row in &rows {
                let row = Located::new(row, "pending_requests", "request_id");
                stored.insert(row.request_id("request_id")?, row.parse::<State>("state")?);
            }
            for (key, state) in chunk {
                if stored.get(&key.id).is_some_and(|stored| stored != state) {
                    self.project(*key, *state).await?;
                }
            }
        }
        Ok(())
    }

    /// There is no other node.
    async fn take_turn(&self, _every: Duration) -> Result<bool, StoreError> {
        Ok(true)
    }

    fn watch(&self, id: RequestId) -> watch::Receiver<u64> {
        self.waiters.watch(id)
    }

    fn watch_inbox(&self, user: &UserId) -> watch::Receiver<u64> {
        self.inboxes.watch(user.clone())
    }

    /// There is no other node.
    async fn announce(&self, user: &UserId, _partition: Partition) -> Result<(), StoreError> {
        self.inboxes.wake(user);
        Ok(())
    }

    async fn sweep(&self, now: Timestamp) -> Result<u64, StoreError> {
        self.waiters.sweep();
        self.inboxes.sweep();
        self.pacing
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|_, (_, expires_at)| *expires_at > now);
        let mut writer = self.db.writer().await?.patient();
        sqlx::query("DELETE FROM idempotency_keys WHERE expires_at <= $1")
            .bind(now.millis())
            .execute(&mut *writer)
            .await?;
        sqlx::query(
            "DELETE FROM request_caps WHERE NOT EXISTS \
             (SELECT 1 FROM pending_requests WHERE pending_requests.user_id = request_caps.user_id)",
        )
        .execute(&mut *writer)
        .await?;
        // What is counted for nobody is so for the time that it takes.
        sqlx::query(
            "DELETE FROM prompts WHERE at <= $1 OR (at <= $2 AND NOT EXISTS \
             (SELECT 1 FROM users WHERE users.id = prompts.user_id))",
        )
        .bind(now.minus(PROMPTS_KEPT).millis())
        .bind(now.minus(AFTERLIFE).millis())
        .execute(&mut *writer)
        .await?;
        sqlx::query(
            "DELETE FROM deliveries WHERE request_id IN \
             (SELECT request_id FROM pending_requests WHERE delete_at <= $1)",
        )
        .bind(now.millis())
        .execute(&mut *writer)
        .await?;
        let done = sqlx::query("DELETE FROM pending_requests WHERE delete_at <= $1")
            .bind(now.millis())
            .execute(&mut *writer)
            .await?;
        Ok(done.rows_affected())
    }
}

/// Counts a prompt, if the person's budgets have room for it. Whoever calls is alone with the person.
async fn count_prompt(tx: &mut Tx, new: &NewRequest, now: Timestamp) -> Result<bool, StoreError> {
    let facts = &new.facts;
    let rows = sqlx::query("SELECT request_id, at FROM prompts WHERE user_id = $1 AND at > $2")
        .bind(facts.user_id.as_str())
        .bind(now.minus(new.budgets.memory()).millis())
        .fetch_all(&mut **tx)
        .await?;
    let at = |row: &AnyRow| Located::new(row, "prompts", "request_id").time("at");
    let before: Vec<Timestamp> = rows.iter().map(at).collect::<Result<_, _>>()?;
    if !new.budgets.have_room(&before, now) {
        return Ok(false);
    }
    sqlx::query("INSERT INTO prompts (request_id, user_id, at) VALUES ($1, $2, $3)")
        .bind(facts.id.to_string())
        .bind(facts.user_id.as_str())
        .bind(now.millis())
        .execute(&mut **tx)
        .await?;
    Ok(true)
}

fn request(row: &AnyRow) -> Result<BackchannelRequest, StoreError> {
    let row = Located::new(row, "pending_requests", "request_id");
    Ok(BackchannelRequest {
        facts: row.parse_with("facts", |text| serde_json::from_str(text).ok())?,
        state: row.parse("state")?,
    })
}
