//! Every error of the OAuth endpoints, as a client is told of it.

use super::{Names, assert_golden};
use crate::bad_input::wire::Request;
use crate::support::{Backend, CIBA_GRANT, TestApp, approve, deny};
use assent::domain::Scope;
use assent::domain::client::{Grant, Registration};
use assent::phone::http::basic;
use serde_json::{Map, Value};

#[tokio::test(flavor = "multi_thread")]
async fn every_oauth_error() {
    let app = TestApp::new(Backend::sqlite()).await;
    let (bank, _, phone) = app.cast().await;
    let names = Names::of(&app);
    let mut errors = Map::new();
    let mut show = async |name: &str, request: Request| {
        let answer = names.exchange(&app, request).await;
        assert!(errors.insert(name.into(), answer).is_none(), "{name}");
    };
    let ask = |more: &str| {
        bank.form(
            "/bc-authorize",
            format!("scope=openid&login_hint=alice{more}"),
        )
    };
    let poll = |id: &str| {
        bank.form(
            "/token",
            format!("grant_type={CIBA_GRANT}&auth_req_id={id}"),
        )
    };
    let bearing = |token: &str| {
        Request::new("GET", "/userinfo").with("authorization", format!("Bearer {token}"))
    };

    show(
        "invalid_request, another method",
        Request::new("GET", "/token"),
    )
    .await;
    let json = ask("")
        .without("content-type")
        .with("content-type", "application/json");
    show("invalid_request, another content type", json).await;
    show("invalid_request, too large", ask(&"x".repeat(70_000))).await;
    show("invalid_request, twice", ask("&scope=openid")).await;
    show("invalid_request, broken escape", ask("&x=%")).await;
    show("invalid_request, NUL", ask("&x=%00")).await;
    show("invalid_request, bad UTF-8", ask("&x=%ff")).await;
    let many: String = (0..100).map(|i| format!("&p{i}=1")).collect();
    show("invalid_request, too many", ask(&many)).await;
    show(
        "invalid_request, missing",
        bank.form("/bc-authorize", "login_hint=alice"),
    )
    .await;
    show(
        "invalid_request, no openid",
        bank.form("/bc-authorize", "scope=profile"),
    )
    .await;
    show(
        "invalid_request, hints",
        bank.form("/bc-authorize", "scope=openid"),
    )
    .await;
    show(
        "invalid_request, hint of another kind",
        bank.form("/bc-authorize", "scope=openid&id_token_hint=x"),
    )
    .await;
    show("invalid_request, expiry", ask("&requested_expiry=0")).await;
    show("invalid_request, request object", ask("&request=x")).await;
    show("invalid_request, key", ask("").with("idempotency-key", "")).await;
    ask("")
        .with("idempotency-key", "key")
        .send(app.address())
        .await;
    show(
        "invalid_request, key used",
        ask("&x=1").with("idempotency-key", "key"),
    )
    .await;
    show(
        "invalid_request, two headers",
        ask("").with("authorization", "Basic x"),
    )
    .await;
    show("invalid_request, two methods", ask("&client_secret=x")).await;
    show("invalid_request, no grant", bank.form("/token", "")).await;
    show(
        "invalid_request, no handle",
        bank.form("/token", format!("grant_type={CIBA_GRANT}")),
    )
    .await;
    show(
        "invalid_client, by header",
        Request::form("/token", "").with("authorization", basic("x", "y")),
    )
    .await;
    show(
        "invalid_client, by body",
        Request::form("/token", "client_id=x&client_secret=y"),
    )
    .await;
    show(
        "invalid_scope",
        bank.form("/bc-authorize", "scope=openid+admin&login_hint=alice"),
    )
    .await;
    show(
        "invalid_binding_message, character",
        ask("&binding_message=%E2%80%AE"),
    )
    .await;
    show(
        "invalid_binding_message, length",
        ask(&format!("&binding_message={}", "x".repeat(65))),
    )
    .await;
    show(
        "invalid_binding_message, link",
        ask("&binding_message=evil.example"),
    )
    .await;
    show("invalid_binding_message, empty", ask("&binding_message=+")).await;
    show(
        "invalid_binding_message, marks",
        ask(&format!("&binding_message=b{}", "%CC%81".repeat(5))),
    )
    .await;
    show(
        "invalid_authorization_details",
        ask("&authorization_details=[]"),
    )
    .await;
    show(
        "unknown_user_id",
        bank.form("/bc-authorize", "scope=openid&login_hint=nobody"),
    )
    .await;
    show(
        "unsupported_grant_type",
        bank.form("/token", "grant_type=password"),
    )
    .await;
    show("invalid_grant", poll("x")).await;

    // With the one that the key made, these are all that may be open.
    let (pending, denied) = (bank.start("alice").await, bank.start("alice").await);
    show("access_denied, over the cap", ask("")).await;
    show("authorization_pending", poll(&pending)).await;
    show("slow_down", poll(&pending)).await;
    deny(&phone, &denied).await;
    show("access_denied, denied", poll(&denied)).await;
    approve(&phone, &pending).await;
    let tokens = poll(&pending).send(app.address()).await;
    assert_eq!(tokens.status, 200);
    show("invalid_grant, used", poll(&pending)).await;
    let expired = bank.start("alice").await;
    app.advance(120);
    show("expired_token", poll(&expired)).await;

    show("invalid_token, none", Request::new("GET", "/userinfo")).await;
    show("invalid_token", bearing("x")).await;
    let service = Registration {
        grants: [Grant::ClientCredentials].into(),
        ..Registration::new("Service", Scope::parse("reports").unwrap())
    };
    let service = app.client_with("service", service).await;
    let own = service
        .post("/token", &[("grant_type", "client_credentials")])
        .await
        .json();
    let narrow = own["access_token"].as_str().unwrap().to_owned();
    show("insufficient_scope", bearing(&narrow)).await;

    app.services().lock_client(&bank.client.id).await.unwrap();
    show("unauthorized_client", ask("")).await;
    app.backend
        .execute("UPDATE clients SET registration = ''")
        .await;
    show("server_error", ask("")).await;
    app.backend
        .execute("ALTER TABLE clients RENAME TO away")
        .await;
    show("temporarily_unavailable", ask("")).await;

    assert_golden("oauth-errors", &Value::Object(errors));
}
