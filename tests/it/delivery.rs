//! Ping and push: what arrives at the client, when, and what happens when it does not arrive.

use crate::support::rp_endpoint::{Reply, RpEndpoint};
use crate::support::{
    Backend, Ground, NOTIFICATION_TOKEN, RelyingParty, TestApp, approve, assert_oauth_error, deny,
    everywhere, registration, show,
};
use assent::domain::Decision;
use assent::domain::client::{Delivery, Grant, Registration};
use assent::phone::statement::KeySet;
use serde_json::{Value, json};

everywhere!(
    a_ping_says_only_that_there_is_something,
    a_push_brings_tokens_bound_together,
    undelivered_tokens_are_revoked,
);

/// A client that is told at `endpoint`.
async fn told(app: &TestApp, id: &str, delivery: Delivery) -> RelyingParty {
    let mut registration = Registration {
        delivery,
        ..registration()
    };
    registration.grants.insert(Grant::RefreshToken);
    app.client_with(id, registration).await
}

async fn a_ping_says_only_that_there_is_something(ground: Ground) {
    let app = TestApp::on(ground).await;
    let (_, _, phone) = app.cast().await;
    let endpoint = RpEndpoint::new(&[Reply::Status(200)]).await;
    let shop = told(
        &app,
        "shop",
        Delivery::Ping {
            endpoint: endpoint.url.clone(),
        },
    )
    .await;

    let approved = shop.start_told("alice").await;
    assert_oauth_error(&shop.poll(&approved).await, 400, "authorization_pending");
    app.run_jobs().await;
    assert!(endpoint.received().is_empty(), "nothing is decided yet");
    approve(&phone, &approved).await;
    app.run_jobs().await;
    let pings = endpoint.received();
    assert_eq!(pings.len(), 1);
    assert_eq!(
        pings[0].authorization,
        format!("Bearer {NOTIFICATION_TOKEN}")
    );
    assert_eq!(pings[0].content_type, "application/json");
    assert_eq!(pings[0].json(), json!({ "auth_req_id": approved }));
    let tokens = shop.poll(&approved).await;
    assert_eq!(tokens.status, 200, "{}", tokens.body);
    assert_oauth_error(&shop.poll(&approved).await, 400, "invalid_grant");

    // A denial is told too.
    let denied = shop.start_told("alice").await;
    deny(&phone, &denied).await;
    app.run_jobs().await;
    assert_eq!(
        endpoint.received()[1].json(),
        json!({ "auth_req_id": denied })
    );
    assert_oauth_error(&shop.poll(&denied).await, 400, "access_denied");
    app.run_jobs().await;
    assert_eq!(endpoint.received().len(), 2);
    assert_eq!(app.backend.count("jobs").await, 0);
}

async fn a_push_brings_tokens_bound_together(ground: Ground) {
    let app = TestApp::on(ground).await;
    let (_, alice, phone) = app.cast().await;
    let endpoint = RpEndpoint::new(&[Reply::Status(503), Reply::Reset]).await;
    let shop = told(
        &app,
        "shop",
        Delivery::Push {
            endpoint: endpoint.url.clone(),
        },
    )
    .await;

    let id = shop.start_told("alice").await;
    approve(&phone, &id).await;
    app.run_jobs().await;
    // Twice it fails; then the very same bytes arrive.
    app.advance(1);
    app.run_jobs().await;
    app.advance(2);
    app.run_jobs().await;
    let pushes = endpoint.received();
    assert_eq!(pushes.len(), 3);
    assert!(pushes.iter().all(|push| push.body == pushes[0].body));
    assert_eq!(
        pushes[0].authorization,
        format!("Bearer {NOTIFICATION_TOKEN}")
    );
    let body = pushes[0].json();
    let members: Vec<_> = body.as_object().unwrap().keys().cloned().collect();
    assert_eq!(
        members,
        [
            "access_token",
            "auth_req_id",
            "expires_in",
            "id_token",
            "refresh_token",
            "token_type"
        ]
    );
    assert_eq!(body["auth_req_id"], id.as_str());
    let jwks = app
        .http
        .get(&format!("{}/jwks", app.url), &[])
        .await
        .unwrap()
        .json();
    let claims: Value = KeySet::new(&jwks)
        .verify("JWT", body["id_token"].as_str().unwrap())
        .unwrap();
    let half = |text: &Value| {
        let hash = assent::crypto::sha256(text.as_str().unwrap().as_bytes());
        assent::crypto::base64url(&hash[..16])
    };
    assert_eq!(claims["sub"], alice.id.as_str());
    assert_eq!(claims["at_hash"], half(&body["access_token"]));
    assert_eq!(
        claims["urn:openid:params:jwt:claim:rt_hash"],
        half(&body["refresh_token"])
    );
    assert_eq!(
        claims["urn:openid:params:jwt:claim:auth_req_id"],
        id.as_str()
    );
    // Delivered: nothing is kept, and the token endpoint is not for this client.
    let kept = app
        .backend
        .column("SELECT COALESCE(response, 'erased') FROM issuances")
        .await;
    assert_eq!(kept, ["erased"]);
    assert_oauth_error(&shop.poll(&id).await, 400, "unauthorized_client");
    app.advance(60);
    app.run_jobs().await;
    assert_eq!(endpoint.received().len(), 3);

    let denied = shop.start_told("alice").await;
    deny(&phone, &denied).await;
    app.run_jobs().await;
    assert_eq!(
        endpoint.received()[3].json(),
        json!({
            "auth_req_id": denied,
            "error": "access_denied",
            "error_description": "the request was not approved",
        })
    );
}

