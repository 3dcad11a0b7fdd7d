//! The Directory: clients, people, devices and enrolments.

use super::audit::{self, AuditEntry, SYSTEM_PARTITION, chain_of};
use super::db::{Db, Tx};
use super::row::Located;
use crate::crypto::{KeyRing, base64url};
use crate::domain::client::{Client, SecretVerifier};
use crate::domain::device::{Device, DeviceDescription, DeviceState, PublicKey};
use crate::domain::enrolment::{Enrolment, MAX_TRIES};
use crate::domain::user::{Login, User};
use crate::domain::{ClientId, DeviceId, Partition, Scope, Secret, Timestamp, UserId};
use crate::store::StoreError;
use sqlx::any::AnyRow;
use std::sync::Arc;
use std::time::Duration;

#[derive(Clone)]
pub struct Directory {
    db: Db,
    keys: Arc<KeyRing>,
}

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

macro_rules! select {
    (clients $rest:literal) => {
        concat!(
            "SELECT id, name, auth_method, secret_key_version, secret_mac, scope, delivery_mode, \
             open_requests_per_user, long_poll_ms, created_at, locked_at FROM clients ",
            $rest
        )
    };
    (users $rest:literal) => {
        concat!(
            "SELECT id, partition, login, name, created_at, locked_at FROM users ",
            $rest
        )
    };
    (devices $rest:literal) => {
        concat!(
            "SELECT id, user_id, state, public_jwk, label, platform, app_version, os_version, \
             push_target, created_at, revoked_at FROM devices ",
            $rest
        )
    };
}

impl Directory {
    pub const fn new(db: Db, keys: Arc<KeyRing>) -> Self {
        Self { db, keys }
    }

    // Clients

    /// Adds a client; false when the id is taken.
    pub async fn insert_client(
        &self,
        client: &Client,
        entry: AuditEntry,
    ) -> Result<bool, StoreError> {
        let mut tx = self.db.begin().await?;
        let head = audit::take_head(&mut tx, SYSTEM_PARTITION).await?;
        let done = sqlx::query(
            "INSERT INTO clients (id, name, auth_method, secret_key_version, secret_mac, scope, \
             delivery_mode, open_requests_per_user, long_poll_ms, created_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT (id) DO NOTHING",
        )
        .bind(client.id.as_str())
        .bind(&client.name)
        .bind(client.auth_method.as_str())
        .bind(i64::from(client.secret.key_version))
        .bind(base64url(&client.secret.mac))
        .bind(client.scope.to_string())
        .bind(client.delivery_mode.as_str())
        .bind(i64::from(client.open_requests_per_user))
        .bind(i64::try_from(client.long_poll.as_millis()).unwrap_or(i64::MAX))
        .bind(client.created_at.millis())
        .execute(&mut *tx)
        .await?;
        commit_if_changed(tx, head, entry, done.rows_affected()).await
    }

    pub async fn client(&self, id: &ClientId) -> Result<Option<Client>, StoreError> {
        let mut reader = self.db.reader().await?;
        let rows = sqlx::query(select!(clients "WHERE id = $1"))
            .bind(id.as_str())
            .fetch_all(&mut *reader)
            .await?;
        rows.first().map(client).transpose()
    }

    pub async fn clients(&self) -> Result<Vec<Client>, StoreError> {
        let mut reader = self.db.reader().await?;
        let rows = sqlx::query(select!(clients "ORDER BY created_at, id"))
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
        let mut tx = self.db.begin().await?;
        let head = audit::take_head(&mut tx, SYSTEM_PARTITION).await?;
        let done = sqlx::query(
            "UPDATE clients SET secret_key_version = $2, secret_mac = $3 WHERE id = $1",
        )
        .bind(id.as_str())
        .bind(i64::from(secret.key_version))
        .bind(base64url(&secret.mac))
        .execute(&mut *tx)
        .await?;
        commit_if_changed(tx, head, entry, done.rows_affected()).await
    }

    /// Locks a client; false when there is no such client or it is locked already.
    pub async fn lock_client(
        &self,
        id: &ClientId,
        now: Timestamp,
        entry: AuditEntry,
    ) -> Result<bool, StoreError> {
        let mut tx = self.db.begin().await?;
        let head = audit::take_head(&mut tx, SYSTEM_PARTITION).await?;
        let done =
            sqlx::query("UPDATE clients SET locked_at = $2 WHERE id = $1 AND locked_at IS NULL")
                .bind(id.as_str())
                .bind(now.millis())
                .execute(&mut *tx)
                .await?;
        commit_if_changed(tx, head, entry, done.rows_affected()).await
    }

