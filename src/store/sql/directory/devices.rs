//! Devices.

use super::Directory;
use crate::domain::device::{Device, DeviceDescription, DeviceState, Platform, PublicKey};
use crate::domain::{AppId, DeviceId, Job, Partition, Secret, Timestamp, UserId};
use crate::store::StoreError;
use crate::store::sql::audit::{self, AuditEntry, chain_of, commit_if_changed};
use crate::store::sql::jobs::{self, LEDGER_QUEUE};
use crate::store::sql::row::Located;
use sqlx::any::AnyRow;

/// A query over all columns of a row.
macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT id, user_id, state, public_jwk, label, platform, app_version, os_version, \
             push_target, created_at, revoked_at, app_id, \
             COALESCE(push_registered_at, created_at) AS push_registered_at, \
             (SELECT partition FROM users WHERE users.id = devices.user_id) AS partition FROM devices ",
            $rest
        )
    };
}

impl Directory {
    pub async fn device(&self, id: &DeviceId) -> Result<Option<Device>, StoreError> {
        let mut reader = self.db.reader().await?;
        let rows = sqlx::query(select!("WHERE id = $1"))
            .bind(id.as_str())
            .fetch_all(&mut *reader)
            .await?;
        rows.first().map(|row| self.read_device(row)).transpose()
    }

    /// All devices a person ever had, oldest first.
    pub async fn devices_of(&self, user: &UserId) -> Result<Vec<Device>, StoreError> {
        let mut reader = self.db.reader().await?;
        let rows = sqlx::query(select!("WHERE user_id = $1 ORDER BY created_at, id"))
            .bind(user.as_str())
            .fetch_all(&mut *reader)
            .await?;
        rows.iter().map(|row| self.read_device(row)).collect()
    }

    /// Whether a person has a device that can be asked. It costs the same whatever the answer.
    pub async fn has_active_device(&self, user: &UserId) -> Result<bool, StoreError> {
        let mut reader = self.db.reader().await?;
        let rows =
            sqlx::query("SELECT COUNT(*) AS active FROM devices WHERE user_id = $1 AND state = $2")
                .bind(user.as_str())
                .bind(DeviceState::Active.as_str())
                .fetch_all(&mut *reader)
                .await?;
        let Some(row) = rows.first() else {
            return Ok(false);
        };
        Ok(Located::new(row, "devices", "active").number("active")? > 0)
    }

    /// Moves a device from one state to another, and adds the job that tells of it; false when it was not in
    /// `from`.
    pub async fn move_device(
        &self,
        device: &Device,
        from: &[DeviceState],
        to: DeviceState,
        now: Timestamp,
        entry: AuditEntry,
        event: Option<&Job>,
    ) -> Result<bool, StoreError> {
        let mut tx = self.db.begin().await?;
        let head = audit::take_head(&mut tx, chain_of(device.partition)).await?;
        let revoked_at = (to == DeviceState::Revoked).then(|| now.millis());
        let mut changed = 0;
        for state in from {
            let done = sqlx::query(
                "UPDATE devices SET state = $3, revoked_at = $4 WHERE id = $1 AND state = $2",
            )
            .bind(device.id.as_str())
            .bind(state.as_str())
            .bind(to.as_str())
            .bind(revoked_at)
            .execute(&mut *tx)
            .await?;
            changed += done.rows_affected();
        }
        if let Some(event) = event {
            jobs::insert(&mut tx, LEDGER_QUEUE, event, now).await?;
        }
        commit_if_changed(tx, head, entry, changed).await
    }

    /// Changes what a device says of itself.
    pub async fn describe_device(
        &self,
        id: &DeviceId,
        description: &DeviceDescription,
    ) -> Result<(), StoreError> {
        let mut writer = self.db.writer().await?;
        sqlx::query(
            "UPDATE devices SET label = $2, app_version = $3, os_version = $4 WHERE id = $1",
        )
        .bind(id.as_str())
        .bind(&description.label)
        .bind(&description.app_version)
        .bind(&description.os_version)
        .execute(&mut *writer)
        .await?;
        Ok(())
    }

    /// Changes where a push reaches a device, and in which app.
    pub async fn set_push_target(
        &self,
        id: &DeviceId,
        platform: Platform,
        target: Option<&Secret>,
        app_id: Option<&AppId>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let mut writer = self.db.writer().await?;
        sqlx::query(
            "UPDATE devices SET platform = $2, push_target = $3, push_registered_at = $4, app_id = $5 \
             WHERE id = $1",
        )
        .bind(id.as_str())
        .bind(platform.as_str())
        .bind(self.seal_push_target(id, target))
        .bind(now.millis())
        .bind(app_id.map(AppId::as_str))
        .execute(&mut *writer)
        .await?;
        Ok(())
    }

    /// Forgets a push target that its gateway no longer knows. False: the phone has registered another
    /// since `device` was read, and nothing is changed.
    pub async fn clear_push_target(
        &self,
        device: &Device,
        entry: AuditEntry,
    ) -> Result<bool, StoreError> {
        let cleared = sqlx::query(
            "UPDATE devices SET push_target = NULL WHERE id = $1 AND push_target IS NOT NULL \
             AND COALESCE(push_registered_at, created_at) = $2",
        )
        .bind(device.id.as_str())
        .bind(device.push_registered_at.millis());
        audit::change(&self.db, chain_of(device.partition), entry, cleared).await
    }

    pub(super) fn seal_push_target(
        &self,
        id: &DeviceId,
        target: Option<&Secret>,
    ) -> Option<String> {
        target.map(|target| {
            self.keys
                .seal(&push_target_context(id), target.expose().as_bytes())
        })
    }

    fn read_device(&self, row: &AnyRow) -> Result<Device, StoreError> {
        let row = Located::new(row, "devices", "id");
        let id = DeviceId::new(row.text("id")?);
        let push_target = match row.optional_text("push_target")? {
            None => None,
            Some(sealed) => {
                let opened = self.keys.open_sealed(&push_target_context(&id), &sealed);
                let text = opened
                    .ok()
                    .and_then(|bytes| String::from_utf8(bytes.to_vec()).ok());
                Some(Secret::new(text.ok_or_else(|| row.corrupt("push_target"))?))
            }
        };
        Ok(Device {
            user_id: UserId::new(row.text("user_id")?),
            partition: Partition(row.small("partition")?),
            state: row.parse("state")?,
            key: row.parse_with("public_jwk", read_key)?,
            description: DeviceDescription {
                label: row.text("label")?,
                platform: row.parse("platform")?,
                app_version: row.text("app_version")?,
                os_version: row.text("os_version")?,
            },
            push_target,
            push_registered_at: row.time("push_registered_at")?,
            app_id: row.optional_text("app_id")?.map(AppId::new),
            created_at: row.time("created_at")?,
            revoked_at: row.optional_time("revoked_at")?,
            id,
        })
    }
}

fn push_target_context(id: &DeviceId) -> String {
    format!("devices|{id}|push_target")
}

/// Reads a stored public key.
pub(in crate::store::sql) fn read_key(text: &str) -> Option<PublicKey> {
    PublicKey::from_jwk(&serde_json::from_str(text).ok()?).ok()
}
