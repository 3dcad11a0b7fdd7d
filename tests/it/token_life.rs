//! The life of a token after it was issued: used, refreshed, looked at, revoked.

use crate::support::{
    Backend, RelyingParty, TestApp, approve, assert_oauth_error, on_both, registration,
};
use assent::domain::Scope;
use assent::domain::User;
use assent::domain::client::{AccessTokenFormat, Grant, Registration, SubjectType};
use assent::phone::Phone;
use assent::service::devices::Actor;
use serde_json::{Value, json};
use std::collections::BTreeSet;

on_both!(
    a_refresh_token_is_good_once_and_its_successor_is_the_same,
    reuse_after_the_grace_period_ends_the_family,
    fifty_refreshes_at_once_have_one_successor,
    every_layer_of_revocation_ends_a_token_alone,
    a_service_gets_tokens_for_itself,
    opaque_tokens_say_nothing_and_can_do_the_same,
);

fn refreshing() -> Registration {
    let mut registration = registration();
    registration.grants.insert(Grant::RefreshToken);
    registration
}

/// Approved and redeemed: the token response.
async fn tokens(client: &RelyingParty, phone: &Phone) -> Value {
    let id = client.start("alice").await;
    approve(phone, &id).await;
    let answer = client.poll(&id).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.json()
}

fn text<'a>(tokens: &'a Value, name: &str) -> &'a str {
    tokens[name].as_str().unwrap()
}

async fn setting(backend: Backend) -> (TestApp, RelyingParty, User, Phone) {
    let app = TestApp::new(backend).await;
    let alice = app.user("alice").await;
    let phone = app.phone(&alice).await;
    let shop = app.client_with("shop", refreshing()).await;
    (app, shop, alice, phone)
}

async fn a_refresh_token_is_good_once_and_its_successor_is_the_same(backend: Backend) {
    let (app, shop, _, phone) = setting(backend).await;
    let first = tokens(&shop, &phone).await;
    assert!(text(&first, "refresh_token").starts_with("assent_rt_"));
    app.advance(60);
    let second = shop.refresh(text(&first, "refresh_token")).await;
    assert_eq!(second.status, 200, "{}", second.body);
    assert_eq!(second.header("cache-control"), Some("no-store"));
    let body = second.json();
    let members: BTreeSet<_> = body.as_object().unwrap().keys().cloned().collect();
    let expected = ["access_token", "expires_in", "refresh_token", "token_type"];
    assert_eq!(members, expected.map(String::from).into());
    // The reply was lost: the same is given again, not a sibling.
    app.advance(9);
    assert_eq!(
        shop.refresh(text(&first, "refresh_token")).await.body,
        second.body
    );
    assert_eq!(
        shop.introspect(text(&body, "access_token")).await.json()["active"],
        true
    );
    // Another client cannot use it, nor can this one ask for more.
    let thief = app.client_with("thief", refreshing()).await;
    assert_oauth_error(
        &thief.refresh(text(&body, "refresh_token")).await,
        400,
        "invalid_grant",
    );
    let more = [
        ("grant_type", "refresh_token"),
        ("refresh_token", text(&body, "refresh_token")),
        ("scope", "openid profile"),
    ];
    assert_oauth_error(&shop.post("/token", &more).await, 400, "invalid_scope");
    // Its end is absolute.
    let third = shop.refresh(text(&body, "refresh_token")).await.json();
    app.advance(30 * 24 * 3600);
    assert_oauth_error(
        &shop.refresh(text(&third, "refresh_token")).await,
        400,
        "invalid_grant",
    );
    assert!(app.services().verify_audit(None).await.unwrap().is_whole());
}

async fn reuse_after_the_grace_period_ends_the_family(backend: Backend) {
    let (app, shop, _, phone) = setting(backend).await;
    let first = tokens(&shop, &phone).await;
    let second = shop.refresh(text(&first, "refresh_token")).await.json();
    app.advance(10);
    assert_oauth_error(
        &shop.refresh(text(&first, "refresh_token")).await,
        400,
        "invalid_grant",
    );
    assert_oauth_error(
        &shop.refresh(text(&second, "refresh_token")).await,
        400,
        "invalid_grant",
    );
    for token in ["access_token", "refresh_token"] {
        assert_eq!(
            shop.introspect(text(&second, token)).await.json(),
            json!({ "active": false })
        );
    }
    assert_eq!(
        app.backend
            .count("audit WHERE kind = 'refresh_family.revoked'")
            .await,
        1
    );
    // Only this family: a new approval begins another.
    let other = tokens(&shop, &phone).await;
    assert_eq!(
        shop.introspect(text(&other, "refresh_token")).await.json()["active"],
        true
    );
}

