//! What wakes a phone: gateways that behave as the real ones do, and what becomes of their answers.

mod apns;
mod breaker;
mod delivery_log;
pub mod fake_apns;
mod fake_fcm;
mod fake_push_service;
mod fcm;
mod http1;
mod outcomes;
mod server;
mod settings;
mod targets;
mod web_push;

use crate::support::START;
use crate::support::house::new_device;
use assent::clock::{Clock as _, ManualClock};
use assent::domain::device::Platform;
use assent::domain::user::Login;
use assent::domain::{Device, Partition, Secret, Timestamp, User, UserId};
use assent::outbound::OutboundPolicy;
use assent::push::{PushMessage, PushOutcome, PushRouter, PushSender as _, Reason, Signal};
use std::sync::Arc;
use std::time::Duration;

/// What a test sends straight to a gateway.
fn message(signal: Signal) -> PushMessage {
    PushMessage {
        attempt: [0x5a; 16],
        reference: "cmVmZXJlbmNlLTIyLWNocw".into(),
        signal,
        expires_at: after(120),
    }
}

/// A gateway with one phone behind it, without a server.
struct Line<Fake> {
    fake: Fake,
    clock: Arc<ManualClock>,
    router: PushRouter,
    device: Device,
}

impl<Fake> Line<Fake> {
    async fn send(&self) -> PushOutcome {
        self.signal(Signal::Waiting).await
    }

    async fn signal(&self, signal: Signal) -> PushOutcome {
        let now = self.clock.now();
        self.router.send(&self.device, &message(signal), now).await
    }

    fn advance(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }
}

/// Calls that may end at this machine.
fn policy() -> OutboundPolicy {
    OutboundPolicy {
        allow_loopback_http: true,
        ..OutboundPolicy::default()
    }
}

/// So many seconds after the beginning.
fn after(seconds: u64) -> Timestamp {
    START.plus(Duration::from_secs(seconds))
}

fn known(text: &str) -> Reason {
    Reason::known(text)
}

fn throttled(reason: Reason, seconds: u64) -> PushOutcome {
    let until = after(seconds);
    PushOutcome::Throttled { reason, until }
}

const fn retry(reason: Reason) -> PushOutcome {
    PushOutcome::Retry { reason }
}

const fn dead(reason: Reason) -> PushOutcome {
    PushOutcome::TokenDead {
        reason,
        since: None,
    }
}

const fn misconfigured(reason: Reason) -> PushOutcome {
    PushOutcome::Misconfigured { reason }
}

const fn our_bug(reason: Reason) -> PushOutcome {
    PushOutcome::OurBug { reason }
}

/// A device in no database, reached by this target.
fn device(platform: Platform, target: &str) -> Device {
    let user = User {
        id: UserId::new("somebody"),
        partition: Partition(0),
        login: Login::parse("somebody").unwrap(),
        name: None,
        created_at: START,
        locked_at: None,
        tokens_not_before: None,
    };
    let mut device = new_device(&user);
    device.description.platform = platform;
    device.push_target = Some(Secret::new(target.to_owned()));
    device
}
