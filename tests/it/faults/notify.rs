//! The process dies at each step of telling a client, and comes back.
#![cfg(feature = "failpoints")]

use super::cast::{Bank, Cast, Flow, NOTIFICATION_TOKEN, claims};
use super::failpoints::{died, doomed};
use super::invariants;
use crate::support::process::{Site, pause};
use crate::support::rp_endpoint::{Notification, Reply, RpEndpoint};
use crate::support::{Backend, on_both};
use assent::clock::{Clock as _, SystemClock};
use assent::domain::Decision;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

on_both!(
    ping_survives_death_at_every_step,
    push_survives_death_at_every_step,
    a_denial_is_pushed_again_after_death,
    giving_up_a_push_survives_death_at_every_step,
    giving_up_a_ping_survives_death,
);

/// The steps of a ping, each with how often the client is told in the end.
const PING: [(&str, usize); 3] = [
    ("notify.claimed", 1),
    ("notify.before_send", 1),
    ("notify.after_answer", 2),
];
/// The steps of a push, each with how often the client is told in the end, and whether its tokens were
/// committed before the death: then it gets those, else new ones.
const PUSH: [(&str, usize, bool); 9] = [
    ("notify.claimed", 1, false),
    ("redeem.before_ledger", 1, false),
    ("redeem.after_mint", 1, false),
    ("redeem.before_commit", 1, false),
    ("redeem.after_commit", 1, true),
    ("redeem.after_projection", 1, true),
    ("notify.before_send", 1, true),
    ("notify.after_answer", 2, true),
    ("notify.after_erase", 1, true),
];
const GIVE_UP: [&str; 3] = [
    "give_up.before_ledger",
    "give_up.before_commit",
    "give_up.after_commit",
];
const REFRESH: [&str; 4] = [
    "--grant",
    "urn:openid:params:grant-type:ciba",
    "--grant",
    "refresh_token",
];

/// A client that is told at an endpoint which outlives every server.
async fn told(site: &Site, mode: &str, replies: &[Reply]) -> (Arc<Bank>, RpEndpoint) {
    let endpoint = RpEndpoint::new(replies).await;
    let options = ["--mode", mode, "--notification-endpoint", &endpoint.url];
    let bank = Bank::register(site, mode, &[&options[..], &REFRESH].concat());
    (bank, endpoint)
}

/// A server that dies at `step` while it tells the bank of a decision, and what that was about.
async fn die_telling(
    site: &Site,
    cast: &Cast,
    bank: &Arc<Bank>,
    decision: Decision,
    step: &str,
) -> Flow {
    let mut server = doomed(site, step, 1).await;
    let mut flow = Flow::begin(bank, &cast.people[0], decision).await;
    let shown = flow.look().await;
    // The server may be gone before the phone reads its answer; then the phone sends it once more.
    let answer = flow.person.phone.try_answer(&shown, decision, None).await;
    died(&mut server, step).await;
    assert!(answer.is_err() || answer.unwrap().status == 200, "{step}");
    flow.acknowledged = true;
    flow
}

/// The lease of the dead: it has run out.
async fn end_leases(site: &Site) {
    site.backend
        .execute("UPDATE jobs SET due_at = 0 WHERE dead_at IS NULL")
        .await;
}

/// Waits until nothing is left to be told.
async fn until_told(site: &Site) {
    let until = SystemClock.now().plus(Duration::from_secs(20));
    let alive = "jobs WHERE queue = 'ledger' AND dead_at IS NULL";
    while site.backend.count(alive).await > 0 {
        assert!(SystemClock.now() < until, "the job is never done");
        pause(20).await;
    }
}

/// What has arrived since `before`: the same every time, with the right credentials.
fn arrived(endpoint: &RpEndpoint, before: usize, step: &str) -> Vec<Notification> {
    let arrived = endpoint.received().split_off(before);
    for one in &arrived {
        assert_eq!(one.body, arrived[0].body, "{step}: not the same bytes");
        let bearer = format!("Bearer {NOTIFICATION_TOKEN}");
        assert_eq!(one.authorization, bearer, "{step}");
    }
    arrived
}

async fn issued(site: &Site, flow: &Flow) -> Vec<String> {
    let id = flow.id();
    let query = format!("SELECT token_id FROM issuances WHERE request_id = '{id}'");
    site.backend.column(&query).await
}

async fn audited(site: &Site, kind: &str) -> usize {
    let rows = format!("audit WHERE kind = '{kind}'");
    site.backend.count(&rows).await
}

fn assert_audit_is_whole(site: &Site) {
    let report = site.json(&["audit", "verify"]);
    assert_eq!(report["findings"], json!([]));
}

async fn ping_survives_death_at_every_step(backend: Backend) {
    let site = Site::with(backend, vec![("ciba.interval", "1s".into())]);
    let (cast, server) = Cast::new(&site, 0, 1).await;
    let (bank, endpoint) = told(&site, "ping", &[]).await;
    server.kill();
    let mut flows = Vec::new();
    for (step, times) in PING {
        for decision in [Decision::Approve, Decision::Deny] {
            let before = endpoint.received().len();
            let mut flow = die_telling(&site, &cast, &bank, decision, step).await;

            end_leases(&site).await;
            let _server = site.serve().await;
            until_told(&site).await;
            let pings = arrived(&endpoint, before, step);
            assert_eq!(pings.len(), times, "{step}");
            let body = json!({ "auth_req_id": flow.auth_req_id });
            assert_eq!(pings[0].json(), body, "{step}");
            // Tokens once, and `invalid_grant` ever after.
            flow.redeem(0).await;
            flows.push(flow);
        }
    }
    invariants::check(&site, &flows).await;
}

