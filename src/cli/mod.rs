//! The command line: for people by default, for programs with `--json`. One file per subcommand.

mod audit;
mod client;
mod config_check;
mod dead_letters;
mod demo;
mod dev;
mod device;
mod doctor;
mod enrol;
mod healthcheck;
mod keys;
mod output;
mod phone;
mod push;
mod serve;
mod user;

use crate::app::{Core, World};
use crate::config::{Config, Overrides};
use crate::telemetry;
use clap::{Parser, Subcommand};
use output::Output;
use std::path::PathBuf;

/// Asks a person, on their own phone, and brings back a signed answer.
#[derive(Debug, Parser)]
#[command(name = "assent", version, max_term_width = 100)]
pub struct Arguments {
    /// Settings as TOML; see config/default.toml
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print JSON for programs
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show the whole journey on a server of its own, and check every step
    Demo(demo::Demo),
    /// Run a server to develop against: embedded database, a bank, a person and a phone
    Dev(dev::Dev),
    /// Run the server
    Serve(serve::Serve),
    /// Bring the database to this program's schema
    Migrate,
    /// Relying parties
    #[command(subcommand)]
    Client(client::Client),
    /// People who can be asked
    #[command(subcommand)]
    User(user::User),
    /// Make a code with which a person enrols a phone
    Enrol(enrol::Enrol),
    /// Enrolled devices
    #[command(subcommand)]
    Device(device::Device),
    /// Whether phones can be woken
    #[command(subcommand)]
    Push(push::Push),
    /// A phone in the terminal
    Phone(phone::Phone),
    /// The key ring
    #[command(subcommand)]
    Keys(keys::Keys),
    /// The audit
    #[command(subcommand)]
    Audit(audit::Audit),
    /// Jobs that were given up
    #[command(subcommand)]
    DeadLetters(dead_letters::DeadLetters),
    /// Look whether everything is in place, and say what to do where it is not
    Doctor(doctor::Doctor),
    /// Ask the running server whether it can serve
    Healthcheck(healthcheck::Healthcheck),
    /// Settings
    #[command(subcommand)]
    Config(config_check::ConfigCommand),
}

/// Runs one command.
///
/// # Errors
/// What went wrong and what to do next; `main` prints it.
pub async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let context = Context {
        config: arguments.config,
        output: Output::new(arguments.json),
    };
    match arguments.command {
        Command::Demo(demo) => demo.run(&context).await,
        Command::Dev(dev) => dev.run(&context).await,
        Command::Serve(serve) => serve.run(&context).await,
        Command::Migrate => serve::migrate(&context).await,
        Command::Client(client) => client.run(&context).await,
        Command::User(user) => user.run(&context).await,
        Command::Enrol(enrol) => enrol.run(&context).await,
        Command::Device(device) => device.run(&context).await,
        Command::Push(push) => push.run(&context).await,
        Command::Phone(phone) => phone.run(&context).await,
        Command::Keys(keys) => keys.run(&context).await,
        Command::Audit(audit) => audit.run(&context).await,
        Command::DeadLetters(dead_letters) => dead_letters.run(&context).await,
        Command::Doctor(doctor) => doctor.run(&context).await,
        Command::Healthcheck(healthcheck) => healthcheck.run(&context).await,
        Command::Config(config) => config.run(&context),
    }
}

/// What every command gets.
struct Context {
    config: Option<PathBuf>,
    output: Output,
}

impl Context {
    fn load(&self, overrides: &Overrides) -> anyhow::Result<Config> {
        Ok(Config::load(self.config.as_deref(), overrides)?)
    }

    /// The use cases on the configured stores, for a command beside a running server.
    async fn core(&self) -> anyhow::Result<Core> {
        let config = self.load(&Overrides::new())?;
        telemetry::init_logs(&crate::config::Log {
            filter: "warn".into(),
            ..config.log.clone()
        })?;
        Core::open(&config, World::real()).await
    }
}
