//! Two nodes of one issuer on one database and one Redis: what began on one goes on at the other.

use crate::support::process::pause;
use crate::support::{
    RelyingParty, TestApp, approve, assert_oauth_error, on_every_redis, request_id,
};
use assent::phone::http::Answer;
use tokio::task::JoinSet;

const WAIT: [(&str, &str); 1] = [("prefer", "wait=30")];

on_every_redis!(
    a_poll_held_here_ends_by_an_approval_there,
    a_poll_here_ends_the_one_that_is_held_there,
    the_rhythm_of_polls_is_one_for_all_nodes,
    a_node_that_drains_leaves_its_polls_to_the_others,
    a_job_that_its_node_did_not_do_is_done_by_another,
    a_job_is_told_of,
    what_was_used_here_is_used_there,
    only_one_node_repeats_what_the_ledger_knows,
);

/// A poll that waits on its own.
fn hold(client: RelyingParty, auth_req_id: &str) -> JoinSet<Answer> {
    let id = auth_req_id.to_owned();
    JoinSet::from_iter([async move { client.poll_with(&WAIT, &id).await }])
}

async fn answer(mut held: JoinSet<Answer>) -> Answer {
    held.join_next().await.unwrap().unwrap()
}

async fn held_by(app: &TestApp, auth_req_id: &str) {
    while !app.services().is_poll_held(request_id(auth_req_id)) {
        tokio::task::yield_now().await;
    }
}

async fn a_poll_held_here_ends_by_an_approval_there((first, second): (TestApp, TestApp)) {
    let (bank, _, phone) = first.cast().await;
    for _ in 0..3 {
        let id = bank.start("alice").await;
        let held = hold(second.here(&bank), &id);
        held_by(&second, &id).await;
        approve(&phone, &id).await;
        let tokens = answer(held).await;
        assert_eq!(tokens.status, 200, "{}", tokens.body);
        assert_oauth_error(&bank.poll(&id).await, 400, "invalid_grant");
    }
}

async fn a_poll_here_ends_the_one_that_is_held_there((first, second): (TestApp, TestApp)) {
    let (bank, _, phone) = first.cast().await;
    let there = second.here(&bank);
    let id = bank.start("alice").await;
    let older = hold(there.clone(), &id);
    held_by(&second, &id).await;
    first.advance(1);
    let newer = hold(bank.clone(), &id);
    assert_oauth_error(&answer(older).await, 400, "authorization_pending");
    held_by(&first, &id).await;
    // And back again; nobody was early.
    let newest = hold(there, &id);
    assert_oauth_error(&answer(newer).await, 400, "authorization_pending");
    held_by(&second, &id).await;
    approve(&phone, &id).await;
    assert_eq!(answer(newest).await.status, 200);
}

async fn the_rhythm_of_polls_is_one_for_all_nodes((first, second): (TestApp, TestApp)) {
    let (bank, _, _) = first.cast().await;
    let there = second.here(&bank);
    let id = bank.start("alice").await;
    assert_oauth_error(&bank.poll(&id).await, 400, "authorization_pending");
    first.advance(4);
    assert_oauth_error(&there.poll(&id).await, 400, "slow_down");
    first.advance(9);
    assert_oauth_error(&bank.poll(&id).await, 400, "slow_down");
    first.advance(15);
    assert_oauth_error(&there.poll(&id).await, 400, "authorization_pending");
}

async fn a_node_that_drains_leaves_its_polls_to_the_others((first, second): (TestApp, TestApp)) {
    let (bank, _, phone) = first.cast().await;
    let there = second.here(&bank);
    let id = bank.start("alice").await;
    let held = hold(there, &id);
    held_by(&second, &id).await;
    second.server.core.shutdown.draining.cancel();
    assert_oauth_error(&answer(held).await, 400, "authorization_pending");
    // The client comes back at once, to the other node, and that is not too early.
    let held = hold(bank, &id);
    held_by(&first, &id).await;
    approve(&phone, &id).await;
    assert_eq!(answer(held).await.status, 200);
    second.server.stop().await.unwrap();
}

async fn a_job_that_its_node_did_not_do_is_done_by_another((first, second): (TestApp, TestApp)) {
    let (bank, _, _) = first.cast().await;
    bank.start("alice").await;
    assert_eq!(first.waiting_jobs().await, 1);
    // By the sweep at the latest.
    first.advance(5);
    assert_eq!(second.run_jobs().await, 1);
    assert_eq!(second.push.sent().len(), 1);
    assert_eq!(first.run_jobs().await, 0);
    assert_eq!(first.waiting_jobs().await, 0);
    assert!(first.push.sent().is_empty());
}

/// Not only by the sweep, which comes every five seconds.
async fn a_job_is_told_of((first, second): (TestApp, TestApp)) {
    let (bank, _, _) = first.cast().await;
    // Until the subscription stands, a message is lost.
    for _ in 0..100 {
        // It sweeps, finds nothing, and will not sweep again within the next second.
        first.advance(5);
        assert_eq!(second.run_jobs().await, 0);
        bank.start("alice").await;
        pause(50).await;
        // The node that made the job has a head start.
        first.advance(1);
        if second.run_jobs().await == 1 {
            return;
        }
        assert_eq!(first.run_jobs().await, 1);
        first.advance(120);
    }
    panic!("nobody was told");
}

async fn what_was_used_here_is_used_there((first, second): (TestApp, TestApp)) {
    let (_, _, phone) = first.cast().await;
    let path = "/device/v1/requests";
    let proof = phone.sign("device-proof+jwt", &phone.proof_claims("GET", path, b""));
    let authorization = format!("DeviceProof {proof}");
    let call = async |app: &TestApp| {
        let headers = [("authorization", authorization.as_str())];
        app.http.get(&format!("{}{path}", app.url), &headers).await
    };
    let here = call(&first).await.unwrap();
    assert_eq!(here.status, 200, "{}", here.body);
    let there = call(&second).await.unwrap();
    assert_eq!(there.json()["code"], "proof_replayed", "{}", there.body);
}

async fn only_one_node_repeats_what_the_ledger_knows((first, second): (TestApp, TestApp)) {
    let every = std::time::Duration::from_secs(60);
    let turn = async |app: &TestApp| app.services().pending.take_turn(every).await.unwrap();
    assert!(turn(&second).await);
    assert!(!turn(&first).await && !turn(&second).await);
}
