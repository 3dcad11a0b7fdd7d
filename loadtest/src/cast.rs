//! Who takes part: a relying party, people, and a software phone for each.

use crate::operations::{Credentials, RelyingParty};
use crate::server::Settings;
use anyhow::Context as _;
use assent::app::{Core, World};
use assent::crypto::generate::generate;
use assent::crypto::jose::SigningKey;
use assent::domain::client::{ClientAuthentication, KeySource, Registration, UnknownUser};
use assent::domain::user::Login;
use assent::domain::{ClientId, Scope, Secret, SignatureAlgorithm};
use assent::phone::http::basic;
use assent::phone::{EnrolmentLink, Phone};
use serde_json::json;
use std::sync::{Arc, Mutex};

/// Written into the database before its server starts.
pub struct Cast {
    pub rp: RelyingParty,
    pub signer: Signer,
    /// Logins, and the links with which their phones enrol.
    tickets: Vec<(String, Secret)>,
}

/// A relying party that authenticates by signed statements (ES256).
pub struct Signer {
    id: ClientId,
    key: SigningKey,
    issuer: String,
}

impl Signer {
    /// The relying party with what it needs for so many requests, signed here and now: the assertions of
    /// a server's clients cost the server nothing. They are good for five minutes.
    pub fn sign(&self, requests: usize) -> RelyingParty {
        let World { clock, entropy, .. } = World::real();
        let now = clock.now().secs();
        let run = u64::from_be_bytes(entropy.bytes());
        let assertion = |number| {
            self.key.sign(
                "JWT",
                &json!({
                    "iss": self.id,
                    "sub": self.id,
                    "aud": self.issuer,
                    "iat": now,
                    "exp": now + 300,
                    "jti": format!("{run:016x}-{number}"),
                }),
            )
        };
        let assertions = (0..requests).map(assertion).collect();
        RelyingParty::new(
            self.issuer.clone(),
            Credentials::Assertions(Arc::new(Mutex::new(assertions))),
        )
    }
}

impl Cast {
    /// Sets up the database and writes the cast into it.
    pub async fn seed(settings: &Settings, people: usize) -> anyhow::Result<Self> {
        Self::seed_for(settings, people, UnknownUser::Told).await
    }

    /// With a relying party that gets this for people nobody knows.
    pub async fn seed_for(
        settings: &Settings,
        people: usize,
        unknown_user: UnknownUser,
    ) -> anyhow::Result<Self> {
        let core = Core::migrate_and_open(&settings.config()?, World::real()).await?;
        let services = &core.services;
        let registration = Registration {
            open_requests_per_user: 1_000_000,
            unknown_user,
            ..Registration::new("Load", Scope::parse("openid")?)
        };
        let (client, secret) = services
            .add_client(None, registration.clone())
            .await?
            .context("the client's id is taken")?;
        let secret = secret.context("the client has a secret")?;
        let algorithm = SignatureAlgorithm::Es256;
        let (private, public) = generate(algorithm);
        let key = SigningKey::new(&private, public, algorithm).context("the key is of no use")?;
        let keys = KeySource::Jwks(json!({ "keys": [key.jwk()] }));
        let signer = Registration {
            authentication: ClientAuthentication::PrivateKeyJwt { algorithm, keys },
            ..registration.clone()
        };
        let (signer, _) = services
            .add_client(None, signer)
            .await?
            .context("the client's id is taken")?;
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
                Credentials::Basic(basic(client.id.as_str(), secret.expose())),
            ),
            signer: Signer {
                id: signer.id,
                key,
                issuer: settings.issuer.clone(),
            },
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
