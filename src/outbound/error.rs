//! Why a call brought nothing, told apart for us and alike for others.

use super::RefusedUrl;
use std::error::Error;
use std::{fmt, io};

/// Why a call brought nothing.
///
/// The text of every variant is the same, because it may reach whoever registered the endpoint: told
/// apart, a closed port, a silent one and a blocked one would let him map our network. What really
/// happened is for the log: [`OutboundError::kind`] and [`OutboundError::detail`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OutboundError {
    /// We do not call that: the URL, a header or an address behind the name is against the rules.
    Refused(String),
    /// The name has no address, or its servers do not answer.
    Resolve(String),
    /// No connection.
    Connect(String),
    /// No TLS session that we trust.
    Tls(String),
    /// Not done within the time there was.
    Timeout(String),
    /// The answer's body is longer than what we read.
    TooLarge(String),
    /// The connection broke, or what came is not HTTP.
    Broken(String),
}

impl OutboundError {
    /// Whether the same call may do better later.
    pub fn is_retryable(&self) -> bool {
        match self {
            // Neither rules nor sizes change by waiting.
            Self::Refused(_) | Self::TooLarge(_) => false,
            // TLS too: one server of several with an old certificate, a restart in mid-handshake.
            Self::Resolve(_)
            | Self::Connect(_)
            | Self::Tls(_)
            | Self::Timeout(_)
            | Self::Broken(_) => true,
        }
    }

    /// One word for logs and metrics. Never for a registrant.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Refused(_) => "refused",
            Self::Resolve(_) => "resolve",
            Self::Connect(_) => "connect",
            Self::Tls(_) => "tls",
            Self::Timeout(_) => "timeout",
            Self::TooLarge(_) => "too_large",
            Self::Broken(_) => "broken",
        }
    }

    /// What happened, for logs. Never for a registrant.
    pub fn detail(&self) -> &str {
        match self {
            Self::Refused(detail)
            | Self::Resolve(detail)
            | Self::Connect(detail)
            | Self::Tls(detail)
            | Self::Timeout(detail)
            | Self::TooLarge(detail)
            | Self::Broken(detail) => detail,
        }
    }
}

impl fmt::Display for OutboundError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the endpoint gave no usable answer")
    }
}

/// Without a source: it would be printed along and tell what the text keeps back.
impl Error for OutboundError {}

impl From<RefusedUrl> for OutboundError {
    fn from(why: RefusedUrl) -> Self {
        Self::Refused(why.to_string())
    }
}

impl From<reqwest::Error> for OutboundError {
    fn from(error: reqwest::Error) -> Self {
        // Our own resolver's verdict comes back wrapped.
        if let Some(ours) = find::<Self>(&error) {
            return ours.clone();
        }
        let is_tls = find::<rustls::Error>(&error).is_some();
        let (is_timeout, is_connect) = (error.is_timeout(), error.is_connect());
        // A URL can be a secret of its own (a push subscription), so it stays out of the log.
        let detail = chain(&error.without_url());
        match () {
            () if is_timeout => Self::Timeout(detail),
            () if is_tls => Self::Tls(detail),
            () if is_connect => Self::Connect(detail),
            () => Self::Broken(detail),
        }
    }
}

/// The first error of type `E` among the causes.
fn find<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    std::iter::successors(Some(error), |error| cause(*error)).find_map(|error| error.downcast_ref())
}

fn cause<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    // An io::Error names as its source not the error inside it, but that error's source.
    let inside = error.downcast_ref().and_then(io::Error::get_ref);
    inside
        .map(|inside| inside as &(dyn Error + 'static))
        .or_else(|| error.source())
}

fn chain(error: &reqwest::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| (*cause).source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