async fn push_survives_death_at_every_step(backend: Backend) {
    let site = Site::new(backend);
    let (cast, server) = Cast::new(&site, 0, 1).await;
    let (bank, endpoint) = told(&site, "push", &[]).await;
    server.kill();
    for (step, times, survives) in PUSH {
        let before = endpoint.received().len();
        let flow = die_telling(&site, &cast, &bank, Decision::Approve, step).await;
        let committed = issued(&site, &flow).await;

        end_leases(&site).await;
        let _server = site.serve().await;
        until_told(&site).await;
        let pushes = arrived(&endpoint, before, step);
        assert_eq!(pushes.len(), times, "{step}");
        let body = pushes[0].json();
        assert_eq!(body["auth_req_id"], flow.auth_req_id.as_str(), "{step}");
        let token = body["access_token"].as_str().unwrap();
        let jti = claims(token)["jti"].as_str().unwrap().to_owned();
        assert_eq!(issued(&site, &flow).await, [jti.as_str()], "{step}");
        let before_death: &[String] = if survives { &[jti] } else { &[] };
        assert_eq!(committed, before_death, "{step}: other tokens");
        assert_eq!(bank.introspect(token).await["active"], true, "{step}");
    }
    let all = PUSH.len();
    assert_eq!(site.backend.count("issuances").await, all);
    assert_eq!(audited(&site, "tokens.issued").await, all);
    assert_eq!(site.backend.count("access_tokens").await, all);
    assert_eq!(site.backend.count("refresh_families").await, all);
    let kept = "issuances WHERE response IS NOT NULL";
    assert_eq!(site.backend.count(kept).await, 0, "nothing is kept");
    assert_audit_is_whole(&site);
}

async fn a_denial_is_pushed_again_after_death(backend: Backend) {
    let site = Site::new(backend);
    let (cast, server) = Cast::new(&site, 0, 1).await;
    let (bank, endpoint) = told(&site, "push", &[]).await;
    server.kill();
    for (step, times) in PING {
        let before = endpoint.received().len();
        let flow = die_telling(&site, &cast, &bank, Decision::Deny, step).await;

        end_leases(&site).await;
        let _server = site.serve().await;
        until_told(&site).await;
        let pushes = arrived(&endpoint, before, step);
        assert_eq!(pushes.len(), times, "{step}");
        assert_eq!(pushes[0].json()["error"], "access_denied", "{step}");
        assert_eq!(pushes[0].json()["auth_req_id"], flow.auth_req_id.as_str());
    }
    assert_eq!(site.backend.count("issuances").await, 0);
    assert_audit_is_whole(&site);
}

/// The endpoint refuses for good: however the server dies over it, no token of the set lives on, and
/// one dead letter tells of it.
async fn giving_up_a_push_survives_death_at_every_step(backend: Backend) {
    let site = Site::new(backend);
    let (cast, server) = Cast::new(&site, 0, 1).await;
    let (bank, endpoint) = told(&site, "push", &[Reply::Status(401); 99]).await;
    server.kill();
    for (n, step) in GIVE_UP.into_iter().enumerate() {
        let before = endpoint.received().len();
        let flow = die_telling(&site, &cast, &bank, Decision::Approve, step).await;

        end_leases(&site).await;
        let _server = site.serve().await;
        until_told(&site).await;
        let pushes = arrived(&endpoint, before, step);
        let body = pushes[0].json();
        for token in ["access_token", "refresh_token"] {
            let about = bank.introspect(body[token].as_str().unwrap()).await;
            assert_eq!(about, json!({ "active": false }), "{step}: {token}");
        }
        assert_eq!(issued(&site, &flow).await.len(), 1, "{step}");
        let dead = dead_letters(&site);
        let ours = format!("notify_client:{}", flow.id());
        let ours = dead.iter().filter(|letter| letter["id"] == ours.as_str());
        assert_eq!((ours.count(), dead.len()), (1, n + 1), "{step}");
        assert_eq!(audited(&site, "tokens.undelivered").await, n + 1, "{step}");
    }
    let kept = "issuances WHERE response IS NOT NULL";
    assert_eq!(site.backend.count(kept).await, 0, "nothing is kept");
    assert_audit_is_whole(&site);
}

/// A client that cannot be pinged can still poll.
async fn giving_up_a_ping_survives_death(backend: Backend) {
    let site = Site::with(backend, vec![("ciba.interval", "1s".into())]);
    let (cast, server) = Cast::new(&site, 0, 1).await;
    let (bank, _endpoint) = told(&site, "ping", &[Reply::Status(401); 99]).await;
    server.kill();
    let step = GIVE_UP[0];
    let mut flow = die_telling(&site, &cast, &bank, Decision::Approve, step).await;

    end_leases(&site).await;
    let _server = site.serve().await;
    until_told(&site).await;
    assert_eq!(dead_letters(&site).len(), 1);
    flow.redeem(0).await;
    assert_eq!(flow.tokens.len(), 1);
    invariants::check(&site, &[flow]).await;
}

fn dead_letters(site: &Site) -> Vec<Value> {
    let listed = site.json(&["dead-letters", "list"]);
    listed.as_array().expect("a list").clone()
}
