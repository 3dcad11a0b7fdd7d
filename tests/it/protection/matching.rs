//! The matching code: who types it stands before the screen that shows it.

use super::inbox;
use crate::support::{
    Ground, RelyingParty, TestApp, all, assert_oauth_error, assert_problem, everywhere,
    registration, request_id, show,
};
use assent::domain::challenge::Matching;
use assent::domain::client::Registration;
use assent::domain::{Decision, User};
use assent::phone::Phone;
use assent::phone::http::Answer;
use serde_json::json;
use std::sync::Arc;

everywhere!(
    the_code_that_is_shown_must_be_typed,
    a_wrong_code_ends_the_request,
    a_code_that_is_none_changes_nothing,
    five_wrong_codes_in_a_row_stop_code_entry,
    a_right_code_begins_the_count_anew,
    a_denial_needs_no_code,
    a_replay_shows_the_same_code,
    of_two_devices_one_decides,
);

struct Scene {
    app: TestApp,
    bank: RelyingParty,
    alice: User,
    phone: Arc<Phone>,
}

async fn scene(ground: Ground, digits: u8) -> Scene {
    let app = TestApp::on(ground).await;
    let with_code = Registration {
        matching_code: Some(digits),
        ..registration()
    };
    let bank = app.client_with("bank", with_code).await;
    let alice = app.user("alice").await;
    let phone = Arc::new(app.phone(&alice).await);
    Scene {
        app,
        bank,
        alice,
        phone,
    }
}

impl Scene {
    /// A request, and the code that the client shows.
    async fn ask(&self) -> (String, String) {
        let hint = [("scope", "openid"), ("login_hint", "alice")];
        let answer = self.bank.ask(&hint).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        let text = |name: &str| answer.json()[name].as_str().unwrap().to_owned();
        (text("auth_req_id"), text("matching_code"))
    }

    async fn type_code(&self, id: &str, code: &str) -> Answer {
        let shown = show(&self.phone, id).await;
        self.phone.approve_with_code(&shown, code).await.unwrap()
    }

    /// Asks, and types something else.
    async fn mistype(&self) -> Answer {
        let (id, code) = self.ask().await;
        self.type_code(&id, &other(&code)).await
    }
}

/// Another code of the same length.
fn other(code: &str) -> String {
    let last = if code.ends_with('0') { "1" } else { "0" };
    format!("{}{last}", &code[..code.len() - 1])
}

async fn the_code_that_is_shown_must_be_typed(ground: Ground) {
    let scene = scene(ground, 8).await;
    let (id, code) = scene.ask().await;
    assert_eq!(code.len(), 8);
    assert!(code.bytes().all(|byte| byte.is_ascii_digit()));
    // It is nowhere else: not in the push, the inbox or the challenge.
    scene.app.run_jobs().await;
    let pushed = format!("{:?}", scene.app.push.sent());
    let listed = scene.phone.call("GET", "/device/v1/requests", None).await;
    let shown = show(&scene.phone, &id).await;
    assert_eq!(shown.challenge.matching, Matching::Code);
    let seen = json!(shown.challenge).to_string();
    for text in [pushed, listed.unwrap().body, seen] {
        assert!(!text.contains(&code), "{text}");
    }
    assert_eq!(scene.type_code(&id, &code).await.status, 200);
    assert_eq!(scene.bank.poll(&id).await.status, 200);
    // Each request has its own.
    let mut codes = vec![code];
    for _ in 0..3 {
        codes.push(scene.ask().await.1);
    }
    codes.dedup();
    assert!(codes.len() > 1);
}

async fn a_wrong_code_ends_the_request(ground: Ground) {
    let scene = scene(ground, 2).await;
    let second = scene.app.phone(&scene.alice).await;
    let (id, code) = scene.ask().await;
    assert_eq!(code.len(), 2);
    let (mine, hers) = (show(&scene.phone, &id).await, show(&second, &id).await);
    let answer = scene.type_code(&id, &other(&code)).await;
    assert_problem(&answer, 422, "wrong_code");
    assert_oauth_error(&scene.bank.poll(&id).await, 400, "access_denied");
    assert!(inbox(&scene.phone).await.is_empty());
    // Now the right one is too late, here and there; and the same mistake is the same answer.
    for (phone, shown, code, status, problem) in [
        (&*scene.phone, &mine, code.clone(), 422, "wrong_code"),
        (&scene.phone, &mine, other(&code), 422, "wrong_code"),
        (&second, &hers, code.clone(), 409, "already_decided"),
    ] {
        let answer = phone.approve_with_code(shown, &code).await.unwrap();
        assert_problem(&answer, status, problem);
    }
    let deny = scene.phone.try_answer(&mine, Decision::Deny, None).await;
    assert_problem(&deny.unwrap(), 409, "already_decided");
    // One of another length is as wrong.
    let (id, code) = scene.ask().await;
    let answer = scene.type_code(&id, &format!("{code}0")).await;
    assert_problem(&answer, 422, "wrong_code");
    assert_oauth_error(&scene.bank.poll(&id).await, 400, "access_denied");
}

