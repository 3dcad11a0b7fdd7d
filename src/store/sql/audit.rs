//! The audit's rows and checkpoints.

use super::db::{Db, Tx};
use super::row::Located;
use crate::crypto::audit_chain::{self, Head, SALT_LEN};
use crate::crypto::base64url;
use crate::domain::{Partition, Timestamp};
use crate::store::StoreError;
use sqlx::Any;
use sqlx::any::{AnyArguments, AnyRow};
use sqlx::query::Query;
use std::collections::BTreeMap;

/// The chain of what concerns no single person: keys, clients.
pub const SYSTEM_PARTITION: i64 = 256;

/// What is to be written down about one event.
#[derive(Clone, Debug)]
pub struct AuditEntry {
    pub kind: &'static str,
    pub at: Timestamp,
    /// Names of requests, clients, persons and devices; never a secret.
    pub payload: serde_json::Value,
    /// Random bytes that keep the payload's hash from being guessed after the payload is erased.
    pub salt: [u8; SALT_LEN],
}

/// The chain index of a person's partition.
pub fn chain_of(partition: Partition) -> i64 {
    i64::from(partition.0)
}

/// A head whose row is locked until the transaction ends.
#[must_use = "a head that is taken must get its row: append"]
pub(super) struct TakenHead {
    partition: i64,
    /// The number of the row to come.
    seq: i64,
    /// The hash of the row before it.
    previous: String,
}

/// Takes the head of a chain. First in every writing transaction.
pub(super) async fn take_head(tx: &mut Tx, partition: i64) -> Result<TakenHead, StoreError> {
    let rows = sqlx::query(
        "UPDATE audit_heads SET seq = seq + 1 WHERE partition = $1 RETURNING seq, hash",
    )
    .bind(partition)
    .fetch_all(&mut **tx)
    .await?;
    let missing = || StoreError::Corrupt {
        table: "audit_heads",
        row: partition.to_string(),
        what: "missing",
    };
    let row = Located::new(rows.first().ok_or_else(missing)?, "audit_heads", "hash");
    Ok(TakenHead {
        partition,
        seq: row.number("seq")?,
        previous: row.text("hash")?,
    })
}

