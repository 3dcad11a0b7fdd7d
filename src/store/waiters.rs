//! Who waits on this node for a request to change.

use crate::domain::RequestId;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use tokio::sync::watch;

/// A version number for each request that somebody waits for; it grows with each wake-up.
#[derive(Debug, Default)]
pub struct Waiters(Mutex<HashMap<RequestId, watch::Sender<u64>>>);

impl Waiters {
    pub fn watch(&self, id: RequestId) -> watch::Receiver<u64> {
        let mut waiters = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        waiters
            .entry(id)
            .or_insert_with(|| watch::Sender::new(0))
            .subscribe()
    }

    pub fn wake(&self, id: RequestId) {
        let waiters = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(waiter) = waiters.get(&id) {
            waiter.send_modify(|version| *version += 1);
        }
    }

    /// Wake-ups may have been lost.
    pub fn wake_all(&self) {
        let waiters = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for waiter in waiters.values() {
            waiter.send_modify(|version| *version += 1);
        }
    }

    /// Forgets the requests that nobody waits for any more.
    pub fn sweep(&self) {
        let mut waiters = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        waiters.retain(|_, waiter| waiter.receiver_count() > 0);
    }
}
