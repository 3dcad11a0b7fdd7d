//! The Ledger: irreversible facts.
//!
//! Two primary keys are the fence of the whole server. `outcomes`: whoever inserts first has decided.
//! `issuances`: whoever inserts first has redeemed the approval, or withdrawn it. Both are reached only
//! through a guard that holds the audit head of the person's partition, so that a decision without its
//! audit row cannot be written.

use super::audit::{self, chain_of};
use super::db::Db;
use super::directory::read_key;
use super::pool::Connection;
use super::row::Located;
use super::tokens::NewAccessToken;
use crate::crypto::KeyRing;
use crate::domain::device::{DeviceState, PublicKey};
use crate::domain::outcome::{DecidedRequest, Issuance};
use crate::domain::request::{State, redeemable_until};
use crate::domain::token::RefreshFamily;
use crate::domain::{
    ClientId, DenyReason, DeviceId, Job, Outcome, Partition, RequestId, RequestKey, Secret,
    Timestamp, UserId,
};
use crate::store::StoreError;
use sqlx::any::AnyRow;
use std::sync::Arc;

mod decision;
mod outbox;
mod redemption;
mod responses;

pub use decision::OpenDecision;
pub use redemption::OpenRedemption;

#[derive(Clone)]
pub struct Ledger {
    db: Db,
    keys: Arc<KeyRing>,
}

/// How the parties stand at the moment of a decision or redemption, read inside its transaction.
#[derive(Clone, Debug)]
pub struct Standing {
    /// The person's profile, if they are not locked.
    pub user: Option<Profile>,
    pub client_active: bool,
    /// The device's key, if it is an active device of this very person.
    pub device: Option<PublicKey>,
    /// Whether another active device of theirs can be pushed to.
    pub has_other_targets: bool,
}

impl Standing {
    /// The job that tells the person's other devices that a request is over, if there are any.
    pub fn notify_resolved(&self, decided: &DecidedRequest) -> Option<Job> {
        self.has_other_targets.then(|| Job::NotifyResolved {
            request_id: decided.request_id,
            partition: decided.partition,
            user_id: decided.user_id.clone(),
            answered_by: decided.device_id.clone(),
            expires_at: decided.expires_at,
        })
    }
}

/// What an ID Token may say about a person.
#[derive(Clone, Debug)]
pub struct Profile {
    pub login: String,
    pub name: Option<String>,
}

/// Whether a decision was the first.
#[derive(Debug)]
pub enum Recorded {
    First,
    /// Somebody decided before; this is what they decided.
    Lost(Box<DecidedRequest>),
}

/// What became of an approval.
#[derive(Clone, Debug)]
pub struct UsedApproval {
    pub kind: Issuance,
    pub issued_at: Timestamp,
    /// The `jti` of the access token.
    pub token_id: Option<String>,
    /// The response as it was sent, while it may be sent again.
    pub response: Option<Secret>,
}

/// A person said no.
#[derive(Clone, Debug)]
pub struct Denial {
    pub client_id: ClientId,
    pub reason: Option<DenyReason>,
    pub at: Timestamp,
}

/// The answer to an attempt to redeem.
pub enum Redemption {
    /// Ours to redeem; nobody else can.
    Open(Box<OpenRedemption>),
    /// Redeemed or withdrawn before.
    Used(UsedApproval),
    NotApproved(Outcome),
    /// Approved, but nobody came for it in time.
    Expired,
    /// Nothing was decided.
    Undecided,
}

/// Which of the outcomes that still matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standings {
    /// Those that somebody waits for: nobody has used them, or can.
    Unused,
    /// Used approvals too: a record that lost both writes says "pending" of a request that is over.
    All,
}

/// A page of what the projection must show.
#[derive(Debug, Default)]
pub struct StandingStates {
    pub states: Vec<(RequestKey, State)>,
    /// Rows that do not say what they stand for.
    pub damaged: Vec<StoreError>,
    /// The id of the last row, read or not: where the next page begins.
    pub last: Option<String>,
    /// There may be more.
    pub is_full: bool,
}

/// Tokens that were issued, as far as the Ledger keeps them.
#[derive(Clone, Debug)]
pub struct IssuedTokens {
    pub access: NewAccessToken,
    /// The response, to be kept sealed: for redelivery, or until it is delivered.
    pub response: Option<Secret>,
    pub refresh: Option<NewRefreshFamily>,
}

/// The first refresh token of an issuance.
#[derive(Clone, Debug)]
pub struct NewRefreshFamily {
    pub family: RefreshFamily,
    pub token_hash: String,
}

impl Ledger {
    pub const fn new(db: Db, keys: Arc<KeyRing>) -> Self {
        Self { db, keys }
    }

    /// Begins a decision about a request of `client` to `user`.
    pub async fn begin_decision(
        &self,
        partition: Partition,
        user: &UserId,
        client: &ClientId,
        device: Option<&DeviceId>,
    ) -> Result<OpenDecision, StoreError> {
        let mut tx = self.db.begin().await?;
        let head = audit::take_head(&mut tx, chain_of(partition)).await?;
        let standing = standing(&mut tx, user, client, device).await?;
        Ok(OpenDecision {
            keys: self.keys.clone(),
            tx,
            head,
            standing,
        })
    }

