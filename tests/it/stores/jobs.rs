//! Leased jobs: each is done, by somebody, in the end.

use super::{Stores, at, id, in_every_store, job_of, new_request, request_of};
use crate::support::{Backend, House, START, all, on_both};
use assent::domain::Timestamp;
use assent::store::sql::SqlJobQueue;
use assent::store::{ClaimedJob, JobQueue, QueueDepth};
use std::collections::BTreeMap;
use std::time::Duration;

in_every_store!(
    the_most_overdue_job_comes_first,
    a_lease_hides_a_job_and_ends,
    only_the_last_attempt_acknowledges,
    a_retry_is_due_when_it_says,
    a_buried_job_is_kept_and_never_done,
    an_error_of_any_length_is_taken,
    eight_workers_claim_each_job_once,
);
on_both!(
    queues_do_not_see_each_other,
    a_job_that_nobody_can_read_holds_up_no_other,
);

const LEASE: Duration = Duration::from_secs(30);

/// Makes the `n`th job, due at `due`.
async fn add(stores: &Stores, n: u32, due: Timestamp) {
    let new = request_of(n, "bank", &format!("user {n}"), due);
    stores.pending.create(&new, due).await.unwrap();
}

async fn claim(stores: &Stores, limit: u32, now: Timestamp) -> Vec<ClaimedJob> {
    stores.jobs.claim(limit, LEASE, now).await.unwrap()
}

async fn claim_one(stores: &Stores, now: Timestamp) -> ClaimedJob {
    let mut jobs = claim(stores, 10, now).await;
    assert_eq!(jobs.len(), 1, "{jobs:?}");
    jobs.remove(0)
}

async fn depth(stores: &Stores) -> (u64, u64) {
    let QueueDepth { alive, dead } = stores.jobs.depth().await.unwrap();
    (alive, dead)
}

async fn the_most_overdue_job_comes_first(stores: &Stores) {
    for (n, due) in [(1, 3), (2, 1), (3, 9), (4, 2), (5, 0)] {
        add(stores, n, at(due)).await;
    }
    let id_of = |n| job_of(new_request(n)).id();
    let mut order = Vec::new();
    for _ in 0..2 {
        let jobs = claim(stores, 1, at(5)).await;
        assert_eq!(jobs.len(), 1);
        order.push(jobs[0].id.clone());
    }
    assert_eq!(order, [id_of(5), id_of(2)]);
    // As many as were asked for, and none that is not due.
    let mut rest: Vec<_> = claim(stores, 10, at(5))
        .await
        .into_iter()
        .map(|job| job.id)
        .collect();
    rest.sort();
    let mut expected = [id_of(4), id_of(1)];
    expected.sort();
    assert_eq!(rest, expected);
    assert!(claim(stores, 10, at(8)).await.is_empty());
    assert_eq!(claim_one(stores, at(9)).await.id, id_of(3));
    assert_eq!(depth(stores).await, (5, 0));
}

async fn a_lease_hides_a_job_and_ends(stores: &Stores) {
    add(stores, 1, START).await;
    let mut now = START;
    for attempt in 1..=3 {
        let claimed = claim_one(stores, now).await;
        assert_eq!(
            (claimed.attempt, &claimed.job),
            (attempt, &job_of(request_of(1, "bank", "user 1", START)))
        );
        let end = now.plus(LEASE);
        for hidden in [now, end.minus(Duration::from_millis(1))] {
            assert!(claim(stores, 10, hidden).await.is_empty());
        }
        now = end;
    }
    assert_eq!(depth(stores).await, (1, 0));
}

async fn only_the_last_attempt_acknowledges(stores: &Stores) {
    add(stores, 1, START).await;
    let lost = claim_one(stores, START).await;
    let held = claim_one(stores, at(30)).await;
    assert!(!stores.jobs.ack(&lost).await.unwrap());
    assert!(!stores.jobs.retry(&lost, START, "late").await.unwrap());
    assert!(!stores.jobs.bury(&lost, "late", at(31)).await.unwrap());
    // None of that changed anything: the lease still holds, and its holder may end it.
    assert!(claim(stores, 10, at(59)).await.is_empty());
    assert_eq!(depth(stores).await, (1, 0));
    assert!(stores.jobs.ack(&held).await.unwrap());
    assert!(!stores.jobs.ack(&held).await.unwrap());
    assert!(!stores.jobs.retry(&held, START, "gone").await.unwrap());
    assert_eq!(depth(stores).await, (0, 0));
    assert!(claim(stores, 10, at(1000)).await.is_empty());
}

async fn a_retry_is_due_when_it_says(stores: &Stores) {
    add(stores, 1, START).await;
    let first = claim_one(stores, START).await;
    assert!(stores.jobs.retry(&first, at(2), "no answer").await.unwrap());
    assert!(claim(stores, 10, at(1)).await.is_empty());
    let second = claim_one(stores, at(2)).await;
    assert_eq!((second.id, second.attempt), (first.id.clone(), 2));
    assert!(!stores.jobs.ack(&first).await.unwrap());
}

