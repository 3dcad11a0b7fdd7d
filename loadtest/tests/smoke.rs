//! The harness works, and says so when the server does not. Needs the server beside it, as
//! `cargo test --workspace` builds it.

use serde_json::Value;
use std::process::{Command, Output};

#[expect(
    clippy::disallowed_methods,
    reason = "where the tests' servers are: scripts/test starts them"
)]
fn server(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| {
        panic!(
            "{variable} is not set: run scripts/test, or start scripts/postgres and scripts/redis"
        )
    })
}

fn redis_url() -> String {
    server("ASSENT_TEST_REDIS")
}

fn postgres_url() -> String {
    server("ASSENT_TEST_POSTGRES")
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

fn report(command: &mut Command) -> Value {
    let output = command.arg("--json").output().expect("the harness runs");
    assert!(output.status.success(), "{}", said(&output));
    serde_json::from_slice(&output.stdout).expect("it prints JSON")
}

fn is_above_zero(value: &Value) -> bool {
    value.as_f64().expect("a number") > 0.0
}

/// Each operation on SQLite, and on what a further argument names.
fn measures_every_operation(argument: &str, url: &str) -> Vec<Value> {
    let report = report(harness().args([argument, url]));
    let arrangements = report["arrangements"].as_array().expect("a list");
    assert_eq!(arrangements.len(), 2);
    for arrangement in arrangements {
        let rows = arrangement["rows"].as_array().expect("a list");
        assert_eq!(rows.len(), 5);
        for row in rows {
            assert_eq!(
                (&row["operations"], &row["failed"]),
                (&20.into(), &0.into())
            );
            assert!(is_above_zero(&row["server_us"]), "{row}");
        }
    }
    arrangements[1]["rows"].as_array().expect("a list").clone()
}

#[test]
fn a_short_run_measures_every_operation_on_each_database() {
    let rows = measures_every_operation("--postgres", &postgres_url());
    for row in &rows[1..] {
        assert!(is_above_zero(&row["database_us"]), "{row}");
        assert!(row["redis_us"].is_null(), "{row}");
    }
}

#[test]
fn a_short_run_measures_every_operation_with_redis() {
    let rows = measures_every_operation("--redis", &redis_url());
    for row in &rows[1..] {
        assert!(is_above_zero(&row["redis_us"]), "{row}");
    }
}

#[test]
fn more_requests_wait_each_takes_its_room_and_none_is_left() {
    let client = redis::Client::open(redis_url()).unwrap();
    let mut connection = client.get_connection().unwrap();
    let mut ask = |command: &str, arguments: &[&str]| -> redis::Value {
        let mut command = redis::cmd(command);
        command.arg(arguments).query(&mut connection).unwrap()
    };
    let not_ours = format!("l-somebody-else-{}", std::process::id());
    ask("SET", &[&not_ours, "kept", "EX", "600"]);

    let redis = format!("--redis={}", redis_url());
    let report = report(harness().args([&redis, "--growth=500"]));
    let growth = &report["growth"];
    let sizes = growth["sizes"].as_array().unwrap();
    let pending: Vec<_> = sizes.iter().map(|size| &size["pending"]).collect();
    assert_eq!(pending, [5, 50, 500]);
    for size in sizes {
        assert!(is_above_zero(&size["poll_us"]), "{size}");
    }
    let keys = growth["keys"].as_array().unwrap();
    assert_eq!(keys.len(), 6);
    assert!(keys.iter().all(|key| is_above_zero(&key[1])), "{keys:?}");

    let prefix = growth["prefix"].as_str().unwrap();
    let left = ask("KEYS", &[&format!("{prefix}:*")]);
    assert_eq!(left, redis::Value::Array(Vec::new()));
    assert_eq!(ask("DEL", &[&not_ours]), redis::Value::Int(1));
}

#[test]
fn held_polls_hear_of_decisions_at_another_node() {
    let (postgres, redis) = (postgres_url(), redis_url());
    let mut command = harness();
    command.args(["--wake-ups", "--postgres", &postgres, "--redis", &redis]);
    let report = report(&mut command);
    let wake_ups = &report["wake_ups"];
    let woken = (&wake_ups["wake_ups"], &wake_ups["failed"]);
    assert_eq!(woken, (&24.into(), &0.into()), "{wake_ups}");
    assert!(
        is_above_zero(&wake_ups["from_decision_p50_ms"]),
        "{wake_ups}"
    );
}

#[test]
fn a_push_costs_something_by_each_gateway() {
    let report = report(harness().arg("--pushes"));
    let pushes = report["pushes"].as_array().unwrap();
    let platforms: Vec<_> = pushes.iter().map(|pushes| &pushes["platform"]).collect();
    assert_eq!(platforms, ["apns", "fcm", "webpush"]);
    for pushes in pushes {
        let counts = (&pushes["pushes"], &pushes["failed"]);
        assert_eq!(counts, (&20.into(), &0.into()), "{pushes}");
        assert!(is_above_zero(&pushes["per_cpu_second"]), "{pushes}");
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

#[test]
fn compares_somebody_with_nobody() {
    let report = report(harness().args(["--decoys", "--redis", &redis_url()]));
    let decoys = report["decoys"].as_array().expect("a list");
    assert_eq!(decoys.len(), 1);
    assert_eq!(
        (&decoys[0]["pairs"], &decoys[0]["failed"]),
        (&20.into(), &0.into())
    );
    for what in ["asked", "polled"] {
        let share = &decoys[0][what]["nobody_slower_percent"];
        assert!((0.0..=100.0).contains(&share.as_f64().expect("a number")));
        for who in ["somebody", "nobody"] {
            assert!(is_above_zero(&decoys[0][what][who]["p50_ms"]));
        }
    }
}
