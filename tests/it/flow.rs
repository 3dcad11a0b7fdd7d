//! The journey of a request, as the protocol tells it.

use crate::support::{
    Backend, Ground, TestApp, approve, assert_oauth_error, deny, everywhere, on_both, request_id,
    show,
};
use assent::domain::{Decision, Partition, RequestId, RequestKey};
use assent::phone::statement::KeySet;
use assent::push::Signal;
use assent::service::cancel::Cancelled;
use assent::service::devices::Actor;
use assent::service::reconcile::Standings;
use serde_json::{Value, json};

everywhere!(
    approval_brings_tokens,
    denial_brings_access_denied,
    a_lock_or_revocation_wins_over_an_approval,
    cancelling_ends_a_request_at_any_point,
    any_of_several_phones_may_answer,
    an_answer_can_be_sent_again,
    what_a_locked_client_asked_reaches_nobody,
);
on_both!(
    the_projection_may_be_lost,
    a_damaged_outcome_holds_up_no_other,
);

/// The whole happy case, with every body as it is on the wire.
async fn approval_brings_tokens(ground: Ground) {
    let app = TestApp::on(ground).await;
    let (bank, alice, phone) = app.cast().await;

    let asked = bank
        .ask(&[
            ("scope", "openid profile"),
            ("login_hint", "Alice"),
            ("binding_message", "Überweisung 12"),
            ("acr_values", "urn:assent:acr:device"),
            ("requested_expiry", "300"),
        ])
        .await;
    assert_eq!(asked.status, 200, "{}", asked.body);
    assert_eq!(asked.header("cache-control"), Some("no-store"));
    let acknowledged = asked.json();
    let id = acknowledged["auth_req_id"].as_str().unwrap();
    assert_eq!(
        acknowledged,
        json!({ "auth_req_id": id, "expires_in": 300, "interval": 5 })
    );
    assert_eq!(id.len(), 75, "56 bytes in base64url");

    // The phone is woken, with nothing that says why.
    assert_eq!(app.run_jobs().await, 1);
    let pushes = app.push.sent();
    assert_eq!(pushes.len(), 1);
    assert_eq!(pushes[0].0, phone.id());
    assert_eq!(pushes[0].1.signal, Signal::Waiting);
    assert_ne!(pushes[0].1.reference, request_id(id).to_string());

    assert_oauth_error(&bank.poll(id).await, 400, "authorization_pending");

    let inbox = phone.inbox().await.unwrap();
    assert_eq!(inbox.len(), 1);
    assert_eq!(inbox[0].id, request_id(id));
    let shown = show(&phone, id).await;
    let challenge = &shown.challenge;
    assert_eq!(challenge.client.name, "Example Bank");
    assert_eq!(challenge.scope.to_string(), "openid profile");
    assert_eq!(challenge.exp, app.now().secs() + 300);
    let lines: Vec<_> = challenge
        .display
        .lines
        .iter()
        .map(|line| (line.text.as_str(), line.claimed))
        .collect();
    assert_eq!(
        lines,
        [
            ("Example Bank", false),
            ("openid profile", false),
            ("Überweisung 12", true)
        ]
    );
    assert!(!shown.signed.contains(alice.id.as_str()));

    app.advance(3);
    phone.answer(&shown, Decision::Approve, None).await.unwrap();
    let decided_at = app.now().secs();
    assert!(phone.inbox().await.unwrap().is_empty());

    app.advance(4);
    let response = bank.poll(id).await;
    assert_eq!(response.status, 200, "{}", response.body);
    assert_eq!(response.header("cache-control"), Some("no-store"));
    assert_eq!(response.header("content-type"), Some("application/json"));
    let tokens = response.json();
    let members: Vec<_> = tokens.as_object().unwrap().keys().cloned().collect();
    assert_eq!(
        members,
        ["access_token", "expires_in", "id_token", "token_type"]
    );
    assert_eq!(
        (&tokens["token_type"], &tokens["expires_in"]),
        (&json!("Bearer"), &json!(600))
    );

    let jwks = app
        .http
        .get(&format!("{}/jwks", app.url), &[])
        .await
        .unwrap()
        .json();
    let id_token: Value = KeySet::new(&jwks)
        .verify("JWT", tokens["id_token"].as_str().unwrap())
        .unwrap();
    let now = app.now().secs();
    assert_eq!(
        id_token,
        json!({
            "iss": app.url, "sub": alice.id, "aud": "bank", "iat": now, "exp": now + 600,
            "auth_time": decided_at, "acr": "urn:assent:acr:device", "amr": ["swk"],
            "name": "Alice Example", "preferred_username": "alice",
        })
    );
    let access_token: Value = KeySet::new(&jwks)
        .verify("at+jwt", tokens["access_token"].as_str().unwrap())
        .unwrap();
    let jti = access_token["jti"].as_str().unwrap();
    assert_eq!(
        access_token,
        json!({
            "iss": app.url, "sub": alice.id, "aud": app.url, "client_id": "bank", "jti": jti,
            "iat": now, "exp": now + 600, "scope": "openid profile", "auth_time": decided_at,
            "acr": "urn:assent:acr:device", "amr": ["swk"],
        })
    );

    let bearer = format!("Bearer {}", tokens["access_token"].as_str().unwrap());
    for method in ["GET", "POST"] {
        let info = app
            .http
            .send(
                method,
                &format!("{}/userinfo", app.url),
                &[("authorization", &bearer)],
                vec![],
            )
            .await
            .unwrap();
        assert_eq!(
            info.json(),
            json!({ "sub": alice.id, "name": "Alice Example", "preferred_username": "alice" })
        );
    }

    assert_oauth_error(&bank.poll(id).await, 400, "invalid_grant");
    assert_eq!(
        app.backend.column("SELECT kind FROM issuances").await,
        ["issued"]
    );
    app.services().checkpoint().await.unwrap();
    let report = app.services().verify_audit(None).await.unwrap();
    assert!(report.is_whole() && report.not_anchored == 0, "{report:?}");
}

