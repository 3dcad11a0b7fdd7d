//! Keys follow each other while the server works.

mod revocation;
mod simulation;

use crate::support::{
    Backend, RelyingParty, TestApp, approve, assert_oauth_error, config, on_both, show,
};
use assent::app::{Core, World};
use assent::config::Overrides;
use assent::domain::key::{JWKS_MAX_AGE, KeyState, Purpose};
use assent::domain::{Decision, SignatureAlgorithm, User};
use assent::entropy::SystemEntropy;
use assent::phone::http::Answer;
use assent::phone::statement::KeySet;
use assent::phone::{EnrolmentLink, Phone};
use assent::service::rotate_keys::KeysError;
use serde_json::{Value, json};
use std::sync::Arc;

on_both!(
    a_rotated_key_signs_after_its_delay,
    the_calendar_makes_one_key_however_many_look,
    two_first_keys_at_once_get_a_number_each,
    what_is_pending_survives_the_rotation_of_every_secret,
    rotated_keys_survive_a_restart,
);

const ES256: Option<SignatureAlgorithm> = Some(SignatureAlgorithm::Es256);

/// Another node on the same database and the same clock.
async fn node(app: &TestApp) -> Core {
    open(app, vec![]).await.unwrap()
}

async fn open(app: &TestApp, settings: Overrides) -> anyhow::Result<Core> {
    let world = World {
        clock: app.clock.clone(),
        entropy: Arc::new(SystemEntropy),
        push: app.push.clone(),
    };
    let issuer = vec![("server.issuer", app.url.clone())];
    let config = config(&app.backend, None, [issuer, settings].concat());
    Core::open(&config, world).await
}

async fn jwks(app: &TestApp) -> Answer {
    let url = format!("{}/jwks", app.url);
    app.http.get(&url, &[]).await.unwrap()
}

async fn tokens(bank: &RelyingParty, phone: &Phone) -> Value {
    let id = bank.start("alice").await;
    approve(phone, &id).await;
    let answer = bank.poll(&id).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.json()
}

async fn userinfo(app: &TestApp, tokens: &Value) -> u16 {
    let bearer = format!("Bearer {}", tokens["access_token"].as_str().unwrap());
    let headers = [("authorization", bearer.as_str())];
    let url = format!("{}/userinfo", app.url);
    app.http.get(&url, &headers).await.unwrap().status
}

fn verifies(jwks: &Answer, tokens: &Value) -> bool {
    let token = tokens["id_token"].as_str().unwrap();
    KeySet::new(&jwks.json())
        .verify::<Value>("JWT", token)
        .is_some()
}

async fn states(core: &Core, purpose: Purpose) -> Vec<(u32, KeyState)> {
    let keys = core.services.list_keys().await.unwrap();
    let of = keys.iter().filter(|(key, _)| key.purpose == purpose);
    of.map(|(key, state)| (key.version, *state)).collect()
}

async fn audited(app: &TestApp, kind: &str) -> usize {
    let sql = format!("SELECT kind FROM audit WHERE kind = '{kind}'");
    app.backend.column(&sql).await.len()
}

async fn a_rotated_key_signs_after_its_delay(backend: Backend) {
    let app = TestApp::new(backend).await;
    let (bank, _, phone) = app.cast().await;
    let before = jwks(&app).await;
    let max_age = format!("public, max-age={}", JWKS_MAX_AGE.as_secs());
    assert_eq!(before.header("cache-control"), Some(max_age.as_str()));
    let old = tokens(&bank, &phone).await;

    let operator = node(&app).await;
    let added = operator
        .services
        .rotate_keys(Purpose::TokenSigning, ES256, false)
        .await
        .unwrap();
    assert_eq!((added.len(), added[0].version), (1, 3));
    assert_eq!(
        added[0].activates_at,
        app.now()
            .plus(operator.services.keys.policy().activation_delay)
    );
    // The server follows when it reloads.
    assert_eq!(jwks(&app).await.body, before.body);
    app.services().reload_keys().await.unwrap();
    let both = jwks(&app).await;
    assert_eq!(both.json()["keys"].as_array().unwrap().len(), 3);

    app.advance(599);
    app.services().reload_keys().await.unwrap();
    assert!(verifies(&before, &tokens(&bank, &phone).await));
    app.advance(1);
    app.services().reload_keys().await.unwrap();
    let new = tokens(&bank, &phone).await;
    assert!(verifies(&both, &new) && !verifies(&before, &new));
    assert!(verifies(&jwks(&app).await, &old));
    assert_eq!(userinfo(&app, &new).await, 200);
    let expected = [
        (1, KeyState::Retiring),
        (2, KeyState::Active),
        (3, KeyState::Active),
    ];
    assert_eq!(states(&operator, Purpose::TokenSigning).await, expected);

    app.advance(3600);
    app.services().reload_keys().await.unwrap();
    assert!(!verifies(&jwks(&app).await, &old));
    // Out of the key set, and still good as a hint.
    let keys = &app.services().keys;
    let hint = old["id_token"].as_str().unwrap();
    assert!(keys.verify_token::<Value>("JWT", hint).is_err());
    assert!(keys.verify_hint::<Value>("JWT", hint).is_ok());
    app.advance(90 * 86_400);
    app.services().reload_keys().await.unwrap();
    assert!(keys.verify_hint::<Value>("JWT", hint).is_err());
}

