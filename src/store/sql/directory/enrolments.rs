//! Enrolments: how a device comes to a person.

use super::Directory;
use crate::domain::device::Device;
use crate::domain::enrolment::{Enrolment, MAX_TRIES};
use crate::domain::{AppId, DeviceId, Job, Partition, Timestamp, UserId};
use crate::store::StoreError;
use crate::store::sql::audit::{self, AuditEntry, chain_of, commit_if_changed};
use crate::store::sql::jobs::{self, LEDGER_QUEUE};
use crate::store::sql::row::Located;

/// The hashes under which an enrolment's codes are stored.
#[derive(Clone, Debug)]
pub struct NewEnrolment {
    pub link_hash: String,
    pub lookup_hash: String,
    pub secret_hash: String,
    pub user_id: UserId,
    pub created_at: Timestamp,
    pub expires_at: Timestamp,
}

/// An enrolment with the hashes it was found by.
#[derive(Clone, Debug)]
pub struct StoredEnrolment {
    pub link_hash: String,
    pub secret_hash: String,
    pub enrolment: Enrolment,
}

/// What came of binding a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    Yes,
    /// The code was used, or ran out, in the meantime.
    Closed,
    /// This key is a device already.
    KnownDevice,
}

impl Directory {
    /// Adds an enrolment; false when one with the same look-up part is there already.
    pub async fn insert_enrolment(
        &self,
        new: &NewEnrolment,
        partition: Partition,
        entry: AuditEntry,
    ) -> Result<bool, StoreError> {
        let change = sqlx::query(
            "INSERT INTO enrolments (link_hash, lookup_hash, secret_hash, user_id, created_at, \
             expires_at, wrong_tries) VALUES ($1, $2, $3, $4, $5, $6, 0) \
             ON CONFLICT (lookup_hash) DO NOTHING",
        )
        .bind(&new.link_hash)
        .bind(&new.lookup_hash)
        .bind(&new.secret_hash)
        .bind(new.user_id.as_str())
        .bind(new.created_at.millis())
        .bind(new.expires_at.millis());
        audit::change(&self.db, chain_of(partition), entry, change).await
    }

    /// Finds an enrolment by the hash of its link code or of its typed code's look-up part.
    pub async fn enrolment(&self, hash: &str) -> Result<Option<StoredEnrolment>, StoreError> {
        let mut reader = self.db.reader().await?;
        let rows = sqlx::query(
            "SELECT link_hash, secret_hash, user_id, expires_at, wrong_tries, device_id \
             FROM enrolments WHERE link_hash = $1 OR lookup_hash = $1",
        )
        .bind(hash)
        .fetch_all(&mut *reader)
        .await?;
        rows.first()
            .map(|row| {
                let row = Located::new(row, "enrolments", "link_hash");
                Ok(StoredEnrolment {
                    link_hash: row.text("link_hash")?,
                    secret_hash: row.text("secret_hash")?,
                    enrolment: Enrolment {
                        user_id: UserId::new(row.text("user_id")?),
                        expires_at: row.time("expires_at")?,
                        wrong_tries: row.small("wrong_tries")?,
                        device_id: row.optional_text("device_id")?.map(DeviceId::new),
                    },
                })
            })
            .transpose()
    }

    /// Counts a wrong guess.
    pub async fn count_wrong_try(&self, link_hash: &str) -> Result<(), StoreError> {
        let mut writer = self.db.writer().await?;
        sqlx::query("UPDATE enrolments SET wrong_tries = wrong_tries + 1 WHERE link_hash = $1")
            .bind(link_hash)
            .execute(&mut *writer)
            .await?;
        Ok(())
    }

    /// Binds a device to the person of an open enrolment, once, and adds the job that tells of it.
    pub async fn bind_device(
        &self,
        link_hash: &str,
        device: &Device,
        partition: Partition,
        now: Timestamp,
        entry: AuditEntry,
        event: Option<&Job>,
    ) -> Result<Bound, StoreError> {
        let mut tx = self.db.begin().await?;
        let head = audit::take_head(&mut tx, chain_of(partition)).await?;
        let inserted = sqlx::query(
            "INSERT INTO devices (id, user_id, state, public_jwk, label, platform, app_version, \
             os_version, push_target, created_at, push_registered_at, app_id) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) \
             ON CONFLICT (id) DO NOTHING",
        )
        .bind(device.id.as_str())
        .bind(device.user_id.as_str())
        .bind(device.state.as_str())
        .bind(device.key.canonical_jwk())
        .bind(&device.description.label)
        .bind(device.description.platform.as_str())
        .bind(&device.description.app_version)
        .bind(&device.description.os_version)
        .bind(self.seal_push_target(&device.id, device.push_target.as_ref()))
        .bind(device.created_at.millis())
        .bind(device.push_registered_at.millis())
        .bind(device.app_id.as_ref().map(AppId::as_str))
        .execute(&mut *tx)
        .await?;
        if inserted.rows_affected() == 0 {
            return Ok(Bound::KnownDevice);
        }
        let used = sqlx::query(
            "UPDATE enrolments SET device_id = $2 WHERE link_hash = $1 AND device_id IS NULL \
             AND expires_at > $3 AND wrong_tries < $4",
        )
        .bind(link_hash)
        .bind(device.id.as_str())
        .bind(now.millis())
        .bind(i64::from(MAX_TRIES))
        .execute(&mut *tx)
        .await?;
        if let Some(event) = event {
            jobs::insert(&mut tx, LEDGER_QUEUE, event, now).await?;
        }
        let bound = commit_if_changed(tx, head, entry, used.rows_affected()).await?;
        Ok(if bound { Bound::Yes } else { Bound::Closed })
    }
}
