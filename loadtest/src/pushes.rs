//! What it costs to wake a phone: the way of a push from its device to the gateway's answer, without the job that
//! it belongs to and without the gateway, which works in a thread of its own.

use crate::gateway::Gateway;
use crate::load::{self, Load, Worker};
use crate::proc;
use crate::report::Pushes;
use anyhow::Context as _;
use assent::clock::{Clock as _, SystemClock};
use assent::crypto::base64url;
use assent::crypto::generate::{generate, generate_p256};
use assent::crypto::jose::{SigningKey, thumbprint};
use assent::domain::device::{DeviceDescription, DeviceState, Platform};
use assent::domain::{Device, Partition, Secret, SignatureAlgorithm, Timestamp, UserId};
use assent::outbound::{Outbound, OutboundPolicy};
use assent::push::apns::ApnsSettings;
use assent::push::fcm::ServiceAccount;
use assent::push::web_push::WebPushSettings;
use assent::push::{
    Apns, Fcm, PushMessage, PushOutcome, PushRouter, PushSender as _, Signal, WebPush,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, Builder};
use std::time::Duration;
use tokio::runtime;
use tokio_util::sync::CancellationToken;

/// The thread that sends, and those that look up names for it.
const SENDER: &str = "pushes";
/// Sent before anything is counted: for the connections and the tokens.
const WARM_UP: usize = 200;

/// Each gateway in turn.
pub fn pushes(load: Load) -> anyhow::Result<Vec<Pushes>> {
    let stop = CancellationToken::new();
    let gateway = runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let bound = gateway.block_on(Gateway::bind())?;
    thread::scope(|scope| {
        Builder::new()
            .name("gateway".into())
            .spawn_scoped(scope, || {
                gateway.block_on(stop.run_until_cancelled(bound.serve()))
            })?;
        let _stop = stop.drop_guard_ref();
        let sender = Builder::new()
            .name(SENDER.into())
            .spawn_scoped(scope, || send_all(&bound, load))?;
        let sent = sender.join();
        sent.map_err(|_| anyhow::anyhow!("the thread that sends has panicked"))?
    })
}

fn send_all(gateway: &Gateway, load: Load) -> anyhow::Result<Vec<Pushes>> {
    let runtime = runtime::Builder::new_current_thread()
        .thread_name(SENDER)
        .enable_all()
        .build()?;
    let router = Arc::new(router(gateway)?);
    let (_, public) = generate_p256();
    let (x, y) = match &public {
        assent::domain::device::PublicKey::P256 { x, y } => (x, y),
        assent::domain::device::PublicKey::Ed25519 { .. } => anyhow::bail!("not a P-256 key"),
    };
    let coordinate = |text: &str| assent::crypto::from_base64url(text).context("a coordinate");
    let point = [vec![4], coordinate(x)?, coordinate(y)?].concat();
    let subscription = json!({
        "endpoint": format!("{}/push/capability", gateway.url),
        "keys": { "p256dh": base64url(&point), "auth": base64url(&[0xa5; 16]) },
    });
    let targets = [
        (
            Platform::Apns,
            "00fc13adff785122b4ad28809a3420982341241421348097878e577c991de8f0".into(),
        ),
        (Platform::Fcm, "x".repeat(163)),
        (Platform::WebPush, subscription.to_string()),
    ];
    let mut all = Vec::new();
    for (platform, target) in targets {
        let device = Arc::new(device(platform, target));
        let workers = || {
            let worker = |_| Sender {
                router: router.clone(),
                device: device.clone(),
            };
            (0..load.connections).map(worker).collect()
        };
        let warm_up = Load {
            count: WARM_UP,
            ..load
        };
        let (warm, _) = runtime.block_on(load::run(warm_up, workers()))?;
        let connections = gateway.connections.load(Ordering::Relaxed);
        let before = proc::cpu_of_threads(SENDER)?;
        let (outcome, _) = runtime.block_on(load::run(load, workers()))?;
        let cpu = proc::cpu_of_threads(SENDER)?.saturating_sub(before);
        let pushes = outcome.times.len();
        all.push(Pushes {
            platform: platform.as_str(),
            pushes,
            failed: outcome.failed + warm.failed,
            connections: gateway.connections.load(Ordering::Relaxed) - connections,
            cpu_us: cpu.as_secs_f64() * 1e6 / pushes.max(1) as f64,
            per_cpu_second: pushes as f64 / cpu.as_secs_f64().max(1e-9),
            per_second: pushes as f64 / outcome.took.as_secs_f64().max(1e-9),
            failures: warm.failures.into_iter().chain(outcome.failures).collect(),
        });
    }
    Ok(all)
}

/// All three gateways, each of which is the same stand-in.
fn router(gateway: &Gateway) -> anyhow::Result<PushRouter> {
    let policy = || OutboundPolicy {
        allow_loopback_http: true,
        extra_roots: vec![gateway.root.clone()],
        ..OutboundPolicy::default()
    };
    let es256 = || {
        let (private, public) = generate(SignatureAlgorithm::Es256);
        SigningKey::new(&private, public, SignatureAlgorithm::Es256).context("a new key")
    };
    let mut router = PushRouter::default();
    let apns = ApnsSettings {
        base_url: gateway.url.clone(),
        team_id: "ABCDE12345".into(),
        key: es256()?,
        topic: "org.example.approver".into(),
    };
    let apns = Apns::new(apns, Outbound::over_http2(policy())?);
    router.apns.add(None, apns);
    let (private, _) = generate(SignatureAlgorithm::Rs256);
    let account = json!({
        "project_id": "approver-1a2b3",
        "private_key_id": "k1",
        "private_key": format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", STANDARD.encode(&*private)),
        "client_email": "push@approver-1a2b3.iam.gserviceaccount.com",
        "token_uri": format!("{}/token", gateway.url),
    });
    let account = ServiceAccount::parse(&account.to_string())?;
    let outbound = Outbound::new(policy())?;
    router
        .fcm
        .add(None, Fcm::new(account, &gateway.url, outbound.clone()));
    let web_push = WebPushSettings {
        key: es256()?,
        subject: "mailto:operations@bank.example".into(),
        allowed_hosts: vec!["localhost".into()],
    };
    router.web_push = WebPush::new(web_push, outbound);
    Ok(router)
}

fn device(platform: Platform, target: String) -> Device {
    let (_, key) = generate_p256();
    let now = SystemClock.now();
    Device {
        id: thumbprint(&key),
        user_id: UserId::new("somebody"),
        partition: Partition(0),
        state: DeviceState::Active,
        key,
        description: DeviceDescription {
            label: "a phone".into(),
            platform,
            app_version: "1".into(),
            os_version: "1".into(),
        },
        push_target: Some(Secret::new(target)),
        push_registered_at: now,
        app_id: None,
        created_at: now,
        revoked_at: None,
    }
}

struct Sender {
    router: Arc<PushRouter>,
    device: Arc<Device>,
}

impl Worker for Sender {
    async fn operate(&mut self, number: usize) -> anyhow::Result<()> {
        let now: Timestamp = SystemClock.now();
        let mut attempt = [0; 16];
        attempt[..8].copy_from_slice(&(number as u64).to_be_bytes());
        let message = PushMessage {
            attempt,
            reference: base64url(&attempt),
            signal: Signal::Waiting,
            expires_at: now.plus(Duration::from_secs(120)),
        };
        let outcome = self.router.send(&self.device, &message, now).await;
        let accepted = matches!(outcome, PushOutcome::Accepted { .. });
        anyhow::ensure!(accepted, "{outcome:?}");
        Ok(())
    }
}
