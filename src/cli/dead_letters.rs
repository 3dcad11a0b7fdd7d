//! `assent dead-letters list|replay`.

use super::Context;
use super::output::time;
use clap::Subcommand;
use serde_json::json;

#[derive(Debug, Subcommand)]
pub enum DeadLetters {
    /// List the jobs that were given up, newest first
    List,
    /// Try a job again
    Replay {
        /// The job's id, as `list` shows it
        id: String,
    },
}

impl DeadLetters {
    pub async fn run(self, context: &Context) -> anyhow::Result<()> {
        let core = context.core().await?;
        match self {
            Self::List => {
                let mut dead = Vec::new();
                for queue in &core.queues {
                    dead.extend(queue.dead(100).await?);
                }
                dead.sort_by_key(|job| std::cmp::Reverse(job.dead_at));
                let rows: Vec<_> = dead
                    .iter()
                    .map(|job| {
                        vec![
                            job.id.clone(),
                            time(job.dead_at),
                            job.attempts.to_string(),
                            job.error.clone(),
                        ]
                    })
                    .collect();
                let values = dead
                    .iter()
                    .map(|job| {
                        json!({
                            "id": job.id,
                            "dead_at": job.dead_at.secs(),
                            "attempts": job.attempts,
                            "error": job.error,
                        })
                    })
                    .collect();
                let heading = ["id", "given up", "attempts", "why"];
                context
                    .output
                    .table(&heading, &rows, values, "No job has been given up.");
            }
            Self::Replay { id } => {
                let now = core.services.clock.now();
                let mut replayed = false;
                for queue in &core.queues {
                    replayed |= queue.replay(&id, now).await?;
                }
                anyhow::ensure!(
                    replayed,
                    "there is no dead job by this id; see `assent dead-letters list`"
                );
                let human = format!("{id} will be tried again by the running server.");
                context
                    .output
                    .result(&human, &json!({ "id": id, "replayed": true }));
            }
        }
        core.db.close().await;
        Ok(())
    }
}
