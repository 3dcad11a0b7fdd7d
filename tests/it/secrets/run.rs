//! A run of the real server that remembers every secret it was given.

use super::scan::Secrets;
use super::{LOGIN, MESSAGE};
use crate::support::process::{DEPLOYMENT_KEY, ServerProcess, Site};
use crate::support::{Backend, CIBA_GRANT};
use assent::clock::Clock;
use assent::crypto::from_base64url;
use assent::domain::approval::APPROVAL_TYP;
use assent::domain::{Decision, RequestId};
use assent::entropy::SystemEntropy;
use assent::phone::http::{Answer, HttpClient, basic};
use assent::phone::{EnrolmentLink, Phone};
use serde_json::{Value, json};
use std::sync::Arc;

/// A run with everything it has ever handed out.
pub struct Run {
    pub site: Site,
    pub server: ServerProcess,
    pub http: HttpClient,
    pub secrets: Secrets,
    /// What commands printed that are not meant to show a secret.
    pub printed: String,
}

/// How a client shows its secret.
pub struct Client {
    pub id: String,
    pub secret: String,
    pub post: bool,
}

impl Run {
    pub async fn begin(backend: Backend) -> Self {
        let settings = vec![
            ("log.filter", "trace".into()),
            ("log.format", "json".into()),
            ("ciba.redelivery", "60s".into()),
            ("ciba.open_requests_per_user", "20".into()),
        ];
        let site = Site::with(backend, settings);
        let mut secrets = Secrets::new();
        secrets.text("the deployment key", DEPLOYMENT_KEY);
        let server = site.serve().await;
        Self {
            site,
            server,
            http: HttpClient::new(),
            secrets,
            printed: String::new(),
        }
    }

    pub fn client(&mut self, id: &str, post: bool) -> Client {
        let method = if post {
            "client_secret_post"
        } else {
            "client_secret_basic"
        };
        let name = ["--id", id, "--auth-method", method, "--open-requests", "9"];
        let added = self
            .site
            .json(&[&["client", "add", "Example Bank"][..], &name].concat());
        self.know_secret(id, added["client_secret"].as_str().unwrap(), post)
    }

    pub fn know_secret(&mut self, id: &str, secret: &str, post: bool) -> Client {
        let random = secret.strip_prefix("assent_cs_").unwrap();
        let credentials = basic(id, secret);
        let encoded = credentials.strip_prefix("Basic ").unwrap();
        self.secrets
            .needle("a client's credentials", encoded.as_bytes());
        self.secrets.text("a client secret", random);
        self.secrets.text("a client secret", secret);
        Client {
            id: id.to_owned(),
            secret: secret.to_owned(),
            post,
        }
    }

    /// A link and a typed code for her.
    pub fn ticket(&mut self) -> (String, String) {
        let ticket = self.site.json(&["enrol", LOGIN]);
        let (link, code) = (ticket["link"].as_str().unwrap(), ticket["code"].as_str());
        let (_, secret) = link.rsplit_once("c=").unwrap();
        let code = code.unwrap();
        let letters = code.replace('-', "");
        self.secrets.text("a link's code", secret);
        self.secrets.text("a typed code", code);
        self.secrets.text("a typed code", &letters);
        self.secrets
            .needle("a typed code's secret", &letters.as_bytes()[5..]);
        (link.to_owned(), code.to_owned())
    }

    pub fn know_phone(&mut self, file: &Value) {
        let text = file["private_key"].as_str().unwrap();
        self.secrets.text("a phone's private key", text);
        let pkcs8 = from_base64url(text).unwrap();
        // PKCS #8 around SEC 1: the number itself follows as a string of 32 bytes.
        let begins = |window: &[u8]| window == [0x02, 0x01, 0x01, 0x04, 0x20];
        let at = pkcs8.windows(5).position(begins).unwrap() + 5;
        self.secrets
            .bytes("a phone's private key", &pkcs8[at..at + 32]);
    }

