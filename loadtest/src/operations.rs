//! The operations that are measured, as relying parties and phones do them; each checks its answers.

use crate::load::Worker;
use anyhow::Context as _;
use assent::domain::Decision;
use assent::phone::Phone;
use assent::phone::http::{Answer, HttpClient};
use std::sync::{Arc, Mutex, PoisonError};

const CIBA_GRANT: &str = "urn:openid:params:grant-type:ciba";
const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
/// Requests that nobody answers must outlive the run: the most that a server grants, in seconds.
const LONG: [(&str, &str); 1] = [("requested_expiry", "600")];

/// The longest that a server holds a poll (RFC 7240).
const WAIT: [(&str, &str); 1] = [("prefer", "wait=30")];

/// How a relying party proves who it is.
#[derive(Clone)]
pub enum Credentials {
    /// The value of `Authorization` (client_secret_basic).
    Basic(String),
    /// Statements that were signed beforehand, each good for one request (private_key_jwt).
    Assertions(Arc<Mutex<Vec<String>>>),
}

/// A connection to a server, and the proof of who comes over it.
pub struct RelyingParty {
    /// Where the server is reached.
    address: String,
    credentials: Credentials,
    http: HttpClient,
}

impl RelyingParty {
    pub fn new(address: String, credentials: Credentials) -> Self {
        Self {
            address,
            credentials,
            http: HttpClient::new(),
        }
    }

    /// The same relying party on a connection of its own.
    fn connect(&self) -> Self {
        self.at(&self.address)
    }

    /// The same relying party on a connection to another node.
    pub fn at(&self, address: &str) -> Self {
        Self::new(address.to_owned(), self.credentials.clone())
    }

    async fn post(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        parameters: &[(&str, &str)],
    ) -> anyhow::Result<Answer> {
        let url = format!("{}{path}", self.address);
        let answer = match &self.credentials {
            Credentials::Basic(header) => {
                let authorization = [("authorization", header.as_str())];
                let headers = [headers, &authorization].concat();
                self.http.form(&url, &headers, parameters).await
            }
            Credentials::Assertions(signed) => {
                let next = signed.lock().unwrap_or_else(PoisonError::into_inner).pop();
                let assertion = next.context("there are no assertions left")?;
                let proof = [
                    ("client_assertion_type", JWT_BEARER),
                    ("client_assertion", assertion.as_str()),
                ];
                self.http
                    .form(&url, headers, &[parameters, &proof].concat())
                    .await
            }
        };
        Ok(answer?)
    }

    /// Asks a person to sign in; returns the `auth_req_id`.
    pub async fn ask(&self, login: &str, more: &[(&str, &str)]) -> anyhow::Result<String> {
        let parameters = [
            ("scope", "openid"),
            ("login_hint", login),
            ("binding_message", "Sign in, code W4SCT"),
        ];
        let parameters = [&parameters, more].concat();
        let answer = self.post("/bc-authorize", &[], &parameters).await?;
        let id = answer.json()["auth_req_id"].as_str().map(ToOwned::to_owned);
        id.filter(|_| answer.status == 200)
            .with_context(|| unexpected("/bc-authorize", &answer))
    }

    async fn poll(&self, auth_req_id: &str) -> anyhow::Result<Answer> {
        let parameters = [("grant_type", CIBA_GRANT), ("auth_req_id", auth_req_id)];
        self.post("/token", &[], &parameters).await
    }

    /// Polls for what nobody has answered yet.
    pub async fn finds_pending(&self, auth_req_id: &str) -> anyhow::Result<()> {
        let answer = self.poll(auth_req_id).await?;
        let pending = answer.json()["error"] == "authorization_pending";
        anyhow::ensure!(pending, unexpected("a poll", &answer));
        Ok(())
    }

    /// Polls, and waits for the decision if the server does.
    pub async fn hold(&self, auth_req_id: &str) -> anyhow::Result<Answer> {
        let parameters = [("grant_type", CIBA_GRANT), ("auth_req_id", auth_req_id)];
        self.post("/token", &WAIT, &parameters).await
    }
}

/// Tells the status and the error code, never a body: it could hold a token.
pub fn unexpected(what: &str, answer: &Answer) -> String {
    let body = answer.json();
    let error = body["error"].as_str().unwrap_or("no error code");
    format!("{what} answered {} ({error})", answer.status)
}

