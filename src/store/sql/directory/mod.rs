//! The Directory: clients, people, devices and enrolments, a room for each.

mod clients;
mod devices;
mod enrolments;
mod users;

pub use enrolments::{Bound, NewEnrolment, StoredEnrolment};
pub use users::StoredUserCode;

pub(super) use devices::read_key;

use super::db::Db;
use crate::crypto::KeyRing;
use std::sync::Arc;

#[derive(Clone)]
pub struct Directory {
    db: Db,
    keys: Arc<KeyRing>,
}

impl Directory {
    pub const fn new(db: Db, keys: Arc<KeyRing>) -> Self {
        Self { db, keys }
    }
}
