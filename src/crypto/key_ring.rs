//! The key ring: versioned random keys, one purpose each, wrapped by the deployment key.

use super::auth_req_id::{self, Handle};
use super::base64url;
use super::jose::{InvalidJws, Jws, MAX_CHECKPOINT_LEN, SigningKey, VerifyingKey};
use super::jwk::PublicJwk;
use super::key_record::{DeploymentKey, KeyRecord, KeyRingError, Purpose};
use super::mac::{MacKey, equal};
use super::seal::{CannotOpen, SealKey};
use crate::domain::client::SecretVerifier;
use crate::domain::{
    AuthReqId, ClientId, Partition, Secret, SignatureAlgorithm, Timestamp, UserId,
};
use crate::entropy::Entropy;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::time::Duration;
use zeroize::Zeroizing;

/// There is no key to sign tokens with by this algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "there is no {0} key to sign tokens with; `assent keys rotate token-signing --alg {0}` makes one"
)]
pub struct NoSigningKey(pub SignatureAlgorithm);

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
                let bytes = deployment.unwrap(record)?;
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
            SigningKey::new(bytes, PublicJwk::from_jwk(&jwk).ok()?, record.algorithm?)
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

    /// What a sector shall know a person by, the first time it is asked (OpenID Connect Core 8.1).
    pub fn pairwise_subject(&self, sector: &str, user: &UserId) -> String {
        let parts = [sector.as_bytes(), user.as_str().as_bytes()];
        base64url(&self.subject.newest().1.mac("pairwise", &parts))
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
    ///
    /// # Errors
    /// [`NoSigningKey`] for an algorithm that nobody has asked a key for. ES256 and EdDSA always have
    /// one.
    pub fn sign_token(
        &self,
        algorithm: SignatureAlgorithm,
        typ: &str,
        claims: &impl Serialize,
    ) -> Result<String, NoSigningKey> {
        let keys = self.token_signing.0.values().rev();
        keys.into_iter()
            .find(|key| key.algorithm() == algorithm)
            .map(|key| key.sign(typ, claims))
            .ok_or(NoSigningKey(algorithm))
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
        verify_ours(&self.token_signing, typ, Jws::parse(token)?)
    }

    /// Verifies an ID Token that comes back as a hint.
    ///
    /// # Errors
    /// As [`KeyRing::verify_token`].
    pub fn verify_hint<T: DeserializeOwned>(
        &self,
        typ: &str,
        token: &str,
        _now: Timestamp,
    ) -> Result<T, InvalidJws> {
        verify_ours(&self.token_signing, typ, Jws::parse(token)?)
    }

    /// Whether tokens can be signed by this algorithm.
    pub fn can_sign_tokens(&self, algorithm: SignatureAlgorithm) -> bool {
        self.token_signing
            .0
            .values()
            .any(|key| key.algorithm() == algorithm)
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
        verify_ours(&self.challenge_signing, typ, Jws::parse(token)?)
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
        let jws = Jws::parse_within(token, MAX_CHECKPOINT_LEN)?;
        verify_ours(&self.audit, typ, jws)
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
    jws: Jws<'_>,
) -> Result<T, InvalidJws> {
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

#[cfg(test)]
mod tests;
