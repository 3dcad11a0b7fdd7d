//! Clients.

use super::Directory;
use crate::crypto::base64url;
use crate::domain::client::{Client, SecretVerifier};
use crate::domain::{ClientId, Timestamp};
use crate::store::StoreError;
use crate::store::sql::audit::{self, AuditEntry, SYSTEM_PARTITION};
use crate::store::sql::row::Located;
use sqlx::any::AnyRow;

/// A query over all columns of a row.
macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT id, secret_key_version, secret_mac, registration, created_at, locked_at, \
             tokens_not_before FROM clients ",
            $rest
        )
    };
}

impl Directory {
    /// Adds a client; false when the id is taken.
    pub async fn insert_client(
        &self,
        client: &Client,
        entry: AuditEntry,
    ) -> Result<bool, StoreError> {
        let change = sqlx::query(
            "INSERT INTO clients (id, secret_key_version, secret_mac, registration, created_at) \
             VALUES ($1, $2, $3, $4, $5) ON CONFLICT (id) DO NOTHING",
        )
        .bind(client.id.as_str())
        .bind(
            client
                .secret
                .as_ref()
                .map(|secret| i64::from(secret.key_version)),
        )
        .bind(client.secret.as_ref().map(|secret| base64url(&secret.mac)))
        .bind(serde_json::to_string(&client.registration).expect("a registration serialises"))
        .bind(client.created_at.millis());
        audit::change(&self.db, SYSTEM_PARTITION, entry, change).await
    }

    pub async fn client(&self, id: &ClientId) -> Result<Option<Client>, StoreError> {
        let mut reader = self.db.reader().await?;
        let rows = sqlx::query(select!("WHERE id = $1"))
            .bind(id.as_str())
            .fetch_all(&mut *reader)
            .await?;
        rows.first().map(client).transpose()
    }

    pub async fn clients(&self) -> Result<Vec<Client>, StoreError> {
        let mut reader = self.db.reader().await?;
        let rows = sqlx::query(select!("ORDER BY created_at, id"))
            .fetch_all(&mut *reader)
            .await?;
        rows.iter().map(client).collect()
    }

    /// Replaces a client's secret; false when there is no such client.
    pub async fn replace_secret(
        &self,
        id: &ClientId,
        secret: &SecretVerifier,
        entry: AuditEntry,
    ) -> Result<bool, StoreError> {
        let change = sqlx::query(
            "UPDATE clients SET secret_key_version = $2, secret_mac = $3 WHERE id = $1",
        )
        .bind(id.as_str())
        .bind(i64::from(secret.key_version))
        .bind(base64url(&secret.mac));
        audit::change(&self.db, SYSTEM_PARTITION, entry, change).await
    }

    /// Locks a client; false when there is no such client or it is locked already.
    pub async fn lock_client(
        &self,
        id: &ClientId,
        now: Timestamp,
        entry: AuditEntry,
    ) -> Result<bool, StoreError> {
        let change =
            sqlx::query("UPDATE clients SET locked_at = $2 WHERE id = $1 AND locked_at IS NULL")
                .bind(id.as_str())
                .bind(now.millis());
        audit::change(&self.db, SYSTEM_PARTITION, entry, change).await
    }

    /// Ends every token a client got before now; false when there is no such client.
    pub async fn revoke_client_tokens(
        &self,
        id: &ClientId,
        now: Timestamp,
        entry: AuditEntry,
    ) -> Result<bool, StoreError> {
        let change = sqlx::query("UPDATE clients SET tokens_not_before = $2 WHERE id = $1")
            .bind(id.as_str())
            .bind(now.millis());
        audit::change(&self.db, SYSTEM_PARTITION, entry, change).await
    }
}

fn client(row: &AnyRow) -> Result<Client, StoreError> {
    let row = Located::new(row, "clients", "id");
    let secret = match row.optional_text("secret_mac")? {
        None => None,
        Some(_) => Some(SecretVerifier {
            key_version: row.small("secret_key_version")?,
            mac: row.bytes32("secret_mac")?,
        }),
    };
    Ok(Client {
        id: ClientId::new(row.text("id")?),
        secret,
        registration: row.parse_with("registration", |text| serde_json::from_str(text).ok())?,
        created_at: row.time("created_at")?,
        locked_at: row.optional_time("locked_at")?,
        tokens_not_before: row.optional_time("tokens_not_before")?,
    })
}
