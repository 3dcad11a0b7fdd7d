//! How requests and jobs are written. Many wait at a time and all of it is memory: names of one letter,
//! nothing that the key says already, and a job so short that Redis keeps it without a table.

use crate::crypto::sha256_base64url;
use crate::domain::client::DeliveryMode;
use crate::domain::request::Facts;
use crate::domain::{
    BindingMessage, ClientId, Job, Partition, RequestId, RequestKey, Scope, Timestamp, UserId,
};
use serde::{Deserialize, Serialize};

/// What stands for a client in an open set, whose members must be short: 96 bits of a hash. Should two
/// clients ever share one, they share their cap on one person's requests.
pub fn tag(client: &ClientId) -> String {
    let mut hash = sha256_base64url(client.as_str().as_bytes());
    hash.truncate(TAG_LEN);
    hash
}

/// The length of a tag.
pub const TAG_LEN: usize = 16;
/// What follows the tag where the request is a decoy.
pub const DECOY: &str = "-";

/// [`Facts`] without the key.
#[derive(Serialize, Deserialize)]
struct Asked {
    #[serde(rename = "c")]
    client_id: ClientId,
    #[serde(rename = "u")]
    user_id: UserId,
    #[serde(rename = "a")]
    sealed_auth_req_id: String,
    #[serde(rename = "n", default, skip_serializing_if = "Option::is_none")]
    sealed_notification_token: Option<String>,
    #[serde(rename = "j", default, skip_serializing_if = "Option::is_none")]
    sector: Option<String>,
    #[serde(rename = "s")]
    scope: Scope,
    #[serde(rename = "r")]
    acr: String,
    #[serde(rename = "b", default, skip_serializing_if = "Option::is_none")]
    binding_message: Option<BindingMessage>,
    #[serde(rename = "d", default, skip_serializing_if = "Option::is_none")]
    authorization_details: Option<serde_json::Value>,
    #[serde(rename = "m")]
    delivery_mode: DeliveryMode,
    #[serde(rename = "g", default, skip_serializing_if = "Option::is_none")]
    matching_digits: Option<u8>,
    #[serde(rename = "y", default, skip_serializing_if = "std::ops::Not::not")]
    decoy: bool,
    #[serde(rename = "f")]
    created_at: Timestamp,
    #[serde(rename = "e")]
    expires_at: Timestamp,
}

pub fn write_facts(facts: &Facts) -> String {
    let facts = facts.clone();
    let asked = Asked {
        sector: facts.sector,
        matching_digits: facts.matching_digits,
        decoy: facts.decoy,
        client_id: facts.client_id,
        user_id: facts.user_id,
        sealed_auth_req_id: facts.sealed_auth_req_id,
        sealed_notification_token: facts.sealed_notification_token,
        scope: facts.scope,
        acr: facts.acr,
        binding_message: facts.binding_message,
        authorization_details: facts.authorization_details,
        delivery_mode: facts.delivery_mode,
        created_at: facts.created_at,
        expires_at: facts.expires_at,
    };
    serde_json::to_string(&asked).expect("facts serialise")
}

pub fn read_facts(key: RequestKey, text: &str) -> Option<Facts> {
    let asked: Asked = serde_json::from_str(text).ok()?;
    Some(Facts {
        id: key.id,
        partition: key.partition,
        sector: asked.sector,
        matching_digits: asked.matching_digits,
        decoy: asked.decoy,
        client_id: asked.client_id,
        user_id: asked.user_id,
        sealed_auth_req_id: asked.sealed_auth_req_id,
        sealed_notification_token: asked.sealed_notification_token,
        scope: asked.scope,
        acr: asked.acr,
        binding_message: asked.binding_message,
        authorization_details: asked.authorization_details,
        delivery_mode: asked.delivery_mode,
        created_at: asked.created_at,
        expires_at: asked.expires_at,
    })
}

