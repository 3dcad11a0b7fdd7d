//! From settings to what services and the HTTP client are told.

use crate::config::{self, Config, Mode};
use crate::crypto::client_keys::ClientKeySet;
use crate::domain::WebhookSecret;
use crate::outbound::{Outbound, OutboundPolicy};
use crate::service::Policy;
use crate::service::hints::HintIssuer;
use crate::service::publish_event::Webhook;
use crate::service::quiet::QuietPolicy;
use anyhow::Context as _;

pub fn policy(config: &Config) -> anyhow::Result<Policy> {
    Ok(Policy {
        issuer: config.server.issuer.clone(),
        default_expiry: config.ciba.default_expiry,
        max_expiry: config.ciba.max_expiry,
        interval: config.ciba.interval,
        open_requests_per_user: config.ciba.open_requests_per_user,
        prompt_budgets: config.prompts.budgets(),
        quiet: QuietPolicy {
            after_denial: config.prompts.pause_after_denial,
            after_fraud: config.prompts.block_after_fraud,
            lock_device: config.prompts.lock_device_after_fraud,
        },
        max_long_poll: config.ciba.max_long_poll,
        held_polls_per_client: config.ciba.held_polls_per_client,
        max_streams: config.server.max_streams,
        access_token_lifetime: config.tokens.access_token_lifetime,
        id_token_lifetime: config.tokens.id_token_lifetime,
        redelivery: config.ciba.redelivery,
        enrolment_lifetime: config.devices.enrolment_lifetime,
        confirm_devices: config.devices.confirm,
        client_cache: config.clients.cache,
        refresh_token_lifetime: config.tokens.refresh_token_lifetime,
        refresh_grace: config.tokens.refresh_grace,
        id_token_hint_lifetime: config.ciba.id_token_hint_lifetime,
        hint_issuers: hint_issuers(config)?,
        decoy_answer_after: config.ciba.decoy_answer_after,
        cancel_endpoint: config.ciba.cancel_endpoint,
    })
}

fn hint_issuers(config: &Config) -> anyhow::Result<Vec<HintIssuer>> {
    let read = |issuer: &crate::config::HintIssuer| {
        let file = &issuer.jwks_file;
        let text = std::fs::read(file)
            .with_context(|| format!("ciba.hint_issuers: cannot read {file}"))?;
        let keys = ClientKeySet::parse(&text).with_context(|| {
            format!("ciba.hint_issuers: {file} is not a JWK set of public keys")
        })?;
        Ok(HintIssuer {
            issuer: issuer.issuer.clone(),
            algorithm: issuer.algorithm,
            keys,
        })
    };
    config.ciba.hint_issuers.iter().map(read).collect()
}

/// Who is told of events, if anybody.
pub fn webhook(config: &Config, outbound: &Outbound) -> anyhow::Result<Option<Webhook>> {
    let config::Webhook { url, secret, .. } = &config.webhook;
    if url.is_empty() {
        return Ok(None);
    }
    outbound.check_url(url).context("webhook.url")?;
    Ok(Some(Webhook {
        url: url.clone(),
        secrets: WebhookSecret::parse_all(secret).context("webhook.secret")?,
    }))
}

pub fn outbound(config: &Config) -> anyhow::Result<Outbound> {
    Ok(Outbound::new(outbound_policy(config)?)?)
}

/// Calls to others: strict, but for loopback in dev mode.
pub fn outbound_policy(config: &Config) -> anyhow::Result<OutboundPolicy> {
    let settings = &config.outbound;
    let extra_roots = match settings.extra_roots_file.as_str() {
        "" => Vec::new(),
        file => {
            use rustls::pki_types::CertificateDer;
            use rustls::pki_types::pem::PemObject as _;
            let unreadable =
                || format!("outbound.extra_roots_file: cannot read certificates from {file}");
            let certificates: Result<Vec<_>, _> = CertificateDer::pem_file_iter(file)
                .with_context(unreadable)?
                .collect();
            certificates
                .with_context(unreadable)?
                .iter()
                .map(|der| der.to_vec())
                .collect()
        }
    };
    let networks: Result<Vec<_>, _> = settings
        .internal_networks
        .iter()
        .map(|network| network.parse())
        .collect();
    Ok(OutboundPolicy {
        allow_loopback_http: config.server.mode == Mode::Dev,
        extra_roots,
        allowed_ports: settings.allowed_ports.clone(),
        internal_networks: networks.context("outbound.internal_networks")?,
    })
}
