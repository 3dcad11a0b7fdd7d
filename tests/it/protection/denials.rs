//! A denial counts, and one for fraud counts most.

use super::{clients, inbox, pushes};
use crate::support::{
    Backend, Ground, RedisServers, RelyingParty, TestApp, approve, assert_oauth_error,
    assert_problem, deny, everywhere, request_id, show,
};
use assent::domain::{Decision, DenyReason};
use assent::phone::Phone;

everywhere!(
    a_client_that_was_denied_wakes_nobody_for_a_minute,
    a_prompt_that_waits_is_overtaken_by_a_denial,
    a_report_of_fraud_ends_what_is_open_and_keeps_the_phones_quiet,
    an_operator_ends_the_quiet,
    a_device_can_be_locked_by_its_own_report,
    a_fraud_is_not_reported_by_the_way,
);

async fn report_fraud(phone: &Phone, auth_req_id: &str) {
    let shown = show(phone, auth_req_id).await;
    let fraud = Some(DenyReason::Fraud);
    phone.answer(&shown, Decision::Deny, fraud).await.unwrap();
}

async fn scene(ground: Ground) -> (TestApp, [RelyingParty; 2], Phone) {
    let app = TestApp::on(ground).await;
    let alice = app.user("alice").await;
    let phone = app.phone(&alice).await;
    let clients = clients(&app, ["bank", "shop"]).await;
    (app, clients, phone)
}

async fn a_client_that_was_denied_wakes_nobody_for_a_minute(ground: Ground) {
    let (app, [bank, shop], phone) = scene(ground).await;
    deny(&phone, &bank.start("alice").await).await;
    assert_eq!(pushes(&app).await, 0, "it was answered before");
    app.advance(59);
    let quiet = bank.start("alice").await;
    assert_eq!(pushes(&app).await, 0);
    assert_eq!(inbox(&phone).await, [request_id(&quiet)]);
    shop.start("alice").await;
    assert_eq!(pushes(&app).await, 1, "the shop was not denied");
    app.advance(1);
    bank.start("alice").await;
    assert_eq!(pushes(&app).await, 1);
}

async fn a_prompt_that_waits_is_overtaken_by_a_denial(ground: Ground) {
    let (app, [bank, shop], phone) = scene(ground).await;
    let denied = bank.start("alice").await;
    let other = bank.start("alice").await;
    shop.start("alice").await;
    deny(&phone, &denied).await;
    assert_eq!(pushes(&app).await, 1, "only the shop's");
    approve(&phone, &other).await;
    assert_eq!(bank.poll(&other).await.status, 200);
}

async fn a_report_of_fraud_ends_what_is_open_and_keeps_the_phones_quiet(ground: Ground) {
    let (app, [bank, shop], phone) = scene(ground).await;
    let approved = shop.start("alice").await;
    approve(&phone, &approved).await;
    let fraud = bank.start("alice").await;
    let (others, shops) = (bank.start("alice").await, shop.start("alice").await);
    let bob = app.user("bob").await;
    let bobs_phone = app.phone(&bob).await;
    let bobs = shop.start("bob").await;
    report_fraud(&phone, &fraud).await;
    app.run_jobs().await;
    for (client, id) in [(&bank, &fraud), (&bank, &others), (&shop, &shops)] {
        assert_oauth_error(&client.poll(id).await, 400, "access_denied");
    }
    assert!(inbox(&phone).await.is_empty());
    // What she had approved, and what is asked of others, goes on.
    assert_eq!(shop.poll(&approved).await.status, 200);
    approve(&bobs_phone, &bobs).await;

    // A node may lose all that waits: the Ledger knows of the report.
    app.backend.execute("DELETE FROM pending_requests").await;
    app.backend.execute("DELETE FROM prompts").await;
    app.advance(30 * 60 - 1);
    let quiet = shop.start("alice").await;
    assert_eq!(pushes(&app).await, 0);
    approve(&phone, &quiet).await;
    assert_eq!(shop.poll(&quiet).await.status, 200);
    let after_loss = app.node_after_loss().await;
    after_loss.here(&shop).start("alice").await;
    assert_eq!(pushes(&after_loss).await, 0);
    app.advance(1);
    shop.start("alice").await;
    assert_eq!(pushes(&app).await, 1);
}

