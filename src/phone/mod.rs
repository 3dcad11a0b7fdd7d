//! A phone made of software: it holds a key, and speaks only the public device API.
//!
//! For the command line, the demo, the tests and the load test, and for anyone without an app. It trusts
//! the server as an app would: it pins the challenge keys at enrolment and signs only what verifies.

pub mod http;
pub mod statement;
pub mod stream;

use crate::clock::Clock;
use crate::crypto::generate::generate_p256;
use crate::crypto::jose::SigningKey;

use crate::crypto::{base64url, from_base64url, sha256_base64url};
use crate::domain::approval::{APPROVAL_TYP, Approval};
use crate::domain::challenge::CHALLENGE_TYP;
use crate::domain::device::PublicKey;
use crate::domain::enrolment::EnrolmentCode;
use crate::domain::{Challenge, Decision, DenyReason, DeviceId, RequestId};
use crate::entropy::Entropy;
use http::{Answer, HttpClient, TransportError};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use statement::KeySet;
use std::sync::Arc;

/// A phone that is enrolled.
pub struct Phone {
    issuer: String,
    key: SigningKey,
    private_key: Vec<u8>,
    challenge_keys: Value,
    http: HttpClient,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
}

/// A phone as a file: for a phone in a terminal, which has no keystore.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PhoneFile {
    issuer: String,
    /// PKCS #8 in base64url.
    private_key: String,
    public_key: Value,
    challenge_keys: Value,
}

/// Why the phone cannot do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum PhoneError {
    #[error("this is neither an enrolment link nor a code; copy it whole from `assent enrol`")]
    Code,
    #[error("the server cannot be reached")]
    Transport(#[from] TransportError),
    #[error("the server said no: {code} ({title})")]
    Refused {
        status: u16,
        code: String,
        title: String,
    },
    #[error("the server's answer makes no sense: {0}")]
    Answer(&'static str),
    #[error("the challenge does not verify with the keys pinned at enrolment: do not answer it")]
    Challenge,
    #[error("the file does not hold a phone")]
    File,
}

/// What the phone was sent for one request: verified, and ready to be shown.
#[derive(Clone, Debug)]
pub struct ShownRequest {
    pub challenge: Challenge,
    /// The bytes that are answered.
    pub signed: String,
}

/// One line of the inbox.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Waiting {
    pub id: RequestId,
    pub created_at: i64,
    pub expires_at: i64,
}

/// Where to enrol, and with which code.
#[derive(Clone, Debug)]
pub struct EnrolmentLink {
    pub issuer: String,
    pub code: String,
}

impl EnrolmentLink {
    /// Reads `https://…/enrol#i=<issuer>&c=<code>`.
    pub fn parse(link: &str) -> Option<Self> {
        let (_, fragment) = link.trim().split_once("/enrol#")?;
        let mut link = Self {
            issuer: String::new(),
            code: String::new(),
        };
        for (name, value) in url::form_urlencoded::parse(fragment.as_bytes()) {
            match &*name {
                "i" => link.issuer = value.into_owned(),
                "c" => link.code = value.into_owned(),
                _ => {}
            }
        }
        (!link.issuer.is_empty() && !link.code.is_empty()).then_some(link)
    }
}

