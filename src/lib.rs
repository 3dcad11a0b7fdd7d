//! assent asks a person, on their own phone, and brings back a signed answer.

#[macro_use]
pub mod domain;

pub mod app;
pub mod cli;
pub mod clock;
pub mod config;
pub mod crypto;
pub mod entropy;
pub mod failpoint;
pub mod http;
pub mod outbound;
pub mod phone;
pub mod push;
pub mod service;
pub mod shutdown;
pub mod store;
pub mod telemetry;
pub mod worker;
