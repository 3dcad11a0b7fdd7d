//! What settings must be like, together.

use super::{Config, ConfigError, Mode};
use std::net::IpAddr;
use std::time::Duration;

impl Config {
    /// Checks what no single key can tell.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let invalid = |key, problem| Err(ConfigError::Invalid { key, problem });
        if let Some(problem) = issuer_problem(&self.server.issuer, self.server.mode) {
            return invalid("server.issuer", problem);
        }
        if self.database.url.is_empty() {
            return invalid("database.url", "is empty; set it or ASSENT_DATABASE__URL");
        }
        if self.server.mode == Mode::Production && self.keys.deployment_key.is_empty() {
            return invalid(
                "keys.deployment_key",
                "is empty; production needs one: see config/default.toml for how to make it",
            );
        }
        if !self.keys.deployment_key.is_empty() && !is_key(&self.keys.deployment_key) {
            return invalid(
                "keys.deployment_key",
                "is not 32 bytes of base64url; see config/default.toml for how to make them",
            );
        }
        if self.server.max_in_progress < 8 {
            return invalid("server.max_in_progress", "must be at least 8");
        }
        let timeout = self.redis.timeout;
        if timeout < Duration::from_millis(50) || timeout > Duration::from_secs(5) {
            return invalid("redis.timeout", "must be from 50ms to 5s");
        }
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.:".contains(&b);
        if self.redis.prefix.is_empty() || !self.redis.prefix.bytes().all(plain) {
            return invalid(
                "redis.prefix",
                "must be letters, digits, and any of - _ . :",
            );
        }
        if self.ciba.interval < Duration::from_secs(1) {
            return invalid("ciba.interval", "must be at least 1s");
        }
        if self.ciba.max_expiry > Duration::from_secs(600) {
            return invalid("ciba.max_expiry", "must be at most 600s");
        }
        if self.ciba.default_expiry > self.ciba.max_expiry
            || self.ciba.default_expiry < Duration::from_secs(1)
        {
            return invalid("ciba.default_expiry", "must be from 1s to ciba.max_expiry");
        }
        if self.ciba.max_long_poll > Duration::from_secs(30) {
            return invalid(
                "ciba.max_long_poll",
                "must be at most 30s (CIBA Core 10.1.1)",
            );
        }
        if self.ciba.redelivery > Duration::from_secs(60) {
            return invalid("ciba.redelivery", "must be at most 60s");
        }
        if self.ciba.decoy_answer_after > Duration::from_secs(1) {
            return invalid("ciba.decoy_answer_after", "must be at most 1s");
        }
        if self.ciba.open_requests_per_user == 0 {
            return invalid("ciba.open_requests_per_user", "must be at least 1");
        }
        if self.tokens.refresh_grace > Duration::from_secs(60) {
            return invalid("tokens.refresh_grace", "must be at most 60s");
        }
        let lifetime = self.tokens.access_token_lifetime;
        if lifetime < Duration::from_secs(1) || lifetime > Duration::from_secs(900) {
            return invalid("tokens.access_token_lifetime", "must be from 1s to 15m");
        }
        self.prompts.validate()?;
        self.push.validate()?;
        self.webhook.validate()?;
        self.keys.validate(&self.tokens, &self.ciba)
    }
}

/// Whether a text is 32 bytes of base64url.
fn is_key(text: &str) -> bool {
    use base64::Engine as _;
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(text);
    bytes.is_ok_and(|bytes| bytes.len() == 32)
}

/// What an issuer must be (RFC 8414 2, OpenID Connect Discovery 3).
fn issuer_problem(issuer: &str, mode: Mode) -> Option<&'static str> {
    if issuer.is_empty() {
        return Some(
            "is empty; set it, or ASSENT_SERVER__ISSUER, to the https URL that clients know this server by",
        );
    }
    let Ok(url) = url::Url::parse(issuer) else {
        return Some("is not a URL");
    };
    if url.query().is_some() || url.fragment().is_some() || !url.username().is_empty() {
        return Some("must have no query, fragment or user name");
    }
    if issuer.ends_with('/') {
        return Some("must not end with a slash");
    }
    let loopback = url.host().is_some_and(|host| match host {
        url::Host::Domain(name) => name == "localhost",
        url::Host::Ipv4(address) => IpAddr::V4(address).is_loopback(),
        url::Host::Ipv6(address) => IpAddr::V6(address).is_loopback(),
    });
    match (url.scheme(), mode) {
        ("https", _) => None,
        ("http", Mode::Dev) if loopback => None,
        ("http", Mode::Dev) => Some("may be http only on loopback"),
        _ => Some("must be https"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_issuer_is_a_plain_https_url() {
        for (issuer, mode, good) in [
            ("https://as.example", Mode::Production, true),
            ("https://as.example/tenant", Mode::Production, true),
            ("https://as.example/", Mode::Production, false),
            ("https://as.example?x", Mode::Production, false),
            ("https://as.example#x", Mode::Production, false),
            ("https://u@as.example", Mode::Production, false),
            ("http://127.0.0.1:8080", Mode::Production, false),
            ("http://127.0.0.1:8080", Mode::Dev, true),
            ("http://as.example", Mode::Dev, false),
            ("as.example", Mode::Dev, false),
        ] {
            assert_eq!(issuer_problem(issuer, mode).is_none(), good, "{issuer}");
        }
    }
}
