//! The key ring: versioned random keys, one purpose each, wrapped by the deployment key.
//!
//! Each call works with the keys as they stood at the last [`KeyRing::reload`]: the active version makes,
//! and what older versions made is checked with them.

use super::auth_req_id::{self, Handle};
use super::base64url;
use super::jose::InvalidJws;
use super::key_record::{DeploymentKey, KeyRecord, KeyRingError, NewKey};
use super::mac::{MacKey, equal};
use super::open_keys::OpenKeys;
use super::seal::CannotOpen;
use crate::domain::client::SecretVerifier;
use crate::domain::key::{KeyLife, KeyPolicy};
use crate::domain::{
    AuthReqId, ClientId, Partition, Secret, SignatureAlgorithm, Timestamp, UserId,
};
use crate::entropy::Entropy;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use zeroize::Zeroizing;

/// There is no key to sign tokens with by this algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "there is no {0} key to sign tokens with; `assent keys rotate token-signing --alg {0}` makes one"
)]
pub struct NoSigningKey(pub SignatureAlgorithm);

/// All keys of a deployment, ready to use, and renewed while they are used.
pub struct KeyRing {
    deployment: DeploymentKey,
    policy: KeyPolicy,
    keys: RwLock<Arc<OpenKeys>>,
}

impl KeyRing {
    /// Unwraps the stored keys, which must be in the order of their versions.
    ///
    /// # Errors
    /// When a key does not open or a purpose has none.
    pub fn open(
        records: &[KeyRecord],
        deployment: DeploymentKey,
        policy: KeyPolicy,
        now: Timestamp,
    ) -> Result<Self, KeyRingError> {
        let keys = OpenKeys::open(records, &deployment, &policy, now, None)?;
        Ok(Self {
            deployment,
            policy,
            keys: RwLock::new(Arc::new(keys)),
        })
    }

