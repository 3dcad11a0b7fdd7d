//! The process dies between what happens and the telling of it.
#![cfg(feature = "failpoints")]

use super::cast::{Bank, Cast, Flow};
use super::failpoints::{died, doomed};
use crate::support::process::{Site, finish, pause};
use crate::support::rp_endpoint::{Reply, RpEndpoint};
use crate::support::{Backend, on_both};
use assent::clock::{Clock as _, SystemClock};
use assent::domain::Decision;
use serde_json::json;
use std::collections::BTreeSet;
use std::time::Duration;

on_both!(
    a_revocation_is_told_after_death_at_every_step,
    a_dead_job_is_told_twice_rather_than_never,
);

const SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
/// The steps of telling, each with how often the endpoint hears of it.
const PUBLISH: [(&str, usize); 3] = [
    ("publish.claimed", 1),
    ("publish.before_send", 1),
    ("publish.after_answer", 2),
];

fn site(backend: Backend, endpoint: &RpEndpoint) -> Site {
    let settings = vec![
        ("webhook.url", endpoint.url.clone()),
        ("webhook.secret", SECRET.to_owned()),
    ];
    Site::with(backend, settings)
}

/// Until nothing is left to be told; the leases of the dead have run out.
async fn until_told(site: &Site) {
    let end_leases = "UPDATE jobs SET due_at = 0 WHERE dead_at IS NULL";
    site.backend.execute(end_leases).await;
    let until = SystemClock.now().plus(Duration::from_secs(20));
    let alive = "jobs WHERE queue = 'ledger' AND dead_at IS NULL";
    while site.backend.count(alive).await > 0 {
        assert!(SystemClock.now() < until, "the job is never done");
        pause(20).await;
    }
}

/// What the endpoint was told of this kind, by id and body.
fn told(endpoint: &RpEndpoint, kind: &str) -> Vec<(String, String)> {
    let of_kind = |body: &str| body.contains(&format!("\"type\":\"{kind}\""));
    let told = endpoint.received().into_iter();
    let told = told.filter(|one| of_kind(&one.body));
    told.map(|one| (one.header("webhook-id"), one.body.clone()))
        .collect()
}

async fn a_revocation_is_told_after_death_at_every_step(backend: Backend) {
    let endpoint = RpEndpoint::new(&[]).await;
    let site = site(backend, &endpoint);
    let (cast, mut server) = Cast::new(&site, 0, PUBLISH.len()).await;
    until_told(&site).await;
    server.stop().await;
    for (person, (step, times)) in cast.people.iter().zip(PUBLISH) {
        let before = told(&endpoint, "device.revoked").len();
        let mut server = doomed(&site, step, 1).await;
        // By another process, which is gone at once.
        let device = person.phone.id();
        site.json(&["device", "revoke", device.as_str()]);
        died(&mut server, step).await;
        let mut server = site.serve().await;
        until_told(&site).await;
        server.stop().await;
        let told = told(&endpoint, "device.revoked").split_off(before);
        assert_eq!(told.len(), times, "{step}: {told:?}");
        assert!(told.iter().all(|one| *one == told[0]), "{step}: {told:?}");
        assert!(told[0].1.contains(device.as_str()), "{step}: {told:?}");
    }
    let events = "jobs WHERE id LIKE 'publish_event:%'";
    assert_eq!(site.backend.count(events).await, 0);
}

async fn a_dead_job_is_told_twice_rather_than_never(backend: Backend) {
    let endpoint = RpEndpoint::new(&[]).await;
    let rp = RpEndpoint::new(&[Reply::Status(400); 2]).await;
    let site = site(backend, &endpoint);
    let (cast, mut server) = Cast::new(&site, 0, 1).await;
    let options = ["--mode", "ping", "--notification-endpoint", &rp.url];
    let bank = Bank::register(&site, "ping", &options);
    until_told(&site).await;
    server.stop().await;
    let mut server = doomed(&site, "dead.told", 1).await;
    let mut flow = Flow::begin(&bank, &cast.people[0], Decision::Deny).await;
    let shown = flow.look().await;
    let answer = flow
        .person
        .phone
        .try_answer(&shown, Decision::Deny, None)
        .await;
    died(&mut server, "dead.told").await;
    drop(answer);
    let mut server = site.serve().await;
    until_told(&site).await;
    server.stop().await;
    // Each of them may be heard twice: its server may have died before it could take note.
    let told = told(&endpoint, "job.dead");
    let deaths: BTreeSet<_> = told.iter().map(|(id, _)| id).collect();
    assert_eq!(deaths.len(), 1, "it is one event: {told:?}");
    let dead = site.json(&["dead-letters", "list"]);
    assert_eq!(dead.as_array().unwrap().len(), 1, "{dead}");
    let report = finish(site.command(&["audit", "verify"]));
    assert_eq!(report.code, Some(0), "{report:?}");
    assert_eq!(json!(rp.received().len()), 2);
}