async fn an_operator_ends_the_quiet(ground: Ground) {
    let (app, [bank, _], phone) = scene(ground).await;
    report_fraud(&phone, &bank.start("alice").await).await;
    app.run_jobs().await;
    app.advance(61);
    bank.start("alice").await;
    assert_eq!(pushes(&app).await, 0);
    let alice = &app.services().directory.users().await.unwrap()[0].clone();
    app.services().unblock_user(alice).await.unwrap();
    bank.start("alice").await;
    assert_eq!(pushes(&app).await, 1);
    // It is no licence for the next one.
    app.advance(1);
    report_fraud(&phone, &bank.start("alice").await).await;
    app.advance(61);
    app.run_jobs().await;
    bank.start("alice").await;
    assert_eq!(pushes(&app).await, 0);
}

async fn a_device_can_be_locked_by_its_own_report(ground: Ground) {
    let settings = vec![("prompts.lock_device_after_fraud", "true".to_owned())];
    let app = TestApp::on_with(ground, settings).await;
    let (bank, alice, phone) = app.cast().await;
    let other = app.phone(&alice).await;
    report_fraud(&phone, &bank.start("alice").await).await;
    app.run_jobs().await;
    let answer = phone
        .call("GET", "/device/v1/requests", None)
        .await
        .unwrap();
    assert_problem(&answer, 403, "device_unconfirmed");
    assert!(inbox(&other).await.is_empty(), "the other one works");
    let services = app.services();
    let device = services
        .directory
        .device(&phone.id())
        .await
        .unwrap()
        .unwrap();
    assert!(services.confirm_device(&device).await.unwrap());
    assert!(inbox(&phone).await.is_empty());
}

/// The node that took the report dies right after: another one draws the consequences.
#[tokio::test(flavor = "multi_thread")]
async fn another_node_draws_the_consequences() {
    let ground = Ground::with_redis(Backend::sqlite(), RedisServers::single());
    let (app, [bank, shop], phone) = scene(ground).await;
    let other = app.node().await;
    let (fraud, open) = (bank.start("alice").await, shop.start("alice").await);
    report_fraud(&phone, &fraud).await;
    drop(app);
    other.run_jobs().await;
    let answer = other.here(&shop).poll(&open).await;
    assert_oauth_error(&answer, 400, "access_denied");
}

/// Nobody must believe that a fraud was reported who had only said no.
async fn a_fraud_is_not_reported_by_the_way(ground: Ground) {
    let (app, [bank, shop], phone) = scene(ground).await;
    let id = bank.start("alice").await;
    let shown = show(&phone, &id).await;
    phone.answer(&shown, Decision::Deny, None).await.unwrap();
    for (reason, status) in [(Some(DenyReason::Fraud), 409), (None, 200)] {
        let answer = phone.try_answer(&shown, Decision::Deny, reason).await;
        assert_eq!(answer.unwrap().status, status);
    }
    shop.start("alice").await;
    assert_eq!(pushes(&app).await, 1, "nothing is quiet but the bank");
}

/// A request that cannot be cancelled keeps none of the others.
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_cancelled_keeps_nothing_else() {
    let (app, [bank, shop], phone) = scene(Ground::new(Backend::sqlite())).await;
    let (broken, fraud, open) = (
        bank.start("alice").await,
        bank.start("alice").await,
        shop.start("alice").await,
    );
    let damage = format!(
        "UPDATE pending_requests SET facts = replace(facts, '\"sealed_auth_req_id\":\"1.',          '\"sealed_auth_req_id\":\"9.') WHERE request_id = '{}'",
        request_id(&broken)
    );
    app.backend.execute(&damage).await;
    report_fraud(&phone, &fraud).await;
    app.run_jobs().await;
    assert_oauth_error(&shop.poll(&open).await, 400, "access_denied");
    assert_eq!(inbox(&phone).await, [request_id(&broken)]);
}
