//! The Directory: clients, people, devices and enrolments.

use super::audit::{self, AuditEntry, SYSTEM_PARTITION, chain_of, commit_if_changed};
use super::db::Db;
use super::row::Located;
use crate::crypto::{KeyRing, base64url};
use crate::domain::client::{Client, SecretVerifier};
use crate::domain::device::{Device, DeviceDescription, DeviceState, PublicKey};
use crate::domain::enrolment::{Enrolment, MAX_TRIES};
use crate::domain::user::{Login, User};
use crate::domain::{ClientId, DeviceId, Partition, Secret, Timestamp, UserId};
use crate::store::StoreError;
use sqlx::any::AnyRow;
use std::sync::Arc;

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

/// A person's user code.
#[derive(Clone, Debug, Default)]
pub struct StoredUserCode {
    /// argon2id, as a PHC string; `None`: the person has no code.
    pub hash: Option<String>,
    pub blocked_until: Option<Timestamp>,
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
            "SELECT id, secret_key_version, secret_mac, registration, created_at, locked_at, \
             tokens_not_before FROM clients ",
            $rest
        )
    };
    (users $rest:literal) => {
        concat!(
            "SELECT id, partition, login, name, created_at, locked_at, tokens_not_before FROM users ",
            $rest
        )
    };
    (devices $rest:literal) => {
        concat!(
            "SELECT id, user_id, state, public_jwk, label, platform, app_version, os_version, \
             push_target, created_at, revoked_at, \
             (SELECT partition FROM users WHERE users.id = devices.user_id) AS partition FROM devices ",
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

    /// Ends every token a client got before now; false when there is no such client.
    pub async fn revoke_client_tokens(
        &self,
        id: &ClientId,
        now: Timestamp,
        entry: AuditEntry,
    ) -> Result<bool, StoreError> {
        let mut tx = self.db.begin().await?;
        let head = audit::take_head(&mut tx, SYSTEM_PARTITION).await?;
        let done = sqlx::query("UPDATE clients SET tokens_not_before = $2 WHERE id = $1")
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

    /// Ends every token that was issued for a person before now.
    pub async fn revoke_user_tokens(
        &self,
        user: &User,
        now: Timestamp,
        entry: AuditEntry,
    ) -> Result<(), StoreError> {
        let mut tx = self.db.begin().await?;
        let head = audit::take_head(&mut tx, chain_of(user.partition)).await?;
        let done = sqlx::query("UPDATE users SET tokens_not_before = $2 WHERE id = $1")
            .bind(user.id.as_str())
            .bind(now.millis())
            .execute(&mut *tx)
            .await?;
        commit_if_changed(tx, head, entry, done.rows_affected())
            .await
            .map(drop)
    }

    /// The `sub` a sector knows a person by: `candidate`, unless the sector has one already.
    pub async fn pairwise_subject(
        &self,
        sector: &str,
        user: &UserId,
        candidate: &str,
    ) -> Result<String, StoreError> {
        let mut writer = self.db.writer().await?;
        sqlx::query(
            "INSERT INTO pairwise_subjects (sub, sector, user_id) VALUES ($1, $2, $3) \
             ON CONFLICT (sector, user_id) DO NOTHING",
        )
        .bind(candidate)
        .bind(sector)
        .bind(user.as_str())
        .execute(&mut *writer)
        .await?;
        drop(writer);
        let mut reader = self.db.reader().await?;
        let rows =
            sqlx::query("SELECT sub FROM pairwise_subjects WHERE sector = $1 AND user_id = $2")
                .bind(sector)
                .bind(user.as_str())
                .fetch_all(&mut *reader)
                .await?;
        let missing = || StoreError::Corrupt {
            table: "pairwise_subjects",
            row: user.to_string(),
            what: "conflicts but is not there",
        };
        Located::new(
            rows.first().ok_or_else(missing)?,
            "pairwise_subjects",
            "sub",
        )
        .text("sub")
    }

    /// The person behind a pairwise `sub` of a sector.
    pub async fn user_of_subject(
        &self,
        sector: &str,
        sub: &str,
    ) -> Result<Option<UserId>, StoreError> {
        let mut reader = self.db.reader().await?;
        let rows =
            sqlx::query("SELECT user_id FROM pairwise_subjects WHERE sub = $1 AND sector = $2")
                .bind(sub)
                .bind(sector)
                .fetch_all(&mut *reader)
                .await?;
        rows.first()
            .map(|row| Located::new(row, "pairwise_subjects", "user_id").text("user_id"))
            .transpose()
            .map(|id| id.map(UserId::new))
    }

    // User codes

    /// A person's user code, as it is stored.
    pub async fn user_code(&self, user: &UserId) -> Result<StoredUserCode, StoreError> {
        let mut reader = self.db.reader().await?;
        let rows =
            sqlx::query("SELECT id, user_code, user_code_blocked_until FROM users WHERE id = $1")
                .bind(user.as_str())
                .fetch_all(&mut *reader)
                .await?;
        let Some(row) = rows.first() else {
            return Ok(StoredUserCode::default());
        };
        let row = Located::new(row, "users", "id");
        Ok(StoredUserCode {
            hash: row.optional_text("user_code")?,
            blocked_until: row.optional_time("user_code_blocked_until")?,
        })
    }

    /// Sets or removes a person's user code; the count of failures begins anew.
    pub async fn set_user_code(
        &self,
        user: &User,
        hash: Option<&str>,
        entry: AuditEntry,
    ) -> Result<(), StoreError> {
        let mut tx = self.db.begin().await?;
        let head = audit::take_head(&mut tx, chain_of(user.partition)).await?;
        let done = sqlx::query(
            "UPDATE users SET user_code = $2, user_code_failures = 0, user_code_blocked_until = NULL \
             WHERE id = $1",
        )
        .bind(user.id.as_str())
        .bind(hash)
        .execute(&mut *tx)
        .await?;
        commit_if_changed(tx, head, entry, done.rows_affected())
            .await
            .map(drop)
    }

    /// Counts a try at a user code before it is checked, so that many at once cannot slip through:
    /// after `limit` in a row without a success, tries are blocked until `blocked_until`. False: blocked.
    pub async fn count_user_code_try(
        &self,
        user: &UserId,
        limit: u32,
        now: Timestamp,
        blocked_until: Timestamp,
    ) -> Result<bool, StoreError> {
        let mut writer = self.db.writer().await?;
        let done = sqlx::query(
            "UPDATE users SET user_code_blocked_until = \
             CASE WHEN user_code_failures + 1 >= $2 THEN $4 ELSE NULL END, user_code_failures = \
             CASE WHEN user_code_failures + 1 >= $2 THEN 0 ELSE user_code_failures + 1 END \
             WHERE id = $1 AND (user_code_blocked_until IS NULL OR user_code_blocked_until <= $3)",
        )
        .bind(user.as_str())
        .bind(i64::from(limit))
        .bind(now.millis())
        .bind(blocked_until.millis())
        .execute(&mut *writer)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// A right user code: the count begins anew.
    pub async fn clear_user_code_tries(&self, user: &UserId) -> Result<(), StoreError> {
        let mut writer = self.db.writer().await?;
        sqlx::query(
            "UPDATE users SET user_code_failures = 0, user_code_blocked_until = NULL WHERE id = $1",
        )
        .bind(user.as_str())
        .execute(&mut *writer)
        .await?;
        Ok(())
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
pub(super) fn read_key(text: &str) -> Option<PublicKey> {
    PublicKey::from_jwk(&serde_json::from_str(text).ok()?).ok()
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

fn user(row: &AnyRow) -> Result<User, StoreError> {
    let row = Located::new(row, "users", "id");
    Ok(User {
        id: UserId::new(row.text("id")?),
        partition: Partition(row.small("partition")?),
        login: row.parse_with("login", |text| Login::parse(text).ok())?,
        name: row.optional_text("name")?,
        created_at: row.time("created_at")?,
        locked_at: row.optional_time("locked_at")?,
        tokens_not_before: row.optional_time("tokens_not_before")?,
    })
}
