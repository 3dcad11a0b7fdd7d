//! Measures what a request costs an assent server: CPU time of the real program in a process of its
//! own, on SQLite and PostgreSQL, next to a plain endpoint of the same server. Linux only, on loopback.
//!
//! [`measure`] is one run against one [`database`]: it seeds the [`cast`], starts the [`server`], puts
//! [`load`] on it in the form of [`operations`], and reads the cost from [`proc`]. `docs/guide/measuring.md`
//! says what each number means.

mod cast;
mod database;
mod load;
mod measure;
mod operations;
mod proc;
mod report;
mod server;
mod stopwatch;

use anyhow::Context as _;
use assent::shutdown::StopSignals;
use clap::Parser;
use database::Database;
use load::Load;
use report::{DatabaseReport, Report};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use url::Url;

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
    let mut databases = vec![run_on_sqlite(arguments, &program).await?];
    if let Some(admin) = &arguments.postgres {
        databases.push(run_on_postgres(arguments, &program, admin).await?);
    }
    Ok(Report {
        version: env!("CARGO_PKG_VERSION"),
        optimised: !cfg!(debug_assertions),
        cores: std::thread::available_parallelism()?.get(),
        connections: arguments.connections,
        binary_bytes: binary.len(),
        databases,
    })
}

async fn run_on_sqlite(arguments: &Arguments, program: &Path) -> anyhow::Result<DatabaseReport> {
    let folder = tempfile::tempdir()?;
    let database = Database::sqlite(folder.path());
    run_on(arguments, program, folder.path(), &database).await
}

async fn run_on_postgres(
    arguments: &Arguments,
    program: &Path,
    admin: &Url,
) -> anyhow::Result<DatabaseReport> {
    let folder = tempfile::tempdir()?;
    let database = Database::postgres(admin, arguments.postgres_pid).await?;
    let report = run_on(arguments, program, folder.path(), &database).await;
    database.remove().await?;
    report
}

/// Measures until it is done or the process is asked to stop: either way nothing is left running.
async fn run_on(
    arguments: &Arguments,
    program: &Path,
    folder: &Path,
    database: &Database,
) -> anyhow::Result<DatabaseReport> {
    let load = Load {
        count: arguments.count,
        connections: arguments.connections,
        limit: Duration::from_secs(arguments.limit as u64),
    };
    let mut signals = StopSignals::heed()?;
    let measured = measure::measure(program, folder, database, load, arguments.people);
    tokio::select! {
        report = measured => report.with_context(|| format!("on {}", database.name)),
        () = signals.next() => anyhow::bail!("interrupted"),
    }
}
