//! Whom we call, and who is left alone for a while: one that fails again and again, or is slow, must not take
//! what the others need.

use super::Timestamp;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// So many callees are remembered before those that only stumbled are forgotten: some are of a phone's
/// choosing.
const MOST: usize = 1000;
/// One that fails and is not called any more is remembered for so long.
const STALE_AFTER: Duration = Duration::from_secs(10 * 60);

/// What one callee is allowed.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Calls at a time.
    pub in_flight: u32,
    /// Failures in a row after which it is left alone.
    pub failures: u32,
    /// How long; then one call tries.
    pub pause: Duration,
}

/// Why a call is not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It fails, and nobody asks before this.
    Open { until: Timestamp },
    /// One call is asking whether it works again.
    Probing,
    /// Too many calls are on their way.
    Full,
}

/// What a call tells of the callee's health.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    Works,
    Fails,
}

/// What the end of a call changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// From now on it is left alone.
    Opened,
    /// It works again.
    Closed,
}

/// One callee's health.
#[derive(Clone, Debug)]
pub struct Breaker {
    limits: Limits,
    in_flight: u32,
    state: State,
}

#[derive(Clone, Debug)]
enum State {
    Closed { failures: u32 },
    Open { until: Timestamp, probing: bool },
}

/// The right to one call; to be given back.
#[derive(Debug)]
pub struct Pass {
    /// Whether this call decides if the breaker closes.
    probe: bool,
}

impl Breaker {
    pub const fn new(limits: Limits) -> Self {
        Self {
            limits,
            in_flight: 0,
            state: State::Closed { failures: 0 },
        }
    }

    /// # Errors
    /// Why there is to be no call now.
    pub fn take(&mut self, now: Timestamp) -> Result<Pass, Refused> {
        let probe = match &mut self.state {
            State::Open { until, .. } if now < *until => {
                return Err(Refused::Open { until: *until });
            }
            State::Open { probing: true, .. } => return Err(Refused::Probing),
            State::Open { probing, .. } => {
                *probing = true;
                true
            }
            State::Closed { .. } if self.in_flight >= self.limits.in_flight => {
                return Err(Refused::Full);
            }
            State::Closed { .. } => false,
        };
        self.in_flight += 1;
        Ok(Pass { probe })
    }

    /// The call has ended. `None`: without telling anything, such as one that was given up.
    pub fn give_back(
        &mut self,
        pass: Pass,
        health: Option<Health>,
        now: Timestamp,
    ) -> Option<Change> {
        self.in_flight = self.in_flight.saturating_sub(1);
        let until = now.plus(self.limits.pause);
        let (state, change) = match (&self.state, health) {
            (State::Closed { failures }, Some(Health::Fails)) => {
                let failures = failures + 1;
                if failures < self.limits.failures {
                    (State::Closed { failures }, None)
                } else {
                    let probing = false;
                    (State::Open { until, probing }, Some(Change::Opened))
                }
            }
            (State::Closed { .. }, Some(Health::Works)) => (State::Closed { failures: 0 }, None),
            (State::Closed { .. }, None) => return None,
            // It began before the breaker opened, and knows nothing newer.
            (State::Open { .. }, _) if !pass.probe => return None,
            (State::Open { .. }, Some(Health::Works)) => {
                (State::Closed { failures: 0 }, Some(Change::Closed))
            }
            (State::Open { .. }, Some(Health::Fails)) => {
                let probing = false;
                (State::Open { until, probing }, None)
            }
            // Another may try.
            (State::Open { until, .. }, None) => {
                let (until, probing) = (*until, false);
                (State::Open { until, probing }, None)
            }
        };
        self.state = state;
        change
    }

    /// Whether it may be tried again, for so long that nobody seems to want to.
    fn is_stale(&self, now: Timestamp) -> bool {
        match self.state {
            State::Open { until, .. } => self.in_flight == 0 && until.plus(STALE_AFTER) <= now,
            State::Closed { .. } => false,
        }
    }

    const fn is_open(&self) -> bool {
        matches!(self.state, State::Open { .. })
    }

    /// Whether there is nothing to remember of it.
    const fn is_forgettable(&self) -> bool {
        self.in_flight == 0 && matches!(self.state, State::Closed { failures: 0 })
    }
}

/// The breakers of all callees of a kind. Those in good health take no room.
#[derive(Debug)]
pub struct Breakers<K> {
    limits: Limits,
    table: Mutex<HashMap<K, Breaker>>,
}

/// A call in progress. Dropped, it has ended without telling anything.
#[derive(Debug)]
pub struct Turn<'a, K: Clone + Eq + Hash> {
    breakers: &'a Breakers<K>,
    callee: K,
    /// Taken when the turn ends.
    pass: Option<Pass>,
    since: Timestamp,
}

impl<K: Clone + Eq + Hash> Breakers<K> {
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            table: Mutex::default(),
        }
    }

    /// # Errors
    /// Why there is to be no call now.
    pub fn take(&self, callee: &K, now: Timestamp) -> Result<Turn<'_, K>, Refused> {
        let mut table = self.table();
        if table.len() >= MOST && !table.contains_key(callee) {
            table.retain(|_, breaker| {
                (breaker.in_flight > 0 || breaker.is_open()) && !breaker.is_stale(now)
            });
        }
        let breaker = table
            .entry(callee.clone())
            .or_insert_with(|| Breaker::new(self.limits));
        Ok(Turn {
            pass: Some(breaker.take(now)?),
            breakers: self,
            callee: callee.clone(),
            since: now,
        })
    }

    /// Forgets whom nobody has called for a while: that one fails who is not wanted any more is no news. True:
    /// some are forgotten.
    pub fn forget_stale(&self, now: Timestamp) -> bool {
        let mut table = self.table();
        let before = table.len();
        table.retain(|_, breaker| !breaker.is_stale(now));
        table.len() < before
    }

    /// How many of these callees are left alone.
    pub fn open(&self, these: impl Fn(&K) -> bool) -> usize {
        let table = self.table();
        let open = |(callee, breaker): &(&K, &Breaker)| breaker.is_open() && these(callee);
        table.iter().filter(open).count()
    }

    fn table(&self) -> MutexGuard<'_, HashMap<K, Breaker>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn give_back(
        &self,
        callee: &K,
        pass: Pass,
        health: Option<Health>,
        now: Timestamp,
    ) -> Option<Change> {
        let mut table = self.table();
        let breaker = table.get_mut(callee)?;
        let change = breaker.give_back(pass, health, now);
        if breaker.is_forgettable() {
            table.remove(callee);
        }
        change
    }
}

impl<K: Clone + Eq + Hash> Turn<'_, K> {
    /// What the call told.
    pub fn end(mut self, health: Health, now: Timestamp) -> Option<Change> {
        let pass = self.pass.take()?;
        self.breakers
            .give_back(&self.callee, pass, Some(health), now)
    }
}

impl<K: Clone + Eq + Hash> Drop for Turn<'_, K> {
    fn drop(&mut self) {
        if let Some(pass) = self.pass.take() {
            self.breakers
                .give_back(&self.callee, pass, None, self.since);
        }
    }
}

#[cfg(test)]
mod tests;
