//! `assent demo`: the whole journey, through real HTTP, on a server that lives for a few seconds.

use super::Context;
use crate::app::{Core, Listeners, Server, World};
use crate::config::Config;
use crate::domain::client::ClientAuthMethod;
use crate::domain::user::Login;
use crate::domain::{ClientId, Decision, Scope, Secret};
use crate::phone::http::{Answer, HttpClient, basic};
use crate::phone::statement::KeySet;
use crate::phone::{EnrolmentLink, Phone, ShownRequest};
use crate::service::administer::NewClient;
use crate::telemetry;
use anyhow::Context as _;
use clap::Args;
use serde_json::{Value, json};
use std::time::Duration;

const CIBA_GRANT: &str = "urn:openid:params:grant-type:ciba";

#[derive(Debug, Args)]
pub struct Demo {
    /// Show the server's log too
    #[arg(long)]
    verbose: bool,
}

impl Demo {
    pub async fn run(self, context: &Context) -> anyhow::Result<()> {
        let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
        // On settings of its own: a demo must not find anybody's database.
        let mut config = Config::of(&vec![
            ("server.mode", "dev".into()),
            ("server.issuer", "http://127.0.0.1:1".into()),
            ("server.public_listen", "127.0.0.1:0".into()),
            ("server.management_listen", "127.0.0.1:0".into()),
            (
                "database.url",
                format!("sqlite://{}/demo.db?mode=rwc", folder.path().display()),
            ),
            (
                "keys.deployment_key_file",
                folder.path().join("deployment.key").display().to_string(),
            ),
        ])?;
        config.log.filter = if self.verbose {
            "info".into()
        } else {
            "error".into()
        };
        telemetry::init_logs(&config.log)?;
        let listeners = Listeners::bind(&config)?;
        config.server.issuer = format!("http://{}", listeners.public_address()?);
        let core = Core::migrate_and_open(&config, World::real()).await?;
        let server = Server::listen(core, &config, listeners)?;
        server.start_background();
        let mut story = Story::begin(context, &server).await?;
        let told = story.tell(&server).await;
        server.stop().await?;
        told?;
        story.end()
    }
}

/// The cast, and what was checked so far.
struct Story<'a> {
    context: &'a Context,
    issuer: String,
    http: HttpClient,
    phone: Phone,
    credentials: String,
    client_id: ClientId,
    checks: Vec<(String, bool)>,
}

impl<'a> Story<'a> {
    /// Registers a bank, a person and her phone.
    async fn begin(context: &'a Context, server: &Server) -> anyhow::Result<Self> {
        let services = &server.core.services;
        let (client, secret): (_, Secret) = services
            .add_client(NewClient {
                id: Some(ClientId::new("example-bank")),
                name: "Example Bank".into(),
                auth_method: ClientAuthMethod::Basic,
                scope: Scope::parse("openid profile")?,
                open_requests_per_user: 3,
                long_poll: Duration::ZERO,
            })
            .await?
            .context("the demo's database is not empty")?;
        let user = services
            .add_user(Login::parse("alice")?, Some("Alice Example".into()))
            .await?
            .context("the demo's database is not empty")?;
        let ticket = services.create_enrolment(&user).await?;
        let link = EnrolmentLink::parse(ticket.link.expose()).context("the link is not a link")?;
        let World { clock, entropy, .. } = World::real();
        let phone = Phone::enrol(&link, "Alice's phone", clock, entropy).await?;
        let story = Self {
            issuer: link.issuer,
            http: HttpClient::new(),
            phone,
            credentials: basic(client.id.as_str(), secret.expose()),
            client_id: client.id,
            context,
            checks: Vec::new(),
        };
        story.say(
            "The cast",
            &format!(
                "a server at {}, Example Bank, Alice and her phone",
                story.issuer
            ),
        );
        Ok(story)
    }

    async fn tell(&mut self, server: &Server) -> anyhow::Result<()> {
        self.approval().await?;
        self.denial().await?;
        let report = server.core.services.verify_audit(None).await?;
        self.say(
            "Audit",
            &format!("{} rows in {} chains", report.rows, report.chains),
        );
        self.check("the audit is whole", report.is_whole() && report.rows > 0);
        Ok(())
    }

