//! What became of pushes, in Redis: beside the request, and forgotten with it.

use super::keys::{FETCHED, Keys};
use super::router::Router;
use super::script::NOTE;
use crate::domain::delivery::{Delivery, PushRecord};
use crate::domain::{DeviceId, Partition, RequestId, RequestKey, Timestamp, UserId};
use crate::store::{DeliveryLog, StoreError};
use async_trait::async_trait;
use std::collections::BTreeMap;
use std::sync::Arc;

pub struct RedisDeliveryLog {
    pub(super) router: Arc<Router>,
    pub(super) keys: Keys,
}

impl RedisDeliveryLog {
    async fn note(
        &self,
        key: RequestKey,
        how: &str,
        noted: &[(String, String)],
    ) -> Result<(), StoreError> {
        let note = |_| {
            let call = NOTE
                .keys([
                    self.keys.state(key.partition, key.id),
                    self.keys.sent(key.partition, key.id),
                ])
                .arg(how);
            noted
                .iter()
                .fold(call, |call, (field, value)| call.arg(field).arg(value))
        };
        self.router.run::<u8>(key.partition, note).await.map(drop)
    }
}

#[async_trait]
impl DeliveryLog for RedisDeliveryLog {
    async fn note_pushes(
        &self,
        key: RequestKey,
        pushes: &[(DeviceId, PushRecord)],
    ) -> Result<(), StoreError> {
        let noted: Vec<(String, String)> = pushes
            .iter()
            .map(|(device, push)| {
                let push = serde_json::to_string(push).expect("a record serialises");
                (device.to_string(), push)
            })
            .collect();
        self.note(key, "set", &noted).await
    }

    async fn note_fetched(
        &self,
        key: RequestKey,
        device: &DeviceId,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let noted = (format!("{device}{FETCHED}"), now.millis().to_string());
        self.note(key, "once", &[noted]).await
    }

    async fn deliveries(&self, key: RequestKey) -> Result<Vec<Delivery>, StoreError> {
        let mut command = redis::cmd("HGETALL");
        command.arg(self.keys.sent(key.partition, key.id));
        let fields: BTreeMap<String, String> = self.router.ask(key.partition, &command).await?;
        let corrupt = |what| StoreError::Corrupt {
            table: "redis",
            row: self.keys.sent(key.partition, key.id),
            what,
        };
        let mut deliveries: BTreeMap<String, Delivery> = BTreeMap::new();
        for (field, value) in fields {
            let (device, is_time) = match field.strip_suffix(FETCHED) {
                Some(device) => (device, true),
                None => (field.as_str(), false),
            };
            let delivery = deliveries
                .entry(device.to_owned())
                .or_insert_with(|| Delivery {
                    device: DeviceId::new(device),
                    push: None,
                    fetched_at: None,
                });
            if is_time {
                let at = value.parse().map_err(|_| corrupt("fetched"))?;
                delivery.fetched_at = Some(Timestamp::from_millis(at));
            } else {
                let push = serde_json::from_str(&value).map_err(|_| corrupt("push"))?;
                delivery.push = Some(push);
            }
        }
        Ok(deliveries.into_values().collect())
    }

    async fn prompts(
        &self,
        user: &UserId,
        partition: Partition,
    ) -> Result<Vec<RequestId>, StoreError> {
        let mut command = redis::cmd("ZRANGE");
        command
            .arg(self.keys.prompts(partition, user))
            .arg(0)
            .arg(-1)
            .arg("REV");
        let ids: Vec<String> = self.router.ask(partition, &command).await?;
        Ok(ids.iter().filter_map(|id| RequestId::parse(id)).collect())
    }
}
