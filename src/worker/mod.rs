//! Work that nobody waits for: due jobs, and what is done every few seconds.

use crate::domain::job::RetrySchedule;
use crate::domain::key::RELOAD_EVERY;
use crate::domain::{Job, Partition, RequestId, RequestKey, Timestamp};
use crate::service::Services;
use crate::service::notify_client::Delivered;
use crate::service::notify_device::Notified;
use crate::service::reconcile::Standings;
use crate::store::{ClaimedJob, JobQueue, StoreError};
use crate::telemetry;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Longer than any attempt may take, so that a lease lost is a worker lost.
const LEASE: Duration = Duration::from_secs(30);
/// Jobs of one queue in the hands of this process.
const AT_ONCE: usize = 32;
/// How long an idle worker waits before it looks by itself.
const IDLE: Duration = Duration::from_millis(500);
/// How often the projection is told again what the Ledger knows.
const RECONCILE_EVERY: Duration = Duration::from_secs(2);
/// In so many turns once all of it. Nobody waits for what is used up, and it is most of what there is.
const ALL_EVERY: u32 = 10;
/// How often what has run out is swept, and the audit's length signed.
const SWEEP_EVERY: Duration = Duration::from_secs(10);

/// Works off one queue.
#[derive(Clone)]
pub struct Worker {
    services: Arc<Services>,
    queue: Arc<dyn JobQueue>,
    /// Told when a job of this queue became due now.
    ready: Arc<Notify>,
    permits: Arc<Semaphore>,
}

impl Worker {
    pub fn new(services: Arc<Services>, queue: Arc<dyn JobQueue>, ready: Arc<Notify>) -> Self {
        Self {
            services,
            queue,
            ready,
            permits: Arc::new(Semaphore::new(AT_ONCE)),
        }
    }

    /// Works off all jobs that are due now, and returns how many there were. The loop does the same,
    /// with several at once.
    pub async fn step(&self) -> Result<usize, StoreError> {
        let now = self.services.clock.now();
        let jobs = self.queue.claim(AT_ONCE as u32, LEASE, now).await?;
        let count = jobs.len();
        for job in jobs {
            self.work(&job).await?;
        }
        Ok(count)
    }

    /// Until `stop`: takes as many jobs as there are free hands, never more.
    pub async fn run(self, stop: CancellationToken, tasks: TaskTracker) {
        while !stop.is_cancelled() {
            // Acquire, then take: a job is only claimed when a hand is free.
            let Ok(permit) = self.permits.clone().acquire_owned().await else {
                return;
            };
            // Listen first, then look: a job that comes in between is not slept through.
            let ready = self.ready.notified();
            let mut ready = std::pin::pin!(ready);
            ready.as_mut().enable();
            let now = self.services.clock.now();
            match self.queue.claim(1, LEASE, now).await {
                Ok(jobs) if !jobs.is_empty() => {
                    let worker = self.clone();
                    tasks.spawn(async move {
                        for job in jobs {
                            if let Err(error) = worker.work(&job).await {
                                tracing::error!(%error, job = job.id, "a job could not be settled; its lease will end");
                            }
                        }
                        drop(permit);
                    });
                    continue;
                }
                Ok(_) => {}
                Err(error) => tracing::error!(%error, "jobs cannot be claimed"),
            }
            drop(permit);
            tokio::select! {
                () = ready => {}
                () = self.services.clock.sleep_until(now.plus(IDLE)) => {}
                () = stop.cancelled() => {}
            }
        }
    }

    /// Does one job and settles it: done, again later, or never again.
    async fn work(&self, claim: &ClaimedJob) -> Result<(), StoreError> {
        let now = self.services.clock.now();
        let retries = claim.job.retries();
        let (reason, again) = match self.attempt(&claim.job).await {
            Ok(Attempt::Done) => {
                settled(claim, self.queue.ack(claim).await?, "done");
                return Ok(());
            }
            Ok(Attempt::Again(reason, earliest)) => (reason, Some((retries, earliest))),
            Ok(Attempt::Soon(reason)) => (reason, Some((RetrySchedule::SOON, now))),
            Ok(Attempt::Never(reason)) => (reason, None),
            Err(error) => (error.to_string(), Some((retries, now))),
        };
        let now = self.services.clock.now();
        let [jitter] = self.services.entropy.bytes::<1>();
        let deadline = claim.job.deadline();
        let due = again.and_then(|(schedule, earliest)| {
            let due = schedule.next(claim.attempt, now, earliest, deadline, jitter)?;
            Some(claim.job.due_by(now).map_or(due, |latest| due.min(latest)))
        });
        match due {
            Some(due) => settled(claim, self.queue.retry(claim, due, &reason).await?, "retry"),
            None if runs_out(&claim.job) => {
                settled(claim, self.queue.ack(claim).await?, "expired");
            }
            None => {
                self.services.tell_of_dead_job(claim, &reason).await?;
                let buried = match &claim.job {
                    Job::NotifyClient {
                        request_id,
                        partition,
                        ..
                    } => {
                        self.services
                            .give_up_on_client(claim, *request_id, *partition, &reason)
                            .await?
                    }
                    Job::NotifyDevice { .. }
                    | Job::NotifyResolved { .. }
                    | Job::HandleFraud { .. }
                    | Job::PublishEvent { .. } => false,
                } || self.queue.bury(claim, &reason, now).await?;
                settled(claim, buried, "dead");
            }
        }
        Ok(())
    }

