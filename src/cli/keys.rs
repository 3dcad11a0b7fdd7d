//! `assent keys list|rotate|revoke`.

use super::Context;
use super::output::time;
use crate::domain::SignatureAlgorithm;
use crate::domain::key::Purpose;
use crate::service::Services;
use crate::service::rotate_keys::NewVersion;
use clap::Subcommand;
use serde_json::{Value, json};

#[derive(Debug, Subcommand)]
pub enum Keys {
    /// List the keys, without what is secret
    List,
    /// Give a key a successor: published now, used after keys.activation_delay
    Rotate {
        /// As in `keys list`
        #[arg(default_value = "token-signing")]
        purpose: Purpose,
        /// Only the token-signing key of this algorithm (ES256, EdDSA, PS256, RS256), or its first one
        #[arg(long)]
        alg: Option<SignatureAlgorithm>,
        /// Use it at once: those who hold an older key set must fetch it again
        #[arg(long)]
        now: bool,
    },
    /// Take a key that may be known to others out at once: nothing it made is accepted any more
    Revoke { purpose: Purpose, version: u32 },
}

impl Keys {
    pub async fn run(self, context: &Context) -> anyhow::Result<()> {
        let core = context.core().await?;
        let services = &core.services;
        match self {
            Self::List => list(context, services).await?,
            Self::Rotate { purpose, alg, now } => {
                let added = services.rotate_keys(purpose, alg, now).await?;
                let lines: Vec<_> = added.iter().map(line).collect();
                let human = if added.is_empty() {
                    "Another node was faster; see `assent keys list`.".to_owned()
                } else {
                    lines.join("\n")
                };
                let values = added.iter().map(value).collect();
                context.output.result(&human, &Value::Array(values));
            }
            Self::Revoke { purpose, version } => {
                let new = services.revoke_key(purpose, version).await?;
                let mut human = format!(
                    "{purpose} v{version} is revoked; running nodes follow within seconds."
                );
                if let Some(new) = &new {
                    human = format!("{human}\n{}", line(new));
                }
                if purpose == Purpose::ChallengeSigning {
                    human.push_str("\nEnrol every phone again: it has pinned the revoked key.");
                }
                let revoked = json!({ "purpose": purpose, "version": version });
                let replaced_by = new.as_ref().map(value);
                context.output.result(
                    &human,
                    &json!({ "revoked": revoked, "replaced_by": replaced_by }),
                );
            }
        }
        core.db.close().await;
        Ok(())
    }
}

async fn list(context: &Context, services: &Services) -> anyhow::Result<()> {
    let keys = services.list_keys().await?;
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".into());
    let rows: Vec<_> = keys
        .iter()
        .map(|(key, state)| {
            vec![
                key.purpose.to_string(),
                key.version.to_string(),
                or_dash(key.algorithm.map(|algorithm| algorithm.to_string())),
                state.to_string(),
                time(key.life.activates_at),
                or_dash(key.life.retires_at.map(time)),
                or_dash(key.kid()),
            ]
        })
        .collect();
    let values = keys
        .iter()
        .map(|(key, state)| {
            let public = key.public_jwk.as_deref().map(serde_json::from_str::<Value>);
            json!({
                "purpose": key.purpose,
                "version": key.version,
                "algorithm": key.algorithm,
                "state": state,
                "kid": key.kid(),
                "public_jwk": public.and_then(Result::ok),
                "created_at": key.life.created_at.secs(),
                "activates_at": key.life.activates_at.secs(),
                "retires_at": key.life.retires_at.map(|at| at.secs()),
                "gone_at": key.life.gone_at.map(|at| at.secs()),
                "revoked_at": key.life.revoked_at.map(|at| at.secs()),
            })
        })
        .collect();
    let heading = [
        "purpose",
        "version",
        "algorithm",
        "state",
        "used from",
        "until",
        "kid",
    ];
    context.output.table(
        &heading,
        &rows,
        values,
        "There are no keys; run `assent migrate`.",
    );
    Ok(())
}

fn line(new: &NewVersion) -> String {
    let algorithm = new.algorithm.map(|algorithm| format!(" ({algorithm})"));
    format!(
        "{} v{}{} is published and used from {}",
        new.purpose,
        new.version,
        algorithm.unwrap_or_default(),
        time(new.activates_at)
    )
}

fn value(new: &NewVersion) -> Value {
    json!({
        "purpose": new.purpose,
        "version": new.version,
        "algorithm": new.algorithm,
        "activates_at": new.activates_at.secs(),
    })
}