impl Phone {
    /// Makes a key and binds it to the person the code was given to.
    pub async fn enrol(
        link: &EnrolmentLink,
        label: &str,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Self, PhoneError> {
        let (private_key, public) = generate_p256();
        let key = SigningKey::of_device(&private_key, public).ok_or(PhoneError::File)?;
        let mut phone = Self {
            issuer: link.issuer.clone(),
            key,
            private_key: private_key.to_vec(),
            challenge_keys: Value::Null,
            http: HttpClient::new(),
            clock,
            entropy,
        };
        let body = phone.enrolment(&link.code, label)?;
        let url = format!("{}/device/v1/enrolments", link.issuer);
        let answer = phone.http.json("POST", &url, &[], &body).await?;
        let answer = refuse(answer, 201)?;
        if answer["device_id"] != phone.id().as_str() {
            return Err(PhoneError::Answer("device_id is not our key's"));
        }
        phone.challenge_keys = answer["challenge_keys"].clone();
        Ok(phone)
    }

    /// The body of an enrolment, with the proof that we hold the key.
    pub fn enrolment(&self, code: &str, label: &str) -> Result<Value, PhoneError> {
        let parsed = EnrolmentCode::parse(code).ok_or(PhoneError::Code)?;
        let proof = self.sign(
            "enrolment-proof+jwt",
            &json!({
                "aud": self.issuer,
                "iat": self.clock.now().secs(),
                "jti": self.fresh_id(),
                "code_hash": sha256_base64url(parsed.canonical().as_bytes()),
                "jkt": self.id(),
            }),
        );
        Ok(json!({
            "code": code,
            "jwk": serde_json::from_str::<Value>(&self.key.public.canonical_jwk()).unwrap_or_default(),
            "platform": "none",
            "label": label,
            "app_version": env!("CARGO_PKG_VERSION"),
            "os_version": std::env::consts::OS,
            "proof": proof,
        }))
    }

    /// What is to be kept of this phone.
    pub fn to_file(&self) -> PhoneFile {
        PhoneFile {
            issuer: self.issuer.clone(),
            private_key: base64url(&self.private_key),
            public_key: serde_json::from_str(&self.key.public.canonical_jwk()).unwrap_or_default(),
            challenge_keys: self.challenge_keys.clone(),
        }
    }

    pub fn from_file(
        file: PhoneFile,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Self, PhoneError> {
        let private_key = from_base64url(&file.private_key).ok_or(PhoneError::File)?;
        let public = PublicKey::from_jwk(&file.public_key).map_err(|_| PhoneError::File)?;
        let key = SigningKey::of_device(&private_key, public).ok_or(PhoneError::File)?;
        Ok(Self {
            issuer: file.issuer,
            key,
            private_key,
            challenge_keys: file.challenge_keys,
            http: HttpClient::new(),
            clock,
            entropy,
        })
    }

    /// The same phone on a client that others use too: where one process plays many phones.
    #[must_use]
    pub fn over(mut self, http: HttpClient) -> Self {
        self.http = http;
        self
    }

    pub fn id(&self) -> DeviceId {
        DeviceId::new(self.key.kid.as_str())
    }

    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Signs any statement with the phone's key.
    pub fn sign(&self, typ: &str, claims: &Value) -> String {
        self.key.sign(typ, claims)
    }

    fn fresh_id(&self) -> String {
        base64url(&self.entropy.bytes::<16>())
    }

    /// The claims of a proof for one HTTP request.
    pub fn proof_claims(&self, method: &str, path: &str, body: &[u8]) -> Value {
        json!({
            "iss": self.id(),
            "aud": self.issuer,
            "htm": method,
            "htu": format!("{}{path}", self.issuer),
            "bh": sha256_base64url(body),
            "iat": self.clock.now().secs(),
            "jti": self.fresh_id(),
        })
    }

    /// Sends one request with its proof; a phone with a wrong clock tries again with the server's nonce.
    pub async fn call(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Answer, PhoneError> {
        let bytes = body.map(Value::to_string).unwrap_or_default();
        let mut claims = self.proof_claims(method, path, bytes.as_bytes());
        let answer = self.send(method, path, &bytes, &claims).await?;
        let Some(nonce) = answer
            .header("device-nonce")
            .filter(|_| answer.status == 401)
        else {
            return Ok(answer);
        };
        claims["nonce"] = nonce.into();
        claims["jti"] = self.fresh_id().into();
        self.send(method, path, &bytes, &claims).await
    }

    async fn send(
        &self,
        method: &str,
        path: &str,
        body: &str,
        claims: &Value,
    ) -> Result<Answer, PhoneError> {
        let proof = format!("DeviceProof {}", self.sign("device-proof+jwt", claims));
        let mut headers = vec![("authorization", proof.as_str())];
        if !body.is_empty() {
            headers.push(("content-type", "application/json"));
        }
        let url = format!("{}{path}", self.issuer);
        Ok(self
            .http
            .send(method, &url, &headers, body.as_bytes().to_vec())
            .await?)
    }

    /// What waits for an answer.
    pub async fn inbox(&self) -> Result<Vec<Waiting>, PhoneError> {
        let mut answer = refuse(self.call("GET", "/device/v1/requests", None).await?, 200)?;
        serde_json::from_value(answer["requests"].take())
            .map_err(|_| PhoneError::Answer("requests is not a list of requests"))
    }

    /// Fetches one request and verifies that this server asks this phone.
    pub async fn show(&self, id: RequestId) -> Result<ShownRequest, PhoneError> {
        let path = format!("/device/v1/requests/{id}");
        let answer = refuse(self.call("GET", &path, None).await?, 200)?;
        let signed = answer["challenge"]
            .as_str()
            .ok_or(PhoneError::Answer("no challenge"))?
            .to_owned();
        let challenge: Challenge = KeySet::new(&self.challenge_keys)
            .verify(CHALLENGE_TYP, &signed)
            .ok_or(PhoneError::Challenge)?;
        let for_us =
            challenge.iss == self.issuer && challenge.aud == self.id() && challenge.jti == id;
        if !for_us {
            return Err(PhoneError::Challenge);
        }
        Ok(ShownRequest { challenge, signed })
    }

    /// The approval for what was shown, before it is signed.
    pub fn approval(
        &self,
        shown: &ShownRequest,
        decision: Decision,
        reason: Option<DenyReason>,
    ) -> Approval {
        Approval {
            iss: self.id(),
            aud: self.issuer.clone(),
            iat: self.clock.now().secs(),
            jti: self.fresh_id(),
            challenge_hash: sha256_base64url(shown.signed.as_bytes()),
            decision,
            reason,
            code: None,
            uv: false,
            amr: vec![],
        }
    }

    /// Signs what was shown and sends the decision.
    pub async fn answer(
        &self,
        shown: &ShownRequest,
        decision: Decision,
        reason: Option<DenyReason>,
    ) -> Result<(), PhoneError> {
        refuse(self.try_answer(shown, decision, reason).await?, 200).map(drop)
    }

    /// As [`Phone::answer`], with whatever the server said.
    pub async fn try_answer(
        &self,
        shown: &ShownRequest,
        decision: Decision,
        reason: Option<DenyReason>,
    ) -> Result<Answer, PhoneError> {
        let approval = json!(self.approval(shown, decision, reason));
        let body = json!({
            "challenge": shown.signed,
            "approval": self.sign(APPROVAL_TYP, &approval),
        });
        let path = format!("/device/v1/requests/{}/decision", shown.challenge.jti);
        self.call("POST", &path, Some(&body)).await
    }
}

/// The body of the expected answer, or what the problem document says.
fn refuse(answer: Answer, expected: u16) -> Result<Value, PhoneError> {
    let body = answer.json();
    if answer.status == expected {
        return Ok(body);
    }
    Err(refused(answer.status, &body))
}

/// What a problem document says.
fn refused(status: u16, problem: &Value) -> PhoneError {
    let text = |name: &str| {
        problem[name]
            .as_str()
            .unwrap_or("no reason given")
            .to_owned()
    };
    let detail = problem["detail"].as_str();
    PhoneError::Refused {
        status,
        code: text("code"),
        title: detail.map_or_else(
            || text("title"),
            |detail| format!("{}: {detail}", text("title")),
        ),
    }
}