async fn denial_brings_access_denied(ground: Ground) {
    let app = TestApp::on(ground).await;
    let (bank, _, phone) = app.cast().await;
    let id = bank.start("alice").await;
    deny(&phone, &id).await;
    for _ in 0..2 {
        assert_oauth_error(&bank.poll(&id).await, 400, "access_denied");
    }
    assert_eq!(app.backend.count("issuances").await, 0);
}

/// Locked or revoked between approval and redemption: no token, and none later.
async fn a_lock_or_revocation_wins_over_an_approval(ground: Ground) {
    let app = TestApp::on(ground).await;
    let bank = app.client("bank").await;
    for what in ["user", "client", "device"] {
        let user = app.user(what).await;
        let phone = app.phone(&user).await;
        let rp = app.client(&format!("rp-{what}")).await;
        let id = rp.start(what).await;
        approve(&phone, &id).await;
        match what {
            "user" => assert_eq!(app.services().lock_user(&user).await.unwrap(), 0),
            "client" => assert!(app.services().lock_client(&rp.client.id).await.unwrap()),
            _ => {
                let device = app
                    .services()
                    .directory
                    .device(&phone.id())
                    .await
                    .unwrap()
                    .unwrap();
                assert!(
                    app.services()
                        .revoke_device(&device, Actor::Operator)
                        .await
                        .unwrap()
                );
            }
        }
        for _ in 0..2 {
            assert_oauth_error(&rp.poll(&id).await, 400, "access_denied");
        }
    }
    let kinds = app.backend.column("SELECT kind FROM issuances").await;
    assert_eq!(kinds, ["voided", "voided", "voided"]);

    // Locked before the decision: the phone is refused, and a locked person's request is cancelled.
    let user = app.user("bob").await;
    let phone = app.phone(&user).await;
    let id = bank.start("bob").await;
    let shown = show(&phone, &id).await;
    assert_eq!(app.services().lock_user(&user).await.unwrap(), 1);
    let refused = phone
        .try_answer(&shown, Decision::Approve, None)
        .await
        .unwrap();
    assert_eq!(refused.json()["code"], "already_decided");
    assert_oauth_error(&bank.poll(&id).await, 400, "access_denied");
    let asked = bank
        .ask(&[("scope", "openid"), ("login_hint", "bob")])
        .await;
    assert_oauth_error(&asked, 400, "unknown_user_id");
    // A locked client cannot ask.
    let locked = app.client("locked").await;
    app.services().lock_client(&locked.client.id).await.unwrap();
    let asked = locked
        .ask(&[("scope", "openid"), ("login_hint", "bob")])
        .await;
    assert_oauth_error(&asked, 400, "unauthorized_client");
}