    // People

    /// Adds a person; false when the login is taken.
    pub async fn insert_user(&self, user: &User, entry: AuditEntry) -> Result<bool, StoreError> {
        let mut tx = self.db.begin().await?;
        let head = audit::take_head(&mut tx, chain_of(user.partition)).await?;
        let done = sqlx::query(
            "INSERT INTO users (id, partition, login, name, created_at) VALUES ($1, $2, $3, $4, $5) \
             ON CONFLICT (login) DO NOTHING",
        )
        .bind(user.id.as_str())
        .bind(chain_of(user.partition))
        .bind(user.login.as_str())
        .bind(&user.name)
        .bind(user.created_at.millis())
        .execute(&mut *tx)
        .await?;
        commit_if_changed(tx, head, entry, done.rows_affected()).await
    }

    pub async fn user(&self, id: &UserId) -> Result<Option<User>, StoreError> {
        let mut reader = self.db.reader().await?;
        let rows = sqlx::query(select!(users "WHERE id = $1"))
            .bind(id.as_str())
            .fetch_all(&mut *reader)
            .await?;
        rows.first().map(user).transpose()
    }

    pub async fn user_by_login(&self, login: &Login) -> Result<Option<User>, StoreError> {
        let mut reader = self.db.reader().await?;
        let rows = sqlx::query(select!(users "WHERE login = $1"))
            .bind(login.as_str())
            .fetch_all(&mut *reader)
            .await?;
        rows.first().map(user).transpose()
    }

    pub async fn users(&self) -> Result<Vec<User>, StoreError> {
        let mut reader = self.db.reader().await?;
        let rows = sqlx::query(select!(users "ORDER BY created_at, id"))
            .fetch_all(&mut *reader)
            .await?;
        rows.iter().map(user).collect()
    }

    /// Locks a person; false when they are locked already.
    pub async fn lock_user(
        &self,
        user: &User,
        now: Timestamp,
        entry: AuditEntry,
    ) -> Result<bool, StoreError> {
        let mut tx = self.db.begin().await?;
        let head = audit::take_head(&mut tx, chain_of(user.partition)).await?;
        let done =
            sqlx::query("UPDATE users SET locked_at = $2 WHERE id = $1 AND locked_at IS NULL")
                .bind(user.id.as_str())
                .bind(now.millis())
                .execute(&mut *tx)
                .await?;
        commit_if_changed(tx, head, entry, done.rows_affected()).await
    }

    // Enrolments

