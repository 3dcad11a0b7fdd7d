//! Pending requests: creation, caps, polls, inbox, projection.

use super::{PARTITION, Stores, at, id, in_every_store, job_of, key, new_request, request_of};
use crate::support::house::cancel_after;
use crate::support::{Backend, House, START, all, on_both};
use assent::domain::pacing::Pace;
use assent::domain::prompts::{PromptBudget, PromptBudgets};
use assent::domain::request::{BackchannelRequest, State};
use assent::domain::{BindingMessage, Event, EventKind, Job, RequestKey, Timestamp, UserId};
use assent::store::{
    Created, IdempotencySlot, NewRequest, PendingRequests, Poll, Reservation, StoreError,
};
use std::collections::BTreeSet;
use std::time::Duration;

in_every_store!(
    a_request_is_there_with_its_job,
    creating_twice_is_creating_once,
    a_creation_that_is_cut_short_is_whole_or_not_at_all,
    caps_count_what_is_open,
    a_crowd_gets_as_many_places_as_there_are,
    a_person_is_woken_within_the_budgets,
    a_crowd_wakes_a_person_within_the_budgets,
    a_request_may_wake_nobody,
    a_decoy_takes_the_clients_places_and_nobody_elses,
    an_idempotency_key_stands_for_one_request,
    one_of_many_gets_the_slot,
    a_slot_without_a_request_can_be_given_back,
    polls_are_paced,
);
on_both!(
    nothing_is_kept_of_who_is_asked_no_more,
    a_request_whose_job_cannot_be_stored_is_not_there,
    a_damaged_request_is_reported_with_its_place,
);

pub async fn create(stores: &Stores, new: &NewRequest) -> Created {
    stores
        .pending
        .create(new, new.facts.created_at)
        .await
        .unwrap()
}

pub async fn state(pending: &dyn PendingRequests, key: RequestKey) -> State {
    pending.find(key, START).await.unwrap().unwrap().state
}

async fn a_request_is_there_with_its_job(stores: &Stores) {
    let mut new = new_request(1);
    new.facts.binding_message = Some(BindingMessage::parse("Überweisung 12").unwrap());
    new.facts.authorization_details = Some(serde_json::json!([{ "type": "payment" }]));
    assert_eq!(create(stores, &new).await, Created::Yes);

    let found = stores.pending.find(key(1), START).await.unwrap().unwrap();
    assert_eq!(found, BackchannelRequest::new(new.facts.clone()));
    assert_eq!(stores.pending.find(key(2), START).await.unwrap(), None);
    let last = at(120).minus(Duration::from_millis(1));
    for (now, expected) in [(last, State::Pending), (at(120), State::Expired)] {
        let found = stores.pending.find(key(1), now).await.unwrap().unwrap();
        assert_eq!(found.state, expected);
    }

    let lease = Duration::from_secs(30);
    let claimed = stores.jobs.claim(10, lease, START).await.unwrap();
    assert_eq!(claimed.len(), 1);
    assert_eq!(
        (&claimed[0].job, claimed[0].attempt),
        (new.job.as_ref().unwrap(), 1)
    );
}

async fn creating_twice_is_creating_once(stores: &Stores) {
    let full = NewRequest {
        per_client: 2,
        per_user: 2,
        ..new_request(1)
    };
    assert_eq!(create(stores, &full).await, Created::Yes);
    assert_eq!(create(stores, &full).await, Created::Yes);
    assert_eq!(stores.jobs.depth().await.unwrap().alive, 1);
    // Its job is done and does not come back.
    let claimed = stores
        .jobs
        .claim(1, Duration::from_secs(30), START)
        .await
        .unwrap();
    assert!(stores.jobs.ack(&claimed[0]).await.unwrap());
    assert_eq!(create(stores, &full).await, Created::Yes);
    assert_eq!(stores.jobs.depth().await.unwrap().alive, 0);
    // It is there, so it needs no room, whether it is still open or not.
    assert_eq!(create(stores, &new_request(2)).await, Created::Yes);
    assert_eq!(create(stores, &full).await, Created::Yes);
    stores
        .pending
        .project(key(1), State::Approved)
        .await
        .unwrap();
    assert_eq!(create(stores, &new_request(3)).await, Created::Yes);
    assert_eq!(create(stores, &full).await, Created::Yes);
    assert_eq!(state(&*stores.pending, key(1)).await, State::Approved);
}

