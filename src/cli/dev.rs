//! `assent dev`: a server to develop against, with everything in place.

use super::enrol::draw_qr;
use super::{Context, phone};
use crate::app::{Core, Listeners, Server, World};
use crate::config::Config;
use crate::domain::client::Registration;
use crate::domain::user::{Login, User};
use crate::domain::{ClientId, Scope, Secret};
use crate::phone::{EnrolmentLink, Phone};
use crate::service::Services;
use crate::shutdown::StopSignals;
use crate::telemetry;
use anyhow::Context as _;
use clap::Args;
use serde_json::json;
use std::path::{Path, PathBuf};

#[derive(Debug, Args)]
pub struct Dev {
    /// Where the database, the keys and the phone lie
    #[arg(long, default_value = "assent-data", value_name = "FOLDER")]
    data: PathBuf,
    /// Where to listen
    #[arg(long, default_value = "127.0.0.1:8080")]
    listen: std::net::SocketAddr,
    /// Where operators look
    #[arg(long, default_value = "127.0.0.1:9090")]
    management: std::net::SocketAddr,
}

impl Dev {
    pub async fn run(self, context: &Context) -> anyhow::Result<()> {
        std::fs::create_dir_all(&self.data)
            .with_context(|| format!("cannot make {}", self.data.display()))?;
        let data = self.data.canonicalize()?;
        let mut config = Config::load(
            context.config.as_deref(),
            &vec![
                ("server.mode", "dev".into()),
                ("server.issuer", format!("http://{}", self.listen)),
                ("server.public_listen", self.listen.to_string()),
                ("server.management_listen", self.management.to_string()),
                (
                    "database.url",
                    format!("sqlite://{}?mode=rwc", data.join("assent.db").display()),
                ),
                (
                    "keys.deployment_key_file",
                    data.join("deployment.key").display().to_string(),
                ),
            ],
        )?;
        telemetry::init_logs(&config.log)?;
        let signals = StopSignals::heed()?;
        let listeners = Listeners::bind(&config)?;
        config.server.issuer = format!("http://{}", listeners.public_address()?);
        write_settings(&data, &config)?;
        let core = Core::migrate_and_open(&config, World::real()).await?;
        let server = Server::listen(core, &config, listeners)?;
        let services = server.core.services.clone();
        let secret = seed_bank(&services).await?;
        let alice = seed_alice(&services).await?;
        let phone_file = data.join("phone.json");
        if !phone_file.exists() {
            enrol_phone(&services, &alice, &phone_file).await?;
        }
        let ticket = services.create_enrolment(&alice).await?;
        let issuer = &config.server.issuer;
        let link = ticket.link.expose();
        // As it was called, so that what is printed can be typed here.
        let assent = std::env::args().next().unwrap_or_else(|| "assent".into());
        context.output.result(
            &format!(
                "{qr}\n\
                 DEV MODE: not for production\n\n\
                 issuer         {issuer}\n\
                 client_id      bank\n\
                 client_secret  {secret}\n\
                 data           {data}\n\
                 another phone  {assent} phone --file other.json enrol '{link}'\n\n\
                 Ask Alice:\n\n  \
                 curl -u 'bank:{secret}' {issuer}/bc-authorize -d scope=openid -d login_hint=alice -d binding_message=W4SCT\n\n\
                 Answer on her phone:\n\n  \
                 {assent} phone --file '{phone}' approve\n\n\
                 Fetch the tokens, with the auth_req_id that curl printed:\n\n  \
                 curl -u 'bank:{secret}' {issuer}/token -d grant_type=urn:openid:params:grant-type:ciba -d auth_req_id=…\n\n\
                 Every other command, against this server:\n\n  \
                 {assent} --config '{settings}' user list\n",
                qr = draw_qr(link)?,
                secret = secret.expose(),
                data = data.display(),
                phone = phone_file.display(),
                settings = data.join("assent.toml").display(),
            ),
            &json!({
                "issuer": issuer,
                "client_id": "bank",
                "client_secret": secret.expose(),
                "login_hint": "alice",
                "enrolment_link": link,
                "phone": phone_file,
                "config": data.join("assent.toml"),
            }),
        );
        server.run(signals).await
    }
}

/// The settings of this server, so that other commands find its database.
fn write_settings(data: &Path, config: &Config) -> anyhow::Result<()> {
    let settings = format!(
        "# Written by `assent dev`; every start writes it anew.\n\
         [server]\nmode = \"dev\"\nissuer = \"{}\"\npublic_listen = \"{}\"\nmanagement_listen = \"{}\"\n\n\
         [database]\nurl = \"{}\"\n\n[keys]\ndeployment_key_file = \"{}\"\n",
        config.server.issuer,
        config.server.public_listen,
        config.server.management_listen,
        config.database.url,
        config.keys.deployment_key_file,
    );
    let path = data.join("assent.toml");
    std::fs::write(&path, settings).with_context(|| format!("cannot write {}", path.display()))
}

/// A bank with a secret of today: only its hash is kept, so each start makes a new one.
async fn seed_bank(services: &Services) -> anyhow::Result<Secret> {
    let id = ClientId::new("bank");
    let registration = Registration::new("Example Bank", Scope::parse("openid profile")?);
    if let Some((_, Some(secret))) = services.add_client(Some(id.clone()), registration).await? {
        return Ok(secret);
    }
    services
        .rotate_client_secret(&id)
        .await?
        .context("the bank is gone; remove the data folder")
}

async fn seed_alice(services: &Services) -> anyhow::Result<User> {
    let login = Login::parse("alice")?;
    if let Some(user) = services
        .add_user(login.clone(), Some("Alice Example".into()))
        .await?
    {
        return Ok(user);
    }
    services
        .directory
        .user_by_login(&login)
        .await?
        .context("Alice is gone; remove the data folder")
}

/// Alice's first phone lives in the data folder.
async fn enrol_phone(services: &Services, user: &User, path: &Path) -> anyhow::Result<()> {
    let ticket = services.create_enrolment(user).await?;
    let link = EnrolmentLink::parse(ticket.link.expose()).context("the link is not a link")?;
    let World { clock, entropy, .. } = World::real();
    let enrolled = Phone::enrol(&link, "Alice's terminal", clock, entropy).await?;
    phone::save(&enrolled, path)
}
