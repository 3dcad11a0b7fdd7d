//! Leased jobs in Redis: in each partition a sorted set of due times and a hash of payloads.

use super::keys::Keys;
use super::millis;
use super::record::{read_job, write_job};
use super::router::Router;
use super::schedule::{Asked, Schedule};
use super::script::{CLAIM, REPLAY, SETTLE};
use crate::domain::{Job, Partition, Timestamp};
use crate::store::{ClaimedJob, DeadJob, JobQueue, QueueDepth, StoreError};
use async_trait::async_trait;
use redis::Cmd;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;

/// How long people can look at dead jobs, from the last that died in a partition.
const DEAD_FOR: Duration = Duration::from_secs(7 * 24 * 3600);

/// How long a partition is left alone whose server does not answer.
const PUT_OFF: Duration = Duration::from_secs(1);

/// How much of an error is kept, in characters.
const ERROR_LEN: usize = 500;

pub struct RedisJobQueue {
    pub(super) router: Arc<Router>,
    pub(super) keys: Keys,
    pub(super) schedule: Arc<Schedule>,
}

/// What is kept of a dead job.
#[derive(Serialize, Deserialize)]
struct Record {
    attempts: u32,
    dead_at: Timestamp,
    error: String,
    job: Job,
}

enum Settlement<'a> {
    Ack,
    Retry(Timestamp),
    Bury(&'a Record),
}

impl RedisJobQueue {
    /// Asks every partition when its next job is due. Those that do not answer are asked again next time.
    async fn sweep(&self, asked: &[Asked]) -> Result<(), StoreError> {
        let first = |asked: &Asked| {
            let mut command = redis::cmd("ZRANGE");
            command.arg(self.keys.due(asked.partition)).arg(0).arg(0);
            (asked.partition, command.arg("WITHSCORES").clone())
        };
        let reads: Vec<(Partition, Cmd)> = asked.iter().map(first).collect();
        let found: Vec<Result<Vec<(String, f64)>, _>> = self.router.ask_all(&reads).await;
        let mut trouble = None;
        for (asked, first) in asked.iter().zip(found) {
            match first {
                Ok(first) => {
                    let due = first.first();
                    let due = due.map(|(_, due)| Timestamp::from_millis(*due as i64));
                    self.schedule.learn(*asked, due);
                }
                Err(error) => trouble = Some(error),
            }
        }
        trouble.map_or(Ok(()), Err)
    }

    async fn claim_in(
        &self,
        asked: Asked,
        limit: usize,
        lease_until: Timestamp,
        now: Timestamp,
    ) -> Result<Vec<ClaimedJob>, StoreError> {
        let partition = asked.partition;
        let answer: Vec<String> = self
            .router
            .run(partition, |_| {
                CLAIM
                    .keys([self.keys.due(partition), self.keys.jobs(partition)])
                    .arg(now.millis())
                    .arg(lease_until.millis())
                    .arg(limit)
            })
            .await?;
        let (next, jobs) = answer
            .split_first()
            .map_or(("", &[][..]), |(next, jobs)| (next.as_str(), jobs));
        let next: Option<i64> = next.parse().ok();
        self.schedule.learn(asked, next.map(Timestamp::from_millis));
        let claimed = |job: &[String]| claimed(job, partition);
        Ok(jobs.chunks(3).filter_map(claimed).collect())
    }

    async fn settle(
        &self,
        claim: &ClaimedJob,
        settlement: Settlement<'_>,
    ) -> Result<bool, StoreError> {
        let partition = claim.job.partition();
        let done: u8 = self
            .router
            .run(partition, |_| {
                let call = SETTLE
                    .keys([
                        self.keys.due(partition),
                        self.keys.jobs(partition),
                        self.keys.dead(partition),
                    ])
                    .arg(&claim.id)
                    .arg(claim.attempt);
                match settlement {
                    Settlement::Ack => call.arg("ack"),
                    Settlement::Retry(due) => call.arg("retry").arg(due.millis()),
                    Settlement::Bury(record) => call
                        .arg("bury")
                        .arg(serde_json::to_string(record).expect("a record serialises"))
                        .arg(millis(DEAD_FOR)),
                }
            })
            .await?;
        Ok(done == 1)
    }

    fn in_all(&self, command: impl Fn(Partition) -> Cmd) -> Vec<(Partition, Cmd)> {
        (0..=u8::MAX)
            .map(Partition)
            .map(|partition| (partition, command(partition)))
            .collect()
    }
}

/// A job of a kind we do not know waits under its lease for a node that does.
fn claimed(job: &[String], partition: Partition) -> Option<ClaimedJob> {
    let [id, attempt, payload] = job else {
        return None;
    };
    match (read_job(id, partition, payload), attempt.parse()) {
        (Some(job), Ok(attempt)) => Some(ClaimedJob {
            id: id.clone(),
            job,
            attempt,
        }),
        _ => {
            tracing::error!(job = id, "this program cannot read the job");
            None
        }
    }
}

