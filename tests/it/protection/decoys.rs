//! A client in decoy mode does not learn who is known here.

use super::{inbox, pushes};
use crate::support::process::pause;
use crate::support::rp_endpoint::{Reply, RpEndpoint};
use crate::support::{
    Ground, RelyingParty, TestApp, assert_oauth_error, everywhere, registration, request_id,
};
use assent::domain::RequestKey;
use assent::domain::client::{Delivery, Registration, UnknownUser};
use assent::phone::http::Answer;
use serde_json::Value;
use std::time::Duration;
use tokio::task::JoinSet;

everywhere!(
    nobody_is_asked_like_anybody,
    the_clock_tells_nothing,
    the_places_of_nobody_are_counted_like_anybodys,
    who_cannot_be_asked_looks_like_nobody,
    the_places_of_a_person_outlive_their_phone,
    what_others_ask_of_a_person_is_not_seen,
    a_decoy_can_be_cancelled,
    a_replay_is_of_the_same_nobody,
);

fn with_decoys() -> Registration {
    Registration {
        unknown_user: UnknownUser::Decoy,
        ..registration()
    }
}

async fn ask(client: &RelyingParty, login: &str) -> Answer {
    let hint = [("scope", "openid"), ("login_hint", login)];
    client.ask(&hint).await
}

/// All of an answer but what is random in it.
fn shape(answer: &Answer) -> (u16, Vec<(String, String)>, Value) {
    let mut headers = answer.headers.clone();
    headers.retain(|(name, _)| name != "date" && name != "x-request-id");
    let mut body = answer.json();
    if let Some(id) = body.get_mut("auth_req_id") {
        *id = id.as_str().unwrap().len().into();
    }
    if let Some(code) = body.get_mut("matching_code") {
        *code = code.as_str().unwrap().len().into();
    }
    (answer.status, headers, body)
}

fn id(answer: &Answer) -> String {
    answer.json()["auth_req_id"].as_str().unwrap().to_owned()
}

async fn nobody_is_asked_like_anybody(ground: Ground) {
    let app = TestApp::on(ground).await;
    let registration = Registration {
        matching_code: Some(6),
        ..with_decoys()
    };
    let bank = app.client_with("bank", registration).await;
    let alice = app.user("alice").await;
    let phone = app.phone(&alice).await;
    let (known, unknown) = (ask(&bank, "alice").await, ask(&bank, "nobody").await);
    assert_eq!(known.status, 200, "{}", known.body);
    assert_eq!(shape(&known), shape(&unknown));
    // One push and two jobs: one of them wakes nobody.
    assert_eq!(app.waiting_jobs().await, 2);
    assert_eq!(pushes(&app).await, 1);
    // What became of the push is noted for both.
    let nowhere = app.services().keys.decoy("login nobody").1;
    for (answer, partition) in [(&known, alice.partition), (&unknown, nowhere)] {
        let id = request_id(&id(answer));
        let log = &app.services().deliveries;
        let noted = log.deliveries(RequestKey { partition, id }).await.unwrap();
        assert_eq!(noted.len(), 1);
    }
    assert_eq!(inbox(&phone).await, [request_id(&id(&known))]);
    // Polled in the same rhythm they say the same, until the end and after it.
    for wait in [0, 1, 10, 3, 20, 5, 200, 5, 700] {
        app.advance(wait);
        let (of_known, of_unknown) = (bank.poll(&id(&known)).await, bank.poll(&id(&unknown)).await);
        assert_eq!(shape(&of_known), shape(&of_unknown), "after {wait}");
    }
    assert_oauth_error(&bank.poll(&id(&unknown)).await, 400, "expired_token");
    // A client that wants to be told is told.
    let shop = app.client("shop").await;
    assert_oauth_error(&ask(&shop, "nobody").await, 400, "unknown_user_id");
}

