//! How the audit's rows hang together.
//!
//! Each partition is a chain: a row's hash covers the row before it, so that no row can be changed,
//! removed or put in between without every later hash being wrong. A row carries only the salted hash
//! of its payload; the payload can be erased and the chain still verifies.

use super::{base64url, sha256};
use crate::domain::Timestamp;

/// Where a chain begins.
pub const GENESIS: &str = "";
/// Bytes of a payload's salt.
pub const SALT_LEN: usize = 16;

/// SHA-256(salt | payload), base64url.
pub fn payload_hash(salt: &[u8], payload: &str) -> String {
    base64url(&sha256(&[salt, payload.as_bytes()].concat()))
}

/// The hash of one row, from the hash of the row before it.
pub fn row_hash(
    previous: &str,
    partition: i64,
    seq: i64,
    at: Timestamp,
    kind: &str,
    payload_hash: &str,
) -> String {
    let mut message = Vec::with_capacity(256);
    for part in [
        previous.as_bytes(),
        &partition.to_be_bytes(),
        &seq.to_be_bytes(),
        &at.millis().to_be_bytes(),
        kind.as_bytes(),
        payload_hash.as_bytes(),
    ] {
        message.extend_from_slice(&(part.len() as u64).to_be_bytes());
        message.extend_from_slice(part);
    }
    base64url(&sha256(&message))
}

/// The head of one partition's chain.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Head {
    pub partition: i64,
    /// How many rows the chain has.
    pub seq: i64,
    /// The hash of the last one; [`GENESIS`] when there is none.
    pub hash: String,
}

/// One hash over all heads that have rows, in the order of their partitions.
pub fn root<'a>(heads: impl IntoIterator<Item = &'a Head>) -> String {
    let mut message = Vec::new();
    for head in heads {
        message.extend_from_slice(&head.partition.to_be_bytes());
        message.extend_from_slice(&head.seq.to_be_bytes());
        message.extend_from_slice(&(head.hash.len() as u64).to_be_bytes());
        message.extend_from_slice(head.hash.as_bytes());
    }
    base64url(&sha256(&message))
}

/// The JOSE `typ` of a checkpoint.
pub const CHECKPOINT_TYP: &str = "assent-checkpoint+jwt";

/// A signed statement of how long every chain was at a point in time.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Checkpoint {
    pub iss: String,
    pub iat: i64,
    /// Counts from 1 without gaps.
    pub seq: i64,
    /// base64url(SHA-256(the checkpoint before, as signed)); empty for the first.
    pub previous: String,
    /// The heads that moved since the checkpoint before.
    pub moved: Vec<Head>,
    /// [`root`] over all heads.
    pub root: String,
    /// Rows in all chains together.
    pub rows: i64,
}
