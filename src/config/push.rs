//! The section `[push]`: how phones are woken. Secrets stand in files of their own.

use super::ConfigError;
use serde::Deserialize;
use std::collections::BTreeSet;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Push {
    #[serde(default)]
    pub apns: Vec<Apns>,
    #[serde(default)]
    pub fcm: Vec<Fcm>,
    pub web_push: Option<WebPush>,
}

/// Credentials for the phones with one app.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Apns {
    /// `None`: for devices that name no other.
    pub app_id: Option<String>,
    pub team_id: String,
    pub key_id: String,
    pub key_file: String,
    pub topic: String,
    #[serde(default)]
    pub environment: ApnsEnvironment,
    /// Instead of Apple's.
    pub base_url: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ApnsEnvironment {
    #[default]
    Production,
    Sandbox,
}

/// Credentials for the phones of one Firebase project.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fcm {
    /// `None`: for devices that name no other.
    pub app_id: Option<String>,
    pub service_account_file: String,
    /// Instead of Google's.
    pub base_url: Option<String>,
}

/// The one key that browsers subscribe for.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebPush {
    pub vapid_key_file: String,
    pub subject: String,
    #[serde(default = "push_services")]
    pub allowed_hosts: Vec<String>,
}

/// Those of the browsers there are.
fn push_services() -> Vec<String> {
    [
        "fcm.googleapis.com",
        "updates.push.services.mozilla.com",
        "*.push.apple.com",
        "*.notify.windows.com",
    ]
    .map(str::to_owned)
    .into()
}

impl Push {
    /// Whether each device has at most one set of credentials.
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        one_each("push.apns", self.apns.iter().map(|set| &set.app_id))?;
        let subject = self.web_push.as_ref().map(|set| set.subject.as_str());
        if subject.is_some_and(|it| !it.starts_with("mailto:") && !it.starts_with("https://")) {
            return Err(ConfigError::Invalid {
                key: "push.web_push.subject",
                problem: "must be a mailto: or https: URL (RFC 8292 2.1)",
            });
        }
        one_each("push.fcm", self.fcm.iter().map(|set| &set.app_id))
    }
}

fn one_each<'a>(
    key: &'static str,
    app_ids: impl Iterator<Item = &'a Option<String>>,
) -> Result<(), ConfigError> {
    let mut seen = BTreeSet::new();
    for app_id in app_ids {
        if !seen.insert(app_id) {
            let problem = "has two sets of credentials for one app_id, or two without any";
            return Err(ConfigError::Invalid { key, problem });
        }
    }
    Ok(())
}
