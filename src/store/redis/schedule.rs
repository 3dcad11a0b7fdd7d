//! When each partition's next job is due, as far as this node knows: so that an idle worker asks no
//! server, and a busy one only where something is due.

use crate::domain::{Partition, Timestamp};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// How often the servers are asked what is due: repairs what a lost wake-up or a dead node left behind.
const SWEEP_EVERY: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub struct Schedule(Mutex<Inner>);

#[derive(Debug)]
struct Inner {
    partitions: [Entry; 256],
    swept_at: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    due: Option<Timestamp>,
    /// Grows with every note, so that an answer that was asked for before does not undo it.
    notes: u64,
}

/// What was known of a partition when its server was asked.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    pub partition: Partition,
    notes: u64,
}

impl Default for Schedule {
    fn default() -> Self {
        Self(Mutex::new(Inner {
            partitions: [Entry::default(); 256],
            swept_at: None,
        }))
    }
}

impl Schedule {
    /// A job of this partition is due at `due`.
    pub fn note(&self, partition: Partition, due: Timestamp) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = &mut inner.partitions[usize::from(partition.0)];
        entry.notes += 1;
        entry.due = Some(entry.due.map_or(due, |known| known.min(due)));
    }

    /// Its server does not answer: not before `until`.
    pub fn put_off(&self, partition: Partition, until: Timestamp) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = &mut inner.partitions[usize::from(partition.0)];
        entry.notes += 1;
        entry.due = Some(until);
    }

    /// What is due, the most overdue first.
    pub fn due(&self, now: Timestamp) -> Vec<Asked> {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut due: Vec<(Timestamp, Asked)> = asked(&inner)
            .filter_map(|asked| {
                Some((inner.partitions[usize::from(asked.partition.0)].due?, asked))
            })
            .filter(|(due, _)| *due <= now)
            .collect();
        due.sort_by_key(|(due, _)| *due);
        due.into_iter().map(|(_, asked)| asked).collect()
    }

    /// What a server says of a partition; a note that came in between still counts.
    pub fn learn(&self, asked: Asked, next: Option<Timestamp>) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = &mut inner.partitions[usize::from(asked.partition.0)];
        entry.due = if entry.notes == asked.notes {
            next
        } else {
            [entry.due, next].into_iter().flatten().min()
        };
    }

    /// All partitions, if it is time to ask about them; whoever gets them asks.
    pub fn to_sweep(&self, now: Timestamp) -> Option<Vec<Asked>> {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // A clock that was set back must not keep it from sweeping.
        let lately = |at: Timestamp| now >= at && now.since(at) < SWEEP_EVERY;
        if inner.swept_at.is_some_and(lately) {
            return None;
        }
        inner.swept_at = Some(now);
        Some(asked(&inner).collect())
    }

    /// The next claim sweeps: wake-ups may have been lost.
    pub fn sweep_soon(&self) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.swept_at = None;
    }
}

fn asked(inner: &Inner) -> impl Iterator<Item = Asked> {
    (0..=u8::MAX)
        .zip(inner.partitions)
        .map(|(partition, entry)| Asked {
            partition: Partition(partition),
            notes: entry.notes,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn due(schedule: &Schedule, now: i64) -> Vec<u8> {
        let due = schedule.due(at(now));
        due.into_iter().map(|asked| asked.partition.0).collect()
    }

    #[test]
    fn the_most_overdue_partition_comes_first_and_none_before_its_time() {
        let schedule = Schedule::default();
        for (partition, when) in [(1, 30), (2, 10), (3, 50), (2, 20), (1, 5)] {
            schedule.note(Partition(partition), at(when));
        }
        assert!(due(&schedule, 4).is_empty());
        assert_eq!(due(&schedule, 40), [1, 2]);
        assert_eq!(due(&schedule, 50), [1, 2, 3]);
    }

    #[test]
    fn an_answer_does_not_undo_what_was_noted_while_it_was_on_its_way() {
        let schedule = Schedule::default();
        schedule.note(Partition(9), at(1));
        let asked = schedule.due(at(1))[0];
        schedule.note(Partition(9), at(2));
        schedule.learn(asked, None);
        assert_eq!(due(&schedule, 5), [9]);
        let asked = schedule.due(at(5))[0];
        schedule.learn(asked, Some(at(100)));
        assert!(due(&schedule, 99).is_empty());
        schedule.learn(schedule.due(at(100))[0], None);
        assert!(due(&schedule, 1000).is_empty());
    }

    #[test]
    fn a_sweep_is_due_at_first_then_every_five_seconds_and_when_wake_ups_may_be_lost() {
        let schedule = Schedule::default();
        assert_eq!(schedule.to_sweep(at(0)).map(|all| all.len()), Some(256));
        assert!(schedule.to_sweep(at(4_999)).is_none());
        assert!(schedule.to_sweep(at(5_000)).is_some());
        schedule.sweep_soon();
        assert!(schedule.to_sweep(at(5_001)).is_some());
    }
}
