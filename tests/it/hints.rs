//! Every way to name a person, and every way not to.

use crate::support::signer::Signer;
use crate::support::{
    Backend, RelyingParty, TestApp, approve, assert_oauth_error, deny, registration,
};
use assent::domain::client::{HintKind, Registration, SubjectType};
use assent::domain::{Secret, SignatureAlgorithm};
use serde_json::{Value, json};
use std::collections::BTreeSet;

const ISSUER: &str = "https://directory.example";

fn all_hints() -> Registration {
    Registration {
        hints: HintKind::ALL.iter().copied().collect(),
        ..registration()
    }
}

/// A server that believes one issuer of hints.
async fn setting() -> (TestApp, RelyingParty, Signer, tempfile::TempDir) {
    let signer = Signer::new(SignatureAlgorithm::Es256);
    let folder = tempfile::tempdir().unwrap();
    let (jwks, settings) = (
        folder.path().join("jwks.json"),
        folder.path().join("assent.toml"),
    );
    std::fs::write(&jwks, signer.jwks().to_string()).unwrap();
    let table = format!(
        "[[ciba.hint_issuers]]\nissuer = \"{ISSUER}\"\njwks_file = \"{}\"\n",
        jwks.display()
    );
    std::fs::write(&settings, table).unwrap();
    let app = TestApp::with_file(Backend::sqlite(), Some(&settings), vec![]).await;
    let bank = app.client_with("bank", all_hints()).await;
    let alice = app.user("alice@bank.example").await;
    app.phone(&alice).await;
    (app, bank, signer, folder)
}

