//! Work that is done later: a job is a due time and what to do then.

use super::client::DeliveryMode;
use super::event::Event;
use super::outcome::DecidedRequest;
use super::request::redeemable_until;
use super::{DeviceId, Partition, RequestId, Timestamp, UserId};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Longer than any request lives that a report of fraud could cancel.
const FRAUD_HANDLED_WITHIN: Duration = Duration::from_secs(3600);

/// What to do. One kind per worker action.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Job {
    /// Wake the person's devices for a request.
    NotifyDevice {
        request_id: RequestId,
        partition: Partition,
        user_id: UserId,
        expires_at: Timestamp,
    },
    /// Tell the client how its request was decided (CIBA Core 10.2, 10.3).
    NotifyClient {
        request_id: RequestId,
        partition: Partition,
        deadline: Timestamp,
    },
    /// Tell the person's other devices that a request is over.
    NotifyResolved {
        request_id: RequestId,
        partition: Partition,
        user_id: UserId,
        /// The one device that knows.
        answered_by: Option<DeviceId>,
        expires_at: Timestamp,
    },
    /// Draw the consequences of a report of fraud.
    HandleFraud {
        request_id: RequestId,
        partition: Partition,
        user_id: UserId,
        reported_at: Timestamp,
    },
    /// Tell the operator's systems of an event.
    PublishEvent { event: Event },
}

impl Job {
    /// The job that belongs to a decision; `None` when the client polls.
    pub fn notify_client(decided: &DecidedRequest) -> Option<Self> {
        match decided.evidence.delivery_mode {
            DeliveryMode::Poll => None,
            DeliveryMode::Ping | DeliveryMode::Push => Some(Self::NotifyClient {
                request_id: decided.request_id,
                partition: decided.partition,
                deadline: redeemable_until(decided.expires_at),
            }),
        }
    }

    /// The same work has the same id, so that creating it twice makes one job.
    pub fn id(&self) -> String {
        match self {
            Self::NotifyDevice { request_id, .. } => format!("notify_device:{request_id}"),
            Self::NotifyClient { request_id, .. } => format!("notify_client:{request_id}"),
            Self::NotifyResolved { request_id, .. } => format!("notify_resolved:{request_id}"),
            Self::HandleFraud { request_id, .. } => format!("handle_fraud:{request_id}"),
            Self::PublishEvent { event } => format!("publish_event:{}", event.id),
        }
    }

    /// Where its person lives.
    pub const fn partition(&self) -> Partition {
        match self {
            Self::NotifyDevice { partition, .. }
            | Self::NotifyClient { partition, .. }
            | Self::NotifyResolved { partition, .. }
            | Self::HandleFraud { partition, .. } => *partition,
            Self::PublishEvent { event } => event.partition,
        }
    }

    /// When it is tried again.
    pub const fn retries(&self) -> RetrySchedule {
        match self {
            Self::PublishEvent { .. } => RetrySchedule::EVENT,
            Self::NotifyDevice { .. }
            | Self::NotifyClient { .. }
            | Self::NotifyResolved { .. }
            | Self::HandleFraud { .. } => RetrySchedule::DELIVERY,
        }
    }

    /// The latest due time that its age allows: attempts that were put off count, too, and must not make the
    /// first real failure look like the last of many.
    pub fn due_by(&self, now: Timestamp) -> Option<Timestamp> {
        match self {
            Self::PublishEvent { event } => {
                Some(now.plus(RetrySchedule::EVENT.first + 2 * now.since(event.at)))
            }
            Self::NotifyDevice { .. }
            | Self::NotifyClient { .. }
            | Self::NotifyResolved { .. }
            | Self::HandleFraud { .. } => None,
        }
    }

    /// After this there is nothing left to do it for.
    pub fn deadline(&self) -> Timestamp {
        match self {
            Self::NotifyDevice { expires_at, .. } | Self::NotifyResolved { expires_at, .. } => {
                *expires_at
            }
            Self::HandleFraud { reported_at, .. } => reported_at.plus(FRAUD_HANDLED_WITHIN),
            Self::NotifyClient { deadline, .. } => *deadline,
            Self::PublishEvent { event } => event.told_until(),
        }
    }
}

