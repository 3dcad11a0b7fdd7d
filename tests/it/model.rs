//! The two-store protocol, explored exhaustively: one request, one client, two nodes, and every
//! interleaving of their steps with crashes, lost replies, doubtful commits and Redis fail-overs.
//!
//! **Stores.** The [`Ledger`] is SQL: a step touches it in one transaction, and what that committed
//! stays. [`Redis`] is the projection: writes to the request's record, of which the replica has seen
//! a prefix. A fail-over drops the rest, even the record itself.
//!
//! **Actors.** A person signs an approval, a denial, or both (two taps, or two phones). The client
//! polls and cancels, whatever it was told before, and is pinged. A [`Step`] is what a node holds in
//! memory between two calls to a store; [`Action::Crash`] forgets it, and stands for a time-out and a
//! lost reply too. Faults are not rationed: the record only moves forward, so the space is finite.
//!
//! **Left out.** Time: the request never expires, and a job's lease may have lapsed at any moment, so
//! both nodes may send the same ping. The audit row: it commits with its outcome. Locks and
//! revocations: read inside the same transactions. `burned`: stored and answered as `denied` is. Push
//! mode: its delivery is one more reader of the issuance row. Which phone decided: it only chooses
//! between 200 and 409. A doubtful commit in decide and cancel: reading back is the same as a repeat.
//!
//! A model that cannot fail proves nothing: each [`Mutant`] takes one rule away, and a test shows the
//! property that breaks.

use stateright::{Checker, HasDiscoveries, Model, Property};

use Outcome::{Approved, Cancelled, Denied};

const NODES: usize = 2;

const SIGNED: &str = "no token without a signed approval";
const ONCE: &str = "at most one issuance";
const NO_MEANS_NO: &str = "a denied or cancelled request never yields tokens";
const FINAL: &str = "an outcome never changes";
const KEPT: &str = "an approval can still be redeemed once the faults stop";
const TOLD: &str = "a refusal still reaches the client once the faults stop";
const NOTIFIED: &str = "every outcome has its notify job queued, in flight or delivered";
const FORWARD: &str = "no edge leaves a terminal record";
const BEHIND: &str = "the projection says nothing that the Ledger does not";

/// One rule of the protocol, taken away.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mutant {
    /// The first projection marks an outcome as applied, and the sweep skips what is marked. Here
    /// both writes are even atomic.
    AppliedMark,
    /// A cancellation writes the projection only.
    CancelOutsideOutcomes,
    /// The `notify_client` job is written after the outcome has committed.
    JobOutsideTransaction,
    /// Tokens are signed first, and handed over whether or not the insert won.
    MintBeforeInsert,
    /// The issuance table has no primary key.
    NoIssuanceKey,
    /// The projection is told before the outcome is inserted.
    RedisBeforeSql,
    /// A denial overwrites the outcome that is already there.
    DenyNotFenced,
    /// Knowing the request's id is enough to approve it.
    SignatureNotChecked,
    /// After a doubtful commit, any issuance row is taken for one's own.
    ReadBackByPresence,
    /// The `notify_client` job is acknowledged when it is claimed.
    JobAckedBeforePing,
    /// The script writes the record whatever it says already.
    RecordOverwritten,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Outcome {
    Approved,
    Denied,
    Cancelled,
}

/// The identity of one minted set of tokens.
type Tokens = u8;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Issuance {
    Issued(Tokens),
    Voided,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Ledger {
    outcome: Option<Outcome>,
    /// One row at most, unless its primary key is missing.
    issuances: Vec<Issuance>,
    /// The `notify_client` job is in the queue.
    job: bool,
    /// `AppliedMark` only.
    marked: bool,
}

/// The request's record in Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Record {
    Pending,
    Decided(Outcome),
    Redeemed,
}

