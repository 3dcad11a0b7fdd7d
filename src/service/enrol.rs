//! A phone binds itself to a person, once, with a code that was given to that person.

use super::{Services, log_device};
use crate::crypto::jose::{InvalidJws, Jws, VerifyingKey, thumbprint};
use crate::crypto::mac::equal;
use crate::crypto::{base64url, sha256_base64url};
use crate::domain::device::{
    DeviceDescription, DeviceState, InvalidPublicKey, InvalidPushTarget, PublicKey,
};
use crate::domain::enrolment::{ALPHABET, EnrolmentCode, TYPED_LEN};
use crate::domain::{AppId, Device, EventKind, Secret, Timestamp, User};
use crate::store::StoreError;
use crate::store::sql::directory::{Bound, NewEnrolment, StoredEnrolment};
use serde::Deserialize;
use serde_json::json;
use std::time::Duration;

/// The JOSE `typ` of the proof that a phone holds the key it enrols.
pub const ENROLMENT_PROOF_TYP: &str = "enrolment-proof+jwt";
/// How far a phone's clock may differ from ours when it enrols.
const PROOF_WINDOW: Duration = Duration::from_secs(300);

/// The two spellings of a new enrolment's code. Shown once, stored only as hashes.
#[derive(Debug)]
pub struct EnrolmentTicket {
    /// What the QR code and the link hold: `https://…/enrol#i=<issuer>&c=<code>`.
    pub link: Secret,
    /// What a person can type.
    pub typed_code: Secret,
    pub expires_at: Timestamp,
}

/// What a phone sends to enrol.
#[derive(Debug)]
pub struct EnrolmentRequest {
    pub code: Secret,
    pub jwk: serde_json::Value,
    pub description: DeviceDescription,
    pub push_target: Option<Secret>,
    pub app_id: Option<AppId>,
    /// Signed by the new key.
    pub proof: String,
}

