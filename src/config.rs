//! Settings: the embedded defaults, then a file, then the environment, then the command line.

mod keys;
mod prompts;
mod push;
mod validate;
mod webhook;

pub use keys::Keys;
pub use prompts::Prompts;
pub use push::{Apns, ApnsEnvironment, Fcm, Push, WebPush};
pub use webhook::Webhook;

use crate::domain::{Secret, SignatureAlgorithm};
use serde::Deserialize;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The documentation of every setting, and its default.
pub const DEFAULTS: &str = include_str!("../config/default.toml");

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub server: Server,
    pub database: Database,
    pub redis: Redis,
    pub keys: Keys,
    pub ciba: Ciba,
    pub prompts: Prompts,
    pub tokens: Tokens,
    pub devices: Devices,
    pub clients: Clients,
    pub outbound: Outbound,
    #[serde(default)]
    pub push: Push,
    pub webhook: Webhook,
    pub log: Log,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    Production,
    Dev,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Server {
    pub mode: Mode,
    pub issuer: String,
    pub public_listen: SocketAddr,
    pub management_listen: SocketAddr,
    pub workers: usize,
    pub max_in_progress: usize,
    pub max_streams: usize,
    #[serde(with = "humantime_serde")]
    pub drain_timeout: Duration,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Database {
    pub url: String,
    pub url_file: String,
}

/// A database URL may hold a password.
impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Database(…)")
    }
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Redis {
    /// Empty: pending requests live in the database.
    pub url: String,
    pub url_file: String,
    pub prefix: String,
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
    pub root_file: String,
}

/// A Redis URL may hold a password.
impl std::fmt::Debug for Redis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Redis(…)")
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ciba {
    #[serde(with = "humantime_serde")]
    pub default_expiry: Duration,
    #[serde(with = "humantime_serde")]
    pub max_expiry: Duration,
    #[serde(with = "humantime_serde")]
    pub interval: Duration,
    pub open_requests_per_user: u32,
    #[serde(with = "humantime_serde")]
    pub max_long_poll: Duration,
    pub held_polls_per_client: u32,
    #[serde(with = "humantime_serde")]
    pub redelivery: Duration,
    #[serde(with = "humantime_serde")]
    pub decoy_answer_after: Duration,
    pub cancel_endpoint: bool,
    #[serde(with = "humantime_serde")]
    pub id_token_hint_lifetime: Duration,
    #[serde(default)]
    pub hint_issuers: Vec<HintIssuer>,
}

/// Somebody whose `login_hint_token`s are believed.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HintIssuer {
    pub issuer: String,
    pub jwks_file: String,
    /// How it signs.
    #[serde(default = "es256")]
    pub algorithm: SignatureAlgorithm,
}