async fn a_creation_that_is_cut_short_is_whole_or_not_at_all(stores: &Stores) {
    let mut cut = 0;
    loop {
        let new = new_request(cut);
        match cancel_after(cut as usize + 1, stores.pending.create(&new, START)).await {
            None => cut += 1,
            Some(created) => {
                assert_eq!(created.unwrap(), Created::Yes);
                break;
            }
        }
    }
    assert!(cut > 0, "nothing was cut short");
    // The next creation for this person waits for what the others left behind.
    assert_eq!(create(stores, &new_request(cut + 1)).await, Created::Yes);
    let mut requests = BTreeSet::new();
    for n in 0..=cut + 1 {
        if stores.pending.find(key(n), START).await.unwrap().is_some() {
            requests.insert(job_of(new_request(n)).id());
        }
    }
    let lease = Duration::from_secs(30);
    let jobs = stores.jobs.claim(1000, lease, START).await.unwrap();
    assert_eq!(
        jobs.into_iter().map(|job| job.id).collect::<BTreeSet<_>>(),
        requests
    );
}

async fn caps_count_what_is_open(stores: &Stores) {
    let capped = |new: NewRequest| NewRequest {
        per_client: 2,
        per_user: 3,
        ..new
    };
    let ask = async |n, client, user, now| {
        let new = capped(request_of(n, client, user, now));
        stores.pending.create(&new, now).await.unwrap()
    };
    assert_eq!(ask(1, "bank", "alice", START).await, Created::Yes);
    assert_eq!(ask(2, "bank", "alice", START).await, Created::Yes);
    assert_eq!(ask(3, "bank", "alice", START).await, Created::OverClientCap);
    // Other people and other clients have room of their own, until the person's is used up.
    assert_eq!(ask(4, "bank", "bob", START).await, Created::Yes);
    assert_eq!(ask(5, "shop", "alice", START).await, Created::Yes);
    assert_eq!(ask(6, "shop", "alice", START).await, Created::OverUserCap);
    assert_eq!(ask(7, "kiosk", "alice", START).await, Created::OverUserCap);
    // What was refused is nowhere.
    assert_eq!(stores.pending.find(key(3), START).await.unwrap(), None);
    assert_eq!(stores.jobs.depth().await.unwrap().alive, 4);
    // What is decided does not count, and neither does what has run out.
    for (n, state) in [(1, State::Approved), (2, State::Denied)] {
        stores.pending.project(key(n), state).await.unwrap();
        assert_eq!(ask(n + 10, "bank", "alice", START).await, Created::Yes);
        assert_eq!(
            ask(n + 20, "bank", "alice", START).await,
            Created::OverClientCap
        );
    }
    let last = at(120).minus(Duration::from_millis(1));
    assert_eq!(ask(30, "bank", "alice", last).await, Created::OverClientCap);
    assert_eq!(ask(31, "bank", "alice", at(120)).await, Created::Yes);
}

/// At most two prompts in ten seconds, three in a minute, four in an hour.
fn budgeted(n: u32, now: Timestamp) -> NewRequest {
    let budget = |prompts, seconds| PromptBudget::new(prompts, Duration::from_secs(seconds));
    let new = request_of(n, "bank", "alice", now);
    NewRequest {
        budgets: PromptBudgets([budget(2, 10), budget(3, 60), budget(4, 3600)]),
        instead: Some(Job::PublishEvent {
            event: Event {
                id: format!("instead of {n}"),
                at: now,
                partition: PARTITION,
                kind: EventKind::PromptsExceeded {
                    user: new.facts.user_id.clone(),
                    client: new.facts.client_id.clone(),
                },
            },
        }),
        ..new
    }
}

