//! What an operator does from the command line.

use super::{CLOCKS_APART, Services};
use crate::crypto::base64url;
use crate::crypto::client_keys::InvalidKeySet;
use crate::crypto::{ClientKeySet, NoSigningKey};
use crate::domain::client::{
    Client, ClientAuthentication, DeliveryMode, Grant, KeySource, Registration,
};
use crate::domain::user::Login;
use crate::domain::{ClientId, Secret, SignatureAlgorithm, User, UserId};
use crate::outbound::RefusedUrl;
use crate::store::StoreError;
use serde_json::json;

/// What is wrong with a registration (RFC 7591 3.2.2).
#[derive(Debug, thiserror::Error)]
pub enum InvalidRegistration {
    #[error("{what} {url} is refused: {why}")]
    Url {
        what: &'static str,
        url: String,
        why: RefusedUrl,
    },
    #[error("the JWK set is not acceptable: {0}")]
    KeySet(#[from] InvalidKeySet),
    #[error("the JWK set holds no {0} key")]
    NoKey(SignatureAlgorithm),
    #[error(transparent)]
    NoSigningKey(#[from] NoSigningKey),
    #[error("a client that is pinged or polls needs the CIBA grant")]
    Grants,
}

impl Services {
    /// Whether a registration can work: its URLs may be called, its keys can be read.
    pub fn check_registration(
        &self,
        registration: &Registration,
    ) -> Result<(), InvalidRegistration> {
        let check = |what: &'static str, url: &str| match self.outbound.check_url(url) {
            Ok(_) => Ok(()),
            Err(why) => Err(InvalidRegistration::Url {
                what,
                url: url.to_owned(),
                why,
            }),
        };
        if let Some(endpoint) = registration.delivery.endpoint() {
            check("the notification endpoint", endpoint)?;
        }
        match &registration.authentication {
            ClientAuthentication::Secret(_) => {}
            ClientAuthentication::PrivateKeyJwt {
                keys: KeySource::JwksUri(uri),
                ..
            } => {
                check("jwks_uri", uri)?;
            }
            ClientAuthentication::PrivateKeyJwt {
                algorithm,
                keys: KeySource::Jwks(set),
            } => {
                let keys = ClientKeySet::parse(set.to_string().as_bytes())?;
                if !keys.has_key_for(*algorithm) {
                    return Err(InvalidRegistration::NoKey(*algorithm));
                }
            }
        }
        if !self.keys.can_sign_tokens(registration.id_token_algorithm) {
            return Err(NoSigningKey(registration.id_token_algorithm).into());
        }
        let fetches = registration.delivery.mode() != DeliveryMode::Push;
        let acts_for_itself = registration.allows(Grant::ClientCredentials);
        if fetches && !acts_for_itself && !registration.allows(Grant::Ciba) {
            return Err(InvalidRegistration::Grants);
        }
        Ok(())
    }

    /// A new secret: 256 random bits behind a prefix that secret scanners can find.
    fn new_client_secret(&self) -> Secret {
        Secret::new(format!(
            "assent_cs_{}",
            base64url(&self.entropy.bytes::<32>())
        ))
    }

    /// Registers a client under `id`, or a random one. If it authenticates by a secret, that is returned
    /// once and never again. `None`: the id is taken.
    pub async fn add_client(
        &self,
        id: Option<ClientId>,
        registration: Registration,
    ) -> Result<Option<(Client, Option<Secret>)>, StoreError> {
        let now = self.clock.now();
        let id = id.unwrap_or_else(|| ClientId::new(format!("client-{}", self.random_id())));
        let secret = match registration.authentication {
            ClientAuthentication::Secret(_) => Some(self.new_client_secret()),
            ClientAuthentication::PrivateKeyJwt { .. } => None,
        };
        let client = Client {
            secret: secret
                .as_ref()
                .map(|secret| self.keys.secret_verifier(&id, secret)),
            id,
            registration,
            created_at: now,
            locked_at: None,
            tokens_not_before: None,
        };
        let payload = json!({ "client": client.id, "registration": client.registration });
        let entry = self.entry("client.added", now, payload);
        let added = self.directory.insert_client(&client, entry).await?;
        Ok(added.then_some((client, secret)))
    }

    /// Gives a client a new secret; the old one ends at once. `None` when there is no client with a secret
    /// by this id.
    pub async fn rotate_client_secret(&self, id: &ClientId) -> Result<Option<Secret>, StoreError> {
        let now = self.clock.now();
        let stored = self.directory.client(id).await?;
        if stored.is_none_or(|client| client.secret.is_none()) {
            return Ok(None);
        }
        let secret = self.new_client_secret();
        let verifier = self.keys.secret_verifier(id, &secret);
        let entry = self.entry("client.secret_rotated", now, json!({ "client": id }));
        let replaced = self.directory.replace_secret(id, &verifier, entry).await?;
        Ok(replaced.then_some(secret))
    }

    /// Locks a client: it can ask for nothing, and what was approved for it yields no tokens.
    pub async fn lock_client(&self, id: &ClientId) -> Result<bool, StoreError> {
        let now = self.clock.now();
        let entry = self.entry("client.locked", now, json!({ "client": id }));
        self.directory.lock_client(id, now, entry).await
    }

    /// Ends every token a client got before now.
    pub async fn revoke_client_tokens(&self, id: &ClientId) -> Result<bool, StoreError> {
        let now = self.clock.now();
        let entry = self.entry("client.tokens_revoked", now, json!({ "client": id }));
        self.directory.revoke_client_tokens(id, now, entry).await
    }

    /// Ends every token that was issued for a person before now.
    pub async fn revoke_user_tokens(&self, user: &User) -> Result<(), StoreError> {
        let now = self.clock.now();
        let entry = self.entry("user.tokens_revoked", now, json!({ "user": user.id }));
        self.directory.revoke_user_tokens(user, now, entry).await
    }

    /// Adds a person; `None` when the login is taken.
    pub async fn add_user(
        &self,
        login: Login,
        name: Option<String>,
    ) -> Result<Option<User>, StoreError> {
        let now = self.clock.now();
        let id = UserId::new(self.random_id());
        let user = User {
            partition: self.keys.partition(&id),
            id,
            login,
            name,
            created_at: now,
            locked_at: None,
            tokens_not_before: None,
        };
        let entry = self.entry("user.added", now, json!({ "user": user.id }));
        Ok(self
            .directory
            .insert_user(&user, entry)
            .await?
            .then_some(user))
    }

    /// Locks a person: nobody can ask them, what is open is cancelled, and what they approved but
    /// nobody redeemed yields no tokens. Returns how many requests were cancelled.
    pub async fn lock_user(&self, user: &User) -> Result<usize, StoreError> {
        let now = self.clock.now();
        let entry = self.entry("user.locked", now, json!({ "user": user.id }));
        self.directory.lock_user(user, now, entry).await?;
        // Also when somebody else locked first: their cancelling may have been interrupted.
        let until = now.plus(CLOCKS_APART);
        self.cancel_open(&user.id, user.partition, until, "user locked")
            .await
    }

    /// Lets a person be asked and answer as if nothing had happened: ends what a report of fraud, denials,
    /// and wrong codes of either kind have brought about.
    pub async fn unblock_user(&self, user: &User) -> Result<(), StoreError> {
        let now = self.clock.now();
        let entry = self.entry("user.unblocked", now, json!({ "user": user.id }));
        self.directory.lift_blocks(user, now, entry).await
    }
}
