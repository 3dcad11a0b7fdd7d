//! Workers that run by themselves, by a clock that stands still: none looks of its own accord, so what they
//! do they were told of.

use crate::support::process::pause;
use crate::support::rp_endpoint::RpEndpoint;
use crate::support::{Ground, TestApp, approve, everywhere, registration};
use assent::domain::client::{Delivery, Registration};

everywhere!(each_queue_hears_of_its_jobs);

/// Waits until something has come so often. False: only once the clock had been moved, after five seconds; a
/// stall of a store or an endpoint is tried again by the clock alone.
async fn come(app: &TestApp, times: usize, count: impl Fn() -> usize, what: &str) -> bool {
    for told in [true, false, false, false, false, false] {
        for _ in 0..500 {
            if count() >= times {
                assert_eq!(count(), times, "{what}");
                return told;
            }
            pause(10).await;
        }
        app.advance(2);
    }
    panic!("{what} had no consequence at all");
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
    let events = || operator.received().len();
    let mut told = [come(&app, 1, events, "an enrolment").await, false, false];
    for round in 1..=3 {
        let id = shop.start_told("alice").await;
        told[1] |= come(&app, round, || app.push.sent().len(), "a request").await;
        approve(&phone, &id).await;
        told[2] |= come(&app, round, || rp.received().len(), "a decision").await;
    }
    let other = app.phone(&alice).await;
    told[0] |= come(&app, 2, events, "a second enrolment").await;
    let path = format!("/device/v1/devices/{}", other.id());
    let answer = phone.call("DELETE", &path, None).await.unwrap();
    assert_eq!(answer.status, 204, "{}", answer.body);
    told[0] |= come(&app, 3, events, "a revocation").await;
    assert_eq!(told, [true; 3], "events, requests, decisions");
}
