//! Every answer a poll can get, and when.

use crate::support::{
    Backend, Ground, TestApp, approve, assert_oauth_error, everywhere, registration, request_id,
};
use assent::domain::client::Registration;
use std::time::Duration;

everywhere!(
    a_client_that_keeps_the_interval_waits_and_one_that_does_not_is_slowed_down,
    a_request_that_ran_out_says_so_for_as_long_as_anybody_asks,
    another_clients_handle_is_nobodys_and_touches_nothing,
    a_held_poll_ends_when_the_person_decides,
    a_held_poll_ends_when_its_time_is_up,
    a_held_poll_ends_with_its_request,
    a_newer_poll_ends_the_older_and_neither_is_early,
    a_client_that_hangs_up_loses_nothing,
    a_client_holds_so_many_polls_and_no_more,
    a_draining_server_answers_held_polls_at_once,
);

async fn a_client_that_keeps_the_interval_waits_and_one_that_does_not_is_slowed_down(
    ground: Ground,
) {
    let app = TestApp::on(ground).await;
    let (bank, _, phone) = app.cast().await;
    let id = bank.start("alice").await;
    // The first is never early.
    assert_oauth_error(&bank.poll(&id).await, 400, "authorization_pending");
    app.advance(5);
    assert_oauth_error(&bank.poll(&id).await, 400, "authorization_pending");
    app.advance(4);
    assert_oauth_error(&bank.poll(&id).await, 400, "slow_down");
    // From now on ten seconds, counted from that poll.
    app.advance(6);
    assert_oauth_error(&bank.poll(&id).await, 400, "slow_down");
    app.advance(15);
    assert_oauth_error(&bank.poll(&id).await, 400, "authorization_pending");
    // A result does not wait for the rhythm.
    approve(&phone, &id).await;
    assert_eq!(bank.poll(&id).await.status, 200);
}

async fn a_request_that_ran_out_says_so_for_as_long_as_anybody_asks(ground: Ground) {
    let app = TestApp::on(ground).await;
    let (bank, _, phone) = app.cast().await;
    let undecided = bank.start("alice").await;
    let approved = bank.start("alice").await;
    approve(&phone, &approved).await;
    app.advance(120);
    assert_oauth_error(&bank.poll(&undecided).await, 400, "expired_token");
    // An approval outlives its request by 60 s.
    app.advance(59);
    let late = bank.start("alice").await;
    assert_eq!(bank.poll(&approved).await.status, 200);
    approve(&phone, &late).await;
    app.advance(180);
    assert_oauth_error(&bank.poll(&late).await, 400, "expired_token");
    app.advance(3600);
    app.services().sweep().await.unwrap();
    assert_oauth_error(&bank.poll(&undecided).await, 400, "expired_token");
    assert_oauth_error(&bank.poll(&late).await, 400, "expired_token");
    assert_oauth_error(&bank.poll(&approved).await, 400, "invalid_grant");
}

async fn another_clients_handle_is_nobodys_and_touches_nothing(ground: Ground) {
    let app = TestApp::on(ground).await;
    let (bank, _, phone) = app.cast().await;
    let thief = app.client("thief").await;
    let id = bank.start("alice").await;
    approve(&phone, &id).await;
    let before = app.state().await;
    let unknown = thief
        .poll("AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")
        .await;
    for _ in 0..20 {
        let stolen = thief.poll(&id).await;
        assert_oauth_error(&stolen, 400, "invalid_grant");
        assert_eq!(stolen.body, unknown.body);
    }
    assert_eq!(app.state().await, before);
    assert_eq!(bank.poll(&id).await.status, 200);
}

async fn a_held_poll_ends_when_the_person_decides(ground: Ground) {
    let app = TestApp::on(ground).await;
    let (bank, _, phone) = app.cast().await;
    let id = bank.start("alice").await;
    let (held, ()) = tokio::join!(bank.poll_with(&[("prefer", "wait=30")], &id), async {
        held_by(&app, &id).await;
        approve(&phone, &id).await;
    });
    assert_eq!(held.status, 200, "{}", held.body);
}

async fn a_held_poll_ends_when_its_time_is_up(ground: Ground) {
    let app = TestApp::on(ground).await;
    let (_, _, _) = app.cast().await;
    // Held because it is registered so, and never longer than 30 s.
    let long_poll = Duration::from_secs(20);
    let patient = app
        .client_with(
            "patient",
            Registration {
                long_poll,
                ..registration()
            },
        )
        .await;
    for (headers, seconds) in [(vec![], 20), (vec![("prefer", "wait=900")], 30)] {
        let id = patient.start("alice").await;
        let (held, ()) = tokio::join!(patient.poll_with(&headers, &id), async {
            held_by(&app, &id).await;
            for _ in 0..seconds - 1 {
                app.advance(1);
            }
            held_by(&app, &id).await;
            app.advance(1);
        });
        assert_oauth_error(&held, 400, "authorization_pending");
        // The interval counts from the beginning of the held poll, so the next one is in time.
        assert_oauth_error(
            &patient.poll_with(&[("prefer", "wait=0")], &id).await,
            400,
            "authorization_pending",
        );
    }
}

