//! What was measured, for people and for programs.

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
    /// Wall time: for information, it depends on everything else that runs.
    pub p50_ms: f64,
    pub p99_ms: f64,
}

#[derive(Debug, Serialize)]
pub struct DatabaseReport {
    pub database: &'static str,
    pub rows: Vec<Row>,
    /// Server CPU of a pending poll over that of the plain endpoint.
    pub poll_to_floor: f64,
    /// Every start, ascending.
    pub start_ms: Vec<f64>,
    pub idle_rss_bytes: u64,
    pub loaded_rss_bytes: u64,
    pub idle_cpu_us_per_s: f64,
}

#[derive(Debug, Serialize)]
pub struct Report {
    pub version: &'static str,
    /// Of the harness; the server beside it was built the same way.
    pub optimised: bool,
    pub cores: usize,
    pub connections: usize,
    pub binary_bytes: u64,
    pub databases: Vec<DatabaseReport>,
}

impl Report {
    /// How many operations failed or were answered with something unexpected.
    pub fn failed(&self) -> usize {
        let rows = self.databases.iter().flat_map(|database| &database.rows);
        rows.map(|row| row.failed).sum()
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
            "assent {}, {profile}; {} cores shared by server, generator and database; \
             closed loop over {} connections",
            self.version, self.cores, self.connections
        )?;
        for database in &self.databases {
            write!(f, "\n{database}")?;
        }
        writeln!(
            f,
            "\nbinary        {:.1} MiB (size of the file)",
            mebibytes(self.binary_bytes)
        )
    }
}

impl fmt::Display for DatabaseReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:27} {:>6} {:>7} {:>10} {:>10} {:>8} {:>8}",
            self.database, "count", "failed", "server us", "db us", "p50 ms", "p99 ms"
        )?;
        for row in &self.rows {
            let database = row
                .database_us
                .map_or_else(|| "in server".into(), |cost| format!("{cost:.1}"));
            let note = if row.cut_short {
                "  stopped at the time limit"
            } else {
                ""
            };
            writeln!(
                f,
                "  {:25} {:>6} {:>7} {:>10.1} {:>10} {:>8.2} {:>8.2}{note}",
                row.name,
                row.operations,
                row.failed,
                row.server_us,
                database,
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

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
