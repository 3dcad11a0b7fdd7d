//! One run against one arrangement of stores.

use crate::cast::Cast;
use crate::database::Database;
use crate::load::{self, Load, Worker};
use crate::operations::{Ask, Floor, Flow, Poll, RelyingParty};
use crate::proc;
use crate::redis_server::RedisServer;
use crate::report::{ArrangementReport, Row};
use crate::server::{Server, Settings};
use crate::stopwatch::{Stopwatch, pause};
use anyhow::Context as _;
use std::path::Path;
use std::time::Duration;

/// How many starts the start-up time is the median of.
const STARTS: usize = 5;
/// Requests before the measured ones, so that lazy things have been done.
const WARM_UP: usize = 500;
/// How long an idle server is watched: two rounds of its housekeeping and more.
const IDLE: Duration = Duration::from_secs(5);
/// A server that used less CPU than `QUIET` in each of several `WINDOW`s has nothing left to do: in one
/// alone it may just not have had its turn.
const WINDOW: Duration = Duration::from_millis(200);
const QUIET: Duration = Duration::from_millis(5);
const QUIET_WINDOWS: u32 = 4;
/// The longest that a server is waited for to become quiet.
const SETTLE_WITHIN: Duration = Duration::from_secs(20);

/// Reads what the server, and its stores where they are apart, have cost so far.
struct Meter {
    server: u32,
    postmaster: Option<u32>,
    redis: Option<u32>,
}

#[derive(Clone, Copy)]
struct Reading {
    server: Duration,
    database: Option<Duration>,
    redis: Option<Duration>,
}

impl Meter {
    fn read(&self) -> anyhow::Result<Reading> {
        Ok(Reading {
            server: proc::process_cpu(self.server)?,
            database: self.postmaster.map(proc::family_cpu).transpose()?,
            // With the child that rewrites the append-only file: that is for the same writes.
            redis: self.redis.map(proc::family_cpu).transpose()?,
        })
    }

    /// Waits until the work that goes on behind the answers is done: it belongs to the operations.
    async fn settle(&self) -> anyhow::Result<()> {
        let began = Stopwatch::start();
        let mut before = proc::process_cpu(self.server)?;
        let mut quiet = 0;
        while began.elapsed() < SETTLE_WITHIN {
            pause(WINDOW).await;
            let now = proc::process_cpu(self.server)?;
            quiet = match spent(now, before)? < QUIET {
                true => quiet + 1,
                false => 0,
            };
            if quiet == QUIET_WINDOWS {
                return Ok(());
            }
            before = now;
        }
        Ok(())
    }

    /// Runs a load and divides its cost by its operations.
    async fn measure<W: Worker>(
        &self,
        name: &'static str,
        load: Load,
        workers: Vec<W>,
    ) -> anyhow::Result<(Row, Vec<W>)> {
        self.settle().await?;
        let before = self.read()?;
        let machine = proc::machine_time()?;
        let (outcome, workers) = load::run(load, workers).await?;
        let machine_after = proc::machine_time()?;
        self.settle().await?;
        let after = self.read()?;
        let per_operation = |cost: Duration| micros(cost) / outcome.times.len().max(1) as f64;
        let apart = |after: Option<Duration>, before: Option<Duration>| {
            let both = after.zip(before);
            let cost = both.map(|(after, before)| spent(after, before));
            Ok::<_, anyhow::Error>(cost.transpose()?.map(per_operation))
        };
        let of_machine = |after: u64, before: u64| {
            (after - before) as f64 / (machine_after.all - machine.all).max(1) as f64
        };
        let row = Row {
            name,
            operations: outcome.times.len(),
            cut_short: outcome.times.len() < load.count,
            failed: outcome.failed,
            server_us: per_operation(spent(after.server, before.server)?),
            database_us: apart(after.database, before.database)?,
            redis_us: apart(after.redis, before.redis)?,
            per_second: outcome.times.len() as f64 / outcome.took.as_secs_f64(),
            machine_idle: of_machine(machine_after.idle, machine.idle),
            machine_waits: of_machine(machine_after.disk, machine.disk),
            p50_ms: outcome.percentile(50),
            p99_ms: outcome.percentile(99),
            failures: outcome.failures,
        };
        Ok((row, workers))
    }
}

