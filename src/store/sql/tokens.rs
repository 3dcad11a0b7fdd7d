//! Access tokens and refresh families: found, refreshed, revoked.

use super::audit::{self, AuditEntry, SYSTEM_PARTITION, TakenHead, chain_of};
use super::db::{Db, Tx};
use super::ledger::{Standing, standing};
use super::pool::Connection;
use super::row::Located;
use crate::crypto::KeyRing;
use crate::domain::token::{AccessToken, KnownToken, RefreshFamily, Revocations};
use crate::domain::{ClientId, DeviceId, Partition, Scope, Secret, Timestamp, UserId};
use crate::store::StoreError;
use sqlx::any::AnyRow;
use std::sync::Arc;

/// An access token to be written down.
#[derive(Clone, Debug)]
pub struct NewAccessToken {
    pub token: AccessToken,
    /// SHA-256 of an opaque token, by which it is found; a JWT is found by its id.
    pub hash: Option<String>,
}

/// A refresh token as it is stored.
#[derive(Clone, Debug)]
pub struct StoredRefreshToken {
    pub hash: String,
    pub family: RefreshFamily,
    pub partition: Partition,
    pub family_revoked_at: Option<Timestamp>,
    /// When it was exchanged, and the response that was given for it, until that is erased.
    pub used: Option<(Timestamp, Option<Secret>)>,
}

/// The answer to an attempt to exchange a refresh token.
pub enum Rotation {
    /// Ours to exchange; nobody else can.
    Open(Box<OpenRotation>),
    /// Exchanged before, or never there: read it again.
    Taken,
}

#[derive(Clone)]
pub struct TokenStore {
    db: Db,
    keys: Arc<KeyRing>,
}

macro_rules! known_tokens {
    ($rest:literal) => {
        concat!(
            "SELECT t.jti, t.client_id, t.user_id, t.device_id, t.family_id, t.subject, t.audience, \
             t.scope, t.acr, t.auth_time, t.issued_at, t.expires_at, t.revoked_at, \
             f.revoked_at AS family_revoked_at, d.state AS device_state, \
             u.locked_at AS user_locked_at, u.tokens_not_before AS user_not_before, \
             c.locked_at AS client_locked_at, c.tokens_not_before AS client_not_before \
             FROM access_tokens t JOIN clients c ON c.id = t.client_id \
             LEFT JOIN users u ON u.id = t.user_id LEFT JOIN devices d ON d.id = t.device_id \
             LEFT JOIN refresh_families f ON f.id = t.family_id WHERE ",
            $rest
        )
    };
}

impl TokenStore {
    pub const fn new(db: Db, keys: Arc<KeyRing>) -> Self {
        Self { db, keys }
    }

    /// An access token by its id.
    pub async fn by_id(&self, id: &str) -> Result<Option<KnownToken>, StoreError> {
        self.find(known_tokens!("t.jti = $1"), id).await
    }

    /// An opaque access token by its hash.
    pub async fn by_hash(&self, hash: &str) -> Result<Option<KnownToken>, StoreError> {
        self.find(known_tokens!("t.token_hash = $1"), hash).await
    }

    async fn find(&self, sql: &'static str, key: &str) -> Result<Option<KnownToken>, StoreError> {
        let mut reader = self.db.reader().await?;
        let rows = sqlx::query(sql).bind(key).fetch_all(&mut *reader).await?;
        rows.first().map(known).transpose()
    }

    /// Writes down a token that a client got for itself.
    pub async fn issue_to_client(
        &self,
        new: &NewAccessToken,
        entry: AuditEntry,
    ) -> Result<(), StoreError> {
        let mut tx = self.db.begin().await?;
        let head = audit::take_head(&mut tx, SYSTEM_PARTITION).await?;
        insert_access_token(&mut tx, new).await?;
        audit::append(&mut tx, head, entry).await?;
        tx.commit().await
    }

    /// A refresh token by its hash.
    pub async fn refresh_token(
        &self,
        hash: &str,
    ) -> Result<Option<StoredRefreshToken>, StoreError> {
        let mut reader = self.db.reader().await?;
        let rows = sqlx::query(
            "SELECT r.token_hash, r.used_at, r.response, f.id, f.client_id, f.user_id, f.device_id, \
             f.subject, f.scope, f.acr, f.auth_time, f.created_at, f.expires_at, f.revoked_at, \
             u.partition FROM refresh_tokens r JOIN refresh_families f ON f.id = r.family_id \
             JOIN users u ON u.id = f.user_id WHERE r.token_hash = $1",
        )
        .bind(hash)
        .fetch_all(&mut *reader)
        .await?;
        rows.first()
            .map(|row| self.read_refresh_token(row))
            .transpose()
    }