/// Writes the row that belongs to a taken head.
pub(super) async fn append(
    tx: &mut Tx,
    head: TakenHead,
    entry: AuditEntry,
) -> Result<(), StoreError> {
    let payload = entry.payload.to_string();
    let payload_hash = audit_chain::payload_hash(&entry.salt, &payload);
    let hash = audit_chain::row_hash(
        &head.previous,
        head.partition,
        head.seq,
        entry.at,
        entry.kind,
        &payload_hash,
    );
    sqlx::query(
        "INSERT INTO audit (partition, seq, at, kind, payload_hash, hash) VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(head.partition)
    .bind(head.seq)
    .bind(entry.at.millis())
    .bind(entry.kind)
    .bind(payload_hash)
    .bind(&hash)
    .execute(&mut **tx)
    .await?;
    sqlx::query(
        "INSERT INTO audit_payloads (partition, seq, salt, payload) VALUES ($1, $2, $3, $4)",
    )
    .bind(head.partition)
    .bind(head.seq)
    .bind(base64url(&entry.salt))
    .bind(payload)
    .execute(&mut **tx)
    .await?;
    sqlx::query("UPDATE audit_heads SET hash = $2 WHERE partition = $1")
        .bind(head.partition)
        .bind(hash)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// Ends a transaction: with its audit row when it changed something, else as if it had never begun.
pub(super) async fn commit_if_changed(
    mut tx: Tx,
    head: TakenHead,
    entry: AuditEntry,
    changed: u64,
) -> Result<bool, StoreError> {
    if changed == 0 {
        return Ok(false);
    }
    append(&mut tx, head, entry).await?;
    tx.commit().await?;
    Ok(true)
}

/// Changes something by one statement, with its audit row in the same transaction. False: the statement
/// found nothing to change, and nothing is written.
pub(super) async fn change(
    db: &Db,
    chain: i64,
    entry: AuditEntry,
    statement: Query<'_, Any, AnyArguments>,
) -> Result<bool, StoreError> {
    let mut tx = db.begin().await?;
    let head = take_head(&mut tx, chain).await?;
    let done = statement.execute(&mut *tx).await?;
    commit_if_changed(tx, head, entry, done.rows_affected()).await
}

/// Reads the audit and signs off its length.
#[derive(Clone, Debug)]
pub struct AuditLog {
    db: Db,
}

/// One row as stored. The payload is `None` once it has been erased.
#[derive(Clone, Debug)]
pub struct AuditRow {
    pub partition: i64,
    pub seq: i64,
    pub at: Timestamp,
    pub kind: String,
    pub payload_hash: String,
    pub hash: String,
    pub payload: Option<(String, String)>,
}

impl AuditLog {
    pub const fn new(db: Db) -> Self {
        Self { db }
    }

    /// The heads that have rows, in the order of their partitions.
    pub async fn heads(&self) -> Result<Vec<Head>, StoreError> {
        let mut reader = self.db.reader().await?;
        read_heads(
            sqlx::query(
                "SELECT partition, seq, hash FROM audit_heads WHERE seq > 0 ORDER BY partition",
            )
            .fetch_all(&mut *reader)
            .await?,
        )
    }

    /// Up to `limit` rows of one chain after `seq`, in order.
    pub async fn rows(
        &self,
        partition: i64,
        seq: i64,
        limit: i64,
    ) -> Result<Vec<AuditRow>, StoreError> {
        let mut reader = self.db.reader().await?;
        let rows = sqlx::query(
            "SELECT a.seq, a.at, a.kind, a.payload_hash, a.hash, p.salt, p.payload FROM audit a \
             LEFT JOIN audit_payloads p ON p.partition = a.partition AND p.seq = a.seq \
             WHERE a.partition = $1 AND a.seq > $2 ORDER BY a.seq LIMIT $3",
        )
        .bind(partition)
        .bind(seq)
        .bind(limit)
        .fetch_all(&mut *reader)
        .await?;
        rows.iter()
            .map(|row| {
                let row = Located::new(row, "audit", "hash");
                Ok(AuditRow {
                    partition,
                    seq: row.number("seq")?,
                    at: row.time("at")?,
                    kind: row.text("kind")?,
                    payload_hash: row.text("payload_hash")?,
                    hash: row.text("hash")?,
                    payload: row
                        .optional_text("salt")?
                        .zip(row.optional_text("payload")?),
                })
            })
            .collect()
    }

    /// The signed checkpoints, oldest first.
    pub async fn checkpoints(&self) -> Result<Vec<String>, StoreError> {
        let mut reader = self.db.reader().await?;
        let rows = sqlx::query("SELECT statement FROM checkpoints ORDER BY seq")
            .fetch_all(&mut *reader)
            .await?;
        rows.iter()
            .map(|row| Located::new(row, "checkpoints", "statement").text("statement"))
            .collect()
    }

    /// The newest signed checkpoint.
    pub async fn last_checkpoint(&self) -> Result<Option<String>, StoreError> {
        let mut reader = self.db.reader().await?;
        let rows = sqlx::query("SELECT statement FROM checkpoints ORDER BY seq DESC LIMIT 1")
            .fetch_all(&mut *reader)
            .await?;
        rows.first()
            .map(|row| Located::new(row, "checkpoints", "statement").text("statement"))
            .transpose()
    }

    /// Stores a checkpoint with the heads that moved; false when another node was first with this
    /// number.
    pub async fn insert_checkpoint(
        &self,
        seq: i64,
        at: Timestamp,
        statement: &str,
        moved: &[Head],
    ) -> Result<bool, StoreError> {
        let mut tx = self.db.begin().await?;
        let done = sqlx::query(
            "INSERT INTO checkpoints (seq, created_at, statement) VALUES ($1, $2, $3) \
             ON CONFLICT (seq) DO NOTHING",
        )
        .bind(seq)
        .bind(at.millis())
        .bind(statement)
        .execute(&mut *tx)
        .await?;
        if done.rows_affected() == 0 {
            return Ok(false);
        }
        for head in moved {
            sqlx::query(
                "INSERT INTO anchored_heads (partition, seq, hash) VALUES ($1, $2, $3) \
                 ON CONFLICT (partition) DO UPDATE SET seq = excluded.seq, hash = excluded.hash",
            )
            .bind(head.partition)
            .bind(head.seq)
            .bind(&head.hash)
            .execute(&mut *tx)
            .await?;
        }
        tx.commit().await?;
        Ok(true)
    }

    /// The heads as the stored checkpoints have seen them.
    pub async fn anchored_heads(&self) -> Result<Vec<Head>, StoreError> {
        let mut reader = self.db.reader().await?;
        read_heads(
            sqlx::query("SELECT partition, seq, hash FROM anchored_heads ORDER BY partition")
                .fetch_all(&mut *reader)
                .await?,
        )
    }

    /// The numbers of the first and last row that each chain really has, whatever its head says.
    pub async fn extents(&self) -> Result<BTreeMap<i64, (i64, i64)>, StoreError> {
        let mut reader = self.db.reader().await?;
        let rows = sqlx::query(
            "SELECT partition, MIN(seq) AS first, MAX(seq) AS last FROM audit GROUP BY partition",
        )
        .fetch_all(&mut *reader)
        .await?;
        rows.iter()
            .map(|row| {
                let row = Located::new(row, "audit", "partition");
                let extent = (row.number("first")?, row.number("last")?);
                Ok((row.number("partition")?, extent))
            })
            .collect()
    }
}

fn read_heads(rows: Vec<AnyRow>) -> Result<Vec<Head>, StoreError> {
    rows.iter()
        .map(|row| {
            let row = Located::new(row, "audit_heads", "hash");
            Ok(Head {
                partition: row.number("partition")?,
                seq: row.number("seq")?,
                hash: row.text("hash")?,
            })
        })
        .collect()
}
