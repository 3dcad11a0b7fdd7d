//! The key ring: versioned random keys, one purpose each, wrapped by the deployment key.

use super::auth_req_id::{self, Handle};
use super::jose::{InvalidJws, Jws, SigningKey, VerifyingKey};
use super::mac::{MacKey, equal};
use super::seal::{CannotOpen, SealKey};
use super::{base64url, from_base64url};
use crate::domain::client::SecretVerifier;
use crate::domain::device::PublicKey;
use crate::domain::{AuthReqId, ClientId, Partition, Secret, Timestamp, UserId};
use crate::entropy::Entropy;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;
use zeroize::Zeroizing;

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
}

/// A key as it is stored: wrapped, with its public half in the open.
#[derive(Clone, Debug)]
pub struct KeyRecord {
    pub purpose: Purpose,
    pub version: u32,
    /// The private key, sealed by the deployment key.
    pub wrapped: String,
    /// The public half as canonical JWK; `None` for a symmetric key.
    pub public_jwk: Option<String>,
    pub created_at: Timestamp,
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

/// Every version of one purpose's key; the newest makes, all of them check.
struct Versions<K>(BTreeMap<u32, K>);

impl<K> Versions<K> {
    fn newest(&self) -> (u32, &K) {
        let (version, key) = self
            .0
            .last_key_value()
            .expect("KeyRing::open demands one of each");
        (*version, key)
    }
}

/// All keys of a deployment, ready to use.
pub struct KeyRing {
    id_mac: Versions<MacKey>,
    pepper: Versions<MacKey>,
    data_seal: Versions<SealKey>,
    subject: Versions<MacKey>,
    device_nonce: Versions<MacKey>,
    token_signing: Versions<SigningKey>,
    challenge_signing: Versions<SigningKey>,
    audit: Versions<SigningKey>,
}

impl KeyRing {
    /// Makes a first key of each purpose that `present` lacks.
    pub fn generate_missing(
        present: &[KeyRecord],
        deployment: &DeploymentKey,
        entropy: &dyn Entropy,
        now: Timestamp,
    ) -> Vec<KeyRecord> {
        let missing =
            |purpose: &&Purpose| !present.iter().any(|record| record.purpose == **purpose);
        Purpose::ALL
            .iter()
            .filter(missing)
            .map(|&purpose| generate(purpose, deployment, entropy, now))
            .collect()
    }

    /// Unwraps the stored keys.
    ///
    /// # Errors
    /// When a key does not open or a purpose has none.
    pub fn open(records: &[KeyRecord], deployment: &DeploymentKey) -> Result<Self, KeyRingError> {
        fn collect<K>(
            records: &[KeyRecord],
            deployment: &DeploymentKey,
            purpose: Purpose,
            make: impl Fn(&[u8], &KeyRecord) -> Option<K>,
        ) -> Result<Versions<K>, KeyRingError> {
            let mut versions = BTreeMap::new();
            for record in records.iter().filter(|record| record.purpose == purpose) {
                let version = record.version;
                let bytes = deployment
                    .0
                    .open(&wrap_context(purpose, version), &record.wrapped)
                    .map_err(|CannotOpen| KeyRingError::DeploymentKey { purpose, version })?;
                let key = make(&bytes, record).ok_or(KeyRingError::Damaged { purpose, version })?;
                versions.insert(version, key);
            }
            if versions.is_empty() {
                Err(KeyRingError::Missing(purpose))
            } else {
                Ok(Versions(versions))
            }
        }
        let mac = |bytes: &[u8], _: &KeyRecord| bytes.try_into().ok().map(MacKey::new);
        let seal = |bytes: &[u8], _: &KeyRecord| bytes.try_into().ok().map(SealKey::new);
        let signing = |bytes: &[u8], record: &KeyRecord| {
            let jwk = serde_json::from_str(record.public_jwk.as_deref()?).ok()?;
            SigningKey::new(bytes, PublicKey::from_jwk(&jwk).ok()?)
        };
        Ok(Self {
            id_mac: collect(records, deployment, Purpose::IdMac, mac)?,
            pepper: collect(records, deployment, Purpose::SecretPepper, mac)?,
            data_seal: collect(records, deployment, Purpose::DataSeal, seal)?,
            subject: collect(records, deployment, Purpose::Subject, mac)?,
            device_nonce: collect(records, deployment, Purpose::DeviceNonce, mac)?,
            token_signing: collect(records, deployment, Purpose::TokenSigning, signing)?,
            challenge_signing: collect(records, deployment, Purpose::ChallengeSigning, signing)?,
            audit: collect(records, deployment, Purpose::Audit, signing)?,
        })
    }