async fn the_calendar_makes_one_key_however_many_look(backend: Backend) {
    let app = TestApp::new(backend).await;
    let nodes = [node(&app).await, node(&app).await, node(&app).await];
    let first = nodes[0].services.list_keys().await.unwrap().len();
    assert!(
        nodes[0]
            .services
            .rotate_due_keys()
            .await
            .unwrap()
            .is_empty()
    );
    // Everything but the one key that phones have pinned.
    let rotating = first - 1;
    for round in 1..=4 {
        app.advance(90 * 86_400);
        let [a, b, c] = nodes.each_ref().map(|node| &node.services);
        let (one, two, three, four) = tokio::join!(
            a.rotate_due_keys(),
            b.rotate_due_keys(),
            c.rotate_due_keys(),
            app.services().rotate_due_keys()
        );
        let added = [one, two, three, four].map(|added| added.unwrap().len());
        assert_eq!(added.iter().sum::<usize>(), rotating, "{added:?}");
        let keys = nodes[1].services.list_keys().await.unwrap();
        assert_eq!(keys.len(), first + round * rotating);
        assert_eq!(audited(&app, "keys.rotated").await, round * rotating);
        let active = keys.iter().filter(|(_, state)| *state == KeyState::Active);
        assert_eq!(active.count(), first);
    }
    let challenge = states(&nodes[0], Purpose::ChallengeSigning).await;
    assert_eq!(challenge, [(1, KeyState::Active)]);
    assert!(app.services().verify_audit(None).await.unwrap().is_whole());
}

async fn two_first_keys_at_once_get_a_number_each(backend: Backend) {
    let app = TestApp::new(backend).await;
    let (other, third) = (node(&app).await, node(&app).await);
    let (ps256, rs256) = (SignatureAlgorithm::Ps256, SignatureAlgorithm::Rs256);
    let (a, b, c) = tokio::join!(
        app.services().ensure_token_key(ps256),
        other.services.ensure_token_key(rs256),
        third.services.ensure_token_key(ps256),
    );
    for made in [a, b, c] {
        made.unwrap();
    }
    let keys = app.services().list_keys().await.unwrap();
    let mut versions: Vec<_> = keys
        .iter()
        .filter(|(key, _)| key.purpose == Purpose::TokenSigning)
        .map(|(key, state)| (key.version, key.algorithm.unwrap(), *state))
        .collect();
    versions.sort_unstable();
    let algorithms: std::collections::BTreeSet<_> = versions.iter().map(|key| key.1).collect();
    assert_eq!((versions.len(), algorithms.len()), (4, 4), "{versions:?}");
    assert!(versions.iter().all(|key| key.2 == KeyState::Active));
    // Wherever it was made, every node can sign with it once it was asked to see to that.
    for services in [app.services(), &other.services, &third.services] {
        for algorithm in [ps256, rs256] {
            services.ensure_token_key(algorithm).await.unwrap();
            let token = services
                .keys
                .sign_token(algorithm, "JWT", &json!({}))
                .unwrap();
            app.services().reload_keys().await.unwrap();
            let jwks = jwks(&app).await.json();
            assert!(jwks["keys"].as_array().unwrap().len() == 4);
            assert!(
                app.services()
                    .keys
                    .verify_token::<Value>("JWT", &token)
                    .is_ok()
            );
        }
    }
}

