//! Keys follow each other: by the calendar, by an operator's hand, or at once when one is lost.
//!
//! Every node does all of this; the stores let one of them win.

use super::Services;
use crate::crypto::{KeyRecord, KeyRingError, NewKey, key_states};
use crate::domain::key::{KeyLife, KeyState, Purpose};
use crate::domain::{SignatureAlgorithm, Timestamp};
use crate::store::StoreError;
use crate::store::sql::AuditEntry;
use crate::store::sql::keys::{Succeeded, Succession};
use serde_json::json;

/// Why a key was not rotated or revoked. The text is for an operator.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    #[error(
        "{0} has no version left: an auth_req_id names its key in one byte, and all 255 are taken"
    )]
    Exhausted(Purpose),
    #[error(
        "phones have pinned the challenge-signing key and would refuse a successor they have not been told of; it can only be revoked, and then every phone has to be enrolled again"
    )]
    Pinned,
    #[error("only token-signing has a choice of algorithms; leave out --alg")]
    NoChoice,
    #[error("there is no {purpose} v{version}; see `assent keys list`")]
    Unknown { purpose: Purpose, version: u32 },
    #[error(
        "{0} cannot be revoked: what is stored under it would be lost. Rotate it instead; if client secrets may be known, rotate them too"
    )]
    Irrevocable(Purpose),
    #[error("{purpose} v{version} is revoked already")]
    Revoked { purpose: Purpose, version: u32 },
    #[error(transparent)]
    Ring(#[from] KeyRingError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A version that was added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewVersion {
    pub purpose: Purpose,
    pub version: u32,
    pub algorithm: Option<SignatureAlgorithm>,
    pub activates_at: Timestamp,
}

/// What is to happen to one key: one purpose, one algorithm.
struct Plan<'a> {
    purpose: Purpose,
    algorithm: Option<SignatureAlgorithm>,
    /// The version the decision was made on; 0: there is none.
    after: u32,
    at_once: bool,
    revokes: Option<&'a KeyRecord>,
}

impl<'a> Plan<'a> {
    const fn follow(newest: &'a KeyRecord, at_once: bool) -> Self {
        Self {
            purpose: newest.purpose,
            algorithm: newest.algorithm,
            after: newest.version,
            at_once,
            revokes: None,
        }
    }
}

impl Services {
    /// Takes in what is stored and what time has changed. Returns what is stored.
    ///
    /// # Errors
    /// [`KeysError::Ring`] or [`KeysError::Store`]; the keys in use stay as they were.
    pub async fn reload_keys(&self) -> Result<Vec<KeyRecord>, KeysError> {
        let _one_at_a_time = self.reloading.lock().await;
        let records = self.key_table.all().await?;
        self.keys.reload(&records, self.clock.now())?;
        Ok(records)
    }

    /// All keys, each with its state.
    pub async fn list_keys(&self) -> Result<Vec<(KeyRecord, KeyState)>, StoreError> {
        let records = self.key_table.all().await?;
        let states = key_states(&records, self.clock.now());
        Ok(records.into_iter().zip(states).collect())
    }

    /// Reloads, and adds the versions that the calendar asks for. Returns those this node has added.
    pub async fn rotate_due_keys(&self) -> Result<Vec<NewVersion>, KeysError> {
        let records = self.reload_keys().await?;
        let mut added = Vec::new();
        for newest in newest_versions(&records) {
            let due = self.keys.policy().is_due(&newest.life, self.clock.now());
            if !due || newest.purpose == Purpose::ChallengeSigning {
                continue;
            }
            match self.add(&Plan::follow(newest, false), &records).await {
                Ok(new) => added.extend(new),
                Err(error @ KeysError::Exhausted(_)) => tracing::error!(%error, "no new version"),
                Err(error) => return Err(error),
            }
        }
        Ok(added)
    }

    /// Gives a purpose's keys successors, or those of one algorithm, which may be the first of it: they
    /// are published now and used after the activation delay. `at_once` skips the delay; whoever holds
    /// an older key set has to fetch it again. Keys for which another node was faster are left out.
    pub async fn rotate_keys(
        &self,
        purpose: Purpose,
        algorithm: Option<SignatureAlgorithm>,
        at_once: bool,
    ) -> Result<Vec<NewVersion>, KeysError> {
        match purpose {
            Purpose::ChallengeSigning => return Err(KeysError::Pinned),
            Purpose::TokenSigning => {}
            _ if algorithm.is_some() => return Err(KeysError::NoChoice),
            _ => {}
        }
        let records = self.reload_keys().await?;
        let wanted = |key: &&KeyRecord| {
            key.purpose == purpose && (algorithm.is_none() || key.algorithm == algorithm)
        };
        let mut plans: Vec<_> = newest_versions(&records)
            .filter(wanted)
            .map(|newest| Plan::follow(newest, at_once))
            .collect();
        if let (true, Some(algorithm)) = (plans.is_empty(), algorithm) {
            plans.push(first_token_key(algorithm));
        }
        let mut added = Vec::new();
        for plan in plans {
            added.extend(self.add(&plan, &records).await?);
        }
        Ok(added)
    }

    /// Sees to it that tokens can be signed with this algorithm: before a client is given it, and before
    /// a token is made on a node that may not have heard of the key yet.
    ///
    /// The first key of an algorithm has no predecessor to sign in its place, so it is used at once.
    pub async fn ensure_token_key(&self, algorithm: SignatureAlgorithm) -> Result<(), KeysError> {
        if self.keys.can_sign_tokens(algorithm) {
            return Ok(());
        }
        let records = self.reload_keys().await?;
        if !self.keys.can_sign_tokens(algorithm) {
            self.add(&first_token_key(algorithm), &records).await?;
        }
        Ok(())
    }

