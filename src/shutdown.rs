//! How a server ends: first it drains, then it is gone.

use std::future::Future;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Everything that runs in the background, and the word that ends it.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    /// Cancelled when the server begins to drain.
    pub draining: CancellationToken,
    /// What must have ended before the process does.
    pub tasks: TaskTracker,
}

impl Shutdown {
    /// Starts a task that will be waited for.
    pub fn spawn<F>(&self, task: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.tasks.spawn(task)
    }

    /// Ends when the process is asked to stop (SIGINT, SIGTERM).
    pub async fn asked_to_stop() -> std::io::Result<()> {
        use tokio::signal::unix::{SignalKind, signal};
        let (mut interrupt, mut terminate) = (
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
        );
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        Ok(())
    }
}
