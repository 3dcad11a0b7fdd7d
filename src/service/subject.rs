//! The `sub` a client knows a person by (OpenID Connect Core 8, CIBA Core 4).

use super::Services;
use crate::domain::client::{Client, SubjectType};
use crate::domain::{User, UserId};
use crate::store::StoreError;

impl Services {
    /// The same for every client, or another one per sector: made once, then stored, so that it stays
    /// whatever becomes of the key.
    pub(super) async fn subject_for(
        &self,
        client: &Client,
        user: &User,
    ) -> Result<String, StoreError> {
        match &client.registration.subject {
            SubjectType::Public => Ok(user.id.to_string()),
            SubjectType::Pairwise { sector } => {
                let candidate = self.keys.pairwise_subject(sector, &user.id);
                self.directory
                    .pairwise_subject(sector, &user.id, &candidate)
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
