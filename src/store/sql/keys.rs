//! The stored key ring.

use super::audit::{self, AuditEntry, SYSTEM_PARTITION};
use super::db::Db;
use super::row::Located;
use crate::crypto::KeyRecord;
use crate::domain::SignatureAlgorithm;
use crate::store::StoreError;

/// All keys ever made, in the order of purpose and version.
pub async fn all(db: &Db) -> Result<Vec<KeyRecord>, StoreError> {
    let mut reader = db.reader().await?;
    let rows = sqlx::query(
        "SELECT purpose, version, algorithm, wrapped, public_jwk, created_at FROM keys \
         ORDER BY purpose, version",
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
                created_at: row.time("created_at")?,
            })
        })
        .collect()
}

/// Stores new keys. A key that another node stored first is left alone: read them all afterwards.
pub async fn insert(db: &Db, records: &[KeyRecord], entry: AuditEntry) -> Result<(), StoreError> {
    let mut tx = db.begin().await?;
    let head = audit::take_head(&mut tx, SYSTEM_PARTITION).await?;
    let mut inserted = 0;
    for record in records {
        let done = sqlx::query(
            "INSERT INTO keys (purpose, version, algorithm, wrapped, public_jwk, created_at) \
             VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (purpose, version) DO NOTHING",
        )
        .bind(record.purpose.as_str())
        .bind(i64::from(record.version))
        .bind(record.algorithm.map(SignatureAlgorithm::as_str))
        .bind(&record.wrapped)
        .bind(&record.public_jwk)
        .bind(record.created_at.millis())
        .execute(&mut *tx)
        .await?;
        inserted += done.rows_affected();
    }
    if inserted == 0 {
        return Ok(());
    }
    audit::append(&mut tx, head, entry).await?;
    tx.commit().await
}
