//! One binary for all that needs more than one part: the server over real HTTP, workers stepped by hand,
//! time that moves when a test says so, and real databases.
//!
//! PostgreSQL is the private cluster that `scripts/test` starts; `ASSENT_TEST_POSTGRES` names it.

#![expect(
    clippy::unwrap_used,
    reason = "a test that meets the unexpected should stop"
)]

mod architecture;
mod audit;
mod bad_input;
mod client_assertion;
mod command_line;
mod delivery;
mod errors;
mod errors_documented;
mod faults;
mod flow;
mod golden;
mod hints;
mod interruptions;
mod model;
mod polling;
mod protection;
mod push;
mod races;
mod redis_fitness;
mod rotation;
mod round_trips;
mod secrets;
mod several_nodes;
mod sql_traps;
mod stores;
mod stream;
mod support;
mod token_life;
mod webhooks;
mod workers;
