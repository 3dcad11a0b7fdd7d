//! The secrets that webhooks are signed with (Standard Webhooks 1.0).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::fmt;
use zeroize::Zeroizing;

/// One secret: `whsec_` and 24 to 64 bytes in base64.
#[derive(Clone)]
pub struct WebhookSecret(Zeroizing<Vec<u8>>);

impl WebhookSecret {
    /// Reads one secret, or two of which one is being replaced by the other; `None` for anything else.
    pub fn parse_all(text: &str) -> Option<Vec<Self>> {
        let secrets: Vec<Self> = text
            .split_whitespace()
            .map(Self::parse)
            .collect::<Option<_>>()?;
        (1..=2).contains(&secrets.len()).then_some(secrets)
    }

    fn parse(text: &str) -> Option<Self> {
        let key = Zeroizing::new(STANDARD.decode(text.strip_prefix("whsec_")?).ok()?);
        (24..=64).contains(&key.len()).then_some(Self(key))
    }

    /// The key itself, for the one place that signs.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for WebhookSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WebhookSecret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_secret_or_two_of_the_right_length() {
        let secret = |bytes: usize| format!("whsec_{}", STANDARD.encode(vec![7; bytes]));
        let count = |text: &str| WebhookSecret::parse_all(text).map(|secrets| secrets.len());
        for (bytes, good) in [(23, false), (24, true), (64, true), (65, false)] {
            assert_eq!(count(&secret(bytes)).is_some(), good, "{bytes}");
        }
        let two = format!("{}\n {}\n", secret(24), secret(32));
        assert_eq!(count(&two), Some(2));
        for text in [
            String::new(),
            two + &secret(24),
            secret(24).replace("whsec_", ""),
            secret(24).replace("whsec_", "whsec_!"),
            secret(24) + " x",
        ] {
            assert_eq!(count(&text), None, "{text}");
        }
        let shown = format!("{:?}", WebhookSecret::parse_all(&secret(24)));
        assert_eq!(shown, "Some([WebhookSecret(…)])");
    }
}
