//! Measures what a request costs an assent server: CPU time of the real program in a process of its
//! own, on SQLite and PostgreSQL, with and without Redis, next to a plain endpoint of the same server.
//! Linux only, on loopback.
//!
//! [`measure`] is one run against one arrangement of a [`database`] and a [`redis_server`]: it seeds the
//! [`cast`], starts the [`server`], puts [`load`] on it in the form of [`operations`], and reads the cost
//! from [`proc`]. [`growth`] and [`wake_ups`] ask questions of their own about Redis, [`decoys`] one about
//! time, and [`pushes`] one about push gateways, which a [`gateway`] stands in for.
//! `docs/guide/measuring.md` says what each number means.

mod cast;
mod database;
mod decoys;
mod gateway;
mod growth;
mod load;
mod measure;
mod operations;
mod proc;
mod pushes;
mod redis_server;
mod report;
mod server;
mod stopwatch;
mod wake_ups;

use anyhow::Context as _;
use assent::shutdown::StopSignals;
use clap::Parser;
use database::Database;
use decoys::Decoys;
use load::Load;
use redis_server::RedisServer;
use report::{ArrangementReport, Growth, Report, WakeUps};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use url::Url;

/// Polls that are held at a time when wake-ups are measured, and how many times over.
const HELD: usize = 200;
const ROUNDS: usize = 10;

/// Measures what a request costs an assent server.
#[derive(Debug, Parser)]
#[command(name = "assent-loadtest", version, max_term_width = 100)]
struct Arguments {
    /// The server; else `assent` beside this program
    #[arg(long, value_name = "FILE")]
    server: Option<PathBuf>,
    /// Measure on PostgreSQL too: a server on loopback and a user who may create databases
    #[arg(long, value_name = "URL")]
    postgres: Option<Url>,
    /// PostgreSQL's main process, where it cannot be found through its backends
    #[arg(long, value_name = "PID", requires = "postgres")]
    postgres_pid: Option<u32>,
    /// Measure each database with Redis as the fast path too: one server on loopback
    #[arg(long, value_name = "URL")]
    redis: Option<Url>,
    /// The process of Redis, where it does not say so itself
    #[arg(long, value_name = "PID", requires = "redis")]
    redis_pid: Option<u32>,
    /// Measure instead what polls and memory cost as so many requests wait in Redis, in three steps
    #[arg(
        long,
        value_name = "REQUESTS",
        num_args = 0..=1,
        default_missing_value = "1000000",
        value_parser = up_to(1_000_000),
        requires = "redis",
        conflicts_with = "wake_ups"
    )]
    growth: Option<usize>,
    /// Measure instead how long a held poll takes to hear of a decision at another node
    #[arg(long, requires = "redis", requires = "postgres")]
    wake_ups: bool,
    /// Measure instead whether time tells a client in decoy mode who is known
    #[arg(long, conflicts_with_all = ["growth", "wake_ups"])]
    decoys: bool,
    /// Measure instead what a push costs, for each kind of gateway
    #[arg(long, conflicts_with_all = ["decoys", "growth", "wake_ups", "redis", "postgres"])]
    pushes: bool,
    /// Operations of each kind
    #[arg(long, default_value_t = 5_000, value_parser = up_to(100_000))]
    count: usize,
    /// Connections at a time
    #[arg(long, default_value_t = 16, value_parser = up_to(256))]
    connections: usize,
    /// People to be asked: one half never answers, the other always does
    #[arg(long, default_value_t = 512, value_parser = up_to(10_000))]
    people: usize,
    /// Seconds after which one kind of operation is over, whatever the count
    #[arg(long, default_value_t = 120, value_parser = up_to(600))]
    limit: usize,
    /// Print JSON for programs
    #[arg(long)]
    json: bool,
}

