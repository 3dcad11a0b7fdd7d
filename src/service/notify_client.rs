//! Tells a client how its request was decided: by ping (CIBA Core 10.2) or by push (10.3, 12).

use super::mint::Via;
use super::redeem::PollError;
use super::{Services, log_id};
use crate::domain::breaker::{Change, Health, Limits};
use crate::domain::client::{Client, Delivery, DeliveryMode};
use crate::domain::outcome::{DecidedRequest, Issuance};
use crate::domain::{Outcome, Partition, RequestId, Timestamp};
use crate::failpoint;
use crate::outbound::{Method, OutboundError, OutboundRequest};
use crate::store::sql::ledger::UsedApproval;
use crate::store::{ClaimedJob, StoreError};
use serde_json::json;
use std::time::Duration;

/// A slow client must not take all hands, and one that is down is asked again soon: somebody waits there.
pub(super) const PER_CLIENT: Limits = Limits {
    in_flight: 4,
    failures: 5,
    pause: Duration::from_secs(10),
};

/// What came of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivered {
    /// The client has it, or nothing is left to tell.
    Done,
    /// Worth another try.
    Retry { reason: String },
    /// It was not tried, since too much else is on its way.
    NotNow { reason: String },
    /// The client refused for good.
    Refused { reason: String },
}

impl Delivered {
    pub(super) const fn label(&self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Retry { .. } => "retry",
            Self::NotNow { .. } => "not_now",
            Self::Refused { .. } => "refused",
        }
    }
}

impl Services {
    /// Sends what there is to say about a decided request.
    pub async fn notify_client(&self, id: RequestId) -> Result<Delivered, StoreError> {
        failpoint::hit("notify.claimed");
        let Some((decided, used)) = self.ledger.lookup(id).await? else {
            return Ok(Delivered::Done);
        };
        let Some(client) = self.directory.client(&decided.client_id).await? else {
            return Ok(Delivered::Done);
        };
        // A pinged client comes at once: the projection must know before it does.
        let state = used
            .as_ref()
            .map_or_else(|| decided.outcome.into(), |used| used.kind.into());
        self.project(decided.key(), state).await;
        match client.registration.delivery.clone() {
            Delivery::Poll => Ok(Delivered::Done),
            Delivery::Ping { endpoint } => {
                let body = json!({ "auth_req_id": decided.evidence.auth_req_id }).to_string();
                self.deliver(&client, &endpoint, &decided, body).await
            }
            Delivery::Push { endpoint } => {
                let now = self.clock.now();
                match self.pushed_body(&client, &decided, used, now).await? {
                    None => Ok(Delivered::Done),
                    Some(body) => {
                        let delivered = self.deliver(&client, &endpoint, &decided, body).await?;
                        if delivered == Delivered::Done {
                            self.ledger.erase_response(id).await?;
                            failpoint::hit("notify.after_erase");
                        }
                        Ok(delivered)
                    }
                }
            }
        }
    }

    /// The last attempt failed: tokens that were to be pushed and that nobody received must not live on.
    /// They die with the job. False: there are none, and the job is still to be buried.
    pub async fn give_up_on_client(
        &self,
        claim: &ClaimedJob,
        id: RequestId,
        partition: Partition,
        reason: &str,
    ) -> Result<bool, StoreError> {
        failpoint::hit("give_up.before_ledger");
        let Some((decided, Some(_))) = self.ledger.lookup(id).await? else {
            return Ok(false);
        };
        // A pinged client may have fetched its tokens nevertheless.
        let client = self.directory.client(&decided.client_id).await?;
        if client.is_none_or(|client| client.registration.delivery.mode() != DeliveryMode::Push) {
            return Ok(false);
        }
        let now = self.clock.now();
        let payload = json!({ "request": id, "reason": reason });
        let entry = self.entry("tokens.undelivered", now, payload);
        let given_up = self
            .ledger
            .give_up_tokens(claim, id, partition, reason, now, entry)
            .await?;
        if given_up {
            tracing::warn!(
                request = log_id(id),
                reason,
                "tokens could not be delivered and are revoked"
            );
        }
        Ok(given_up)
    }

