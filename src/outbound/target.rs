//! What a URL must look like before a name is even looked up.
//!
//! The URL standard that `url` implements is generous: it decodes, maps and drops characters, and reads
//! `0x7f.1`, `2130706433` and full-width digits as an address. We want the opposite, one spelling for one
//! host, so that whoever else reads the same text (a person, a proxy, a certificate) sees the same host.

#[cfg(test)]
mod tests;

use super::OutboundPolicy;
use url::{Host, Url};

/// Longer than any endpoint anybody registers, shorter than what troubles a log.
const MAX_LENGTH: usize = 2000;

/// Why a URL may not be called. Said about the text alone, so it may be told to who sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RefusedUrl {
    #[error("the URL is longer than 2000 characters")]
    TooLong,
    #[error("the URL has a character that RFC 3986 does not allow")]
    Character,
    #[error("this is not a URL")]
    NotAUrl,
    #[error("the URL must begin with https://")]
    Scheme,
    #[error("the URL must not contain a user name or password")]
    UserInfo,
    #[error("the URL must not have a fragment")]
    Fragment,
    #[error("the URL's host must be a full DNS name, not an address")]
    Host,
    #[error("the URL's port is not allowed")]
    Port,
    #[error("the URL's host and port must be written in their plain form")]
    Spelling,
}

/// Checks the text alone; nothing is looked up.
pub(super) fn check(policy: &OutboundPolicy, text: &str) -> Result<Url, RefusedUrl> {
    if text.len() > MAX_LENGTH {
        return Err(RefusedUrl::TooLong);
    }
    // RFC 3986 2. The parser would turn a backslash into a slash and drop line breaks.
    if !text
        .bytes()
        .all(|byte| byte.is_ascii_graphic() && byte != b'\\')
    {
        return Err(RefusedUrl::Character);
    }
    let url = Url::parse(text).map_err(|_| RefusedUrl::NotAUrl)?;
    let host = url.host().ok_or(RefusedUrl::NotAUrl)?;
    let is_own = policy.allow_loopback_http && is_loopback(&host);
    if !(url.scheme() == "https" || (url.scheme() == "http" && is_own)) {
        return Err(RefusedUrl::Scheme);
    }
    let authority = written_authority(text).ok_or(RefusedUrl::Spelling)?;
    if authority.contains('@') {
        return Err(RefusedUrl::UserInfo);
    }
    if url.fragment().is_some() {
        return Err(RefusedUrl::Fragment);
    }
    let is_name = matches!(host, Host::Domain(name) if is_full_name(name));
    if !is_name && !is_own {
        return Err(RefusedUrl::Host);
    }
    let port = url.port_or_known_default().unwrap_or_default();
    if port == 0 || !(policy.allow_loopback_http || policy.allowed_ports.contains(&port)) {
        return Err(RefusedUrl::Port);
    }
    let host = host.to_string();
    if ![format!("{host}:{port}"), host]
        .iter()
        .any(|plain| plain.eq_ignore_ascii_case(authority))
    {
        return Err(RefusedUrl::Spelling);
    }
    Ok(url)
}

/// Host and port as they stand in the text (RFC 3986 3.2).
fn written_authority(text: &str) -> Option<&str> {
    text.split_once("://")?.1.split(['/', '?', '#']).next()
}

/// A loopback address, or a name that means one wherever it is asked (RFC 6761 6.3).
/// Whether a host is this machine, by its name or address.
pub fn is_loopback(host: &Host<&str>) -> bool {
    match host {
        Host::Domain(name) => is_localhost(name),
        Host::Ipv4(address) => address.is_loopback(),
        Host::Ipv6(address) => address.is_loopback(),
    }
}

pub(super) fn is_localhost(name: &str) -> bool {
    name == "localhost" || name.ends_with(".localhost")
}

/// A name with a dot in it, of letters, digits and hyphens (RFC 1123 2.1). The last label begins with a
/// letter, so that no resolver takes the whole for an address; and there is no dot behind it, because a
/// second spelling of a name would pass by everything that is kept by name.
fn is_full_name(name: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let top = name.rsplit_once('.').map(|(_, top)| top);
    name.len() <= 253
        && name.split('.').all(is_label)
        && top.is_some_and(|top| top.starts_with(|c: char| c.is_ascii_alphabetic()))
        && !is_localhost(name)
}
