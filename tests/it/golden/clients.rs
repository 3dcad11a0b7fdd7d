//! What clients are told beside the way of a poll that goes well: whole answers, so that no member can
//! come along unseen.

use super::{Names, assert_golden};
use crate::support::rp_endpoint::{Notification, RpEndpoint};
use crate::support::{Backend, RelyingParty, TestApp, approve, deny, registration};
use assent::domain::Scope;
use assent::domain::client::{AccessTokenFormat, Delivery, Grant, Registration};
use serde_json::{Value, json};

fn refreshing(delivery: Delivery) -> Registration {
    let mut registration = Registration {
        delivery,
        ..registration()
    };
    registration.grants.insert(Grant::RefreshToken);
    registration
}

#[tokio::test(flavor = "multi_thread")]
async fn refreshed_and_service_tokens_and_introspection() {
    let app = TestApp::new(Backend::sqlite()).await;
    let alice = app.user("alice").await;
    let phone = app.phone(&alice).await;
    let bank = app.client_with("bank", refreshing(Delivery::Poll)).await;
    let mut service = Registration {
        access_token_format: AccessTokenFormat::Opaque,
        audience: Some("https://api.example".into()),
        scope: Scope::parse("openid payments").unwrap(),
        ..registration()
    };
    service.grants = [Grant::ClientCredentials].into();
    let opaque = app.client_with("opaque-service", service.clone()).await;
    service.access_token_format = AccessTokenFormat::Jwt;
    let service = app.client_with("service", service).await;
    let names = Names::of(&app).with(alice.id, "<sub>");

    let id = bank.start("alice").await;
    approve(&phone, &id).await;
    app.advance(3);
    let first = bank.poll(&id).await;
    app.advance(4);
    let text = |body: &Value, name: &str| body[name].as_str().unwrap().to_owned();
    let second = bank.refresh(&text(&first.json(), "refresh_token")).await;
    let conversation = json!({
        "redeemed": names.answer(&first)["body"],
        "refreshed": names.answer(&second),
    });
    assert_golden("refresh-response", &conversation);

    let credentials = [("grant_type", "client_credentials"), ("scope", "payments")];
    let own = service.post("/token", &credentials).await;
    let hidden = opaque.post("/token", &credentials).await;
    let conversation = json!({ "jwt": names.answer(&own), "opaque": names.answer(&hidden) });
    assert_golden("client-credentials-response", &conversation);

    let about = async |client: &RelyingParty, token: String| {
        let answer = client.introspect(&token).await;
        names.answer(&answer)
    };
    let (second, own, hidden) = (second.json(), own.json(), hidden.json());
    let conversation = json!({
        "access token": about(&bank, text(&second, "access_token")).await,
        "refresh token": about(&bank, text(&second, "refresh_token")).await,
        "a service's": about(&service, text(&own, "access_token")).await,
        "a service's, opaque": about(&opaque, text(&hidden, "access_token")).await,
        "another client's": about(&service, text(&second, "access_token")).await,
        "used up": about(&bank, text(&first.json(), "refresh_token")).await,
    });
    assert_golden("introspection", &conversation);
    let revoked = bank.revoke(&text(&second, "refresh_token")).await;
    assert_golden("revocation", &names.answer(&revoked));
}

#[tokio::test(flavor = "multi_thread")]
async fn notifications_and_a_withdrawal() {
    let settings = vec![
        ("ciba.cancel_endpoint", "true".into()),
        ("ciba.open_requests_per_user", "100".into()),
    ];
    let app = TestApp::with(Backend::sqlite(), settings).await;
    let alice = app.user("alice").await;
    let phone = app.phone(&alice).await;
    let (pinged, pushed) = (RpEndpoint::new(&[]).await, RpEndpoint::new(&[]).await);
    let ping = Delivery::Ping {
        endpoint: pinged.url.clone(),
    };
    let push = Delivery::Push {
        endpoint: pushed.url.clone(),
    };
    let shop = app.client_with("shop", refreshing(ping)).await;
    let bank = app.client_with("bank", refreshing(push)).await;
    let names = Names::of(&app).with(&alice.id, "<sub>");
    let shown = |one: &Notification| {
        names.apply(&json!({
            "authorization": one.authorization, "content-type": one.content_type, "body": one.json(),
        }))
    };

    let id = shop.start_told("alice").await;
    approve(&phone, &id).await;
    app.run_jobs().await;
    let ping = pinged.received();
    assert_eq!(ping.len(), 1);
    assert_golden("ping", &shown(&ping[0]));

    // Approved, denied, withdrawn before and after the approval, too late, and approved by somebody who
    // is locked.
    let approved = bank.start_told("alice").await;
    approve(&phone, &approved).await;
    app.run_jobs().await;
    let denied = bank.start_told("alice").await;
    deny(&phone, &denied).await;
    app.run_jobs().await;
    let withdrawn = bank.start_told("alice").await;
    let cancel = bank
        .post("/bc-cancel", &[("auth_req_id", &withdrawn)])
        .await;
    assert_golden("cancel", &names.answer(&cancel));
    app.run_jobs().await;
    let late = bank.start_told("alice").await;
    approve(&phone, &late).await;
    let cancelled = app.cancel(&bank, &late).await;
    cancelled.unwrap();
    app.run_jobs().await;
    let expired = bank.start_told("alice").await;
    approve(&phone, &expired).await;
    app.advance(181);
    app.run_jobs().await;
    let locked = bank.start_told("alice").await;
    approve(&phone, &locked).await;
    app.services().lock_user(&alice).await.unwrap();
    app.run_jobs().await;
    let pushes: Vec<_> = pushed.received().iter().map(shown).collect();
    // Whoever withdraws knows: there is no push for that.
    let [tokens, denied, cancelled, expired, locked] = &pushes[..] else {
        panic!("{} pushes", pushes.len());
    };
    let conversation = json!({
        "approved": tokens,
        "denied": denied,
        "withdrawn after the approval": cancelled,
        "expired": expired,
        "locked": locked,
    });
    assert_golden("push", &conversation);
}
