//! Apple Push Notification service: the provider API over HTTP/2, with a provider token.
//!
//! The payload is built by `a2`. Its client is not used: it trusts no root but its own, calls no host but
//! Apple's, and loses the reasons it does not know (ADR 0007).

mod provider_token;

use super::{PushMessage, PushOutcome, Reason, Sent, later};
use crate::crypto::jose::SigningKey;
use crate::domain::{Secret, Timestamp};
use crate::outbound::{Outbound, OutboundRequest, OutboundResponse};
use a2::request::payload::PayloadLike as _;
use a2::{DefaultNotificationBuilder, NotificationBuilder as _, NotificationOptions};
use provider_token::ProviderTokens;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

pub const PRODUCTION: &str = "https://api.push.apple.com";
pub const SANDBOX: &str = "https://api.sandbox.push.apple.com";

/// When Apple says "too many" it does not say until when.
const PAUSE: Duration = Duration::from_secs(10);

/// How one app is reached.
pub struct ApnsSettings {
    /// [`PRODUCTION`], [`SANDBOX`] or a stand-in, without a slash at the end.
    pub base_url: String,
    pub team_id: String,
    /// ES256; its `kid` is what Apple calls the key's id.
    pub key: SigningKey,
    /// The app's bundle id.
    pub topic: String,
}

/// The way to the phones with one app.
pub struct Apns {
    outbound: Outbound,
    base_url: String,
    topic: String,
    tokens: ProviderTokens,
    /// Whether this key, topic and environment have ever reached a phone.
    has_worked: AtomicBool,
}

impl Apns {
    /// `outbound` speaks HTTP/2.
    pub fn new(settings: ApnsSettings, outbound: Outbound) -> Self {
        Self {
            outbound,
            base_url: settings.base_url,
            topic: settings.topic,
            tokens: ProviderTokens::new(settings.team_id, settings.key),
            has_worked: AtomicBool::new(false),
        }
    }

    pub(super) async fn send(
        &self,
        target: &Secret,
        message: &PushMessage,
        now: Timestamp,
    ) -> Sent {
        let target = target.expose();
        if !is_device_token(target) {
            return Sent::unasked(PushOutcome::TokenDead {
                reason: Reason::known("not a device token"),
                since: None,
            });
        }
        let Some(body) = payload(target, message) else {
            return Sent::unasked(PushOutcome::OurBug {
                reason: Reason::known("the payload cannot be written"),
            });
        };
        let mut token = match self.tokens.current(now) {
            Ok(token) => token,
            Err(until) => {
                let reason = Reason::known("TooManyProviderTokenUpdates");
                return Sent::unasked(PushOutcome::Throttled { reason, until });
            }
        };
        let mut has_renewed = false;
        loop {
            let request = self.request(target, token.expose(), message, body.clone());
            let answer = match self.outbound.send(request).await {
                Ok(answer) => answer,
                Err(error) => return Sent::no_answer(&error),
            };
            let refusal = Refusal::read(&answer);
            if answer.status == 403 && refusal.reason == "ExpiredProviderToken" && !has_renewed {
                has_renewed = true;
                if let Some(renewed) = self.tokens.renew(&token, now) {
                    token = renewed;
                    continue;
                }
            }
            if refusal.reason == "TooManyProviderTokenUpdates" {
                self.tokens.hold(now);
            }
            let outcome = self.judge(&answer, &refusal, now);
            let refuses_us = matches!(outcome, PushOutcome::Misconfigured { .. })
                && !ABOUT_THE_TARGET.contains(&refusal.reason.as_str());
            return Sent::answered(answer.status, outcome, refuses_us);
        }
    }

    fn request(
        &self,
        target: &str,
        token: &str,
        message: &PushMessage,
        body: String,
    ) -> OutboundRequest {
        let url = format!("{}/3/device/{target}", self.base_url);
        let id = uuid::Builder::from_random_bytes(message.attempt).into_uuid();
        let request = OutboundRequest::post(url, "application/json", body.into_bytes())
            .header("authorization", format!("bearer {token}"))
            .header("apns-topic", self.topic.as_str())
            .header("apns-id", id.to_string());
        if message.signal.is_silent() {
            // Now or never, and collapsing with nothing: Apple keeps one message for a phone that is away, so
            // that this one, kept, could take the place of an alert that still matters. Lost, it leaves a
            // notification behind until the app is opened.
            return request
                .header("apns-push-type", "background")
                .header("apns-priority", "5")
                .header("apns-expiration", "0");
        }
        request
            .header("apns-push-type", "alert")
            .header("apns-priority", "10")
            .header("apns-expiration", message.expires_at.secs().to_string())
            // On the phone it names the notification, so that the app can take that away again.
            .header("apns-collapse-id", message.reference.as_str())
    }

