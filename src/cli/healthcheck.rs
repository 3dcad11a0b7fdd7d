//! `assent healthcheck`: can the server beside us do its work? For container engines and scripts.

use super::Context;
use crate::config::Overrides;
use crate::phone::http::HttpClient;
use anyhow::Context as _;
use clap::Args;
use serde_json::json;
use std::time::Duration;

/// A server that takes longer is not well: its own probes take half a second.
const PATIENCE: Duration = Duration::from_secs(3);

#[derive(Debug, Args)]
pub struct Healthcheck {}

impl Healthcheck {
    pub async fn run(self, context: &Context) -> anyhow::Result<()> {
        let config = context.load(&Overrides::new())?;
        let url = format!("http://{}/readyz", config.server.management_listen);
        let http = HttpClient::new();
        let answer = tokio::time::timeout(PATIENCE, http.get(&url, &[]))
            .await
            .with_context(|| format!("{url} does not answer; look into the server's log"))?
            .with_context(|| {
                format!("{url} cannot be reached; start `assent serve` with the same settings")
            })?;
        let said = answer.body.trim();
        anyhow::ensure!(
            answer.status == 200,
            "not ready: {said}; look into the server's log"
        );
        context.output.result(said, &json!({ "ready": true }));
        Ok(())
    }
}
