//! Parses the command line and calls it.

use clap::Parser as _;
use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = assent::cli::Arguments::parse();
    match assent::cli::run(arguments).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("assent: {error:#}");
            ExitCode::FAILURE
        }
    }
}
