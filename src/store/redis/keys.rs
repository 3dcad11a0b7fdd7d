//! The names of the keys. All of a partition share its hash tag, so that they lie on one node and one
//! script may touch them together.

use crate::crypto::sha256;
use crate::domain::{Partition, RequestId, UserId};

/// Makes key names below one prefix.
#[derive(Clone, Debug)]
pub struct Keys {
    prefix: String,
}

impl Keys {
    pub const fn new(prefix: String) -> Self {
        Self { prefix }
    }

    /// Hash: where a request stands, and the rhythm of its polls. `s` state, `e` expires_at, `i` interval,
    /// `l` last poll, `n` its number, `p` its pace, `h` until when it is held, `c` the client's tag, `u`
    /// person.
    pub fn state(&self, partition: Partition, id: RequestId) -> String {
        self.of(partition, "state", &id.to_string())
    }

    /// String: what was asked ([`super::record`]).
    pub fn facts(&self, partition: Partition, id: RequestId) -> String {
        self.of(partition, "facts", &id.to_string())
    }

    /// Sorted set by expires_at: a person's open requests, each the id and then the client's tag.
    pub fn open(&self, partition: Partition, user: &UserId) -> String {
        self.of(partition, "open", user.as_str())
    }

    /// Sorted set by time: the requests that a person's phones were woken for.
    pub fn prompts(&self, partition: Partition, user: &UserId) -> String {
        self.of(partition, "prompts", user.as_str())
    }

    /// Hash: what became of a request's pushes, by device; and with `FETCHED` behind it, when the device
    /// fetched the challenge.
    pub fn sent(&self, partition: Partition, id: RequestId) -> String {
        self.of(partition, "sent", &id.to_string())
    }

    /// Sorted set by due time: the ids of jobs.
    pub fn due(&self, partition: Partition) -> String {
        self.of(partition, "due", "")
    }

    /// Hash: a job's attempts and payload by its id.
    pub fn jobs(&self, partition: Partition) -> String {
        self.of(partition, "jobs", "")
    }

    /// Hash: what is known of a dead job by its id.
    pub fn dead(&self, partition: Partition) -> String {
        self.of(partition, "dead", "")
    }

    /// Hash: what an idempotency key stands for. `b` body hash, `a` sealed auth_req_id, `e` expires_at.
    pub fn slot(&self, scope_hash: &str) -> (Partition, String) {
        let partition = spread(scope_hash);
        (partition, self.of(partition, "slot", scope_hash))
    }

    /// String: until when something counts as used, and by which operation.
    pub fn used(&self, hash: &str) -> (Partition, String) {
        let partition = spread(hash);
        (partition, self.of(partition, "used", hash))
    }

    /// String: some node has told the projection what the Ledger knows, a moment ago.
    pub fn turn(&self) -> (Partition, String) {
        let partition = Partition(0);
        (partition, self.of(partition, "turn", ""))
    }

    /// Where nodes tell each other that something changed.
    pub fn channel(&self) -> String {
        format!("{}:wake", self.prefix)
    }

    fn of(&self, partition: Partition, kind: &str, id: &str) -> String {
        let Self { prefix } = self;
        let separator = if id.is_empty() { "" } else { ":" };
        format!("{prefix}:{{{}}}:{kind}{separator}{id}", partition.0)
    }
}

/// What follows the device in [`Keys::sent`] where its value is a time.
pub const FETCHED: &str = ":f";

/// The cluster's slot of a partition: CRC16 of its hash tag (Redis cluster specification, "Key
/// distribution model").
pub fn slot_of(partition: Partition) -> u16 {
    crc16(partition.0.to_string().as_bytes()) % 16_384
}

/// CRC16 in its XMODEM form: polynomial 0x1021, starting at zero.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc, _| {
            if crc & 0x8000 == 0 {
                crc << 1
            } else {
                (crc << 1) ^ 0x1021
            }
        })
    })
}

/// Something that belongs to no person is spread evenly.
fn spread(hash: &str) -> Partition {
    Partition(sha256(hash.as_bytes())[0])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_has_the_slot_that_the_cluster_gives_it() {
        // The specification's own example.
        assert_eq!(crc16(b"123456789"), 0x31c3);
        // As CLUSTER KEYSLOT says.
        assert_eq!(slot_of(Partition(0)), 13907);
        assert_eq!(slot_of(Partition(255)), 14163);
    }

    #[test]
    fn all_keys_of_a_partition_share_its_tag() {
        let keys = Keys::new("assent".into());
        let (partition, id) = (Partition(7), RequestId::from_bytes([0; 32]));
        for key in [
            keys.state(partition, id),
            keys.facts(partition, id),
            keys.open(partition, &UserId::new("alice")),
            keys.prompts(partition, &UserId::new("alice")),
            keys.sent(partition, id),
            keys.due(partition),
            keys.jobs(partition),
            keys.dead(partition),
        ] {
            assert!(key.starts_with("assent:{7}:"), "{key}");
        }
        let (partition, key) = keys.used("abc");
        assert!(key.starts_with(&format!("assent:{{{}}}:used:abc", partition.0)));
    }
}
