//! Whom does a hint mean? (CIBA Core 7.1)

use super::authenticate_client::AuthenticatedClient;
use super::mint::ID_TOKEN_TYP;
use super::{CLOCKS_APART, Services};
use crate::crypto::ClientKeySet;
use crate::crypto::jose::Jws;
use crate::crypto::sha256_base64url;
use crate::domain::client::HintKind;
use crate::domain::user::Login;
use crate::domain::{SignatureAlgorithm, Timestamp, User, UserId};
use crate::store::StoreError;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::time::Duration;

/// How far an issuer's clock may be ahead of ours.
const SKEW: Duration = Duration::from_secs(60);

/// The one hint of a request.
#[derive(Clone, Debug)]
pub enum Hint {
    Login(String),
    /// A JWT of somebody who may name people.
    LoginToken(String),
    /// An ID Token of ours.
    IdToken(String),
}

impl Hint {
    pub const fn kind(&self) -> HintKind {
        match self {
            Self::Login(_) => HintKind::LoginHint,
            Self::LoginToken(_) => HintKind::LoginHintToken,
            Self::IdToken(_) => HintKind::IdTokenHint,
        }
    }
}

/// Whom a hint means.
pub(super) struct Meant {
    /// `None`: nobody we know.
    pub user: Option<User>,
    /// The same for all spellings of one hint.
    pub name: String,
}

/// Somebody whose `login_hint_token`s are believed.
#[derive(Clone)]
pub struct HintIssuer {
    pub issuer: String,
    pub algorithm: SignatureAlgorithm,
    pub keys: ClientKeySet,
}

#[derive(Debug, thiserror::Error)]
pub enum HintError {
    #[error("the hint is not acceptable")]
    Invalid,
    #[error("the login_hint_token has expired")]
    ExpiredToken,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The claims of an ID Token that matter when it comes back as a hint.
#[derive(Debug, Deserialize)]
struct IdTokenHint {
    iss: String,
    sub: String,
    aud: String,
    exp: i64,
}

/// The claims of a `login_hint_token`.
#[derive(Debug, Deserialize)]
struct LoginHintToken {
    iss: String,
    aud: Audience,
    exp: i64,
    iat: Option<i64>,
    jti: Option<String>,
    /// A [`SubjectIdentifier`], which alone would also read an array of its values.
    sub_id: Map<String, Value>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

/// A subject identifier (RFC 9493 3.2), with no member but those of its format (RFC 9493 3).
#[derive(Debug, Deserialize)]
#[serde(tag = "format", rename_all = "snake_case", deny_unknown_fields)]
enum SubjectIdentifier {
    Account { uri: String },
    Email { email: String },
    IssSub { iss: String, sub: String },
    Opaque { id: String },
    PhoneNumber { phone_number: String },
}

impl Services {
    /// Whom a hint means.
    pub(super) async fn resolve(
        &self,
        client: &AuthenticatedClient,
        hint: &Hint,
        now: Timestamp,
    ) -> Result<Meant, HintError> {
        match hint {
            Hint::Login(login) => self.by_login(login).await,
            Hint::IdToken(token) => self.by_id_token(client, token, now).await,
            Hint::LoginToken(token) => self.by_login_token(client, token, now).await,
        }
    }

    async fn by_login(&self, text: &str) -> Result<Meant, HintError> {
        let login = Login::parse(text);
        let user = match &login {
            Err(_) => None,
            Ok(login) => self.directory.user_by_login(login).await?,
        };
        let name = login.as_ref().map_or(text, Login::as_str);
        Ok(Meant {
            user,
            name: format!("login {name}"),
        })
    }

    async fn by_subject(
        &self,
        client: &AuthenticatedClient,
        sub: &str,
    ) -> Result<Meant, HintError> {
        Ok(Meant {
            user: self.user_by_subject(client, sub).await?,
            name: format!("sub {sub}"),
        })
    }

    /// One of our ID Tokens, for this very client. One that has expired is good for a while longer: it
    /// names a person, it lets nobody in (OpenID Connect Core 3.1.2.1, CIBA Core 7.1).
    async fn by_id_token(
        &self,
        client: &AuthenticatedClient,
        token: &str,
        now: Timestamp,
    ) -> Result<Meant, HintError> {
        let claims: IdTokenHint = self
            .keys
            .verify_hint(ID_TOKEN_TYP, token)
            .map_err(|_| HintError::Invalid)?;
        let good_until = Timestamp::from_secs(claims.exp).plus(self.policy.id_token_hint_lifetime);
        if claims.iss != self.policy.issuer || claims.aud != client.id.as_str() || now >= good_until
        {
            return Err(HintError::Invalid);
        }
        self.by_subject(client, &claims.sub).await
    }

    async fn by_login_token(
        &self,
        client: &AuthenticatedClient,
        token: &str,
        now: Timestamp,
    ) -> Result<Meant, HintError> {
        let jws = Jws::parse(token).map_err(|_| HintError::Invalid)?;
        let named = jws.unverified_member("iss").ok_or(HintError::Invalid)?;
        let issuers = &self.policy.hint_issuers;
        let issuer = issuers
            .iter()
            .find(|issuer| issuer.issuer == named)
            .ok_or(HintError::Invalid)?;
        let claims: LoginHintToken = issuer
            .keys
            .verify(
                jws,
                issuer.algorithm,
                &[None, Some("JWT"), Some("login-hint-token+jwt")],
            )
            .map_err(|_| HintError::Invalid)?;
        let for_us = match &claims.aud {
            Audience::One(aud) => *aud == self.policy.issuer,
            Audience::Many(auds) => auds.contains(&self.policy.issuer),
        };
        let ahead = claims
            .iat
            .is_some_and(|iat| Timestamp::from_secs(iat).since(now) > SKEW);
        if claims.iss != issuer.issuer || !for_us || ahead {
            return Err(HintError::Invalid);
        }
        let sub_id = serde_json::from_value(Value::Object(claims.sub_id));
        let sub_id = sub_id.map_err(|_| HintError::Invalid)?;
        if claims.exp <= now.secs() {
            return Err(HintError::ExpiredToken);
        }
        if let Some(jti) = &claims.jti {
            let use_id = format!(
                "hint|{}|{}",
                sha256_base64url(named.as_bytes()),
                sha256_base64url(jti.as_bytes())
            );
            let until = Timestamp::from_secs(claims.exp).plus(CLOCKS_APART);
            if !self.replays.first_use(&use_id, until, now).await? {
                return Err(HintError::Invalid);
            }
        }
        match sub_id {
            SubjectIdentifier::Email { email } => self.by_login(&email).await,
            SubjectIdentifier::PhoneNumber { phone_number } => self.by_login(&phone_number).await,
            SubjectIdentifier::Account { uri } => match uri.strip_prefix("acct:") {
                Some(account) => self.by_login(account).await,
                None => Err(HintError::Invalid),
            },
            SubjectIdentifier::Opaque { id } => Ok(Meant {
                user: match UserId::parse(&id) {
                    Some(id) => self.directory.user(&id).await?,
                    None => None,
                },
                name: format!("sub {id}"),
            }),
            SubjectIdentifier::IssSub { iss, sub } if iss == self.policy.issuer => {
                self.by_subject(client, &sub).await
            }
            SubjectIdentifier::IssSub { iss, sub } => Ok(Meant {
                user: None,
                name: format!("sub {sub} of {iss}"),
            }),
        }
    }
}
