//! The server under load, as a process of its own: so its cost stands apart from the generator's.

use crate::redis_server::RedisServer;
use crate::stopwatch::{Stopwatch, pause};
use anyhow::Context as _;
use assent::app::World;
use assent::config::{Config, Overrides};
use assent::phone::http::HttpClient;
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{File, OpenOptions};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// How often a starting server is asked whether it is ready: the resolution of the start-up time.
const ASK_EVERY: Duration = Duration::from_millis(1);
const START_WITHIN: Duration = Duration::from_secs(30);
/// More than the server's own time-out for draining.
const STOP_WITHIN: Duration = Duration::from_secs(40);

/// Where a server listens and what it works on. Other settings are the defaults, or come from the
/// environment as always.
#[derive(Clone)]
pub struct Settings {
    pub issuer: String,
    /// Where this node is reached.
    pub address: String,
    readiness: String,
    log: PathBuf,
    overrides: Overrides,
}

impl Settings {
    pub fn new(folder: &Path, database_url: &str) -> anyhow::Result<Self> {
        let (public, management) = (free_port()?, free_port()?);
        let issuer = format!("http://127.0.0.1:{public}");
        Ok(Self {
            readiness: format!("http://127.0.0.1:{management}/readyz"),
            log: folder.join("server.log"),
            overrides: vec![
                ("server.mode", "dev".into()),
                ("server.issuer", issuer.clone()),
                ("server.public_listen", format!("127.0.0.1:{public}")),
                (
                    "server.management_listen",
                    format!("127.0.0.1:{management}"),
                ),
                ("database.url", database_url.into()),
                (
                    "keys.deployment_key_file",
                    folder.join("deployment.key").display().to_string(),
                ),
                // The load is more than any person would bear.
                ("ciba.open_requests_per_user", "1000000".into()),
                ("ciba.held_polls_per_client", "1000".into()),
                ("prompts.per_five_minutes", "1000".into()),
                ("prompts.per_hour", "1000".into()),
                ("prompts.per_day", "1000".into()),
            ],
            address: issuer.clone(),
            issuer,
        })
    }

    /// With Redis as the fast path.
    pub fn with_redis(mut self, redis: &RedisServer) -> Self {
        self.overrides.extend([
            ("redis.url", redis.url.clone()),
            ("redis.prefix", redis.prefix.clone()),
        ]);
        self
    }

    /// The same for another node of the same issuer.
    pub fn another_node(&self, folder: &Path) -> anyhow::Result<Self> {
        let (public, management) = (free_port()?, free_port()?);
        let mut node = Self {
            address: format!("http://127.0.0.1:{public}"),
            readiness: format!("http://127.0.0.1:{management}/readyz"),
            log: folder.join("another.log"),
            ..self.clone()
        };
        for (key, value) in &mut node.overrides {
            match *key {
                "server.public_listen" => *value = format!("127.0.0.1:{public}"),
                "server.management_listen" => *value = format!("127.0.0.1:{management}"),
                _ => {}
            }
        }
        Ok(node)
    }

    pub fn config(&self) -> anyhow::Result<Config> {
        Ok(Config::load(None, &self.overrides)?)
    }

    /// The same for another process: `ASSENT_SECTION__KEY`.
    fn environment(&self) -> impl Iterator<Item = (String, &str)> {
        self.overrides.iter().map(|(key, value)| {
            let name = format!("ASSENT_{}", key.replace('.', "__").to_uppercase());
            (name, value.as_str())
        })
    }

    /// What the server said last.
    fn last_words(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(5)..].join("\n")
    }
}

/// A running server. Dropped, it is killed.
pub struct Server<'a> {
    child: Child,
    settings: &'a Settings,
}

impl<'a> Server<'a> {
    /// Starts the program; returns it with the time from there to the first 200 of `/readyz`.
    pub async fn start(program: &Path, settings: &'a Settings) -> anyhow::Result<(Self, Duration)> {
        let log = open_log(&settings.log)?;
        let http = HttpClient::new();
        let began = Stopwatch::start();
        let child = Command::new(program)
            .arg("serve")
            .envs(settings.environment())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot run {}", program.display()))?;
        let mut server = Self { child, settings };
        loop {
            let answer = http.get(&settings.readiness, &[]).await;
            if answer.is_ok_and(|answer| answer.status == 200) {
                return Ok((server, began.elapsed()));
            }
            if let Some(status) = server.child.try_wait()? {
                anyhow::bail!("the server ended ({status}):\n{}", settings.last_words());
            }
            anyhow::ensure!(
                began.elapsed() < START_WITHIN,
                "the server is not ready after {START_WITHIN:?}:\n{}",
                settings.last_words()
            );
            pause(ASK_EVERY).await;
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Asks the server to stop, and waits until it has.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        kill_process(Pid::from_child(&self.child), Signal::TERM)?;
        let began = Stopwatch::start();
        while began.elapsed() < STOP_WITHIN {
            if let Some(status) = self.child.try_wait()? {
                let said = self.settings.last_words();
                anyhow::ensure!(status.success(), "the server ended ({status}):\n{said}");
                return Ok(());
            }
            pause(Duration::from_millis(10)).await;
        }
        anyhow::bail!("the server did not stop within {STOP_WITHIN:?} and is killed")
    }
}

impl Drop for Server<'_> {
    fn drop(&mut self) {
        // Both fail only when it has ended and been waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn open_log(path: &Path) -> anyhow::Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .with_context(|| format!("cannot write {}", path.display()))
}

/// A port below those that the kernel gives to outgoing connections: so nobody takes it while the
/// server starts.
fn free_port() -> anyhow::Result<u16> {
    for _ in 0..100 {
        let random = u16::from_be_bytes(World::real().entropy.bytes());
        let port = 20_000 + random % 12_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    anyhow::bail!("no port from 20000 to 31999 is free")
}
