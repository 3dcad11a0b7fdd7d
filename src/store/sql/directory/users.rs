//! People: who they are, what sectors know them as, and their user codes.

use super::Directory;
use crate::domain::user::{Login, User};
use crate::domain::{Partition, Timestamp, UserId};
use crate::store::StoreError;
use crate::store::sql::audit::{self, AuditEntry, chain_of};
use crate::store::sql::row::Located;
use sqlx::any::AnyRow;

/// A person's user code.
#[derive(Clone, Debug, Default)]
pub struct StoredUserCode {
    /// argon2id, as a PHC string; `None`: the person has no code.
    pub hash: Option<String>,
    pub blocked_until: Option<Timestamp>,
}

/// A query over all columns of a row.
macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT id, partition, login, name, created_at, locked_at, tokens_not_before FROM users ",
            $rest
        )
    };
}

impl Directory {
    /// Adds a person; false when the login is taken.
    pub async fn insert_user(&self, user: &User, entry: AuditEntry) -> Result<bool, StoreError> {
        let change = sqlx::query(
            "INSERT INTO users (id, partition, login, name, created_at) VALUES ($1, $2, $3, $4, $5) \
             ON CONFLICT (login) DO NOTHING",
        )
        .bind(user.id.as_str())
        .bind(chain_of(user.partition))
        .bind(user.login.as_str())
        .bind(&user.name)
        .bind(user.created_at.millis());
        audit::change(&self.db, chain_of(user.partition), entry, change).await
    }

    pub async fn user(&self, id: &UserId) -> Result<Option<User>, StoreError> {
        let mut reader = self.db.reader().await?;
        let rows = sqlx::query(select!("WHERE id = $1"))
            .bind(id.as_str())
            .fetch_all(&mut *reader)
            .await?;
        rows.first().map(user).transpose()
    }

    /// Whoever is known or not, one row comes back: SQLite is a thread of its own, and each row a message that
    /// takes its time.
    pub async fn user_by_login(&self, login: &Login) -> Result<Option<User>, StoreError> {
        let mut reader = self.db.reader().await?;
        let rows = sqlx::query(
            "SELECT id, partition, login, name, created_at, locked_at, tokens_not_before \
             FROM (SELECT 1 AS one) AS always LEFT JOIN users ON login = $1",
        )
        .bind(login.as_str())
        .fetch_all(&mut *reader)
        .await?;
        let Some(row) = rows.first() else {
            return Ok(None);
        };
        match Located::new(row, "users", "login").optional_text("id")? {
            None => Ok(None),
            Some(_) => user(row).map(Some),
        }
    }

    pub async fn users(&self) -> Result<Vec<User>, StoreError> {
        let mut reader = self.db.reader().await?;
        let rows = sqlx::query(select!("ORDER BY created_at, id"))
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
        let change =
            sqlx::query("UPDATE users SET locked_at = $2 WHERE id = $1 AND locked_at IS NULL")
                .bind(user.id.as_str())
                .bind(now.millis());
        audit::change(&self.db, chain_of(user.partition), entry, change).await
    }

    /// Ends all that keeps a person's phones quiet, and their codes from being taken.
    pub async fn lift_blocks(
        &self,
        user: &User,
        now: Timestamp,
        entry: AuditEntry,
    ) -> Result<(), StoreError> {
        let change = sqlx::query(
            "UPDATE users SET blocks_lifted_at = $2, user_code_failures = 0, \
             user_code_blocked_until = NULL, wrong_matching_codes = 0, matching_blocked_until = NULL \
             WHERE id = $1",
        )
        .bind(user.id.as_str())
        .bind(now.millis());
        audit::change(&self.db, chain_of(user.partition), entry, change)
            .await
            .map(drop)
    }

    /// Ends every token that was issued for a person before now.
    pub async fn revoke_user_tokens(
        &self,
        user: &User,
        now: Timestamp,
        entry: AuditEntry,
    ) -> Result<(), StoreError> {
        let change = sqlx::query("UPDATE users SET tokens_not_before = $2 WHERE id = $1")
            .bind(user.id.as_str())
            .bind(now.millis());
        audit::change(&self.db, chain_of(user.partition), entry, change)
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
        let change = sqlx::query(
            "UPDATE users SET user_code = $2, user_code_failures = 0, user_code_blocked_until = NULL \
             WHERE id = $1",
        )
        .bind(user.id.as_str())
        .bind(hash);
        audit::change(&self.db, chain_of(user.partition), entry, change)
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