async fn fifty_refreshes_at_once_have_one_successor(backend: Backend) {
    let (app, shop, _, phone) = setting(backend).await;
    let first = tokens(&shop, &phone).await;
    let refreshes = (0..50).map(|_| {
        let (shop, token) = (shop.clone(), text(&first, "refresh_token").to_owned());
        async move { shop.refresh(&token).await }
    });
    let answers = tokio::task::JoinSet::from_iter(refreshes).join_all().await;
    let bodies: BTreeSet<_> = answers
        .iter()
        .map(|answer| (answer.status, &answer.body))
        .collect();
    assert_eq!(bodies.len(), 1, "{bodies:?}");
    assert_eq!(answers[0].status, 200);
    assert_eq!(app.backend.count("refresh_tokens").await, 2);
    assert_eq!(
        app.backend
            .count("refresh_families WHERE revoked_at IS NULL")
            .await,
        1
    );
}

async fn every_layer_of_revocation_ends_a_token_alone(backend: Backend) {
    let (app, shop, alice, first_phone) = setting(backend).await;
    let second_phone = app.phone(&alice).await;
    let services = app.services();
    let active = async |client: &RelyingParty, tokens: &Value, name: &str| {
        client.introspect(text(tokens, name)).await.json()["active"] == true
    };
    // A control that only the layers of its own person and client can end.
    let control = tokens(&shop, &second_phone).await;
    let assert_only = async |ended: &Value, what: &str| {
        assert!(!active(&shop, ended, "access_token").await, "{what}");
        assert!(
            active(&shop, &control, "access_token").await,
            "{what} spares the control"
        );
        assert!(
            active(&shop, &control, "refresh_token").await,
            "{what} spares the control"
        );
    };

    let token = tokens(&shop, &second_phone).await;
    assert_eq!(shop.revoke(text(&token, "access_token")).await.status, 200);
    assert!(
        active(&shop, &token, "refresh_token").await,
        "the family lives on"
    );
    assert_only(&token, "token").await;

    let family = tokens(&shop, &second_phone).await;
    let answer = shop.revoke(text(&family, "refresh_token")).await;
    assert_eq!((answer.status, answer.body.as_str()), (200, ""));
    assert!(!active(&shop, &family, "refresh_token").await);
    assert_only(&family, "family").await;

    let device = tokens(&shop, &first_phone).await;
    let phone = services
        .directory
        .device(&first_phone.id())
        .await
        .unwrap()
        .unwrap();
    services
        .revoke_device(&phone, Actor::Operator)
        .await
        .unwrap();
    assert!(!active(&shop, &device, "refresh_token").await);
    assert_oauth_error(
        &shop.refresh(text(&device, "refresh_token")).await,
        400,
        "invalid_grant",
    );
    assert_only(&device, "device").await;

    let other_shop = app.client_with("other-shop", refreshing()).await;
    let client = tokens(&other_shop, &second_phone).await;
    app.advance(1);
    services
        .revoke_client_tokens(&other_shop.client.id)
        .await
        .unwrap();
    assert!(!active(&other_shop, &client, "access_token").await);
    assert!(!active(&other_shop, &client, "refresh_token").await);
    assert_oauth_error(
        &other_shop.refresh(text(&client, "refresh_token")).await,
        400,
        "invalid_grant",
    );
    let later = tokens(&other_shop, &second_phone).await;
    assert!(
        active(&other_shop, &later, "access_token").await,
        "what comes after is good"
    );
    services.lock_client(&other_shop.client.id).await.unwrap();
    assert!(!active(&other_shop, &later, "access_token").await);
    assert!(active(&shop, &control, "access_token").await);

    // The person's layers end everything of hers.
    services.revoke_user_tokens(&alice).await.unwrap();
    for name in ["access_token", "refresh_token"] {
        assert!(!active(&shop, &control, name).await);
    }
    let last = tokens(&shop, &second_phone).await;
    assert!(active(&shop, &last, "access_token").await);
    let bearer = format!("Bearer {}", text(&last, "access_token"));
    let userinfo = async || {
        let headers = [("authorization", bearer.as_str())];
        app.http
            .get(&format!("{}/userinfo", app.url), &headers)
            .await
            .unwrap()
            .status
    };
    assert_eq!(userinfo().await, 200);
    services.lock_user(&alice).await.unwrap();
    assert!(!active(&shop, &last, "access_token").await);
    assert_eq!(userinfo().await, 401);
    assert!(services.verify_audit(None).await.unwrap().is_whole());
}