    /// The status decides, the reason refines: one that is new to us must not be lost.
    fn judge(&self, answer: &OutboundResponse, refusal: &Refusal, now: Timestamp) -> PushOutcome {
        let known = || Reason::known(refusal.reason.as_str());
        let unknown = || Reason::unknown(answer.status, &refusal.reason);
        let reason_if = |is_known: bool| if is_known { known() } else { unknown() };
        let until = || answer.retry_after(now);
        match (answer.status, refusal.reason.as_str()) {
            (200, _) => {
                self.has_worked.store(true, Ordering::Relaxed);
                PushOutcome::Accepted {
                    id: answer.header("apns-id").map(str::to_owned),
                }
            }
            // Dead, or of the other environment: as long as nothing has worked it may well be our mistake,
            // which must not cost every phone its target.
            (400, "BadDeviceToken") if !self.has_worked.load(Ordering::Relaxed) => {
                PushOutcome::Misconfigured { reason: known() }
            }
            (400, "BadDeviceToken") => PushOutcome::TokenDead {
                reason: known(),
                since: None,
            },
            (400, "DeviceTokenNotForTopic" | "TopicDisallowed" | "MissingTopic" | "BadTopic") => {
                PushOutcome::Misconfigured { reason: known() }
            }
            (400, "IdleTimeout") => PushOutcome::Retry { reason: known() },
            (400, reason) => PushOutcome::OurBug {
                reason: reason_if(BUGS.contains(&reason)),
            },
            (403, reason) => PushOutcome::Misconfigured {
                reason: reason_if(CREDENTIALS.contains(&reason)),
            },
            (404 | 405 | 413, reason) => PushOutcome::OurBug {
                reason: reason_if(
                    ["BadPath", "MethodNotAllowed", "PayloadTooLarge"].contains(&reason),
                ),
            },
            (410, reason) => PushOutcome::TokenDead {
                reason: reason_if(["Unregistered", "ExpiredToken"].contains(&reason)),
                since: refusal.since,
            },
            (429, reason) => PushOutcome::Throttled {
                reason: reason_if(
                    ["TooManyRequests", "TooManyProviderTokenUpdates"].contains(&reason),
                ),
                until: until().unwrap_or_else(|| now.plus(PAUSE)),
            },
            (500..=599, reason) => {
                let known = ["InternalServerError", "ServiceUnavailable", "Shutdown"];
                later(reason_if(known.contains(&reason)), until())
            }
            // Whoever redirects us or answers otherwise is not the gateway.
            _ => PushOutcome::Misconfigured { reason: unknown() },
        }
    }
}

/// Whether it is of the form that Apple gives out: hexadecimal digits and nothing else. It becomes part of a
/// path.
pub(super) fn is_device_token(target: &str) -> bool {
    (1..=200).contains(&target.len()) && target.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Reasons of a 400 for which there is only ourselves to blame.
const BUGS: [&str; 8] = [
    "BadCollapseId",
    "BadExpirationDate",
    "BadMessageId",
    "BadPriority",
    "DuplicateHeaders",
    "InvalidPushType",
    "MissingDeviceToken",
    "PayloadEmpty",
];

/// Reasons that look like our mistake and may be one phone's.
const ABOUT_THE_TARGET: [&str; 2] = ["BadDeviceToken", "DeviceTokenNotForTopic"];

/// Reasons of a 403: the key, the team, the environment.
const CREDENTIALS: [&str; 8] = [
    "BadCertificate",
    "BadCertificateEnvironment",
    "BadEnvironmentKeyIdInToken",
    "ExpiredProviderToken",
    "Forbidden",
    "InvalidProviderToken",
    "MissingProviderToken",
    "UnrelatedKeyIdInToken",
];

fn payload(target: &str, message: &PushMessage) -> Option<String> {
    let builder = DefaultNotificationBuilder::new();
    let signal = message.signal.as_str();
    let builder = if message.signal.is_silent() {
        builder.set_content_available()
    } else {
        builder.set_loc_key(signal).set_sound("default")
    };
    let mut payload = builder.build(target, NotificationOptions::default());
    payload
        .add_custom_data("reference", &message.reference)
        .ok()?;
    payload.add_custom_data("signal", &signal).ok()?;
    payload.to_json_string().ok()
}

/// What a refusal says; empty where it says nothing readable.
#[derive(Default)]
struct Refusal {
    reason: String,
    /// Since when a target is dead.
    since: Option<Timestamp>,
}

impl Refusal {
    fn read(answer: &OutboundResponse) -> Self {
        let Ok(body) = serde_json::from_slice::<serde_json::Value>(&answer.body) else {
            return Self::default();
        };
        Self {
            reason: body["reason"].as_str().unwrap_or_default().to_owned(),
            since: body["timestamp"].as_i64().map(Timestamp::from_millis),
        }
    }
}