async fn cancelling_ends_a_request_at_any_point(ground: Ground) {
    let app = TestApp::on(ground).await;
    let (bank, _, phone) = app.cast().await;
    let cancel = async |id: &str| app.cancel(&bank, id).await.unwrap();

    let pending = bank.start("alice").await;
    assert_eq!(cancel(&pending).await, Cancelled::Yes);
    assert_eq!(cancel(&pending).await, Cancelled::Yes);
    assert_oauth_error(&bank.poll(&pending).await, 400, "access_denied");
    assert!(phone.inbox().await.unwrap().is_empty());

    let approved = bank.start("alice").await;
    approve(&phone, &approved).await;
    assert_eq!(cancel(&approved).await, Cancelled::Yes);
    assert_eq!(cancel(&approved).await, Cancelled::Yes);
    assert_oauth_error(&bank.poll(&approved).await, 400, "access_denied");

    let redeemed = bank.start("alice").await;
    approve(&phone, &redeemed).await;
    assert_eq!(bank.poll(&redeemed).await.status, 200);
    assert!(matches!(cancel(&redeemed).await, Cancelled::TooLate(_)));

    let denied = bank.start("alice").await;
    deny(&phone, &denied).await;
    assert!(matches!(cancel(&denied).await, Cancelled::TooLate(_)));
    let unknown = RequestKey {
        partition: Partition(7),
        id: RequestId::from_bytes([0; 32]),
    };
    let cancelled = app.services().cancel(unknown, "test").await.unwrap();
    assert_eq!(cancelled, Cancelled::Unknown);
}

async fn any_of_several_phones_may_answer(ground: Ground) {
    let app = TestApp::on(ground).await;
    let (bank, alice, first) = app.cast().await;
    let second = app.phone(&alice).await;
    let id = bank.start("alice").await;
    app.run_jobs().await;
    assert_eq!(app.push.sent().len(), 2, "all of her phones are woken");
    let (on_first, on_second) = (show(&first, &id).await, show(&second, &id).await);
    second
        .answer(&on_second, Decision::Deny, None)
        .await
        .unwrap();
    let late = first
        .try_answer(&on_first, Decision::Approve, None)
        .await
        .unwrap();
    assert_eq!(
        (late.status, late.json()["code"].as_str()),
        (409, Some("already_decided"))
    );
    // Nobody else's phone sees her requests.
    let bob = app.user("bob").await;
    let his = app.phone(&bob).await;
    let other = bank.start("alice").await;
    assert!(his.inbox().await.unwrap().is_empty());
    assert!(his.show(request_id(&other)).await.is_err());
    // A revoked phone is out at once; the other goes on.
    let path = format!("/device/v1/devices/{}", second.id());
    assert_eq!(first.call("DELETE", &path, None).await.unwrap().status, 204);
    let refused = second
        .call("GET", "/device/v1/requests", None)
        .await
        .unwrap();
    assert_eq!(
        (refused.status, refused.json()["code"].as_str()),
        (403, Some("device_revoked"))
    );
    approve(&first, &other).await;
    assert_eq!(bank.poll(&other).await.status, 200);
}

/// The pending store forgets everything, or only its newest writes: what was decided still holds.
async fn the_projection_may_be_lost(backend: Backend) {
    let app = TestApp::new(backend).await;
    let (bank, _, phone) = app.cast().await;
    let approved = bank.start("alice").await;
    approve(&phone, &approved).await;
    let denied = bank.start("alice").await;
    deny(&phone, &denied).await;
    let redeemed = bank.start("alice").await;
    approve(&phone, &redeemed).await;
    assert_eq!(bank.poll(&redeemed).await.status, 200);

    // A fail-over takes back the newest writes; the sweep says them again.
    app.backend
        .execute("UPDATE pending_requests SET state = 'pending'")
        .await;
    assert_oauth_error(&bank.poll(&denied).await, 400, "authorization_pending");
    let reconcile = async |these| app.services().reconcile(these).await.unwrap();
    assert_eq!(
        reconcile(Standings::Unused).await,
        2,
        "what somebody waits for"
    );
    assert_oauth_error(&bank.poll(&denied).await, 400, "access_denied");
    assert_eq!(reconcile(Standings::All).await, 3);
    assert_oauth_error(&bank.poll(&redeemed).await, 400, "invalid_grant");

    let undecided = bank.start("alice").await;
    app.backend.execute("DELETE FROM pending_requests").await;
    assert_oauth_error(&bank.poll(&undecided).await, 400, "expired_token");
    assert_oauth_error(&bank.poll(&denied).await, 400, "access_denied");
    assert_oauth_error(&bank.poll(&redeemed).await, 400, "invalid_grant");
    assert_eq!(bank.poll(&approved).await.status, 200);
    assert_oauth_error(&bank.poll(&approved).await, 400, "invalid_grant");
}

