//! The handle a client polls with: a random value that carries where to look and proves who may.
//!
//! ```text
//! base64url( key version 1 | masked partition 1 | expiry 6 | random 32 | MAC 16 )
//! ```
//!
//! The MAC covers all of it and the client's id: a forged, changed or foreign handle is refused without
//! asking any store, and an expired one is known as ours for ever. 256 random bits (CIBA Core 7.3).

use super::mac::{MacKey, equal};
use super::{base64url, from_base64url, sha256};
use crate::domain::{AuthReqId, ClientId, Partition, RequestId, RequestKey, Timestamp};

const EXPIRY: std::ops::Range<usize> = 2..8;
const RANDOM: std::ops::Range<usize> = 8..40;
const MAC: std::ops::Range<usize> = 40..56;

/// What a genuine handle says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handle {
    pub request_id: RequestId,
    pub partition: Partition,
    pub expires_at: Timestamp,
}

impl Handle {
    /// Where the request is found.
    pub const fn key(&self) -> RequestKey {
        RequestKey {
            partition: self.partition,
            id: self.request_id,
        }
    }
}

/// The name of a handle everywhere but on the wire.
pub fn request_id(id: &AuthReqId) -> RequestId {
    RequestId::from_bytes(sha256(id.expose().as_bytes()))
}

/// Makes a handle from 32 random bytes.
pub fn make(
    key: &MacKey,
    key_version: u8,
    client: &ClientId,
    partition: Partition,
    expires_at: Timestamp,
    random: [u8; 32],
) -> AuthReqId {
    let mut bytes = [0; MAC.end];
    bytes[0] = key_version;
    bytes[1] = partition.0 ^ mask(key, &random);
    bytes[EXPIRY].copy_from_slice(&expires_at.millis().to_be_bytes()[2..]);
    bytes[RANDOM].copy_from_slice(&random);
    let mac = tag(key, &bytes[..MAC.start], client);
    bytes[MAC].copy_from_slice(&mac);
    AuthReqId::new(base64url(&bytes))
}

/// The version of the key that a text claims to be made with; `None`: not one of our handles.
pub fn key_version(id: &AuthReqId) -> Option<u8> {
    from_base64url(id.expose())
        .filter(|bytes| bytes.len() == MAC.end)
        .map(|bytes| bytes[0])
}

/// Reads a handle that `client` presents; `None` unless it was made for that client with this key.
pub fn open(key: &MacKey, client: &ClientId, id: &AuthReqId) -> Option<Handle> {
    let bytes: [u8; MAC.end] = from_base64url(id.expose())?.try_into().ok()?;
    if !equal(&tag(key, &bytes[..MAC.start], client), &bytes[MAC]) {
        return None;
    }
    let mut expiry = [0; 8];
    expiry[2..].copy_from_slice(&bytes[EXPIRY]);
    Some(Handle {
        request_id: request_id(id),
        partition: Partition(bytes[1] ^ mask(key, &bytes[RANDOM])),
        expires_at: Timestamp::from_millis(i64::from_be_bytes(expiry)),
    })
}

fn mask(key: &MacKey, random: &[u8]) -> u8 {
    key.mac("partition-mask", &[random])[0]
}

fn tag(key: &MacKey, bytes: &[u8], client: &ClientId) -> [u8; 16] {
    let mut tag = [0; 16];
    tag.copy_from_slice(&key.mac("auth-req-id", &[bytes, client.as_str().as_bytes()])[..16]);
    tag
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_handle_opens_for_its_client_only(p: u8, at in 0_i64..(1 << 47), random: [u8; 32]) {
            let key = MacKey::new(&[1; 32]);
            let client = ClientId::new("bank");
            let id = make(&key, 1, &client, Partition(p), Timestamp::from_millis(at), random);
            let handle = open(&key, &client, &id);
            prop_assert_eq!(handle, Some(Handle {
                request_id: request_id(&id), partition: Partition(p), expires_at: Timestamp::from_millis(at),
            }));
            prop_assert_eq!(key_version(&id), Some(1));
            prop_assert_eq!(open(&key, &ClientId::new("other"), &id), None);
            prop_assert_eq!(open(&MacKey::new(&[2; 32]), &client, &id), None);
            prop_assert!(id.expose().bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b)));
        }

        #[test]
        fn no_changed_handle_opens(at in 0_usize..75, to in "[A-Za-z0-9_-]") {
            let key = MacKey::new(&[1; 32]);
            let client = ClientId::new("bank");
            let id = make(&key, 1, &client, Partition(9), Timestamp::from_millis(5), [3; 32]);
            let mut changed = id.expose().to_owned();
            changed.replace_range(at..=at, &to);
            prop_assume!(changed != id.expose());
            prop_assert_eq!(open(&key, &client, &AuthReqId::new(changed)), None);
        }

        #[test]
        fn no_text_makes_it_fall_over(text in ".{0,100}|[A-Za-z0-9_-]{70,80}") {
            prop_assert_eq!(open(&MacKey::new(&[1; 32]), &ClientId::new("bank"), &AuthReqId::new(text)), None);
        }
    }
}
