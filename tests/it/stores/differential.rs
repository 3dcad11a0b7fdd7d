//! The scripts against the state machine: whatever happens in whatever order, Redis answers as the domain
//! would.

use super::{INTERVAL, PARTITION, START, Stores, id, job_of, key, request_of};
use crate::support::RedisServers;
use assent::domain::pacing::{Pace, PollPacing};
use assent::domain::prompts::{PromptBudget, PromptBudgets};
use assent::domain::request::{REDEMPTION_GRACE, State};
use assent::domain::{Job as Work, Timestamp, UserId};
use assent::store::{ClaimedJob, Created, NewRequest, Poll, Polled, QueueDepth, Standing};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::time::Duration;

const PER_CLIENT: u32 = 2;
const PER_USER: u32 = 3;
const DECOY: u32 = 5;
const SILENT: u32 = 4;
const BUDGETS: PromptBudgets = PromptBudgets([
    PromptBudget::new(1, Duration::from_secs(2)),
    PromptBudget::new(2, Duration::from_secs(10)),
    PromptBudget::new(3, Duration::from_secs(100)),
]);
const LEASE: Duration = Duration::from_secs(30);
/// How long a record is still found after its approval could last be redeemed.
const AFTERLIFE: Duration = Duration::from_secs(600);

#[derive(Clone, Debug)]
enum Step {
    /// Time passes, in milliseconds.
    Wait(u64),
    Create(u32),
    Poll {
        request: u32,
        replaces: bool,
        hold: Option<u64>,
    },
    Project(u32, State),
    ProjectAll(State),
    Claim(u32),
    /// Of the claims so far, the `n`th from the end.
    Ack(usize),
    Retry(usize, u64),
    Bury(usize),
    ReplayDead(u32),
    FirstUse {
        what: u8,
        lifetime: u64,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let state = prop_oneof![
        Just(State::Approved),
        Just(State::Denied),
        Just(State::Cancelled),
        Just(State::Burned),
        Just(State::Redeemed),
    ];
    let request = 0_u32..6;
    let time = prop_oneof![
        4 => 0_u64..1_000,
        4 => 1_000_u64..8_000,
        2 => 8_000_u64..70_000,
        1 => Just(600_000_u64),
    ];
    let hold = proptest::option::of(1_000_u64..30_000);
    let step = prop_oneof![
        4 => time.clone().prop_map(Step::Wait),
        4 => request.clone().prop_map(Step::Create),
        6 => (request.clone(), any::<bool>(), hold)
            .prop_map(|(request, replaces, hold)| Step::Poll { request, replaces, hold }),
        2 => (request.clone(), state.clone()).prop_map(|(request, state)| Step::Project(request, state)),
        1 => state.prop_map(Step::ProjectAll),
        3 => (1_u32..4).prop_map(Step::Claim),
        2 => (0_usize..4).prop_map(Step::Ack),
        2 => (0_usize..4, time).prop_map(|(claim, later)| Step::Retry(claim, later)),
        1 => (0_usize..4).prop_map(Step::Bury),
        1 => request.prop_map(Step::ReplayDead),
        2 => (0_u8..3, 1_u64..20_000).prop_map(|(what, lifetime)| Step::FirstUse { what, lifetime }),
    ];
    // A client that keeps the rhythm, or nearly: just before and at the end of an interval, less the
    // tolerance.
    let gap = prop_oneof![Just(4_499_u64), Just(4_500), Just(9_499), Just(9_500)];
    let ordinary = |request| Step::Poll {
        request,
        replaces: false,
        hold: None,
    };
    // And one that hammers until its interval grows no more.
    let gaps = prop_oneof![
        4 => proptest::collection::vec(gap, 1..4),
        1 => Just(vec![10; 15]),
    ];
    let rhythm = (0_u32..6, gaps).prop_map(move |(request, gaps)| {
        let beat = |gap| [Step::Wait(gap), ordinary(request)];
        let first = [Step::Create(request), ordinary(request)];
        let beats = gaps.into_iter().flat_map(beat);
        first.into_iter().chain(beats).collect()
    });
    let piece = prop_oneof![9 => step.prop_map(|step| vec![step]), 1 => rhythm];
    proptest::collection::vec(piece, 1..50).prop_map(|pieces| pieces.concat())
}

/// What the domain makes of the same steps.
struct Model {
    now: Timestamp,
    requests: BTreeMap<u32, Request>,
    prompts: Vec<Timestamp>,
    jobs: BTreeMap<String, Job>,
    used: BTreeMap<u8, Timestamp>,
}

struct Request {
    new: NewRequest,
    stored: State,
    pacing: PollPacing,
    held_until: Option<Timestamp>,
    number: u64,
}

struct Job {
    due: Timestamp,
    attempt: u32,
    is_dead: bool,
}

impl Request {
    fn state(&self, now: Timestamp) -> Option<State> {
        let expires_at = self.new.facts.expires_at;
        let forgotten_at = expires_at.plus(REDEMPTION_GRACE).plus(AFTERLIFE);
        (now < forgotten_at).then(|| self.stored.at(expires_at, now))
    }
}

/// By client and number: even ones the bank's, odd ones the shop's; all for one person.
fn new_request(n: u32, now: Timestamp) -> NewRequest {
    let mut new = request_of(n, ["bank", "shop"][n as usize % 2], "alice", now);
    new.facts.decoy = n == DECOY;
    let instead = Work::NotifyResolved {
        request_id: new.facts.id,
        partition: PARTITION,
        user_id: new.facts.user_id.clone(),
        answered_by: None,
        expires_at: new.facts.expires_at,
    };
    NewRequest {
        per_client: PER_CLIENT,
        per_user: PER_USER,
        job: new.job.filter(|_| n != SILENT),
        budgets: BUDGETS,
        instead: Some(instead),
        ..new
    }
}

impl Model {
    fn create(&mut self, n: u32) -> Created {
        if self.requests.contains_key(&n) {
            return Created::Yes;
        }
        let open = |request: &&Request| request.state(self.now) == Some(State::Pending);
        let open: Vec<u32> = self
            .requests
            .iter()
            .filter(|(_, request)| open(request))
            .map(|(n, _)| *n)
            .collect();
        let of_client = open.iter().filter(|other| *other % 2 == n % 2).count();
        let of_user = open.iter().filter(|other| **other != DECOY).count();
        if of_client as u32 >= PER_CLIENT {
            return Created::OverClientCap;
        }
        if of_user as u32 >= PER_USER {
            return Created::OverUserCap;
        }
        let new = new_request(n, self.now);
        let mut created = Created::Yes;
        let mut job = new.job.as_ref();
        let counts = job.is_some();
        if counts && !BUDGETS.have_room(&self.prompts, self.now) {
            created = Created::InboxOnly;
            job = new.instead.as_ref();
        } else if counts {
            self.prompts.push(self.now);
        }
        if let Some(job) = job {
            self.jobs.entry(job.id()).or_insert(Job {
                due: self.now,
                attempt: 0,
                is_dead: false,
            });
        }
        let request = Request {
            new,
            stored: State::Pending,
            pacing: PollPacing::new(INTERVAL),
            held_until: None,
            number: 0,
        };
        self.requests.insert(n, request);
        created
    }