    /// Begins the redemption of a request: takes the issuance, if it is still to be had.
    pub async fn begin_redemption(
        &self,
        id: RequestId,
        partition: Partition,
        now: Timestamp,
    ) -> Result<Redemption, StoreError> {
        let mut tx = self.db.begin().await?;
        let head = audit::take_head(&mut tx, chain_of(partition)).await?;
        let Some(decided) = decided(&mut tx, &self.keys, id).await? else {
            return Ok(Redemption::Undecided);
        };
        if decided.outcome != Outcome::Approved {
            return Ok(Redemption::NotApproved(decided.outcome));
        }
        if now >= redeemable_until(decided.expires_at) {
            return Ok(Redemption::Expired);
        }
        let taken = sqlx::query(
            "INSERT INTO issuances (request_id, kind, issued_at) VALUES ($1, $2, $3) \
             ON CONFLICT (request_id) DO NOTHING",
        )
        .bind(id.to_string())
        .bind(Issuance::Issued.as_str())
        .bind(now.millis())
        .execute(&mut *tx)
        .await?;
        if taken.rows_affected() == 0 {
            let used = used_approval(&mut tx, &self.keys, id).await?;
            let missing = || StoreError::Corrupt {
                table: "issuances",
                row: id.to_string(),
                what: "conflicts but is not there",
            };
            return Ok(Redemption::Used(used.ok_or_else(missing)?));
        }
        let standing = standing(
            &mut tx,
            &decided.user_id,
            &decided.client_id,
            decided.device_id.as_ref(),
        )
        .await?;
        Ok(Redemption::Open(Box::new(OpenRedemption {
            keys: self.keys.clone(),
            tx,
            head,
            decided,
            standing,
            now,
        })))
    }

    /// How a request was decided, and what became of the approval.
    pub async fn lookup(
        &self,
        id: RequestId,
    ) -> Result<Option<(DecidedRequest, Option<UsedApproval>)>, StoreError> {
        let mut reader = self.db.reader().await?;
        match decided(&mut reader, &self.keys, id).await? {
            None => Ok(None),
            Some(outcome) => Ok(Some((
                outcome,
                used_approval(&mut reader, &self.keys, id).await?,
            ))),
        }
    }

    /// What a person denied after `since`, unless an operator has lifted its consequences.
    pub async fn denials_since(
        &self,
        user: &UserId,
        since: Timestamp,
    ) -> Result<Vec<Denial>, StoreError> {
        let mut reader = self.db.reader().await?;
        let rows = sqlx::query(
            "SELECT request_id, client_id, reason, decided_at FROM outcomes \
             WHERE user_id = $1 AND outcome = 'denied' AND decided_at > $2 AND decided_at > \
             COALESCE((SELECT blocks_lifted_at FROM users WHERE id = $1), 0)",
        )
        .bind(user.as_str())
        .bind(since.millis())
        .fetch_all(&mut *reader)
        .await?;
        let denial = |row| {
            let row = Located::new(row, "outcomes", "request_id");
            Ok(Denial {
                client_id: ClientId::new(row.text("client_id")?),
                reason: reason(&row)?,
                at: row.time("decided_at")?,
            })
        };
        rows.iter().map(denial).collect()
    }

    /// A page of what the projection must show of the requests that still matter, in the order of
    /// their ids, after `after`. A row that cannot be read holds up no other.
    pub async fn standing_states(
        &self,
        these: Standings,
        after: Option<&str>,
        limit: u32,
        now: Timestamp,
    ) -> Result<StandingStates, StoreError> {
        let mut reader = self.db.reader().await?;
        let rows = sqlx::query(match these {
            Standings::All => {
                "SELECT o.request_id, o.partition, o.outcome, i.kind FROM outcomes o \
                 LEFT JOIN issuances i ON i.request_id = o.request_id \
                 WHERE o.redeemable_until > $1 AND o.request_id > $2 \
                 ORDER BY o.request_id LIMIT $3"
            }
            Standings::Unused => {
                "SELECT o.request_id, o.partition, o.outcome, NULL AS kind FROM outcomes o \
                 WHERE o.redeemable_until > $1 AND o.request_id > $2 AND NOT EXISTS \
                 (SELECT 1 FROM issuances i WHERE i.request_id = o.request_id) \
                 ORDER BY o.request_id LIMIT $3"
            }
        })
        .bind(now.millis())
        .bind(after.unwrap_or_default())
        .bind(i64::from(limit))
        .fetch_all(&mut *reader)
        .await?;
        let mut page = StandingStates::default();
        for row in &rows {
            let row = Located::new(row, "outcomes", "request_id");
            page.last = Some(row.text("request_id")?);
            match standing_state(&row) {
                Ok(state) => page.states.push(state),
                Err(damage) => page.damaged.push(damage),
            }
        }
        page.is_full = rows.len() == limit as usize;
        Ok(page)
    }
}