    // Handles

    /// A new handle for a request of `client` (CIBA Core 7.3).
    pub fn make_auth_req_id(
        &self,
        client: &ClientId,
        partition: Partition,
        expires_at: Timestamp,
        entropy: &dyn Entropy,
    ) -> AuthReqId {
        let (version, key) = self.id_mac.newest();
        auth_req_id::make(
            key,
            version as u8,
            client,
            partition,
            expires_at,
            entropy.bytes(),
        )
    }

    /// Reads a handle that `client` presents; `None` unless we made it for that client.
    pub fn open_auth_req_id(&self, client: &ClientId, id: &AuthReqId) -> Option<Handle> {
        let key = self
            .id_mac
            .0
            .get(&u32::from(auth_req_id::key_version(id)?))?;
        auth_req_id::open(key, client, id)
    }

    // Secrets

    /// The verifier to store for a client secret we made.
    pub fn secret_verifier(&self, client: &ClientId, secret: &Secret) -> SecretVerifier {
        let (key_version, key) = self.pepper.newest();
        SecretVerifier {
            key_version,
            mac: client_secret_mac(key, client, secret),
        }
    }

    /// Whether `secret` is the one behind `verifier`. Without a verifier the same work is done and
    /// the answer is no.
    pub fn secret_matches(
        &self,
        client: &ClientId,
        secret: &Secret,
        verifier: Option<&SecretVerifier>,
    ) -> bool {
        let key = verifier
            .and_then(|verifier| self.pepper.0.get(&verifier.key_version))
            .unwrap_or_else(|| self.pepper.newest().1);
        let mac = client_secret_mac(key, client, secret);
        let expected = verifier.map_or([0; 32], |verifier| verifier.mac);
        equal(&mac, &expected) & verifier.is_some()
    }

    /// The hash under which an enrolment code, or a part of it, is stored.
    pub fn enrolment_code_hash(&self, part: &str, code: &str) -> String {
        base64url(
            &self
                .pepper
                .newest()
                .1
                .mac("enrolment-code", &[part.as_bytes(), code.as_bytes()]),
        )
    }

    // Values at rest

    /// Seals `plain` for the place that `context` names.
    pub fn seal(&self, context: &str, plain: &[u8]) -> String {
        let (version, key) = self.data_seal.newest();
        format!("{version}.{}", key.seal(context, plain))
    }

    /// Opens what [`KeyRing::seal`] made for the same `context`.
    ///
    /// # Errors
    /// [`CannotOpen`], whatever the cause.
    pub fn open_sealed(
        &self,
        context: &str,
        sealed: &str,
    ) -> Result<Zeroizing<Vec<u8>>, CannotOpen> {
        let (version, text) = sealed.split_once('.').ok_or(CannotOpen)?;
        let key = version
            .parse()
            .ok()
            .and_then(|version: u32| self.data_seal.0.get(&version));
        key.ok_or(CannotOpen)?.open(context, text)
    }

    // Persons

    /// The partition a new person lives in. Asked once, then stored: it never changes.
    pub fn partition(&self, user: &UserId) -> Partition {
        Partition(
            self.subject
                .newest()
                .1
                .mac("partition", &[user.as_str().as_bytes()])[0],
        )
    }

    /// What stands for a person in a challenge: tells nothing about the `sub`.
    pub fn sub_ref(&self, user: &UserId) -> String {
        base64url(
            &self
                .subject
                .newest()
                .1
                .mac("sub-ref", &[user.as_str().as_bytes()]),
        )
    }

    // Devices' clocks

    /// A nonce for a device whose clock is wrong. Valid in the period it was made in and the next.
    pub fn device_nonce(&self, now: Timestamp, period: Duration) -> String {
        self.nonce_of(nonce_period(now, period))
    }

    /// Whether `nonce` is one we gave out in this period or the one before.
    pub fn device_nonce_is_fresh(&self, nonce: &str, now: Timestamp, period: Duration) -> bool {
        let current = nonce_period(now, period);
        [current, current - 1]
            .iter()
            .any(|p| equal(self.nonce_of(*p).as_bytes(), nonce.as_bytes()))
    }

