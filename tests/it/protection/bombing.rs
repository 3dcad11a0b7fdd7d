//! Many requests for one person: the phone rings as often as a person can bear.

use super::{clients, inbox, pushes};
use crate::support::{
    Backend, Ground, RedisServers, TestApp, all, approve, assert_oauth_error, everywhere,
    request_id,
};

everywhere!(over_the_budget_a_request_waits_in_the_inbox_alone);

async fn over_the_budget_a_request_waits_in_the_inbox_alone(ground: Ground) {
    let app = TestApp::on(ground).await;
    let alice = app.user("alice").await;
    let phone = app.phone(&alice).await;
    let [bank, shop] = clients(&app, ["bank", "shop"]).await;
    for _ in 0..3 {
        bank.start("alice").await;
    }
    assert_eq!(pushes(&app).await, 3);
    // Another client has no budget of its own.
    let quiet = shop.start("alice").await;
    assert_eq!(pushes(&app).await, 0);
    assert!(inbox(&phone).await.contains(&request_id(&quiet)));
    approve(&phone, &quiet).await;
    assert_eq!(shop.poll(&quiet).await.status, 200);
    // Nor does somebody else pay for it.
    let bob = app.user("bob").await;
    app.phone(&bob).await;
    shop.start("bob").await;
    assert_eq!(pushes(&app).await, 1);
    app.advance(299);
    shop.start("alice").await;
    assert_eq!(pushes(&app).await, 0);
    app.advance(1);
    shop.start("alice").await;
    assert_eq!(pushes(&app).await, 1);
}

/// Ten clients ask for one person twenty times every two and a half minutes, at two nodes.
async fn a_bombed_person(redis: RedisServers) {
    let first = TestApp::on(Ground::with_redis(Backend::sqlite(), redis)).await;
    let second = first.node().await;
    let alice = first.user("alice").await;
    let phones = [first.phone(&alice).await, first.phone(&alice).await];
    let mut clients = Vec::new();
    for n in 0..10 {
        let client = first.client(&format!("client {n}").replace(' ', "-")).await;
        clients.extend([second.here(&client), client]);
    }
    let mut accepted = 0;
    let mut rung = Vec::new();
    for wave in 0..10 {
        let asked = all(clients.clone().into_iter().map(|client| async move {
            let hint = [("scope", "openid"), ("login_hint", "alice")];
            client.ask(&hint).await
        }))
        .await;
        for answer in &asked {
            if answer.status != 200 {
                assert_oauth_error(answer, 403, "access_denied");
            }
        }
        let open = asked.iter().filter(|answer| answer.status == 200).count();
        assert_eq!(open, 5, "as many as may be open for one person");
        assert_eq!(inbox(&phones[0]).await.len(), 5);
        accepted += open;
        let sent = pushes(&first).await + pushes(&second).await;
        rung.push(sent / phones.len());
        assert_eq!(
            sent % phones.len(),
            0,
            "in wave {wave} one phone rang alone"
        );
        first.advance(150);
    }
    // Three in any five minutes, ten in any hour.
    assert_eq!(rung, [3, 0, 3, 0, 3, 0, 1, 0, 0, 0]);
    assert_eq!(accepted, 50);
    first.advance(3600);
    let mut in_a_day = 10;
    for _ in 0..20 {
        clients[0].start("alice").await;
        in_a_day += (pushes(&first).await + pushes(&second).await) / phones.len();
        first.advance(600);
    }
    assert_eq!(in_a_day, 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bombed_person_on_a_single_redis() {
    a_bombed_person(RedisServers::single()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bombed_person_on_a_cluster() {
    a_bombed_person(RedisServers::cluster()).await;
}
