//! Firebase Cloud Messaging by its HTTP v1 API.

mod access_token;

use super::{PushMessage, PushOutcome, Reason, Sent, later};
use crate::crypto::jose::SigningKey;
use crate::domain::{Secret, SignatureAlgorithm, Timestamp};
use crate::outbound::{Outbound, OutboundRequest, OutboundResponse};
use access_token::AccessTokens;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

pub const GOOGLES: &str = "https://fcm.googleapis.com";

/// How long Google wants to be left alone when it does not say.
const PAUSE: Duration = Duration::from_secs(60);
const FCM_ERROR: &str = "type.googleapis.com/google.firebase.fcm.v1.FcmError";
const BAD_REQUEST: &str = "type.googleapis.com/google.rpc.BadRequest";

/// What Google hands out as a JSON file.
pub struct ServiceAccount {
    pub project_id: String,
    client_email: String,
    pub token_uri: String,
    key: SigningKey,
}

#[derive(Debug, thiserror::Error)]
pub enum InvalidServiceAccount {
    #[error("not the JSON file of a service account")]
    Form,
    #[error("its project_id is not one")]
    Project,
    #[error("its private_key is not an RSA key in PEM")]
    Key,
}

impl ServiceAccount {
    /// # Errors
    /// [`InvalidServiceAccount`]
    pub fn parse(json: &str) -> Result<Self, InvalidServiceAccount> {
        #[derive(Deserialize)]
        struct File {
            project_id: String,
            private_key_id: String,
            private_key: String,
            client_email: String,
            token_uri: String,
        }
        // The parser's words could quote the file.
        let file: File = serde_json::from_str(json).map_err(|_| InvalidServiceAccount::Form)?;
        let in_a_path = |b: u8| b.is_ascii_alphanumeric() || b"-_.:".contains(&b);
        if file.project_id.is_empty() || !file.project_id.bytes().all(in_a_path) {
            return Err(InvalidServiceAccount::Project);
        }
        let pem = Secret::new(file.private_key);
        let key = SigningKey::from_pem(
            pem.expose(),
            &file.private_key_id,
            SignatureAlgorithm::Rs256,
        );
        Ok(Self {
            key: key.ok_or(InvalidServiceAccount::Key)?,
            project_id: file.project_id,
            client_email: file.client_email,
            token_uri: file.token_uri,
        })
    }
}

/// The way to the phones of one project.
pub struct Fcm {
    outbound: Outbound,
    url: String,
    tokens: AccessTokens,
    /// Whether a message of ours was ever accepted: then a complaint is about the target, not the message.
    has_worked: AtomicBool,
}

impl Fcm {
    /// `base_url`: [`GOOGLES`] or a stand-in, without a slash at the end.
    pub fn new(account: ServiceAccount, base_url: &str, outbound: Outbound) -> Self {
        let project = &account.project_id;
        Self {
            url: format!("{base_url}/v1/projects/{project}/messages:send"),
            tokens: AccessTokens::new(
                account.client_email,
                account.token_uri,
                account.key,
                outbound.clone(),
            ),
            outbound,
            has_worked: AtomicBool::new(false),
        }
    }

    pub(super) async fn send(
        &self,
        target: &Secret,
        message: &PushMessage,
        now: Timestamp,
    ) -> Sent {
        let mut token = match self.tokens.current(now).await {
            Ok(token) => token,
            Err(sent) => return sent,
        };
        let body = body(target, message, now);
        let mut has_renewed = false;
        loop {
            let url = self.url.as_str();
            let request = OutboundRequest::post(url, "application/json", body.clone())
                .header("authorization", format!("Bearer {}", token.expose()));
            let answer = match self.outbound.send(request).await {
                Ok(answer) => answer,
                Err(error) => return Sent::no_answer(&error),
            };
            if answer.status == 401 && !has_renewed && !is_about_another(&answer) {
                has_renewed = true;
                token = match self.tokens.renew(&token, now).await {
                    Ok(renewed) => renewed,
                    Err(sent) => return sent,
                };
                continue;
            }
            return self.judge(&answer, now);
        }
    }

