//! A closed loop: each connection sends its next request when it has the answer to the last, until a
//! fixed count is reached.

use crate::stopwatch::Stopwatch;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::task::JoinSet;

/// How many failures are told in words; the others are only counted.
const TOLD: usize = 3;

/// How much load.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    pub count: usize,
    pub connections: usize,
    /// When to stop even if the count is not reached.
    pub limit: Duration,
}

/// One connection's part.
pub trait Worker: Send + 'static {
    /// Does the operation with this number, and checks the answer.
    fn operate(&mut self, number: usize) -> impl Future<Output = anyhow::Result<()>> + Send;
}

/// What came of a load.
#[derive(Debug, Default)]
pub struct Outcome {
    pub failed: usize,
    /// The first few failures.
    pub failures: Vec<String>,
    /// How long each operation took, in microseconds, ascending.
    pub times: Vec<u32>,
    /// How long all of it took.
    pub took: Duration,
}

impl Outcome {
    /// Takes note of an operation's time.
    pub fn add(&mut self, time: Duration) {
        let micros = u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
        self.times.push(micros);
    }

    pub fn fail(&mut self, error: &anyhow::Error) {
        self.failed += 1;
        if self.failures.len() < TOLD {
            self.failures.push(format!("{error:#}"));
        }
    }

    /// The time that this share of the operations did not exceed, in milliseconds.
    pub fn percentile(&self, percent: usize) -> f64 {
        let rank = (self.times.len() * percent).div_ceil(100).max(1);
        self.times
            .get(rank - 1)
            .map_or(0.0, |time| f64::from(*time) / 1000.0)
    }
}

/// Runs one worker per connection; returns them with the outcome.
pub async fn run<W: Worker>(load: Load, workers: Vec<W>) -> anyhow::Result<(Outcome, Vec<W>)> {
    let taken = Arc::new(AtomicUsize::new(0));
    let began = Stopwatch::start();
    let mut running = JoinSet::new();
    for mut worker in workers {
        let taken = taken.clone();
        running.spawn(async move {
            let mut outcome = Outcome::default();
            while began.elapsed() < load.limit {
                let number = taken.fetch_add(1, Ordering::Relaxed);
                if number >= load.count {
                    break;
                }
                let watch = Stopwatch::start();
                if let Err(error) = worker.operate(number).await {
                    outcome.fail(&error);
                }
                outcome.add(watch.elapsed());
            }
            (outcome, worker)
        });
    }
    let (mut all, mut workers) = (Outcome::default(), Vec::new());
    while let Some(ended) = running.join_next().await {
        let (outcome, worker) = ended?;
        all.failed += outcome.failed;
        all.failures.extend(outcome.failures);
        all.times.extend(outcome.times);
        workers.push(worker);
    }
    all.took = began.elapsed();
    all.failures.truncate(TOLD);
    all.times.sort_unstable();
    Ok((all, workers))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct OddFails;

    impl Worker for OddFails {
        async fn operate(&mut self, number: usize) -> anyhow::Result<()> {
            anyhow::ensure!(number.is_multiple_of(2), "{number} is odd");
            Ok(())
        }
    }

    fn load(limit: Duration) -> Load {
        Load {
            count: 100,
            connections: 3,
            limit,
        }
    }

    #[tokio::test]
    async fn every_operation_is_done_once_and_every_failure_counted() {
        let workers = vec![OddFails, OddFails, OddFails];
        let (outcome, workers) = run(load(Duration::from_secs(60)), workers).await.unwrap();
        assert_eq!((outcome.times.len(), outcome.failed), (100, 50));
        assert_eq!((outcome.failures.len(), workers.len()), (TOLD, 3));
        assert!(outcome.failures[0].ends_with("is odd"));
    }

    #[tokio::test]
    async fn the_limit_ends_it_before_the_count() {
        let (outcome, _) = run(load(Duration::ZERO), vec![OddFails]).await.unwrap();
        assert_eq!(outcome.times.len(), 0);
        assert_eq!(outcome.percentile(50), 0.0);
    }

    #[test]
    fn a_percentile_is_a_time_that_was_measured() {
        let outcome = Outcome {
            times: (1..=200).map(|i| i * 1000).collect(),
            ..Outcome::default()
        };
        assert_eq!(outcome.percentile(50), 100.0);
        assert_eq!(outcome.percentile(99), 198.0);
        assert_eq!(outcome.percentile(100), 200.0);
    }
}
