//! Real processes that are killed, stopped, starved and restarted, while relying parties and phones go
//! on as real ones would. Afterwards the promises must hold: see [`invariants`].

mod busy;
mod cast;
mod degradation;
mod drain;
mod failpoints;
mod invariants;
mod kill;
mod notify;
mod overload;
mod postgres;
mod redis_data;
mod redis_failover;
mod redis_links;
mod redis_nodes;
mod redis_servers;
mod refuse;
mod storm;
mod webhooks;
mod wire;

/// Without the feature the binary has no steps to die at, and the tests that need them are not built.
#[cfg(not(feature = "failpoints"))]
#[test]
fn the_fault_tests_need_the_failpoints() {
    panic!("run `cargo test --all-features`, or scripts/test: the fault tests need failpoints");
}