    /// Takes in what is stored now and what time has changed: keys that were added, that became active,
    /// that are gone or revoked.
    ///
    /// # Errors
    /// As [`KeyRing::open`]; then everything stays as it was.
    pub fn reload(&self, records: &[KeyRecord], now: Timestamp) -> Result<(), KeyRingError> {
        let before = self.keys();
        let keys = OpenKeys::open(records, &self.deployment, &self.policy, now, Some(&before))?;
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys);
        Ok(())
    }

    pub const fn policy(&self) -> &KeyPolicy {
        &self.policy
    }

    /// A new key as it is to be stored.
    pub fn record(&self, new: &NewKey, version: u32, life: KeyLife) -> KeyRecord {
        new.record(version, life, &self.deployment)
    }

    fn keys(&self) -> Arc<OpenKeys> {
        self.keys
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
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
        let keys = self.keys();
        let (version, key) = keys.id_mac.active();
        let version = u8::try_from(version).expect("Purpose::max_version is 255 for these keys");
        let random = entropy.bytes();
        auth_req_id::make(key, version, client, partition, expires_at, random)
    }

    /// Reads a handle that `client` presents; `None` unless we made it for that client.
    pub fn open_auth_req_id(&self, client: &ClientId, id: &AuthReqId) -> Option<Handle> {
        let keys = self.keys();
        let key = keys.id_mac.get(u32::from(auth_req_id::key_version(id)?))?;
        auth_req_id::open(key, client, id)
    }

    /// The matching code of a request, which is stored nowhere; `None` for a handle whose key is gone.
    pub fn matching_code(&self, id: &AuthReqId, digits: u8) -> Option<String> {
        let keys = self.keys();
        let key = keys.id_mac.get(u32::from(auth_req_id::key_version(id)?))?;
        let mac = key.mac("matching-code", &[id.expose().as_bytes()]);
        let number = mac[..8].iter().fold(0, |n, byte| n << 8 | u64::from(*byte));
        let width = usize::from(digits);
        Some(format!("{:0width$}", number % 10_u64.pow(digits.into())))
    }

    // Secrets

    /// The verifier to store for a client secret we made.
    pub fn secret_verifier(&self, client: &ClientId, secret: &Secret) -> SecretVerifier {
        let keys = self.keys();
        let (key_version, key) = keys.pepper.active();
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
        let keys = self.keys();
        let key = verifier
            .and_then(|verifier| keys.pepper.get(verifier.key_version))
            .unwrap_or_else(|| keys.pepper.active().1);
        let mac = client_secret_mac(key, client, secret);
        let expected = verifier.map_or([0; 32], |verifier| verifier.mac);
        equal(&mac, &expected) & verifier.is_some()
    }

    /// The hash under which a new enrolment code, or a part of it, is stored.
    pub fn enrolment_code_hash(&self, part: &str, code: &str) -> String {
        code_hash(self.keys().pepper.active().1, part, code)
    }

    /// All hashes under which an enrolment code may stand that was stored earlier; the likeliest first.
    pub fn enrolment_code_hashes(&self, part: &str, code: &str) -> Vec<String> {
        let keys = self.keys();
        let hashes = keys.pepper.all().map(|key| code_hash(key, part, code));
        hashes.collect()
    }

    // Values at rest

    /// Seals `plain` for the place that `context` names.
    pub fn seal(&self, context: &str, plain: &[u8]) -> String {
        let keys = self.keys();
        let (version, key) = keys.data_seal.active();
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
        let keys = self.keys();
        let key = version
            .parse()
            .ok()
            .and_then(|version| keys.data_seal.get(version));
        key.ok_or(CannotOpen)?.open(context, text)
    }

    // Persons

    /// The partition a new person lives in. Asked once, then stored: it never changes.
    pub fn partition(&self, user: &UserId) -> Partition {
        let keys = self.keys();
        let (_, key) = keys.subject.active();
        Partition(key.mac("partition", &[user.as_str().as_bytes()])[0])
    }

    /// Who is asked in place of somebody nobody knows, and where that is: for one hint always the same nobody.
    pub fn decoy(&self, hint: &str) -> (UserId, Partition) {
        let keys = self.keys();
        // By the oldest key there is, so that a rotation makes nobody new.
        let mac = keys.subject.oldest().mac("decoy", &[hint.as_bytes()]);
        (UserId::new(base64url(&mac[..16])), Partition(mac[16]))
    }

    /// What stands for a person in a new challenge: tells nothing about the `sub`.
    pub fn sub_ref(&self, user: &UserId) -> String {
        sub_ref(self.keys().subject.active().1, user)
    }

    /// Whether this stood for the person in a challenge, whichever version made it.
    pub fn sub_ref_matches(&self, user: &UserId, given: &str) -> bool {
        let keys = self.keys();
        let mut versions = keys.subject.all();
        versions.any(|key| equal(sub_ref(key, user).as_bytes(), given.as_bytes()))
    }

    /// What a sector shall know a person by, the first time it is asked (OpenID Connect Core 8.1).
    pub fn pairwise_subject(&self, sector: &str, user: &UserId) -> String {
        let keys = self.keys();
        let parts = [sector.as_bytes(), user.as_str().as_bytes()];
        base64url(&keys.subject.active().1.mac("pairwise", &parts))
    }

    // Devices' clocks

    /// A nonce for a device whose clock is wrong. Valid in the period it was made in and the next.
    pub fn device_nonce(&self, now: Timestamp, period: Duration) -> String {
        nonce_of(
            self.keys().device_nonce.active().1,
            nonce_period(now, period),
        )
    }

    /// Whether `nonce` is one we gave out in this period or the one before.
    pub fn device_nonce_is_fresh(&self, nonce: &str, now: Timestamp, period: Duration) -> bool {
        let current = nonce_period(now, period);
        let keys = self.keys();
        let mut versions = keys.device_nonce.all();
        versions.any(|key| {
            [current, current - 1]
                .iter()
                .any(|p| equal(nonce_of(key, *p).as_bytes(), nonce.as_bytes()))
        })
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
        let keys = self.keys();
        let key = keys.token_signing.active(algorithm);
        Ok(key.ok_or(NoSigningKey(algorithm))?.sign(typ, claims))
    }

    /// Whether there is a key to sign tokens with.
    pub fn can_sign_tokens(&self, algorithm: SignatureAlgorithm) -> bool {
        self.keys().token_signing.active(algorithm).is_some()
    }

    /// Verifies a token we signed, with the keys that are published.
    ///
    /// # Errors
    /// As [`Jws::verify`](super::jose::Jws::verify); an unknown `kid` is a signature that does not
    /// verify.
    pub fn verify_token<T: DeserializeOwned>(
        &self,
        typ: &str,
        token: &str,
    ) -> Result<T, InvalidJws> {
        self.keys().token_signing.verify(typ, token)
    }

    /// Verifies an ID Token that comes back as a hint (CIBA Core 7.1): the keys of long ago count too,
    /// revoked ones never.
    ///
    /// # Errors
    /// As [`KeyRing::verify_token`].
    pub fn verify_hint<T: DeserializeOwned>(
        &self,
        typ: &str,
        token: &str,
    ) -> Result<T, InvalidJws> {
        self.keys().token_signing.verify_hint(typ, token)
    }

    pub fn sign_challenge(&self, typ: &str, claims: &impl Serialize) -> String {
        let keys = self.keys();
        let key = keys.challenge_signing.active(SignatureAlgorithm::Es256);
        key.expect("every ring has an ES256 key for challenges")
            .sign(typ, claims)
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
        self.keys().challenge_signing.verify(typ, token)
    }

    pub fn sign_checkpoint(&self, typ: &str, claims: &impl Serialize) -> String {
        let keys = self.keys();
        let key = keys.audit.active(SignatureAlgorithm::EdDsa);
        key.expect("every ring has an EdDSA key for the audit")
            .sign(typ, claims)
    }

    /// Verifies a checkpoint we signed, however long ago. One under a key that was revoked later counts:
    /// the checkpoints after it hold its hash.
    ///
    /// # Errors
    /// As [`KeyRing::verify_token`].
    pub fn verify_checkpoint<T: DeserializeOwned>(
        &self,
        typ: &str,
        token: &str,
    ) -> Result<T, InvalidJws> {
        self.keys().audit.verify_kept(typ, token)
    }

    /// The public keys that verify our tokens (RFC 7517 5).
    pub fn token_jwks(&self) -> serde_json::Value {
        self.keys().token_signing.jwks()
    }

    /// The public keys that verify our challenges; devices pin them at enrolment.
    pub fn challenge_jwks(&self) -> serde_json::Value {
        self.keys().challenge_signing.jwks()
    }
}

fn client_secret_mac(key: &MacKey, client: &ClientId, secret: &Secret) -> [u8; 32] {
    key.mac(
        "client-secret",
        &[client.as_str().as_bytes(), secret.expose().as_bytes()],
    )
}

fn code_hash(key: &MacKey, part: &str, code: &str) -> String {
    base64url(&key.mac("enrolment-code", &[part.as_bytes(), code.as_bytes()]))
}

fn sub_ref(key: &MacKey, user: &UserId) -> String {
    base64url(&key.mac("sub-ref", &[user.as_str().as_bytes()]))
}

fn nonce_of(key: &MacKey, period: i64) -> String {
    base64url(&key.mac("device-nonce", &[&period.to_be_bytes()])[..16])
}

fn nonce_period(now: Timestamp, period: Duration) -> i64 {
    now.millis() / i64::try_from(period.as_millis()).unwrap_or(i64::MAX).max(1)
}

#[cfg(test)]
mod tests;
