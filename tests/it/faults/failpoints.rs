//! The process dies at each step of decide and redeem, and comes back.
#![cfg(feature = "failpoints")]

use super::cast::{Cast, Flow};
use super::invariants;
use crate::support::process::{ServerProcess, Site, finish};
use crate::support::{Backend, RedisServers, on_both};
use assent::domain::Decision;
use std::os::unix::process::ExitStatusExt as _;
use std::time::Duration;

on_both!(
    decide_survives_death_at_every_step,
    redeem_survives_death_at_every_step,
    a_lost_token_response_is_delivered_again_where_that_is_switched_on,
    a_withdrawn_approval_stays_withdrawn,
    locking_a_person_can_be_finished_after_it_died,
);

const DECIDE: [&str; 4] = [
    "decide.before_ledger",
    "decide.before_commit",
    "decide.after_commit",
    "decide.after_projection",
];
const REDEEM: [&str; 5] = [
    "redeem.before_ledger",
    "redeem.after_mint",
    "redeem.before_commit",
    "redeem.after_commit",
    "redeem.after_projection",
];
const SIGABRT: i32 = 6;

/// A server that will die the `nth` time it comes to a step.
pub async fn doomed(site: &Site, step: &str, nth: u32) -> ServerProcess {
    let failpoint = format!("{step}:{nth}");
    site.serve_with(&[("ASSENT_FAILPOINT", &failpoint)]).await
}

/// The death that was ordered, and no other.
pub async fn died(server: &mut ServerProcess, step: &str) {
    let status = server.ended(Duration::from_secs(10)).await;
    assert_eq!(
        status.signal(),
        Some(SIGABRT),
        "{step}: {status}\n{}",
        server.log()
    );
}

fn site_on(backend: Backend) -> Site {
    Site::with(backend, vec![("ciba.interval", "1s".into())])
}

/// Pending requests in Redis, which knows nothing of the server's death.
fn site_with_redis() -> Site {
    let mut settings = RedisServers::single().settings();
    settings.push(("ciba.interval", "1s".into()));
    Site::with(Backend::sqlite(), settings)
}