/// The endpoint refuses for good, or never answers well: the tokens die, and the job is kept for people.
async fn undelivered_tokens_are_revoked(ground: Ground) {
    let app = TestApp::on(ground).await;
    let (_, _, phone) = app.cast().await;
    let resource = app.client("resource").await;
    for (name, replies) in [
        ("refuses", vec![Reply::Status(401)]),
        ("redirects", vec![Reply::Redirect]),
        ("fails", vec![Reply::Status(500); 200]),
    ] {
        let endpoint = RpEndpoint::new(&replies).await;
        let shop = told(
            &app,
            name,
            Delivery::Push {
                endpoint: endpoint.url.clone(),
            },
        )
        .await;
        let id = shop.start_told("alice").await;
        approve(&phone, &id).await;
        app.run_jobs().await;
        for _ in 0..190 {
            app.advance(1);
            app.run_jobs().await;
        }
        let pushes = endpoint.received();
        assert_eq!(
            pushes.len() == 1,
            name != "fails",
            "{name}: {}",
            pushes.len()
        );
        assert!(pushes.iter().all(|push| push.body == pushes[0].body));
        let body = pushes[0].json();
        for token in ["access_token", "refresh_token"] {
            let active = shop.introspect(body[token].as_str().unwrap()).await;
            assert_eq!(active.json(), json!({ "active": false }), "{name} {token}");
        }
    }
    assert_eq!(app.backend.count("jobs WHERE dead_at IS NOT NULL").await, 3);
    let kept = app
        .backend
        .column("SELECT COALESCE(response, 'erased') FROM issuances")
        .await;
    assert_eq!(kept, ["erased", "erased", "erased"]);
    let undelivered = "audit WHERE kind = 'tokens.undelivered'";
    assert_eq!(app.backend.count(undelivered).await, 3);
    drop(resource);
}

