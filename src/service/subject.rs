//! The `sub` a client knows a person by (OpenID Connect Core 8, CIBA Core 4).

use super::Services;
use crate::domain::client::{Client, SubjectType};
use crate::domain::request::Facts;
use crate::domain::{User, UserId};
use crate::store::StoreError;

impl Services {
    /// The same for every client, or another one per sector: made once, then stored, so that it stays
    /// whatever becomes of the key.
    pub(super) async fn subject_of(&self, facts: &Facts) -> Result<String, StoreError> {
        let user = &facts.user_id;
        match &facts.sector {
            None => Ok(user.to_string()),
            Some(sector) => {
                let candidate = self.keys.pairwise_subject(sector, user);
                self.directory
                    .pairwise_subject(sector, user, &candidate)
                    .await
            }
        }
    }

    /// The person whom a client knows by this `sub`.
    pub(super) async fn user_by_subject(
        &self,
        client: &Client,
        sub: &str,
    ) -> Result<Option<User>, StoreError> {
        let Some(sub) = UserId::parse(sub) else {
            return Ok(None);
        };
        let id = match &client.registration.subject {
            SubjectType::Public => Some(sub),
            SubjectType::Pairwise { sector } => {
                let sub = sub.as_str();
                self.directory.user_of_subject(sector, sub).await?
            }
        };
        match id {
            None => Ok(None),
            Some(id) => self.directory.user(&id).await,
        }
    }
}
