//! `assent config check`.

use super::Context;
use crate::config::{DEFAULTS, Overrides};
use crate::telemetry;
use clap::Subcommand;
use serde_json::json;

#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Read all settings as `serve` would, and say whether they are good
    Check,
    /// Print every setting with its default and what it means
    Defaults,
}

impl ConfigCommand {
    pub fn run(self, context: &Context) -> anyhow::Result<()> {
        match self {
            Self::Check => {
                let config = context.load(&Overrides::new())?;
                telemetry::init_logs(&config.log)?;
                context.output.result(
                    &format!("The settings are good.\n{config:#?}"),
                    &json!({ "good": true, "issuer": config.server.issuer }),
                );
            }
            Self::Defaults => context
                .output
                .result(DEFAULTS.trim_end(), &json!({ "toml": DEFAULTS })),
        }
        Ok(())
    }
}