/// The claims of the proof.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Proof {
    aud: String,
    iat: i64,
    jti: String,
    /// base64url(SHA-256(the code without hyphens)).
    code_hash: String,
    /// RFC 7638 thumbprint of the key.
    jkt: String,
    /// base64url(SHA-256(push target)); absent without one.
    push_target_hash: Option<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// Unknown, wrong, used, expired or guessed at too often: which of them is nobody's business.
    #[error("the enrolment code is not valid")]
    Code,
    #[error("the key is not acceptable: {0}")]
    Key(#[from] InvalidPublicKey),
    #[error("the proof is not acceptable: {0}")]
    Proof(InvalidJws),
    #[error("the proof does not speak of this enrolment")]
    ProofClaims,
    #[error("the push target cannot be used: {0}")]
    PushTarget(#[from] InvalidPushTarget),
    #[error("this key is enrolled already; make a new one")]
    KnownDevice,
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Services {
    /// Makes a code with which one phone can bind itself to this person.
    pub async fn create_enrolment(&self, user: &User) -> Result<EnrolmentTicket, StoreError> {
        // The look-up part of the typed code has 25 bits: now and then it is taken.
        loop {
            if let Some(ticket) = self.try_enrolment(user).await? {
                return Ok(ticket);
            }
        }
    }

    /// `None`: the code looks like another.
    async fn try_enrolment(&self, user: &User) -> Result<Option<EnrolmentTicket>, StoreError> {
        let now = self.clock.now();
        let expires_at = now.plus(self.policy.enrolment_lifetime);
        let link_code = base64url(&self.entropy.bytes::<32>());
        let letters: [u8; TYPED_LEN] = self.entropy.bytes();
        // 256 is a multiple of 32, so every letter is equally likely.
        let typed: String = letters
            .iter()
            .map(|byte| char::from(ALPHABET[usize::from(byte % 32)]))
            .collect();
        let (lookup, secret) = typed.split_at(crate::domain::enrolment::LOOKUP_LEN);
        let new = NewEnrolment {
            link_hash: self.keys.enrolment_code_hash("link", &link_code),
            lookup_hash: self.keys.enrolment_code_hash("lookup", lookup),
            secret_hash: self.keys.enrolment_code_hash("secret", secret),
            user_id: user.id.clone(),
            created_at: now,
            expires_at,
        };
        let entry = self.entry("enrolment.created", now, json!({ "user": user.id }));
        if !self
            .directory
            .insert_enrolment(&new, user.partition, entry)
            .await?
        {
            return Ok(None);
        }
        let hyphenated = [&typed[..5], &typed[5..10], &typed[10..]].join("-");
        let issuer = &self.policy.issuer;
        let encoded: String = url::form_urlencoded::byte_serialize(issuer.as_bytes()).collect();
        Ok(Some(EnrolmentTicket {
            link: Secret::new(format!("{issuer}/enrol#i={encoded}&c={link_code}")),
            typed_code: Secret::new(hyphenated),
            expires_at,
        }))
    }

    /// Binds a phone. The same phone with the same code gets the same answer again, should the first
    /// have been lost.
    pub async fn enrol(&self, request: &EnrolmentRequest) -> Result<Device, EnrolError> {
        let now = self.clock.now();
        let code = EnrolmentCode::parse(request.code.expose()).ok_or(EnrolError::Code)?;
        let key = PublicKey::from_jwk(&request.jwk)?;
        let id = thumbprint(&key);
        self.check_proof(request, &key, &code, now)?;
        if let Some(target) = &request.push_target {
            let platform = request.description.platform;
            self.push.check_target(platform, target)?;
        }
        let stored = self.find_enrolment(&code, now).await?;
        if stored.enrolment.device_id.as_ref() == Some(&id) {
            return self.directory.device(&id).await?.ok_or(EnrolError::Code);
        }
        if !stored.enrolment.is_open(now) {
            return Err(EnrolError::Code);
        }
        let user = self.directory.user(&stored.enrolment.user_id).await?;
        let user = user
            .filter(|user| user.locked_at.is_none())
            .ok_or(EnrolError::Code)?;
        let state = if self.policy.confirm_devices {
            DeviceState::Pending
        } else {
            DeviceState::Active
        };
        let device = Device {
            id,
            user_id: user.id.clone(),
            partition: user.partition,
            state,
            key,
            description: request.description.clone(),
            push_target: request.push_target.clone(),
            push_registered_at: now,
            app_id: request.app_id.clone(),
            created_at: now,
            revoked_at: None,
        };
        let payload = json!({
            "user": user.id,
            "device": device.id,
            "state": device.state,
            "platform": device.description.platform,
        });
        let entry = self.entry("device.enrolled", now, payload);
        let enrolled = EventKind::DeviceEnrolled {
            user: user.id.clone(),
            device: device.id.clone(),
        };
        let event = self.event(enrolled, user.partition, now);
        let bound = self
            .directory
            .bind_device(
                &stored.link_hash,
                &device,
                user.partition,
                now,
                entry,
                event.as_ref(),
            )
            .await?;
        match bound {
            Bound::Yes => {
                tracing::info!(device = log_device(&device.id), "device enrolled");
                metrics::counter!("assent_devices_enrolled_total").increment(1);
                if event.is_some() {
                    self.ledger_jobs_ready.notify_waiters();
                }
                Ok(device)
            }
            Bound::Closed => Err(EnrolError::Code),
            Bound::KnownDevice => Err(EnrolError::KnownDevice),
        }
    }

    fn check_proof(
        &self,
        request: &EnrolmentRequest,
        key: &PublicKey,
        code: &EnrolmentCode,
        now: Timestamp,
    ) -> Result<(), EnrolError> {
        let verifying = VerifyingKey::new(key).ok_or(EnrolError::Proof(InvalidJws::Signature))?;
        let proof: Proof = Jws::parse(&request.proof)
            .and_then(|jws| jws.verify(ENROLMENT_PROOF_TYP, &verifying))
            .map_err(EnrolError::Proof)?;
        let iat = Timestamp::from_secs(proof.iat);
        let push_target_hash = request
            .push_target
            .as_ref()
            .map(|target| sha256_base64url(target.expose().as_bytes()));
        let fits = proof.aud == self.policy.issuer
            && proof.jkt == thumbprint(key).as_str()
            && proof.code_hash == sha256_base64url(code.canonical().as_bytes())
            && proof.push_target_hash == push_target_hash
            && (1..=128).contains(&proof.jti.len())
            && iat.since(now) <= PROOF_WINDOW
            && now.since(iat) <= PROOF_WINDOW;
        if fits {
            Ok(())
        } else {
            Err(EnrolError::ProofClaims)
        }
    }

    async fn find_enrolment(
        &self,
        code: &EnrolmentCode,
        now: Timestamp,
    ) -> Result<StoredEnrolment, EnrolError> {
        match code {
            EnrolmentCode::Link(code) => self.stored_enrolment("link", code).await,
            EnrolmentCode::Typed { lookup, secret } => {
                let found = self.stored_enrolment("lookup", lookup).await?;
                let mut given = self
                    .keys
                    .enrolment_code_hashes("secret", secret)
                    .into_iter();
                if given.any(|given| equal(given.as_bytes(), found.secret_hash.as_bytes())) {
                    return Ok(found);
                }
                if found.enrolment.is_open(now) {
                    self.directory.count_wrong_try(&found.link_hash).await?;
                }
                Err(EnrolError::Code)
            }
        }
    }

    /// Looks under every hash the code may have been stored by: the key may have been rotated since.
    async fn stored_enrolment(
        &self,
        part: &str,
        code: &str,
    ) -> Result<StoredEnrolment, EnrolError> {
        for hash in self.keys.enrolment_code_hashes(part, code) {
            if let Some(found) = self.directory.enrolment(&hash).await? {
                return Ok(found);
            }
        }
        Err(EnrolError::Code)
    }
}