const fn es256() -> SignatureAlgorithm {
    SignatureAlgorithm::Es256
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outbound {
    pub extra_roots_file: String,
    pub allowed_ports: Vec<u16>,
    pub internal_networks: Vec<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tokens {
    #[serde(with = "humantime_serde")]
    pub access_token_lifetime: Duration,
    #[serde(with = "humantime_serde")]
    pub id_token_lifetime: Duration,
    #[serde(with = "humantime_serde")]
    pub refresh_token_lifetime: Duration,
    #[serde(with = "humantime_serde")]
    pub refresh_grace: Duration,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Devices {
    #[serde(with = "humantime_serde")]
    pub enrolment_lifetime: Duration,
    pub confirm: bool,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Clients {
    #[serde(with = "humantime_serde")]
    pub cache: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    Human,
    Json,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    pub format: LogFormat,
    pub filter: String,
}

/// What is wrong with the settings, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{0}\nRun `assent config defaults` to see every setting and what it means.")]
    Read(String),
    #[error("{key}: {problem}")]
    Invalid {
        key: &'static str,
        problem: &'static str,
    },
    #[error("{key} names {path}, which cannot be read: {cause}")]
    File {
        key: &'static str,
        path: String,
        cause: std::io::Error,
    },
}

impl From<config::ConfigError> for ConfigError {
    fn from(error: config::ConfigError) -> Self {
        Self::Read(error.to_string())
    }
}

/// Settings that can also stand in a file of their own. Within one layer the file wins; a later layer
/// that names either replaces both.
const WITH_FILE: [(&str, &str); 4] = [
    ("database.url", "database.url_file"),
    ("redis.url", "redis.url_file"),
    ("keys.deployment_key", "keys.deployment_key_file"),
    ("webhook.secret", "webhook.secret_file"),
];

/// Settings from the command line, as dotted keys.
pub type Overrides = Vec<(&'static str, String)>;

impl Config {
    /// Reads and checks all layers.
    ///
    /// # Errors
    /// [`ConfigError`] names the key and what to do about it.
    pub fn load(file: Option<&Path>, overrides: &Overrides) -> Result<Self, ConfigError> {
        Self::layered(file, environment(), overrides)
    }

    /// The defaults and what is given here: for a server that must not touch anybody's settings.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn of(overrides: &Overrides) -> Result<Self, ConfigError> {
        Self::layered(None, HashMap::new(), overrides)
    }

    fn layered(
        file: Option<&Path>,
        environment: HashMap<String, String>,
        overrides: &Overrides,
    ) -> Result<Self, ConfigError> {
        let mut layers = config::Config::builder()
            .add_source(config::File::from_str(DEFAULTS, config::FileFormat::Toml));
        if let Some(file) = file {
            layers = layers.add_source(config::File::from(file).format(config::FileFormat::Toml));
        }
        for replaced in replaced_by(&environment, overrides) {
            layers = layers.set_override(replaced, "")?;
        }
        layers = layers.add_source(
            config::Environment::with_prefix("ASSENT")
                .prefix_separator("_")
                .separator("__")
                .try_parsing(true)
                .source(Some(environment)),
        );
        for (key, value) in overrides {
            layers = layers.set_override(*key, value.as_str())?;
        }
        let mut config: Self = layers.build()?.try_deserialize()?;
        config.read_files()?;
        config.validate()?;
        Ok(config)
    }

    fn read_files(&mut self) -> Result<(), ConfigError> {
        if !self.database.url_file.is_empty() {
            self.database.url = read("database.url_file", &self.database.url_file)?;
        }
        if !self.redis.url_file.is_empty() {
            self.redis.url = read("redis.url_file", &self.redis.url_file)?;
        }
        if !self.webhook.secret_file.is_empty() {
            self.webhook.secret = read("webhook.secret_file", &self.webhook.secret_file)?;
        }
        // In dev mode the key file is made on the first run.
        let key_file = &self.keys.deployment_key_file;
        let to_be_made = self.server.mode == Mode::Dev && !Path::new(key_file).exists();
        if !key_file.is_empty() && !to_be_made {
            self.keys.deployment_key = read("keys.deployment_key_file", key_file)?;
        }
        Ok(())
    }

    /// The deployment key as configured; `None` when dev mode shall make one.
    pub fn deployment_key(&self) -> Option<Secret> {
        let key = &self.keys.deployment_key;
        (!key.is_empty()).then(|| Secret::new(key.clone()))
    }

    /// Where dev mode keeps the key it makes.
    pub fn dev_key_file(&self) -> PathBuf {
        if self.keys.deployment_key_file.is_empty() {
            PathBuf::from("assent-data/deployment.key")
        } else {
            PathBuf::from(&self.keys.deployment_key_file)
        }
    }
}

/// The keys that are replaced because their counterpart stands in a later layer.
fn replaced_by(environment: &HashMap<String, String>, overrides: &Overrides) -> Vec<&'static str> {
    let variable = |key: &str| format!("ASSENT_{}", key.replace('.', "__").to_uppercase());
    let in_environment = |key: &str| environment.contains_key(&variable(key));
    let on_command_line = |key: &str| overrides.iter().any(|(name, _)| *name == key);
    let mut replaced = Vec::new();
    for (key, file) in WITH_FILE {
        let latest = [&on_command_line as &dyn Fn(&str) -> bool, &in_environment]
            .map(|layer| (layer(key), layer(file)))
            .into_iter()
            .find(|named| *named != (false, false));
        match latest {
            Some((true, false)) => replaced.push(file),
            Some((false, true)) => replaced.push(key),
            _ => {}
        }
    }
    replaced
}

/// The variables that name a setting: those with a section. Others are not ours to judge.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place that reads the environment"
)]
fn environment() -> HashMap<String, String> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| name.starts_with("ASSENT_") && name.contains("__"))
        .collect()
}