impl Record {
    fn is_open(self) -> bool {
        matches!(self, Record::Pending | Record::Decided(Approved))
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Redis {
    replica: Option<Record>,
    /// What the primary has acknowledged and the replica has not seen.
    lag: Vec<Record>,
}

impl Redis {
    fn record(&self) -> Option<Record> {
        self.lag.last().copied().or(self.replica)
    }

    /// The idempotent script: forward only, and a missing record is built anew.
    fn apply(&mut self, to: Record, overwrite: bool) {
        let writable = overwrite || self.record().is_none_or(Record::is_open);
        if writable && self.record() != Some(to) {
            self.lag.push(to);
        }
    }
}

/// What a node will do next for the one task it has in hand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum Step {
    #[default]
    Idle,
    Project(Record, Next),
    Finish(Next),
    Redeem,
    ReadBack(Tokens),
    Ping,
    AckJob,
    /// `JobOutsideTransaction` only.
    Enqueue(Outcome),
    /// `MintBeforeInsert` only.
    Insert(Tokens),
}

/// What follows when the projection has been told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Next {
    Nothing,
    Acknowledge(Outcome),
    HandOver(Tokens),
    /// `RedisBeforeSql` only.
    Decide(Outcome),
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct State {
    ledger: Ledger,
    redis: Redis,
    nodes: [Step; NODES],
    /// What the phone has signed, by outcome.
    signed: [bool; 3],
    /// What was answered 200, by outcome: to the phone, or to the client that cancelled.
    acknowledged: [bool; 3],
    /// What has reached the client: tokens, `access_denied`, a ping.
    delivered: Vec<Tokens>,
    refused: bool,
    pinged: bool,
    /// History, for properties: the outcome that was inserted first.
    first_outcome: Option<Outcome>,
    /// History: a fail-over took back an approval that had not been redeemed.
    approval_dropped: bool,
}

impl State {
    fn signed(&self, outcome: Outcome) -> bool {
        self.signed[outcome as usize]
    }

    fn acknowledged(&self, outcome: Outcome) -> bool {
        self.acknowledged[outcome as usize]
    }

    /// Every set of tokens that was issued, or has reached the client.
    fn tokens(&self) -> impl Iterator<Item = Tokens> {
        let issued = self.ledger.issuances.iter().filter_map(|row| match row {
            Issuance::Issued(tokens) => Some(*tokens),
            Issuance::Voided => None,
        });
        issued.chain(self.delivered.iter().copied())
    }

    fn yields(&self) -> bool {
        self.tokens().next().is_some()
    }

