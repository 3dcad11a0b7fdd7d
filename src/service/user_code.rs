//! A secret between a person and this server, which a client passes on to show that the person is there
//! (CIBA Core 7.1, `user_code`).

use super::Services;
use crate::crypto::password;
use crate::domain::{Secret, Timestamp, User, UserId};
use crate::store::StoreError;
use serde_json::json;
use std::time::Duration;

/// Wrong codes in a row after which no code is accepted for a while.
const TRIES: u32 = 5;
/// For how long.
const BLOCKED: Duration = Duration::from_secs(15 * 60);

#[derive(Debug, thiserror::Error)]
pub enum UserCodeError {
    #[error("user_code is missing")]
    Missing,
    /// Wrong, none set, or blocked: which of them is nobody's business.
    #[error("user_code is not right")]
    Invalid,
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Services {
    /// Checks the code that a client sent for a person. Every failure takes the same work; tries are
    /// counted before they are checked.
    pub(super) async fn check_user_code(
        &self,
        user: &UserId,
        code: Option<&str>,
        now: Timestamp,
    ) -> Result<(), UserCodeError> {
        let code = Secret::new(code.ok_or(UserCodeError::Missing)?.to_owned());
        let stored = self.directory.user_code(user).await?;
        let blocked_until = now.plus(BLOCKED);
        let may_try = self
            .directory
            .count_user_code_try(user, TRIES, now, blocked_until)
            .await?;
        // One at a time per core is enough for people, and keeps a flood from taking the server's memory.
        let permit = self.hashing.acquire().await;
        let right =
            tokio::task::spawn_blocking(move || password::matches(stored.hash.as_deref(), &code))
                .await
                .unwrap_or(false);
        drop(permit);
        if !may_try || !right {
            return Err(UserCodeError::Invalid);
        }
        Ok(self.directory.clear_user_code_tries(user).await?)
    }

    /// Sets a person's code, or removes it.
    pub async fn set_user_code(&self, user: &User, code: Option<Secret>) -> Result<(), StoreError> {
        let now = self.clock.now();
        let hash = code.map(|code| password::hash(&code));
        let kind = if hash.is_some() {
            "user_code.set"
        } else {
            "user_code.removed"
        };
        let entry = self.entry(kind, now, json!({ "user": user.id }));
        self.directory
            .set_user_code(user, hash.as_deref(), entry)
            .await
    }
}
