//! `assent keys list`.

use super::Context;
use super::output::time;
use clap::Subcommand;
use serde_json::json;

#[derive(Debug, Subcommand)]
pub enum Keys {
    /// List the keys, without what is secret
    List,
}

impl Keys {
    pub async fn run(self, context: &Context) -> anyhow::Result<()> {
        let Self::List = self;
        let core = context.core().await?;
        let records = core.key_records().await?;
        let rows: Vec<_> = records
            .iter()
            .map(|key| {
                vec![
                    key.purpose.to_string(),
                    key.version.to_string(),
                    key.algorithm
                        .map_or("-", |algorithm| algorithm.as_str())
                        .to_owned(),
                    key.public_jwk.clone().unwrap_or_else(|| "secret".into()),
                    time(key.created_at),
                ]
            })
            .collect();
        let values = records
            .iter()
            .map(|key| {
                let public = key
                    .public_jwk
                    .as_deref()
                    .map(serde_json::from_str::<serde_json::Value>);
                json!({
                    "purpose": key.purpose,
                    "version": key.version,
                    "algorithm": key.algorithm,
                    "public_jwk": public.and_then(Result::ok),
                    "created_at": key.created_at.secs(),
                })
            })
            .collect();
        let heading = ["purpose", "version", "algorithm", "public key", "since"];
        context.output.table(
            &heading,
            &rows,
            values,
            "There are no keys; run `assent migrate`.",
        );
        core.db.close().await;
        Ok(())
    }
}
