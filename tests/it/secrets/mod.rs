//! After a full run of the real server, with everything that can go right and wrong, no secret is found
//! in the database, in the log, in the metrics or in what commands print; and nobody's name in the log.

mod authentication;
mod run;
mod scan;

use crate::support::process::finish;
use crate::support::{Backend, on_both, request_id};
use assent::clock::{Clock as _, ManualClock, SystemClock};
use assent::crypto::from_base64url;
use assent::domain::Decision;
use run::{Client, Run};
use scan::Secrets;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

on_both!(no_secret_is_found_after_a_full_run);

const LOGIN: &str = "zephyrine.q";
const NAME: &str = "Zephyrine Quillfeather";
const MESSAGE: &str = "Xylograph 4711 for Quentin";

async fn no_secret_is_found_after_a_full_run(backend: Backend) {
    let mut run = Run::begin(backend).await;
    run.print(&["user", "add", LOGIN, "--name", NAME], 0);
    let old = run.client("bank", false);
    let rotated = run.site.json(&["client", "rotate-secret", "bank"]);
    let bank = run.know_secret("bank", rotated["client_secret"].as_str().unwrap(), false);
    let shop = run.client("shop", true);
    what_goes_right(&mut run, &bank, &shop).await;
    what_goes_wrong(&mut run, &bank, &old).await;
    // Last, since it cancels what is asked in the same moment.
    let stolen = request_id(&run.ask(&bank).await).to_string();
    run.print(&["phone", "deny", &stolen, "--reason", "fraud"], 0);
    let printing: [&[&str]; 8] = [
        &["client", "list"],
        &["client", "list", "--json"],
        &["user", "list"],
        &["device", "list", LOGIN],
        &["keys", "list"],
        &["audit", "verify"],
        &["config", "check"],
        &["migrate"],
    ];
    for arguments in printing {
        run.print(arguments, 0);
    }
    let metrics = format!("{}/metrics", run.site.management_url);
    let metrics = run.http.get(&metrics, &[]).await.unwrap();
    assert!(metrics.body.contains("assent_polls_total"), "{metrics:?}");

    // While it runs, what SQLite has not yet moved from its log; afterwards, all of it.
    let mut places = scan::database(&run.site.backend).await;
    run.server.stop().await;
    places.extend(scan::database(&run.site.backend).await);
    let log = run.server.log();
    assert!(log.contains("answered") && log.contains("tokens issued"));
    places.push(("the log".into(), log.clone().into()));
    places.push(("standard output".into(), run.server.output().into()));
    places.push(("the metrics".into(), metrics.body.clone().into()));
    places.push(("what commands print".into(), run.printed.clone().into()));
    assert!(run.secrets.count() > 300 && places.len() > 30);
    let found: BTreeSet<String> = places
        .iter()
        .flat_map(|(place, content)| run.secrets.found_in(place, content))
        .collect();
    assert!(found.is_empty(), "{found:#?}");

    let mut person = Secrets::new();
    for words in [
        LOGIN,
        NAME,
        MESSAGE,
        "Zephyrine",
        "Quillfeather",
        "Xylograph",
    ] {
        person.needle(words, words.as_bytes());
    }
    for (place, content) in [("the log", log), ("the metrics", metrics.body)] {
        let found = person.found_in(place, content.as_bytes());
        assert!(found.is_empty(), "{found:#?}");
    }
    a_planted_secret_is_found(&run, &bank).await;
}

/// Enrolments by link and by code, approvals and denials, tokens and their redelivery.
async fn what_goes_right(run: &mut Run, bank: &Client, shop: &Client) {
    let (link, _) = run.ticket();
    run.print(&["phone", "enrol", &link], 0);
    let file = run.site.folder().join("assent-data/phone.json");
    let file: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    run.know_phone(&file);
    let (_, code) = run.ticket();
    let phone = run.enrol(&code, Arc::new(SystemClock)).await;

    let target = "fcm-token-c0ffee-1b2c3d4e5f60718293a4b5c6d7e8f9";
    run.secrets.text("a push target", target);
    let body = json!({ "platform": "fcm", "push_target": target }).to_string();
    let claims = phone.proof_claims("PUT", "/device/v1/push-target", body.as_bytes());
    assert_eq!(run.call(&phone, &claims, &body).await.status, 204);

    for client in [bank, shop] {
        let id = run.ask(client).await;
        run.print(&["phone", "list"], 0);
        run.print(&["phone", "approve"], 0);
        let tokens = run.poll(client, &id).await;
        assert_eq!(tokens.status, 200, "{tokens:?}");
        assert_eq!(run.poll(client, &id).await.body, tokens.body);
        let bearer = format!("Bearer {}", tokens.json()["access_token"].as_str().unwrap());
        let userinfo = format!("{}/userinfo", run.site.url);
        let info = run.http.get(&userinfo, &[("authorization", &bearer)]).await;
        assert_eq!(info.unwrap().json()["name"], NAME);

        let id = run.ask(client).await;
        run.answer(&phone, request_id(&id), Decision::Approve).await;
        assert_eq!(run.poll(client, &id).await.status, 200);
        let id = run.ask(client).await;
        run.answer(&phone, request_id(&id), Decision::Deny).await;
        assert_eq!(run.poll(client, &id).await.json()["error"], "access_denied");
        // One that nobody comes for, and one that nobody decides.
        let id = run.ask(client).await;
        run.answer(&phone, request_id(&id), Decision::Approve).await;
        run.ask(client).await;
        // The phone in the terminal answers the only one that waits.
        run.print(&["phone", "deny", "--reason", "mistake"], 0);
    }
    run.ask(bank).await;
}

