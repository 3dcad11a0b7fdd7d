//! The stored key ring. Rows are added and their times filled in; nothing is ever deleted.

use super::audit::{self, AuditEntry, SYSTEM_PARTITION};
use super::db::{Db, Tx};
use super::row::Located;
use crate::crypto::KeyRecord;
use crate::domain::key::KeyLife;
use crate::domain::{SignatureAlgorithm, Timestamp};
use crate::store::StoreError;
use std::time::Duration;

/// The keys, wrapped as they are.
#[derive(Clone, Debug)]
pub struct KeyTable {
    db: Db,
}

/// A version that is to follow another, or to replace one that is revoked.
#[derive(Debug)]
pub struct Succession<'a> {
    pub new: &'a KeyRecord,
    /// The newest version of the same key when this was decided; 0 for the first of its algorithm.
    pub after: u32,
    /// How long the ones before stay published once they are no longer used; `None`: for ever.
    pub retire_after: Option<Duration>,
    pub revokes: Option<&'a KeyRecord>,
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Succeeded {
    Yes,
    /// Another node was faster: the key has a newer version than this was decided on, or the version to
    /// be revoked is revoked already.
    Overtaken,
    /// The number is taken by a key of another algorithm: read the keys again and take the next.
    Renumber,
}

impl KeyTable {
    pub const fn new(db: Db) -> Self {
        Self { db }
    }

    /// All keys ever made, in the order of purpose and version.
    pub async fn all(&self) -> Result<Vec<KeyRecord>, StoreError> {
        let mut reader = self.db.reader().await?;
        let rows = sqlx::query(
            "SELECT purpose, version, algorithm, wrapped, public_jwk, created_at, activates_at, \
             retires_at, gone_at, revoked_at FROM keys ORDER BY purpose, version",
        )
        .fetch_all(&mut *reader)
        .await?;
        rows.iter()
            .map(|row| {
                let row = Located::new(row, "keys", "purpose");
                Ok(KeyRecord {
                    purpose: row.parse("purpose")?,
                    version: row.small("version")?,
                    algorithm: row.optional("algorithm")?,
                    wrapped: row.text("wrapped")?,
                    public_jwk: row.optional_text("public_jwk")?,
                    life: KeyLife {
                        created_at: row.time("created_at")?,
                        activates_at: row.time("activates_at")?,
                        retires_at: row.optional_time("retires_at")?,
                        gone_at: row.optional_time("gone_at")?,
                        revoked_at: row.optional_time("revoked_at")?,
                    },
                })
            })
            .collect()
    }

    /// Stores the first keys of a ring. One that another node stored first is left alone: read them all
    /// afterwards.
    pub async fn insert_first(
        &self,
        records: &[KeyRecord],
        entry: AuditEntry,
    ) -> Result<(), StoreError> {
        let mut tx = self.db.begin().await?;
        let head = audit::take_head(&mut tx, SYSTEM_PARTITION).await?;
        let mut added = 0;
        for record in records {
            added += insert(&mut tx, record).await?;
        }
        if added == 0 {
            return Ok(());
        }
        audit::append(&mut tx, head, entry).await?;
        tx.commit().await
    }

    /// Adds a version and retires those before it, all at once. The head of the system's audit is the
    /// lock between nodes: of two that decided the same, the second finds that it was overtaken.
    pub async fn succeed(
        &self,
        step: &Succession<'_>,
        entries: Vec<AuditEntry>,
    ) -> Result<Succeeded, StoreError> {
        let mut entries = entries.into_iter();
        let mut tx = self.db.begin().await?;
        let head = audit::take_head(&mut tx, SYSTEM_PARTITION).await?;
        let (newest, last) = newest(&mut tx, step.new).await?;
        if newest != step.after {
            return Ok(Succeeded::Overtaken);
        }
        if last + 1 != step.new.version {
            return Ok(Succeeded::Renumber);
        }
        if let Some(revoked) = step.revokes
            && !mark_revoked(&mut tx, revoked, step.new.life.created_at).await?
        {
            return Ok(Succeeded::Overtaken);
        }
        if insert(&mut tx, step.new).await? == 0 {
            return Ok(Succeeded::Renumber);
        }
        retire(&mut tx, step).await?;
        if let Some(entry) = entries.next() {
            audit::append(&mut tx, head, entry).await?;
        }
        append_all(&mut tx, entries).await?;
        match tx.commit().await {
            Err(StoreError::CommitUnknown(cause)) => {
                // Only our own row holds these bytes.
                let stored = self.all().await;
                match stored.is_ok_and(|all| all.iter().any(|key| key.wrapped == step.new.wrapped))
                {
                    true => Ok(Succeeded::Yes),
                    false => Err(StoreError::CommitUnknown(cause)),
                }
            }
            done => done.map(|()| Succeeded::Yes),
        }
    }

