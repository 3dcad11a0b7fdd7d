//! What an outcome does to the job and to the device, whichever gateway it comes from.

use super::{after, dead, known, misconfigured, our_bug, retry, throttled};
use crate::support::{Backend, TestApp, approve, config, on_both, request_id};
use assent::app::{Core, World};
use assent::domain::delivery::DeliveryState;
use assent::domain::{Device, DeviceId, Timestamp};
use assent::entropy::SystemEntropy;
use assent::phone::Phone;
use assent::push::{PushMessage, PushOutcome, PushSender, Reason, Signal};
use async_trait::async_trait;
use serde_json::json;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use tokio::sync::Notify;
use tokio::task::JoinSet;

on_both!(
    a_dead_target_is_forgotten_and_the_others_go_on,
    a_target_registered_since_is_not_the_dead_one,
    a_throttled_push_comes_back_when_it_may,
    each_gateway_keeps_its_own_pause,
    nothing_that_waiting_does_not_mend_is_tried_again,
    a_phone_that_has_rung_does_not_ring_for_another,
    a_phone_that_rings_too_late_hears_at_once_that_it_is_over,
    nothing_is_queued_for_what_is_over,
);

/// A gateway that answers as it is told, device by device, and accepts when it is told nothing.
#[derive(Default)]
struct Scripted {
    answers: Mutex<HashMap<DeviceId, VecDeque<PushOutcome>>>,
    sent: Mutex<Vec<DeviceId>>,
    /// Who is told that it is over.
    resolved: Mutex<Vec<DeviceId>>,
    /// What it says to that, before it accepts.
    resolved_answers: Mutex<VecDeque<PushOutcome>>,
    /// Told when a push is on its way, which then waits to be let go.
    held: Option<[Notify; 2]>,
}

#[async_trait]
impl PushSender for Scripted {
    async fn send(&self, device: &Device, message: &PushMessage, _: Timestamp) -> PushOutcome {
        if device.push_target.is_none() {
            return PushOutcome::Unreachable;
        }
        if message.signal == Signal::Resolved {
            self.resolved.lock().unwrap().push(device.id.clone());
            let answer = self.resolved_answers.lock().unwrap().pop_front();
            return answer.unwrap_or(PushOutcome::Accepted { id: None });
        }
        if let Some([begun, let_go]) = &self.held {
            begun.notify_one();
            let_go.notified().await;
        }
        self.sent.lock().unwrap().push(device.id.clone());
        let mut answers = self.answers.lock().unwrap();
        let answer = answers.get_mut(&device.id).and_then(VecDeque::pop_front);
        answer.unwrap_or(PushOutcome::Accepted { id: None })
    }
}

/// A server, and beside it the node that wakes its phones.
struct Scene {
    app: TestApp,
    node: Core,
    gateway: Arc<Scripted>,
}

impl Scene {
    async fn new(backend: Backend) -> Self {
        Self::with(backend, Scripted::default()).await
    }

    async fn with(backend: Backend, gateway: Scripted) -> Self {
        let app = TestApp::new(backend).await;
        let gateway = Arc::new(gateway);
        let world = World {
            clock: app.clock.clone(),
            entropy: Arc::new(SystemEntropy),
            push: gateway.clone(),
        };
        let config = config(&app.backend, None, vec![]);
        let node = Core::open(&config, world).await.unwrap();
        Self { app, node, gateway }
    }

    fn answer(&self, phone: &Phone, outcomes: impl IntoIterator<Item = PushOutcome>) {
        let mut answers = self.gateway.answers.lock().unwrap();
        answers.entry(phone.id()).or_default().extend(outcomes);
    }

    /// Works off what is due, and says how many pushes each phone was sent.
    async fn step<const N: usize>(&self, phones: [&Phone; N]) -> [usize; N] {
        while self.node.workers[0].step().await.unwrap() > 0 {}
        let sent = std::mem::take(&mut *self.gateway.sent.lock().unwrap());
        phones.map(|phone| sent.iter().filter(|id| **id == phone.id()).count())
    }

