//! The harness works, and says so when the server does not. Needs the server beside it, as
//! `cargo test --workspace` builds it.

use serde_json::Value;
use std::process::{Command, Output};

#[expect(clippy::disallowed_methods, reason = "where the tests' database is")]
fn postgres() -> Option<String> {
    std::env::var("ASSENT_TEST_POSTGRES").ok()
}

/// A run of a few operations.
fn harness() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_assent-loadtest"));
    command.args(["--count", "20", "--connections", "2", "--people", "8"]);
    command
}

fn said(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

#[test]
fn a_short_run_measures_every_operation() {
    let mut command = harness();
    command.arg("--json");
    let postgres = postgres();
    if let Some(url) = &postgres {
        command.args(["--postgres", url]);
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let databases = report["databases"].as_array().unwrap();
    assert_eq!(databases.len(), 1 + usize::from(postgres.is_some()));
    for database in databases {
        let rows = database["rows"].as_array().unwrap();
        assert_eq!(rows.len(), 5);
        for row in rows {
            assert_eq!(
                (&row["operations"], &row["failed"]),
                (&20.into(), &0.into())
            );
            assert!(row["server_us"].as_f64().unwrap() > 0.0, "{row}");
        }
    }
}

/// Phones that wait for an operator's word cannot be asked: the server refuses every request.
#[test]
fn unexpected_answers_are_told_and_fail_the_run() {
    let output = harness()
        .env("ASSENT_DEVICES__CONFIRM", "true")
        .output()
        .unwrap();
    assert!(!output.status.success(), "{}", said(&output));
    assert!(
        said(&output).contains("unknown_user_id"),
        "{}",
        said(&output)
    );
}
