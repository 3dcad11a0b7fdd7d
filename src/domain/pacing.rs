//! How often a client may ask (CIBA Core 7.3 and 11, RFC 8628 3.5).

use super::Timestamp;
use std::time::Duration;

/// Added to the interval by each `slow_down` (CIBA Core 11).
pub const SLOW_DOWN: Duration = Duration::from_secs(5);
/// Where the interval stops growing, so that a hammering client can still recover.
pub const MAX_INTERVAL: Duration = Duration::from_secs(60);
/// Network jitter that is not held against a client.
pub const TOLERANCE: Duration = Duration::from_millis(500);

/// The rhythm of one pending request's polls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PollPacing {
    interval: Duration,
    last_poll: Option<Timestamp>,
}

/// Whether a poll kept the rhythm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    Kept,
    /// Too early: the client must wait longer from now on (`slow_down`).
    Broken,
}

impl PollPacing {
    pub const fn new(interval: Duration) -> Self {
        Self {
            interval,
            last_poll: None,
        }
    }

    /// Takes note of a poll that began at `now`. The first is never early; time counts from the start
    /// of one poll to the start of the next, so a held poll costs the client nothing.
    pub fn poll(&mut self, now: Timestamp) -> Pace {
        let early = self
            .last_poll
            .is_some_and(|last| now.since(last) + TOLERANCE < self.interval);
        self.last_poll = Some(now);
        if !early {
            return Pace::Kept;
        }
        self.interval = (self.interval + SLOW_DOWN).min(MAX_INTERVAL.max(self.interval));
        Pace::Broken
    }

    /// Takes note of a poll that replaces a held one: neither counts as early.
    pub const fn replace(&mut self, now: Timestamp) {
        self.last_poll = Some(now);
    }

    /// What the client must now leave between two polls.
    pub const fn interval(&self) -> Duration {
        self.interval
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    #[test]
    fn the_first_poll_is_never_punished_and_jitter_is_forgiven() {
        let mut pacing = PollPacing::new(Duration::from_secs(5));
        assert_eq!(pacing.poll(at(0)), Pace::Kept);
        assert_eq!(pacing.poll(at(4_500)), Pace::Kept);
        assert_eq!(pacing.poll(at(8_999)), Pace::Broken);
        assert_eq!(pacing.interval(), Duration::from_secs(10));
        assert_eq!(pacing.poll(at(18_500)), Pace::Kept);
        assert_eq!(pacing.interval(), Duration::from_secs(10));
    }

    #[test]
    fn hammering_raises_the_interval_to_the_cap_and_no_further() {
        let mut pacing = PollPacing::new(Duration::from_secs(5));
        for i in 0..100_000 {
            pacing.poll(at(i));
        }
        assert_eq!(pacing.interval(), MAX_INTERVAL);
        assert_eq!(pacing.poll(at(100_000 + 60_000)), Pace::Kept);
    }

    #[test]
    fn a_poll_that_replaces_a_held_one_is_not_early() {
        let mut pacing = PollPacing::new(Duration::from_secs(5));
        pacing.poll(at(0));
        pacing.replace(at(1000));
        assert_eq!(pacing.interval(), Duration::from_secs(5));
        assert_eq!(pacing.poll(at(6000)), Pace::Kept);
    }
}
