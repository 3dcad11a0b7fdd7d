//! What became of pushes, in a table beside the requests'.

use super::db::Db;
use super::row::Located;
use crate::domain::delivery::{Delivery, PushRecord};
use crate::domain::{DeviceId, Partition, RequestId, RequestKey, Timestamp, UserId};
use crate::store::{DeliveryLog, StoreError};
use async_trait::async_trait;

pub struct SqlDeliveryLog(Db);

impl SqlDeliveryLog {
    pub const fn new(db: Db) -> Self {
        Self(db)
    }
}

#[async_trait]
impl DeliveryLog for SqlDeliveryLog {
    async fn note_pushes(
        &self,
        key: RequestKey,
        pushes: &[(DeviceId, PushRecord)],
    ) -> Result<(), StoreError> {
        let mut writer = self.0.writer().await?;
        for (device, push) in pushes {
            sqlx::query(
                "INSERT INTO deliveries (request_id, device_id, push) \
                 SELECT request_id, $2, $3 FROM pending_requests WHERE request_id = $1 \
                 ON CONFLICT (request_id, device_id) DO UPDATE SET push = excluded.push",
            )
            .bind(key.id.to_string())
            .bind(device.as_str())
            .bind(serde_json::to_string(push).expect("a record serialises"))
            .execute(&mut *writer)
            .await?;
        }
        Ok(())
    }

    async fn note_fetched(
        &self,
        key: RequestKey,
        device: &DeviceId,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let mut writer = self.0.writer().await?;
        sqlx::query(
            "INSERT INTO deliveries (request_id, device_id, fetched_at) \
             SELECT request_id, $2, $3 FROM pending_requests WHERE request_id = $1 \
             ON CONFLICT (request_id, device_id) DO UPDATE SET fetched_at = excluded.fetched_at \
             WHERE deliveries.fetched_at IS NULL",
        )
        .bind(key.id.to_string())
        .bind(device.as_str())
        .bind(now.millis())
        .execute(&mut *writer)
        .await?;
        Ok(())
    }

    async fn deliveries(&self, key: RequestKey) -> Result<Vec<Delivery>, StoreError> {
        let mut reader = self.0.reader().await?;
        let rows = sqlx::query(
            "SELECT request_id, device_id, push, fetched_at FROM deliveries WHERE request_id = $1 \
             ORDER BY device_id",
        )
        .bind(key.id.to_string())
        .fetch_all(&mut *reader)
        .await?;
        let delivery = |row| {
            let row = Located::new(row, "deliveries", "request_id");
            let push = match row.optional_text("push")? {
                None => None,
                Some(text) => Some(serde_json::from_str(&text).map_err(|_| row.corrupt("push"))?),
            };
            Ok(Delivery {
                device: DeviceId::new(row.text("device_id")?),
                push,
                fetched_at: row.optional_time("fetched_at")?,
            })
        };
        rows.iter().map(delivery).collect()
    }

    async fn prompts(
        &self,
        user: &UserId,
        _partition: Partition,
    ) -> Result<Vec<RequestId>, StoreError> {
        let mut reader = self.0.reader().await?;
        let rows = sqlx::query(
            "SELECT request_id FROM prompts WHERE user_id = $1 ORDER BY at DESC, request_id DESC",
        )
        .bind(user.as_str())
        .fetch_all(&mut *reader)
        .await?;
        let id = |row| Located::new(row, "prompts", "request_id").request_id("request_id");
        rows.iter().map(id).collect()
    }
}
