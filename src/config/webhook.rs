//! The section `[webhook]`.

use super::ConfigError;
use crate::domain::WebhookSecret;
use serde::Deserialize;

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Webhook {
    /// Empty: nobody is told.
    pub url: String,
    pub secret: String,
    pub secret_file: String,
}

/// A URL may hold a token, too.
impl std::fmt::Debug for Webhook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Webhook(…)")
    }
}

impl Webhook {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        let invalid = |key, problem| Err(ConfigError::Invalid { key, problem });
        match (self.url.is_empty(), self.secret.is_empty()) {
            (true, true) => Ok(()),
            (true, false) => invalid(
                "webhook.url",
                "is empty, but there is a secret; set the endpoint that is to be told, or remove webhook.secret",
            ),
            (false, true) => invalid(
                "webhook.secret",
                "is empty; make one with: echo whsec_$(openssl rand -base64 32)",
            ),
            (false, false) if WebhookSecret::parse_all(&self.secret).is_none() => invalid(
                "webhook.secret",
                "must be one secret, or two with a space between, each whsec_ and 24 to 64 bytes in base64; \
                 make one with: echo whsec_$(openssl rand -base64 32)",
            ),
            (false, false) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::{Config, Overrides};

    const SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

    #[test]
    fn an_endpoint_and_its_secrets_go_together() {
        let two = format!("{SECRET} {SECRET}");
        let three = format!("{two} {SECRET}");
        for (url, secret, good) in [
            ("", "", true),
            ("", SECRET, false),
            ("https://siem.example/hook", "", false),
            ("https://siem.example/hook", SECRET, true),
            ("https://siem.example/hook", two.as_str(), true),
            ("https://siem.example/hook", three.as_str(), false),
            ("https://siem.example/hook", "hunter2", false),
        ] {
            let settings: Overrides = [
                ("server.mode", "dev"),
                ("server.issuer", "https://as.example"),
                ("database.url", "sqlite:///tmp/x.db"),
                ("webhook.url", url),
                ("webhook.secret", secret),
            ]
            .map(|(key, value)| (key, value.to_owned()))
            .into();
            let found = Config::of(&settings);
            assert_eq!(found.is_ok(), good, "{url} {secret}: {found:?}");
            assert!(!format!("{found:?}").contains("C2FVs"), "{found:?}");
        }
    }
}
