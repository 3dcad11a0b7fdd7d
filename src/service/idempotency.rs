//! A request that is sent again because its answer was lost (`Idempotency-Key`).

use super::Services;
use super::authenticate_client::AuthenticatedClient;
use super::start::StartError;
use crate::crypto::{base64url, sha256};
use crate::domain::{AuthReqId, Partition, Timestamp};
use crate::store::{IdempotencySlot, Reservation, StoreError};

/// An `Idempotency-Key`, and what it was sent with.
#[derive(Clone, Debug)]
pub struct Idempotency {
    pub key: String,
    /// The request's parameters in a canonical order, client authentication left out.
    pub parameters: String,
}

/// What a request is known by, now or since it was first sent.
pub(super) struct Named {
    pub auth_req_id: AuthReqId,
    /// Where it lives: its handle says so.
    pub partition: Partition,
    pub expires_at: Timestamp,
    /// What holds the name for its key; `None`: it has no key.
    pub slot: Option<IdempotencySlot>,
}

impl Services {
    /// The name this request has had since it was first sent, or the new one; and the slot that holds it.
    pub(super) async fn reserve(
        &self,
        client: &AuthenticatedClient,
        idempotency: &Idempotency,
        new: Named,
        now: Timestamp,
    ) -> Result<Named, StartError> {
        let scope_hash = base64url(&sha256(
            format!("{}\n{}", client.id, idempotency.key).as_bytes(),
        ));
        let context = format!("idempotency_keys|{scope_hash}|auth_req_id");
        let slot = IdempotencySlot {
            scope_hash,
            body_hash: base64url(&sha256(idempotency.parameters.as_bytes())),
            sealed_auth_req_id: self
                .keys
                .seal(&context, new.auth_req_id.expose().as_bytes()),
            expires_at: new.expires_at,
        };
        match self.pending.reserve(&slot, now).await? {
            Reservation::Fresh => Ok(Named {
                slot: Some(slot),
                ..new
            }),
            Reservation::Conflict => Err(StartError::IdempotencyConflict),
            Reservation::Replay { sealed_auth_req_id } => {
                let damaged = || StoreError::Corrupt {
                    table: "idempotency_keys",
                    row: slot.scope_hash.clone(),
                    what: "auth_req_id does not open",
                };
                let opened = self.keys.open_sealed(&context, &sealed_auth_req_id).ok();
                let id = opened
                    .and_then(|bytes| String::from_utf8(bytes.to_vec()).ok())
                    .map(AuthReqId::new)
                    .ok_or_else(damaged)?;
                let handle = self
                    .keys
                    .open_auth_req_id(&client.id, &id)
                    .ok_or_else(damaged)?;
                let slot = IdempotencySlot {
                    sealed_auth_req_id,
                    ..slot
                };
                Ok(Named {
                    auth_req_id: id,
                    partition: handle.partition,
                    expires_at: handle.expires_at,
                    slot: Some(slot),
                })
            }
        }
    }
}
