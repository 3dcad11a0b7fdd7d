//! How far each request came, and that the other phones hear of its end.

use super::pushes;
use crate::support::{Ground, TestApp, approve, everywhere, request_id, show};
use assent::domain::User;
use assent::domain::delivery::DeliveryState;
use assent::domain::{Decision, DeviceId};
use assent::push::Signal;

everywhere!(
    a_request_is_followed_to_each_phone,
    the_other_phones_hear_that_it_is_over,
    whoever_has_one_phone_costs_no_second_push,
    a_phone_that_never_rang_is_left_in_peace,
    what_rings_nowhere_is_shown_too,
    what_will_not_ring_any_more_is_not_queued,
);

/// Device and state of each delivery of a person's prompts.
async fn states(app: &TestApp, user: &User) -> Vec<(DeviceId, DeliveryState)> {
    let delivered = app.services().deliveries_of(user).await.unwrap();
    let mut states: Vec<_> = delivered
        .into_iter()
        .map(|one| (one.delivery.device, one.state))
        .collect();
    states.sort_by_key(|(_, state)| *state as u8);
    states
}

async fn a_request_is_followed_to_each_phone(ground: Ground) {
    let app = TestApp::on(ground).await;
    let (bank, alice, phone) = app.cast().await;
    let (second, third) = (app.phone(&alice).await, app.phone(&alice).await);
    let id = bank.start("alice").await;
    let queued = states(&app, &alice).await;
    assert_eq!(queued.len(), 3);
    assert!(
        queued
            .iter()
            .all(|(_, state)| *state == DeliveryState::Queued)
    );
    app.run_jobs().await;
    for (_, state) in states(&app, &alice).await {
        assert_eq!(state, DeliveryState::Accepted);
    }
    app.advance(2);
    show(&second, &id).await;
    approve(&phone, &id).await;
    let expected = [
        (third.id(), DeliveryState::Accepted),
        (second.id(), DeliveryState::Fetched),
        (phone.id(), DeliveryState::Answered),
    ];
    assert_eq!(states(&app, &alice).await, expected);
    let delivered = app.services().deliveries_of(&alice).await.unwrap();
    let of_second = delivered
        .iter()
        .find(|one| one.delivery.device == second.id());
    let delivery = &of_second.unwrap().delivery;
    assert_eq!(delivery.fetched_at, Some(app.now()));
    let push = delivery.push.as_ref().unwrap();
    assert_eq!((push.attempts, push.at), (1, crate::support::START));
    assert_eq!(delivered[0].request, request_id(&id));
}

async fn the_other_phones_hear_that_it_is_over(ground: Ground) {
    let settings = vec![("ciba.cancel_endpoint", "true".to_owned())];
    let app = TestApp::on_with(ground, settings).await;
    let (bank, alice, phone) = app.cast().await;
    let other = app.phone(&alice).await;
    for phone in [&phone, &other] {
        let target = serde_json::json!({ "platform": "fcm", "push_target": "somewhere" });
        let put = phone.call("PUT", "/device/v1/push-target", Some(&target));
        assert_eq!(put.await.unwrap().status, 204);
    }
    let heard = async || {
        let before = app.push.sent().len();
        app.run_jobs().await;
        let mut sent: Vec<_> = app.push.sent()[before..]
            .iter()
            .map(|(device, message)| (device.clone(), message.signal, message.reference.clone()))
            .collect();
        sent.sort_by(|a, b| a.0.as_str().cmp(b.0.as_str()));
        sent
    };
    let id = bank.start("alice").await;
    let rung = heard().await;
    assert!(rung.iter().all(|(_, signal, _)| *signal == Signal::Waiting));
    approve(&phone, &id).await;
    let over = heard().await;
    assert_eq!(over.len(), 1);
    assert_eq!((&over[0].0, over[0].1), (&other.id(), Signal::Resolved));
    assert_eq!(
        over[0].2, rung[0].2,
        "the same reference, so that the app finds it"
    );
    // Cancelled: nobody knows yet.
    let id = bank.start("alice").await;
    assert_eq!(heard().await.len(), 2);
    bank.post("/bc-cancel", &[("auth_req_id", &id)]).await;
    let over = heard().await;
    assert_eq!(over.len(), 2);
    assert!(
        over.iter()
            .all(|(_, signal, _)| *signal == Signal::Resolved)
    );
    // One that was revoked meanwhile is not told.
    let id = bank.start("alice").await;
    assert_eq!(heard().await.len(), 2);
    let path = format!("/device/v1/devices/{}", other.id());
    phone.call("DELETE", &path, None).await.unwrap();
    approve(&phone, &id).await;
    assert_eq!(heard().await.len(), 0);
}

async fn whoever_has_one_phone_costs_no_second_push(ground: Ground) {
    let app = TestApp::on(ground).await;
    let (bank, _, phone) = app.cast().await;
    let id = bank.start("alice").await;
    assert_eq!(pushes(&app).await, 1);
    approve(&phone, &id).await;
    assert_eq!(app.run_jobs().await, 0);
}

async fn a_phone_that_never_rang_is_left_in_peace(ground: Ground) {
    let app = TestApp::on(ground).await;
    let (bank, alice, phone) = app.cast().await;
    let other = app.phone(&alice).await;
    let target = serde_json::json!({ "platform": "fcm", "push_target": "somewhere" });
    other
        .call("PUT", "/device/v1/push-target", Some(&target))
        .await
        .unwrap();
    let id = bank.start("alice").await;
    // Answered before the push is sent.
    let shown = show(&phone, &id).await;
    phone.answer(&shown, Decision::Approve, None).await.unwrap();
    assert_eq!(pushes(&app).await, 0);
}

async fn what_rings_nowhere_is_shown_too(ground: Ground) {
    let app = TestApp::on_with(ground, vec![("prompts.per_hour", "1".to_owned())]).await;
    let (bank, alice, phone) = app.cast().await;
    let (loud, quiet) = (bank.start("alice").await, bank.start("alice").await);
    app.run_jobs().await;
    let reports = app.services().deliveries_of(&alice).await.unwrap();
    let mut seen: Vec<_> = reports
        .iter()
        .map(|one| (one.request, one.is_prompt, one.state))
        .collect();
    let mut expected = [
        (request_id(&loud), true, DeliveryState::Accepted),
        (request_id(&quiet), false, DeliveryState::Failed),
    ];
    seen.sort_by_key(|one| one.0);
    expected.sort_by_key(|one| one.0);
    assert_eq!(seen, expected);
    show(&phone, &quiet).await;
    let reports = app.services().deliveries_of(&alice).await.unwrap();
    assert!(
        reports
            .iter()
            .any(|one| one.state == DeliveryState::Fetched && !one.is_prompt)
    );
}

/// The person denies one request while the push for another of the same client is still to be sent.
async fn what_will_not_ring_any_more_is_not_queued(ground: Ground) {
    let app = TestApp::on(ground).await;
    let (bank, alice, phone) = app.cast().await;
    let (first, second) = (bank.start("alice").await, bank.start("alice").await);
    let state = async || {
        let reports = app.services().deliveries_of(&alice).await.unwrap();
        let of_second = reports
            .iter()
            .find(|one| one.request == request_id(&second));
        of_second.unwrap().state
    };
    assert_eq!(state().await, DeliveryState::Queued);
    let shown = show(&phone, &first).await;
    phone.answer(&shown, Decision::Deny, None).await.unwrap();
    assert_eq!(pushes(&app).await, 0);
    assert_eq!(state().await, DeliveryState::Failed);
    approve(&phone, &second).await;
    assert_eq!(state().await, DeliveryState::Answered);
}
