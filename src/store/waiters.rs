//! Who waits on this node for something to change: a request, a person's inbox.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use tokio::sync::watch;

/// A version number for each thing that somebody waits for; it grows with each wake-up.
#[derive(Debug)]
pub struct Waiters<K>(Mutex<HashMap<K, watch::Sender<u64>>>);

impl<K> Default for Waiters<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash> Waiters<K> {
    pub fn watch(&self, key: K) -> watch::Receiver<u64> {
        let mut waiters = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        waiters
            .entry(key)
            .or_insert_with(|| watch::Sender::new(0))
            .subscribe()
    }

    pub fn wake(&self, key: &K) {
        let waiters = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(waiter) = waiters.get(key) {
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

    /// Forgets what nobody waits for any more.
    pub fn sweep(&self) {
        let mut waiters = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        waiters.retain(|_, waiter| waiter.receiver_count() > 0);
    }
}
