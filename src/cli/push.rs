//! `assent push test|log`: can this phone be woken, and was it? If not, what is to be done?

use super::output::time;
use super::{Context, device, user};
use crate::app;
use crate::config::Overrides;
use crate::domain::device::{DeviceState, Platform};
use crate::domain::{Device, Timestamp};
use crate::service::deliveries::DeliveryReport;
use crate::service::test_push::{PushOutcome, TestedPush};
use clap::Subcommand;
use serde_json::json;

/// What Apple says to too many tests in a row.
const TOO_MANY_TOKENS: &str = "TooManyProviderTokenUpdates";

#[derive(Debug, Subcommand)]
pub enum Push {
    /// Send a push that says it is a test, and explain what the gateway answers
    Test {
        // An id in base64url may begin with a hyphen.
        /// See `assent device list USER`
        #[arg(allow_hyphen_values = true)]
        device_id: String,
    },
    /// Show how far a person's latest requests came on their way to each phone
    Log {
        /// The person's login
        user: String,
    },
}

impl Push {
    pub async fn run(self, context: &Context) -> anyhow::Result<()> {
        match self {
            Self::Test { device_id } => test(&device_id, context).await,
            Self::Log { user } => log(&user, context).await,
        }
    }
}

async fn test(device_id: &str, context: &Context) -> anyhow::Result<()> {
    let gateways = app::push_gateways(&context.load(&Overrides::new())?)?;
    let core = context.core().await?;
    let device = device::find(&core, device_id).await?;
    anyhow::ensure!(
        device.state != DeviceState::Revoked,
        "the device is revoked; nothing wakes it any more"
    );
    // A server without gateways has a stand-in for them, which takes everything.
    let tested = if gateways.is_empty() {
        let (outcome, forgotten) = (PushOutcome::Unreachable, false);
        TestedPush { outcome, forgotten }
    } else {
        core.services.test_push(&device).await?
    };
    core.db.close().await;
    let outcome = &tested.outcome;
    let (reason, explanation) = (outcome.reason(), explain(&tested, &device));
    let platform = device.description.platform;
    let (accepted, id) = match outcome {
        PushOutcome::Accepted { id } => (true, id.as_deref()),
        _ => (false, None),
    };
    let label = outcome.label();
    let human = match reason {
        Some(reason) => format!("{platform}: {label} ({})", reason.as_str()),
        None => format!("{platform}: {label}"),
    };
    let value = json!({
        "device_id": device.id,
        "platform": platform,
        "outcome": label,
        "reason": reason.map(|reason| reason.as_str()),
        "gateway_id": id,
        "explanation": explanation,
    });
    context.output.result(&human, &value);
    anyhow::ensure!(accepted, explanation);
    context.output.say(&explanation);
    Ok(())
}

async fn log(login: &str, context: &Context) -> anyhow::Result<()> {
    let core = context.core().await?;
    let user = user::find(&core, login).await?;
    let delivered = core.services.deliveries_of(&user).await?;
    core.db.close().await;
    let row = |one: &DeliveryReport| {
        let push = one.delivery.push.as_ref();
        let said = push.and_then(|push| push.reason.clone().or(push.gateway_id.clone()));
        let quiet =
            (!one.is_prompt).then(|| "above the budget, or quiet after a denial".to_owned());
        let said = said.or(quiet);
        vec![
            time(one.asked_at),
            one.request.to_string()[..12].to_owned(),
            one.delivery.device.as_str()[..12].to_owned(),
            one.state.to_string(),
            push.map_or(0, |push| push.attempts).to_string(),
            said.unwrap_or_default(),
        ]
    };
    let value = |one: &DeliveryReport| {
        json!({
            "request": one.request,
            "asked_at": one.asked_at.secs(),
            "device_id": one.delivery.device,
            "state": one.state,
            "is_prompt": one.is_prompt,
            "push": one.delivery.push.as_ref().map(|push| json!({
                "state": push.state,
                "at": push.at.secs(),
                "attempts": push.attempts,
                "gateway_id": push.gateway_id,
                "reason": push.reason,
            })),
            "fetched_at": one.delivery.fetched_at.map(Timestamp::secs),
        })
    };
    context.output.table(
        &["asked", "request", "device", "state", "attempts", "gateway"],
        &delivered.iter().map(row).collect::<Vec<_>>(),
        delivered.iter().map(value).collect(),
        "No request of the last minutes is known.",
    );
    Ok(())
}

/// What it means, and what to do next.
fn explain(tested: &TestedPush, device: &Device) -> String {
    let platform = device.description.platform;
    match &tested.outcome {
        PushOutcome::Accepted { .. } => "The gateway has taken it. If the phone shows nothing within a minute, \
             look whether it is online, whether the app may show notifications, and whether it knows the \
             signal push.test."
            .into(),
        PushOutcome::Unreachable => unreachable(device),
        PushOutcome::Throttled { reason, .. } if reason.as_str() == TOO_MANY_TOKENS => {
            "Apple wants to see one new provider token in 20 minutes, and each test makes one; wait so long"
                .into()
        }
        PushOutcome::Throttled { until, .. } | PushOutcome::HeldBack { until, .. } => format!(
            "the gateway has had too much for now; try again after {}",
            time(*until)
        ),
        PushOutcome::Retry { .. } => "the gateway has trouble or cannot be reached, and the push is tried again in \
             real life; if it lasts, look at the gateway's status page and whether this machine gets out by \
             HTTPS"
            .into(),
        PushOutcome::TokenDead { .. } if tested.forgotten => "the gateway does not know this phone any more, and \
             its target is forgotten; open the app, so that it registers a new one"
            .into(),
        PushOutcome::TokenDead { .. } => "the gateway speaks of an earlier target of this phone; the newer one is \
             kept; try again"
            .into(),
        PushOutcome::Misconfigured { .. } => misconfigured(platform).into(),
        PushOutcome::OurBug { .. } => "the gateway does not take the message itself; this is a mistake in assent: \
             please report it with what stands in brackets"
            .into(),
    }
}

fn unreachable(device: &Device) -> String {
    let platform = device.description.platform;
    if platform == Platform::None {
        return "the app has registered that it is not woken (platform none); it finds what waits when it is \
                opened"
            .into();
    }
    if device.needs_push_refresh() {
        return "the device has no push target, or its gateway has called it dead; open the app, so that it \
                registers one"
            .into();
    }
    let (section, more) = match platform {
        Platform::Apns => ("[[push.apns]]", ""),
        Platform::Fcm => ("[[push.fcm]]", ""),
        Platform::WebPush | Platform::None => (
            "[push.web_push]",
            ", or the host of its push service is not in allowed_hosts there",
        ),
    };
    format!("no gateway is set up for {platform}: {section} is missing in the settings{more}")
}

const fn misconfigured(platform: Platform) -> &'static str {
    match platform {
        Platform::Apns => {
            "the settings do not fit; compare team_id, key_id, key_file and topic with your Apple developer \
             account, environment with how the app was built (sandbox: from Xcode), and app_id with the device's"
        }
        Platform::Fcm => {
            "the settings do not fit; look whether service_account_file belongs to the project that the app \
             was built for, whether its key still exists, and whether the Firebase Cloud Messaging API is \
             enabled"
        }
        Platform::WebPush | Platform::None => {
            "the push service refuses us; the browser must have subscribed with the public key that \
             `assent doctor` shows, and subscribe again when it has changed"
        }
    }
}