fn read(key: &'static str, path: &str) -> Result<String, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|cause| ConfigError::File {
        key,
        path: path.to_owned(),
        cause,
    })?;
    Ok(text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

    fn good() -> Overrides {
        vec![
            ("server.issuer", "https://as.example".into()),
            ("database.url", "sqlite:///tmp/x.db".into()),
            ("keys.deployment_key", KEY.into()),
        ]
    }

    fn load(environment: &[(&str, &str)], overrides: &Overrides) -> Result<Config, ConfigError> {
        let environment = environment
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        Config::layered(None, environment, overrides)
    }

    #[test]
    fn the_defaults_are_complete_but_for_what_an_operator_must_say() {
        assert!(load(&[], &good()).is_ok());
        for missing in 0..3 {
            let mut overrides = good();
            overrides.remove(missing);
            assert!(load(&[], &overrides).is_err(), "{missing}");
        }
    }

    #[test]
    fn later_layers_win_and_unknown_keys_are_errors() {
        let interval = |env: &[(&str, &str)], more: Overrides| {
            load(env, &[good(), more].concat()).map(|config| config.ciba.interval.as_secs())
        };
        assert_eq!(interval(&[], vec![]).unwrap(), 5);
        assert_eq!(
            interval(&[("ASSENT_CIBA__INTERVAL", "7s")], vec![]).unwrap(),
            7
        );
        let flag = vec![("ciba.interval", "9s".to_owned())];
        assert_eq!(
            interval(&[("ASSENT_CIBA__INTERVAL", "7s")], flag).unwrap(),
            9
        );
        assert!(interval(&[("ASSENT_CIBA__INTERVALL", "7s")], vec![]).is_err());
        assert!(interval(&[("ASSENT_CIBA__INTERVAL", "7")], vec![]).is_err());
        let workers = load(&[("ASSENT_SERVER__WORKERS", "3")], &good())
            .unwrap()
            .server
            .workers;
        assert_eq!(workers, 3);
    }

    #[test]
    fn a_later_layer_replaces_a_setting_and_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("url");
        std::fs::write(&file, "sqlite:///from-file.db\n").unwrap();
        let file = file.display().to_string();
        let url = |env: &[(&str, &str)], overrides: &Overrides| {
            load(env, overrides).unwrap().database.url
        };
        assert_eq!(
            url(&[("ASSENT_DATABASE__URL_FILE", &file)], &good()),
            "sqlite:///tmp/x.db"
        );
        let mut overrides = good();
        overrides[1] = ("database.url_file", file.clone());
        assert_eq!(
            url(&[("ASSENT_DATABASE__URL", "sqlite:///env.db")], &overrides),
            "sqlite:///from-file.db"
        );
        overrides.remove(1);
        assert_eq!(
            url(&[("ASSENT_DATABASE__URL_FILE", &file)], &overrides),
            "sqlite:///from-file.db"
        );
    }

    #[test]
    fn what_the_settings_say_of_secrets_is_not_shown() {
        let shown = format!("{:?}", load(&[], &good()).unwrap());
        assert!(!shown.contains(KEY) && !shown.contains("x.db"), "{shown}");
    }
}
