//! Web Push (RFC 8030), encrypted for the browser (RFC 8291), with VAPID (RFC 8292).
//!
//! `web-push` builds and encrypts the message. The VAPID token is our own: the crate's has the machine's
//! clock in it, and an audience without a port.

use super::{PushMessage, PushOutcome, Reason, Sent, later};
use crate::crypto::jose::SigningKey;
use crate::crypto::jwk::PublicJwk;
use crate::crypto::{base64url, from_base64url};
use crate::domain::device::{InvalidPushTarget, PublicKey};
use crate::domain::{Secret, Timestamp};
use crate::outbound::{Outbound, OutboundRequest, OutboundResponse, Url, is_loopback};
use serde_json::json;
use std::time::Duration;
use web_push::{
    ContentEncoding, SubscriptionInfo, Urgency, VapidSignature, WebPushError, WebPushMessageBuilder,
};

/// RFC 8292 2 allows a day.
const TOKEN_LIFETIME: Duration = Duration::from_secs(12 * 3600);
/// How long a push service wants to be left alone when it does not say.
const PAUSE: Duration = Duration::from_secs(60);

/// Who we are to push services, and which of them we talk to.
pub struct WebPushSettings {
    /// ES256. Subscriptions are made for its public half and die with it.
    pub key: SigningKey,
    /// Whom a push service may complain to: a `mailto:` or `https:` URL.
    pub subject: String,
    /// Hosts of push services; `*.example.org` stands for every host below that domain. The endpoint comes
    /// from the phone, which must not choose what we call.
    pub allowed_hosts: Vec<String>,
}

/// The way to browsers.
pub struct WebPush {
    outbound: Outbound,
    key: SigningKey,
    /// As an uncompressed point.
    public_key: Vec<u8>,
    subject: String,
    allowed_hosts: Vec<String>,
}

/// Where a browser is reached, at a push service that we talk to.
pub(super) struct Subscription {
    info: SubscriptionInfo,
    endpoint: Url,
}

impl Subscription {
    pub(super) fn host(&self) -> &str {
        self.endpoint.host_str().unwrap_or_default()
    }
}

impl WebPush {
    /// `None` when the key is not for ES256.
    pub fn new(settings: WebPushSettings, outbound: Outbound) -> Option<Self> {
        let PublicJwk::Curve(PublicKey::P256 { x, y }) = &settings.key.public else {
            return None;
        };
        // SEC 1, 2.3.3
        let public_key = [vec![4], from_base64url(x)?, from_base64url(y)?].concat();
        Some(Self {
            outbound,
            key: settings.key,
            public_key,
            subject: settings.subject,
            allowed_hosts: settings.allowed_hosts,
        })
    }

    /// What a browser subscribes with (`applicationServerKey`).
    pub fn public_key(&self) -> String {
        base64url(&self.public_key)
    }

    /// Reads what a browser's app has registered.
    ///
    /// # Errors
    /// Why nothing can be sent there.
    pub(super) fn subscription(&self, target: &Secret) -> Result<Subscription, InvalidPushTarget> {
        let info: SubscriptionInfo =
            serde_json::from_str(target.expose()).map_err(|_| InvalidPushTarget::Form)?;
        let endpoint = self.outbound.check_url(&info.endpoint).ok();
        match endpoint.filter(|url| self.allows(url)) {
            Some(endpoint) => Ok(Subscription { info, endpoint }),
            None => Err(InvalidPushTarget::Host),
        }
    }

    pub(super) async fn send(
        &self,
        subscription: &Subscription,
        message: &PushMessage,
        now: Timestamp,
    ) -> Sent {
        let request = match self.request(subscription, message, now) {
            Ok(request) => request,
            Err(WebPushError::InvalidCryptoKeys) => return Sent::unasked(not_a_subscription()),
            Err(error) => {
                let reason = Reason::known(format!("the message cannot be built: {error}"));
                return Sent::unasked(PushOutcome::OurBug { reason });
            }
        };
        match self.outbound.send(request).await {
            // A refusal may be about this one subscription: its path is of the phone's choosing.
            Ok(answer) => Sent::answered(answer.status, judge(&answer, now), false),
            Err(error) => Sent::no_answer(&error),
        }
    }