fn up_to(most: usize) -> impl Fn(&str) -> Result<usize, String> + Clone {
    move |text| match text.parse() {
        Ok(number) if (1..=most).contains(&number) => Ok(number),
        _ => Err(format!("must be a number from 1 to {most}")),
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments).await {
        Ok(report) => {
            if arguments.json {
                println!("{}", serde_json::json!(report));
            } else {
                print!("{report}");
            }
            match report.failed() {
                0 => ExitCode::SUCCESS,
                failed => {
                    eprintln!("assent-loadtest: {failed} operations failed");
                    ExitCode::FAILURE
                }
            }
        }
        Err(error) => {
            eprintln!("assent-loadtest: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: &Arguments) -> anyhow::Result<Report> {
    anyhow::ensure!(
        arguments.people / 2 >= arguments.connections,
        "--people must be at least twice --connections: each connection has people of its own"
    );
    anyhow::ensure!(
        arguments
            .postgres
            .as_ref()
            .is_none_or(database::is_loopback),
        "--postgres must name a server on loopback"
    );
    anyhow::ensure!(
        arguments
            .redis
            .as_ref()
            .is_none_or(redis_server::is_one_here),
        "--redis must name one server on loopback: redis://127.0.0.1:6379/0"
    );
    let program = match &arguments.server {
        Some(program) => program.clone(),
        None => std::env::current_exe()?.with_file_name("assent"),
    };
    let binary = program.metadata().with_context(|| {
        format!(
            "there is no server at {}; build it: cargo build --release --workspace",
            program.display()
        )
    })?;
    let mut report = Report {
        version: env!("CARGO_PKG_VERSION"),
        optimised: !cfg!(debug_assertions),
        cores: std::thread::available_parallelism()?.get(),
        connections: arguments.connections,
        binary_bytes: binary.len(),
        arrangements: Vec::new(),
        growth: None,
        wake_ups: None,
        decoys: Vec::new(),
        pushes: Vec::new(),
    };
    let run = Run {
        arguments,
        program: &program,
        load: Load {
            count: arguments.count,
            connections: arguments.connections,
            limit: Duration::from_secs(arguments.limit as u64),
        },
    };
    if let Some(most) = arguments.growth {
        report.growth = Some(run.growth(most).await?);
    } else if arguments.wake_ups {
        report.wake_ups = Some(run.wake_ups().await?);
    } else if arguments.pushes {
        let load = run.load;
        report.pushes = tokio::task::spawn_blocking(move || pushes::pushes(load)).await??;
    } else {
        let databases = std::iter::once(None).chain(arguments.postgres.as_ref().map(Some));
        for database in databases {
            if arguments.decoys {
                let redis = arguments.redis.as_ref();
                report.decoys.push(run.decoys(database, redis).await?);
                continue;
            }
            report.arrangements.push(run.measure(database, None).await?);
            if arguments.redis.is_some() {
                let redis = arguments.redis.as_ref();
                report
                    .arrangements
                    .push(run.measure(database, redis).await?);
            }
        }
    }
    Ok(report)
}

/// What all measurements have in common. Whatever comes of one, nothing of it is left.
struct Run<'a> {
    arguments: &'a Arguments,
    program: &'a Path,
    load: Load,
}

impl Run<'_> {
    async fn measure(
        &self,
        postgres: Option<&Url>,
        redis: Option<&Url>,
    ) -> anyhow::Result<ArrangementReport> {
        let folder = tempfile::tempdir()?;
        let database = self.database(postgres, folder.path()).await?;
        let redis = match redis {
            Some(url) => Some(RedisServer::connect(url, self.arguments.redis_pid).await?),
            None => None,
        };
        let (load, people) = (self.load, self.arguments.people);
        let (path, there) = (folder.path(), redis.as_ref());
        let measured = measure::measure(self.program, path, &database, there, load, people);
        let report = unless_interrupted(measured).await;
        if let Some(redis) = redis {
            redis.remove_keys().await?;
        }
        let name = database.name;
        database.remove().await?;
        report.with_context(|| format!("on {name}"))
    }

    async fn growth(&self, most: usize) -> anyhow::Result<Growth> {
        let redis = self.redis().await?;
        let growth = growth::growth(self.program, &redis, self.load, most);
        let growth = unless_interrupted(growth).await;
        redis.remove_keys().await?;
        growth
    }

    async fn wake_ups(&self) -> anyhow::Result<WakeUps> {
        let folder = tempfile::tempdir()?;
        let postgres = self.arguments.postgres.as_ref();
        let database = self.database(postgres, folder.path()).await?;
        let redis = self.redis().await?;
        let people = self.arguments.people.min(HELD);
        let rounds = self.load.count.div_ceil(people).min(ROUNDS);
        let path = folder.path();
        let measured = wake_ups::wake_ups(self.program, path, &database, &redis, people, rounds);
        let wake_ups = unless_interrupted(measured).await;
        redis.remove_keys().await?;
        database.remove().await?;
        wake_ups
    }

    async fn decoys(&self, postgres: Option<&Url>, redis: Option<&Url>) -> anyhow::Result<Decoys> {
        let folder = tempfile::tempdir()?;
        let database = self.database(postgres, folder.path()).await?;
        let redis = match redis {
            Some(_) => Some(self.redis().await?),
            None => None,
        };
        let (path, there) = (folder.path(), redis.as_ref());
        let (people, pairs) = (self.arguments.people, self.load.count);
        let measured = decoys::decoys(self.program, path, &database, there, people, pairs);
        let decoys = unless_interrupted(measured).await;
        if let Some(redis) = redis {
            redis.remove_keys().await?;
        }
        database.remove().await?;
        decoys
    }

    async fn database(&self, postgres: Option<&Url>, folder: &Path) -> anyhow::Result<Database> {
        match postgres {
            Some(admin) => Database::postgres(admin, self.arguments.postgres_pid).await,
            None => Ok(Database::sqlite(folder)),
        }
    }

    async fn redis(&self) -> anyhow::Result<RedisServer> {
        let url = self
            .arguments
            .redis
            .as_ref()
            .context("--redis is missing")?;
        RedisServer::connect(url, self.arguments.redis_pid).await
    }
}

/// Measures until it is done or the process is asked to stop.
async fn unless_interrupted<T>(
    measured: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    let mut signals = StopSignals::heed()?;
    tokio::select! {
        result = measured => result,
        () = signals.next() => anyhow::bail!("interrupted"),
    }
}