    async fn targets(&self) -> usize {
        let with_target = "devices WHERE push_target IS NOT NULL";
        self.app.backend.count(with_target).await
    }

    async fn buried(&self) -> usize {
        let buried = "audit WHERE kind = 'device.push_target_dead'";
        self.app.backend.count(buried).await
    }
}

async fn register(phone: &Phone, target: &str) {
    let body = json!({ "platform": "fcm", "push_target": target });
    let answer = phone
        .call("PUT", "/device/v1/push-target", Some(&body))
        .await;
    assert_eq!(answer.unwrap().status, 204);
}

/// Whether the server asks the phone to register a target.
async fn needs_refresh(phone: &Phone) -> bool {
    let answer = phone.call("GET", "/device/v1/device", None).await.unwrap();
    answer.json()["needs_push_refresh"].as_bool().unwrap()
}

async fn a_dead_target_is_forgotten_and_the_others_go_on(backend: Backend) {
    let scene = Scene::new(backend).await;
    let (bank, alice, first) = scene.app.cast().await;
    let second = scene.app.phone(&alice).await;
    register(&first, "first").await;
    register(&second, "second").await;
    scene.answer(&first, [dead(known("UNREGISTERED"))]);
    let id = bank.start("alice").await;
    assert_eq!(scene.step([&first, &second]).await, [1, 1]);
    assert_eq!(
        scene.app.waiting_jobs().await,
        0,
        "there is nothing to try again"
    );
    assert_eq!((scene.targets().await, scene.buried().await), (1, 1));
    for (phone, needs) in [(&first, true), (&second, false)] {
        assert_eq!(needs_refresh(phone).await, needs);
    }
    // Not woken any more, it still finds what waits, and answers.
    bank.start("alice").await;
    assert_eq!(scene.step([&first, &second]).await, [0, 1]);
    assert_eq!(first.inbox().await.unwrap().len(), 2);
    approve(&first, &id).await;
    assert_eq!(bank.poll(&id).await.status, 200);
    register(&first, "new").await;
    assert!(!needs_refresh(&first).await);
    bank.start("alice").await;
    assert_eq!(scene.step([&first, &second]).await, [1, 1]);
    let audit = scene.app.services().verify_audit(None).await.unwrap();
    assert!(audit.is_whole(), "{:?}", audit.findings);
}

async fn a_target_registered_since_is_not_the_dead_one(backend: Backend) {
    let scene = Scene::new(backend).await;
    let (bank, _, phone) = scene.app.cast().await;
    scene.app.advance(100);
    register(&phone, "again").await;
    for (since, targets) in [(99, 1), (100, 0)] {
        scene.answer(
            &phone,
            [PushOutcome::TokenDead {
                reason: known("Unregistered"),
                since: Some(after(since)),
            }],
        );
        bank.start("alice").await;
        assert_eq!(scene.step([&phone]).await, [1]);
        let buried = 1 - targets;
        assert_eq!(
            (scene.targets().await, scene.buried().await),
            (targets, buried)
        );
    }
    // The same when it was registered while the push was on its way.
    register(&phone, "third").await;
    let directory = &scene.app.services().directory;
    let read = directory.device(&phone.id()).await.unwrap().unwrap();
    scene.app.advance(1);
    register(&phone, "fourth").await;
    let cleared = directory.clear_push_target(&read, crate::support::house::entry());
    assert!(!cleared.await.unwrap());
    assert_eq!((scene.targets().await, scene.buried().await), (1, 1));
}