async fn a_person_is_woken_within_the_budgets(stores: &Stores) {
    let mut prompted = Vec::new();
    let mut n = 0;
    for second in [
        0, 0, 0, 9, 10, 11, 21, 59, 60, 61, 71, 600, 3599, 3600, 3601,
    ] {
        n += 1;
        let new = budgeted(n, at(second));
        let created = create(stores, &new).await;
        // Whatever it is, it is there, and again it is what it was.
        assert_eq!(create(stores, &new).await, Created::Yes);
        assert_eq!(state_at(stores, n, at(second)).await, State::Pending);
        let jobs = stores
            .jobs
            .claim(10, Duration::from_secs(1), at(second))
            .await
            .unwrap();
        assert_eq!(jobs.len(), 1);
        match created {
            Created::Yes => {
                assert_eq!(Some(&jobs[0].job), new.job.as_ref());
                prompted.push(second);
            }
            Created::InboxOnly => assert_eq!(Some(&jobs[0].job), new.instead.as_ref()),
            other => panic!("{other:?}"),
        }
        assert!(stores.jobs.ack(&jobs[0]).await.unwrap());
    }
    assert_eq!(prompted, [0, 0, 10, 60, 3600, 3600 + 1]);
}

async fn a_crowd_wakes_a_person_within_the_budgets(stores: &Stores) {
    let created = all((0..20).map(|n| {
        let pending = stores.pending.clone();
        async move { pending.create(&budgeted(n, START), START).await.unwrap() }
    }))
    .await;
    let woken = created.iter().filter(|one| **one == Created::Yes).count();
    let quiet = created.iter().filter(|one| **one == Created::InboxOnly);
    assert_eq!((woken, quiet.count()), (2, 18));
}

async fn a_request_may_wake_nobody(stores: &Stores) {
    for n in 0..3 {
        let quiet = NewRequest {
            job: None,
            ..budgeted(n, START)
        };
        assert_eq!(create(stores, &quiet).await, Created::Yes);
    }
    assert_eq!(stores.jobs.depth().await.unwrap().alive, 0);
    // They have spent nothing.
    assert_eq!(create(stores, &budgeted(3, START)).await, Created::Yes);
    assert_eq!(create(stores, &budgeted(4, START)).await, Created::Yes);
    assert_eq!(
        create(stores, &budgeted(5, START)).await,
        Created::InboxOnly
    );
}

async fn a_decoy_takes_the_clients_places_and_nobody_elses(stores: &Stores) {
    let ask = async |n, client, decoy| {
        let mut new = NewRequest {
            per_client: 2,
            per_user: 3,
            ..request_of(n, client, "alice", START)
        };
        new.facts.decoy = decoy;
        create(stores, &new).await
    };
    assert_eq!(ask(1, "bank", true).await, Created::Yes);
    assert_eq!(ask(2, "bank", true).await, Created::Yes);
    assert_eq!(ask(3, "bank", true).await, Created::OverClientCap);
    assert_eq!(ask(3, "bank", false).await, Created::OverClientCap);
    for n in 4..7 {
        assert_eq!(
            ask(n, ["shop", "kiosk"][n as usize % 2], false).await,
            Created::Yes
        );
    }
    assert_eq!(ask(7, "kiosk", false).await, Created::OverUserCap);
    // It is found by who holds its handle, and stands in nobody's inbox.
    let found = stores.pending.find(key(1), START).await.unwrap().unwrap();
    assert!(found.facts.decoy);
    let alice = UserId::new("alice");
    let open = stores
        .pending
        .open_for(&alice, PARTITION, START)
        .await
        .unwrap();
    let open: Vec<_> = open.iter().map(|request| request.facts.id).collect();
    let mut expected = [4, 5, 6].map(id);
    expected.sort();
    assert_eq!(open, expected);
    // One that is over gives its place back.
    stores
        .pending
        .project(key(1), State::Cancelled)
        .await
        .unwrap();
    let mut new = request_of(8, "bank", "alice", START);
    new.facts.decoy = true;
    new.per_client = 2;
    assert_eq!(create(stores, &new).await, Created::Yes);
    assert_eq!(ask(9, "bank", true).await, Created::OverClientCap);
}

async fn state_at(stores: &Stores, n: u32, now: Timestamp) -> State {
    stores
        .pending
        .find(key(n), now)
        .await
        .unwrap()
        .unwrap()
        .state
}

async fn a_crowd_gets_as_many_places_as_there_are(stores: &Stores) {
    let created = all((0..40).map(|n| {
        let pending = stores.pending.clone();
        let new = NewRequest {
            per_client: 3,
            per_user: 5,
            ..request_of(n, ["bank", "shop"][n as usize % 2], "alice", START)
        };
        async move { (n % 2, pending.create(&new, START).await.unwrap()) }
    }))
    .await;
    let places = |of: u32| {
        created
            .iter()
            .filter(|(client, created)| *client == of && *created == Created::Yes)
            .count()
    };
    assert_eq!(places(0) + places(1), 5);
    assert!(places(0) <= 3 && places(1) <= 3);
    assert_eq!(stores.jobs.depth().await.unwrap().alive, 5);
}