    fn nonce_of(&self, period: i64) -> String {
        base64url(
            &self
                .device_nonce
                .newest()
                .1
                .mac("device-nonce", &[&period.to_be_bytes()])[..16],
        )
    }

    // Statements

    /// Signs a token: `typ` is `at+jwt` (RFC 9068) or `JWT`.
    pub fn sign_token(&self, typ: &str, claims: &impl Serialize) -> String {
        self.token_signing.newest().1.sign(typ, claims)
    }

    /// Verifies a token we signed.
    ///
    /// # Errors
    /// As [`Jws::verify`]; an unknown `kid` is a signature that does not verify.
    pub fn verify_token<T: DeserializeOwned>(
        &self,
        typ: &str,
        token: &str,
    ) -> Result<T, InvalidJws> {
        verify_ours(&self.token_signing, typ, token)
    }

    pub fn sign_challenge(&self, typ: &str, claims: &impl Serialize) -> String {
        self.challenge_signing.newest().1.sign(typ, claims)
    }

    /// Verifies a challenge we signed.
    ///
    /// # Errors
    /// As [`KeyRing::verify_token`].
    pub fn verify_challenge<T: DeserializeOwned>(
        &self,
        typ: &str,
        token: &str,
    ) -> Result<T, InvalidJws> {
        verify_ours(&self.challenge_signing, typ, token)
    }

    pub fn sign_checkpoint(&self, typ: &str, claims: &impl Serialize) -> String {
        self.audit.newest().1.sign(typ, claims)
    }

    /// Verifies a checkpoint we signed.
    ///
    /// # Errors
    /// As [`KeyRing::verify_token`].
    pub fn verify_checkpoint<T: DeserializeOwned>(
        &self,
        typ: &str,
        token: &str,
    ) -> Result<T, InvalidJws> {
        verify_ours(&self.audit, typ, token)
    }

    /// The public keys that verify our tokens (RFC 7517 5).
    pub fn token_jwks(&self) -> serde_json::Value {
        jwks(&self.token_signing)
    }

