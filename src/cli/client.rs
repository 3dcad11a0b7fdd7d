//! `assent client add|list|rotate-secret|lock|revoke-tokens`.

use super::Context;
use super::output::time;
use crate::domain::client::{
    AccessTokenFormat, ClientAuthMethod, ClientAuthentication, Delivery, DeliveryMode, Grant,
    HintKind, KeySource, Registration, SecretTransport, SubjectType, UnknownUser,
};
use crate::domain::{BindingMessage, ClientId, Scope, SignatureAlgorithm};
use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde_json::json;
use std::path::PathBuf;
use std::time::Duration;

#[derive(Debug, Subcommand)]
pub enum Client {
    /// Register a relying party and print its secret, once
    Add(Box<Add>),
    /// List the relying parties
    List,
    /// Give a relying party a new secret; the old one ends within `clients.cache` (30 s)
    RotateSecret { id: String },
    /// Lock a relying party: it can ask for nothing any more
    Lock { id: String },
    /// End every token a relying party has got so far
    RevokeTokens { id: String },
}

#[derive(Debug, Args)]
pub struct Add {
    /// The name people see on their phone
    name: String,
    /// Its client_id; made up if not given
    #[arg(long)]
    id: Option<String>,
    /// The most it may ask for
    #[arg(long, default_value = "openid profile")]
    scope: String,
    /// client_secret_basic, client_secret_post or private_key_jwt
    #[arg(long, default_value = "client_secret_basic")]
    auth_method: ClientAuthMethod,
    /// Its public keys, for private_key_jwt: a file with a JWK set
    #[arg(long, value_name = "FILE", conflicts_with = "jwks_uri")]
    jwks: Option<PathBuf>,
    /// Its public keys, for private_key_jwt: where to fetch them
    #[arg(long, value_name = "URL")]
    jwks_uri: Option<String>,
    /// How it signs its assertions: ES256, PS256, RS256 or EdDSA
    #[arg(long, default_value = "ES256", value_name = "ALG")]
    auth_alg: SignatureAlgorithm,
    /// What it may come to the token endpoint with; may be given more than once
    #[arg(long = "grant", default_values = ["urn:openid:params:grant-type:ciba"])]
    grants: Vec<Grant>,
    /// How it learns the result: poll, ping or push
    #[arg(long, default_value = "poll")]
    mode: DeliveryMode,
    /// Where it is pinged or pushed to
    #[arg(long, value_name = "URL")]
    notification_endpoint: Option<String>,
    /// Which hints it may send: login_hint, login_hint_token, id_token_hint; may be given more than once
    #[arg(long = "hint", default_values = ["login_hint", "id_token_hint"])]
    hints: Vec<HintKind>,
    /// Demand the person's user_code with each request
    #[arg(long)]
    user_code: bool,
    /// Have people type on their phone a code of so many digits that it shows them (2 to 8)
    #[arg(long, value_name = "DIGITS", num_args = 0..=1, default_missing_value = "6",
        value_parser = clap::value_parser!(u8).range(2..=8))]
    matching_code: Option<u8>,
    /// Answer for somebody unknown as for anybody, with a request that runs out unanswered
    #[arg(long)]
    decoys: bool,
    /// Give it a sub of its own for each person
    #[arg(long)]
    pairwise: bool,
    /// How its tokens are signed: ES256, PS256, RS256 or EdDSA
    #[arg(long, default_value = "ES256", value_name = "ALG")]
    token_alg: SignatureAlgorithm,
    /// What its access tokens look like: jwt or opaque
    #[arg(long, default_value = "jwt")]
    token_format: AccessTokenFormat,
    /// Whom its access tokens are for; this server if not given
    #[arg(long)]
    audience: Option<String>,
    /// Requests that may be open for one person at a time
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    open_requests: u32,
    /// Seconds a poll is held when it does not say (0 to 30)
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=30))]
    long_poll: u64,
}

impl Add {
    fn registration(&self) -> anyhow::Result<Registration> {
        // The name stands on people's phones: the same rules as for any text that does.
        let name = BindingMessage::parse(&self.name).map_err(|_| {
            anyhow::anyhow!("the name must be 1 to 64 plain visible characters, and no link")
        })?;
        let registration = Registration {
            authentication: self.authentication()?,
            grants: self.grants.iter().copied().collect(),
            delivery: self.delivery()?,
            hints: self.hints.iter().copied().collect(),
            user_code: self.user_code,
            matching_code: self.matching_code,
            unknown_user: if self.decoys {
                UnknownUser::Decoy
            } else {
                UnknownUser::Told
            },
            subject: SubjectType::Public,
            id_token_algorithm: self.token_alg,
            access_token_format: self.token_format,
            audience: self.audience.clone(),
            open_requests_per_user: self.open_requests,
            long_poll: Duration::from_secs(self.long_poll),
            ..Registration::new(name.as_str(), Scope::parse(&self.scope)?)
        };
        if !self.pairwise {
            return Ok(registration);
        }
        let sector = registration.sector_host().context(
            "--pairwise needs something that proves the sector: --jwks-uri, or a --notification-endpoint with --mode push",
        )?;
        Ok(Registration {
            subject: SubjectType::Pairwise { sector },
            ..registration
        })
    }