    /// Takes a version out at once: nothing it made is accepted any more. If it was in use, a new one
    /// is used from now on; if it was to be, its place is taken by one that waits its turn.
    pub async fn revoke_key(
        &self,
        purpose: Purpose,
        version: u32,
    ) -> Result<Option<NewVersion>, KeysError> {
        if matches!(purpose, Purpose::DataSeal | Purpose::SecretPepper) {
            return Err(KeysError::Irrevocable(purpose));
        }
        // Again when another node came between: what it did may change what has to be done.
        loop {
            let records = self.reload_keys().await?;
            let now = self.clock.now();
            let mut all = records.iter().zip(key_states(&records, now));
            let (key, state) = all
                .find(|(key, _)| key.purpose == purpose && key.version == version)
                .ok_or(KeysError::Unknown { purpose, version })?;
            match state {
                KeyState::Revoked => return Err(KeysError::Revoked { purpose, version }),
                KeyState::Retiring | KeyState::Gone => {
                    let entry = self.revoked(key, now);
                    if self.key_table.revoke(key, now, entry).await? {
                        self.reload_keys().await?;
                        return Ok(None);
                    }
                }
                KeyState::Next | KeyState::Active => {
                    let newest = newest_versions(&records)
                        .find(|newest| newest.is_of(purpose, key.algorithm));
                    let plan = Plan {
                        after: newest.map_or(version, |newest| newest.version),
                        revokes: Some(key),
                        ..Plan::follow(key, state == KeyState::Active)
                    };
                    if let Some(new) = self.add(&plan, &records).await? {
                        return Ok(Some(new));
                    }
                }
            }
        }
    }

    /// Makes a key and stores it as the next version. `None`: another node was faster.
    async fn add(
        &self,
        plan: &Plan<'_>,
        records: &[KeyRecord],
    ) -> Result<Option<NewVersion>, KeysError> {
        let &Plan {
            purpose, algorithm, ..
        } = plan;
        let new = self.generate_key(purpose, algorithm).await;
        let now = self.clock.now();
        let policy = self.keys.policy();
        let activates_at = match plan.at_once || plan.after == 0 {
            true => now,
            false => now.plus(policy.activation_delay),
        };
        let mut version = next_version(records, purpose);
        loop {
            if version > purpose.max_version() {
                return Err(KeysError::Exhausted(purpose));
            }
            let record = self
                .keys
                .record(&new, version, KeyLife::new(now, activates_at));
            let step = Succession {
                new: &record,
                after: plan.after,
                retire_after: purpose.signs().then_some(policy.retire_after),
                revokes: plan.revokes,
            };
            let revoked = plan.revokes.map(|key| self.revoked(key, now));
            let entries = revoked.into_iter().chain([self.rotated(&record)]);
            let succeeded = self.key_table.succeed(&step, entries.collect()).await?;
            let records = self.reload_keys().await?;
            match succeeded {
                Succeeded::Yes => break,
                Succeeded::Overtaken => return Ok(None),
                Succeeded::Renumber => version = next_version(&records, purpose),
            }
        }
        tracing::info!(%purpose, version, "a new key version");
        metrics::counter!("assent_keys_added_total", "purpose" => purpose.as_str()).increment(1);
        Ok(Some(NewVersion {
            purpose,
            version,
            algorithm,
            activates_at,
        }))
    }

    /// RSA keys take long to make: not on a thread that serves requests.
    async fn generate_key(
        &self,
        purpose: Purpose,
        algorithm: Option<SignatureAlgorithm>,
    ) -> NewKey {
        let entropy = self.entropy.clone();
        tokio::task::spawn_blocking(move || NewKey::generate(purpose, algorithm, &*entropy))
            .await
            .expect("making a key does not panic")
    }

    fn rotated(&self, new: &KeyRecord) -> AuditEntry {
        let payload = json!({
            "purpose": new.purpose,
            "version": new.version,
            "algorithm": new.algorithm,
            "activates_at": new.life.activates_at.secs(),
        });
        self.entry("keys.rotated", new.life.created_at, payload)
    }

    fn revoked(&self, key: &KeyRecord, at: Timestamp) -> AuditEntry {
        let payload = json!({ "purpose": key.purpose, "version": key.version });
        self.entry("keys.revoked", at, payload)
    }
}

const fn first_token_key(algorithm: SignatureAlgorithm) -> Plan<'static> {
    Plan {
        purpose: Purpose::TokenSigning,
        algorithm: Some(algorithm),
        after: 0,
        at_once: true,
        revokes: None,
    }
}

fn next_version(records: &[KeyRecord], purpose: Purpose) -> u32 {
    let of = records.iter().filter(|key| key.purpose == purpose);
    of.map(|key| key.version).max().unwrap_or(0) + 1
}

/// The newest version of each key.
fn newest_versions(records: &[KeyRecord]) -> impl Iterator<Item = &KeyRecord> {
    let is_newest = |(index, key): &(usize, &KeyRecord)| {
        let newer = &records[index + 1..];
        !newer
            .iter()
            .any(|other| other.is_of(key.purpose, key.algorithm))
    };
    let newest = records.iter().enumerate().filter(is_newest);
    newest.map(|(_, key)| key).collect::<Vec<_>>().into_iter()
}
