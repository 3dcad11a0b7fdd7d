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

impl Push {
    /// Whether each device has at most one set of credentials.
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        one_each("push.apns", self.apns.iter().map(|set| &set.app_id))?;
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
