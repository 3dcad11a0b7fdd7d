//! Settings: the embedded defaults, then a file, then the environment, then the command line.

mod keys;
mod push;

pub use keys::Keys;
pub use push::{Apns, ApnsEnvironment, Fcm, Push, WebPush};

use crate::domain::{Secret, SignatureAlgorithm};
use serde::Deserialize;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
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
    pub tokens: Tokens,
    pub devices: Devices,
    pub clients: Clients,
    pub outbound: Outbound,
    #[serde(default)]
    pub push: Push,
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
const WITH_FILE: [(&str, &str); 3] = [
    ("database.url", "database.url_file"),
    ("redis.url", "redis.url_file"),
    ("keys.deployment_key", "keys.deployment_key_file"),
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
        // In dev mode the key file is made on the first run.
        let key_file = &self.keys.deployment_key_file;
        let to_be_made = self.server.mode == Mode::Dev && !Path::new(key_file).exists();
        if !key_file.is_empty() && !to_be_made {
            self.keys.deployment_key = read("keys.deployment_key_file", key_file)?;
        }
        Ok(())
    }

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
        self.push.validate()?;
        self.keys.validate(&self.tokens, &self.ciba)
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

    #[test]
    fn what_the_settings_say_of_secrets_is_not_shown() {
        let shown = format!("{:?}", load(&[], &good()).unwrap());
        assert!(!shown.contains(KEY) && !shown.contains("x.db"), "{shown}");
    }
}