async fn a_throttled_push_comes_back_when_it_may(backend: Backend) {
    let scene = Scene::new(backend).await;
    let (bank, _, phone) = scene.app.cast().await;
    register(&phone, "target").await;
    let held_back = PushOutcome::HeldBack {
        reason: known("the gateway fails"),
        until: after(60),
    };
    for outcome in [throttled(known("QUOTA_EXCEEDED"), 30), held_back] {
        scene.answer(&phone, [outcome]);
        bank.start("alice").await;
        assert_eq!(scene.step([&phone]).await, [1]);
        scene.app.advance(29);
        assert_eq!(scene.step([&phone]).await, [0]);
        scene.app.advance(1);
        assert_eq!(scene.step([&phone]).await, [1]);
        assert_eq!(scene.app.waiting_jobs().await, 0);
    }
    // Later than the request lives: given up at once, and the request is none the worse. It leaves no dead
    // letter, since nothing could be done about it any more.
    scene.answer(&phone, [throttled(known("QUOTA_EXCEEDED"), 3600)]);
    let id = bank.start("alice").await;
    assert_eq!(scene.step([&phone]).await, [1]);
    assert_eq!(scene.app.waiting_jobs().await, 0);
    assert_eq!(scene.app.backend.count("jobs").await, 0);
    let alice = &scene.app.services().directory.users().await.unwrap()[0].clone();
    let reports = scene.app.services().deliveries_of(alice).await.unwrap();
    let last = reports
        .iter()
        .find(|one| one.request == request_id(&id))
        .unwrap();
    assert_eq!(last.state, DeliveryState::Failed);
    approve(&phone, &id).await;
    assert_eq!(bank.poll(&id).await.status, 200);
}

async fn each_gateway_keeps_its_own_pause(backend: Backend) {
    let scene = Scene::new(backend).await;
    let (bank, alice, first) = scene.app.cast().await;
    let second = scene.app.phone(&alice).await;
    let third = scene.app.phone(&alice).await;
    for phone in [&first, &second, &third] {
        register(phone, "target").await;
    }
    scene.answer(&first, [throttled(known("a"), 5)]);
    scene.answer(&second, [throttled(known("b"), 20)]);
    scene.answer(&third, [retry(known("c"))]);
    bank.start("alice").await;
    assert_eq!(scene.step([&first, &second, &third]).await, [1, 1, 1]);
    for (seconds, rung) in [
        (1, [0, 0, 1]),
        (4, [1, 0, 0]),
        (14, [0, 0, 0]),
        (1, [0, 1, 0]),
    ] {
        scene.app.advance(seconds);
        assert_eq!(scene.step([&first, &second, &third]).await, rung);
    }
    // One that never comes back in time keeps no other from ringing.
    scene.app.advance(300);
    scene.answer(&first, [throttled(known("a"), 3600)]);
    scene.answer(&second, [retry(known("b")), retry(known("b"))]);
    bank.start("alice").await;
    assert_eq!(scene.step([&first, &second, &third]).await, [1, 1, 1]);
    for rung in [[0, 1, 0], [0, 1, 0], [0, 0, 0]] {
        scene.app.advance(3);
        assert_eq!(scene.step([&first, &second, &third]).await, rung);
    }
}

async fn nothing_that_waiting_does_not_mend_is_tried_again(backend: Backend) {
    let scene = Scene::new(backend).await;
    let (bank, _, phone) = scene.app.cast().await;
    register(&phone, "target").await;
    for outcome in [
        misconfigured(known("SENDER_ID_MISMATCH")),
        our_bug(Reason::unknown(400, "PayloadEmpty")),
        PushOutcome::Unreachable,
    ] {
        scene.answer(&phone, [outcome]);
        let id = bank.start("alice").await;
        assert_eq!(scene.step([&phone]).await, [1]);
        scene.app.advance(60);
        assert_eq!(scene.step([&phone]).await, [0]);
        approve(&phone, &id).await;
        assert_eq!(bank.poll(&id).await.status, 200);
    }
    assert_eq!(scene.app.waiting_jobs().await, 0);
    assert_eq!((scene.targets().await, scene.buried().await), (1, 0));
    assert_eq!(
        scene.app.backend.count("jobs").await,
        0,
        "none is a dead letter"
    );
}