async fn a_buried_job_is_kept_and_never_done(stores: &Stores) {
    add(stores, 1, START).await;
    add(stores, 2, START).await;
    let job = claim(stores, 1, START).await.remove(0);
    assert!(stores.jobs.bury(&job, "too late", at(1)).await.unwrap());
    assert_eq!(depth(stores).await, (1, 1));
    assert!(!stores.jobs.ack(&job).await.unwrap());
    assert!(!stores.jobs.retry(&job, at(1), "again").await.unwrap());
    assert!(!stores.jobs.bury(&job, "again", at(1)).await.unwrap());
    let other = claim_one(stores, at(1000)).await;
    assert_ne!(other.id, job.id);
    assert!(stores.jobs.ack(&other).await.unwrap());
    assert_eq!(depth(stores).await, (0, 1));
}

async fn an_error_of_any_length_is_taken(stores: &Stores) {
    add(stores, 1, START).await;
    for (i, error) in [
        "",
        "ü",
        &"x".repeat(10_000),
        &format!("x{}", "ü".repeat(10_000)),
    ]
    .into_iter()
    .enumerate()
    {
        let now = at(i as i64);
        let job = claim_one(stores, now).await;
        assert!(
            stores
                .jobs
                .retry(&job, now.plus(Duration::from_secs(1)), error)
                .await
                .unwrap()
        );
    }
}

/// On PostgreSQL, claims that wait for each other take a job twice, or block each other for good.
async fn eight_workers_claim_each_job_once(stores: &Stores) {
    const JOBS: u32 = 500;
    all((0..JOBS).map(|n| {
        let pending = stores.pending.clone();
        let new = request_of(n, "bank", &format!("user {n}"), START);
        async move { pending.create(&new, START).await.unwrap() }
    }))
    .await;
    let claims = all((0..8).map(|worker| {
        let jobs = stores.jobs.clone();
        async move {
            let mut taken = Vec::new();
            loop {
                let claimed = jobs.claim(1 + worker % 4, LEASE, START).await.unwrap();
                // "None" may only mean that a rival was faster.
                if claimed.is_empty() && jobs.depth().await.unwrap().alive == 0 {
                    break;
                }
                for job in claimed {
                    assert!(jobs.ack(&job).await.unwrap(), "{job:?}");
                    taken.push((job.id, job.attempt));
                }
            }
            taken
        }
    }))
    .await;
    let mut times = BTreeMap::new();
    for (job, attempt) in claims.into_iter().flatten() {
        assert_eq!(attempt, 1);
        *times.entry(job).or_insert(0) += 1;
    }
    assert_eq!(times.len(), JOBS as usize);
    assert!(times.values().all(|times| *times == 1));
}

async fn queues_do_not_see_each_other(backend: Backend) {
    let house = House::new(backend).await;
    house.pending.create(&new_request(1), START).await.unwrap();
    let ledger = SqlJobQueue::new(house.db().clone(), "ledger");
    assert!(ledger.claim(10, LEASE, START).await.unwrap().is_empty());
    assert_eq!(ledger.depth().await.unwrap(), QueueDepth::default());
    let pending = SqlJobQueue::new(house.db().clone(), "pending");
    let job = pending.claim(10, LEASE, START).await.unwrap().remove(0);
    assert!(!ledger.ack(&job).await.unwrap());
    assert!(!ledger.bury(&job, "", START).await.unwrap());
    assert!(pending.ack(&job).await.unwrap());
}

/// A newer node may write kinds of jobs that this one does not know; they wait for one that does.
async fn a_job_that_nobody_can_read_holds_up_no_other(backend: Backend) {
    let house = House::new(backend).await;
    let jobs = SqlJobQueue::new(house.db().clone(), "pending");
    for n in 1..=2 {
        let new = request_of(n, "bank", "alice", at(i64::from(n)));
        house.pending.create(&new, at(i64::from(n))).await.unwrap();
    }
    let strange = format!(
        "UPDATE jobs SET payload = '{{\"kind\":\"later\"}}' WHERE id LIKE '%{}'",
        id(1)
    );
    assert_eq!(house.backend.execute(&strange).await, 1);
    let mut claimed = Vec::new();
    for _ in 0..2 {
        claimed.extend(jobs.claim(1, LEASE, at(5)).await.unwrap());
    }
    assert_eq!(claimed.len(), 1);
    assert_eq!(
        claimed[0].job,
        job_of(request_of(2, "bank", "alice", at(2)))
    );
    // It is still there, under a lease, and people can see why.
    assert_eq!(
        jobs.depth().await.unwrap(),
        QueueDepth { alive: 2, dead: 0 }
    );
    let why = house
        .backend
        .column("SELECT last_error FROM jobs WHERE last_error IS NOT NULL")
        .await;
    assert_eq!(why, ["this program cannot read the job"]);
    assert!(jobs.claim(10, LEASE, at(34)).await.unwrap().is_empty());
}