    async fn approval(&mut self) -> anyhow::Result<()> {
        let id = self.ask("Sign in to the shop, code W4SCT").await?;
        let pending = self.poll(&id).await?;
        self.check_error(
            "the bank polls before she answers",
            &pending,
            "authorization_pending",
        );
        let shown = self.look("W4SCT").await?;
        self.phone.answer(&shown, Decision::Approve, None).await?;
        self.say("Phone", "signs the approval of exactly what it showed");
        let tokens = self.poll(&id).await?;
        self.check("the bank polls and gets tokens", tokens.status == 200);
        let tokens = tokens.json();
        let id_token = tokens["id_token"].as_str().unwrap_or_default();
        let jwks = self
            .http
            .get(&format!("{}/jwks", self.issuer), &[])
            .await?
            .json();
        let claims: Option<Value> = KeySet::new(&jwks).verify("JWT", id_token);
        self.check(
            "the ID Token verifies with the published keys",
            claims.is_some(),
        );
        let claims = claims.unwrap_or_default();
        self.context
            .output
            .say(&format!("\nID Token\n{claims:#}\n"));
        self.check(
            "it is for the bank",
            claims["aud"] == self.client_id.as_str(),
        );
        self.check(
            "it is from this server",
            claims["iss"] == self.issuer.as_str(),
        );
        self.check(
            "it says how she was asked",
            claims["acr"] == "urn:assent:acr:device",
        );
        let bearer = format!(
            "Bearer {}",
            tokens["access_token"].as_str().unwrap_or_default()
        );
        let info = self
            .http
            .get(
                &format!("{}/userinfo", self.issuer),
                &[("authorization", bearer.as_str())],
            )
            .await?;
        let about = info.json();
        self.check(
            "the access token opens /userinfo",
            info.status == 200 && about["sub"] == claims["sub"] && about["name"].is_null(),
        );
        let again = self.poll(&id).await?;
        self.check_error("a second redemption gets nothing", &again, "invalid_grant");
        Ok(())
    }

    async fn denial(&mut self) -> anyhow::Result<()> {
        let id = self.ask("Pay 900 to somebody unknown").await?;
        let shown = self.look("somebody unknown").await?;
        self.phone.answer(&shown, Decision::Deny, None).await?;
        self.say("Phone", "signs a denial");
        let denied = self.poll(&id).await?;
        self.check_error("the bank learns that she said no", &denied, "access_denied");
        Ok(())
    }

    /// The bank asks for Alice's approval.
    async fn ask(&mut self, binding_message: &str) -> anyhow::Result<String> {
        let url = format!("{}/bc-authorize", self.issuer);
        let parameters = [
            ("scope", "openid"),
            ("login_hint", "alice"),
            ("binding_message", binding_message),
        ];
        let headers = [("authorization", self.credentials.as_str())];
        let answer = self.http.form(&url, &headers, &parameters).await?;
        self.check("the bank asks and is acknowledged", answer.status == 200);
        let answer = answer.json();
        self.say(
            "Bank",
            &format!(
                "asks \"{binding_message}\"; good for {} s",
                answer["expires_in"]
            ),
        );
        Ok(answer["auth_req_id"]
            .as_str()
            .context("no auth_req_id")?
            .to_owned())
    }

    async fn poll(&self, id: &str) -> anyhow::Result<Answer> {
        let url = format!("{}/token", self.issuer);
        let parameters = [("grant_type", CIBA_GRANT), ("auth_req_id", id)];
        let headers = [("authorization", self.credentials.as_str())];
        Ok(self.http.form(&url, &headers, &parameters).await?)
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
        self.check(
            "the phone shows what the bank asked",
            lines.iter().any(|l| l.contains(expected)),
        );
        Ok(shown)
    }

    fn say(&self, who: &str, what: &str) {
        self.context.output.say(&format!("{who:9} {what}"));
    }

    fn check(&mut self, what: &str, held: bool) {
        let mark = if held { "ok" } else { "FAILED" };
        self.context.output.say(&format!("{mark:>8}  {what}"));
        self.checks.push((what.to_owned(), held));
    }

    fn check_error(&mut self, what: &str, answer: &Answer, error: &str) {
        let held = answer.status == 400 && answer.json()["error"] == error;
        self.check(&format!("{what}: {error}"), held);
    }

    fn end(self) -> anyhow::Result<()> {
        let failed = self.checks.iter().filter(|(_, held)| !held).count();
        let checks: Vec<_> = self
            .checks
            .iter()
            .map(|(what, held)| json!({ "check": what, "held": held }))
            .collect();
        self.context.output.result(
            &format!("\n{} checks, {failed} failed", checks.len()),
            &json!({ "checks": checks, "failed": failed }),
        );
        verdict(&self.checks)
    }
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
