//! `POST /token`: grant, handle, and the `Prefer` header.

use super::backchannel::{self, GOOD};
use super::check::{case, refuse};
use super::forge::bend;
use super::wire::{FORM, Request};
use crate::support::{
    Backend, CIBA_GRANT, RelyingParty, TestApp, assert_oauth_error, on_both, request_id,
};

on_both!(forms, grants, handles, preferences);

const PATH: &str = "/token";

/// A bank, and a request of its that waits.
async fn scene(backend: Backend) -> (TestApp, RelyingParty, String) {
    let (app, bank) = backchannel::scene(backend).await;
    let id = bank.start("alice").await;
    (app, bank, id)
}

async fn forms(backend: Backend) {
    let (app, bank, id) = scene(backend).await;
    let good = format!("grant_type={CIBA_GRANT}&auth_req_id={id}");
    #[rustfmt::skip]
    let bodies = [
        String::new(),
        "&&".into(),
        format!(r#"{{"grant_type":"{CIBA_GRANT}","auth_req_id":"{id}"}}"#),
        format!("{good}&grant_type={CIBA_GRANT}"),
        format!("{good}&grant_type="),
        format!("{good}&grant%5ftype=x"),
        format!("{good}&auth_req_id={id}"),
        format!("{good}&auth_req_id=x"),
        format!("{good}&auth_req_id"),
        format!("{good}&client_id=bank&client_id=bank"),
        format!("{good}&x=1&x=2"),
        format!("{good}&x=%00"),
        format!("{good}%00"),
        format!("{good}%ff"),
        format!("{good}%"),
        format!("{good}&x=%4"),
    ];
    let mut cases: Vec<_> = bodies
        .iter()
        .map(|body| {
            case(
                format!("{body:.70}"),
                bank.form(PATH, body),
                400,
                "invalid_request",
            )
        })
        .collect();
    let large = bank.form(PATH, good.clone() + "&x=" + &"a".repeat(64 * 1024));
    cases.push(case("too large", large, 413, "invalid_request"));
    for types in [
        &[][..],
        &["text/plain"],
        &["application/json"],
        &[FORM, FORM],
    ] {
        let bare = bank.form(PATH, &good).without("content-type");
        let request = types
            .iter()
            .fold(bare, |r, value| r.with("content-type", value));
        cases.push(case(
            format!("type {types:?}"),
            request,
            400,
            "invalid_request",
        ));
    }
    // What belongs into the body is not looked for anywhere else.
    let in_url = bank.form(&format!("{PATH}?{good}"), "");
    cases.push(case("in the URL", in_url, 400, "invalid_request"));
    refuse(&app, cases).await;
}

async fn grants(backend: Backend) {
    let (app, bank, id) = scene(backend).await;
    #[rustfmt::skip]
    let others = [
        "authorization_code", "password", "implicit", "ciba",
        "urn:ietf:params:oauth:grant-type:device_code", "urn:ietf:params:oauth:grant-type:jwt-bearer",
        "urn:ietf:params:oauth:grant-type:token-exchange", "URN:OPENID:PARAMS:GRANT-TYPE:CIBA",
        "urn:openid:params:grant-type:ciba+", "+urn:openid:params:grant-type:ciba", "x%0a", "%F0%9F%92%A3",
        "urn:openid:params:grant-type:ciba%0a", "urn:openid:params:grant-type:cib%D0%B0", "'+OR+'1'%3D'1", "../..",
    ];
    let mut cases: Vec<_> = others
        .iter()
        .map(|grant| {
            let request = bank.form(PATH, format!("grant_type={grant}&auth_req_id={id}"));
            case(*grant, request, 400, "unsupported_grant_type")
        })
        .collect();
    for body in [
        format!("auth_req_id={id}"),
        format!("grant_type=&auth_req_id={id}"),
        format!("Grant_Type={CIBA_GRANT}&auth_req_id={id}"),
        format!("grant_type={CIBA_GRANT}"),
        format!("grant_type={CIBA_GRANT}&auth_req_id="),
        format!("grant_type={CIBA_GRANT}&Auth_Req_Id={id}"),
        format!("grant_type={CIBA_GRANT}&code={id}"),
    ] {
        let name = format!("{body:.90}");
        cases.push(case(name, bank.form(PATH, body), 400, "invalid_request"));
    }
    refuse(&app, cases).await;
}

/// Whatever is not a handle we made for this client gets one answer, to the byte.
async fn handles(backend: Backend) {
    let (app, bank, id) = scene(backend).await;
    let other = app.client("other").await;
    let theirs = other.start("alice").await;
    #[rustfmt::skip]
    let mut wrong: Vec<String> = vec![
        "x".into(), "+".into(), "A".repeat(75), "A".repeat(74), "A".repeat(76), "A".repeat(60_000), theirs,
        request_id(&id).to_string(), bend(&id), format!("{id}A"), format!("{id}="), format!("{id}=="),
        format!("+{id}"), format!("{id}+"), format!("{id}%0a"), format!("{id}%20"), id[..74].into(), id[1..].into(),
        id.to_uppercase(), id.to_lowercase(), id.chars().rev().collect(), format!("{id}{id}"), format!("%22{id}%22"),
        id.replacen(|c: char| c.is_ascii_alphabetic(), "%C3%A9", 1), format!("{}%2B", &id[..74]),
        format!("{}%2F", &id[..74]), "%27+OR+%271%27%3D%271".into(), "..%2F..%2Fetc%2Fpasswd".into(), "%25".into(),
        "1c266114-a1be-4252-8ad1-04986c5b9ac1".into(), "null".into(), "0".into(), "-1".into(), "%5B%5D".into(),
    ];
    // Every byte of it counts: key version, partition, expiry, random part and MAC.
    for at in 0..id.len() - 1 {
        let letter = if &id[at..=at] == "A" { "B" } else { "A" };
        wrong.push(format!("{}{letter}{}", &id[..at], &id[at + 1..]));
    }
    let poll = |id: &str| bank.form(PATH, format!("grant_type={CIBA_GRANT}&auth_req_id={id}"));
    let cases = wrong
        .iter()
        .map(|id| case(format!("{id:.80}"), poll(id), 400, "invalid_grant"));
    refuse(&app, cases.collect()).await;
    let unknown = poll("x").send(app.address()).await;
    for id in &wrong {
        assert_eq!(
            poll(id).send(app.address()).await.body,
            unknown.body,
            "{id}"
        );
    }
    // None of it counted as a poll of the real one.
    assert_oauth_error(&bank.poll(&id).await, 400, "authorization_pending");
}

/// RFC 7240 2: a preference that cannot be read is no preference. Each of these is answered at once,
/// or the test would wait for ever: the clock stands still.
async fn preferences(backend: Backend) {
    let (app, bank, _) = scene(backend).await;
    #[rustfmt::skip]
    let headers: &[&[&[u8]]] = &[
        &[b""], &[b"wait"], &[b"wait="], &[b"wait=0"], &[b"wait=-1"], &[b"wait=1.5"], &[b"wait=x"], &[b"wait=\"\""],
        &[b"wait=99999999999999999999"], &[b"wait=0x10"], &[b"wait=\xff"], &[b"\xff"], &[b"=30"], &[b"waiting=30"],
        &[b"wait 30"], &[b"respond-async"], &[b"wait=0, wait=30"], &[b"wait=0", b"wait=30"], &[b"wait=x", b"wait=30"],
        &[&[b'w'; 16 * 1024]], &[b";;;,,,==="],
    ];
    for values in headers {
        let asked = bank
            .form("/bc-authorize", GOOD)
            .send(app.address())
            .await
            .json();
        let id = asked["auth_req_id"].as_str().unwrap();
        let poll: Request = bank.form(PATH, format!("grant_type={CIBA_GRANT}&auth_req_id={id}"));
        let poll = values.iter().fold(poll, |r, value| r.with("prefer", value));
        assert_oauth_error(
            &poll.send(app.address()).await,
            400,
            "authorization_pending",
        );
    }
}
