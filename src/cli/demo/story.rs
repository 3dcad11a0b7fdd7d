//! Who takes part in the demo, what happens, and whether each step held.

use super::endpoint::{Endpoint, Notification};
use crate::app::{Server, World};
use crate::cli::output::Output;
use crate::domain::client::{Delivery, Registration};
use crate::domain::user::Login;
use crate::domain::{ClientId, Decision, Scope};
use crate::phone::http::{Answer, HttpClient, basic};
use crate::phone::statement::KeySet;
use crate::phone::{EnrolmentLink, Phone, ShownRequest};
use anyhow::Context as _;
use serde_json::{Value, json};
use std::time::Duration;

const CIBA_GRANT: &str = "urn:openid:params:grant-type:ciba";
const NOTIFICATION_TOKEN: &str = "example-notification-token-0001";
/// How long a notification may take before the story goes on without it.
const PATIENCE: Duration = Duration::from_secs(10);

/// A relying party of the story.
struct Party {
    id: &'static str,
    credentials: String,
}

/// The cast, and what was checked so far.
pub struct Story<'a> {
    output: &'a Output,
    issuer: String,
    http: HttpClient,
    phone: Phone,
    endpoint: Endpoint,
    bank: Party,
    shop: Party,
    call_centre: Party,
    checks: Vec<(String, bool)>,
}

impl<'a> Story<'a> {
    /// Registers three relying parties, a person and her phone.
    pub async fn begin(output: &'a Output, server: &Server) -> anyhow::Result<Self> {
        let endpoint = Endpoint::listen().await?;
        let url = || endpoint.url.clone();
        let bank = party(server, "example-bank", "Example Bank", Delivery::Poll).await?;
        let shop = Delivery::Ping { endpoint: url() };
        let shop = party(server, "example-shop", "Example Shop", shop).await?;
        let call_centre = Delivery::Push { endpoint: url() };
        let call_centre = party(server, "example-calls", "Example Calls", call_centre).await?;
        let services = &server.core.services;
        let user = services
            .add_user(Login::parse("alice")?, Some("Alice Example".into()))
            .await?
            .context("the demo's database is not empty")?;
        let ticket = services.create_enrolment(&user).await?;
        let link = EnrolmentLink::parse(ticket.link.expose()).context("the link is not a link")?;
        let World { clock, entropy, .. } = World::real();
        let phone = Phone::enrol(&link, "Alice's phone", clock, entropy).await?;
        let story = Self {
            output,
            issuer: link.issuer,
            http: HttpClient::new(),
            phone,
            endpoint,
            bank,
            shop,
            call_centre,
            checks: Vec::new(),
        };
        story.output.say(&format!(
            "A server at {}, three relying parties, Alice and her phone",
            story.issuer
        ));
        Ok(story)
    }

    pub async fn tell(&mut self, server: &Server) -> anyhow::Result<()> {
        self.chapter("Poll: the bank asks again and again until she has answered");
        self.poll().await?;
        self.chapter("Ping: the shop is told that there is something to fetch");
        self.ping().await?;
        self.chapter("Push: the call centre is sent the tokens");
        self.push().await?;
        self.chapter("Denial: she says no");
        self.denial().await?;
        self.chapter("Audit");
        let report = server.core.services.verify_audit(None).await?;
        self.say(
            "assent",
            &format!("{} rows in {} chains", report.rows, report.chains),
        );
        self.check("the audit is whole", report.is_whole() && report.rows > 0);
        Ok(())
    }

    /// What was checked; an error if anything did not hold.
    pub fn end(self) -> anyhow::Result<()> {
        let failed = self.checks.iter().filter(|(_, held)| !held).count();
        let checks: Vec<_> = self
            .checks
            .iter()
            .map(|(what, held)| json!({ "check": what, "held": held }))
            .collect();
        self.output.result(
            &format!("\n{} checks, {failed} failed", checks.len()),
            &json!({ "checks": checks, "failed": failed }),
        );
        verdict(&self.checks)
    }