/// When to try again: doubling from `first`, capped at `longest`, ended by the job's deadline.
#[derive(Clone, Copy, Debug)]
pub struct RetrySchedule {
    pub first: Duration,
    pub longest: Duration,
}

impl RetrySchedule {
    /// For what was not tried at all.
    pub const SOON: Self = Self {
        first: Duration::from_secs(1),
        longest: Duration::from_secs(1),
    };
    pub const DELIVERY: Self = Self {
        first: Duration::from_millis(500),
        longest: Duration::from_secs(60),
    };

    /// Of what somebody reads later, at an endpoint that may be away for days.
    pub const EVENT: Self = Self {
        first: Duration::from_secs(5),
        longest: Duration::from_secs(3600),
    };

    /// The due time after `attempts` failed ones, spread by up to a fifth either way by `jitter`
    /// (any random byte), but not before `earliest`, when somebody has said when to come back; `None` when
    /// it would fall on or after the deadline.
    pub fn next(
        &self,
        attempts: u32,
        now: Timestamp,
        earliest: Timestamp,
        deadline: Timestamp,
        jitter: u8,
    ) -> Option<Timestamp> {
        let doubled = self
            .first
            .saturating_mul(1 << attempts.saturating_sub(1).min(20))
            .min(self.longest);
        let spread = 0.8 + 0.4 * f64::from(jitter) / 255.0;
        let due = now.plus(doubled.mul_f64(spread)).max(earliest);
        (due < deadline).then_some(due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::EventKind;
    use proptest::prelude::*;

    #[test]
    fn an_event_waits_no_longer_than_its_age_explains() {
        let event = |at| Job::PublishEvent {
            event: Event {
                id: "evt_1".into(),
                at,
                partition: Partition(0),
                kind: EventKind::JobDead {
                    job: "a job".into(),
                    error: "an error".into(),
                },
            },
        };
        let now = Timestamp::from_secs(1_000_000);
        let wait = |age: u64| {
            let born = now.minus(Duration::from_secs(age));
            event(born).due_by(now).map(|due| due.since(now).as_secs())
        };
        assert_eq!([wait(0), wait(60)], [Some(5), Some(125)]);
    }

    #[test]
    fn delays_double_up_to_the_cap() {
        let now = Timestamp::from_millis(0);
        let far = Timestamp::from_millis(i64::MAX);
        let delay_of = |schedule: RetrySchedule, attempts| {
            schedule
                .next(attempts, now, now, far, 127)
                .map(Timestamp::millis)
        };
        let delay = |attempts| delay_of(RetrySchedule::DELIVERY, attempts);
        let event = |attempts| delay_of(RetrySchedule::EVENT, attempts);
        let near = |got: Option<i64>, want: i64| {
            got.is_some_and(|got| (got - want).abs() <= want / 100 + 1)
        };
        assert!(near(delay(1), 500) && near(delay(2), 1000) && near(delay(3), 2000));
        assert!(near(delay(30), 60_000) && near(delay(u32::MAX), 60_000));
        assert!(near(event(1), 5_000) && near(event(2), 10_000) && near(event(99), 3_600_000));
    }

    proptest! {
        #[test]
        fn a_retry_is_in_time_and_never_at_or_after_the_deadline(
            attempts: u32, jitter: u8, left in 0_i64..120_000, earliest in 0_i64..120_000,
        ) {
            let (now, earliest) = (Timestamp::from_millis(0), Timestamp::from_millis(earliest));
            let deadline = Timestamp::from_millis(left);
            if let Some(due) = RetrySchedule::DELIVERY.next(attempts, now, earliest, deadline, jitter) {
                prop_assert!(due < deadline && due >= earliest && due.millis() >= 400);
            }
        }
    }
}