async fn what_is_pending_survives_the_rotation_of_every_secret(backend: Backend) {
    let settings = vec![("devices.enrolment_lifetime", "20m".to_owned())];
    let app = TestApp::with(backend, settings).await;
    let (bank, alice, phone) = app.cast().await;
    let bob = app.user("bob").await;
    let (by_link, by_hand) = (ticket(&app, &bob).await, ticket(&app, &bob).await);
    let ask = [
        ("scope", "openid"),
        ("login_hint", "alice"),
        ("requested_expiry", "600"),
    ];
    let start = async || {
        bank.ask(&ask).await.json()["auth_req_id"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let id = start().await;
    let shown = show(&phone, &id).await;

    let secrets = Purpose::ALL.iter().filter(|purpose| !purpose.signs());
    for &purpose in secrets.clone() {
        let added = app
            .services()
            .rotate_keys(purpose, None, false)
            .await
            .unwrap();
        assert_eq!((added[0].version, added[0].algorithm), (2, None));
    }
    // Nobody uses them before everybody has them.
    app.advance(599);
    app.services().reload_keys().await.unwrap();
    let late = start().await;
    let late_shown = show(&phone, &late).await;
    phone.answer(&shown, Decision::Approve, None).await.unwrap();
    app.advance(1);
    app.services().reload_keys().await.unwrap();
    for &purpose in secrets {
        let expected = [(1, KeyState::Retiring), (2, KeyState::Active)];
        assert_eq!(states(&app.server.core, purpose).await, expected);
    }
    // Evidence sealed, handles made, challenges signed and codes hashed before: all still good.
    assert_eq!(bank.poll(&id).await.status, 200);
    phone
        .answer(&late_shown, Decision::Approve, None)
        .await
        .unwrap();
    assert_eq!(bank.poll(&late).await.status, 200);
    let link = EnrolmentLink::parse(&by_link.0).unwrap();
    let enrolled = Phone::enrol(&link, "late", app.clock.clone(), Arc::new(SystemEntropy)).await;
    assert!(enrolled.is_ok(), "{:?}", enrolled.err());
    let typed = enrolled.unwrap().enrolment(&by_hand.1, "typed").unwrap();
    let url = format!("{}/device/v1/enrolments", app.url);
    // The same key again: known, which only a code that was found can tell.
    let known = app.http.json("POST", &url, &[], &typed).await.unwrap();
    assert_eq!(known.json()["code"], "device_known", "{}", known.body);
    // And new ones with the new keys.
    assert_eq!(
        bank.poll(&start_and_approve(&bank, &phone).await)
            .await
            .status,
        200
    );
    let stored = app
        .services()
        .directory
        .user(&alice.id)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(stored.partition, alice.partition);
    assert!(app.services().verify_audit(None).await.unwrap().is_whole());
}

async fn ticket(app: &TestApp, user: &User) -> (String, String) {
    let ticket = app.services().create_enrolment(user).await.unwrap();
    let link = ticket.link.expose().to_owned();
    (link, ticket.typed_code.expose().to_owned())
}

async fn start_and_approve(bank: &RelyingParty, phone: &Phone) -> String {
    let id = bank.start("alice").await;
    approve(phone, &id).await;
    id
}

async fn rotated_keys_survive_a_restart(backend: Backend) {
    let app = TestApp::new(backend).await;
    let (bank, _, phone) = app.cast().await;
    let services = app.services();
    services
        .ensure_token_key(SignatureAlgorithm::Ps256)
        .await
        .unwrap();
    let before = tokens(&bank, &phone).await;
    let open_id = bank.start("alice").await;
    let rsa = services
        .keys
        .sign_token(SignatureAlgorithm::Ps256, "JWT", &json!({}))
        .unwrap();
    let rotating = Purpose::ALL
        .iter()
        .filter(|p| **p != Purpose::ChallengeSigning);
    for &purpose in rotating {
        services.rotate_keys(purpose, None, true).await.unwrap();
    }
    let sealed = services.keys.seal("place", b"value");
    let after = tokens(&bank, &phone).await;

    let restarted = node(&app).await;
    let keys = &restarted.services.keys;
    for token in [&before, &after] {
        let token = token["id_token"].as_str().unwrap();
        assert!(keys.verify_token::<Value>("JWT", token).is_ok());
    }
    assert!(keys.verify_token::<Value>("JWT", &rsa).is_ok());
    assert_eq!(
        keys.open_sealed("place", &sealed).unwrap().as_slice(),
        b"value"
    );
    assert_eq!(keys.token_jwks(), services.keys.token_jwks());
    let id = assent::domain::AuthReqId::new(open_id);
    assert!(keys.open_auth_req_id(&bank.client.id, &id).is_some());
    // Nothing is made again, and a wrong deployment key is told as before.
    let count = services.list_keys().await.unwrap().len();
    assert_eq!(restarted.services.list_keys().await.unwrap().len(), count);
    let wrong = vec![(
        "keys.deployment_key",
        "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA".to_owned(),
    )];
    let refused = format!("{:#}", open(&app, wrong).await.err().unwrap());
    assert!(
        refused.contains("the deployment key does not open")
            && refused.ends_with("it is not the key this database was set up with"),
        "{refused}"
    );
}

#[tokio::test]
async fn the_255_versions_of_an_id_run_out_with_a_word() {
    let app = TestApp::new(Backend::sqlite()).await;
    let (bank, _, _) = app.cast().await;
    let first = bank.start("alice").await;
    let services = app.services();
    for version in 2..=255 {
        let added = services
            .rotate_keys(Purpose::IdMac, None, true)
            .await
            .unwrap();
        assert_eq!(added[0].version, version);
    }
    let last = bank.start("alice").await;
    for id in [&first, &last] {
        assert_oauth_error(&bank.poll(id).await, 400, "authorization_pending");
    }
    let exhausted = services.rotate_keys(Purpose::IdMac, None, true).await;
    assert!(matches!(
        exhausted,
        Err(KeysError::Exhausted(Purpose::IdMac))
    ));
    // The calendar goes on with the others.
    app.advance(90 * 86_400);
    let added = services.rotate_due_keys().await.unwrap();
    assert!(added.len() > 4 && added.iter().all(|new| new.purpose != Purpose::IdMac));
    bank.start("alice").await;
}