/// A row that nobody can read any more holds up itself alone.
async fn a_damaged_outcome_holds_up_no_other(backend: Backend) {
    let app = TestApp::new(backend).await;
    let (bank, _, phone) = app.cast().await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        let id = bank.start("alice").await;
        deny(&phone, &id).await;
        ids.push(id);
    }
    // In the order of the sweep: the first and the last are damaged, each in its way.
    ids.sort_by_key(|id| request_id(id).to_string());
    for (id, damage) in [
        (&ids[0], "outcome = 'perhaps'"),
        (&ids[2], "request_id = '~ no hash'"),
    ] {
        let row = request_id(id);
        let update = format!("UPDATE outcomes SET {damage} WHERE request_id = '{row}'");
        assert_eq!(app.backend.execute(&update).await, 1);
    }
    app.backend
        .execute("UPDATE pending_requests SET state = 'pending'")
        .await;
    let page = app
        .services()
        .ledger
        .standing_states(Standings::All, None, 2, app.now());
    let page = page.await.unwrap();
    let named = format!("outcomes row {}: outcome", request_id(&ids[0]));
    assert_eq!(page.damaged[0].to_string(), named);
    assert_eq!((page.states.len(), page.is_full), (1, true));

    assert_eq!(app.services().reconcile(Standings::All).await.unwrap(), 1);
    assert_oauth_error(&bank.poll(&ids[1]).await, 400, "access_denied");
    assert_oauth_error(&bank.poll(&ids[0]).await, 400, "authorization_pending");
    let metrics = format!("{}/metrics", app.management_url);
    let metrics = app.http.get(&metrics, &[]).await.unwrap().body;
    assert!(
        metrics.contains("assent_damaged_outcomes_total"),
        "{metrics}"
    );
}

/// The reply to a decision, or to an enrolment, was lost: the phone sends the same again.
async fn an_answer_can_be_sent_again(ground: Ground) {
    let app = TestApp::on(ground).await;
    let (bank, alice, phone) = app.cast().await;
    let id = bank.start("alice").await;
    let shown = show(&phone, &id).await;
    for _ in 0..2 {
        phone.answer(&shown, Decision::Approve, None).await.unwrap();
    }
    let changed = phone
        .try_answer(&shown, Decision::Deny, None)
        .await
        .unwrap();
    assert_eq!(
        (changed.status, changed.json()["code"].as_str()),
        (409, Some("already_decided"))
    );
    assert_eq!(bank.poll(&id).await.status, 200);
    phone.answer(&shown, Decision::Approve, None).await.unwrap();

    let ticket = app.services().create_enrolment(&alice).await.unwrap();
    let body = phone
        .enrolment(ticket.typed_code.expose(), "again")
        .unwrap();
    let url = format!("{}/device/v1/enrolments", app.url);
    let known = app.http.json("POST", &url, &[], &body).await.unwrap();
    assert_eq!(
        (known.status, known.json()["code"].as_str()),
        (409, Some("device_known"))
    );

    let link = assent::phone::EnrolmentLink::parse(ticket.link.expose()).unwrap();
    let entropy = std::sync::Arc::new(assent::entropy::SystemEntropy);
    let new = assent::phone::Phone::enrol(&link, "new", app.clock.clone(), entropy)
        .await
        .unwrap();
    let body = new.enrolment(&link.code, "new").unwrap();
    let again = app.http.json("POST", &url, &[], &body).await.unwrap();
    assert_eq!(
        (again.status, again.json()["device_id"].as_str()),
        (201, Some(new.id().as_str()))
    );
    assert_eq!(app.backend.count("devices").await, 2);
}

async fn what_a_locked_client_asked_reaches_nobody(ground: Ground) {
    let app = TestApp::on(ground).await;
    let (bank, _, phone) = app.cast().await;
    let shop = app.client("shop").await;
    let asked = bank.start("alice").await;
    let other = shop.start("alice").await;
    app.services().lock_client(&bank.client.id).await.unwrap();
    assert_eq!(app.run_jobs().await, 2);
    assert_eq!(app.push.sent().len(), 1, "only the other one wakes her");
    let inbox = phone.inbox().await.unwrap();
    let ids: Vec<_> = inbox.iter().map(|waiting| waiting.id).collect();
    assert_eq!(ids, [request_id(&other)]);
    assert!(phone.show(request_id(&asked)).await.is_err());
}