    /// The status decides, the code refines: one that is new to us must not be lost.
    fn judge(&self, answer: &OutboundResponse, now: Timestamp) -> Sent {
        let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let refusal = Refusal::read(&body);
        let reason = |known: &[&str]| {
            if known.contains(&refusal.code) {
                Reason::known(refusal.code)
            } else {
                Reason::unknown(answer.status, refusal.code)
            }
        };
        let until = || answer.retry_after(now);
        let outcome = match (answer.status, refusal.code) {
            (200, _) => {
                self.has_worked.store(true, Ordering::Relaxed);
                PushOutcome::Accepted {
                    id: body["name"].as_str().map(str::to_owned),
                }
            }
            (404, "UNREGISTERED") => PushOutcome::TokenDead {
                reason: reason(&["UNREGISTERED"]),
                since: None,
            },
            (400, "INVALID_ARGUMENT")
                if refusal.is_about_the_token && self.has_worked.load(Ordering::Relaxed) =>
            {
                PushOutcome::TokenDead {
                    reason: reason(&["INVALID_ARGUMENT"]),
                    since: None,
                }
            }
            (400 | 405 | 411 | 413, _) => PushOutcome::OurBug {
                reason: reason(&["INVALID_ARGUMENT"]),
            },
            (401, _) => PushOutcome::Misconfigured {
                reason: reason(&["UNAUTHENTICATED", "THIRD_PARTY_AUTH_ERROR"]),
            },
            (403, _) => PushOutcome::Misconfigured {
                reason: reason(&["SENDER_ID_MISMATCH", "PERMISSION_DENIED"]),
            },
            (429, _) => PushOutcome::Throttled {
                reason: reason(&["QUOTA_EXCEEDED", "RESOURCE_EXHAUSTED"]),
                until: until().unwrap_or_else(|| now.plus(PAUSE)),
            },
            (500..=599, _) => later(reason(&["INTERNAL", "UNAVAILABLE"]), until()),
            // No such project, or not the gateway.
            _ => PushOutcome::Misconfigured {
                reason: reason(&[]),
            },
        };
        // A phone whose app belongs to another project has a target of that one.
        let refuses_us = matches!(outcome, PushOutcome::Misconfigured { .. })
            && !["SENDER_ID_MISMATCH", ANOTHERS].contains(&refusal.code);
        Sent::answered(answer.status, outcome, refuses_us)
    }
}

/// Google has no key for the gateway behind this kind of target (Apple's, a browser's).
const ANOTHERS: &str = "THIRD_PARTY_AUTH_ERROR";

/// No access token of ours mends that.
fn is_about_another(answer: &OutboundResponse) -> bool {
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    Refusal::read(&body).code == ANOTHERS
}

/// Data alone, so that the app itself says in its own language that something waits.
fn body(target: &Secret, message: &PushMessage, now: Timestamp) -> Vec<u8> {
    let left = message.expires_at.since(now).as_secs();
    // What is silent may wait until the phone is awake: Android punishes apps that are woken urgently and show
    // nothing.
    let priority = if message.signal.is_silent() {
        "NORMAL"
    } else {
        "HIGH"
    };
    let message = json!({
        "message": {
            "token": target.expose(),
            "data": {
                "reference": message.reference,
                "signal": message.signal.as_str(),
            },
            "android": {
                "priority": priority,
                "ttl": format!("{left}s"),
                // Takes the place of a wake-up for the same request that has not arrived yet.
                "collapse_key": message.reference,
            },
        },
    });
    message.to_string().into_bytes()
}

/// What a refusal says: FCM's own code, or else the general one of Google's interfaces.
struct Refusal<'a> {
    code: &'a str,
    /// An argument is wrong, and it is the target: FCM complains about nothing else.
    is_about_the_token: bool,
}

impl<'a> Refusal<'a> {
    fn read(body: &'a Value) -> Self {
        let error = &body["error"];
        let details = error["details"].as_array().map_or(&[][..], Vec::as_slice);
        let of_type = |name: &str| details.iter().find(|detail| detail["@type"] == name);
        let fcm_error = of_type(FCM_ERROR).and_then(|detail| detail["errorCode"].as_str());
        let message = error["message"].as_str().unwrap_or_default();
        Self {
            code: fcm_error
                .or_else(|| error["status"].as_str())
                .unwrap_or_default(),
            is_about_the_token: fcm_error.is_some()
                && of_type(BAD_REQUEST).is_none()
                && message.contains("registration token"),
        }
    }
}