    /// An identity that no one holds. Forgotten ones are used again, which keeps the space finite.
    fn mint(&self) -> Tokens {
        let in_hand = self.nodes.iter().filter_map(|step| match *step {
            Step::Project(_, Next::HandOver(tokens)) => Some(tokens),
            Step::Finish(Next::HandOver(tokens)) => Some(tokens),
            Step::ReadBack(tokens) | Step::Insert(tokens) => Some(tokens),
            _ => None,
        });
        let held: Vec<_> = in_hand.chain(self.tokens()).collect();
        let free = (0..).find(|tokens| !held.contains(tokens));
        free.expect("more identities than holders")
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Action {
    /// The phone keeps what it signed, and may post it many times.
    Sign(Outcome),
    /// A signed decision reaches a node.
    Decide(usize, Outcome),
    Cancel(usize),
    Poll(usize),
    Sweep(usize),
    ClaimJob(usize),
    Advance(usize),
    /// As `Advance`, but Redis does not answer: the projection is not told.
    RedisDown(usize),
    /// As `Advance`, but the node does not learn whether it committed; the flag decides.
    CommitUnknown(usize, bool),
    Crash(usize),
    Replicate,
    FailOver,
}

struct TwoStores {
    mutant: Option<Mutant>,
}

impl TwoStores {
    fn is(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    /// A decision arrives from the phone.
    fn receive(&self, s: &mut State, outcome: Outcome) -> Step {
        let unchecked = outcome == Approved && self.is(Mutant::SignatureNotChecked);
        if !s.signed(outcome) && !unchecked {
            return Step::Idle;
        }
        if self.is(Mutant::RedisBeforeSql) {
            return Step::Project(Record::Decided(outcome), Next::Decide(outcome));
        }
        self.decide(s, outcome)
    }

    /// The outcome's transaction, fenced by its primary key.
    fn decide(&self, s: &mut State, outcome: Outcome) -> Step {
        let overwrite = outcome == Denied && self.is(Mutant::DenyNotFenced);
        if s.ledger.outcome.is_none() || overwrite {
            s.ledger.outcome = Some(outcome);
            s.first_outcome.get_or_insert(outcome);
            if self.is(Mutant::JobOutsideTransaction) {
                return Step::Enqueue(outcome);
            }
            s.ledger.job = true;
        }
        if s.ledger.outcome != Some(outcome) {
            return Step::Idle; // 409
        }
        // A repeat comes here as well: it projects once more, and is told the same.
        Step::Project(Record::Decided(outcome), Next::Acknowledge(outcome))
    }

    /// Before an approval a cancellation is an outcome, after it a voided issuance.
    fn cancel(&self, s: &mut State) -> Step {
        match (s.ledger.outcome, s.ledger.issuances.first()) {
            _ if self.is(Mutant::CancelOutsideOutcomes) => {}
            (Some(Approved), Some(Issuance::Issued(_))) => return Step::Idle, // too late
            (Some(Approved), Some(Issuance::Voided)) => {}
            (Some(Approved), None) => s.ledger.issuances.push(Issuance::Voided),
            _ => return self.decide(s, Cancelled),
        }
        Step::Project(Record::Decided(Cancelled), Next::Acknowledge(Cancelled))
    }

    /// The record answers a poll; if it is approved or missing, the Ledger does.
    fn poll(&self, s: &mut State) -> Step {
        match s.redis.record() {
            None | Some(Record::Decided(Approved)) => return Step::Redeem,
            Some(Record::Decided(_)) => s.refused = true,
            Some(Record::Pending | Record::Redeemed) => {} // authorization_pending, invalid_grant
        }
        Step::Idle
    }

    /// The issuance's transaction, fenced by its primary key: the winner's tokens, if any.
    fn redeem(&self, s: &mut State, commits: bool) -> Option<Tokens> {
        match (s.ledger.outcome, s.ledger.issuances.first()) {
            (Some(Approved), None) => {}
            (Some(Approved), Some(Issuance::Issued(_))) if self.is(Mutant::NoIssuanceKey) => {}
            (Some(Approved), Some(Issuance::Issued(_))) => return None, // invalid_grant
            (None, _) => return None,                                   // expired_token
            _ => {
                s.refused = true;
                return None;
            }
        }
        let tokens = s.mint();
        if commits {
            s.ledger.issuances.push(Issuance::Issued(tokens));
        }
        Some(tokens)
    }

    /// Every outcome without an issuance is applied again, each time.
    fn sweep(&self, s: &State) -> Step {
        if s.ledger.marked {
            return Step::Idle;
        }
        match (s.ledger.outcome, s.ledger.issuances.first()) {
            (Some(outcome), None) => Step::Project(Record::Decided(outcome), Next::Nothing),
            (Some(_), Some(Issuance::Voided)) => {
                Step::Project(Record::Decided(Cancelled), Next::Nothing)
            }
            _ => Step::Idle,
        }
    }

    /// A node's next step, for whatever it has in hand.
    fn advance(&self, s: &mut State, n: usize) -> Step {
        let hand_over = |tokens| Step::Project(Record::Redeemed, Next::HandOver(tokens));
        match s.nodes[n] {
            Step::Idle => return Step::Idle,
            Step::Project(record, next) => {
                s.redis.apply(record, self.is(Mutant::RecordOverwritten));
                s.ledger.marked |= self.is(Mutant::AppliedMark);
                return Step::Finish(next);
            }
            Step::Finish(Next::Nothing) => {}
            Step::Finish(Next::Acknowledge(outcome)) => s.acknowledged[outcome as usize] = true,
            Step::Finish(Next::HandOver(tokens)) => s.delivered.push(tokens),
            Step::Finish(Next::Decide(outcome)) => return self.decide(s, outcome),
            Step::Redeem if self.is(Mutant::MintBeforeInsert) => {
                return self.redeem(s, false).map_or(Step::Idle, Step::Insert);
            }
            Step::Redeem => return self.redeem(s, true).map_or(Step::Idle, hand_over),
            Step::Insert(tokens) => {
                if s.ledger.issuances.is_empty() {
                    s.ledger.issuances.push(Issuance::Issued(tokens));
                }
                return hand_over(tokens);
            }
            Step::ReadBack(tokens) => {
                let row = s.ledger.issuances.first();
                let presumed = row.is_some() && self.is(Mutant::ReadBackByPresence);
                if presumed || row == Some(&Issuance::Issued(tokens)) {
                    return hand_over(tokens);
                }
            }
            Step::Ping => {
                s.pinged = true;
                return Step::AckJob;
            }
            Step::AckJob => s.ledger.job = false,
            Step::Enqueue(outcome) => {
                s.ledger.job = true;
                return Step::Project(Record::Decided(outcome), Next::Acknowledge(outcome));
            }
        }
        Step::Idle
    }

    /// Liveness, asked of a state: the nodes finish what they have in hand, one sweep runs, the
    /// client polls once, and nothing fails. A missing record is left missing, because then the poll
    /// alone must do.
    fn settle(&self, s: &State) -> State {
        let mut s = s.clone();
        let finish = |s: &mut State, n: usize| {
            while s.nodes[n] != Step::Idle {
                s.nodes[n] = self.advance(s, n);
            }
        };
        (0..NODES).for_each(|n| finish(&mut s, n));
        if s.redis.record().is_some() {
            s.nodes[0] = self.sweep(&s);
            finish(&mut s, 0);
        }
        s.nodes[0] = self.poll(&mut s);
        finish(&mut s, 0);
        s
    }
}

impl Model for TwoStores {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        // Created and answered, not yet replicated: the record itself can be lost.
        let (replica, lag) = (None, vec![Record::Pending]);
        vec![State {
            redis: Redis { replica, lag },
            ..State::default()
        }]
    }

    /// All that could be tried; `next_state` drops what cannot be done or changes nothing.
    fn actions(&self, _: &State, actions: &mut Vec<Action>) {
        use Action::*;
        actions.extend([Sign(Approved), Sign(Denied), Replicate, FailOver]);
        for n in 0..NODES {
            actions.extend([Decide(n, Approved), Decide(n, Denied), Cancel(n), Poll(n)]);
            actions.extend([Sweep(n), ClaimJob(n), Advance(n), RedisDown(n), Crash(n)]);
            actions.extend([CommitUnknown(n, true), CommitUnknown(n, false)]);
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut s = last.clone();
        let idle = |n: usize| last.nodes[n] == Step::Idle;
        match action {
            Action::Sign(outcome) => s.signed[outcome as usize] = true,
            Action::Decide(n, outcome) if idle(n) => s.nodes[n] = self.receive(&mut s, outcome),
            Action::Cancel(n) if idle(n) => s.nodes[n] = self.cancel(&mut s),
            Action::Poll(n) if idle(n) => s.nodes[n] = self.poll(&mut s),
            Action::Sweep(n) if idle(n) => s.nodes[n] = self.sweep(&s),
            Action::ClaimJob(n) if idle(n) && s.ledger.job => {
                if self.is(Mutant::JobAckedBeforePing) {
                    s.ledger.job = false;
                }
                s.nodes[n] = Step::Ping;
            }
            Action::Advance(n) => s.nodes[n] = self.advance(&mut s, n),
            Action::RedisDown(n) => match s.nodes[n] {
                Step::Project(_, next) => s.nodes[n] = Step::Finish(next),
                _ => return None,
            },
            Action::CommitUnknown(n, commits) if s.nodes[n] == Step::Redeem => {
                let minted = self.redeem(&mut s, commits);
                s.nodes[n] = minted.map_or(Step::Idle, Step::ReadBack);
            }
            Action::Crash(n) => s.nodes[n] = Step::Idle,
            Action::Replicate if !s.redis.lag.is_empty() => {
                s.redis.replica = Some(s.redis.lag.remove(0));
            }
            Action::FailOver => {
                let approved = s.redis.lag.contains(&Record::Decided(Approved));
                s.approval_dropped |= approved && s.ledger.issuances.is_empty();
                s.redis.lag.clear();
            }
            _ => return None,
        }
        (s != *last).then_some(s)
    }

    /// Never reached while the record only moves forward; a bug there must not run for ever.
    fn within_boundary(&self, s: &State) -> bool {
        s.redis.lag.len() <= 3
    }

    fn properties(&self) -> Vec<Property<Self>> {
        type Rule = Property<TwoStores>;
        vec![
            Rule::always(SIGNED, |_, s| !s.yields() || s.signed(Approved)),
            Rule::always(ONCE, |_, s| {
                let first = s.tokens().next();
                s.tokens().all(|tokens| Some(tokens) == first)
            }),
            Rule::always(NO_MEANS_NO, |_, s| {
                let no = s.acknowledged(Denied) || s.acknowledged(Cancelled) || s.refused;
                !(no && s.yields())
            }),
            Rule::always(FINAL, |_, s| s.ledger.outcome == s.first_outcome),
            Rule::always(KEPT, |model, s| {
                let approved = s.ledger.outcome == Some(Approved) || s.acknowledged(Approved);
                let owed = approved && s.ledger.issuances.is_empty();
                !owed || !model.settle(s).delivered.is_empty()
            }),
            // Of a withdrawn approval too: the sweep covers what has an issuance.
            Rule::always(TOLD, |model, s| {
                let withdrawn = s.ledger.issuances.first() == Some(&Issuance::Voided);
                let owed = withdrawn || matches!(s.ledger.outcome, Some(Denied | Cancelled));
                !owed || model.settle(s).refused
            }),
            Rule::always(NOTIFIED, |_, s| {
                let in_flight = |step: &Step| matches!(step, Step::Ping | Step::Enqueue(_));
                let safe = s.ledger.job || s.pinged || s.nodes.iter().any(in_flight);
                s.ledger.outcome.is_none() || safe
            }),
            Rule::always(FORWARD, |_, s| {
                s.redis.lag.windows(2).all(|edge| edge[0].is_open())
            }),
            Rule::always(BEHIND, |_, s| match s.redis.record() {
                None | Some(Record::Pending) => true,
                Some(Record::Redeemed) => {
                    matches!(s.ledger.issuances.first(), Some(Issuance::Issued(_)))
                }
                Some(Record::Decided(outcome)) => {
                    let voided = s.ledger.issuances == [Issuance::Voided];
                    s.ledger.outcome == Some(outcome) || (outcome == Cancelled && voided)
                }
            }),
            Rule::sometimes("tokens are delivered", |_, s| !s.delivered.is_empty()),
            Rule::sometimes("tokens are delivered after a fail-over", |_, s| {
                s.approval_dropped && !s.delivered.is_empty()
            }),
            Rule::sometimes("tokens are delivered with the record gone", |_, s| {
                s.redis.record().is_none() && !s.delivered.is_empty()
            }),
            Rule::sometimes("the client learns of a denial", |_, s| {
                s.acknowledged(Denied) && s.refused
            }),
            Rule::sometimes("a pending request is cancelled", |_, s| {
                s.ledger.outcome == Some(Cancelled) && s.acknowledged(Cancelled)
            }),
            Rule::sometimes("an approval is withdrawn", |_, s| {
                s.acknowledged(Approved) && s.acknowledged(Cancelled)
            }),
            // Why a pinged client that reads `authorization_pending` must poll again.
            Rule::sometimes("a ping outruns the projection", |_, s| {
                s.pinged && s.redis.record() == Some(Record::Pending)
            }),
        ]
    }
}

#[test]
fn the_protocol_keeps_its_promises() {
    let model = TwoStores { mutant: None };
    let checker = model
        .checker()
        .finish_when(HasDiscoveries::AnyFailures)
        .spawn_bfs()
        .join();
    checker.assert_properties();
    let states = checker.unique_state_count();
    assert!(states > 200_000, "only {states} states: what has gone?");
}

/// Asserts that the mutant breaks the property, and returns how.
fn broken(mutant: Mutant, property: &'static str) -> Vec<Action> {
    let model = TwoStores {
        mutant: Some(mutant),
    };
    let found = HasDiscoveries::AllOf([property].into());
    let checker = model.checker().finish_when(found).spawn_bfs().join();
    let path = checker.discovery(property);
    path.unwrap_or_else(|| panic!("{mutant:?} does not break \"{property}\""))
        .into_actions()
}

#[test]
fn an_applied_mark_outlives_what_a_fail_over_drops() {
    assert!(broken(Mutant::AppliedMark, KEPT).contains(&Action::FailOver));
    assert!(broken(Mutant::AppliedMark, TOLD).contains(&Action::FailOver));
}

#[test]
fn a_cancellation_outside_the_outcomes_stops_nothing() {
    broken(Mutant::CancelOutsideOutcomes, NO_MEANS_NO);
}

#[test]
fn a_job_outside_the_transaction_dies_with_its_node() {
    let how = broken(Mutant::JobOutsideTransaction, NOTIFIED);
    assert!(how.iter().any(|action| matches!(action, Action::Crash(_))));
}

#[test]
fn minting_before_the_insert_leaves_tokens_that_lost_it() {
    broken(Mutant::MintBeforeInsert, ONCE);
    broken(Mutant::MintBeforeInsert, NO_MEANS_NO);
}

#[test]
fn every_other_mutant_breaks_what_its_rule_protects() {
    broken(Mutant::NoIssuanceKey, ONCE);
    broken(Mutant::RedisBeforeSql, BEHIND);
    broken(Mutant::DenyNotFenced, FINAL);
    broken(Mutant::DenyNotFenced, NO_MEANS_NO);
    broken(Mutant::SignatureNotChecked, SIGNED);
    broken(Mutant::ReadBackByPresence, ONCE);
    broken(Mutant::JobAckedBeforePing, NOTIFIED);
    broken(Mutant::RecordOverwritten, FORWARD);
}