/// The floor: an answer from memory, without a body to read or a client to authenticate.
pub struct Floor {
    http: HttpClient,
    url: String,
}

impl Floor {
    pub fn team(rp: &RelyingParty, size: usize) -> Vec<Self> {
        let member = |_| Self {
            http: HttpClient::new(),
            url: format!("{}/jwks", rp.address),
        };
        (0..size).map(member).collect()
    }
}

impl Worker for Floor {
    async fn operate(&mut self, _: usize) -> anyhow::Result<()> {
        let answer = self.http.get(&self.url, &[]).await?;
        let good = answer.status == 200 && answer.json()["keys"].is_array();
        anyhow::ensure!(good, unexpected("/jwks", &answer));
        Ok(())
    }
}

/// Asks people who will not answer.
pub struct Ask {
    rp: RelyingParty,
    logins: Arc<[String]>,
    pub auth_req_ids: Vec<String>,
}

impl Ask {
    pub fn team(rp: &RelyingParty, size: usize, logins: Vec<String>) -> Vec<Self> {
        let logins: Arc<[String]> = logins.into();
        let member = |_| Self {
            rp: rp.connect(),
            logins: logins.clone(),
            auth_req_ids: Vec::new(),
        };
        (0..size).map(member).collect()
    }
}

impl Worker for Ask {
    async fn operate(&mut self, number: usize) -> anyhow::Result<()> {
        let login = &self.logins[number % self.logins.len()];
        self.auth_req_ids.push(self.rp.ask(login, &LONG).await?);
        Ok(())
    }
}

/// Polls what is pending, each request once: so no answer is `slow_down`, and one would be an error.
pub struct Poll {
    rp: RelyingParty,
    auth_req_ids: Arc<[String]>,
}

impl Poll {
    pub fn team(rp: &RelyingParty, size: usize, auth_req_ids: Arc<[String]>) -> Vec<Self> {
        let member = |_| Self {
            rp: rp.connect(),
            auth_req_ids: auth_req_ids.clone(),
        };
        (0..size).map(member).collect()
    }
}

impl Worker for Poll {
    async fn operate(&mut self, number: usize) -> anyhow::Result<()> {
        let answer = self.rp.poll(&self.auth_req_ids[number]).await?;
        let good = answer.status == 400 && answer.json()["error"] == "authorization_pending";
        anyhow::ensure!(good, unexpected("a poll", &answer));
        Ok(())
    }
}

/// The whole journey: asked, seen, signed, redeemed. Five requests, over one connection as through a
/// proxy: a phone's own would be idle between its turns, and a server ends those after a while.
pub struct Flow {
    rp: RelyingParty,
    /// Nobody else asks these people, so that each has one request at a time.
    people: Vec<(String, Phone)>,
    next: usize,
}

impl Flow {
    /// Deals the people out to the connections.
    pub fn team(rp: &RelyingParty, size: usize, people: Vec<(String, Phone)>) -> Vec<Self> {
        let member = |_| Self {
            rp: rp.connect(),
            people: Vec::new(),
            next: 0,
        };
        let mut team: Vec<Self> = (0..size).map(member).collect();
        for (i, (login, phone)) in people.into_iter().enumerate() {
            let member = &mut team[i % size];
            let phone = phone.over(member.rp.http.clone());
            member.people.push((login, phone));
        }
        team
    }
}

impl Worker for Flow {
    async fn operate(&mut self, _: usize) -> anyhow::Result<()> {
        let (login, phone) = &self.people[self.next % self.people.len()];
        self.next += 1;
        let auth_req_id = self.rp.ask(login, &[]).await?;
        let inbox = phone.inbox().await.context("the inbox")?;
        let [waiting] = inbox.as_slice() else {
            anyhow::bail!("the inbox holds {} requests, not one", inbox.len());
        };
        let shown = phone.show(waiting.id).await.context("the challenge")?;
        let answered = phone.answer(&shown, Decision::Approve, None).await;
        answered.context("the decision")?;
        let tokens = self.rp.poll(&auth_req_id).await?;
        let body = tokens.json();
        let good = tokens.status == 200
            && body["access_token"].is_string()
            && body["id_token"].is_string();
        anyhow::ensure!(good, unexpected("the poll after the approval", &tokens));
        Ok(())
    }
}
