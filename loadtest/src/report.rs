//! What was measured, for people and for programs.

use crate::decoys::Decoys;
use serde::Serialize;
use std::fmt;

/// One kind of operation.
#[derive(Debug, Serialize)]
pub struct Row {
    pub name: &'static str,
    pub operations: usize,
    /// Whether the time limit came before the count.
    pub cut_short: bool,
    pub failed: usize,
    /// The first few failures.
    pub failures: Vec<String>,
    /// CPU time of the server process per operation, in microseconds.
    pub server_us: f64,
    /// CPU time of the database's processes, where they are not the server itself.
    pub database_us: Option<f64>,
    /// CPU time of the Redis process, where there is one.
    pub redis_us: Option<f64>,
    /// Operations per second of wall time, and the part of the machine's time in which no process ran:
    /// for lack of work, and for the disk.
    pub per_second: f64,
    pub machine_idle: f64,
    pub machine_waits: f64,
    /// Wall time: for information, it depends on everything else that runs.
    pub p50_ms: f64,
    pub p99_ms: f64,
}

#[derive(Debug, Serialize)]
pub struct ArrangementReport {
    pub database: &'static str,
    /// Whether Redis was the fast path.
    pub redis: bool,
    pub rows: Vec<Row>,
    /// Server CPU of a pending poll over that of the plain endpoint.
    pub poll_to_floor: f64,
    /// Every start, ascending.
    pub start_ms: Vec<f64>,
    pub idle_rss_bytes: u64,
    pub loaded_rss_bytes: u64,
    pub idle_cpu_us_per_s: f64,
}

/// What the number of waiting requests changes.
#[derive(Debug, Serialize)]
pub struct Growth {
    /// What all keys began with.
    pub prefix: String,
    pub sizes: Vec<Size>,
    /// Memory of one request's keys by kind, in bytes; of those that it shares with others, its part.
    pub keys: Vec<(&'static str, u64)>,
}

#[derive(Debug, Serialize)]
pub struct Size {
    pub pending: usize,
    /// What Redis has given out for all of them and their jobs.
    pub memory_bytes: u64,
    /// CPU time of Redis, in microseconds.
    pub create_us: f64,
    pub poll_us: f64,
    /// Wall time of a poll, as the store sees it.
    pub p50_ms: f64,
    pub p99_ms: f64,
}

/// How long held polls took to hear of a decision at another node.
#[derive(Debug, Serialize)]
pub struct WakeUps {
    pub database: &'static str,
    /// Polls held at a time.
    pub held: usize,
    pub wake_ups: usize,
    pub failed: usize,
    pub failures: Vec<String>,
    /// From the phone's answer to the client's.
    pub p50_ms: f64,
    pub p99_ms: f64,
    /// From the moment the phone sent its decision.
    pub from_decision_p50_ms: f64,
    pub from_decision_p99_ms: f64,
}

/// What pushes cost by one kind of gateway.
#[derive(Debug, Serialize)]
pub struct Pushes {
    pub platform: &'static str,
    pub pushes: usize,
    pub failed: usize,
    pub failures: Vec<String>,
    /// Connections that were made while it was measured.
    pub connections: usize,
    /// CPU time of whoever sends, per push, in microseconds; and so many it makes of a second.
    pub cpu_us: f64,
    pub per_cpu_second: f64,
    /// Of wall time.
    pub per_second: f64,
}

#[derive(Debug, Serialize)]
pub struct Report {
    pub version: &'static str,
    /// Of the harness; the server beside it was built the same way.
    pub optimised: bool,
    pub cores: usize,
    pub connections: usize,
    pub binary_bytes: u64,
    pub arrangements: Vec<ArrangementReport>,
    pub growth: Option<Growth>,
    pub wake_ups: Option<WakeUps>,
    pub pushes: Vec<Pushes>,
    pub decoys: Vec<Decoys>,
}

impl Report {
    /// How many operations failed or were answered with something unexpected.
    pub fn failed(&self) -> usize {
        let rows = self.arrangements.iter().flat_map(|measured| &measured.rows);
        let wake_ups = self.wake_ups.iter().map(|wake_ups| wake_ups.failed);
        let pushes = self.pushes.iter().map(|pushes| pushes.failed);
        let decoys = self.decoys.iter().map(|decoys| decoys.failed);
        let rows = rows.map(|row| row.failed);
        rows.chain(wake_ups).chain(pushes).chain(decoys).sum()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let profile = if self.optimised {
            "release build"
        } else {
            "DEV BUILD: these numbers mean nothing"
        };
        writeln!(
            f,
            "assent {}, {profile}; {} cores shared by server, generator and stores; \
             closed loop over {} connections",
            self.version, self.cores, self.connections
        )?;
        for arrangement in &self.arrangements {
            write!(f, "\n{arrangement}")?;
            arrangement.write_share(f, self.cores)?;
        }
        if let Some(growth) = &self.growth {
            write!(f, "\n{growth}")?;
        }
        if let Some(wake_ups) = &self.wake_ups {
            write!(f, "\n{wake_ups}")?;
        }
        for pushes in &self.pushes {
            write!(f, "\n{pushes}")?;
        }
        for decoys in &self.decoys {
            write!(f, "\n{decoys}")?;
        }
        writeln!(
            f,
            "\nbinary        {:.1} MiB (size of the file)",
            mebibytes(self.binary_bytes)
        )
    }
}

impl ArrangementReport {
    fn name(&self) -> String {
        let redis = if self.redis { " + Redis" } else { "" };
        format!("{}{redis}", self.database)
    }

