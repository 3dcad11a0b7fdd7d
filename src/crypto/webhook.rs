//! Signatures of webhooks (Standard Webhooks 1.0). The crate of that name brings an HMAC of its own, and an
//! older base64, for these few lines.

use crate::domain::{Timestamp, WebhookSecret};
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// The value of `webhook-signature`: one signature by each secret.
pub fn signatures(secrets: &[WebhookSecret], id: &str, at: Timestamp, body: &str) -> String {
    let signed = format!("{id}.{}.{body}", at.secs());
    let sign = |secret: &WebhookSecret| {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose());
        let signature = hmac::sign(&key, signed.as_bytes());
        format!("v1,{}", STANDARD.encode(signature))
    };
    secrets.iter().map(sign).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example that comes with the libraries of the specification.
    #[test]
    fn a_signature_is_what_the_specification_makes() {
        let secrets = WebhookSecret::parse_all("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD");
        let signature = signatures(
            &secrets.unwrap(),
            "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk",
            Timestamp::from_secs(1_649_367_553),
            r#"{"email":"test@example.com","username":"test_user"}"#,
        );
        assert_eq!(signature, "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=");
    }
}
