//! The push gateways that the settings name.

use super::settings;
use crate::config::{self, ApnsEnvironment, Config};
use crate::crypto::jose::SigningKey;
use crate::domain::{AppId, Secret, SignatureAlgorithm};
use crate::outbound::Outbound;
use crate::push::apns::{ApnsSettings, PRODUCTION, SANDBOX};
use crate::push::fcm::{GOOGLES, ServiceAccount};
use crate::push::web_push::WebPushSettings;
use crate::push::{Apns, Fcm, PushRouter, WebPush};
use anyhow::Context as _;

/// `None`: the settings name none.
pub fn open(config: &Config) -> anyhow::Result<Option<PushRouter>> {
    let mut router = PushRouter::default();
    if !config.push.apns.is_empty() {
        let outbound = Outbound::over_http2(settings::outbound_policy(config)?)?;
        for set in &config.push.apns {
            let apns = apns(set, &outbound).context("push.apns")?;
            router.apns.add(app_id("push.apns", &set.app_id)?, apns);
        }
    }
    if !config.push.fcm.is_empty() {
        let outbound = settings::outbound(config)?;
        for set in &config.push.fcm {
            let fcm = fcm(set, &outbound).context("push.fcm")?;
            router.fcm.add(app_id("push.fcm", &set.app_id)?, fcm);
        }
    }
    if let Some(set) = &config.push.web_push {
        router.web_push = Some(web_push(set, config).context("push.web_push")?);
    }
    Ok((!router.is_empty()).then_some(router))
}

/// The gateways by name, after opening all of them.
pub fn names(config: &Config) -> anyhow::Result<Vec<String>> {
    let router = open(config)?;
    let apns = config.push.apns.iter();
    let apns = apns.map(|set| format!("APNs ({})", set.topic));
    let fcm = config.push.fcm.iter();
    let fcm = fcm.map(|set| format!("FCM ({})", set.service_account_file));
    let web_push = router.and_then(|router| router.web_push);
    let web_push = web_push.map(|it| format!("Web Push (public key {})", it.public_key()));
    Ok(apns.chain(fcm).chain(web_push).collect())
}

fn apns(set: &config::Apns, outbound: &Outbound) -> anyhow::Result<Apns> {
    let pem = read("key_file", &set.key_file)?;
    let key = SigningKey::from_pem(&pem, &set.key_id, SignatureAlgorithm::Es256)
        .with_context(|| format!("{} is not a P-256 key as Apple hands it out", set.key_file))?;
    let apples = match set.environment {
        ApnsEnvironment::Production => PRODUCTION,
        ApnsEnvironment::Sandbox => SANDBOX,
    };
    let settings = ApnsSettings {
        base_url: base_url(set.base_url.as_deref(), apples, outbound)?,
        team_id: set.team_id.clone(),
        key,
        topic: set.topic.clone(),
    };
    Ok(Apns::new(settings, outbound.clone()))
}

fn fcm(set: &config::Fcm, outbound: &Outbound) -> anyhow::Result<Fcm> {
    let file = &set.service_account_file;
    let text = Secret::new(read("service_account_file", file)?);
    let account = ServiceAccount::parse(text.expose()).with_context(|| file.clone())?;
    let token_uri = outbound.check_url(&account.token_uri);
    token_uri.with_context(|| format!("token_uri in {file}"))?;
    let base_url = base_url(set.base_url.as_deref(), GOOGLES, outbound)?;
    Ok(Fcm::new(account, &base_url, outbound.clone()))
}

fn web_push(set: &config::WebPush, config: &Config) -> anyhow::Result<WebPush> {
    let file = &set.vapid_key_file;
    let pem = Secret::new(read("vapid_key_file", file)?);
    let key = SigningKey::from_pem(pem.expose(), "vapid", SignatureAlgorithm::Es256);
    let not_a_key = || format!("{file} is not a P-256 key in PEM (PKCS #8)");
    let settings = WebPushSettings {
        key: key.with_context(not_a_key)?,
        subject: set.subject.clone(),
        allowed_hosts: set.allowed_hosts.clone(),
    };
    WebPush::new(settings, settings::outbound(config)?).with_context(not_a_key)
}

fn app_id(key: &str, app_id: &Option<String>) -> anyhow::Result<Option<AppId>> {
    let parse = |text: &String| {
        AppId::parse(text)
            .with_context(|| format!("{key}: app_id must have 1 to 255 visible ASCII characters"))
    };
    app_id.as_ref().map(parse).transpose()
}

/// Where a gateway is, without a slash at the end.
fn base_url(set: Option<&str>, default: &str, outbound: &Outbound) -> anyhow::Result<String> {
    let url = set.unwrap_or(default).trim_end_matches('/');
    outbound.check_url(url).context("base_url")?;
    Ok(url.to_owned())
}

fn read(key: &str, file: &str) -> anyhow::Result<String> {
    std::fs::read_to_string(file).with_context(|| format!("{key}: cannot read {file}"))
}
