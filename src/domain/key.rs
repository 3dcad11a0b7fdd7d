//! What keys are for and how they follow each other: pure functions of times and now.
//!
//! ```text
//!   created ──────► activates ──────► retires ──────► gone
//!     │     next        │    active      │   retiring   │
//!     └─────────────── published ────────────────────────┘
//! ```
//!
//! A new version is published before it signs, for longer than anyone may keep an old key set; the old
//! one stays published for longer than anything it signed lives. So whoever holds a key set that is young
//! enough can verify everything that is still alive.

use super::Timestamp;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How long anyone may keep the key set they fetched: the `max-age` it is served with.
pub const JWKS_MAX_AGE: Duration = Duration::from_secs(300);
/// How often each node reads the stored keys again.
pub const RELOAD_EVERY: Duration = Duration::from_secs(5);
/// What is left for late reloads and for clocks that differ.
pub const MARGIN: Duration = Duration::from_secs(60);
/// The shortest activation delay that does what it is for.
pub const MIN_ACTIVATION_DELAY: Duration =
    Duration::from_secs(JWKS_MAX_AGE.as_secs() + RELOAD_EVERY.as_secs() + MARGIN.as_secs());

text_enum! {
    /// What a key is for. No key has two uses.
    Purpose: "key purpose" {
        /// MAC of `auth_req_id`.
        IdMac = "id-mac",
        /// Keyed hash of client secrets and enrolment codes.
        SecretPepper = "secret-pepper",
        /// AEAD of values at rest.
        DataSeal = "data-seal",
        /// Keyed hash of persons: partition and `sub_ref`.
        Subject = "subject",
        /// MAC of the nonces given to devices with a wrong clock.
        DeviceNonce = "device-nonce",
        /// Signs access tokens and ID Tokens.
        TokenSigning = "token-signing",
        /// Signs challenges; devices pin it.
        ChallengeSigning = "challenge-signing",
        /// Signs the audit's checkpoints.
        Audit = "audit",
    }
}

impl Purpose {
    /// Whether its keys are pairs. Versions of a secret key never go: what they made must open again.
    pub const fn signs(self) -> bool {
        matches!(
            self,
            Self::TokenSigning | Self::ChallengeSigning | Self::Audit
        )
    }

    /// The most versions there can be: an `auth_req_id` names the version of its key in one byte.
    pub const fn max_version(self) -> u32 {
        match self {
            Self::IdMac => u8::MAX as u32,
            _ => u32::MAX,
        }
    }
}

text_enum! {
    /// Where a version of a key stands.
    KeyState: "key state" {
        /// Published; nothing is made with it yet.
        Next = "next",
        /// What is made is made with this one.
        Active = "active",
        /// Still published; what it made is still accepted.
        Retiring = "retiring",
        /// No longer published. The public half is kept, so that evidence stays verifiable.
        Gone = "gone",
        /// Taken out at once: nothing it made is accepted.
        Revoked = "revoked",
    }
}

impl KeyState {
    pub const fn is_published(self) -> bool {
        matches!(self, Self::Next | Self::Active | Self::Retiring)
    }
}

/// The times of one version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyLife {
    pub created_at: Timestamp,
    pub activates_at: Timestamp,
    /// From when a newer version is used.
    pub retires_at: Option<Timestamp>,
    pub gone_at: Option<Timestamp>,
    pub revoked_at: Option<Timestamp>,
}

impl KeyLife {
    pub const fn new(created_at: Timestamp, activates_at: Timestamp) -> Self {
        Self {
            created_at,
            activates_at,
            retires_at: None,
            gone_at: None,
            revoked_at: None,
        }
    }

    /// What the version's own times say.
    pub fn state(&self, now: Timestamp) -> KeyState {
        let reached = |at: Option<Timestamp>| at.is_some_and(|at| at <= now);
        if self.revoked_at.is_some() {
            KeyState::Revoked
        } else if reached(self.gone_at) {
            KeyState::Gone
        } else if reached(self.retires_at) {
            KeyState::Retiring
        } else if self.activates_at > now {
            KeyState::Next
        } else {
            KeyState::Active
        }
    }

    /// Whether an ID Token it signed may still hint at a person. That is longer than it is published:
    /// a hint may be a token that ran out long ago.
    pub fn verifies_hints(&self, policy: &KeyPolicy, now: Timestamp) -> bool {
        match self.state(now) {
            KeyState::Revoked => false,
            KeyState::Gone => self
                .retires_at
                .is_some_and(|at| now < at.plus(policy.hint_retention)),
            _ => true,
        }
    }
}

/// The states of all versions of one key, oldest first. One is active: the newest that may be. Where
/// none may be yet (this clock is behind that of the node that made it) the oldest to come is.
pub fn states(lives: &[KeyLife], now: Timestamp) -> Vec<KeyState> {
    let mut states: Vec<_> = lives.iter().map(|life| life.state(now)).collect();
    let newest = states.iter().rposition(|state| *state == KeyState::Active);
    match newest {
        Some(newest) => {
            for state in &mut states[..newest] {
                if *state == KeyState::Active {
                    *state = KeyState::Retiring;
                }
            }
        }
        None => {
            if let Some(first) = states.iter_mut().find(|state| **state == KeyState::Next) {
                *first = KeyState::Active;
            }
        }
    }
    states
}