    /// Adds an enrolment; false when one with the same look-up part is there already.
    pub async fn insert_enrolment(
        &self,
        new: &NewEnrolment,
        partition: Partition,
        entry: AuditEntry,
    ) -> Result<bool, StoreError> {
        let mut tx = self.db.begin().await?;
        let head = audit::take_head(&mut tx, chain_of(partition)).await?;
        let done = sqlx::query(
            "INSERT INTO enrolments (link_hash, lookup_hash, secret_hash, user_id, created_at, \
             expires_at, wrong_tries) VALUES ($1, $2, $3, $4, $5, $6, 0) \
             ON CONFLICT (lookup_hash) DO NOTHING",
        )
        .bind(&new.link_hash)
        .bind(&new.lookup_hash)
        .bind(&new.secret_hash)
        .bind(new.user_id.as_str())
        .bind(new.created_at.millis())
        .bind(new.expires_at.millis())
        .execute(&mut *tx)
        .await?;
        commit_if_changed(tx, head, entry, done.rows_affected()).await
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

    /// Binds a device to the person of an open enrolment, once.
    pub async fn bind_device(
        &self,
        link_hash: &str,
        device: &Device,
        partition: Partition,
        now: Timestamp,
        entry: AuditEntry,
    ) -> Result<Bound, StoreError> {
        let mut tx = self.db.begin().await?;
        let head = audit::take_head(&mut tx, chain_of(partition)).await?;
        let inserted = sqlx::query(
            "INSERT INTO devices (id, user_id, state, public_jwk, label, platform, app_version, \
             os_version, push_target, created_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) \
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
        let bound = commit_if_changed(tx, head, entry, used.rows_affected()).await?;
        Ok(if bound { Bound::Yes } else { Bound::Closed })
    }

    // Devices

    pub async fn device(&self, id: &DeviceId) -> Result<Option<Device>, StoreError> {
        let mut reader = self.db.reader().await?;
        let rows = sqlx::query(select!(devices "WHERE id = $1"))
            .bind(id.as_str())
            .fetch_all(&mut *reader)
            .await?;
        rows.first().map(|row| self.read_device(row)).transpose()
    }

    /// All devices a person ever had, oldest first.
    pub async fn devices_of(&self, user: &UserId) -> Result<Vec<Device>, StoreError> {
        let mut reader = self.db.reader().await?;
        let rows = sqlx::query(select!(devices "WHERE user_id = $1 ORDER BY created_at, id"))
            .bind(user.as_str())
            .fetch_all(&mut *reader)
            .await?;
        rows.iter().map(|row| self.read_device(row)).collect()
    }

    /// Moves a device from one state to another; false when it was not in `from`.
    pub async fn move_device(
        &self,
        device: &DeviceId,
        partition: Partition,
        from: &[DeviceState],
        to: DeviceState,
        now: Timestamp,
        entry: AuditEntry,
    ) -> Result<bool, StoreError> {
        let mut tx = self.db.begin().await?;
        let head = audit::take_head(&mut tx, chain_of(partition)).await?;
        let revoked_at = (to == DeviceState::Revoked).then(|| now.millis());
        let mut changed = 0;
        for state in from {
            let done = sqlx::query(
                "UPDATE devices SET state = $3, revoked_at = $4 WHERE id = $1 AND state = $2",
            )
            .bind(device.as_str())
            .bind(state.as_str())
            .bind(to.as_str())
            .bind(revoked_at)
            .execute(&mut *tx)
            .await?;
            changed += done.rows_affected();
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

    /// Changes where a push reaches a device.
    pub async fn set_push_target(
        &self,
        id: &DeviceId,
        platform: crate::domain::device::Platform,
        target: Option<&Secret>,
    ) -> Result<(), StoreError> {
        let mut writer = self.db.writer().await?;
        sqlx::query("UPDATE devices SET platform = $2, push_target = $3 WHERE id = $1")
            .bind(id.as_str())
            .bind(platform.as_str())
            .bind(self.seal_push_target(id, target))
            .execute(&mut *writer)
            .await?;
        Ok(())
    }

    fn seal_push_target(&self, id: &DeviceId, target: Option<&Secret>) -> Option<String> {
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
            state: row.parse("state")?,
            key: row.parse_with("public_jwk", read_key)?,
            description: DeviceDescription {
                label: row.text("label")?,
                platform: row.parse("platform")?,
                app_version: row.text("app_version")?,
                os_version: row.text("os_version")?,
            },
            push_target,
            created_at: row.time("created_at")?,
            revoked_at: row.optional_time("revoked_at")?,
            id,
        })
    }
}

/// Ends a transaction: with its audit row when it changed something, else as if it had never begun.
async fn commit_if_changed(
    mut tx: Tx,
    head: audit::TakenHead,
    entry: AuditEntry,
    changed: u64,
) -> Result<bool, StoreError> {
    if changed == 0 {
        return Ok(false);
    }
    audit::append(&mut tx, head, entry).await?;
    tx.commit().await?;
    Ok(true)
}

fn push_target_context(id: &DeviceId) -> String {
    format!("devices|{id}|push_target")
}

/// Reads a stored public key.
pub(super) fn read_key(text: &str) -> Option<PublicKey> {
    PublicKey::from_jwk(&serde_json::from_str(text).ok()?).ok()
}

fn client(row: &AnyRow) -> Result<Client, StoreError> {
    let row = Located::new(row, "clients", "id");
    Ok(Client {
        id: ClientId::new(row.text("id")?),
        name: row.text("name")?,
        auth_method: row.parse("auth_method")?,
        secret: SecretVerifier {
            key_version: row.small("secret_key_version")?,
            mac: row.bytes32("secret_mac")?,
        },
        scope: row.parse_with("scope", |text| Scope::parse(text).ok())?,
        delivery_mode: row.parse("delivery_mode")?,
        open_requests_per_user: row.small("open_requests_per_user")?,
        long_poll: Duration::from_millis(row.small("long_poll_ms")?),
        created_at: row.time("created_at")?,
        locked_at: row.optional_time("locked_at")?,
    })
}

fn user(row: &AnyRow) -> Result<User, StoreError> {
    let row = Located::new(row, "users", "id");
    Ok(User {
        id: UserId::new(row.text("id")?),
        partition: Partition(row.small("partition")?),
        login: row.parse_with("login", |text| Login::parse(text).ok())?,
        name: row.optional_text("name")?,
        created_at: row.time("created_at")?,
        locked_at: row.optional_time("locked_at")?,
    })
}
