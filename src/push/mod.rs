//! Waking a phone. A push is the wake-up, never the truth: it carries a reference and nothing else.

pub mod apns;
pub mod fcm;
mod guard;
pub mod recorder;
pub mod router;
pub mod web_push;

pub use self::web_push::WebPush;
pub use apns::Apns;
pub use fcm::Fcm;
pub use recorder::PushRecorder;
pub use router::PushRouter;

use crate::domain::device::{InvalidPushTarget, Platform};
use crate::domain::{Device, Secret, Timestamp};
use crate::outbound::OutboundError;
use async_trait::async_trait;
use guard::Sent;

/// What a push may carry: nothing of the request, the person or the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushMessage {
    /// This attempt: 128 random bits, for gateways that want each to have a name.
    pub attempt: [u8; 16],
    /// Stands for the request; the phone asks over its own channel what it is about.
    pub reference: String,
    pub signal: Signal,
    /// After this the push is of no use.
    pub expires_at: Timestamp,
}

/// What the phone is told. The gateway learns as much: that something waits, or does no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// A request waits for an answer.
    Waiting,
    /// It has been answered, on another device: the app takes its notification away and shows none.
    Resolved,
    /// An operator tries whether the phone can be reached.
    Test,
}

impl Signal {
    /// What it is called in every payload. The app shows its own sentence for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "request.waiting",
            Self::Resolved => "request.resolved",
            Self::Test => "push.test",
        }
    }

    /// Whether the phone stays dark.
    pub const fn is_silent(self) -> bool {
        match self {
            Self::Resolved => true,
            Self::Waiting | Self::Test => false,
        }
    }
}

/// What an attempt means for us, whatever the gateway calls it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PushOutcome {
    /// The gateway has it; whether the phone gets it, nobody tells. The id is the gateway's own.
    Accepted { id: Option<String> },
    /// Nothing was sent: the device has no target, or nothing is set up to reach it by.
    Unreachable,
    /// Too much, or too early: not before this.
    Throttled { reason: Reason, until: Timestamp },
    /// Not sent: the gateway fails or is slow, and is not asked before this.
    HeldBack { reason: Reason, until: Timestamp },
    /// Worth another try.
    Retry { reason: Reason },
    /// The target is gone for good, since then if the gateway says so. Counts only for a target that was
    /// not registered again after it.
    TokenDead {
        reason: Reason,
        since: Option<Timestamp>,
    },
    /// The operator has to mend something: credentials, topic, project. The target may be good.
    Misconfigured { reason: Reason },
    /// We sent what the gateway does not take.
    OurBug { reason: Reason },
}

impl PushOutcome {
    /// One word for logs and metrics.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Accepted { .. } => "accepted",
            Self::Unreachable => "unreachable",
            Self::Throttled { .. } => "throttled",
            Self::HeldBack { .. } => "held_back",
            Self::Retry { .. } => "retry",
            Self::TokenDead { .. } => "token_dead",
            Self::Misconfigured { .. } => "misconfigured",
            Self::OurBug { .. } => "our_bug",
        }
    }

    /// Why and when it is worth another try, if it is.
    pub const fn again(&self, now: Timestamp) -> Option<(&Reason, Timestamp)> {
        match self {
            Self::Retry { reason } => Some((reason, now)),
            Self::Throttled { reason, until } | Self::HeldBack { reason, until } => {
                Some((reason, *until))
            }
            // Nothing left to do, or nothing that waiting mends.
            Self::Accepted { .. }
            | Self::Unreachable
            | Self::TokenDead { .. }
            | Self::Misconfigured { .. }
            | Self::OurBug { .. } => None,
        }
    }

    pub const fn reason(&self) -> Option<&Reason> {
        match self {
            Self::Accepted { .. } | Self::Unreachable => None,
            Self::Throttled { reason, .. }
            | Self::HeldBack { reason, .. }
            | Self::Retry { reason }
            | Self::TokenDead { reason, .. }
            | Self::Misconfigured { reason }
            | Self::OurBug { reason } => Some(reason),
        }
    }
}

/// Why, in a gateway's word or ours, fit for a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    text: String,
    known: bool,
}

impl Reason {
    /// What we know and have a rule for.
    pub fn known(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            known: true,
        }
    }

    /// A word that no rule is made for: the status alone decided. It comes from outside, so only its
    /// letters and digits are kept, and not too many of them.
    pub fn unknown(status: u16, word: &str) -> Self {
        let word: String = word
            .chars()
            .filter(|c| c.is_ascii_alphanumeric() || *c == '_')
            .take(64)
            .collect();
        Self {
            text: format!("{status} {word}").trim_end().to_owned(),
            known: false,
        }
    }

    pub fn is_known(&self) -> bool {
        self.known
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// Hands messages to a gateway.
#[async_trait]
pub trait PushSender: Send + Sync {
    async fn send(&self, device: &Device, message: &PushMessage, now: Timestamp) -> PushOutcome;

    /// Whether such a target is worth keeping. One that no gateway is set up for is: it may be one day.
    ///
    /// # Errors
    /// Why nothing could be sent there.
    fn check_target(&self, _platform: Platform, _target: &Secret) -> Result<(), InvalidPushTarget> {
        Ok(())
    }
}

/// To be tried again: when the gateway says, or as we see fit.
fn later(reason: Reason, until: Option<Timestamp>) -> PushOutcome {
    match until {
        Some(until) => PushOutcome::Throttled { reason, until },
        None => PushOutcome::Retry { reason },
    }
}

/// A gateway that could not be asked. Only its address can be wrong for good.
fn no_answer(error: &OutboundError) -> PushOutcome {
    tracing::warn!(
        kind = error.kind(),
        detail = error.detail(),
        "a push gateway gave no answer"
    );
    let reason = Reason::known(format!("no answer: {}", error.kind()));
    match error {
        OutboundError::Refused(_) => PushOutcome::Misconfigured { reason },
        OutboundError::Resolve(_)
        | OutboundError::Connect(_)
        | OutboundError::Tls(_)
        | OutboundError::Timeout(_)
        | OutboundError::TooLarge(_)
        | OutboundError::Broken(_) => PushOutcome::Retry { reason },
    }
}