    /// Where the machine's time went under the last kind of operation, the full flow.
    fn write_share(&self, f: &mut fmt::Formatter<'_>, cores: usize) -> fmt::Result {
        let Some(row) = self.rows.last() else {
            return Ok(());
        };
        let share =
            |us: Option<f64>| 100.0 * us.unwrap_or_default() * row.per_second / 1e6 / cores as f64;
        let (server, database) = (share(Some(row.server_us)), share(row.database_us));
        let (redis, idle) = (share(row.redis_us), 100.0 * row.machine_idle);
        let waits = 100.0 * row.machine_waits;
        writeln!(
            f,
            "  {}   {:.0} per second; of the machine: server {server:.0} %, db {database:.0} %, Redis \
             {redis:.0} %, idle {idle:.0} %, idle for the disk {waits:.0} %; the rest is the generator and others",
            row.name, row.per_second
        )
    }
}

impl fmt::Display for ArrangementReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:27} {:>6} {:>7} {:>10} {:>10} {:>10} {:>8} {:>8}",
            self.name(),
            "count",
            "failed",
            "server us",
            "db us",
            "redis us",
            "p50 ms",
            "p99 ms"
        )?;
        for row in &self.rows {
            let apart = |cost: Option<f64>, else_: &str| {
                cost.map_or_else(|| else_.to_owned(), |cost| format!("{cost:.1}"))
            };
            let database = apart(row.database_us, "in server");
            let redis = apart(row.redis_us, "none");
            let note = if row.cut_short {
                "  stopped at the time limit"
            } else {
                ""
            };
            writeln!(
                f,
                "  {:25} {:>6} {:>7} {:>10.1} {:>10} {:>10} {:>8.2} {:>8.2}{note}",
                row.name,
                row.operations,
                row.failed,
                row.server_us,
                database,
                redis,
                row.p50_ms,
                row.p99_ms
            )?;
        }
        writeln!(
            f,
            "  a pending poll costs the server {:.1} times GET /jwks",
            self.poll_to_floor
        )?;
        let (first, last) = (self.start_ms.first(), self.start_ms.last());
        writeln!(
            f,
            "  start-up    {:.0} ms ({:.0} to {:.0}; from spawn to the first 200 of /readyz, {} starts)",
            self.start_ms.get(self.start_ms.len() / 2).unwrap_or(&0.0),
            first.unwrap_or(&0.0),
            last.unwrap_or(&0.0),
            self.start_ms.len()
        )?;
        writeln!(
            f,
            "  memory      {:.1} MiB idle, {:.1} MiB after the load (VmRSS)",
            mebibytes(self.idle_rss_bytes),
            mebibytes(self.loaded_rss_bytes)
        )?;
        writeln!(
            f,
            "  idle CPU    {:.0} us per second",
            self.idle_cpu_us_per_s
        )?;
        for row in &self.rows {
            for failure in &row.failures {
                writeln!(f, "  FAILED      {}: {failure}", row.name)?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Growth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:>9} {:>8} {:>12} {:>17} {:>15} {:>8} {:>8}",
            "pending",
            "MiB",
            "bytes/request",
            "redis us/create",
            "redis us/poll",
            "p50 ms",
            "p99 ms"
        )?;
        for size in &self.sizes {
            writeln!(
                f,
                "{:>9} {:>8.1} {:>12.0} {:>17.1} {:>15.1} {:>8.2} {:>8.2}",
                size.pending,
                mebibytes(size.memory_bytes),
                size.memory_bytes as f64 / size.pending.max(1) as f64,
                size.create_us,
                size.poll_us,
                size.p50_ms,
                size.p99_ms
            )?;
        }
        write!(f, "bytes of one request:")?;
        for (kind, bytes) in &self.keys {
            write!(f, " {kind} {bytes}")?;
        }
        writeln!(f)
    }
}

impl fmt::Display for WakeUps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} + Redis, two nodes: {} held polls woken, {} at a time, {} failed",
            self.database, self.wake_ups, self.held, self.failed
        )?;
        writeln!(
            f,
            "  after the phone's answer   p50 {:.2} ms, p99 {:.2} ms",
            self.p50_ms, self.p99_ms
        )?;
        writeln!(
            f,
            "  after the decision is sent p50 {:.2} ms, p99 {:.2} ms",
            self.from_decision_p50_ms, self.from_decision_p99_ms
        )?;
        for failure in &self.failures {
            writeln!(f, "  FAILED      {failure}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Pushes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:8} {:.0} us of CPU a push, {:.0} pushes per CPU-second; {} pushes, {} failed, {:.0} per second, \
             {} connections made",
            self.platform,
            self.cpu_us,
            self.per_cpu_second,
            self.pushes,
            self.failed,
            self.per_second,
            self.connections
        )?;
        for failure in &self.failures {
            writeln!(f, "  FAILED      {failure}")?;
        }
        Ok(())
    }
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
