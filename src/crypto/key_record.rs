//! Keys as they are stored: wrapped by the deployment key, one purpose each.

use super::generate;
use super::jwk::PublicJwk;
use super::seal::{CannotOpen, SealKey};
use super::{from_base64url, sha256_base64url};
use crate::domain::key::{KeyLife, KeyState, Purpose, states};
use crate::domain::{SignatureAlgorithm, Timestamp};
use crate::entropy::Entropy;
use zeroize::Zeroizing;

/// The key that wraps all others: from a file or the environment, never stored with the data.
pub struct DeploymentKey(SealKey);

impl DeploymentKey {
    /// From 32 random bytes.
    pub fn new(key: &[u8; 32]) -> Self {
        Self(SealKey::new(key))
    }

    /// Reads base64url text of exactly 32 bytes.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = Zeroizing::new(from_base64url(text.trim())?);
        Some(Self::new(bytes.as_slice().try_into().ok()?))
    }

    /// Wraps a private key for its place in the ring.
    fn wrap(&self, purpose: Purpose, version: u32, private: &[u8]) -> String {
        self.0.seal(&wrap_context(purpose, version), private)
    }

    /// Unwraps a stored key.
    ///
    /// # Errors
    /// [`KeyRingError::DeploymentKey`], whatever the cause.
    pub(super) fn unwrap(&self, record: &KeyRecord) -> Result<Zeroizing<Vec<u8>>, KeyRingError> {
        let KeyRecord {
            purpose, version, ..
        } = *record;
        self.0
            .open(&wrap_context(purpose, version), &record.wrapped)
            .map_err(|CannotOpen| KeyRingError::DeploymentKey { purpose, version })
    }
}

fn wrap_context(purpose: Purpose, version: u32) -> String {
    format!("keys|{purpose}|{version}")
}

/// A key as it is stored: wrapped, with its public half in the open.
#[derive(Clone, Debug)]
pub struct KeyRecord {
    pub purpose: Purpose,
    /// Counts within a purpose, over all algorithms.
    pub version: u32,
    /// What it signs with; `None` for a symmetric key.
    pub algorithm: Option<SignatureAlgorithm>,
    /// The private key, sealed by the deployment key.
    pub wrapped: String,
    /// The public half as canonical JWK; `None` for a symmetric key.
    pub public_jwk: Option<String>,
    pub life: KeyLife,
}

impl KeyRecord {
    /// Whether this is a version of the same key: versions follow each other within a purpose and an
    /// algorithm.
    pub fn is_of(&self, purpose: Purpose, algorithm: Option<SignatureAlgorithm>) -> bool {
        self.purpose == purpose && self.algorithm == algorithm
    }

    /// The name of the public half: its RFC 7638 thumbprint.
    pub fn kid(&self) -> Option<String> {
        let jwk = self.public_jwk.as_deref()?;
        Some(sha256_base64url(jwk.as_bytes()))
    }
}

/// Where each record stands now, in the order of the records, which must be that of their versions.
pub fn key_states(records: &[KeyRecord], now: Timestamp) -> Vec<KeyState> {
    let state = |(index, record): (usize, &KeyRecord)| {
        let is_of = |other: &&KeyRecord| other.is_of(record.purpose, record.algorithm);
        let lives: Vec<_> = records
            .iter()
            .filter(is_of)
            .map(|record| record.life)
            .collect();
        let place = records[..index].iter().filter(is_of).count();
        states(&lives, now)[place]
    };
    records.iter().enumerate().map(state).collect()
}

/// Why the key ring cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyRingError {
    #[error(
        "the deployment key does not open {purpose} v{version}: it is not the key this database was set up with"
    )]
    DeploymentKey { purpose: Purpose, version: u32 },
    #[error("{purpose} v{version} opens but is not a usable key")]
    Damaged { purpose: Purpose, version: u32 },
    #[error("the key ring has no {0} key")]
    Missing(Purpose),
}

/// The keys that a ring has from the start. Others come when somebody asks for them: an RSA key takes
/// long to make, and most deployments never need one.
const FROM_THE_START: &[(Purpose, Option<SignatureAlgorithm>)] = &[
    (Purpose::IdMac, None),
    (Purpose::SecretPepper, None),
    (Purpose::DataSeal, None),
    (Purpose::Subject, None),
    (Purpose::DeviceNonce, None),
    (Purpose::TokenSigning, Some(SignatureAlgorithm::Es256)),
    (Purpose::TokenSigning, Some(SignatureAlgorithm::EdDsa)),
    (Purpose::ChallengeSigning, Some(SignatureAlgorithm::Es256)),
    (Purpose::Audit, Some(SignatureAlgorithm::EdDsa)),
];

/// Makes the keys that every ring has and `present` lacks.
pub fn generate_missing(
    present: &[KeyRecord],
    deployment: &DeploymentKey,
    entropy: &dyn Entropy,
    now: Timestamp,
) -> Vec<KeyRecord> {
    let mut made: Vec<KeyRecord> = Vec::new();
    for &(purpose, algorithm) in FROM_THE_START {
        if present.iter().any(|key| key.is_of(purpose, algorithm)) {
            continue;
        }
        let versions = present.iter().chain(&made);
        let last = versions
            .filter(|key| key.purpose == purpose)
            .map(|key| key.version)
            .max();
        let new = NewKey::generate(purpose, algorithm, entropy);
        made.push(new.record(last.unwrap_or(0) + 1, KeyLife::new(now, now), deployment));
    }
    made
}

/// A key that has been made and has no place in the ring yet.
pub struct NewKey {
    purpose: Purpose,
    algorithm: Option<SignatureAlgorithm>,
    private: Zeroizing<Vec<u8>>,
    public: Option<PublicJwk>,
}

impl NewKey {
    /// With an `algorithm` a key pair, else 32 random bytes.
    pub fn generate(
        purpose: Purpose,
        algorithm: Option<SignatureAlgorithm>,
        entropy: &dyn Entropy,
    ) -> Self {
        let (private, public) = match algorithm.map(generate::generate) {
            Some((private, public)) => (private, Some(public)),
            None => (Zeroizing::new(entropy.bytes::<32>().to_vec()), None),
        };
        Self {
            purpose,
            algorithm,
            private,
            public,
        }
    }

    /// The key as the version it is to be.
    pub fn record(&self, version: u32, life: KeyLife, deployment: &DeploymentKey) -> KeyRecord {
        KeyRecord {
            purpose: self.purpose,
            version,
            algorithm: self.algorithm,
            wrapped: deployment.wrap(self.purpose, version, &self.private),
            public_jwk: self.public.as_ref().map(PublicJwk::canonical_jwk),
            life,
        }
    }
}
