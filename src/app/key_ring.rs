//! Opens the key ring, and makes what a new house lacks.

use super::World;
use crate::config::{Config, Mode};
use crate::crypto::{DeploymentKey, KeyRecord, KeyRing, base64url, generate_missing};
use crate::entropy::Entropy;
use crate::store::sql::{AuditEntry, Db, KeyTable};
use anyhow::Context as _;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// Reads the key ring, after making the keys that a new database lacks.
pub async fn open(config: &Config, db: &Db, world: &World) -> anyhow::Result<KeyRing> {
    let table = KeyTable::new(db.clone());
    let stored = table.all().await?;
    let deployment = || deployment_key(config, &*world.entropy, stored.is_empty());
    let open = |records: &[KeyRecord], now| -> anyhow::Result<KeyRing> {
        KeyRing::open(records, deployment()?, config.keys.policy(), now)
            .context("the key ring does not open; check keys.deployment_key")
    };
    let now = world.clock.now();
    let new = generate_missing(&stored, &deployment()?, &*world.entropy, now);
    if !new.is_empty() {
        let names: Vec<String> = new
            .iter()
            .map(|key| format!("{} v{}", key.purpose, key.version))
            .collect();
        let entry = AuditEntry {
            kind: "keys.generated",
            at: now,
            payload: serde_json::json!({ "keys": names }),
            salt: world.entropy.bytes(),
        };
        // Nothing is written unless all of them open together: a new key under a wrong deployment key
        // would lock out the right one.
        open(&[stored.clone(), new.clone()].concat(), now)?;
        table.insert_first(&new, entry).await?;
    }
    open(&table.all().await?, now)
}

fn deployment_key(
    config: &Config,
    entropy: &dyn Entropy,
    new_database: bool,
) -> anyhow::Result<DeploymentKey> {
    let text = match config.deployment_key() {
        Some(key) => key.expose().to_owned(),
        None => {
            anyhow::ensure!(
                config.server.mode == Mode::Dev,
                "production needs keys.deployment_key"
            );
            dev_deployment_key(&config.dev_key_file(), entropy, new_database)?
        }
    };
    DeploymentKey::parse(&text).context(
        "keys.deployment_key is not 32 bytes of base64url; see config/default.toml for how to make one",
    )
}

/// Reads the key that dev mode made, or makes it.
fn dev_deployment_key(
    path: &Path,
    entropy: &dyn Entropy,
    new_database: bool,
) -> anyhow::Result<String> {
    if let Ok(text) = std::fs::read_to_string(path) {
        return Ok(text.trim().to_owned());
    }
    anyhow::ensure!(
        new_database,
        "there is no deployment key at {}, but the database has been set up with one: \
         set keys.deployment_key_file to where it is",
        path.display()
    );
    let key = base64url(&entropy.bytes::<32>());
    let write = || -> std::io::Result<()> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        file.write_all(key.as_bytes())
    };
    write().with_context(|| format!("cannot write a deployment key to {}", path.display()))?;
    tracing::warn!(
        file = %path.display(),
        "DEV MODE: made a deployment key beside the data; production keeps it elsewhere"
    );
    Ok(key)
}
