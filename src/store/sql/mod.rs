//! The truth: one SQL text for SQLite and PostgreSQL through `sqlx::Any`.
//!
//! Every writer takes the audit head of its partition first and everything else after it: one lock
//! order, so no two transactions can wait for each other. Only [`db::Tx::commit`] commits.

pub mod audit;
pub mod db;
pub mod deliveries;
mod dialect;
pub mod directory;
pub mod jobs;
pub mod keys;
pub mod ledger;
pub mod pending;
mod pool;
pub mod replay;
mod row;
pub mod tokens;

pub use audit::{AuditEntry, AuditLog};
pub use db::{Db, OpenError};
pub use deliveries::SqlDeliveryLog;
pub use directory::Directory;
pub use jobs::SqlJobQueue;
pub use keys::KeyTable;
pub use ledger::Ledger;
pub use pending::SqlPendingRequests;
pub use replay::SqlReplayCache;
pub use tokens::TokenStore;
