//! The section `[keys]`.

use super::{Ciba, ConfigError, Tokens};
use crate::domain::key::{KeyPolicy, MARGIN, MIN_ACTIVATION_DELAY};
use serde::Deserialize;
use std::time::Duration;

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Keys {
    pub deployment_key: String,
    pub deployment_key_file: String,
    #[serde(with = "humantime_serde")]
    pub rotate_every: Duration,
    #[serde(with = "humantime_serde")]
    pub activation_delay: Duration,
    #[serde(with = "humantime_serde")]
    pub retire_after: Duration,
    #[serde(with = "humantime_serde")]
    pub hint_retention: Duration,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keys(…)")
    }
}

impl Keys {
    pub const fn policy(&self) -> KeyPolicy {
        KeyPolicy {
            activation_delay: self.activation_delay,
            retire_after: self.retire_after,
            hint_retention: self.hint_retention,
            rotate_every: self.rotate_every,
        }
    }

    /// Whether keys are published for long enough before and after they are used.
    pub(super) fn validate(&self, tokens: &Tokens, ciba: &Ciba) -> Result<(), ConfigError> {
        let invalid = |key, problem| Err(ConfigError::Invalid { key, problem });
        if self.activation_delay < MIN_ACTIVATION_DELAY {
            return invalid(
                "keys.activation_delay",
                "must be at least 365s: clients keep the key set for 300s, nodes follow within 5s, and clocks differ",
            );
        }
        let longest_token = tokens.access_token_lifetime.max(tokens.id_token_lifetime);
        // A challenge is verified once more when its approval is redeemed, up to a minute after it ends.
        let challenge = ciba.max_expiry + Duration::from_secs(60);
        if self.retire_after < longest_token.max(challenge) + MARGIN {
            return invalid(
                "keys.retire_after",
                "must be 60s more than the longest life of a token and 120s more than ciba.max_expiry",
            );
        }
        if self.hint_retention < self.retire_after {
            return invalid("keys.hint_retention", "must be at least keys.retire_after");
        }
        let shortest = self.activation_delay + self.retire_after;
        if !self.rotate_every.is_zero() && self.rotate_every < shortest {
            return invalid(
                "keys.rotate_every",
                "must be 0s (only by hand) or at least keys.activation_delay and keys.retire_after together",
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::config::{Config, Overrides};

    #[test]
    fn keys_overlap_for_long_enough() {
        for (settings, good) in [
            (vec![], true),
            (vec![("keys.activation_delay", "364s")], false),
            (vec![("keys.activation_delay", "365s")], true),
            (vec![("keys.retire_after", "719s")], false),
            (vec![("keys.retire_after", "720s")], true),
            (
                vec![
                    ("tokens.id_token_lifetime", "1h"),
                    ("keys.retire_after", "1h"),
                ],
                false,
            ),
            (vec![("keys.hint_retention", "59m")], false),
            (vec![("keys.hint_retention", "1h")], true),
            (vec![("keys.rotate_every", "0s")], true),
            (vec![("keys.rotate_every", "69m")], false),
            (vec![("keys.rotate_every", "70m")], true),
        ] {
            let needed = [
                ("server.mode", "dev"),
                ("server.issuer", "https://as.example"),
                ("database.url", "sqlite:///tmp/x.db"),
            ];
            let all: Overrides = needed
                .iter()
                .chain(&settings)
                .map(|(key, value)| (*key, (*value).to_owned()))
                .collect();
            let found = Config::load(None, &all);
            assert_eq!(found.is_ok(), good, "{settings:?}: {:?}", found.err());
        }
    }
}