pub fn slot(body: &str, sealed: &str) -> IdempotencySlot {
    IdempotencySlot {
        scope_hash: "bank, order 7".into(),
        body_hash: body.into(),
        sealed_auth_req_id: sealed.into(),
        expires_at: at(120),
    }
}

async fn an_idempotency_key_stands_for_one_request(stores: &Stores) {
    let reserve =
        async |slot: IdempotencySlot, now| stores.pending.reserve(&slot, now).await.unwrap();
    let first = Reservation::Replay {
        sealed_auth_req_id: "first".into(),
    };
    assert_eq!(
        reserve(slot("body", "first"), START).await,
        Reservation::Fresh
    );
    assert_eq!(reserve(slot("body", "second"), START).await, first);
    assert_eq!(
        reserve(slot("other", "third"), START).await,
        Reservation::Conflict
    );
    let elsewhere = IdempotencySlot {
        scope_hash: "shop, order 7".into(),
        ..slot("other", "fourth")
    };
    assert_eq!(reserve(elsewhere, START).await, Reservation::Fresh);
    // It holds to the end, and then it is free for anything.
    let last = at(120).minus(Duration::from_millis(1));
    assert_eq!(reserve(slot("body", "fifth"), last).await, first);
    let again = IdempotencySlot {
        expires_at: at(240),
        ..slot("other", "sixth")
    };
    assert_eq!(reserve(again, at(120)).await, Reservation::Fresh);
    assert_eq!(
        reserve(slot("body", "seventh"), at(120)).await,
        Reservation::Conflict
    );
}

async fn one_of_many_gets_the_slot(stores: &Stores) {
    let reservations = all((0..16).map(|n| {
        let pending = stores.pending.clone();
        let sealed = format!("{n}");
        async move {
            (
                sealed.clone(),
                pending
                    .reserve(&slot("body", &sealed), START)
                    .await
                    .unwrap(),
            )
        }
    }))
    .await;
    let (fresh, replays): (Vec<_>, Vec<_>) = reservations
        .into_iter()
        .partition(|(_, reservation)| *reservation == Reservation::Fresh);
    assert_eq!(fresh.len(), 1);
    let winner = Reservation::Replay {
        sealed_auth_req_id: fresh[0].0.clone(),
    };
    assert!(
        replays.iter().all(|(_, replay)| *replay == winner),
        "{replays:?}"
    );
}

async fn a_slot_without_a_request_can_be_given_back(stores: &Stores) {
    let (first, other) = (slot("body", "first"), slot("other", "second"));
    let reserve = async |slot: &IdempotencySlot| stores.pending.reserve(slot, START).await.unwrap();
    let release =
        async |slot: &IdempotencySlot| stores.pending.release(slot, key(1)).await.unwrap();
    assert_eq!(reserve(&first).await, Reservation::Fresh);
    release(&first).await;
    assert_eq!(reserve(&other).await, Reservation::Fresh);
    // Whoever had it before can no longer give it back.
    release(&first).await;
    assert_eq!(reserve(&first).await, Reservation::Conflict);
    // Nor anybody, once the request is there.
    create(stores, &new_request(1)).await;
    release(&other).await;
    assert_eq!(reserve(&first).await, Reservation::Conflict);
}

