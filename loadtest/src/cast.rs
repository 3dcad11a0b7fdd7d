//! Who takes part: a relying party, people, and a software phone for each.

use crate::operations::RelyingParty;
use crate::server::Settings;
use anyhow::Context as _;
use assent::app::{Core, World};
use assent::domain::client::Registration;
use assent::domain::user::Login;
use assent::domain::{Scope, Secret};
use assent::phone::http::basic;
use assent::phone::{EnrolmentLink, Phone};

/// Written into the database before its server starts.
pub struct Cast {
    pub rp: RelyingParty,
    /// Logins, and the links with which their phones enrol.
    tickets: Vec<(String, Secret)>,
}

impl Cast {
    /// Sets up the database and writes the cast into it.
    pub async fn seed(settings: &Settings, people: usize) -> anyhow::Result<Self> {
        let core = Core::migrate_and_open(&settings.config()?, World::real()).await?;
        let services = &core.services;
        let registration = Registration {
            open_requests_per_user: 1_000_000,
            ..Registration::new("Load", Scope::parse("openid")?)
        };
        let (client, secret) = services
            .add_client(None, registration)
            .await?
            .context("the client's id is taken")?;
        let secret = secret.context("the client has a secret")?;
        let mut tickets = Vec::with_capacity(people);
        for number in 0..people {
            let login = format!("person-{number}");
            let user = services.add_user(Login::parse(&login)?, None).await?;
            let user = user.context("the login is taken")?;
            let ticket = services.create_enrolment(&user).await?;
            tickets.push((login, ticket.link));
        }
        core.db.close().await;
        Ok(Self {
            rp: RelyingParty::new(
                settings.issuer.clone(),
                basic(client.id.as_str(), secret.expose()),
            ),
            tickets,
        })
    }

    /// Enrols a phone for everybody, over the device API of the running server.
    pub async fn enrol(&mut self) -> anyhow::Result<Vec<(String, Phone)>> {
        let mut people = Vec::with_capacity(self.tickets.len());
        for (login, link) in self.tickets.drain(..) {
            let link = EnrolmentLink::parse(link.expose()).context("the link is not a link")?;
            let World { clock, entropy, .. } = World::real();
            let phone = Phone::enrol(&link, "load", clock, entropy).await?;
            people.push((login, phone));
        }
        Ok(people)
    }
}