fn standing_state(row: &Located<'_>) -> Result<(RequestKey, State), StoreError> {
    let state = match row.optional_text("kind")? {
        None => State::from(row.parse::<Outcome>("outcome")?),
        Some(_) => State::from(row.parse::<Issuance>("kind")?),
    };
    let key = RequestKey {
        partition: Partition(row.small("partition")?),
        id: row.request_id("request_id")?,
    };
    Ok((key, state))
}

pub(super) async fn standing(
    connection: &mut Connection,
    user: &UserId,
    client: &ClientId,
    device: Option<&DeviceId>,
) -> Result<Standing, StoreError> {
    let rows = sqlx::query(
        "SELECT (SELECT login FROM users WHERE id = $1 AND locked_at IS NULL) AS login, \
         (SELECT name FROM users WHERE id = $1) AS name, \
         (SELECT COUNT(*) FROM clients WHERE id = $2 AND locked_at IS NULL) AS clients, \
         (SELECT public_jwk FROM devices WHERE id = $3 AND user_id = $1 AND state = $4) AS device, \
         (SELECT COUNT(*) FROM devices WHERE user_id = $1 AND id <> $3 AND state = $4 \
         AND push_target IS NOT NULL) AS others",
    )
    .bind(user.as_str())
    .bind(client.as_str())
    .bind(device.map_or("", DeviceId::as_str))
    .bind(DeviceState::Active.as_str())
    .fetch_all(connection)
    .await?;
    let missing = || StoreError::Corrupt {
        table: "users",
        row: user.to_string(),
        what: "no standing",
    };
    let row = Located::new(rows.first().ok_or_else(missing)?, "devices", "device");
    let device = match row.optional_text("device")? {
        None => None,
        Some(text) => Some(read_key(&text).ok_or_else(|| row.corrupt("public_jwk"))?),
    };
    let name = row.optional_text("name")?;
    Ok(Standing {
        user: row
            .optional_text("login")?
            .map(|login| Profile { login, name }),
        client_active: row.number("clients")? == 1,
        device,
        has_other_targets: row.number("others")? > 0,
    })
}

async fn decided(
    connection: &mut Connection,
    keys: &KeyRing,
    id: RequestId,
) -> Result<Option<DecidedRequest>, StoreError> {
    let rows = sqlx::query(
        "SELECT request_id, partition, client_id, user_id, device_id, outcome, reason, decided_at, \
         expires_at, evidence FROM outcomes WHERE request_id = $1",
    )
    .bind(id.to_string())
    .fetch_all(connection)
    .await?;
    rows.first()
        .map(|row| read_decided(row, keys, id))
        .transpose()
}

fn read_decided(row: &AnyRow, keys: &KeyRing, id: RequestId) -> Result<DecidedRequest, StoreError> {
    let row = Located::new(row, "outcomes", "request_id");
    let evidence = row.parse_with("evidence", |sealed| {
        serde_json::from_slice(&keys.open_sealed(&evidence_context(id), sealed).ok()?).ok()
    })?;
    Ok(DecidedRequest {
        request_id: id,
        partition: Partition(row.small("partition")?),
        client_id: ClientId::new(row.text("client_id")?),
        user_id: UserId::new(row.text("user_id")?),
        device_id: row.optional_text("device_id")?.map(DeviceId::new),
        outcome: row.parse("outcome")?,
        reason: reason(&row)?,
        decided_at: row.time("decided_at")?,
        expires_at: row.time("expires_at")?,
        evidence,
    })
}

fn reason(row: &Located<'_>) -> Result<Option<DenyReason>, StoreError> {
    let reason = row.optional_text("reason")?.map(|text| text.parse());
    reason.transpose().map_err(|_| row.corrupt("reason"))
}

async fn used_approval(
    connection: &mut Connection,
    keys: &KeyRing,
    id: RequestId,
) -> Result<Option<UsedApproval>, StoreError> {
    let rows = sqlx::query(
        "SELECT request_id, kind, issued_at, token_id, response FROM issuances WHERE request_id = $1",
    )
    .bind(id.to_string())
    .fetch_all(connection)
    .await?;
    let Some(row) = rows.first() else {
        return Ok(None);
    };
    let row = Located::new(row, "issuances", "request_id");
    let response = match row.optional_text("response")? {
        None => None,
        Some(sealed) => {
            let opened = keys.open_sealed(&response_context(id), &sealed).ok();
            let text = opened.and_then(|bytes| String::from_utf8(bytes.to_vec()).ok());
            Some(Secret::new(text.ok_or_else(|| row.corrupt("response"))?))
        }
    };
    Ok(Some(UsedApproval {
        kind: row.parse("kind")?,
        issued_at: row.time("issued_at")?,
        token_id: row.optional_text("token_id")?,
        response,
    }))
}

fn evidence_context(id: RequestId) -> String {
    format!("outcomes|{id}|evidence")
}

fn response_context(id: RequestId) -> String {
    format!("issuances|{id}|response")
}
