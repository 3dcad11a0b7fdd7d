//! Which phone is this? The `DeviceProof` on every call of the device API.

use super::{CLOCKS_APART, Services};
use crate::crypto::jose::{Jws, VerifyingKey};
use crate::crypto::sha256_base64url;
use crate::domain::device::DeviceState;
use crate::domain::{Device, DeviceId, Timestamp};
use crate::store::StoreError;
use serde::Deserialize;
use std::time::Duration;

/// The JOSE `typ` of a proof.
pub const DEVICE_PROOF_TYP: &str = "device-proof+jwt";
/// How old a proof may be, and how far ahead of us its clock.
const PROOF_WINDOW: Duration = Duration::from_secs(60);

/// The HTTP request that a proof must speak of.
#[derive(Clone, Copy, Debug)]
pub struct ProvenRequest<'a> {
    pub method: &'a str,
    /// The path as received, from the first slash.
    pub path: &'a str,
    pub body: &'a [u8],
}

/// The claims of a proof.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Proof {
    iss: DeviceId,
    aud: String,
    htm: String,
    htu: String,
    /// base64url(SHA-256(body)), also of an empty one.
    bh: String,
    iat: i64,
    jti: String,
    /// A server nonce stands in for `iat` where the phone's clock is wrong.
    nonce: Option<String>,
}

/// An enrolled device that has proven who it is. Only this module makes one.
#[derive(Clone, Debug)]
pub struct AuthenticatedDevice(Device);

impl std::ops::Deref for AuthenticatedDevice {
    type Target = Device;

    fn deref(&self) -> &Device {
        &self.0
    }
}

#[derive(Debug, thiserror::Error)]
pub enum DeviceAuthError {
    #[error("the proof is not acceptable")]
    Invalid,
    #[error("the proof was used before")]
    Replayed,
    /// The phone's clock is off: try again with this nonce.
    #[error("the proof's time is too far from ours")]
    Clock { nonce: String },
    #[error("the device is revoked")]
    Revoked,
    #[error("the device waits for confirmation")]
    Unconfirmed,
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Services {
    /// Checks a proof for exactly this request.
    pub async fn authenticate_device(
        &self,
        proof: &str,
        request: ProvenRequest<'_>,
    ) -> Result<AuthenticatedDevice, DeviceAuthError> {
        let now = self.clock.now();
        let jws = Jws::parse(proof).map_err(|_| DeviceAuthError::Invalid)?;
        let id = jws
            .kid
            .as_deref()
            .and_then(DeviceId::parse)
            .ok_or(DeviceAuthError::Invalid)?;
        let device = self
            .directory
            .device(&id)
            .await?
            .ok_or(DeviceAuthError::Invalid)?;
        let key = VerifyingKey::new(&device.key).ok_or(DeviceAuthError::Invalid)?;
        let proof: Proof = jws
            .verify(DEVICE_PROOF_TYP, &key)
            .map_err(|_| DeviceAuthError::Invalid)?;
        let fits = proof.iss == id
            && proof.aud == self.policy.issuer
            && proof.htm == request.method
            && proof.htu == format!("{}{}", self.policy.issuer, request.path)
            && proof.bh == sha256_base64url(request.body)
            && (16..=128).contains(&proof.jti.len());
        if !fits {
            return Err(DeviceAuthError::Invalid);
        }
        // The state is told only to who holds the key.
        match device.state {
            DeviceState::Active => {}
            DeviceState::Pending => return Err(DeviceAuthError::Unconfirmed),
            DeviceState::Revoked => return Err(DeviceAuthError::Revoked),
        }
        self.check_time(&proof, now)?;
        // Twice the window: the proof may come from either end of it; nonces live two periods. And
        // longer by what the clocks of two nodes may differ.
        let forget_at = now.plus(PROOF_WINDOW * 2 + CLOCKS_APART);
        let use_id = format!("device|{id}|{}", sha256_base64url(proof.jti.as_bytes()));
        if !self.replays.first_use(&use_id, forget_at, now).await? {
            return Err(DeviceAuthError::Replayed);
        }
        Ok(AuthenticatedDevice(device))
    }

    fn check_time(&self, proof: &Proof, now: Timestamp) -> Result<(), DeviceAuthError> {
        let iat = Timestamp::from_secs(proof.iat);
        let in_time = iat.since(now) <= PROOF_WINDOW && now.since(iat) <= PROOF_WINDOW;
        let nonce = proof.nonce.as_deref();
        if in_time
            || nonce.is_some_and(|nonce| self.keys.device_nonce_is_fresh(nonce, now, PROOF_WINDOW))
        {
            return Ok(());
        }
        Err(DeviceAuthError::Clock {
            nonce: self.keys.device_nonce(now, PROOF_WINDOW),
        })
    }
}