async fn by(client: &RelyingParty, hints: &[(&str, &str)]) -> assent::phone::http::Answer {
    client.ask(&[&[("scope", "openid")], hints].concat()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_hint_token_names_a_person_in_every_format() {
    let (app, bank, signer, _folder) = setting().await;
    let alice = &app.services().directory.users().await.unwrap()[0].clone();
    let claims = |change: &dyn Fn(&mut Value)| {
        let now = app.now().secs();
        let mut claims = json!({
            "iss": ISSUER, "aud": app.url, "iat": now, "exp": now + 60,
            "sub_id": { "format": "email", "email": "Alice@Bank.Example" },
        });
        change(&mut claims);
        claims
    };
    let ask = async |claims: &Value| {
        by(&bank, &[("login_hint_token", &signer.sign("JWT", claims))]).await
    };
    let set =
        |name: &'static str, value: Value| claims(&move |claims| claims[name] = value.clone());
    for sub_id in [
        json!({ "format": "email", "email": "alice@bank.example" }),
        json!({ "format": "account", "uri": "acct:alice@bank.example" }),
        json!({ "format": "opaque", "id": alice.id }),
        json!({ "format": "iss_sub", "iss": app.url, "sub": alice.id }),
        json!({ "format": "phone_number", "phone_number": "alice@bank.example" }),
    ] {
        let answer = ask(&set("sub_id", sub_id.clone())).await;
        assert_eq!(answer.status, 200, "{sub_id}: {}", answer.body);
        app.advance(121);
    }
    let now = app.now().secs();
    for unknown in [
        json!({ "format": "email", "email": "bob@bank.example" }),
        json!({ "format": "opaque", "id": "nobody" }),
        json!({ "format": "iss_sub", "iss": "https://other.example", "sub": alice.id }),
    ] {
        assert_oauth_error(&ask(&set("sub_id", unknown)).await, 400, "unknown_user_id");
    }
    for bad in [
        set("iss", json!("https://other.example")),
        set("aud", json!("https://other.example")),
        set("iat", json!(now + 61)),
        set("sub_id", json!({ "format": "did", "url": "did:example:1" })),
        set("sub_id", json!("alice")),
        set(
            "sub_id",
            json!({ "format": "account", "uri": "mailto:alice@bank.example" }),
        ),
    ] {
        assert_oauth_error(&ask(&bad).await, 400, "invalid_request");
    }
    assert_oauth_error(
        &ask(&set("exp", json!(now))).await,
        400,
        "expired_login_hint_token",
    );
    // Used twice, signed by somebody else, not a token at all.
    let once = set("jti", json!("once"));
    assert_eq!(ask(&once).await.status, 200);
    assert_oauth_error(&ask(&once).await, 400, "invalid_request");
    let forged = Signer::new(SignatureAlgorithm::Es256).sign("JWT", &claims(&|_| ()));
    for token in [forged.as_str(), "x", "a.b.c"] {
        assert_oauth_error(
            &by(&bank, &[("login_hint_token", token)]).await,
            400,
            "invalid_request",
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn our_id_token_names_a_person_long_after_it_expired() {
    let app = TestApp::new(Backend::sqlite()).await;
    let alice = app.user("alice").await;
    let phone = app.phone(&alice).await;
    let pairwise = SubjectType::Pairwise {
        sector: "shop.example".into(),
    };
    for (id, subject) in [("public", SubjectType::Public), ("pairwise", pairwise)] {
        let shop = app
            .client_with(
                id,
                Registration {
                    subject,
                    ..all_hints()
                },
            )
            .await;
        let asked = shop.start("alice").await;
        approve(&phone, &asked).await;
        let tokens = shop.poll(&asked).await.json();
        let id_token = tokens["id_token"].as_str().unwrap();
        let hinted = by(&shop, &[("id_token_hint", id_token)]).await;
        assert_eq!(hinted.status, 200, "{id}: {}", hinted.body);
        // Its person is asked, and answers.
        let auth_req_id = hinted.json()["auth_req_id"].as_str().unwrap().to_owned();
        deny(&phone, &auth_req_id).await;
        app.advance(80 * 24 * 3600);
        assert_eq!(
            by(&shop, &[("id_token_hint", id_token)]).await.status,
            200,
            "{id}"
        );
        app.advance(11 * 24 * 3600);
        let too_old = by(&shop, &[("id_token_hint", id_token)]).await;
        assert_oauth_error(&too_old, 400, "invalid_request");
        // Another client's token, an access token, a changed one: all are refused alike.
        let other = app.client_with(&format!("other-{id}"), all_hints()).await;
        assert_oauth_error(
            &by(&other, &[("id_token_hint", id_token)]).await,
            400,
            "invalid_request",
        );
        let access_token = tokens["access_token"].as_str().unwrap();
        assert_oauth_error(
            &by(&shop, &[("id_token_hint", access_token)]).await,
            400,
            "invalid_request",
        );
        let changed = id_token.replacen('.', "x.", 1);
        assert_oauth_error(
            &by(&shop, &[("id_token_hint", &changed)]).await,
            400,
            "invalid_request",
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn exactly_one_hint_of_a_kind_that_is_allowed() {
    let app = TestApp::new(Backend::sqlite()).await;
    app.cast().await;
    let all = app.client_with("all", all_hints()).await;
    let (a, b, c) = (
        ("login_hint", "alice"),
        ("login_hint_token", "x"),
        ("id_token_hint", "x"),
    );
    for hints in [vec![], vec![a, b], vec![a, c], vec![b, c], vec![a, b, c]] {
        assert_oauth_error(&by(&all, &hints).await, 400, "invalid_request");
    }
    let none = Registration {
        hints: BTreeSet::from([HintKind::IdTokenHint]),
        ..registration()
    };
    let none = app.client_with("none", none).await;
    assert_oauth_error(&by(&none, &[a]).await, 400, "invalid_request");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_code_is_demanded_checked_and_throttled() {
    let app = TestApp::new(Backend::sqlite()).await;
    let (bank, alice, _) = app.cast().await;
    let strict = app
        .client_with(
            "strict",
            Registration {
                user_code: true,
                ..registration()
            },
        )
        .await;
    let ask = async |code: Option<&str>| {
        let hint = [("login_hint", "alice")];
        match code {
            None => by(&strict, &hint).await,
            Some(code) => by(&strict, &[hint[0], ("user_code", code)]).await,
        }
    };
    assert_oauth_error(&ask(None).await, 400, "missing_user_code");
    let none_set = ask(Some("4711")).await;
    assert_oauth_error(&none_set, 400, "invalid_user_code");
    let set = async || {
        let code = Some(Secret::new("4711".into()));
        app.services().set_user_code(&alice, code).await.unwrap();
    };
    set().await;
    assert_eq!(ask(Some("4711")).await.status, 200);
    for _ in 0..4 {
        assert_eq!(ask(Some("0000")).await.body, none_set.body);
    }
    assert_eq!(
        ask(Some("4711")).await.status,
        200,
        "the fifth is right, and the count begins anew"
    );
    for _ in 0..5 {
        assert_oauth_error(&ask(Some("0000")).await, 400, "invalid_user_code");
    }
    assert_oauth_error(&ask(Some("4711")).await, 400, "invalid_user_code");
    // Who does not need a code is not held up; after a while the right one counts again.
    assert_eq!(by(&bank, &[("login_hint", "alice")]).await.status, 200);
    app.advance(15 * 60);
    assert_eq!(ask(Some("4711")).await.status, 200);
    app.services().set_user_code(&alice, None).await.unwrap();
    assert_oauth_error(&ask(Some("4711")).await, 400, "invalid_user_code");
}
