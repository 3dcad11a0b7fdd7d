//! `assent demo`: the whole journey in all three modes, through real HTTP, on a server that lives for a
//! few seconds.

mod endpoint;
mod story;

use super::Context;
use crate::app::{Core, Listeners, Server, World};
use crate::config::Config;
use crate::telemetry;
use anyhow::Context as _;
use clap::Args;
use story::Story;

#[derive(Debug, Args)]
pub struct Demo {
    /// Show the server's log too
    #[arg(long)]
    verbose: bool,
}

impl Demo {
    pub async fn run(self, context: &Context) -> anyhow::Result<()> {
        let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
        let path = |name: &str| folder.path().join(name).display().to_string();
        // On settings of its own: a demo must not find anybody's database.
        let mut config = Config::of(&vec![
            ("server.mode", "dev".into()),
            ("server.issuer", "http://127.0.0.1:1".into()),
            ("server.public_listen", "127.0.0.1:0".into()),
            ("server.management_listen", "127.0.0.1:0".into()),
            (
                "database.url",
                format!("sqlite://{}?mode=rwc", path("demo.db")),
            ),
            ("keys.deployment_key_file", path("deployment.key")),
        ])?;
        config.log.filter = if self.verbose { "info" } else { "error" }.into();
        telemetry::init_logs(&config.log)?;
        let listeners = Listeners::bind(&config)?;
        config.server.issuer = format!("http://{}", listeners.public_address()?);
        let core = Core::migrate_and_open(&config, World::real()).await?;
        let server = Server::listen(core, &config, listeners)?;
        server.start_background();
        let mut story = Story::begin(&context.output, &server).await?;
        let told = story.tell(&server).await;
        server.stop().await?;
        told?;
        story.end()
    }
}
