//! `assent serve` and `assent migrate`.

use super::Context;
use crate::app::{Core, Listeners, Server, World};
use crate::config::{Mode, Overrides};
use crate::shutdown::StopSignals;
use crate::telemetry;
use clap::Args;

#[derive(Debug, Args)]
pub struct Serve {
    /// Bring the database to this program's schema first
    #[arg(long)]
    migrate: bool,
}

impl Serve {
    pub async fn run(self, context: &Context) -> anyhow::Result<()> {
        let config = context.load(&Overrides::new())?;
        telemetry::init_logs(&config.log)?;
        if config.server.mode == Mode::Dev {
            tracing::warn!("DEV MODE: not for production");
        }
        let signals = StopSignals::heed()?;
        let listeners = Listeners::bind(&config)?;
        let core = if self.migrate {
            Core::migrate_and_open(&config, World::real()).await?
        } else {
            Core::open(&config, World::real()).await?
        };
        core.check().await?;
        Server::listen(core, &config, listeners)?.run(signals).await
    }
}

pub async fn migrate(context: &Context) -> anyhow::Result<()> {
    let config = context.load(&Overrides::new())?;
    Core::migrate_and_open(&config, World::real())
        .await?
        .db
        .close()
        .await;
    context.output.result(
        "The database is ready.",
        &serde_json::json!({ "migrated": true }),
    );
    Ok(())
}
