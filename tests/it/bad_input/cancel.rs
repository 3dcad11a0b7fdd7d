//! `POST /bc-cancel`: the form, and every handle that is not one of the caller's open requests.

use super::check::{case, refuse};
use super::forge::bend;
use super::token_life::bad_forms;
use crate::support::{
    Backend, RelyingParty, TestApp, approve, assert_oauth_error, deny, on_both, request_id,
};
use assent::phone::Phone;

on_both!(forms, handles, what_is_over_cannot_be_withdrawn);

const PATH: &str = "/bc-cancel";

async fn scene(backend: Backend) -> (TestApp, RelyingParty, Phone) {
    let app = TestApp::with(backend, vec![("ciba.cancel_endpoint", "true".into())]).await;
    let (bank, _, phone) = app.cast().await;
    (app, bank, phone)
}

async fn forms(backend: Backend) {
    let (app, bank, _) = scene(backend).await;
    let id = bank.start("alice").await;
    refuse(&app, bad_forms(&bank, PATH, "auth_req_id", &id)).await;
    assert_oauth_error(&bank.poll(&id).await, 400, "authorization_pending");
    // A name of its own: a token is no handle.
    let token = bank.form(PATH, format!("token={id}"));
    refuse(&app, vec![case("token", token, 400, "invalid_request")]).await;
}

/// Whatever is not a handle we made for this client gets one answer, to the byte.
async fn handles(backend: Backend) {
    let (app, bank, _) = scene(backend).await;
    let id = bank.start("alice").await;
    let other = app.client("other").await;
    let theirs = other.start("alice").await;
    #[rustfmt::skip]
    let mut wrong: Vec<String> = vec![
        "x".into(), "+".into(), "A".repeat(75), "A".repeat(74), "A".repeat(76), "A".repeat(60_000), theirs.clone(),
        request_id(&id).to_string(), bend(&id), format!("{id}A"), format!("{id}="), format!("{id}=="),
        format!("+{id}"), format!("{id}+"), format!("{id}%0a"), format!("{id}%20"), id[..74].into(), id[1..].into(),
        id.to_uppercase(), id.to_lowercase(), id.chars().rev().collect(), format!("{id}{id}"), format!("%22{id}%22"),
        format!("{}%2B", &id[..74]), "%27+OR+%271%27%3D%271".into(), "..%2F..%2Fetc%2Fpasswd".into(), "%25".into(),
        "null".into(), "0".into(), "-1".into(), "%5B%5D".into(), "%C3%A9".into(), "a.b.c".into(),
        "assent_rt_AAAA".into(), "notify_client%3Ax".into(),
    ];
    for at in 0..id.len() - 1 {
        let letter = if &id[at..=at] == "A" { "B" } else { "A" };
        wrong.push(format!("{}{letter}{}", &id[..at], &id[at + 1..]));
    }
    let cancel = |id: &str| bank.form(PATH, format!("auth_req_id={id}"));
    let cases = wrong
        .iter()
        .map(|id| case(format!("{id:.80}"), cancel(id), 400, "invalid_grant"));
    refuse(&app, cases.collect()).await;
    let unknown = cancel("x").send(app.address()).await;
    for id in &wrong {
        let answer = cancel(id).send(app.address()).await;
        assert_eq!(answer.body, unknown.body, "{id:.80}");
    }
    assert_oauth_error(&bank.poll(&id).await, 400, "authorization_pending");
    assert_oauth_error(&other.poll(&theirs).await, 400, "authorization_pending");
}

/// Denied, redeemed, expired: the outcome stays what it is.
async fn what_is_over_cannot_be_withdrawn(backend: Backend) {
    let (app, bank, phone) = scene(backend).await;
    let denied = bank.start("alice").await;
    deny(&phone, &denied).await;
    let redeemed = bank.start("alice").await;
    approve(&phone, &redeemed).await;
    let tokens = bank.poll(&redeemed).await.json();
    let over = |name, id: &str| {
        let request = bank.form(PATH, format!("auth_req_id={id}"));
        case(name, request, 400, "invalid_request")
    };
    let cases = vec![over("denied", &denied), over("redeemed", &redeemed)];
    refuse(&app, cases).await;
    assert_oauth_error(&bank.poll(&denied).await, 400, "access_denied");
    let token = tokens["access_token"].as_str().unwrap();
    assert_eq!(bank.introspect(token).await.json()["active"], true);
    let expired = bank.start("alice").await;
    app.advance(120);
    refuse(&app, vec![over("expired", &expired)]).await;
    assert_oauth_error(&bank.poll(&expired).await, 400, "expired_token");
}