    async fn poll(&mut self) -> anyhow::Result<()> {
        let credentials = self.bank.credentials.clone();
        let id = self
            .ask("Bank", &credentials, "Sign in to the bank, code W4SCT")
            .await?;
        let pending = self.fetch(&credentials, &id).await?;
        self.check_error(
            "the bank comes before she answers",
            &pending,
            "authorization_pending",
        );
        self.approve("W4SCT").await?;
        let tokens = self.fetch(&credentials, &id).await?;
        self.check("the bank comes again and gets tokens", tokens.status == 200);
        let tokens = tokens.json();
        let claims = self.check_id_token(&tokens, self.bank.id).await?;
        self.output.say(&format!("\nID Token\n{claims:#}\n"));
        let bearer = format!("Bearer {}", text(&tokens, "access_token"));
        let headers = [("authorization", bearer.as_str())];
        let info = self
            .http
            .get(&format!("{}/userinfo", self.issuer), &headers)
            .await?;
        let opened = info.status == 200 && info.json()["sub"] == claims["sub"];
        self.check("the access token opens /userinfo", opened);
        let again = self.fetch(&credentials, &id).await?;
        self.check_error("a second redemption gets nothing", &again, "invalid_grant");
        Ok(())
    }

    async fn ping(&mut self) -> anyhow::Result<()> {
        let credentials = self.shop.credentials.clone();
        let id = self
            .ask("Shop", &credentials, "Order 1277, code K3M")
            .await?;
        self.approve("Order 1277").await?;
        let ping = self.notification(1).await?;
        self.check(
            "the shop is pinged",
            ping.body == json!({ "auth_req_id": id }),
        );
        self.check(
            "the ping carries the shop's own token",
            has_own_token(&ping),
        );
        let tokens = self.fetch(&credentials, &id).await?;
        self.check("the shop comes and gets tokens", tokens.status == 200);
        self.check_id_token(&tokens.json(), self.shop.id).await?;
        Ok(())
    }

    async fn push(&mut self) -> anyhow::Result<()> {
        let credentials = self.call_centre.credentials.clone();
        let id = self
            .ask("Calls", &credentials, "You are talking to us, code 88-12")
            .await?;
        self.approve("88-12").await?;
        let push = self.notification(2).await?;
        self.check(
            "the call centre is sent the tokens",
            push.body["auth_req_id"] == id.as_str(),
        );
        self.check(
            "the push carries the call centre's own token",
            has_own_token(&push),
        );
        let claims = self.check_id_token(&push.body, self.call_centre.id).await?;
        let bound = claims["at_hash"].is_string()
            && claims["urn:openid:params:jwt:claim:auth_req_id"] == id.as_str();
        self.check("its ID Token binds the access token and the request", bound);
        let refused = self.fetch(&credentials, &id).await?;
        self.check_error("there is nothing to fetch", &refused, "unauthorized_client");
        Ok(())
    }

    async fn denial(&mut self) -> anyhow::Result<()> {
        let credentials = self.bank.credentials.clone();
        let id = self
            .ask("Bank", &credentials, "Pay 900 to somebody unknown")
            .await?;
        let shown = self.look("somebody unknown").await?;
        self.phone.answer(&shown, Decision::Deny, None).await?;
        self.say("Phone", "signs a denial");
        let denied = self.fetch(&credentials, &id).await?;
        self.check_error("the bank learns that she said no", &denied, "access_denied");
        Ok(())
    }

    /// A relying party asks for Alice's approval.
    async fn ask(
        &mut self,
        who: &str,
        credentials: &str,
        binding_message: &str,
    ) -> anyhow::Result<String> {
        let parameters = [
            ("scope", "openid"),
            ("login_hint", "alice"),
            ("binding_message", binding_message),
            ("client_notification_token", NOTIFICATION_TOKEN),
        ];
        let url = format!("{}/bc-authorize", self.issuer);
        let answer = self
            .http
            .form(&url, &[("authorization", credentials)], &parameters)
            .await?;
        let body = answer.json();
        self.say(
            who,
            &format!(
                "asks \"{binding_message}\"; good for {} s",
                body["expires_in"]
            ),
        );
        self.check("the request is acknowledged", answer.status == 200);
        Ok(body["auth_req_id"]
            .as_str()
            .context("no auth_req_id")?
            .to_owned())
    }

    async fn fetch(&self, credentials: &str, id: &str) -> anyhow::Result<Answer> {
        let url = format!("{}/token", self.issuer);
        let parameters = [("grant_type", CIBA_GRANT), ("auth_req_id", id)];
        Ok(self
            .http
            .form(&url, &[("authorization", credentials)], &parameters)
            .await?)
    }