    /// Revokes a version that nothing is made with any more. False: it was revoked already.
    pub async fn revoke(
        &self,
        key: &KeyRecord,
        at: Timestamp,
        entry: AuditEntry,
    ) -> Result<bool, StoreError> {
        let mut tx = self.db.begin().await?;
        let head = audit::take_head(&mut tx, SYSTEM_PARTITION).await?;
        if !mark_revoked(&mut tx, key, at).await? {
            return Ok(false);
        }
        audit::append(&mut tx, head, entry).await?;
        tx.commit().await?;
        Ok(true)
    }
}

/// Returns how many rows were added: none if there is such a version.
async fn insert(tx: &mut Tx, record: &KeyRecord) -> Result<u64, StoreError> {
    let done = sqlx::query(
        "INSERT INTO keys (purpose, version, algorithm, wrapped, public_jwk, created_at, activates_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (purpose, version) DO NOTHING",
    )
    .bind(record.purpose.as_str())
    .bind(i64::from(record.version))
    .bind(record.algorithm.map(SignatureAlgorithm::as_str))
    .bind(&record.wrapped)
    .bind(&record.public_jwk)
    .bind(record.life.created_at.millis())
    .bind(record.life.activates_at.millis())
    .execute(&mut **tx)
    .await?;
    Ok(done.rows_affected())
}

/// The newest version of the same key, and of the purpose over all algorithms; 0 for none.
async fn newest(tx: &mut Tx, key: &KeyRecord) -> Result<(u32, u32), StoreError> {
    let rows =
        sqlx::query("SELECT version, algorithm FROM keys WHERE purpose = $1 ORDER BY version")
            .bind(key.purpose.as_str())
            .fetch_all(&mut **tx)
            .await?;
    let (mut newest, mut last) = (0, 0);
    for row in &rows {
        let row = Located::new(row, "keys", "version");
        last = row.small("version")?;
        if row.optional::<SignatureAlgorithm>("algorithm")? == key.algorithm {
            newest = last;
        }
    }
    Ok((newest, last))
}

async fn mark_revoked(tx: &mut Tx, key: &KeyRecord, at: Timestamp) -> Result<bool, StoreError> {
    let done = sqlx::query(
        "UPDATE keys SET revoked_at = $3 WHERE purpose = $1 AND version = $2 AND revoked_at IS NULL",
    )
    .bind(key.purpose.as_str())
    .bind(i64::from(key.version))
    .bind(at.millis())
    .execute(&mut **tx)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// The versions before the new one retire when it becomes active, unless they have, or will have,
/// retired sooner; one that waited for the revoked version waits for the new one instead.
async fn retire(tx: &mut Tx, step: &Succession<'_>) -> Result<(), StoreError> {
    let Succession { new, .. } = step;
    let retires_at = new.life.activates_at;
    let gone_at = step
        .retire_after
        .map(|after| retires_at.plus(after).millis());
    let awaited = step
        .revokes
        .map(|revoked| revoked.life.activates_at.millis());
    let awaited = awaited.filter(|at| *at > new.life.created_at.millis());
    sqlx::query(
        "UPDATE keys SET retires_at = $4, gone_at = $5 \
         WHERE purpose = $1 AND COALESCE(algorithm, '') = $2 AND version < $3 \
         AND revoked_at IS NULL AND (retires_at IS NULL OR retires_at > $4 OR retires_at = $6)",
    )
    .bind(new.purpose.as_str())
    .bind(new.algorithm.map_or("", SignatureAlgorithm::as_str))
    .bind(i64::from(new.version))
    .bind(retires_at.millis())
    .bind(gone_at)
    .bind(awaited)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

async fn append_all(
    tx: &mut Tx,
    entries: impl Iterator<Item = AuditEntry>,
) -> Result<(), StoreError> {
    for entry in entries {
        let head = audit::take_head(tx, SYSTEM_PARTITION).await?;
        audit::append(tx, head, entry).await?;
    }
    Ok(())
}