    fn read_refresh_token(&self, row: &AnyRow) -> Result<StoredRefreshToken, StoreError> {
        let row = Located::new(row, "refresh_tokens", "token_hash");
        let hash = row.text("token_hash")?;
        let response = match row.optional_text("response")? {
            None => None,
            Some(sealed) => {
                let opened = self
                    .keys
                    .open_sealed(&response_context(&hash), &sealed)
                    .ok();
                let text = opened.and_then(|bytes| String::from_utf8(bytes.to_vec()).ok());
                Some(Secret::new(text.ok_or_else(|| row.corrupt("response"))?))
            }
        };
        Ok(StoredRefreshToken {
            family: RefreshFamily {
                id: row.text("id")?,
                client_id: ClientId::new(row.text("client_id")?),
                user_id: UserId::new(row.text("user_id")?),
                device_id: row.optional_text("device_id")?.map(DeviceId::new),
                subject: row.text("subject")?,
                scope: row.parse_with("scope", |text| Scope::parse(text).ok())?,
                acr: row.text("acr")?,
                auth_time: row.time("auth_time")?,
                created_at: row.time("created_at")?,
                expires_at: row.time("expires_at")?,
            },
            partition: Partition(row.small("partition")?),
            family_revoked_at: row.optional_time("revoked_at")?,
            used: row.optional_time("used_at")?.map(|at| (at, response)),
            hash,
        })
    }

    /// Begins the exchange of a refresh token: marks it used, if it was not. One statement decides who
    /// of many has it.
    pub async fn begin_rotation(
        &self,
        stored: &StoredRefreshToken,
        now: Timestamp,
    ) -> Result<Rotation, StoreError> {
        let mut tx = self.db.begin().await?;
        let head = audit::take_head(&mut tx, chain_of(stored.partition)).await?;
        let taken = sqlx::query(
            "UPDATE refresh_tokens SET used_at = $2 WHERE token_hash = $1 AND used_at IS NULL \
             AND family_id IN (SELECT id FROM refresh_families WHERE id = $3 AND revoked_at IS NULL)",
        )
        .bind(&stored.hash)
        .bind(now.millis())
        .bind(&stored.family.id)
        .execute(&mut *tx)
        .await?;
        if taken.rows_affected() == 0 {
            return Ok(Rotation::Taken);
        }
        let family = &stored.family;
        let standing = standing(
            &mut tx,
            &family.user_id,
            &family.client_id,
            family.device_id.as_ref(),
        )
        .await?;
        Ok(Rotation::Open(Box::new(OpenRotation {
            keys: self.keys.clone(),
            tx,
            head,
            standing,
            hash: stored.hash.clone(),
            family: family.clone(),
            now,
        })))
    }

    /// Ends a family and every access token that came from it. False: it had ended before.
    pub async fn revoke_family(
        &self,
        family_id: &str,
        partition: Partition,
        now: Timestamp,
        entry: AuditEntry,
    ) -> Result<bool, StoreError> {
        let change = sqlx::query(
            "UPDATE refresh_families SET revoked_at = $2 WHERE id = $1 AND revoked_at IS NULL",
        )
        .bind(family_id)
        .bind(now.millis());
        audit::change(&self.db, chain_of(partition), entry, change).await
    }

    /// Ends one access token. False: it had ended before.
    pub async fn revoke_token(
        &self,
        id: &str,
        partition: Option<Partition>,
        now: Timestamp,
        entry: AuditEntry,
    ) -> Result<bool, StoreError> {
        let chain = partition.map_or(SYSTEM_PARTITION, chain_of);
        let change = sqlx::query(
            "UPDATE access_tokens SET revoked_at = $2 WHERE jti = $1 AND revoked_at IS NULL",
        )
        .bind(id)
        .bind(now.millis());
        audit::change(&self.db, chain, entry, change).await
    }

    /// Forgets access tokens that ran out, and erases responses that may not be given again.
    pub async fn sweep(&self, now: Timestamp, used_before: Timestamp) -> Result<(), StoreError> {
        let mut writer = self.db.writer().await?.patient();
        sqlx::query("DELETE FROM access_tokens WHERE expires_at <= $1")
            .bind(now.millis())
            .execute(&mut *writer)
            .await?;
        sqlx::query(
            "UPDATE refresh_tokens SET response = NULL WHERE response IS NOT NULL AND used_at <= $1",
        )
        .bind(used_before.millis())
        .execute(&mut *writer)
        .await?;
        Ok(())
    }
}

/// An exchange that holds the token and its partition's audit head. Dropped, it never was.
pub struct OpenRotation {
    keys: Arc<KeyRing>,
    tx: Tx,
    head: TakenHead,
    hash: String,
    now: Timestamp,
    pub family: RefreshFamily,
    pub standing: Standing,
}