async fn a_held_poll_ends_with_its_request(ground: Ground) {
    let app = TestApp::on(ground).await;
    let (bank, _, _) = app.cast().await;
    let asked = bank
        .ask(&[
            ("scope", "openid"),
            ("login_hint", "alice"),
            ("requested_expiry", "10"),
        ])
        .await
        .json();
    let id = asked["auth_req_id"].as_str().unwrap();
    let (held, ()) = tokio::join!(bank.poll_with(&[("prefer", "wait=30")], id), async {
        held_by(&app, id).await;
        app.advance(10);
    });
    assert_oauth_error(&held, 400, "expired_token");
}

async fn a_newer_poll_ends_the_older_and_neither_is_early(ground: Ground) {
    let app = TestApp::on(ground).await;
    let (bank, _, phone) = app.cast().await;
    let id = bank.start("alice").await;
    let wait = [("prefer", "wait=30")];
    let (first, second) = tokio::join!(bank.poll_with(&wait, &id), async {
        held_by(&app, &id).await;
        app.advance(1);
        let (second, ()) = tokio::join!(bank.poll_with(&wait, &id), async {
            held_by(&app, &id).await;
            // Only when the older is gone is the newer the one that is held.
            while app.services().held_polls() != 1 {
                tokio::task::yield_now().await;
            }
            approve(&phone, &id).await;
        });
        second
    });
    assert_oauth_error(&first, 400, "authorization_pending");
    assert_eq!(second.status, 200, "{}", second.body);
}

/// The client hangs up; then the person approves. Nothing is redeemed for nobody.
async fn a_client_that_hangs_up_loses_nothing(ground: Ground) {
    let app = TestApp::on(ground).await;
    let (bank, _, phone) = app.cast().await;
    let id = bank.start("alice").await;
    let hung_up = {
        let (bank, id) = (bank.clone(), id.clone());
        tokio::task::JoinSet::from_iter([async move {
            bank.poll_with(&[("prefer", "wait=30")], &id).await
        }])
    };
    held_by(&app, &id).await;
    drop(hung_up);
    while app.services().held_polls() != 0 {
        tokio::task::yield_now().await;
    }
    approve(&phone, &id).await;
    assert_eq!(app.backend.count("issuances").await, 0);
    assert_eq!(bank.poll(&id).await.status, 200);
}

async fn a_client_holds_so_many_polls_and_no_more(ground: Ground) {
    let limit = ("ciba.held_polls_per_client", "1".into());
    let app = TestApp::on_with(ground, vec![limit]).await;
    let (bank, _, _) = app.cast().await;
    let (first, second) = (bank.start("alice").await, bank.start("alice").await);
    let wait = [("prefer", "wait=30")];
    let (held, ()) = tokio::join!(bank.poll_with(&wait, &first), async {
        held_by(&app, &first).await;
        assert_oauth_error(
            &bank.poll_with(&wait, &second).await,
            400,
            "authorization_pending",
        );
        // It was not held, so the next one is too early.
        assert_oauth_error(&bank.poll_with(&wait, &second).await, 400, "slow_down");
        app.advance(30);
    });
    assert_oauth_error(&held, 400, "authorization_pending");
}

async fn a_draining_server_answers_held_polls_at_once(ground: Ground) {
    let app = TestApp::on(ground).await;
    let (bank, _, _) = app.cast().await;
    let id = bank.start("alice").await;
    let ready = format!("{}/readyz", app.management_url);
    let (held, ()) = tokio::join!(bank.poll_with(&[("prefer", "wait=30")], &id), async {
        held_by(&app, &id).await;
        app.server.core.shutdown.draining.cancel();
    });
    assert_oauth_error(&held, 400, "authorization_pending");
    assert_eq!(held.header("connection"), Some("close"));
    if let Ok(answer) = app.http.get(&ready, &[]).await {
        assert_eq!((answer.status, answer.body.as_str()), (503, "draining\n"));
    }
    app.server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_token_response_can_be_had_again_where_the_operator_says_so() {
    let app = TestApp::with(Backend::sqlite(), vec![("ciba.redelivery", "10s".into())]).await;
    let (bank, _, phone) = app.cast().await;
    let id = bank.start("alice").await;
    approve(&phone, &id).await;
    let first = bank.poll(&id).await;
    assert_eq!(first.status, 200);
    app.advance(9);
    assert_eq!(bank.poll(&id).await.body, first.body);
    app.advance(1);
    assert_oauth_error(&bank.poll(&id).await, 400, "invalid_grant");
    app.services().sweep().await.unwrap();
    let kept = app
        .backend
        .column("SELECT COALESCE(response, 'erased') FROM issuances")
        .await;
    assert_eq!(kept, ["erased"]);
}

/// Waits until the server holds a poll for this request.
async fn held_by(app: &TestApp, auth_req_id: &str) {
    while !app.services().is_poll_held(request_id(auth_req_id)) {
        tokio::task::yield_now().await;
    }
}