async fn a_phone_that_has_rung_does_not_ring_for_another(backend: Backend) {
    let scene = Scene::new(backend).await;
    let (bank, alice, first) = scene.app.cast().await;
    let second = scene.app.phone(&alice).await;
    let third = scene.app.phone(&alice).await;
    let phones = [&first, &second, &third];
    for phone in phones {
        register(phone, "target").await;
    }
    let down = || retry(known("UNAVAILABLE"));
    scene.answer(&first, [down(), down(), down()]);
    scene.answer(&second, [down()]);
    scene.answer(&third, [misconfigured(known("SENDER_ID_MISMATCH"))]);
    bank.start("alice").await;
    for expected in [[1, 1, 1], [1, 1, 0], [1, 0, 0], [1, 0, 0], [0, 0, 0]] {
        assert_eq!(scene.step(phones).await, expected);
        scene.app.advance(5);
    }
    // Another request is another matter.
    bank.start("alice").await;
    assert_eq!(scene.step(phones).await, [1, 1, 1]);
}

/// The person answers on one phone while the push to the other is still on its way.
async fn a_phone_that_rings_too_late_hears_at_once_that_it_is_over(backend: Backend) {
    let gateway = Scripted {
        held: Some(Default::default()),
        resolved_answers: Mutex::new([throttled(known("QUOTA_EXCEEDED"), 7)].into()),
        ..Scripted::default()
    };
    let scene = Scene::with(backend, gateway).await;
    let (bank, alice, first) = scene.app.cast().await;
    let second = scene.app.phone(&alice).await;
    register(&second, "target").await;
    let id = bank.start("alice").await;
    let worker = scene.node.workers[0].clone();
    let mut pushing = JoinSet::from_iter([async move { worker.step().await.unwrap() }]);
    let [begun, let_go] = scene.gateway.held.as_ref().unwrap();
    begun.notified().await;
    approve(&first, &id).await;
    // Whoever is to tell of the end does not know yet that anybody rings.
    assert!(scene.node.workers[1].step().await.unwrap() > 0);
    assert!(scene.gateway.resolved.lock().unwrap().is_empty());
    let_go.notify_one();
    assert_eq!(pushing.join_next().await.unwrap().unwrap(), 1);
    let resolved = || std::mem::take(&mut *scene.gateway.resolved.lock().unwrap());
    assert_eq!(resolved(), [second.id()]);
    // The gateway wanted to be asked again; then it takes it, and that is all.
    for told in [vec![second.id()], vec![]] {
        scene.app.advance(7);
        scene.step([]).await;
        assert_eq!(resolved(), told);
    }
    assert_eq!(scene.app.waiting_jobs().await, 0);
}

/// What a gateway put off is not sent when its request is over: the log does not promise it any more.
async fn nothing_is_queued_for_what_is_over(backend: Backend) {
    let scene = Scene::new(backend).await;
    let (bank, alice, first) = scene.app.cast().await;
    let second = scene.app.phone(&alice).await;
    register(&second, "target").await;
    let services = scene.app.services();
    let state_at_second = async || {
        let mut reports = services.deliveries_of(&alice).await.unwrap();
        reports.retain(|one| one.delivery.device == second.id());
        reports.remove(0).state
    };
    for ends_by_answer in [true, false] {
        scene.app.advance(300);
        scene.answer(&second, [throttled(known("QUOTA_EXCEEDED"), 30)]);
        let id = bank.start("alice").await;
        assert_eq!(scene.step([&second]).await, [1]);
        assert_eq!(state_at_second().await, DeliveryState::Queued);
        if ends_by_answer {
            approve(&first, &id).await;
        } else {
            scene.app.advance(120);
        }
        assert_eq!(state_at_second().await, DeliveryState::Failed);
        scene.app.advance(30);
        assert_eq!(scene.step([&second]).await, [0]);
    }
}