impl OpenRotation {
    /// Commits the successor with its access token and audit row. The response is kept sealed: inside
    /// the grace period the same one is given again.
    ///
    /// # Errors
    /// [`StoreError::CommitUnknown`]: read the refresh token again.
    pub async fn rotate(
        mut self,
        successor_hash: &str,
        access: &NewAccessToken,
        response: &Secret,
        entry: AuditEntry,
    ) -> Result<(), StoreError> {
        insert_refresh_token(&mut self.tx, successor_hash, &self.family.id, self.now).await?;
        insert_access_token(&mut self.tx, access).await?;
        sqlx::query("UPDATE refresh_tokens SET response = $2 WHERE token_hash = $1")
            .bind(&self.hash)
            .bind(
                self.keys
                    .seal(&response_context(&self.hash), response.expose().as_bytes()),
            )
            .execute(&mut *self.tx)
            .await?;
        audit::append(&mut self.tx, self.head, entry).await?;
        self.tx.commit().await
    }
}

pub(super) async fn insert_access_token(
    tx: &mut Tx,
    new: &NewAccessToken,
) -> Result<(), StoreError> {
    let token = &new.token;
    sqlx::query(
        "INSERT INTO access_tokens (jti, token_hash, client_id, user_id, device_id, family_id, subject, \
         audience, scope, acr, auth_time, issued_at, expires_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)",
    )
    .bind(&token.id)
    .bind(&new.hash)
    .bind(token.client_id.as_str())
    .bind(token.user_id.as_ref().map(UserId::as_str))
    .bind(token.device_id.as_ref().map(DeviceId::as_str))
    .bind(&token.family_id)
    .bind(&token.subject)
    .bind(&token.audience)
    .bind(token.scope.to_string())
    .bind(&token.acr)
    .bind(token.auth_time.map(Timestamp::millis))
    .bind(token.issued_at.millis())
    .bind(token.expires_at.millis())
    .execute(&mut **tx)
    .await?;
    Ok(())
}

pub(super) async fn insert_refresh_token(
    connection: &mut Connection,
    hash: &str,
    family_id: &str,
    now: Timestamp,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO refresh_tokens (token_hash, family_id, created_at) VALUES ($1, $2, $3)",
    )
    .bind(hash)
    .bind(family_id)
    .bind(now.millis())
    .execute(connection)
    .await?;
    Ok(())
}

pub(super) async fn insert_family(
    tx: &mut Tx,
    family: &RefreshFamily,
    request_id: &str,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO refresh_families (id, request_id, client_id, user_id, device_id, subject, scope, \
         acr, auth_time, created_at, expires_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
    )
    .bind(&family.id)
    .bind(request_id)
    .bind(family.client_id.as_str())
    .bind(family.user_id.as_str())
    .bind(family.device_id.as_ref().map(DeviceId::as_str))
    .bind(&family.subject)
    .bind(family.scope.to_string())
    .bind(&family.acr)
    .bind(family.auth_time.millis())
    .bind(family.created_at.millis())
    .bind(family.expires_at.millis())
    .execute(&mut **tx)
    .await?;
    Ok(())
}

fn known(row: &AnyRow) -> Result<KnownToken, StoreError> {
    let row = Located::new(row, "access_tokens", "jti");
    let device = row.optional_text("device_state")?.map(|text| text.parse());
    Ok(KnownToken {
        token: AccessToken {
            id: row.text("jti")?,
            client_id: ClientId::new(row.text("client_id")?),
            user_id: row.optional_text("user_id")?.map(UserId::new),
            device_id: row.optional_text("device_id")?.map(DeviceId::new),
            family_id: row.optional_text("family_id")?,
            subject: row.text("subject")?,
            audience: row.text("audience")?,
            scope: row.parse_with("scope", |text| Scope::parse(text).ok())?,
            acr: row.optional_text("acr")?,
            auth_time: row.optional_time("auth_time")?,
            issued_at: row.time("issued_at")?,
            expires_at: row.time("expires_at")?,
        },
        revocations: Revocations {
            token: row.optional_time("revoked_at")?,
            family: row.optional_time("family_revoked_at")?,
            device: device
                .transpose()
                .map_err(|_| row.corrupt("device_state"))?,
            user_locked: row.optional_time("user_locked_at")?,
            user_not_before: row.optional_time("user_not_before")?,
            client_locked: row.optional_time("client_locked_at")?,
            client_not_before: row.optional_time("client_not_before")?,
        },
    })
}

fn response_context(hash: &str) -> String {
    format!("refresh_tokens|{hash}|response")
}