async fn a_service_gets_tokens_for_itself(backend: Backend) {
    let app = TestApp::new(backend).await;
    let registration = Registration {
        grants: BTreeSet::from([Grant::ClientCredentials]),
        audience: Some("https://payments.example".into()),
        ..Registration::new(
            "Ledger service",
            Scope::parse("openid payments reports").unwrap(),
        )
    };
    let service = app.client_with("service", registration).await;
    let ask = async |scope: &[(&str, &str)]| {
        let grant = [("grant_type", "client_credentials")];
        service
            .post("/token", &[grant.as_slice(), scope].concat())
            .await
    };
    let answer = ask(&[("scope", "payments")]).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let body = answer.json();
    let members: BTreeSet<_> = body.as_object().unwrap().keys().cloned().collect();
    let expected = ["access_token", "expires_in", "scope", "token_type"];
    assert_eq!(members, expected.map(String::from).into());
    assert_eq!(ask(&[]).await.json()["scope"], "payments reports");
    let about = service.introspect(text(&body, "access_token")).await.json();
    assert_eq!(
        about,
        json!({
            "active": true, "iss": app.url, "client_id": "service", "sub": "service",
            "scope": "payments", "aud": "https://payments.example", "token_type": "Bearer",
            "jti": about["jti"], "iat": app.now().secs(), "exp": app.now().secs() + 600,
        })
    );
    assert_oauth_error(&ask(&[("scope", "openid")]).await, 400, "invalid_scope");
    assert_oauth_error(&ask(&[("scope", "admin")]).await, 400, "invalid_scope");
    // Nobody is asked by it, and it asks nobody.
    let asked = service
        .ask(&[("scope", "openid"), ("login_hint", "alice")])
        .await;
    assert_oauth_error(&asked, 400, "unauthorized_client");
    let shop = app.client("shop").await;
    let refused = shop
        .post("/token", &[("grant_type", "client_credentials")])
        .await;
    assert_oauth_error(&refused, 400, "unauthorized_client");
    // It opens no /userinfo, and another client learns nothing of it.
    let bearer = format!("Bearer {}", text(&body, "access_token"));
    let headers = [("authorization", bearer.as_str())];
    let userinfo = app
        .http
        .get(&format!("{}/userinfo", app.url), &headers)
        .await
        .unwrap();
    assert_eq!(userinfo.status, 401);
    assert_eq!(
        shop.introspect(text(&body, "access_token")).await.json(),
        json!({ "active": false })
    );
    app.advance(600);
    assert_eq!(
        service.introspect(text(&body, "access_token")).await.json(),
        json!({ "active": false })
    );
}

async fn opaque_tokens_say_nothing_and_can_do_the_same(backend: Backend) {
    let app = TestApp::new(backend).await;
    let alice = app.user("alice").await;
    let phone = app.phone(&alice).await;
    let registration = Registration {
        access_token_format: AccessTokenFormat::Opaque,
        ..registration()
    };
    let shop = app.client_with("shop", registration).await;
    let issued = tokens(&shop, &phone).await;
    let token = text(&issued, "access_token");
    assert!(token.starts_with("assent_at_") && !token.contains('.'));
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str())];
    let info = app
        .http
        .get(&format!("{}/userinfo", app.url), &headers)
        .await
        .unwrap();
    assert_eq!(info.json(), json!({ "sub": alice.id }));
    let about = shop.introspect(token).await.json();
    assert_eq!(
        (&about["active"], &about["sub"]),
        (&json!(true), &json!(alice.id))
    );
    assert_eq!(about["acr"], "urn:assent:acr:device");
    assert_eq!(shop.revoke(token).await.status, 200);
    assert_eq!(
        shop.introspect(token).await.json(),
        json!({ "active": false })
    );
    for nonsense in [
        "",
        "x",
        "assent_at_",
        "assent_rt_",
        "a.b.c",
        token.trim_end_matches('A'),
    ] {
        if nonsense.is_empty() {
            assert_oauth_error(&shop.introspect(nonsense).await, 400, "invalid_request");
            assert_oauth_error(&shop.revoke(nonsense).await, 400, "invalid_request");
        } else {
            assert_eq!(
                shop.introspect(nonsense).await.json(),
                json!({ "active": false })
            );
            assert_eq!(shop.revoke(nonsense).await.status, 200);
        }
    }
}

/// The same person has another `sub` in every sector, the same in one, and everything knows her by it.
#[tokio::test(flavor = "multi_thread")]
async fn pairwise_subjects_differ_by_sector_and_last() {
    let app = TestApp::new(Backend::sqlite()).await;
    let alice = app.user("alice").await;
    let phone = app.phone(&alice).await;
    let pairwise = |sector: &str| Registration {
        subject: SubjectType::Pairwise {
            sector: sector.into(),
        },
        ..refreshing()
    };
    let mut subs = Vec::new();
    for (id, sector) in [("a1", "a.example"), ("a2", "a.example"), ("b", "b.example")] {
        let client = app.client_with(id, pairwise(sector)).await;
        let issued = tokens(&client, &phone).await;
        let about = client
            .introspect(text(&issued, "access_token"))
            .await
            .json();
        let bearer = format!("Bearer {}", text(&issued, "access_token"));
        let headers = [("authorization", bearer.as_str())];
        let info = app
            .http
            .get(&format!("{}/userinfo", app.url), &headers)
            .await
            .unwrap()
            .json();
        assert_eq!(about["sub"], info["sub"]);
        // Her ID Token is a hint for this client, by that very sub.
        let hint = client
            .ask(&[
                ("scope", "openid"),
                ("id_token_hint", text(&issued, "id_token")),
            ])
            .await;
        assert_oauth_error(&hint, 400, "invalid_request");
        subs.push(text(&about, "sub").to_owned());
    }
    assert_eq!(subs[0], subs[1]);
    assert_ne!(subs[0], subs[2]);
    assert!(!subs.contains(&alice.id.to_string()));
}