    /// Push services answer at the port of https. At another one a phone could make us fail at its will.
    fn allows(&self, endpoint: &Url) -> bool {
        let is_here = endpoint.host().is_some_and(|host| is_loopback(&host));
        if endpoint.port().is_some() && !is_here {
            return false;
        }
        let host = endpoint.host_str().unwrap_or_default();
        self.allowed_hosts
            .iter()
            .any(|allowed| match allowed.strip_prefix('*') {
                None => allowed == host,
                Some(domain) => domain.starts_with('.') && host.ends_with(domain),
            })
    }

    fn request(
        &self,
        Subscription { info, endpoint }: &Subscription,
        message: &PushMessage,
        now: Timestamp,
    ) -> Result<OutboundRequest, WebPushError> {
        let left = message.expires_at.since(now).as_secs();
        let ttl = u32::try_from(left).unwrap_or(u32::MAX);
        let content = json!({
            "reference": message.reference,
            "signal": message.signal.as_str(),
        })
        .to_string();
        let claims = json!({
            "aud": endpoint.origin().ascii_serialization(),
            "exp": now.plus(TOKEN_LIFETIME).secs(),
            "sub": self.subject,
        });
        // Low would wait for a charger.
        let urgency = if message.signal.is_silent() {
            Urgency::Normal
        } else {
            Urgency::High
        };
        let mut builder = WebPushMessageBuilder::new(info);
        builder.set_ttl(ttl);
        builder.set_urgency(urgency);
        // Takes the place of a wake-up for the same request that has not arrived yet.
        builder.set_topic(message.reference.clone());
        builder.set_payload(ContentEncoding::Aes128Gcm, content.as_bytes());
        builder.set_vapid_signature(VapidSignature {
            auth_t: self.key.sign("JWT", &claims),
            auth_k: self.public_key.clone(),
        });
        let built = builder.build()?;
        let payload = built.payload.ok_or(WebPushError::Unspecified)?;
        let octets = "application/octet-stream";
        let request = OutboundRequest::post(endpoint.as_str(), octets, payload.content)
            .header("content-encoding", payload.content_encoding.to_str())
            .header("ttl", built.ttl.to_string())
            .header("urgency", urgency.to_string())
            .header("topic", built.topic.unwrap_or_default())
            .ignoring_the_answers_body();
        let headers = payload.crypto_headers.into_iter();
        Ok(headers.fold(request, |request, (name, value)| {
            request.header(name, value)
        }))
    }
}

pub(super) fn not_a_subscription() -> PushOutcome {
    PushOutcome::TokenDead {
        reason: Reason::known("not a subscription"),
        since: None,
    }
}

/// Push services explain themselves in prose, each in its own: the status has to do.
fn judge(answer: &OutboundResponse, now: Timestamp) -> PushOutcome {
    let reason = || Reason::known(format!("the push service answered {}", answer.status));
    let until = answer.retry_after(now);
    match answer.status {
        // The answer names the message by a URL that could delete it: nothing for a log.
        200..=202 => PushOutcome::Accepted { id: None },
        404 | 410 => PushOutcome::TokenDead {
            reason: reason(),
            since: None,
        },
        // Ours is not the key that the browser subscribed with, or not well used.
        401 | 403 => PushOutcome::Misconfigured { reason: reason() },
        // Microsoft's service says 406 where it means 429.
        406 | 429 => PushOutcome::Throttled {
            reason: reason(),
            until: until.unwrap_or_else(|| now.plus(PAUSE)),
        },
        400 | 405 | 411 | 413 | 415 => PushOutcome::OurBug { reason: reason() },
        500..=599 => later(reason(), until),
        status => PushOutcome::Misconfigured {
            reason: Reason::unknown(status, ""),
        },
    }
}