async fn decide_survives_death_at_every_step(backend: Backend) {
    decide_survives_death(site_on(backend)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn decide_survives_death_at_every_step_with_redis() {
    decide_survives_death(site_with_redis()).await;
}

async fn redeem_survives_death_at_every_step(backend: Backend) {
    redeem_survives_death(site_on(backend)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redeem_survives_death_at_every_step_with_redis() {
    redeem_survives_death(site_with_redis()).await;
}

/// Each step for an approval and for a denial, the second decision in the server's life: the first was
/// acknowledged and must not suffer.
async fn decide_survives_death(site: Site) {
    let (cast, server) = Cast::new(&site, 1, 1).await;
    server.kill();
    let mut flows = Vec::new();
    for step in DECIDE {
        for decision in [Decision::Approve, Decision::Deny] {
            let mut server = doomed(&site, step, 2).await;
            let mut before = cast.begin(decision).await;
            before.decide().await;
            let mut hit = cast.begin(decision).await;
            let shown = hit.look().await;
            let answer = hit.person.phone.try_answer(&shown, decision, None).await;
            assert!(answer.is_err(), "{step}: the server answered {answer:?}");
            died(&mut server, step).await;

            let _server = site.serve().await;
            hit.send(&shown).await;
            hit.redeem(0).await;
            before.redeem(0).await;
            flows.extend([before, hit]);
        }
    }
    invariants::check(&site, &flows).await;
}

/// The relying party whose poll died polls again: at most one set of tokens was ever issued, and the
/// response that went with the server is lost only where the commit came first.
async fn redeem_survives_death(site: Site) {
    let (cast, server) = Cast::new(&site, 1, 1).await;
    server.kill();
    let mut flows = Vec::new();
    for step in REDEEM {
        let mut server = doomed(&site, step, 2).await;
        let mut before = approved(&cast).await;
        before.redeem(0).await;
        let mut hit = approved(&cast).await;
        die_at(&mut server, step, &mut hit).await;

        let _server = site.serve().await;
        hit.redeem(0).await;
        let committed = step.starts_with("redeem.after_") && step != "redeem.after_mint";
        assert_eq!(hit.tokens.len(), usize::from(!committed), "{step}");
        flows.extend([before, hit]);
    }
    invariants::check(&site, &flows).await;
}

async fn approved(cast: &Cast) -> Flow {
    let mut flow = cast.begin(Decision::Approve).await;
    flow.decide().await;
    flow
}

/// The relying party polls, and the server dies over it.
async fn die_at(server: &mut ServerProcess, step: &str, flow: &mut Flow) {
    let answer = flow.bank.poll(&flow.auth_req_id, 0).await;
    assert!(answer.is_err(), "{step}: the server answered {answer:?}");
    flow.unanswered += 1;
    died(server, step).await;
}

async fn a_lost_token_response_is_delivered_again_where_that_is_switched_on(backend: Backend) {
    let site = Site::with(backend, vec![("ciba.redelivery", "60s".into())]);
    let (cast, server) = Cast::new(&site, 1, 1).await;
    server.kill();
    for step in &REDEEM[3..] {
        let mut server = doomed(&site, step, 1).await;
        let mut hit = approved(&cast).await;
        die_at(&mut server, step, &mut hit).await;

        let _server = site.serve().await;
        let first = hit.bank.poll(&hit.auth_req_id, 0).await.unwrap();
        let second = hit.bank.poll(&hit.auth_req_id, 0).await.unwrap();
        assert_eq!((first.status, &first.body), (200, &second.body), "{step}");
        hit.tokens.push(first.json());
        let issued = site
            .backend
            .column(&format!(
                "SELECT token_id FROM issuances WHERE request_id = '{}'",
                hit.id()
            ))
            .await;
        assert_eq!(issued[0], hit.access_claims()[0]["jti"], "{step}");
    }
}

/// Locked between approval and redemption: the withdrawal dies at its commit, and no token ever comes.
async fn a_withdrawn_approval_stays_withdrawn(backend: Backend) {
    let site = Site::new(backend);
    let (cast, server) = Cast::new(&site, 1, 2).await;
    server.kill();
    for (person, step) in cast.people.iter().zip(&REDEEM[2..4]) {
        let mut server = doomed(&site, step, 1).await;
        let mut hit = Flow::begin(&cast.banks[0], person, Decision::Approve).await;
        hit.decide().await;
        site.json(&["user", "lock", &person.login]);
        die_at(&mut server, step, &mut hit).await;

        let _server = site.serve().await;
        hit.redeem(0).await;
        assert_eq!(
            (hit.tokens.len(), hit.end.as_str()),
            (0, "access_denied"),
            "{step}"
        );
    }
    let kinds = site.backend.column("SELECT kind FROM issuances").await;
    assert_eq!(kinds, ["voided", "voided"]);
    let report = site.json(&["audit", "verify"]);
    assert_eq!(report["findings"], serde_json::json!([]));
}

/// `assent user lock` dies between the lock and the end of the open requests: nobody can decide them
/// any more, and the same command again ends them.
async fn locking_a_person_can_be_finished_after_it_died(backend: Backend) {
    let site = Site::new(backend);
    let (cast, _server) = Cast::new(&site, 1, 2).await;
    for (person, step) in cast.people.iter().zip(&DECIDE[1..3]) {
        let mut open = [
            Flow::begin(&cast.banks[0], person, Decision::Approve).await,
            Flow::begin(&cast.banks[0], person, Decision::Approve).await,
        ];
        let shown = open[1].look().await;
        let mut lock = site.command(&["user", "lock", &person.login]);
        lock.env("ASSENT_FAILPOINT", step);
        let died = finish(lock);
        assert_eq!(died.code, None, "{step}: {died:?}");

        let late = person
            .phone
            .try_answer(&shown, Decision::Approve, None)
            .await;
        let late = late.unwrap();
        assert!([403, 409].contains(&late.status), "{step}: {late:?}");
        site.json(&["user", "lock", &person.login]);
        for flow in &mut open {
            flow.redeem(0).await;
            assert_eq!(flow.end, "access_denied", "{step}");
        }
    }
    assert_eq!(site.backend.count("outcomes").await, 4);
    assert_eq!(site.backend.count("issuances").await, 0);
    let report = site.json(&["audit", "verify"]);
    assert_eq!(report["findings"], serde_json::json!([]));
}