    /// What a push says: tokens, made once and kept until they are delivered, or an error (CIBA
    /// Core 12). `None`: it was delivered or given up before.
    async fn pushed_body(
        &self,
        client: &Client,
        decided: &DecidedRequest,
        used: Option<UsedApproval>,
        now: Timestamp,
    ) -> Result<Option<String>, StoreError> {
        let error = |code: &str, description: &str| {
            let body = json!({
                "error": code,
                "error_description": description,
                "auth_req_id": decided.evidence.auth_req_id,
            });
            Ok(Some(body.to_string()))
        };
        if decided.outcome != Outcome::Approved {
            return error("access_denied", "the request was not approved");
        }
        match used {
            Some(used) if used.kind == Issuance::Voided => {
                error("transaction_failed", "the approval was withdrawn")
            }
            Some(used) => Ok(used.response.map(|response| response.expose().to_owned())),
            None => match self.redeem_via(client, decided.key(), Via::Push, now).await {
                Ok(response) => Ok(Some(response.expose().to_owned())),
                Err(PollError::Store(error)) => Err(error),
                Err(PollError::Expired) => error("expired_token", "the request has expired"),
                Err(_) => error("transaction_failed", "the approval was withdrawn"),
            },
        }
    }

    async fn deliver(
        &self,
        client: &Client,
        endpoint: &str,
        decided: &DecidedRequest,
        body: String,
    ) -> Result<Delivered, StoreError> {
        let Some(token) = &decided.evidence.client_notification_token else {
            return Ok(Delivered::Refused {
                reason: "no client_notification_token".into(),
            });
        };
        let Ok(turn) = self.notified.take(&client.id, self.clock.now()) else {
            return Ok(Delivered::Retry {
                reason: "the client is busy or left alone".into(),
            });
        };
        let bearer = format!("Bearer {token}");
        failpoint::hit("notify.before_send");
        let sent = self
            .outbound
            .send(OutboundRequest {
                method: Method::Post,
                url: endpoint.to_owned(),
                headers: vec![
                    ("authorization", bearer),
                    ("content-type", "application/json".to_owned()),
                ],
                body: body.into_bytes(),
                ignore_answer_body: true,
            })
            .await;
        failpoint::hit("notify.after_answer");
        let delivered = judge(sent.map(|response| response.status));
        let health = match delivered {
            Delivered::Retry { .. } => Health::Fails,
            Delivered::Done | Delivered::Refused { .. } | Delivered::NotNow { .. } => Health::Works,
        };
        match turn.end(health, self.clock.now()) {
            Some(Change::Opened) => {
                tracing::warn!(client = %client.id, "a client fails and is left alone for a while");
            }
            Some(Change::Closed) => tracing::info!(client = %client.id, "a client works again"),
            None => {}
        }
        let label = delivered.label();
        let mode = client.registration.delivery.mode();
        tracing::info!(
            request = log_id(decided.request_id),
            client = %client.id,
            %mode,
            outcome = label,
            "client notified"
        );
        metrics::counter!("assent_notifications_total", "mode" => mode.as_str(), "outcome" => label)
            .increment(1);
        Ok(delivered)
    }
}

/// 200 and 204 are success, whatever the body; a redirect is never followed; of the client errors only
/// those that say "later" are worth another try (CIBA Core 10.2).
fn judge(sent: Result<u16, OutboundError>) -> Delivered {
    match sent {
        Ok(200 | 204) => Delivered::Done,
        Ok(status @ (408 | 429 | 500..=599)) => Delivered::Retry {
            reason: format!("the endpoint answered {status}"),
        },
        Ok(status) => Delivered::Refused {
            reason: format!("the endpoint answered {status}"),
        },
        Err(error) if error.is_retryable() => Delivered::Retry {
            reason: error.to_string(),
        },
        Err(error) => Delivered::Refused {
            reason: error.to_string(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_answer_has_its_meaning() {
        let retried = |status| matches!(judge(Ok(status)), Delivered::Retry { .. });
        assert_eq!(
            (judge(Ok(200)), judge(Ok(204))),
            (Delivered::Done, Delivered::Done)
        );
        assert!(retried(500) && retried(503) && retried(408) && retried(429));
        for status in [201, 301, 302, 307, 400, 401, 403, 404, 410] {
            assert!(
                matches!(judge(Ok(status)), Delivered::Refused { .. }),
                "{status}"
            );
        }
    }
}
