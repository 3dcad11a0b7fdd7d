//! Leaves a gateway alone that fails, and piles nothing up at one that is slow. What is held back costs no
//! call and no line in the log.

use super::{PushOutcome, Reason};
use crate::domain::breaker::{Breakers, Change, Health, Limits, Refused};
use crate::domain::device::Platform;
use crate::domain::{AppId, Timestamp};
use crate::outbound::OutboundError;
use std::time::Duration;

/// In flight: the worker's 32 hands, each with a person who has two phones there. More are on their way only
/// where a gateway has become slow. Failures: more than one bad connection makes, fewer than a second's worth.
const LIMITS: Limits = Limits {
    in_flight: 64,
    failures: 20,
    pause: Duration::from_secs(30),
};
/// When to come back where nobody knows how long it takes.
const SOON: Duration = Duration::from_secs(1);

/// What came of a message, and what that tells of the gateway: nothing, where it was not asked.
pub struct Sent {
    outcome: PushOutcome,
    health: Option<Health>,
}

impl Sent {
    pub const fn outcome(&self) -> &PushOutcome {
        &self.outcome
    }

    /// Settled without asking the gateway.
    pub const fn unasked(outcome: PushOutcome) -> Self {
        let health = None;
        Self { outcome, health }
    }

    pub fn no_answer(error: &OutboundError) -> Self {
        Self {
            outcome: super::no_answer(error),
            health: Some(Health::Fails),
        }
    }

    /// `refuses_us`: for a reason that has nothing to do with the target. One phone's target must not be able to
    /// close the way to all others. Neither does a 429 close it: it may be about one phone, and each
    /// message comes back in its own time.
    pub const fn answered(status: u16, outcome: PushOutcome, refuses_us: bool) -> Self {
        let fails = status >= 500 || refuses_us;
        let health = if fails { Health::Fails } else { Health::Works };
        Self {
            outcome,
            health: Some(health),
        }
    }
}

/// What fails and recovers as one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Callee {
    platform: Platform,
    /// The app whose credentials these are, or the host of a push service; `None`: the credentials for all apps.
    name: Option<String>,
}

impl Callee {
    pub fn credentials(platform: Platform, app_id: Option<&AppId>) -> Self {
        let name = app_id.map(ToString::to_string);
        Self { platform, name }
    }

    pub fn push_service(host: &str) -> Self {
        Self {
            platform: Platform::WebPush,
            name: Some(host.to_owned()),
        }
    }
}

impl Callee {
    fn name(&self) -> &str {
        self.name.as_deref().unwrap_or("all")
    }
}

pub struct Guard(Breakers<Callee>);

impl Default for Guard {
    fn default() -> Self {
        Self(Breakers::new(LIMITS))
    }
}

impl Guard {
    /// Makes the call, if the gateway is not to be left alone.
    pub async fn call(
        &self,
        callee: Callee,
        now: Timestamp,
        call: impl Future<Output = Sent>,
    ) -> PushOutcome {
        if self.0.forget_stale(now) {
            Platform::ALL
                .iter()
                .for_each(|platform| self.show(*platform));
        }
        let turn = match self.0.take(&callee, now) {
            Ok(turn) => turn,
            Err(refused) => return held_back(&callee, refused, now),
        };
        let sent = call.await;
        let change = sent.health.and_then(|health| turn.end(health, now));
        if let Some(change) = change {
            self.report(&callee, change, &sent.outcome);
        }
        sent.outcome
    }

    fn report(&self, callee: &Callee, change: Change, outcome: &PushOutcome) {
        let (platform, name) = (callee.platform.as_str(), callee.name());
        match change {
            Change::Opened => tracing::error!(
                platform,
                name,
                ?outcome,
                "a push gateway fails and is left alone, but for a try every {} s",
                LIMITS.pause.as_secs()
            ),
            Change::Closed => tracing::info!(platform, name, "a push gateway works again"),
        }
        self.show(callee.platform);
    }

    fn show(&self, platform: Platform) {
        let open = self.0.open(|callee| callee.platform == platform);
        let open = u32::try_from(open).unwrap_or(u32::MAX);
        let platform = platform.as_str();
        metrics::gauge!("assent_push_gateways_failing", "platform" => platform).set(open);
    }
}

fn held_back(callee: &Callee, refused: Refused, now: Timestamp) -> PushOutcome {
    let (why, text, until) = match refused {
        Refused::Open { until } => ("failing", "the gateway fails", until),
        Refused::Probing => ("failing", "the gateway fails", now.plus(SOON)),
        Refused::Full => ("full", "the gateway is slow", now.plus(SOON)),
    };
    let platform = callee.platform.as_str();
    metrics::counter!("assent_pushes_held_back_total", "platform" => platform, "why" => why)
        .increment(1);
    PushOutcome::HeldBack {
        reason: Reason::known(text),
        until,
    }
}
