//! The one HTTP client for everything we call: notification endpoints, key sets, push gateways.
//!
//! Where it calls is chosen by whoever registered the endpoint, who may be after our own network
//! (server-side request forgery). So `target` lets through only plain https URLs with a DNS name,
//! `resolve` only names all of whose addresses are global (`address`), and the client connects to exactly
//! the addresses that were checked. It follows no redirect, uses no proxy, keeps no cookie, decompresses
//! nothing, and ends by itself: 2 s to connect, 5 s in all, 64 KiB of body. It speaks HTTP/1.1, or HTTP/2 to a
//! gateway that wants nothing else.
//!
//! What it cannot hide is how long a call took. Whoever calls on a registrant's behalf must not let him
//! measure it: answer first, call later, or answer after a fixed time.

mod address;
mod client;
mod error;
mod resolve;
mod target;
#[cfg(test)]
mod tests;

pub use address::{InvalidNetwork, Network};
pub use client::{Outbound, OutboundSetupError};
pub use error::OutboundError;
pub use resolve::{HostResolver, SystemResolver};
pub use target::{RefusedUrl, is_loopback};
pub use url::Url;

use crate::domain::Timestamp;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

/// What an operator decides about calls to others.
#[derive(Clone, Debug)]
pub struct OutboundPolicy {
    /// For development: any port, names and literals that mean this machine, and plain http to those
    /// (`localhost`, `127.0.0.1`, `[::1]`). Other private addresses stay refused.
    pub allow_loopback_http: bool,
    /// Certificates in DER that are trusted beside Mozilla's roots: a bank's own authority.
    pub extra_roots: Vec<Vec<u8>>,
    pub allowed_ports: Vec<u16>,
    /// Networks that may be called although they are not global, for relying parties in a bank's own
    /// network. Loopback, link-local and metadata addresses stay refused.
    pub internal_networks: Vec<Network>,
}

impl Default for OutboundPolicy {
    fn default() -> Self {
        Self {
            allow_loopback_http: false,
            extra_roots: Vec::new(),
            allowed_ports: vec![443, 8443],
            internal_networks: Vec::new(),
        }
    }
}

impl OutboundPolicy {
    /// Whether a connection to this address may be opened.
    fn permits(&self, address: IpAddr) -> bool {
        address::is_global(address)
            || address::is_internal(&self.internal_networks, address)
            || (self.allow_loopback_http && address.is_loopback())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    Get,
    Post,
}

/// One call. Its `Debug` shows only the method: URL, headers and body can hold secrets.
#[derive(Clone)]
pub struct OutboundRequest {
    pub method: Method,
    pub url: String,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
    /// Take the status and hang up: the body can then be endless or broken, and it does not matter.
    pub ignore_answer_body: bool,
}

impl OutboundRequest {
    pub fn get(url: impl Into<String>) -> Self {
        Self {
            method: Method::Get,
            url: url.into(),
            headers: Vec::new(),
            body: Vec::new(),
            ignore_answer_body: false,
        }
    }

    pub fn post(url: impl Into<String>, content_type: &str, body: Vec<u8>) -> Self {
        let request = Self {
            method: Method::Post,
            body,
            ..Self::get(url)
        };
        request.header("content-type", content_type)
    }

    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// For notifications, whose answer has no body that counts (CIBA Core 10.2, 10.3).
    pub fn ignoring_the_answers_body(mut self) -> Self {
        self.ignore_answer_body = true;
        self
    }
}

impl fmt::Debug for OutboundRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OutboundRequest")
            .field("method", &self.method)
            .finish_non_exhaustive()
    }
}

/// What came back. A redirect (3xx) is an answer like any other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboundResponse {
    pub status: u16,
    /// Only those that somebody here reads: see [`OutboundResponse::header`].
    headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
}

impl OutboundResponse {
    /// `apns-id`, `cache-control`, `content-type` or `retry-after`; others are not kept. Lines of one name are joined
    /// with commas (RFC 9110 5.3).
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        headers
            .find(|(kept, _)| *kept == name)
            .map(|(_, value)| value.as_str())
    }

    /// When the server wants to be asked again: a number of seconds, or a date (RFC 9110 10.2.3).
    pub fn retry_after(&self, now: Timestamp) -> Option<Timestamp> {
        let text = self.header("retry-after")?;
        if let Ok(seconds) = text.parse() {
            return Some(now.plus(Duration::from_secs(seconds)));
        }
        let date = httpdate::parse_http_date(text).ok()?;
        let since = date.duration_since(std::time::UNIX_EPOCH).ok()?;
        Some(Timestamp::from_millis(0).plus(since))
    }
}
