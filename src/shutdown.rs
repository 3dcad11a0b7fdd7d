//! How a server ends: first it drains, then it is gone.

use std::future::Future;
use tokio::signal::unix::{Signal, SignalKind, signal};
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
}

/// The signals that ask the process to stop: SIGINT and SIGTERM.
#[derive(Debug)]
pub struct StopSignals {
    interrupt: Signal,
    terminate: Signal,
}

impl StopSignals {
    /// From here on a signal is heard instead of ending the process. Before the first listener is bound:
    /// whoever sees a port open may ask at once.
    pub fn heed() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// Ends with the next signal, or with one that came since the last.
    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