/// CPU time only grows, unless its process is no more.
fn spent(after: Duration, before: Duration) -> anyhow::Result<Duration> {
    after
        .checked_sub(before)
        .context("a process that was measured has ended")
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// Starts the program on a fresh database, and measures. With `redis`, that is the fast path.
pub async fn measure(
    program: &Path,
    folder: &Path,
    database: &Database,
    redis: Option<&RedisServer>,
    load: Load,
    people: usize,
) -> anyhow::Result<ArrangementReport> {
    let mut settings = Settings::new(folder, &database.url)?;
    if let Some(redis) = redis {
        settings = settings.with_redis(redis);
    }
    let mut cast = Cast::seed(&settings, people).await?;
    let mut start_ms = Vec::with_capacity(STARTS);
    for _ in 1..STARTS {
        let (server, took) = Server::start(program, &settings).await?;
        start_ms.push(micros(took) / 1000.0);
        server.stop().await?;
    }
    let (server, took) = Server::start(program, &settings).await?;
    start_ms.push(micros(took) / 1000.0);
    start_ms.sort_by(f64::total_cmp);

    let meter = Meter {
        server: server.pid(),
        postmaster: database.postmaster,
        redis: redis.map(|redis| redis.pid),
    };
    meter.settle().await?;
    let before = meter.read()?;
    pause(IDLE).await;
    let idle_cpu = micros(spent(meter.read()?.server, before.server)?) / IDLE.as_secs_f64();
    let idle_rss = proc::resident_memory(server.pid())?;

    let mut people = cast.enrol().await?;
    let answering = people.split_off(people.len() / 2);
    let waiting: Vec<String> = people.into_iter().map(|(login, _)| login).collect();
    let (rp, size) = (&cast.rp, load.connections);
    let warm_up = Load {
        count: WARM_UP,
        ..load
    };
    load::run(warm_up, Floor::team(rp, size)).await?;

    let (floor, _) = meter
        .measure("GET /jwks", load, Floor::team(rp, size))
        .await?;
    let team = Ask::team(rp, size, waiting.clone());
    let (ask, workers) = meter.measure("POST /bc-authorize", load, team).await?;
    let (load_of_polls, team) = polls(load, rp, workers);
    let (poll, _) = meter
        .measure("POST /token, pending", load_of_polls, team)
        .await?;
    // A request is polled by the client that made it.
    let asking = cast.signer.sign(load.count);
    let (asked, workers) = load::run(load, Ask::team(&asking, size, waiting)).await?;
    anyhow::ensure!(
        asked.failed == 0,
        "requests by private_key_jwt: {:?}",
        asked.failures
    );
    let polling = cast.signer.sign(load.count);
    let (load_of_polls, team) = polls(load, &polling, workers);
    let (poll_by_key, _) = meter
        .measure("the same, private_key_jwt", load_of_polls, team)
        .await?;
    let (flow, _) = meter
        .measure("full flow", load, Flow::team(rp, size, answering))
        .await?;

    let loaded_rss = proc::resident_memory(server.pid())?;
    server.stop().await?;
    Ok(ArrangementReport {
        database: database.name,
        redis: redis.is_some(),
        poll_to_floor: poll.server_us / floor.server_us,
        rows: vec![floor, ask, poll, poll_by_key, flow],
        start_ms,
        idle_rss_bytes: idle_rss,
        loaded_rss_bytes: loaded_rss,
        idle_cpu_us_per_s: idle_cpu,
    })
}

/// One poll of each request that was made.
fn polls(load: Load, rp: &RelyingParty, asked: Vec<Ask>) -> (Load, Vec<Poll>) {
    let ids: Vec<String> = asked.into_iter().flat_map(|w| w.auth_req_ids).collect();
    let load = Load {
        count: ids.len(),
        ..load
    };
    (load, Poll::team(rp, load.connections, ids.into()))
}
