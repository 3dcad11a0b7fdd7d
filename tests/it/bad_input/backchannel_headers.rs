//! `POST /bc-authorize`: content type, `Idempotency-Key`, and the cap on open requests.

use super::backchannel::{GOOD, PATH, scene};
use super::check::{assert_unchanged, case, refuse};
use super::wire::{FORM, Request};
use crate::support::{Backend, TestApp, assert_oauth_error, deny, on_both};
use std::time::Duration;

on_both!(headers, idempotency_keys, more_than_the_cap);

#[rustfmt::skip]
const BAD_HEADERS: &[(&str, &str, &[&[u8]])] = &[
    ("no content type", "content-type", &[]),
    ("empty", "content-type", &[b""]),
    ("the same twice", "content-type", &[FORM.as_bytes(), FORM.as_bytes()]),
    ("two", "content-type", &[FORM.as_bytes(), b"application/json"]),
    ("two in one line", "content-type", &[b"application/x-www-form-urlencoded, application/json"]),
    ("text", "content-type", &[b"text/plain"]),
    ("JSON", "content-type", &[b"application/json"]),
    ("multipart", "content-type", &[b"multipart/form-data; boundary=x"]),
    ("almost a form", "content-type", &[b"application/x-www-form-urlencodedx"]),
    ("a form as a parameter", "content-type", &[b"text/plain; application/x-www-form-urlencoded"]),
    ("not ASCII", "content-type", &[b"application/x-www-form-urlencoded\xc3\xa9"]),
    ("empty", "idempotency-key", &[b""]),
    ("of spaces", "idempotency-key", &[b"   "]),
    ("with a space", "idempotency-key", &[b"a b"]),
    ("with a tab", "idempotency-key", &[b"a\tb"]),
    ("not ASCII", "idempotency-key", &[b"\xc3\xa9"]),
    ("not UTF-8", "idempotency-key", &[b"a\xff"]),
    ("of 256", "idempotency-key", &[&[b'k'; 256]]),
    ("of 16 KiB", "idempotency-key", &[&[b'k'; 16 * 1024]]),
    ("the same twice", "idempotency-key", &[b"key", b"key"]),
    ("two", "idempotency-key", &[b"key", b"other"]),
    ("one and an empty one", "idempotency-key", &[b"key", b""]),
];

async fn headers(backend: Backend) {
    let (app, bank) = scene(backend).await;
    let good = bank.form(PATH, GOOD);
    let zip = b"\x1f\x8b\x08\0\0\0\0\0\0\x03\x2b\x4e\xce\x2f\x48\xb5\xcd\x2f\x48\xcd\xcb\x4c\x01\0";
    let zipped = good.clone().with("content-encoding", "gzip").body(zip);
    let mut cases = vec![case("packed", zipped, 400, "invalid_request")];
    for (name, header, values) in BAD_HEADERS {
        let bare = good.clone().without(header);
        let request = values.iter().fold(bare, |r, value| r.with(header, value));
        cases.push(case(
            format!("{header} {name}"),
            request,
            400,
            "invalid_request",
        ));
    }
    refuse(&app, cases).await;
    // The longest key there may be.
    let longest = good.with("idempotency-key", "k".repeat(255));
    assert_eq!(longest.send(app.address()).await.status, 200);
}

async fn idempotency_keys(backend: Backend) {
    let (app, bank) = scene(backend).await;
    let shop = app.posting_client("shop").await;
    let keyed = |body: &str| bank.form(PATH, body).with("idempotency-key", "key");
    let first = keyed(GOOD).send(app.address()).await;
    let id = first.json()["auth_req_id"].as_str().unwrap().to_owned();
    let before = app.state().await;
    // The same request in another order, and with what counts as absent: the same answer.
    for same in [
        GOOD,
        "login_hint=alice&scope=openid",
        &format!("{GOOD}&request="),
    ] {
        assert_eq!(
            keyed(same).send(app.address()).await.body,
            first.body,
            "{same}"
        );
    }
    assert_unchanged(&before, &app.state().await);
    let other = |body: &str, error| case(body, keyed(body), 400, error);
    refuse(
        &app,
        vec![
            other(
                "scope=openid&login_hint=alice&binding_message=X",
                "invalid_request",
            ),
            other(
                "scope=openid&login_hint=alice&requested_expiry=120",
                "invalid_request",
            ),
            other("scope=openid&login_hint=alice&foo=bar", "invalid_request"),
            other("scope=openid+profile&login_hint=alice", "invalid_request"),
            other("scope=openid&login_hint=nobody", "unknown_user_id"),
        ],
    )
    .await;
    // Another client's keys are its own.
    let theirs = format!("{GOOD}&client_id=shop&client_secret={}", shop.secret);
    let theirs = Request::form(PATH, theirs).with("idempotency-key", "key");
    let answer = theirs.send(app.address()).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_ne!(answer.json()["auth_req_id"], *id);
    // To the very end of its life the answer says a positive number (CIBA Core 7.3).
    app.clock.advance(Duration::from_millis(119_500));
    let late = keyed(GOOD).send(app.address()).await.json();
    assert_eq!(late["auth_req_id"], *id);
    assert_eq!(late["expires_in"], 1);
}

/// Over the cap nothing is created; what exists can still be asked for again.
async fn more_than_the_cap(backend: Backend) {
    let app = TestApp::new(backend).await;
    let (bank, _, phone) = app.cast().await;
    let keyed = bank.form(PATH, GOOD).with("idempotency-key", "first");
    let first = keyed.send(app.address()).await;
    let id = first.json()["auth_req_id"].as_str().unwrap().to_owned();
    deny(&phone, &id).await;
    for _ in 0..3 {
        bank.start("alice").await;
    }
    let fourth = bank.form(PATH, GOOD);
    let with_key = fourth.clone().with("idempotency-key", "fourth");
    let cases = [("a fourth", fourth), ("a fourth with a key", with_key)];
    let refused = cases.map(|(name, request)| case(name, request, 403, "access_denied"));
    refuse(&app, refused.into()).await;
    assert_eq!(keyed.send(app.address()).await.body, first.body);
    assert_oauth_error(&bank.poll(&id).await, 400, "access_denied");
}