    async fn attempt(&self, job: &Job) -> Result<Attempt, StoreError> {
        let now = self.services.clock.now();
        Ok(match job {
            Job::NotifyDevice {
                request_id,
                partition,
                user_id,
                expires_at,
            } => {
                let key = key(*partition, *request_id);
                let notified = self
                    .services
                    .notify_device(key, user_id, *expires_at)
                    .await?;
                Attempt::from(notified)
            }
            Job::NotifyResolved {
                request_id,
                partition,
                user_id,
                answered_by,
                expires_at,
            } => {
                let key = key(*partition, *request_id);
                let notified = self
                    .services
                    .notify_resolved(key, user_id, answered_by.as_ref(), None, *expires_at)
                    .await?;
                Attempt::from(notified)
            }
            Job::HandleFraud {
                partition,
                user_id,
                reported_at,
                ..
            } => {
                self.services
                    .handle_fraud(user_id, *partition, *reported_at)
                    .await?;
                Attempt::Done
            }
            Job::NotifyClient { request_id, .. } => {
                Attempt::of(self.services.notify_client(*request_id).await?, now)
            }
            Job::PublishEvent { event } => {
                Attempt::of(self.services.publish_event(event).await, now)
            }
        })
    }
}

/// Whether a job that is given up leaves nothing that anybody could do again: a request that has expired
/// needs no push, and its delivery log says what became of it.
const fn runs_out(job: &Job) -> bool {
    match job {
        Job::NotifyDevice { .. } | Job::NotifyResolved { .. } => true,
        Job::NotifyClient { .. } | Job::HandleFraud { .. } | Job::PublishEvent { .. } => false,
    }
}

/// What came of one attempt, with the reason when it was not done.
enum Attempt {
    Done,
    /// Not before the time.
    Again(String, Timestamp),
    /// It was nobody's fault: in a moment, however often that has been so.
    Soon(String),
    Never(String),
}

impl Attempt {
    fn of(delivered: Delivered, now: Timestamp) -> Self {
        match delivered {
            Delivered::Done => Self::Done,
            Delivered::Retry { reason } => Self::Again(reason, now),
            Delivered::NotNow { reason } => Self::Soon(reason),
            Delivered::Refused { reason } => Self::Never(reason),
        }
    }
}

impl From<Notified> for Attempt {
    fn from(notified: Notified) -> Self {
        match notified {
            Notified::Done => Self::Done,
            Notified::Retry { reason, earliest } => Self::Again(reason, earliest),
        }
    }
}

const fn key(partition: Partition, id: RequestId) -> RequestKey {
    RequestKey { partition, id }
}

fn settled(claim: &ClaimedJob, ours: bool, outcome: &'static str) {
    let outcome = if ours { outcome } else { "lease lost" };
    tracing::debug!(
        job = claim.id,
        attempt = claim.attempt,
        outcome,
        "job settled"
    );
    metrics::counter!("assent_jobs_total", "outcome" => outcome).increment(1);
}

/// Until `stop`: reconciles, sweeps and signs off, each at its own pace.
pub async fn housekeeping(services: Arc<Services>, stop: CancellationToken) {
    let mut sweep_at = services.clock.now();
    let mut turns = 0;
    while !stop.is_cancelled() {
        let now = services.clock.now();
        report("reconcile", reconcile_in_turn(&services, &mut turns).await);
        if now >= sweep_at {
            sweep_at = now.plus(SWEEP_EVERY);
            report("sweep", services.sweep().await);
            report("checkpoint", services.checkpoint().await.map(drop));
            // Else every measured duration is kept until somebody scrapes /metrics.
            telemetry::metrics().run_upkeep();
        }
        tokio::select! {
            () = services.clock.sleep_until(now.plus(RECONCILE_EVERY)) => {}
            () = stop.cancelled() => {}
        }
    }
}

/// Of all nodes one does it, so that the Ledger is read once every two seconds and not by each of them: what
/// somebody may wait for, and each time in so many what is used up as well.
async fn reconcile_in_turn(services: &Services, turns: &mut u32) -> Result<(), StoreError> {
    // A little shorter than the pace, so that a node alone never misses its own turn. Where nobody can
    // tell whose turn it is, it is everybody's.
    match services.pending.take_turn(RECONCILE_EVERY * 3 / 4).await {
        Ok(false) => Ok(()),
        Ok(true) | Err(_) => {
            let these = match *turns % ALL_EVERY {
                0 => Standings::All,
                _ => Standings::Unused,
            };
            *turns = turns.wrapping_add(1);
            services.reconcile(these).await.map(drop)
        }
    }
}

/// Until `stop`: takes in new, retired and revoked keys, and makes those that are due. Apart from the
/// other work, so that none of it delays this.
pub async fn follow_keys(services: Arc<Services>, stop: CancellationToken) {
    while !stop.is_cancelled() {
        let now = services.clock.now();
        if let Err(error) = services.rotate_due_keys().await {
            tracing::error!(%error, "the keys cannot be brought up to date; it will be tried again");
        }
        tokio::select! {
            () = services.clock.sleep_until(now.plus(RELOAD_EVERY)) => {}
            () = stop.cancelled() => {}
        }
    }
}

fn report(what: &'static str, result: Result<(), StoreError>) {
    if let Err(error) = result {
        tracing::error!(%error, what, "housekeeping failed; it will be tried again");
    }
}
