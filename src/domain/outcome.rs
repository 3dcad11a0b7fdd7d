//! What the Ledger keeps of a decided request.

use super::approval::DenyReason;
use super::client::DeliveryMode;
use super::{ClientId, DeviceId, Partition, RequestId, RequestKey, Timestamp, UserId};
use serde::{Deserialize, Serialize};

text_enum! {
    /// How a request was decided. At most one per request, for ever.
    Outcome: "outcome" {
        Approved = "approved",
        Denied = "denied",
        /// Withdrawn by its owner, or by the lock of the person or the client.
        Cancelled = "cancelled",
        /// Ended by a wrong matching code.
        Burned = "burned",
    }
}

text_enum! {
    /// How an approval was used up. At most one per request, for ever.
    Issuance: "issuance" {
        Issued = "issued",
        /// Withdrawn before redemption: the person, client or device was locked or revoked.
        Voided = "voided",
    }
}

/// An outcome with all that redemption and the audit need; the Ledger holds `evidence` sealed.
#[derive(Clone, Debug)]
pub struct DecidedRequest {
    pub request_id: RequestId,
    pub partition: Partition,
    pub client_id: ClientId,
    pub user_id: UserId,
    /// The device that decided; `None` when no device did.
    pub device_id: Option<DeviceId>,
    pub outcome: Outcome,
    pub reason: Option<DenyReason>,
    pub decided_at: Timestamp,
    pub expires_at: Timestamp,
    pub evidence: Evidence,
}

impl DecidedRequest {
    /// Where the request is found.
    pub const fn key(&self) -> RequestKey {
        RequestKey {
            partition: self.partition,
            id: self.request_id,
        }
    }
}

/// The snapshot that redemption and delivery need, and what proves the decision.
#[derive(Clone, Serialize, Deserialize)]
pub struct Evidence {
    /// The challenge exactly as it was signed; `None` when no device decided.
    pub challenge: Option<String>,
    /// The approval exactly as the device signed it.
    pub approval: Option<String>,
    pub auth_req_id: String,
    /// The `sub` this client knows the person by.
    pub subject: String,
    pub delivery_mode: DeliveryMode,
    /// Bearer token of the client's notification endpoint (CIBA Core 7.1); ping and push only.
    pub client_notification_token: Option<String>,
    /// Key that the tokens are bound to (RFC 7800 `cnf`); `None`: bearer tokens.
    pub sender_constraint: Option<serde_json::Value>,
}

impl std::fmt::Debug for Evidence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Evidence(…)")
    }
}