/// [`Job`] without its request, which its id names, and its partition.
#[derive(Serialize, Deserialize)]
enum Work {
    #[serde(rename = "d")]
    NotifyDevice(UserId, Timestamp),
    #[serde(rename = "c")]
    NotifyClient(Timestamp),
    /// One that is rare.
    #[serde(rename = "j")]
    Whole(Job),
}

pub fn write_job(job: &Job) -> String {
    let work = match job {
        Job::NotifyDevice {
            user_id,
            expires_at,
            ..
        } => Work::NotifyDevice(user_id.clone(), *expires_at),
        Job::NotifyClient { deadline, .. } => Work::NotifyClient(*deadline),
        Job::NotifyResolved { .. } | Job::HandleFraud { .. } | Job::PublishEvent { .. } => {
            Work::Whole(job.clone())
        }
    };
    serde_json::to_string(&work).expect("a job serialises")
}

pub fn read_job(id: &str, partition: Partition, text: &str) -> Option<Job> {
    let request_id = || RequestId::parse(id.split_once(':')?.1);
    Some(match serde_json::from_str(text).ok()? {
        Work::Whole(job) => job,
        Work::NotifyDevice(user_id, expires_at) => Job::NotifyDevice {
            request_id: request_id()?,
            partition,
            user_id,
            expires_at,
        },
        Work::NotifyClient(deadline) => Job::NotifyClient {
            request_id: request_id()?,
            partition,
            deadline,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        Facts {
            id: RequestId::from_bytes([7; 32]),
            client_id: ClientId::new("c".repeat(255)),
            user_id: UserId::new("u".repeat(22)),
            partition: Partition(255),
            sealed_auth_req_id: "sealed".into(),
            sealed_notification_token: Some("sealed, too".into()),
            sector: Some("shop.example".into()),
            matching_digits: Some(6),
            decoy: true,
            scope: Scope::parse("openid").unwrap(),
            acr: "acr".into(),
            binding_message: Some(BindingMessage::parse("W4SCT").unwrap()),
            authorization_details: Some(serde_json::json!([{ "type": "payment" }])),
            delivery_mode: DeliveryMode::Push,
            created_at: Timestamp::from_millis(1_700_000_000_001),
            expires_at: Timestamp::from_millis(1_700_000_120_000),
        }
    }

    #[test]
    fn facts_are_read_as_they_were_written() {
        let full = facts();
        let plain = Facts {
            sector: None,
            matching_digits: None,
            decoy: false,
            sealed_notification_token: None,
            binding_message: None,
            authorization_details: None,
            ..full.clone()
        };
        for facts in [full, plain] {
            let text = write_facts(&facts);
            assert_eq!(read_facts(facts.key(), &text), Some(facts));
        }
    }

    #[test]
    fn jobs_are_read_as_they_were_written() {
        let Facts {
            id: request_id,
            partition,
            user_id,
            expires_at,
            ..
        } = facts();
        let notify_device = Job::NotifyDevice {
            request_id,
            partition,
            user_id,
            expires_at,
        };
        let notify_client = Job::NotifyClient {
            request_id,
            partition,
            deadline: expires_at,
        };
        for job in [notify_device, notify_client] {
            let text = write_job(&job);
            assert_eq!(read_job(&job.id(), partition, &text), Some(job));
        }
        assert_eq!(read_job("notify_device:x", partition, "{}"), None);
    }

    /// Longer ones make Redis keep the collection in a table: several times the memory.
    #[test]
    fn what_lies_in_collections_is_short() {
        let facts = facts();
        let job = Job::NotifyDevice {
            request_id: facts.id,
            partition: facts.partition,
            user_id: facts.user_id.clone(),
            expires_at: facts.expires_at,
        };
        let member = format!("{}{}{DECOY}", facts.id, tag(&facts.client_id));
        let with_attempts = format!("100 {}", write_job(&job));
        for text in [member, job.id(), with_attempts] {
            assert!(text.len() <= 64, "{text}");
        }
    }
}