    async fn approve(&mut self, expected: &str) -> anyhow::Result<()> {
        let shown = self.look(expected).await?;
        self.phone.answer(&shown, Decision::Approve, None).await?;
        self.say("Phone", "signs the approval of exactly what it showed");
        Ok(())
    }

    /// The phone fetches what waits, verifies it and shows it.
    async fn look(&mut self, expected: &str) -> anyhow::Result<ShownRequest> {
        let inbox = self.phone.inbox().await?;
        let first = inbox.first().context("the phone's inbox is empty")?;
        let shown = self.phone.show(first.id).await?;
        let lines: Vec<_> = shown
            .challenge
            .display
            .lines
            .iter()
            .map(|line| line.text.as_str())
            .collect();
        self.say("Phone", &format!("shows {}", lines.join(" | ")));
        let as_asked = lines.iter().any(|line| line.contains(expected));
        self.check("the phone shows what was asked", as_asked);
        Ok(shown)
    }

    async fn notification(&self, n: usize) -> anyhow::Result<Notification> {
        let arrived = tokio::time::timeout(PATIENCE, self.endpoint.nth(n)).await;
        arrived
            .ok()
            .flatten()
            .context("no notification arrived; run `assent demo --verbose`")
    }

    /// Verifies the ID Token of a response with the published keys.
    async fn check_id_token(&mut self, response: &Value, client: &str) -> anyhow::Result<Value> {
        let jwks = self
            .http
            .get(&format!("{}/jwks", self.issuer), &[])
            .await?
            .json();
        let claims = KeySet::new(&jwks).verify::<Value>("JWT", text(response, "id_token"));
        self.check(
            "its ID Token verifies with the published keys",
            claims.is_some(),
        );
        let claims = claims.unwrap_or_default();
        let ours = claims["iss"] == self.issuer.as_str()
            && claims["aud"] == client
            && claims["acr"] == "urn:assent:acr:device";
        self.check("it says who was asked, by whom, for whom and how", ours);
        Ok(claims)
    }

    fn chapter(&self, title: &str) {
        self.output.say(&format!("\n{title}"));
    }

    fn say(&self, who: &str, what: &str) {
        self.output.say(&format!("  {who:6} {what}"));
    }

    fn check(&mut self, what: &str, held: bool) {
        let mark = if held { "ok" } else { "FAILED" };
        self.output.say(&format!("  {mark:>6}   {what}"));
        self.checks.push((what.to_owned(), held));
    }

    fn check_error(&mut self, what: &str, answer: &Answer, error: &str) {
        let held = answer.status == 400 && answer.json()["error"] == error;
        self.check(&format!("{what}: {error}"), held);
    }
}

async fn party(
    server: &Server,
    id: &'static str,
    name: &str,
    delivery: Delivery,
) -> anyhow::Result<Party> {
    let scope = Scope::parse("openid profile")?;
    let registration = Registration {
        delivery,
        ..Registration::new(name, scope)
    };
    let services = &server.core.services;
    services.check_registration(&registration)?;
    let added = services
        .add_client(Some(ClientId::new(id)), registration)
        .await?;
    let (_, secret) = added.context("the demo's database is not empty")?;
    let secret = secret.context("the demo's clients have secrets")?;
    Ok(Party {
        id,
        credentials: basic(id, secret.expose()),
    })
}

fn has_own_token(notification: &Notification) -> bool {
    notification.authorization == format!("Bearer {NOTIFICATION_TOKEN}")
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

/// An error unless every check held.
fn verdict(checks: &[(String, bool)]) -> anyhow::Result<()> {
    anyhow::ensure!(
        checks.iter().all(|(_, held)| *held),
        "a check failed; run `assent demo --verbose` for the log"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::verdict;

    #[test]
    fn one_check_that_fails_fails_the_demo() {
        let checks = |held: [bool; 3]| held.map(|held| ("a check".to_owned(), held));
        assert!(verdict(&checks([true, true, true])).is_ok());
        for failing in [
            [false, true, true],
            [true, false, true],
            [true, true, false],
        ] {
            let error = verdict(&checks(failing)).unwrap_err().to_string();
            assert!(error.contains("assent demo --verbose"), "{error}");
        }
    }
}