    fn authentication(&self) -> anyhow::Result<ClientAuthentication> {
        let keys = match (&self.jwks, &self.jwks_uri) {
            (Some(file), _) => {
                let text = std::fs::read(file)
                    .with_context(|| format!("cannot read {}", file.display()))?;
                let set = serde_json::from_slice(&text)
                    .with_context(|| format!("{} is not JSON", file.display()))?;
                Some(KeySource::Jwks(set))
            }
            (None, Some(uri)) => Some(KeySource::JwksUri(uri.clone())),
            (None, None) => None,
        };
        Ok(match (self.auth_method, keys) {
            (ClientAuthMethod::Basic, None) => ClientAuthentication::Secret(SecretTransport::Basic),
            (ClientAuthMethod::Post, None) => ClientAuthentication::Secret(SecretTransport::Post),
            (ClientAuthMethod::PrivateKeyJwt, Some(keys)) => ClientAuthentication::PrivateKeyJwt {
                algorithm: self.auth_alg,
                keys,
            },
            (ClientAuthMethod::PrivateKeyJwt, None) => {
                anyhow::bail!("private_key_jwt needs --jwks FILE or --jwks-uri URL")
            }
            (_, Some(_)) => {
                anyhow::bail!("--jwks and --jwks-uri go with --auth-method private_key_jwt")
            }
        })
    }

    fn delivery(&self) -> anyhow::Result<Delivery> {
        let endpoint = self.notification_endpoint.clone();
        Ok(match (self.mode, endpoint) {
            (DeliveryMode::Poll, None) => Delivery::Poll,
            (DeliveryMode::Ping, Some(endpoint)) => Delivery::Ping { endpoint },
            (DeliveryMode::Push, Some(endpoint)) => Delivery::Push { endpoint },
            (DeliveryMode::Poll, Some(_)) => {
                anyhow::bail!("--notification-endpoint goes with --mode ping or push")
            }
            (_, None) => anyhow::bail!("ping and push need --notification-endpoint URL"),
        })
    }
}

impl Client {
    pub async fn run(self, context: &Context) -> anyhow::Result<()> {
        let core = context.core().await?;
        let services = &core.services;
        let output = &context.output;
        match self {
            Self::Add(add) => {
                let id = add.id.as_deref().map(ClientId::parse);
                anyhow::ensure!(
                    id != Some(None),
                    "a client_id is 1 to 255 visible ASCII characters"
                );
                let registration = add.registration()?;
                services.check_registration(&registration)?;
                let added = services.add_client(id.flatten(), registration).await?;
                let (client, secret) =
                    added.context("this client_id is taken; choose another with --id")?;
                let secret = secret.as_ref().map(|secret| secret.expose());
                let human = match secret {
                    Some(secret) => format!(
                        "client_id      {}\nclient_secret  {secret}\n\nThe secret is not shown again.",
                        client.id
                    ),
                    None => format!("client_id  {}", client.id),
                };
                output.result(
                    &human,
                    &json!({ "client_id": client.id, "client_secret": secret }),
                );
            }
            Self::List => {
                let clients = services.directory.clients().await?;
                let rows: Vec<_> = clients
                    .iter()
                    .map(|client| {
                        vec![
                            client.id.to_string(),
                            client.registration.name.clone(),
                            client.registration.authentication.method().to_string(),
                            client.registration.delivery.mode().to_string(),
                            client.registration.scope.to_string(),
                            client.locked_at.map_or_else(|| "no".into(), time),
                        ]
                    })
                    .collect();
                let values = clients
                    .iter()
                    .map(|client| {
                        json!({
                            "client_id": client.id,
                            "registration": client.registration,
                            "created_at": client.created_at.secs(),
                            "locked_at": client.locked_at.map(|at| at.secs()),
                            "tokens_not_before": client.tokens_not_before.map(|at| at.secs()),
                        })
                    })
                    .collect();
                let heading = [
                    "client_id",
                    "name",
                    "auth method",
                    "mode",
                    "scope",
                    "locked",
                ];
                let empty = "There are no clients; make one with `assent client add NAME`.";
                output.table(&heading, &rows, values, empty);
            }
            Self::RotateSecret { id } => {
                let secret = services
                    .rotate_client_secret(&ClientId::new(id.clone()))
                    .await?;
                let secret = secret.context(
                    "there is no client with a secret by this id; see `assent client list`",
                )?;
                output.result(
                    &format!(
                        "client_secret  {}\n\nThe secret is not shown again.",
                        secret.expose()
                    ),
                    &json!({ "client_id": id, "client_secret": secret.expose() }),
                );
            }
            Self::Lock { id } => {
                let locked = services.lock_client(&ClientId::new(id.clone())).await?;
                anyhow::ensure!(
                    locked,
                    "there is no such client, or it is locked already; see `assent client list`"
                );
                output.result(
                    &format!("{id} is locked."),
                    &json!({ "client_id": id, "locked": true }),
                );
            }
            Self::RevokeTokens { id } => {
                let done = services
                    .revoke_client_tokens(&ClientId::new(id.clone()))
                    .await?;
                anyhow::ensure!(done, "there is no such client; see `assent client list`");
                output.result(
                    &format!("Every token {id} has got so far is revoked."),
                    &json!({ "client_id": id, "tokens_revoked": true }),
                );
            }
        }
        core.db.close().await;
        Ok(())
    }
}