#[async_trait]
impl JobQueue for RedisJobQueue {
    /// Jobs that other nodes made are seen a moment later: by their wake-up, or by the next sweep.
    async fn claim(
        &self,
        limit: u32,
        lease: Duration,
        now: Timestamp,
    ) -> Result<Vec<ClaimedJob>, StoreError> {
        let mut trouble = None;
        if let Some(asked) = self.schedule.to_sweep(now) {
            trouble = self.sweep(&asked).await.err();
        }
        let limit = limit as usize;
        let mut jobs = Vec::new();
        let mut away: Vec<Partition> = Vec::new();
        for asked in self.schedule.due(now) {
            if jobs.len() >= limit {
                break;
            }
            if away.contains(&asked.partition) {
                continue;
            }
            let room = limit - jobs.len();
            match self.claim_in(asked, room, now.plus(lease), now).await {
                Ok(claimed) => jobs.extend(claimed),
                // A server that is away must not keep the others' jobs from being done.
                Err(error) => {
                    // One wait for all that live there, or its partitions would take their turns at waiting.
                    let neighbours = self.router.neighbours(asked.partition);
                    for partition in &neighbours {
                        self.schedule.put_off(*partition, now.plus(PUT_OFF));
                    }
                    away.extend(neighbours);
                    trouble = Some(error);
                }
            }
        }
        match trouble {
            Some(error) if jobs.is_empty() => Err(error),
            Some(error) => {
                tracing::warn!(%error, "some partitions' jobs cannot be claimed");
                Ok(jobs)
            }
            None => Ok(jobs),
        }
    }

    async fn ack(&self, claim: &ClaimedJob) -> Result<bool, StoreError> {
        self.settle(claim, Settlement::Ack).await
    }

    async fn retry(
        &self,
        claim: &ClaimedJob,
        due: Timestamp,
        _error: &str,
    ) -> Result<bool, StoreError> {
        let ours = self.settle(claim, Settlement::Retry(due)).await?;
        if ours {
            self.schedule.note(claim.job.partition(), due);
        }
        Ok(ours)
    }

    async fn bury(
        &self,
        claim: &ClaimedJob,
        error: &str,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let record = Record {
            attempts: claim.attempt,
            dead_at: now,
            error: error.chars().take(ERROR_LEN).collect(),
            job: claim.job.clone(),
        };
        self.settle(claim, Settlement::Bury(&record)).await
    }

    async fn dead(&self, limit: u32) -> Result<Vec<DeadJob>, StoreError> {
        let reads = self.in_all(|partition| {
            let mut command = redis::cmd("HGETALL");
            command.arg(self.keys.dead(partition)).clone()
        });
        let found: Vec<Result<Vec<(String, String)>, _>> = self.router.ask_all(&reads).await;
        let mut dead = Vec::new();
        for partition in found {
            for (id, text) in partition? {
                match read(&id, &text) {
                    Ok(record) => dead.push(DeadJob {
                        id,
                        attempts: record.attempts,
                        dead_at: record.dead_at,
                        error: record.error,
                    }),
                    Err(error) => tracing::error!(%error, "a dead job cannot be read"),
                }
            }
        }
        dead.sort_by(|a, b| b.dead_at.cmp(&a.dead_at).then_with(|| a.id.cmp(&b.id)));
        dead.truncate(limit as usize);
        Ok(dead)
    }

    async fn replay(&self, id: &str, now: Timestamp) -> Result<bool, StoreError> {
        let reads = self.in_all(|partition| {
            let mut command = redis::cmd("HGET");
            command.arg(self.keys.dead(partition)).arg(id).clone()
        });
        let mut found = None;
        for text in self.router.ask_all::<Option<String>>(&reads).await {
            found = found.or(text?);
        }
        let Some(text) = found else {
            return Ok(false);
        };
        let job = read(id, &text)?.job;
        let partition = job.partition();
        let payload = write_job(&job);
        let done: u8 = self
            .router
            .run(partition, |_| {
                REPLAY
                    .keys([
                        self.keys.due(partition),
                        self.keys.jobs(partition),
                        self.keys.dead(partition),
                    ])
                    .arg(id)
                    .arg(now.millis())
                    .arg(&payload)
            })
            .await?;
        self.schedule.note(partition, now);
        Ok(done == 1)
    }

    async fn depth(&self) -> Result<QueueDepth, StoreError> {
        let mut reads = self.in_all(|partition| {
            let mut command = redis::cmd("ZCARD");
            command.arg(self.keys.due(partition)).clone()
        });
        reads.extend(self.in_all(|partition| {
            let mut command = redis::cmd("HLEN");
            command.arg(self.keys.dead(partition)).clone()
        }));
        let counts: Vec<u64> = self
            .router
            .ask_all(&reads)
            .await
            .into_iter()
            .collect::<Result<_, StoreError>>()?;
        let (alive, dead) = counts.split_at(counts.len() / 2);
        Ok(QueueDepth {
            alive: alive.iter().sum(),
            dead: dead.iter().sum(),
        })
    }
}

fn read(id: &str, text: &str) -> Result<Record, StoreError> {
    serde_json::from_str(text).map_err(|_| StoreError::Corrupt {
        table: "redis",
        row: id.to_owned(),
        what: "the record of a dead job",
    })
}