/// Whatever is done for somebody, nobody or a nuisance, the answer leaves when its time has come.
async fn the_clock_tells_nothing(ground: Ground) {
    let settings = vec![
        ("ciba.decoy_answer_after", "25ms".to_owned()),
        ("ciba.cancel_endpoint", "true".to_owned()),
    ];
    let app = TestApp::on_with(ground, settings).await;
    let bank = app.client_with("bank", with_decoys()).await;
    let alice = app.user("alice").await;
    app.phone(&alice).await;
    let at_last = async |mut asked: JoinSet<Answer>| {
        for waited in [0, 24] {
            app.clock.advance(Duration::from_millis(waited));
            pause(30).await;
            assert!(asked.try_join_next().is_none(), "after {waited} ms");
        }
        // On a busy machine it may have come later.
        loop {
            app.clock.advance(Duration::from_millis(1));
            pause(1).await;
            if let Some(answer) = asked.try_join_next() {
                return answer.unwrap();
            }
        }
    };
    for login in ["alice", "nobody"] {
        let mut last = String::new();
        for status in [200, 200, 200, 403] {
            let client = bank.clone();
            let asking = async move { ask(&client, login).await };
            let answer = at_last(JoinSet::from_iter([asking])).await;
            assert_eq!(answer.status, status, "{}", answer.body);
            if status == 200 {
                last = id(&answer);
            }
        }
        let client = bank.clone();
        let withdraw = async move { client.post("/bc-cancel", &[("auth_req_id", &last)]).await };
        assert_eq!(at_last(JoinSet::from_iter([withdraw])).await.status, 204);
    }
    // Who has no decoys waits for nothing.
    let shop = app.client("shop").await;
    assert_eq!(ask(&shop, "alice").await.status, 200);
}

async fn the_places_of_nobody_are_counted_like_anybodys(ground: Ground) {
    let app = TestApp::on(ground).await;
    let bank = app.client_with("bank", with_decoys()).await;
    app.phone(&app.user("alice").await).await;
    // Spellings of one login are one login.
    for spelling in ["NOBODY", "nobody", "Nobody"] {
        let known = spelling.to_lowercase().replace("nobody", "alice");
        assert_eq!(
            shape(&ask(&bank, spelling).await),
            shape(&ask(&bank, &known).await)
        );
    }
    let (known, unknown) = (ask(&bank, "alice").await, ask(&bank, "nobody").await);
    assert_oauth_error(&unknown, 403, "access_denied");
    assert_eq!(shape(&known), shape(&unknown));
    assert_eq!(
        ask(&bank, "somebody else").await.status,
        200,
        "no login at all"
    );
    assert_eq!(ask(&bank, "another").await.status, 200);
    app.advance(121);
    assert_eq!(ask(&bank, "nobody").await.status, 200);
    // With an Idempotency-Key the answer is the same again.
    let once = [("idempotency-key", "once")];
    let hint = [("scope", "openid"), ("login_hint", "nobody")];
    let (first, again) = (
        bank.ask_with(&once, &hint).await,
        bank.ask_with(&once, &hint).await,
    );
    assert_eq!(first.json(), again.json());
}

async fn who_cannot_be_asked_looks_like_nobody(ground: Ground) {
    let app = TestApp::on(ground).await;
    let bank = app.client_with("bank", with_decoys()).await;
    let locked = app.user("locked").await;
    let phone = app.phone(&locked).await;
    app.services().lock_user(&locked).await.unwrap();
    app.user("without").await;
    let nobody = ask(&bank, "nobody").await;
    for login in ["locked", "without"] {
        let answer = ask(&bank, login).await;
        assert_eq!(shape(&answer), shape(&nobody), "{login}");
        assert_oauth_error(&bank.poll(&id(&answer)).await, 400, "authorization_pending");
    }
    assert_eq!(pushes(&app).await, 0);
    assert!(inbox(&phone).await.is_empty());
}

/// Whoever loses their phone has as many places as before, and nothing rings on the one that they get.
async fn the_places_of_a_person_outlive_their_phone(ground: Ground) {
    let app = TestApp::on(ground).await;
    let bank = app.client_with("bank", with_decoys()).await;
    let alice = app.user("alice").await;
    let lost = app.phone(&alice).await;
    for _ in 0..2 {
        assert_eq!(ask(&bank, "alice").await.status, 200);
    }
    let gone = lost.call("DELETE", "/device/v1/device", None).await;
    assert_eq!(gone.unwrap().status, 204);
    let last = ask(&bank, "alice").await;
    assert_eq!(last.status, 200);
    assert_oauth_error(&ask(&bank, "alice").await, 403, "access_denied");
    let found = app.phone(&alice).await;
    app.run_jobs().await;
    assert_eq!(inbox(&found).await.len(), 2, "those that were for her");
    assert_oauth_error(&ask(&bank, "alice").await, 403, "access_denied");
    assert_oauth_error(&bank.poll(&id(&last)).await, 400, "authorization_pending");
}

