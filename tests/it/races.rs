//! Many at once on one request: one outcome, one issuance, wherever a server stands.

use crate::support::{Ground, TestApp, all, approve, everywhere, show};
use assent::domain::Decision;
use assent::phone::http::Answer;
use assent::service::cancel::Cancelled;

everywhere!(
    sixty_four_redemptions_bring_one_set_of_tokens,
    approve_deny_and_cancel_race_to_one_outcome,
    caps_hold_against_a_crowd,
    one_enrolment_code_makes_one_device,
    one_idempotency_key_makes_one_request,
);

async fn sixty_four_redemptions_bring_one_set_of_tokens(ground: Ground) {
    let app = TestApp::on(ground).await;
    let (bank, _, phone) = app.cast().await;
    for _ in 0..3 {
        let id = bank.start("alice").await;
        approve(&phone, &id).await;
        let answers = all((0..64).map(|_| {
            let (bank, id) = (bank.clone(), id.clone());
            async move { bank.poll(&id).await }
        }))
        .await;
        let tokens = answers.iter().filter(|answer| answer.status == 200).count();
        let refused = answers
            .iter()
            .filter(|answer| answer.json()["error"] == "invalid_grant")
            .count();
        assert_eq!((tokens, refused), (1, 63));
    }
    assert_eq!(app.backend.count("issuances").await, 3);
    assert!(app.services().verify_audit(None).await.unwrap().is_whole());
}

async fn approve_deny_and_cancel_race_to_one_outcome(ground: Ground) {
    let app = TestApp::on(ground).await;
    let (bank, alice, first) = app.cast().await;
    let second = app.phone(&alice).await;
    for _ in 0..10 {
        let id = bank.start("alice").await;
        let (on_first, on_second) = (show(&first, &id).await, show(&second, &id).await);
        let (approved, denied, cancelled, polled) = tokio::join!(
            first.try_answer(&on_first, Decision::Approve, None),
            second.try_answer(&on_second, Decision::Deny, None),
            app.cancel(&bank, &id),
            bank.poll(&id),
        );
        let (approved, denied) = (approved.unwrap().status, denied.unwrap().status);
        let cancelled = cancelled.unwrap() == Cancelled::Yes;
        assert!([200, 409].contains(&approved) && [200, 409].contains(&denied));
        // A denial or cancellation that was acknowledged means no token, now or later; an approval that
        // was acknowledged can be withdrawn, never denied.
        let tokens = polled.status == 200 || bank.poll(&id).await.status == 200;
        assert!(!(approved == 200 && denied == 200));
        assert_eq!(
            tokens,
            approved == 200 && !cancelled,
            "{approved} {denied} {cancelled}"
        );
    }
    assert_eq!(app.backend.count("outcomes").await, 10);
    assert!(app.services().verify_audit(None).await.unwrap().is_whole());
}

async fn caps_hold_against_a_crowd(ground: Ground) {
    let app = TestApp::on(ground).await;
    let (bank, alice, _) = app.cast().await;
    let shop = app.client("shop").await;
    let answers = all((0..20).map(|i| {
        let client = if i % 2 == 0 {
            bank.clone()
        } else {
            shop.clone()
        };
        async move {
            client
                .ask(&[("scope", "openid"), ("login_hint", "alice")])
                .await
        }
    }))
    .await;
    let accepted = answers.iter().filter(|answer| answer.status == 200).count();
    let refused = answers.iter().filter(|answer| answer.status == 403).count();
    assert_eq!((accepted, refused), (5, 15));
    let open = app
        .services()
        .pending
        .open_for(&alice.id, alice.partition, app.now())
        .await
        .unwrap();
    for client in [&bank, &shop] {
        let of_client = open
            .iter()
            .filter(|request| request.facts.client_id == client.client.id);
        assert!(of_client.count() <= 3);
    }
    // The budget has room for three prompts; the others wait in the inbox.
    assert_eq!(app.waiting_jobs().await, 3);
    // When they have run out there is room again.
    app.advance(120);
    bank.start("alice").await;
}

async fn one_enrolment_code_makes_one_device(ground: Ground) {
    let app = TestApp::on(ground).await;
    let alice = app.user("alice").await;
    let ticket = app.services().create_enrolment(&alice).await.unwrap();
    let link = assent::phone::EnrolmentLink::parse(ticket.link.expose()).unwrap();
    let enrolled = all((0..8).map(|_| {
        let (link, clock) = (link.clone(), app.clock.clone());
        let entropy = std::sync::Arc::new(assent::entropy::SystemEntropy);
        async move {
            assent::phone::Phone::enrol(&link, "race", clock, entropy)
                .await
                .is_ok()
        }
    }))
    .await;
    assert_eq!(enrolled.iter().filter(|ok| **ok).count(), 1);
    assert_eq!(app.backend.count("devices").await, 1);
}

async fn one_idempotency_key_makes_one_request(ground: Ground) {
    let app = TestApp::on(ground).await;
    let (bank, alice, _) = app.cast().await;
    let answers = all((0..16).map(|_| {
        let bank = bank.clone();
        async move {
            let parameters = [("scope", "openid"), ("login_hint", "alice")];
            bank.ask_with(&[("idempotency-key", "order-7")], &parameters)
                .await
        }
    }))
    .await;
    let bodies: std::collections::BTreeSet<_> = answers
        .iter()
        .map(|answer: &Answer| (answer.status, answer.body.clone()))
        .collect();
    assert_eq!(bodies.len(), 1, "{bodies:?}");
    assert_eq!(app.open_requests(&alice).await, 1);
    assert_eq!(app.waiting_jobs().await, 1);
}