async fn polls_are_paced(stores: &Stores) {
    create(stores, &new_request(1)).await;
    create(stores, &new_request(2)).await;
    let poll = async |n, replaces, now| {
        let poll = Poll {
            replaces,
            held_until: None,
        };
        let polled = stores.pending.poll(key(n), poll, at(now)).await.unwrap();
        polled.unwrap().pace
    };
    assert_eq!(poll(1, false, 0).await, Pace::Kept);
    // Reading is not polling, and each request has a rhythm of its own.
    stores.pending.find(key(1), at(1)).await.unwrap();
    assert_eq!(poll(2, false, 1).await, Pace::Kept);
    assert_eq!(poll(1, false, 5).await, Pace::Kept);
    assert_eq!(poll(1, false, 6).await, Pace::Broken);
    // Slower by five seconds from now on.
    assert_eq!(poll(1, false, 15).await, Pace::Broken);
    assert_eq!(poll(1, false, 30).await, Pace::Kept);
    // A poll that replaces a held one is never early, and time counts from it.
    assert_eq!(poll(1, true, 31).await, Pace::Kept);
    assert_eq!(poll(1, true, 32).await, Pace::Kept);
    assert_eq!(poll(1, false, 47).await, Pace::Kept);
    assert_eq!(poll(1, false, 50).await, Pace::Broken);
    // A result is given out at any pace.
    stores.pending.project(key(1), State::Denied).await.unwrap();
    assert_eq!(poll(1, false, 50).await, Pace::Kept);
    assert_eq!(poll(2, false, 120).await, Pace::Kept);
    assert_eq!(poll(2, false, 120).await, Pace::Kept);
    let unknown = stores
        .pending
        .poll(key(9), Poll::default(), START)
        .await
        .unwrap();
    assert!(unknown.is_none());
}

/// The job stands for "store first, then send": without it the request would wait unseen.
async fn a_request_whose_job_cannot_be_stored_is_not_there(backend: Backend) {
    let house = House::new(backend).await;
    house.backend.refuse("INSERT", "jobs").await;
    let refused = house.pending.create(&new_request(1), START).await;
    assert!(
        matches!(refused, Err(StoreError::Unavailable(_))),
        "{refused:?}"
    );
    assert_eq!(house.pending.find(key(1), START).await.unwrap(), None);
    house.backend.allow("INSERT", "jobs").await;
    let created = house.pending.create(&new_request(1), START).await.unwrap();
    assert_eq!(created, Created::Yes);
    assert_eq!(house.backend.count("jobs").await, 1);
}

async fn a_damaged_request_is_reported_with_its_place(backend: Backend) {
    let house = House::new(backend).await;
    let pending = &house.pending;
    for (n, column, damage) in [(1, "facts", "{}"), (2, "state", "perhaps")] {
        let user = format!("user {n}");
        let new = request_of(n, "bank", &user, START);
        pending.create(&new, START).await.unwrap();
        let update = format!(
            "UPDATE pending_requests SET {column} = '{damage}' WHERE request_id = '{}'",
            id(n)
        );
        assert_eq!(house.backend.execute(&update).await, 1);
        let found = pending.find(key(n), START).await.map(drop);
        let polled = pending.poll(key(n), Poll::default(), START).await.map(drop);
        for result in [found, polled] {
            assert!(
                matches!(&result, Err(StoreError::Corrupt { table: "pending_requests", row, what })
                    if *row == id(n).to_string() && *what == column),
                "{result:?}"
            );
        }
        // The Ledger's word mends a state, and other people are not troubled.
        assert!(
            pending
                .open_for(&UserId::new("alice"), PARTITION, START)
                .await
                .unwrap()
                .is_empty()
        );
        pending.project(key(n), State::Denied).await.unwrap();
    }
    assert_eq!(state(&**pending, key(2)).await, State::Denied);
}

async fn nothing_is_kept_of_who_is_asked_no_more(backend: Backend) {
    let house = House::new(backend).await;
    let (alice, pending) = (house.user("alice").await, &house.core.services.pending);
    for (n, user) in [(0, "nobody"), (1, alice.id.as_str()), (2, "nobody else")] {
        let mut new = request_of(n, "bank", user, at(i64::from(n) * 500));
        new.facts.decoy = n != 1;
        pending.create(&new, new.facts.created_at).await.unwrap();
    }
    let counts = async || {
        let count = async |table: &'static str| house.backend.count(table).await;
        (count("request_caps").await, count("prompts").await)
    };
    assert_eq!(counts().await, (3, 3));
    // Whose requests are gone has no place any more; only a person's prompts are remembered for a day.
    let second_is_gone = at(120 + 60 + 600 + 500);
    for (now, left) in [
        (second_is_gone, (1, 2)),
        (at(2000), (0, 1)),
        (at(24 * 3600 + 499), (0, 1)),
        (at(24 * 3600 + 500), (0, 0)),
    ] {
        for _ in 0..2 {
            pending.sweep(now).await.unwrap();
        }
        assert_eq!(counts().await, left, "{now:?}");
    }
}