/// One client's endpoint hangs; another's notifications are not held up behind it.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_client_hurts_nobody_else() {
    let app = TestApp::new(Backend::sqlite()).await;
    let (_, _, phone) = app.cast().await;
    let slow = RpEndpoint::new(&[Reply::Hang, Reply::Hang, Reply::Hang]).await;
    let quick = RpEndpoint::new(&[]).await;
    let slow_shop = told(
        &app,
        "slow",
        Delivery::Ping {
            endpoint: slow.url.clone(),
        },
    )
    .await;
    let quick_shop = told(
        &app,
        "quick",
        Delivery::Ping {
            endpoint: quick.url.clone(),
        },
    )
    .await;
    for shop in [&slow_shop, &slow_shop, &quick_shop] {
        let id = shop.start_told("alice").await;
        approve(&phone, &id).await;
    }
    app.server.start_background();
    // The slow ones take five seconds each to give up; the quick one must not wait for them.
    while quick.received().is_empty() {
        tokio::task::yield_now().await;
    }
    assert!(slow.received().len() <= 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ping_that_fails_never_fails_the_request() {
    let app = TestApp::new(Backend::sqlite()).await;
    let (_, _, phone) = app.cast().await;
    for reply in [
        Reply::Status(403),
        Reply::Redirect,
        Reply::Reset,
        Reply::Status(500),
    ] {
        let endpoint = RpEndpoint::new(&[reply]).await;
        let name = format!("{reply:?}").replace(['(', ')'], "-");
        let shop = told(
            &app,
            &name,
            Delivery::Ping {
                endpoint: endpoint.url.clone(),
            },
        )
        .await;
        let id = shop.start_told("alice").await;
        approve(&phone, &id).await;
        app.run_jobs().await;
        assert_eq!(shop.poll(&id).await.status, 200, "{reply:?}");
    }
}

/// Tokens that the client has fetched live on, though it could not be pinged, and though the response
/// is kept for a while.
#[tokio::test(flavor = "multi_thread")]
async fn a_ping_that_fails_takes_no_tokens_back() {
    let settings = vec![("ciba.redelivery", "60s".into())];
    let app = TestApp::with(Backend::sqlite(), settings).await;
    let (_, _, phone) = app.cast().await;
    let endpoint = RpEndpoint::new(&[Reply::Status(401)]).await;
    let delivery = Delivery::Ping {
        endpoint: endpoint.url.clone(),
    };
    let shop = told(&app, "shop", delivery).await;
    let id = shop.start_told("alice").await;
    approve(&phone, &id).await;
    let tokens = shop.poll(&id).await.json();
    app.run_jobs().await;
    assert_eq!(app.backend.count("jobs WHERE dead_at IS NOT NULL").await, 1);
    for token in ["access_token", "refresh_token"] {
        let about = shop.introspect(tokens[token].as_str().unwrap()).await;
        assert_eq!(about.json()["active"], true, "{token}");
    }
    assert_eq!(shop.poll(&id).await.json(), tokens, "delivered again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_approval_is_pushed_as_a_failure() {
    let app = TestApp::new(Backend::sqlite()).await;
    let (_, _, phone) = app.cast().await;
    let endpoint = RpEndpoint::new(&[]).await;
    let shop = told(
        &app,
        "shop",
        Delivery::Push {
            endpoint: endpoint.url.clone(),
        },
    )
    .await;
    let id = shop.start_told("alice").await;
    approve(&phone, &id).await;
    app.cancel(&shop, &id).await.unwrap();
    app.run_jobs().await;
    assert_eq!(endpoint.received()[0].json()["error"], "transaction_failed");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_approval_that_was_not_pushed_in_time_has_expired() {
    let app = TestApp::new(Backend::sqlite()).await;
    let (_, _, phone) = app.cast().await;
    let endpoint = RpEndpoint::new(&[]).await;
    let delivery = Delivery::Push {
        endpoint: endpoint.url.clone(),
    };
    let shop = told(&app, "shop", delivery).await;
    let id = shop.start_told("alice").await;
    approve(&phone, &id).await;
    app.advance(3600);
    app.run_jobs().await;
    let pushes = endpoint.received();
    assert_eq!(pushes.len(), 1);
    assert_eq!(pushes[0].json()["error"], "expired_token");
    assert_eq!(app.backend.count("refresh_tokens").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_notification_token_has_its_own_rules() {
    let app = TestApp::new(Backend::sqlite()).await;
    app.cast().await;
    let delivery = Delivery::Ping {
        endpoint: "http://127.0.0.1:1/".into(),
    };
    let shop = told(&app, "shop", delivery).await;
    let base = [("scope", "openid"), ("login_hint", "alice")];
    assert_oauth_error(&shop.ask(&base).await, 400, "invalid_request");
    let longest = format!("{}=", "x-._~+/".repeat(147))[..1024].to_owned();
    for (token, good) in [
        (longest.as_str(), true),
        (&"x".repeat(1025), false),
        (&"x".repeat(21), false),
        (&"x".repeat(22), true),
        ("0123456789012345678901 2", false),
        ("0123456789=01234567890123", false),
        ("======================", false),
        ("012345678901234567890123\u{e9}", false),
    ] {
        let answer = shop
            .ask(&[base.as_slice(), &[("client_notification_token", token)]].concat())
            .await;
        if good {
            assert_eq!(answer.status, 200, "{token}");
        } else {
            assert_oauth_error(&answer, 400, "invalid_request");
        }
    }
}

/// Two nodes redeem, one by push job and one by poll of a client that changed its mode: one issuance.
#[tokio::test(flavor = "multi_thread")]
async fn a_redemption_race_in_ping_mode_has_one_winner() {
    let app = TestApp::new(Backend::sqlite()).await;
    let (_, _, phone) = app.cast().await;
    let endpoint = RpEndpoint::new(&[]).await;
    let shop = told(
        &app,
        "shop",
        Delivery::Ping {
            endpoint: endpoint.url.clone(),
        },
    )
    .await;
    let id = shop.start_told("alice").await;
    let shown = show(&phone, &id).await;
    phone.answer(&shown, Decision::Approve, None).await.unwrap();
    let polls = (0..16).map(|_| {
        let (shop, id) = (shop.clone(), id.clone());
        async move { shop.poll(&id).await.status }
    });
    let (statuses, _) = tokio::join!(
        tokio::task::JoinSet::from_iter(polls).join_all(),
        app.run_jobs()
    );
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 1);
    assert_eq!(endpoint.received().len(), 1);
}
