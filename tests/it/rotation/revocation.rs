//! A key that may be known to others is out at once.

use super::{ES256, audited, jwks, node, start_and_approve, states, tokens, userinfo, verifies};
use crate::support::{Backend, TestApp, assert_oauth_error, on_both, request_id, show};
use assent::domain::Decision;
use assent::domain::key::{KeyState, Purpose};
use assent::service::rotate_keys::KeysError;
use serde_json::Value;

on_both!(
    a_revoked_key_is_out_at_once,
    what_a_revoked_key_of_each_kind_takes_with_it,
    one_that_was_to_come_can_be_revoked,
);

async fn a_revoked_key_is_out_at_once(backend: Backend) {
    let app = TestApp::new(backend).await;
    let (bank, _, phone) = app.cast().await;
    let old = tokens(&bank, &phone).await;
    let operator = node(&app).await.services;
    let new = operator.revoke_key(Purpose::TokenSigning, 1).await.unwrap();
    let new = new.unwrap();
    assert_eq!((new.version, new.algorithm), (3, ES256));
    assert_eq!(new.activates_at, app.now());
    // The server is told at its next reload.
    assert_eq!(userinfo(&app, &old).await, 200);
    app.services().reload_keys().await.unwrap();
    assert_eq!(userinfo(&app, &old).await, 401);
    let published = jwks(&app).await;
    assert!(!verifies(&published, &old));
    let hint = old["id_token"].as_str().unwrap();
    assert!(
        app.services()
            .keys
            .verify_hint::<Value>("JWT", hint)
            .is_err()
    );
    let fresh = tokens(&bank, &phone).await;
    assert!(verifies(&published, &fresh));
    assert_eq!(userinfo(&app, &fresh).await, 200);
    let again = operator.revoke_key(Purpose::TokenSigning, 1).await;
    assert!(matches!(again, Err(KeysError::Revoked { .. })), "{again:?}");
    let unknown = operator.revoke_key(Purpose::TokenSigning, 9).await;
    assert!(
        matches!(unknown, Err(KeysError::Unknown { .. })),
        "{unknown:?}"
    );
    assert_eq!(audited(&app, "keys.revoked").await, 1);
    assert_eq!(audited(&app, "keys.rotated").await, 1);
}

async fn what_a_revoked_key_of_each_kind_takes_with_it(backend: Backend) {
    let app = TestApp::new(backend).await;
    let (bank, _, phone) = app.cast().await;
    // Requests under a revoked handle key are not ours any more; new ones are.
    let id = start_and_approve(&bank, &phone).await;
    app.services().revoke_key(Purpose::IdMac, 1).await.unwrap();
    assert_oauth_error(&bank.poll(&id).await, 400, "invalid_grant");
    tokens(&bank, &phone).await;
    // A challenge under a revoked key cannot be answered, and no phone takes its successor's.
    let id = bank.start("alice").await;
    let shown = show(&phone, &id).await;
    app.services()
        .revoke_key(Purpose::ChallengeSigning, 1)
        .await
        .unwrap();
    assert!(phone.answer(&shown, Decision::Approve, None).await.is_err());
    assert!(phone.show(request_id(&id)).await.is_err());
    // The audit's checkpoints under a revoked key keep their place in the chain.
    assert!(app.services().checkpoint().await.unwrap());
    app.services().revoke_key(Purpose::Audit, 1).await.unwrap();
    app.advance(1);
    assert!(app.services().checkpoint().await.unwrap());
    let report = app.services().verify_audit(None).await.unwrap();
    assert!(report.is_whole(), "{report:?}");
    for purpose in [Purpose::DataSeal, Purpose::SecretPepper] {
        let refused = app.services().revoke_key(purpose, 1).await;
        assert!(
            matches!(refused, Err(KeysError::Irrevocable(_))),
            "{refused:?}"
        );
    }
    let pinned = app
        .services()
        .rotate_keys(Purpose::ChallengeSigning, None, false);
    assert!(matches!(pinned.await, Err(KeysError::Pinned)));
    let choice = app.services().rotate_keys(Purpose::Audit, ES256, false);
    assert!(matches!(choice.await, Err(KeysError::NoChoice)));
}

async fn one_that_was_to_come_can_be_revoked(backend: Backend) {
    let app = TestApp::new(backend).await;
    let services = app.services();
    let rotate = async || {
        services
            .rotate_keys(Purpose::TokenSigning, ES256, false)
            .await
            .unwrap()
    };
    let (second, core) = (rotate().await, &app.server.core);
    app.advance(300);
    let third = services
        .revoke_key(Purpose::TokenSigning, second[0].version)
        .await;
    let third = third.unwrap().unwrap();
    assert_eq!(third.activates_at.since(app.now()).as_secs(), 600);
    // The first one goes on until its new successor takes over, also when the old one would have.
    for (seconds, first, fourth) in [
        (300, KeyState::Active, KeyState::Next),
        (299, KeyState::Active, KeyState::Next),
        (1, KeyState::Retiring, KeyState::Active),
        (3599, KeyState::Retiring, KeyState::Active),
        (1, KeyState::Gone, KeyState::Active),
    ] {
        app.advance(seconds);
        let expected = [
            (1, first),
            (2, KeyState::Active),
            (3, KeyState::Revoked),
            (4, fourth),
        ];
        assert_eq!(states(core, Purpose::TokenSigning).await, expected);
        services.reload_keys().await.unwrap();
    }
    // One that retires or is gone leaves no gap.
    let gone = services.revoke_key(Purpose::TokenSigning, 1).await.unwrap();
    assert_eq!(gone, None);
    let retired = rotate().await;
    app.advance(600);
    let retiring = services
        .revoke_key(Purpose::TokenSigning, third.version)
        .await;
    assert_eq!(retiring.unwrap(), None);
    let now = states(core, Purpose::TokenSigning).await;
    assert_eq!(now.last(), Some(&(retired[0].version, KeyState::Active)));
}
