//! Tells the operator's systems what happened: webhooks (Standard Webhooks 1.0), signed and at least once.

use super::Services;
use super::notify_client::Delivered;
use crate::crypto::webhook::signatures;
use crate::crypto::{base64url, sha256};
use crate::domain::{Event, EventKind, Job, Partition, Timestamp, WebhookSecret};
use crate::failpoint;
use crate::outbound::{Method, OutboundRequest};
use crate::store::{ClaimedJob, StoreError};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Deliveries at a time: a slow endpoint must not take all hands.
pub(super) const PUBLISHED_AT_ONCE: usize = 16;

/// Who is told.
#[derive(Clone, Debug)]
pub struct Webhook {
    pub url: String,
    /// Each message is signed with all of them.
    pub secrets: Vec<WebhookSecret>,
}

impl Services {
    /// The job that tells of something, for the transaction in which it happens; `None`: nobody has asked to
    /// be told.
    pub(super) fn event(
        &self,
        kind: EventKind,
        partition: Partition,
        now: Timestamp,
    ) -> Option<Job> {
        self.event_named(self.random_id(), kind, partition, now)
    }

    /// The same, for what would otherwise be told again and again: with one `about` it is one event.
    pub(super) fn event_about(
        &self,
        about: &str,
        kind: EventKind,
        partition: Partition,
        now: Timestamp,
    ) -> Option<Job> {
        let name = base64url(&sha256(about.as_bytes())[..16]);
        self.event_named(name, kind, partition, now)
    }

    fn event_named(
        &self,
        name: String,
        kind: EventKind,
        partition: Partition,
        now: Timestamp,
    ) -> Option<Job> {
        self.webhook.as_ref()?;
        Some(Job::PublishEvent {
            event: Event {
                id: format!("evt_{name}"),
                at: now,
                partition,
                kind,
            },
        })
    }

    /// Before a job is given up: whoever dies in between tells twice, by one id, and not never. Of an event
    /// that could not be told there is no telling.
    pub async fn tell_of_dead_job(
        &self,
        claim: &ClaimedJob,
        reason: &str,
    ) -> Result<(), StoreError> {
        if matches!(claim.job, Job::PublishEvent { .. }) {
            return Ok(());
        }
        let now = self.clock.now();
        let kind = EventKind::JobDead {
            job: claim.id.clone(),
            error: reason.to_owned(),
        };
        let about = format!("job.dead|{}", claim.id);
        if let Some(job) = self.event_about(&about, kind, claim.job.partition(), now) {
            self.ledger.add_job(&job, now).await?;
            self.ledger_jobs_ready.notify_waiters();
            failpoint::hit("dead.told");
        }
        Ok(())
    }

    /// Sends one event.
    pub async fn publish_event(&self, event: &Event) -> Delivered {
        failpoint::hit("publish.claimed");
        let Some(webhook) = &self.webhook else {
            return Delivered::Done;
        };
        let Ok(_turn) = self.publishing.try_acquire() else {
            return Delivered::NotNow {
                reason: "the endpoint is busy".into(),
            };
        };
        let (now, body) = (self.clock.now(), body(event));
        let signature = signatures(&webhook.secrets, &event.id, now, &body);
        failpoint::hit("publish.before_send");
        let sent = self
            .outbound
            .send(OutboundRequest {
                method: Method::Post,
                url: webhook.url.clone(),
                headers: vec![
                    ("content-type", "application/json".to_owned()),
                    ("webhook-id", event.id.clone()),
                    ("webhook-timestamp", now.secs().to_string()),
                    ("webhook-signature", signature),
                ],
                body: body.into_bytes(),
                ignore_answer_body: true,
            })
            .await;
        failpoint::hit("publish.after_answer");
        let delivered = match sent.map(|answer| answer.status) {
            Ok(200..=299) => Delivered::Done,
            // The endpoint wants no more of it.
            Ok(410) => Delivered::Refused {
                reason: "the endpoint answered 410".into(),
            },
            // Whatever else it says may be mended: a wrong secret, a path that is not there yet. The
            // specification has all of it tried again.
            Ok(status) => Delivered::Retry {
                reason: format!("the endpoint answered {status}"),
            },
            Err(error) => Delivered::Retry {
                reason: error.to_string(),
            },
        };
        let outcome = delivered.label();
        tracing::info!(event = event.id, outcome, "webhook");
        metrics::counter!("assent_webhooks_total", "outcome" => outcome).increment(1);
        delivered
    }
}

/// `type` and `data` of the event, and when it happened.
fn body(event: &Event) -> String {
    let nanos = i128::from(event.at.millis()) * 1_000_000;
    let at = OffsetDateTime::from_unix_timestamp_nanos(nanos).ok();
    let mut body = json!(event.kind);
    body["timestamp"] = at
        .and_then(|at| at.format(&Rfc3339).ok())
        .map_or(Value::Null, Value::String);
    body.to_string()
}
