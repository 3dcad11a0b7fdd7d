//! `assent client add|list|rotate-secret|lock`.

use super::Context;
use super::output::time;
use crate::domain::client::ClientAuthMethod;
use crate::domain::{ClientId, Scope};
use crate::service::administer::NewClient;
use anyhow::Context as _;
use clap::Subcommand;
use serde_json::json;
use std::time::Duration;

#[derive(Debug, Subcommand)]
pub enum Client {
    /// Register a relying party and print its secret, once
    Add {
        /// The name people see on their phone
        name: String,
        /// Its client_id; made up if not given
        #[arg(long)]
        id: Option<String>,
        /// The most it may ask for
        #[arg(long, default_value = "openid profile")]
        scope: String,
        /// client_secret_basic or client_secret_post
        #[arg(long, default_value = "client_secret_basic")]
        auth_method: ClientAuthMethod,
        /// Requests that may be open for one person at a time
        #[arg(long, default_value_t = 3)]
        open_requests: u32,
        /// Seconds a poll is held when it does not say (0 to 30)
        #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=30))]
        long_poll: u64,
    },
    /// List the relying parties
    List,
    /// Give a relying party a new secret; the old one ends within `clients.cache` (30 s)
    RotateSecret { id: String },
    /// Lock a relying party: it can ask for nothing any more
    Lock { id: String },
}

impl Client {
    pub async fn run(self, context: &Context) -> anyhow::Result<()> {
        let core = context.core().await?;
        let services = &core.services;
        let output = &context.output;
        match self {
            Self::Add {
                name,
                id,
                scope,
                auth_method,
                open_requests,
                long_poll,
            } => {
                let id = id
                    .map(|id| {
                        ClientId::parse(&id)
                            .context("a client_id is 1 to 255 visible ASCII characters")
                    })
                    .transpose()?;
                let added = services
                    .add_client(NewClient {
                        id,
                        name,
                        auth_method,
                        scope: Scope::parse(&scope)?,
                        open_requests_per_user: open_requests,
                        long_poll: Duration::from_secs(long_poll),
                    })
                    .await?;
                let (client, secret) =
                    added.context("this client_id is taken; choose another with --id")?;
                output.result(
                    &format!(
                        "client_id      {}\nclient_secret  {}\n\nThe secret is not shown again.",
                        client.id,
                        secret.expose()
                    ),
                    &json!({ "client_id": client.id, "client_secret": secret.expose() }),
                );
            }
            Self::List => {
                let clients = services.directory.clients().await?;
                let rows: Vec<_> = clients
                    .iter()
                    .map(|client| {
                        vec![
                            client.id.to_string(),
                            client.name.clone(),
                            client.auth_method.to_string(),
                            client.delivery_mode.to_string(),
                            client.scope.to_string(),
                            client.locked_at.map_or_else(|| "no".into(), time),
                        ]
                    })
                    .collect();
                let values = clients
                    .iter()
                    .map(|client| {
                        json!({
                            "client_id": client.id,
                            "name": client.name,
                            "auth_method": client.auth_method,
                            "delivery_mode": client.delivery_mode,
                            "scope": client.scope,
                            "created_at": client.created_at.secs(),
                            "locked_at": client.locked_at.map(|at| at.secs()),
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
                output.table(
                    &heading,
                    &rows,
                    values,
                    "There are no clients; make one with `assent client add NAME`.",
                );
            }
            Self::RotateSecret { id } => {
                let secret = services
                    .rotate_client_secret(&ClientId::new(id.clone()))
                    .await?;
                let secret = secret.context("there is no such client; see `assent client list`")?;
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
        }
        core.db.close().await;
        Ok(())
    }
}
