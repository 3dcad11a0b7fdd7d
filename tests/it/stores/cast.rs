//! Who appears in the Ledger.

use super::{at, id};
use crate::support::house::{access_token, entry};
use crate::support::{Backend, House, START};
use assent::domain::client::DeliveryMode;
use assent::domain::outcome::{DecidedRequest, Evidence};
use assent::domain::{Client, Device, Outcome, User};
use assent::store::sql::ledger::{IssuedTokens, OpenDecision, Recorded, Redemption};

/// A relying party, a person, her device, and the Ledger that knows them.
pub struct Cast {
    pub house: House,
    pub client: Client,
    pub user: User,
    pub device: Device,
}

impl Cast {
    pub async fn new(backend: Backend) -> Self {
        let house = House::new(backend).await;
        let (client, user) = (house.client("bank").await, house.user("alice").await);
        let device = house.device(&user).await;
        Self {
            house,
            client,
            user,
            device,
        }
    }

    /// The `n`th request, decided by the device at the start of the test.
    pub fn decided(&self, n: u32, outcome: Outcome) -> DecidedRequest {
        DecidedRequest {
            request_id: id(n),
            partition: self.user.partition,
            client_id: self.client.id.clone(),
            user_id: self.user.id.clone(),
            device_id: Some(self.device.id.clone()),
            outcome,
            reason: None,
            decided_at: START,
            expires_at: at(120),
            evidence: Evidence {
                challenge: Some(format!("challenge {n}")),
                approval: Some(format!("approval {n}")),
                auth_req_id: format!("handle {n}"),
                subject: format!("subject {n}"),
                delivery_mode: DeliveryMode::Poll,
                client_notification_token: None,
                sender_constraint: None,
            },
        }
    }

    pub async fn begin(&self) -> OpenDecision {
        let device = Some(&self.device.id);
        let ledger = &self.house.ledger;
        let begun =
            ledger.begin_decision(self.user.partition, &self.user.id, &self.client.id, device);
        begun.await.unwrap()
    }

    /// Decides the `n`th request.
    pub async fn decide(&self, n: u32, outcome: Outcome) {
        let recorded = self
            .begin()
            .await
            .record(&self.decided(n, outcome), &[], entry())
            .await;
        assert!(matches!(recorded, Ok(Recorded::First)), "{recorded:?}");
    }

    pub async fn redeem(&self, n: u32) -> Redemption {
        let ledger = &self.house.ledger;
        ledger
            .begin_redemption(id(n), self.user.partition, START)
            .await
            .unwrap()
    }

    /// What the `n`th request's tokens leave in the Ledger.
    pub fn tokens(&self, n: u32) -> IssuedTokens {
        IssuedTokens {
            access: access_token(&format!("token {n}"), &self.user, &self.client.id),
            response: None,
            refresh: None,
        }
    }

    /// How many rows each chain has: unchanged when nothing was written.
    pub async fn chains(&self) -> Vec<String> {
        let counts =
            "SELECT partition || ':' || COUNT(*) FROM audit GROUP BY partition ORDER BY partition";
        let heads = "SELECT partition || ':' || seq || ':' || hash FROM audit_heads WHERE seq > 0 ORDER BY 1";
        [
            self.house.backend.column(counts).await,
            self.house.backend.column(heads).await,
        ]
        .concat()
    }
}