/// Wrong secrets, codes, ids, proofs and tokens, and secrets in places where they do not belong.
async fn what_goes_wrong(run: &mut Run, bank: &Client, old: &Client) {
    let id = run.ask(bank).await;
    let stranger = run.client("stranger", false);
    for client in [old, &stranger] {
        let refused = run.poll(client, &id).await;
        assert!([400, 401].contains(&refused.status), "{refused:?}");
    }
    let mut forged = id.clone();
    forged.replace_range(20..24, "AAAA");
    run.secrets.text("a forged auth_req_id", &forged);
    assert_eq!(
        run.poll(bank, &forged).await.json()["error"],
        "invalid_grant"
    );

    let (_, code) = run.ticket();
    let wrong = format!("{}-ZZZZZ-ZZZZZZ", &code[..5]);
    run.secrets.text("a wrong code", &wrong);
    run.print(
        &[
            "phone",
            "--file",
            "p",
            "enrol",
            &wrong,
            "--issuer",
            &run.site.url.clone(),
        ],
        1,
    );

    // A phone whose clock is wrong gets a nonce, and proves itself with it.
    let late = SystemClock.now().minus(Duration::from_secs(200));
    let phone = run.enrol(&code, Arc::new(ManualClock::new(late))).await;
    let path = "/device/v1/requests";
    let mut claims = phone.proof_claims("GET", path, b"");
    let refused = run.call(&phone, &claims, "").await;
    assert_eq!(refused.status, 401, "{refused:?}");
    let nonce = refused.header("device-nonce").unwrap();
    run.secrets.text("a nonce", nonce);
    claims["nonce"] = nonce.into();
    claims["jti"] = "a-jti-of-this-test".into();
    assert_eq!(run.call(&phone, &claims, "").await.status, 200);
    // The same again, one for another path, and one that another key has signed.
    assert_eq!(run.call(&phone, &claims, "").await.status, 401);
    claims["htu"] = format!("{}/device/v1/device", run.site.url).into();
    claims["jti"] = "another-jti-of-this-test".into();
    claims["bh"] = "wrong".into();
    assert_eq!(run.call(&phone, &claims, "").await.status, 401);
    claims["iss"] = "someone-else".into();
    assert_eq!(run.call(&phone, &claims, "").await.status, 401);

    // In a query, in a path, in a header that is not read, in JSON that is none.
    let (url, secret) = (&run.site.url, &bank.secret);
    for target in [
        format!("{url}/token?client_secret={secret}&auth_req_id={id}"),
        format!("{url}/userinfo?access_token={secret}"),
        format!("{url}/{secret}"),
        format!("{url}/device/v1/requests/{id}"),
        format!("{url}/device/v1/devices/{secret}?login_hint={LOGIN}"),
    ] {
        for method in ["GET", "POST", "DELETE"] {
            let headers = [("x-request-id", secret.as_str()), ("cookie", id.as_str())];
            let body = format!("{{\"code\":\"{code}\",\"{secret}\"").into_bytes();
            let answer = run
                .http
                .send(method, &target, &headers, body)
                .await
                .unwrap();
            assert!((400..500).contains(&answer.status), "{target}: {answer:?}");
            assert!(!answer.body.contains(secret.as_str()), "{answer:?}");
        }
    }
    let body = format!("{{\"code\":\"{code}\",\"{secret}\":1}}").into_bytes();
    let json = [("content-type", "application/json")];
    let enrolments = format!("{url}/device/v1/enrolments");
    let answer = run
        .http
        .send("POST", &enrolments, &json, body)
        .await
        .unwrap();
    assert_eq!(answer.status, 400);
    assert!(!answer.body.contains(secret.as_str()), "{answer:?}");
    let bearer = format!("Bearer {secret}.{id}.{secret}");
    let userinfo = format!("{url}/userinfo");
    let answer = run.http.get(&userinfo, &[("authorization", &bearer)]).await;
    assert_eq!(answer.unwrap().status, 401);
    let grants = [
        ("grant_type", secret.as_str()),
        ("auth_req_id", &id),
        ("scope", NAME),
    ];
    assert_eq!(run.send(bank, "/token", &grants).await.status, 400);
}

/// The scan finds what is there: a secret in a column, in each form, and in SQLite's files.
async fn a_planted_secret_is_found(run: &Run, bank: &Client) {
    let random = bank.secret.strip_prefix("assent_cs_").unwrap();
    let bytes = from_base64url(random).unwrap();
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    for planted in [&bank.secret, random, &hex] {
        let set = format!("UPDATE devices SET os_version = 'x {planted} y'");
        assert!(run.site.backend.execute(&set).await > 0);
        let places = scan::database(&run.site.backend).await;
        let found: BTreeSet<String> = places
            .iter()
            .flat_map(|(place, content)| run.secrets.found_in(place, content))
            .collect();
        let has = |place: &str| found.iter().any(|found| found.starts_with(place));
        assert!(has("table devices holds a client secret"), "{found:?}");
        if matches!(run.site.backend, Backend::Sqlite(_)) {
            assert!(has("file assent.db"), "{found:?}");
        }
    }
    let leak = finish(run.site.command(&["client", "rotate-secret", "bank"]));
    let mut secrets = Secrets::new();
    let printed = leak.stdout.lines().next().unwrap();
    secrets.text("a new secret", printed.rsplit_once(' ').unwrap().1);
    assert!(
        !secrets
            .found_in("standard output", leak.stdout.as_bytes())
            .is_empty()
    );
}