async fn a_code_that_is_none_changes_nothing(ground: Ground) {
    let scene = scene(ground, 8).await;
    let (id, code) = scene.ask().await;
    for nonsense in ["", "1", "123456789", "1234567x", " 1234567"] {
        let answer = scene.type_code(&id, nonsense).await;
        assert_problem(&answer, 422, "invalid_approval");
    }
    let shown = show(&scene.phone, &id).await;
    let none = scene
        .phone
        .try_answer(&shown, Decision::Approve, None)
        .await;
    assert_problem(&none.unwrap(), 422, "invalid_approval");
    assert_oauth_error(&scene.bank.poll(&id).await, 400, "authorization_pending");
    assert_eq!(scene.type_code(&id, &code).await.status, 200);
    // Nor does one where none is wanted.
    let shop = scene.app.client("shop").await;
    let plain = shop.start("alice").await;
    let answer = scene.type_code(&plain, "123456").await;
    assert_problem(&answer, 422, "invalid_approval");
    assert_oauth_error(&shop.poll(&plain).await, 400, "authorization_pending");
}

async fn five_wrong_codes_in_a_row_stop_code_entry(ground: Ground) {
    let scene = scene(ground, 6).await;
    for _ in 0..5 {
        assert_problem(&scene.mistype().await, 422, "wrong_code");
    }
    // A new request does not help, nor does the right code, nor another device.
    let (id, code) = scene.ask().await;
    let second = scene.app.phone(&scene.alice).await;
    for phone in [&*scene.phone, &second] {
        let shown = show(phone, &id).await;
        let answer = phone.approve_with_code(&shown, &code).await.unwrap();
        assert_problem(&answer, 429, "code_entry_blocked");
        assert_eq!(answer.header("retry-after"), Some("900"));
    }
    assert_oauth_error(&scene.bank.poll(&id).await, 400, "authorization_pending");
    // One can still say no, and what asks for no code is as ever.
    let shown = show(&scene.phone, &id).await;
    let deny = scene.phone.try_answer(&shown, Decision::Deny, None).await;
    assert_eq!(deny.unwrap().status, 200);
    let shop = scene.app.client("shop").await;
    let plain = shop.start("alice").await;
    crate::support::approve(&scene.phone, &plain).await;
    // After a quarter of an hour there is one try, and after another mistake none for twice as long.
    scene.app.advance(899);
    let (id, code) = scene.ask().await;
    let answer = scene.type_code(&id, &code).await;
    assert_problem(&answer, 429, "code_entry_blocked");
    assert_eq!(answer.header("retry-after"), Some("1"));
    scene.app.advance(1);
    assert_problem(&scene.mistype().await, 422, "wrong_code");
    scene.app.advance(1799);
    let (id, code) = scene.ask().await;
    let answer = scene.type_code(&id, &code).await;
    assert_problem(&answer, 429, "code_entry_blocked");
    scene
        .app
        .services()
        .unblock_user(&scene.alice)
        .await
        .unwrap();
    assert_eq!(scene.type_code(&id, &code).await.status, 200);
}

async fn a_right_code_begins_the_count_anew(ground: Ground) {
    let scene = scene(ground, 6).await;
    for _ in 0..3 {
        for _ in 0..4 {
            assert_problem(&scene.mistype().await, 422, "wrong_code");
        }
        let (id, code) = scene.ask().await;
        assert_eq!(scene.type_code(&id, &code).await.status, 200);
    }
}

async fn a_denial_needs_no_code(ground: Ground) {
    let scene = scene(ground, 6).await;
    let (id, code) = scene.ask().await;
    let shown = show(&scene.phone, &id).await;
    let mut denial = json!(scene.phone.approval(&shown, Decision::Deny, None));
    denial["code"] = code.into();
    let signed = scene.phone.sign("ciba-approval+jwt", &denial);
    let body = json!({ "challenge": shown.signed, "approval": signed });
    let path = format!("/device/v1/requests/{}/decision", request_id(&id));
    let answer = scene.phone.call("POST", &path, Some(&body)).await.unwrap();
    assert_problem(&answer, 422, "invalid_approval");
    crate::support::deny(&scene.phone, &id).await;
    assert_oauth_error(&scene.bank.poll(&id).await, 400, "access_denied");
}

async fn a_replay_shows_the_same_code(ground: Ground) {
    let scene = scene(ground, 6).await;
    let hint = [("scope", "openid"), ("login_hint", "alice")];
    let key = [("idempotency-key", "once")];
    let first = scene.bank.ask_with(&key, &hint).await.json();
    scene.app.advance(7);
    let again = scene.bank.ask_with(&key, &hint).await.json();
    assert_eq!(first["matching_code"], again["matching_code"]);
    assert_eq!(first["auth_req_id"], again["auth_req_id"]);
}

/// One types the right code and one a wrong one, at the same moment. The wrong one would be the fifth in a
/// row: whoever comes second hears that the request is over, not that codes are stopped.
async fn of_two_devices_one_decides(ground: Ground) {
    let scene = scene(ground, 6).await;
    let second = Arc::new(scene.app.phone(&scene.alice).await);
    let services = scene.app.services();
    for _ in 0..6 {
        services.unblock_user(&scene.alice).await.unwrap();
        for _ in 0..4 {
            assert_problem(&scene.mistype().await, 422, "wrong_code");
        }
        let (id, code) = scene.ask().await;
        let tries = [
            (scene.phone.clone(), code.clone()),
            (second.clone(), other(&code)),
        ];
        let answers = all(tries.into_iter().map(|(phone, code)| {
            let id = id.clone();
            async move {
                let Ok(shown) = phone.show(request_id(&id)).await else {
                    return 409;
                };
                phone.approve_with_code(&shown, &code).await.unwrap().status
            }
        }))
        .await;
        let poll = scene.bank.poll(&id).await;
        let mut sorted = answers;
        sorted.sort_unstable();
        match sorted[..] {
            [200, 409] => assert_eq!(poll.status, 200),
            [409, 422] => assert_oauth_error(&poll, 400, "access_denied"),
            ref other => panic!("{other:?}"),
        }
    }
}
