//! `assent audit verify`.

use super::Context;
use anyhow::Context as _;
use clap::Subcommand;
use serde_json::json;
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub enum Audit {
    /// Walk every chain and checkpoint; fails if anything was changed, removed or put in
    Verify {
        /// A checkpoint kept elsewhere, which this audit must contain
        #[arg(long, value_name = "FILE")]
        checkpoint: Option<PathBuf>,
    },
}

impl Audit {
    pub async fn run(self, context: &Context) -> anyhow::Result<()> {
        let Self::Verify { checkpoint } = self;
        let external = checkpoint
            .map(|path| {
                std::fs::read_to_string(&path)
                    .with_context(|| format!("cannot read {}", path.display()))
            })
            .transpose()?;
        let core = context.core().await?;
        let report = core.services.verify_audit(external.as_deref()).await?;
        let mut human = format!(
            "chains          {}\nrows            {}\ncheckpoints     {}\nnot anchored    {}\npayloads erased {}",
            report.chains, report.rows, report.checkpoints, report.not_anchored, report.erased
        );
        for finding in &report.findings {
            human.push_str("\nFOUND           ");
            human.push_str(finding);
        }
        if report.is_whole() {
            human.push_str("\n\nThe audit is whole.");
        }
        context.output.result(&human, &json!(report));
        core.db.close().await;
        anyhow::ensure!(
            report.is_whole(),
            "the audit is not whole: keep the database as it is and compare it with a backup"
        );
        Ok(())
    }
}