async fn what_others_ask_of_a_person_is_not_seen(ground: Ground) {
    let app = TestApp::on(ground).await;
    let bank = app.client_with("bank", with_decoys()).await;
    let alice = app.user("alice").await;
    let phone = app.phone(&alice).await;
    let (shop, kiosk) = (app.client("shop").await, app.client("kiosk").await);
    for client in [&shop, &shop, &shop, &kiosk, &kiosk] {
        client.start("alice").await;
    }
    assert_oauth_error(&ask(&kiosk, "alice").await, 403, "access_denied");
    for _ in 0..3 {
        let (known, unknown) = (ask(&bank, "alice").await, ask(&bank, "nobody").await);
        assert_eq!(known.status, 200);
        assert_eq!(shape(&known), shape(&unknown));
        assert_oauth_error(&bank.poll(&id(&known)).await, 400, "authorization_pending");
    }
    assert_eq!(
        inbox(&phone).await.len(),
        5,
        "the bank's are not among them"
    );
    assert_eq!(
        app.waiting_jobs().await,
        3 + 3,
        "as many as there may be prompts, and those for nobody at all"
    );
    let (known, unknown) = (ask(&bank, "alice").await, ask(&bank, "nobody").await);
    assert_oauth_error(&known, 403, "access_denied");
    assert_eq!(shape(&known), shape(&unknown));
    // A phone that knew the id could not answer it either.
    app.advance(121);
    for client in [&shop, &shop, &shop, &kiosk, &kiosk] {
        client.start("alice").await;
    }
    let decoy = id(&ask(&bank, "alice").await);
    let hidden = phone.show(request_id(&decoy)).await;
    assert!(hidden.is_err(), "{hidden:?}");
}

async fn a_decoy_can_be_cancelled(ground: Ground) {
    let settings = vec![("ciba.cancel_endpoint", "true".to_owned())];
    let app = TestApp::on_with(ground, settings).await;
    let endpoint = RpEndpoint::new(&[Reply::Status(204)]).await;
    let pinged = Registration {
        delivery: Delivery::Ping {
            endpoint: endpoint.url.clone(),
        },
        ..with_decoys()
    };
    let bank = app.client_with("bank", pinged).await;
    app.phone(&app.user("alice").await).await;
    let (known, unknown) = (
        bank.start_told("alice").await,
        bank.start_told("nobody").await,
    );
    let cancel = async |id: &str| bank.post("/bc-cancel", &[("auth_req_id", id)]).await;
    let same = async |status: u16, error: &str| {
        assert_eq!(shape(&cancel(&known).await), shape(&cancel(&unknown).await));
        assert_eq!(cancel(&unknown).await.status, status);
        let (of_known, of_unknown) = (bank.poll(&known).await, bank.poll(&unknown).await);
        assert_eq!(shape(&of_known), shape(&of_unknown));
        assert_oauth_error(&of_unknown, 400, error);
    };
    same(204, "access_denied").await;
    app.run_jobs().await;
    assert!(
        endpoint.received().is_empty(),
        "whoever cancels is not told"
    );
    app.advance(150);
    same(204, "access_denied").await;
    // When the records are gone, the Ledger knows of one of them, and says so to nobody.
    app.advance(700);
    app.services().sweep().await.unwrap();
    same(400, "expired_token").await;
    bank.start_told("nobody").await;
}

/// A key stands for the request that was begun, whoever the hint means by now.
async fn a_replay_is_of_the_same_nobody(ground: Ground) {
    let app = TestApp::on(ground).await;
    let bank = app.client_with("bank", with_decoys()).await;
    let alice = app.user("alice").await;
    let once = [("idempotency-key", "once")];
    let hint = [("scope", "openid"), ("login_hint", "alice")];
    let first = bank.ask_with(&once, &hint).await;
    let phone = app.phone(&alice).await;
    let again = bank.ask_with(&once, &hint).await;
    assert_eq!(first.json(), again.json());
    assert!(inbox(&phone).await.is_empty());
    assert_eq!(pushes(&app).await, 0);
    assert_oauth_error(&bank.poll(&id(&first)).await, 400, "authorization_pending");
}

/// A client that is pinged hears of a decoy as much as of a person who does not answer.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_pings() {
    let app = TestApp::new(crate::support::Backend::sqlite()).await;
    let endpoint = RpEndpoint::new(&[Reply::Status(204)]).await;
    let registration = Registration {
        delivery: Delivery::Ping {
            endpoint: endpoint.url.clone(),
        },
        ..with_decoys()
    };
    let bank = app.client_with("bank", registration).await;
    let asked = bank.start_told("nobody").await;
    app.run_jobs().await;
    app.advance(121);
    app.run_jobs().await;
    assert!(endpoint.received().is_empty());
    assert_oauth_error(&bank.poll(&asked).await, 400, "expired_token");
}
