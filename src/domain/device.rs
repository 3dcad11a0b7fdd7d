//! Enrolled phones and the keys they sign with.

use super::{AppId, DeviceId, Partition, Secret, SignatureAlgorithm, Timestamp, UserId};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

/// A phone bound to one person by the key it made.
#[derive(Clone, Debug)]
pub struct Device {
    pub id: DeviceId,
    pub user_id: UserId,
    /// Where its person lives.
    pub partition: Partition,
    pub state: DeviceState,
    pub key: PublicKey,
    pub description: DeviceDescription,
    /// Where a push reaches it; held sealed by the store.
    pub push_target: Option<Secret>,
    /// Since when it reaches it there.
    pub push_registered_at: Timestamp,
    /// For servers that wake several apps.
    pub app_id: Option<AppId>,
    pub created_at: Timestamp,
    pub revoked_at: Option<Timestamp>,
}

impl Device {
    /// Whether its gateway should wake it and nobody knows where: its target has died, or it never had one.
    pub fn needs_push_refresh(&self) -> bool {
        self.description.platform != Platform::None && self.push_target.is_none()
    }
}

/// Why nothing can be sent to a push target, as far as its text tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPushTarget {
    #[error("it is not what the platform's gateway gives out")]
    Form,
    /// The phone must not choose what we call.
    #[error("this server does not send to the push service that it names")]
    Host,
}

/// What a phone says of itself when it enrols; shown to people, trusted for nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceDescription {
    pub label: String,
    pub platform: Platform,
    pub app_version: String,
    pub os_version: String,
}

text_enum! {
    /// Where a device is in its life.
    DeviceState: "device state" {
        /// Enrolled, waits for confirmation; may not see or answer requests.
        Pending = "pending",
        Active = "active",
        Revoked = "revoked",
    }
}

text_enum! {
    /// Which gateway wakes the device.
    Platform: "platform" {
        Apns = "apns",
        Fcm = "fcm",
        WebPush = "webpush",
        /// Never woken: the app is opened by hand.
        None = "none",
    }
}

/// A device's public key: P-256 for ES256, or Ed25519 (RFC 7518 6.2, RFC 8037 2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PublicKey {
    P256 { x: String, y: String },
    Ed25519 { x: String },
}

/// Why a JWK is not a key a device may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPublicKey {
    #[error("the key must be EC P-256 or OKP Ed25519")]
    Type,
    #[error("a coordinate is not 32 bytes of unpadded base64url")]
    Coordinate,
    #[error("the key holds private parts; send the public key only")]
    Private,
}

impl PublicKey {
    /// Reads a JWK (RFC 7517). Members other than the key's own are ignored, private ones refused.
    pub fn from_jwk(jwk: &serde_json::Value) -> Result<Self, InvalidPublicKey> {
        let text = |name: &str| jwk.get(name).and_then(serde_json::Value::as_str);
        if ["d", "k", "p", "q"]
            .iter()
            .any(|name| jwk.get(name).is_some())
        {
            return Err(InvalidPublicKey::Private);
        }
        match (text("kty"), text("crv")) {
            (Some("EC"), Some("P-256")) => Ok(Self::P256 {
                x: coordinate(text("x"))?,
                y: coordinate(text("y"))?,
            }),
            (Some("OKP"), Some("Ed25519")) => Ok(Self::Ed25519 {
                x: coordinate(text("x"))?,
            }),
            _ => Err(InvalidPublicKey::Type),
        }
    }

    /// The JWK with its required members only, in the order of RFC 7638 3.3: hashing this very text
    /// gives the thumbprint.
    pub fn canonical_jwk(&self) -> String {
        match self {
            Self::P256 { x, y } => format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#),
            Self::Ed25519 { x } => format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#),
        }
    }

    /// The one signature algorithm this key is used with.
    pub const fn algorithm(&self) -> SignatureAlgorithm {
        match self {
            Self::P256 { .. } => SignatureAlgorithm::Es256,
            Self::Ed25519 { .. } => SignatureAlgorithm::EdDsa,
        }
    }
}

fn coordinate(text: Option<&str>) -> Result<String, InvalidPublicKey> {
    let text = text.ok_or(InvalidPublicKey::Coordinate)?;
    match URL_SAFE_NO_PAD.decode(text) {
        Ok(bytes) if bytes.len() == 32 => Ok(text.to_owned()),
        _ => Err(InvalidPublicKey::Coordinate),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_key_must_be_public_and_of_a_known_kind() {
        let x = "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4";
        let y = "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM";
        let good = json!({"kty": "EC", "crv": "P-256", "x": x, "y": y, "kid": "any", "use": "sig"});
        assert!(PublicKey::from_jwk(&good).is_ok());
        for (jwk, why) in [
            (
                json!({"kty": "EC", "crv": "P-384", "x": x, "y": y}),
                InvalidPublicKey::Type,
            ),
            (
                json!({"kty": "RSA", "n": x, "e": "AQAB"}),
                InvalidPublicKey::Type,
            ),
            (
                json!({"kty": "EC", "crv": "P-256", "x": x}),
                InvalidPublicKey::Coordinate,
            ),
            (
                json!({"kty": "EC", "crv": "P-256", "x": x, "y": format!("{y}=")}),
                InvalidPublicKey::Coordinate,
            ),
            (
                json!({"kty": "EC", "crv": "P-256", "x": x, "y": &y[1..]}),
                InvalidPublicKey::Coordinate,
            ),
            (
                json!({"kty": "EC", "crv": "P-256", "x": x, "y": y, "d": x}),
                InvalidPublicKey::Private,
            ),
            (json!("key"), InvalidPublicKey::Type),
        ] {
            assert_eq!(PublicKey::from_jwk(&jwk), Err(why), "{jwk}");
        }
    }
}
