use super::*;
use proptest::prelude::*;

const LIMITS: Limits = Limits {
    in_flight: 4,
    failures: 3,
    pause: Duration::from_secs(30),
};

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_secs(seconds)
}

#[test]
fn one_that_fails_is_left_alone_and_then_tried_by_one() {
    let breakers = Breakers::new(LIMITS);
    let turn = |now| breakers.take(&"a", at(now));
    let fail = |now| turn(now).unwrap().end(Health::Fails, at(now));
    assert_eq!((fail(0), fail(0)), (None, None));
    // In a row, not in all.
    assert_eq!(turn(0).unwrap().end(Health::Works, at(0)), None);
    let early = turn(1).unwrap();
    assert_eq!((fail(1), fail(1)), (None, None));
    assert_eq!(fail(2), Some(Change::Opened));
    assert_eq!(breakers.open(|callee| *callee == "a"), 1);
    assert_eq!(turn(31).unwrap_err(), Refused::Open { until: at(32) });
    assert!(breakers.take(&"b", at(31)).is_ok(), "another goes on");
    // What began before tells nothing newer.
    assert_eq!(early.end(Health::Works, at(31)), None);
    assert_eq!(turn(31).unwrap_err(), Refused::Open { until: at(32) });

    let probe = turn(32).unwrap();
    assert_eq!(turn(32).unwrap_err(), Refused::Probing);
    // Given up, it leaves the try to another.
    drop(probe);
    assert_eq!(fail(33), None);
    assert_eq!(turn(62).unwrap_err(), Refused::Open { until: at(63) });
    let works = turn(63).unwrap().end(Health::Works, at(63));
    assert_eq!(works, Some(Change::Closed));
    assert_eq!((fail(63), fail(63)), (None, None), "it begins anew");
    assert_eq!(turn(64).unwrap().end(Health::Works, at(64)), None);
    assert!(breakers.table().is_empty());
}

#[test]
fn no_more_than_so_many_at_a_time() {
    let breakers = Breakers::new(LIMITS);
    let turns: Vec<_> = (0..4).map(|_| breakers.take(&1, at(0)).unwrap()).collect();
    assert_eq!(breakers.take(&1, at(0)).unwrap_err(), Refused::Full);
    assert!(breakers.take(&2, at(0)).is_ok());
    drop(turns);
    assert!(breakers.take(&1, at(0)).is_ok());
    assert!(breakers.table().is_empty(), "all of them are well");
}

#[test]
fn those_that_only_stumbled_are_forgotten_before_there_are_too_many() {
    let breakers = Breakers::new(LIMITS);
    let fail = |callee: usize| {
        breakers
            .take(&callee, at(0))
            .unwrap()
            .end(Health::Fails, at(0))
    };
    for _ in 0..2 {
        fail(0);
    }
    assert_eq!(fail(0), Some(Change::Opened));
    for callee in 1..=2 * MOST {
        fail(callee);
        assert!(breakers.table().len() <= MOST);
    }
    assert_eq!(
        breakers.take(&0, at(1)).unwrap_err(),
        Refused::Open { until: at(30) }
    );
}

#[derive(Clone, Debug)]
enum Step {
    Wait(u64),
    Take,
    /// Of the calls on their way, one ends.
    End(prop::sample::Index, Option<bool>),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        1 => (0_u64..40_000).prop_map(Step::Wait),
        4 => Just(Step::Take),
        4 => (any::<prop::sample::Index>(), prop::option::weighted(0.9, prop::bool::weighted(0.2)))
            .prop_map(|(which, works)| Step::End(which, works)),
    ]
}

proptest! {
    /// Whatever ends in whatever order: never too many, nobody while it is open, one probe, and always a
    /// way out.
    #[test]
    fn it_keeps_its_limits_and_is_never_stuck(steps in prop::collection::vec(step(), 0..120)) {
        let mut breaker = Breaker::new(LIMITS);
        let mut now = at(0);
        let mut calls: Vec<Pass> = Vec::new();
        let mut opened_at: Option<Timestamp> = None;
        let mut failures = 0;
        for step in steps {
            match step {
                Step::Wait(millis) => now = now.plus(Duration::from_millis(millis)),
                Step::Take => {
                    let probes = calls.iter().filter(|call| call.probe).count();
                    let resting = opened_at.is_some_and(|opened| now < opened.plus(LIMITS.pause));
                    match breaker.take(now) {
                        Ok(call) => {
                            prop_assert!(!resting);
                            prop_assert_eq!(call.probe, opened_at.is_some());
                            prop_assert!(opened_at.is_none() || probes == 0);
                            prop_assert!(opened_at.is_some() || calls.len() < 4);
                            calls.push(call);
                        }
                        Err(Refused::Open { until }) => prop_assert!(resting && now < until),
                        Err(Refused::Probing) => prop_assert!(!resting && probes == 1),
                        Err(Refused::Full) => prop_assert!(opened_at.is_none() && calls.len() >= 4),
                    }
                }
                Step::End(which, works) => {
                    if calls.is_empty() {
                        continue;
                    }
                    let call = calls.swap_remove(which.index(calls.len()));
                    let counts = opened_at.is_none() || call.probe;
                    let health = works.map(|works| if works { Health::Works } else { Health::Fails });
                    let change = breaker.give_back(call, health, now);
                    match (counts, health) {
                        (true, Some(Health::Works)) => {
                            prop_assert_eq!(change.is_some(), opened_at.is_some());
                            (opened_at, failures) = (None, 0);
                        }
                        (true, Some(Health::Fails)) => {
                            failures += 1;
                            let opens = opened_at.is_none() && failures == LIMITS.failures;
                            prop_assert_eq!(change == Some(Change::Opened), opens);
                            if opens || opened_at.is_some() {
                                opened_at = Some(now);
                            }
                        }
                        _ => prop_assert_eq!(change, None),
                    }
                }
            }
        }
        for call in calls {
            breaker.give_back(call, None, now);
        }
        let probe = breaker.take(now.plus(LIMITS.pause));
        prop_assert!(probe.is_ok());
        breaker.give_back(probe.unwrap(), Some(Health::Works), now);
        prop_assert!(breaker.is_forgettable());
    }
}