    fn poll(&mut self, n: u32, poll: Poll) -> Option<Polled> {
        let now = self.now;
        let request = self.requests.get_mut(&n)?;
        let state = request.state(now)?;
        let mut pace = Pace::Kept;
        if state == State::Pending {
            if poll.replaces || request.held_until.is_some_and(|until| until > now) {
                request.pacing.replace(now);
            } else {
                pace = request.pacing.poll(now);
            }
            request.held_until = poll.held_until.filter(|_| pace == Pace::Kept);
            request.number += 1;
        }
        let number = request.number;
        Some(Polled {
            state,
            pace,
            number,
        })
    }

    fn project(&mut self, n: u32, state: State) {
        if let Some(request) = self.requests.get_mut(&n)
            && request.stored != State::Redeemed
        {
            request.stored = state;
        }
    }

    fn claim(&mut self, limit: u32) -> Vec<(String, u32)> {
        let mut due: Vec<(Timestamp, String)> = self
            .jobs
            .iter()
            .filter(|(_, job)| !job.is_dead && job.due <= self.now)
            .map(|(id, job)| (job.due, id.clone()))
            .collect();
        due.sort();
        due.truncate(limit as usize);
        let claimed = due.into_iter().map(|(_, id)| {
            let job = self.jobs.get_mut(&id).unwrap();
            job.attempt += 1;
            job.due = self.now.plus(LEASE);
            (id, job.attempt)
        });
        claimed.collect()
    }

    /// The job, if the claim is still its last attempt.
    fn held(&mut self, claim: &ClaimedJob) -> Option<&mut Job> {
        let job = self.jobs.get_mut(&claim.id);
        job.filter(|job| !job.is_dead && job.attempt == claim.attempt)
    }
}

#[test]
fn the_scripts_do_what_the_state_machine_says() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(120)
    });
    runner
        .run(&steps(), |steps| runtime.block_on(compare(steps)))
        .unwrap();
}

