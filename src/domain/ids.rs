//! Identifiers, each a type of its own so that none can stand in for another.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// Takes a value this server made or has validated.
            pub fn new(value: impl Into<String>) -> Self {
                Self(value.into())
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text_id! {
    /// A relying party's `client_id` (RFC 6749 2.2).
    ClientId
}
text_id! {
    /// A person's `sub` (OpenID Connect Core 2): random, stable, never reused.
    UserId
}
text_id! {
    /// A device's id: the RFC 7638 SHA-256 thumbprint of its public key, base64url.
    DeviceId
}

text_id! {
    /// Which app on a phone is to be woken, as its maker names it: a bundle id, a package name.
    AppId
}

impl DeviceId {
    /// Reads the base64url text of a SHA-256 thumbprint; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        (bytes.len() == 32).then(|| Self(text.to_owned()))
    }
}

impl UserId {
    /// Reads what can be a `sub`: 1 to 255 visible ASCII characters (OpenID Connect Core 2). Whatever
    /// else somebody else's statement holds is nobody, and may be nothing that a database takes.
    pub fn parse(text: &str) -> Option<Self> {
        visible(text).then(|| Self(text.to_owned()))
    }
}

impl ClientId {
    /// Reads 1 to 255 visible ASCII characters (RFC 6749 A.1); `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        visible(text).then(|| Self(text.to_owned()))
    }
}

impl AppId {
    /// Reads 1 to 255 visible ASCII characters; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        visible(text).then(|| Self(text.to_owned()))
    }
}

fn visible(text: &str) -> bool {
    (1..=255).contains(&text.len()) && text.bytes().all(|b| matches!(b, 0x21..=0x7e))
}

/// SHA-256 of the `auth_req_id`: how every store, log line and signed statement names a request.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId([u8; 32]);

impl RequestId {
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Reads the base64url text form; `None` unless it is exactly the canonical 43 characters.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        Some(Self(bytes.try_into().ok()?))
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RequestId({self})")
    }
}

impl Serialize for RequestId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for RequestId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("not a request id"))
    }
}

/// Where a user lives: one of 256 partitions, fixed when the user is created.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Partition(pub u8);

/// Where a request is found: the partition of its person, and its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestKey {
    pub partition: Partition,
    pub id: RequestId,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_request_id_survives_its_text_form(bytes: [u8; 32]) {
            let id = RequestId::from_bytes(bytes);
            prop_assert_eq!(RequestId::parse(&id.to_string()), Some(id));
        }

        #[test]
        fn only_the_canonical_text_is_a_request_id(text in "[A-Za-z0-9_-]{40,46}") {
            if let Some(id) = RequestId::parse(&text) {
                prop_assert_eq!(id.to_string(), text);
            }
        }
    }
}