    /// The public keys that verify our challenges; devices pin them at enrolment.
    pub fn challenge_jwks(&self) -> serde_json::Value {
        jwks(&self.challenge_signing)
    }
}

fn client_secret_mac(key: &MacKey, client: &ClientId, secret: &Secret) -> [u8; 32] {
    key.mac(
        "client-secret",
        &[client.as_str().as_bytes(), secret.expose().as_bytes()],
    )
}

fn nonce_period(now: Timestamp, period: Duration) -> i64 {
    now.millis() / i64::try_from(period.as_millis()).unwrap_or(i64::MAX).max(1)
}

fn verify_ours<T: DeserializeOwned>(
    keys: &Versions<SigningKey>,
    typ: &str,
    token: &str,
) -> Result<T, InvalidJws> {
    let jws = Jws::parse(token)?;
    let key: &VerifyingKey = keys
        .0
        .values()
        .find(|key| Some(&key.kid) == jws.kid.as_ref())
        .map(SigningKey::verifying_key)
        .ok_or(InvalidJws::Signature)?;
    jws.verify(typ, key)
}

fn jwks(keys: &Versions<SigningKey>) -> serde_json::Value {
    serde_json::json!({ "keys": keys.0.values().map(SigningKey::jwk).collect::<Vec<_>>() })
}

fn wrap_context(purpose: Purpose, version: u32) -> String {
    format!("keys|{purpose}|{version}")
}

fn generate(
    purpose: Purpose,
    deployment: &DeploymentKey,
    entropy: &dyn Entropy,
    now: Timestamp,
) -> KeyRecord {
    let (private, public) = match purpose {
        Purpose::TokenSigning | Purpose::ChallengeSigning => {
            let (private, public) = generate_p256();
            (private, Some(public))
        }
        Purpose::Audit => {
            let (private, public) = generate_ed25519();
            (private, Some(public))
        }
        Purpose::IdMac
        | Purpose::SecretPepper
        | Purpose::DataSeal
        | Purpose::Subject
        | Purpose::DeviceNonce => (Zeroizing::new(entropy.bytes::<32>().to_vec()), None),
    };
    KeyRecord {
        purpose,
        version: 1,
        wrapped: deployment.0.seal(&wrap_context(purpose, 1), &private),
        public_jwk: public.as_ref().map(PublicKey::canonical_jwk),
        created_at: now,
    }
}

/// A new P-256 key: PKCS #8 and public half. The provider draws the randomness.
pub fn generate_p256() -> (Zeroizing<Vec<u8>>, PublicKey) {
    let pair =
        EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("the provider makes keys");
    let pkcs8 = pair.to_pkcs8v1().expect("a new key can be written");
    // An uncompressed point: 0x04, x, y (SEC 1, 2.3.3).
    let point = pair.public_key().as_ref();
    let public = PublicKey::P256 {
        x: base64url(&point[1..33]),
        y: base64url(&point[33..65]),
    };
    (Zeroizing::new(pkcs8.as_ref().to_vec()), public)
}

/// A new Ed25519 key: PKCS #8 and public half. The provider draws the randomness.
pub fn generate_ed25519() -> (Zeroizing<Vec<u8>>, PublicKey) {
    let pair = Ed25519KeyPair::generate().expect("the provider makes keys");
    let pkcs8 = pair.to_pkcs8v1().expect("a new key can be written");
    let public = PublicKey::Ed25519 {
        x: base64url(pair.public_key().as_ref()),
    };
    (Zeroizing::new(pkcs8.as_ref().to_vec()), public)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::SystemEntropy;

    fn ring(deployment: &DeploymentKey) -> (Vec<KeyRecord>, KeyRing) {
        let records =
            KeyRing::generate_missing(&[], deployment, &SystemEntropy, Timestamp::from_millis(0));
        let ring = KeyRing::open(&records, deployment).unwrap();
        (records, ring)
    }

    #[test]
    fn a_ring_opens_with_its_own_deployment_key_only() {
        let (records, _) = ring(&DeploymentKey::new(&[1; 32]));
        assert_eq!(records.len(), Purpose::ALL.len());
        let wrong = KeyRing::open(&records, &DeploymentKey::new(&[2; 32]));
        assert!(matches!(
            wrong.err(),
            Some(KeyRingError::DeploymentKey { .. })
        ));
        let short = KeyRing::open(&records[1..], &DeploymentKey::new(&[1; 32]));
        assert_eq!(short.err(), Some(KeyRingError::Missing(records[0].purpose)));
    }

    #[test]
    fn a_wrapped_key_does_not_open_as_another() {
        let deployment = DeploymentKey::new(&[1; 32]);
        let (mut records, _) = ring(&deployment);
        let stolen = records[0].wrapped.clone();
        records[1].wrapped = stolen;
        assert!(KeyRing::open(&records, &deployment).is_err());
    }

    #[test]
    fn a_secret_matches_its_client_only() {
        let (_, ring) = ring(&DeploymentKey::new(&[1; 32]));
        let (a, b) = (ClientId::new("a"), ClientId::new("b"));
        let secret = Secret::new("s3cret".into());
        let verifier = ring.secret_verifier(&a, &secret);
        assert!(ring.secret_matches(&a, &secret, Some(&verifier)));
        assert!(!ring.secret_matches(&b, &secret, Some(&verifier)));
        assert!(!ring.secret_matches(&a, &Secret::new("s3creT".into()), Some(&verifier)));
        assert!(!ring.secret_matches(&a, &secret, None));
    }

    #[test]
    fn a_nonce_lives_for_two_periods() {
        let (_, ring) = ring(&DeploymentKey::new(&[1; 32]));
        let period = Duration::from_secs(60);
        let at = Timestamp::from_secs;
        let nonce = ring.device_nonce(at(59), period);
        assert!(ring.device_nonce_is_fresh(&nonce, at(59), period));
        assert!(ring.device_nonce_is_fresh(&nonce, at(119), period));
        assert!(!ring.device_nonce_is_fresh(&nonce, at(120), period));
        assert!(!ring.device_nonce_is_fresh("", at(59), period));
    }

    #[test]
    fn one_purpose_does_not_verify_anothers_statements() {
        let (_, ring) = ring(&DeploymentKey::new(&[1; 32]));
        let claims = serde_json::json!({ "a": 1 });
        let token = ring.sign_token("x", &claims);
        assert_eq!(ring.verify_token("x", &token), Ok(claims.clone()));
        assert_eq!(
            ring.verify_challenge::<serde_json::Value>("x", &token),
            Err(InvalidJws::Signature)
        );
        assert_eq!(
            ring.verify_token::<serde_json::Value>("x", &ring.sign_challenge("x", &claims)),
            Err(InvalidJws::Signature)
        );
    }
}
