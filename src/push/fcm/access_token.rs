//! The access token for FCM: a signed assertion of the service account, exchanged at Google's token endpoint
//! (RFC 7523 2.1), kept until shortly before its end, and fetched by one for all who wait for it.

use crate::crypto::jose::SigningKey;
use crate::domain::{Secret, Timestamp};
use crate::outbound::{Outbound, OutboundRequest, OutboundResponse};
use crate::push::{PushOutcome, Reason, Sent, later};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::sync::Mutex;

const SCOPE: &str = "https://www.googleapis.com/auth/firebase.messaging";
/// An assertion is good for at most an hour.
const ASSERTION_LIFETIME: Duration = Duration::from_secs(3600);
/// Renewed so long before its end.
const EARLY: Duration = Duration::from_secs(300);
/// A failure answers all who waited for the same fetch: otherwise each would try for itself, one after the
/// other, and their jobs' leases would end meanwhile.
const FAILED_FOR: Duration = Duration::from_secs(1);

pub struct AccessTokens {
    outbound: Outbound,
    client_email: String,
    token_uri: String,
    key: SigningKey,
    newest: Mutex<Newest>,
}

enum Newest {
    None,
    Token(Secret, Timestamp),
    Failure(PushOutcome, Timestamp),
}

impl AccessTokens {
    pub fn new(
        client_email: String,
        token_uri: String,
        key: SigningKey,
        outbound: Outbound,
    ) -> Self {
        Self {
            outbound,
            client_email,
            token_uri,
            key,
            newest: Mutex::new(Newest::None),
        }
    }

    /// The token to use.
    ///
    /// # Errors
    /// What it means for the push that there is none.
    pub async fn current(&self, now: Timestamp) -> Result<Secret, Sent> {
        let mut newest = self.newest.lock().await;
        match &*newest {
            Newest::Token(token, until) if now < *until => Ok(token.clone()),
            Newest::Failure(outcome, until) if now < *until => Err(Sent::unasked(outcome.clone())),
            _ => self.fetch(&mut newest, now).await,
        }
    }

    /// Another token than the one that was refused.
    ///
    /// # Errors
    /// As [`AccessTokens::current`].
    pub async fn renew(&self, refused: &Secret, now: Timestamp) -> Result<Secret, Sent> {
        let mut newest = self.newest.lock().await;
        match &*newest {
            // Somebody else was faster.
            Newest::Token(token, _) if token.expose() != refused.expose() => Ok(token.clone()),
            Newest::Failure(outcome, until) if now < *until => Err(Sent::unasked(outcome.clone())),
            _ => self.fetch(&mut newest, now).await,
        }
    }

    async fn fetch(&self, newest: &mut Newest, now: Timestamp) -> Result<Secret, Sent> {
        let fetched = match self.outbound.send(self.request(now)).await {
            Ok(answer) => read(&answer, now),
            Err(error) => Err(Sent::no_answer(&error)),
        };
        match fetched {
            Ok((token, until)) => {
                *newest = Newest::Token(token.clone(), until);
                Ok(token)
            }
            Err(sent) => {
                *newest = Newest::Failure(sent.outcome().clone(), now.plus(FAILED_FOR));
                Err(sent)
            }
        }
    }

    fn request(&self, now: Timestamp) -> OutboundRequest {
        let claims = json!({
            "iss": self.client_email,
            "scope": SCOPE,
            "aud": self.token_uri,
            "iat": now.secs(),
            "exp": now.plus(ASSERTION_LIFETIME).secs(),
        });
        let body = url::form_urlencoded::Serializer::new(String::new())
            .append_pair("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer")
            .append_pair("assertion", &self.key.sign("JWT", &claims))
            .finish();
        let form = "application/x-www-form-urlencoded";
        OutboundRequest::post(self.token_uri.as_str(), form, body.into_bytes())
    }
}

/// The token and until when it is used, or what its absence means.
fn read(answer: &OutboundResponse, now: Timestamp) -> Result<(Secret, Timestamp), Sent> {
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    if answer.status == 200
        && let (Some(token), Some(lifetime)) =
            (body["access_token"].as_str(), body["expires_in"].as_u64())
    {
        let lifetime = Duration::from_secs(lifetime);
        let used_for = lifetime.saturating_sub(EARLY).max(lifetime / 2);
        return Ok((Secret::new(token.to_owned()), now.plus(used_for)));
    }
    // RFC 6749 5.2
    let word = body["error"].as_str().unwrap_or_default();
    let reason = match word {
        "invalid_grant" | "invalid_client" | "unauthorized_client" | "invalid_scope" => {
            Reason::known(format!("token endpoint: {word}"))
        }
        _ => Reason::unknown(answer.status, word),
    };
    let outcome = match answer.status {
        408 | 429 | 500..=599 => later(reason, answer.retry_after(now)),
        _ => PushOutcome::Misconfigured { reason },
    };
    let refuses_us = matches!(outcome, PushOutcome::Misconfigured { .. });
    Err(Sent::answered(answer.status, outcome, refuses_us))
}