/// How keys follow each other here.
#[derive(Clone, Copy, Debug)]
pub struct KeyPolicy {
    /// From a key's publication to its first use.
    pub activation_delay: Duration,
    /// From a signing key's last use to its end in the key set.
    pub retire_after: Duration,
    /// From a signing key's last use to the last hint it verifies.
    pub hint_retention: Duration,
    /// From one version to the next; zero: only by hand.
    pub rotate_every: Duration,
}

impl KeyPolicy {
    /// Whether the newest version is so old that it needs a successor.
    pub fn is_due(&self, newest: &KeyLife, now: Timestamp) -> bool {
        !self.rotate_every.is_zero() && newest.created_at.plus(self.rotate_every) <= now
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_secs(secs)
    }

    fn policy() -> KeyPolicy {
        KeyPolicy {
            activation_delay: Duration::from_secs(600),
            retire_after: Duration::from_secs(3600),
            hint_retention: Duration::from_secs(90_000),
            rotate_every: Duration::from_secs(1000),
        }
    }

    fn retired() -> KeyLife {
        KeyLife {
            retires_at: Some(at(1000)),
            gone_at: Some(at(4600)),
            ..KeyLife::new(at(0), at(600))
        }
    }

    #[test]
    fn every_moment_of_a_life() {
        let life = retired();
        for (now, state, hints) in [
            (0, KeyState::Next, true),
            (599, KeyState::Next, true),
            (600, KeyState::Active, true),
            (999, KeyState::Active, true),
            (1000, KeyState::Retiring, true),
            (4599, KeyState::Retiring, true),
            (4600, KeyState::Gone, true),
            (90_999, KeyState::Gone, true),
            (91_000, KeyState::Gone, false),
        ] {
            assert_eq!(life.state(at(now)), state, "{now}");
            assert_eq!(life.verifies_hints(&policy(), at(now)), hints, "{now}");
            let revoked = KeyLife {
                revoked_at: Some(at(0)),
                ..life
            };
            assert_eq!(revoked.state(at(now)), KeyState::Revoked);
            assert!(!revoked.verifies_hints(&policy(), at(now)));
        }
    }

    #[test]
    fn one_version_is_active() {
        use KeyState::{Active, Next, Retiring, Revoked};
        let young = |created, activates| KeyLife::new(at(created), at(activates));
        let revoked = KeyLife {
            revoked_at: Some(at(10)),
            ..young(0, 0)
        };
        for (lives, now, expected) in [
            (vec![young(0, 0)], 5, vec![Active]),
            (vec![retired(), young(400, 1000)], 999, vec![Active, Next]),
            (
                vec![retired(), young(400, 1000)],
                1000,
                vec![Retiring, Active],
            ),
            // The newest of several wins; the others are as good as retired.
            (vec![young(0, 0), young(0, 5)], 5, vec![Retiring, Active]),
            (vec![young(0, 0), revoked], 5, vec![Active, Revoked]),
            // A clock that is behind.
            (vec![young(10, 10), young(10, 20)], 5, vec![Active, Next]),
            (vec![revoked, young(10, 10)], 5, vec![Revoked, Active]),
        ] {
            assert_eq!(states(&lives, at(now)), expected, "{lives:?}");
        }
        assert!(states(&[], at(0)).is_empty());
    }

    #[test]
    fn a_successor_is_due_by_the_calendar_or_never() {
        let life = KeyLife::new(at(0), at(600));
        assert!(!policy().is_due(&life, at(999)));
        assert!(policy().is_due(&life, at(1000)));
        let never = KeyPolicy {
            rotate_every: Duration::ZERO,
            ..policy()
        };
        assert!(!never.is_due(&life, at(i64::MAX / 1000)));
    }

    fn any_life() -> impl Strategy<Value = KeyLife> {
        let time = || proptest::option::of(0_i64..50);
        (0_i64..50, time(), time(), time()).prop_map(|(activates, retires, gone, revoked)| {
            KeyLife {
                retires_at: retires.map(at),
                gone_at: gone.map(at),
                revoked_at: revoked.map(at),
                ..KeyLife::new(at(0), at(activates))
            }
        })
    }

    proptest! {
        #[test]
        fn never_two_active_and_never_none_without_need(
            lives in proptest::collection::vec(any_life(), 0..6),
            now in 0_i64..60,
        ) {
            let states = states(&lives, at(now));
            let count = |state| states.iter().filter(|found| **found == state).count();
            let usable = |life: &KeyLife| matches!(life.state(at(now)), KeyState::Active | KeyState::Next);
            prop_assert_eq!(count(KeyState::Active), usize::from(lives.iter().any(usable)));
            for (life, state) in lives.iter().zip(&states) {
                prop_assert_eq!(state.is_published(), life.state(at(now)).is_published());
            }
        }
    }
}