    pub async fn enrol(&mut self, code: &str, clock: Arc<dyn Clock>) -> Phone {
        let link = EnrolmentLink::parse(code).unwrap_or_else(|| EnrolmentLink {
            issuer: self.site.url.clone(),
            code: code.to_owned(),
        });
        let phone = Phone::enrol(&link, "test phone", clock, Arc::new(SystemEntropy))
            .await
            .unwrap();
        self.know_phone(&json!(phone.to_file()));
        phone
    }

    /// A form from a client, with its secret where it belongs.
    pub async fn send(&self, client: &Client, path: &str, parameters: &[(&str, &str)]) -> Answer {
        let url = format!("{}{path}", self.site.url);
        let credentials = basic(&client.id, &client.secret);
        let by_header = [("authorization", credentials.as_str())];
        let by_form = [
            ("client_id", client.id.as_str()),
            ("client_secret", client.secret.as_str()),
        ];
        let answer = if client.post {
            let parameters = [parameters, &by_form].concat();
            self.http.form(&url, &[], &parameters).await
        } else {
            self.http.form(&url, &by_header, parameters).await
        };
        answer.unwrap()
    }

    pub async fn ask(&mut self, client: &Client) -> String {
        let parameters = [
            ("scope", "openid profile"),
            ("login_hint", LOGIN),
            ("binding_message", MESSAGE),
        ];
        let answer = self.send(client, "/bc-authorize", &parameters).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let id = answer.json()["auth_req_id"].as_str().unwrap().to_owned();
        let bytes = from_base64url(&id).unwrap();
        self.secrets.text("an auth_req_id", &id);
        self.secrets
            .bytes("an auth_req_id's random part", &bytes[8..40]);
        self.secrets.bytes("an auth_req_id's MAC", &bytes[40..]);
        id
    }

    pub async fn poll(&mut self, client: &Client, id: &str) -> Answer {
        let parameters = [("grant_type", CIBA_GRANT), ("auth_req_id", id)];
        let answer = self.send(client, "/token", &parameters).await;
        if answer.status == 200 {
            let tokens = answer.json();
            for name in ["access_token", "id_token"] {
                self.secrets.jwt(name, tokens[name].as_str().unwrap());
            }
        }
        answer
    }

    /// One call of the device API with a proof that we have seen.
    pub async fn call(&mut self, phone: &Phone, claims: &Value, body: &str) -> Answer {
        let proof = phone.sign("device-proof+jwt", claims);
        self.secrets.jwt("a device proof", &proof);
        let authorization = format!("DeviceProof {proof}");
        let headers = [
            ("authorization", authorization.as_str()),
            ("content-type", "application/json"),
        ];
        let (method, url) = (&claims["htm"], &claims["htu"]);
        let (method, url) = (method.as_str().unwrap(), url.as_str().unwrap());
        self.http
            .send(method, url, &headers, body.as_bytes().to_vec())
            .await
            .unwrap()
    }

    pub async fn answer(&mut self, phone: &Phone, id: RequestId, decision: Decision) {
        let shown = phone.show(id).await.unwrap();
        self.secrets.jwt("a challenge", &shown.signed);
        let approval = phone.sign(APPROVAL_TYP, &json!(phone.approval(&shown, decision, None)));
        self.secrets.jwt("an approval", &approval);
        let body = json!({ "challenge": shown.signed, "approval": approval }).to_string();
        let path = format!("/device/v1/requests/{id}/decision");
        let claims = phone.proof_claims("POST", &path, body.as_bytes());
        assert_eq!(self.call(phone, &claims, &body).await.status, 200);
    }

    /// Runs a command that must not print a secret, and keeps what it printed.
    #[track_caller]
    pub fn print(&mut self, arguments: &[&str], code: i32) {
        let done = self.site.run(arguments);
        assert_eq!(done.code, Some(code), "{arguments:?}: {done:?}");
        self.printed.push_str(&done.stdout);
        self.printed.push_str(&done.stderr);
    }
}