async fn compare(steps: Vec<Step>) -> Result<(), TestCaseError> {
    // Names of its own for each case: nothing is left of the one before.
    let stores = Stores::redis(RedisServers::single());
    let mut model = Model {
        now: START,
        requests: BTreeMap::new(),
        prompts: Vec::new(),
        jobs: BTreeMap::new(),
        used: BTreeMap::new(),
    };
    let mut claims: Vec<ClaimedJob> = Vec::new();
    for (at, step) in steps.into_iter().enumerate() {
        let now = model.now;
        let nth = |n: usize| claims.iter().rev().nth(n).cloned();
        match step {
            Step::Wait(millis) => model.now = now.plus(Duration::from_millis(millis)),
            Step::Create(n) => {
                let created = stores.pending.create(&new_request(n, now), now).await;
                prop_assert_eq!(created.unwrap(), model.create(n), "create {}", n);
            }
            Step::Poll {
                request,
                replaces,
                hold,
            } => {
                let held_until = hold.map(|millis| now.plus(Duration::from_millis(millis)));
                let poll = Poll {
                    replaces,
                    held_until,
                };
                let polled = stores.pending.poll(key(request), poll, now).await.unwrap();
                prop_assert_eq!(polled, model.poll(request, poll), "poll {}", request);
            }
            Step::Project(n, state) => {
                stores.pending.project(key(n), state).await.unwrap();
                model.project(n, state);
            }
            Step::ProjectAll(state) => {
                let states: Vec<_> = (0..6).map(|n| (key(n), state)).collect();
                stores.pending.project_all(&states).await.unwrap();
                (0..6).for_each(|n| model.project(n, state));
            }
            Step::Claim(limit) => {
                let claimed = stores.jobs.claim(limit, LEASE, now).await.unwrap();
                let seen: Vec<_> = claimed
                    .iter()
                    .map(|job| (job.id.clone(), job.attempt))
                    .collect();
                prop_assert_eq!(seen, model.claim(limit));
                claims.extend(claimed);
            }
            Step::Ack(n) => {
                if let Some(claim) = nth(n) {
                    let ours = model.held(&claim).is_some();
                    prop_assert_eq!(stores.jobs.ack(&claim).await.unwrap(), ours);
                    if ours {
                        model.jobs.remove(&claim.id);
                    }
                }
            }
            Step::Retry(n, millis) => {
                if let Some(claim) = nth(n) {
                    let due = now.plus(Duration::from_millis(millis));
                    let ours = model.held(&claim).map(|job| job.due = due).is_some();
                    let done = stores.jobs.retry(&claim, due, "again").await;
                    prop_assert_eq!(done.unwrap(), ours);
                }
            }
            Step::Bury(n) => {
                if let Some(claim) = nth(n) {
                    let ours = model.held(&claim).map(|job| job.is_dead = true).is_some();
                    prop_assert_eq!(stores.jobs.bury(&claim, "dead", now).await.unwrap(), ours);
                }
            }
            Step::ReplayDead(n) => {
                let job = job_of(request_of(n, "bank", "alice", START)).id();
                let dead = model.jobs.get_mut(&job).filter(|job| job.is_dead);
                let is_dead = dead.is_some();
                if let Some(job) = dead {
                    (job.due, job.attempt, job.is_dead) = (now, 0, false);
                }
                prop_assert_eq!(stores.jobs.replay(&job, now).await.unwrap(), is_dead);
            }
            Step::FirstUse { what, lifetime } => {
                let expires_at = now.plus(Duration::from_millis(lifetime));
                let first = model.used.get(&what).is_none_or(|until| *until <= now);
                if first {
                    model.used.insert(what, expires_at);
                }
                let what = what.to_string();
                let used = stores.replays.first_use(&what, expires_at, now).await;
                prop_assert_eq!(used.unwrap(), first);
            }
        }
        if at % 5 == 0 {
            same(&stores, &model).await?;
        }
    }
    same(&stores, &model).await?;
    let dead = model.jobs.values().filter(|job| job.is_dead).count() as u64;
    let depth = QueueDepth {
        alive: model.jobs.len() as u64 - dead,
        dead,
    };
    prop_assert_eq!(stores.jobs.depth().await.unwrap(), depth);
    Ok(())
}

/// Whatever can be read says the same.
async fn same(stores: &Stores, model: &Model) -> Result<(), TestCaseError> {
    let now = model.now;
    let mut open = Vec::new();
    for (n, request) in &model.requests {
        let found = stores.pending.find(key(*n), now).await.unwrap();
        prop_assert_eq!(found.as_ref().map(|found| found.state), request.state(now));
        let standing = stores.pending.standing(key(*n), now).await.unwrap();
        let expected = request.state(now).map(|state| Standing {
            state,
            newest_poll: request.number,
        });
        prop_assert_eq!(standing, expected);
        if request.state(now) == Some(State::Pending) && *n != DECOY {
            open.push((request.new.facts.created_at, id(*n)));
        }
    }
    open.sort();
    let inbox = stores
        .pending
        .open_for(&UserId::new("alice"), PARTITION, now)
        .await
        .unwrap();
    let inbox: Vec<_> = inbox.iter().map(|request| request.facts.id).collect();
    prop_assert_eq!(inbox, open.iter().map(|(_, id)| *id).collect::<Vec<_>>());
    Ok(())
}
