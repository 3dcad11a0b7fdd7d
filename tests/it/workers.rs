//! Workers that run by themselves, by a clock that stands still: none looks of its own accord, so what they
//! do they were told of.

use crate::support::process::pause;
use crate::support::rp_endpoint::RpEndpoint;
use crate::support::{Ground, TestApp, approve, everywhere, registration};
use assent::domain::client::{Delivery, Registration};

everywhere!(each_queue_hears_of_its_jobs);

/// Waits until something has come so often.
async fn come(times: usize, count: impl Fn() -> usize, what: &str) {
    // Half a minute, and then nobody was told.
    for _ in 0..3000 {
        if count() >= times {
            assert_eq!(count(), times, "{what}");
            return;
        }
        pause(10).await;
    }
    panic!("nobody was told of {what}");
}

async fn each_queue_hears_of_its_jobs(ground: Ground) {
    let (rp, operator) = (RpEndpoint::new(&[]).await, RpEndpoint::new(&[]).await);
    let settings = vec![
        ("ciba.cancel_endpoint", "true".to_owned()),
        ("webhook.url", operator.url.clone()),
        (
            "webhook.secret",
            "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=".to_owned(),
        ),
    ];
    let app = TestApp::on_with(ground, settings).await;
    app.server.start_background();
    let pinged = Registration {
        delivery: Delivery::Ping {
            endpoint: rp.url.clone(),
        },
        ..registration()
    };
    let shop = app.client_with("shop", pinged).await;
    let alice = app.user("alice").await;
    let phone = app.phone(&alice).await;
    come(1, || operator.received().len(), "an enrolment").await;
    for round in 1..=3 {
        let id = shop.start_told("alice").await;
        come(round, || app.push.sent().len(), "a request").await;
        approve(&phone, &id).await;
        come(round, || rp.received().len(), "a decision").await;
    }
    let other = app.phone(&alice).await;
    come(2, || operator.received().len(), "a second enrolment").await;
    let path = format!("/device/v1/devices/{}", other.id());
    let answer = phone.call("DELETE", &path, None).await.unwrap();
    assert_eq!(answer.status, 204, "{}", answer.body);
    come(3, || operator.received().len(), "a revocation").await;
}
