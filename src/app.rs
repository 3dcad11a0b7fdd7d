//! The composition root: from settings to a running server. The only file that knows all types.

use crate::clock::{Clock, SystemClock};
use crate::config::{Config, Mode};
use crate::crypto::client_keys::ClientKeySet;
use crate::crypto::{DeploymentKey, KeyRecord, KeyRing, base64url, generate_missing};
use crate::entropy::{Entropy, SystemEntropy};
use crate::http::{self, Readiness};
use crate::outbound::{Outbound, OutboundPolicy};
use crate::push::{PushRecorder, PushSender};
use crate::service::hints::HintIssuer;
use crate::service::{Parts, Policy, Services};
use crate::shutdown::{Shutdown, StopSignals};
use crate::store::JobQueue;
use crate::store::sql::jobs::{LEDGER_QUEUE, PENDING_QUEUE};
use crate::store::sql::{
    AuditEntry, AuditLog, Db, Directory, KeyTable, Ledger, SqlJobQueue, SqlPendingRequests,
    SqlReplayCache, TokenStore,
};
use crate::telemetry;
use crate::worker::{self, Worker};
use actix_web::middleware::from_fn;
use actix_web::web::Data;
use actix_web::{App, HttpServer};
use anyhow::Context as _;
use async_trait::async_trait;
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// How far a node's clock and its database's may differ before the node is not ready.
const MAX_CLOCK_DIFFERENCE: Duration = Duration::from_secs(2);
/// How long a readiness probe waits for the database.
const PROBE_TIMEOUT: Duration = Duration::from_millis(500);

/// What the world is to a server; a test brings its own.
#[derive(Clone)]
pub struct World {
    pub clock: Arc<dyn Clock>,
    pub entropy: Arc<dyn Entropy>,
    pub push: Arc<dyn PushSender>,
}

impl World {
    /// The machine's clock and randomness, and no gateway.
    pub fn real() -> Self {
        Self {
            clock: Arc::new(SystemClock),
            entropy: Arc::new(SystemEntropy),
            push: Arc::new(PushRecorder::default()),
        }
    }
}

/// The use cases on their stores, without listeners: enough for the command line.
pub struct Core {
    pub services: Arc<Services>,
    /// The pending store's jobs, and the Ledger's.
    pub queues: [Arc<dyn JobQueue>; 2],
    /// One for each queue.
    pub workers: [Worker; 2],
    pub shutdown: Shutdown,
    pub db: Db,
}

impl Core {
    /// Opens the database, which must be migrated, and its key ring.
    pub async fn open(config: &Config, world: World) -> anyhow::Result<Self> {
        let db = Db::open(&config.database.url).await?;
        let keys = Arc::new(open_key_ring(config, &db, &world).await?);
        let shutdown = Shutdown::default();
        let services = Arc::new(Services::new(Parts {
            policy: policy(config)?,
            directory: Directory::new(db.clone(), keys.clone()),
            ledger: Ledger::new(db.clone(), keys.clone()),
            tokens: TokenStore::new(db.clone(), keys.clone()),
            audit_log: AuditLog::new(db.clone()),
            key_table: KeyTable::new(db.clone()),
            pending: Arc::new(SqlPendingRequests::new(db.clone(), config.ciba.interval)),
            replays: Arc::new(SqlReplayCache::new(db.clone())),
            push: world.push,
            outbound: outbound(config)?,
            keys,
            clock: world.clock,
            entropy: world.entropy,
            draining: shutdown.draining.clone(),
        }));
        let queue = |name| -> Arc<dyn JobQueue> { Arc::new(SqlJobQueue::new(db.clone(), name)) };
        let queues = [queue(PENDING_QUEUE), queue(LEDGER_QUEUE)];
        let workers = queues
            .clone()
            .map(|queue| Worker::new(services.clone(), queue));
        Ok(Self {
            services,
            queues,
            workers,
            shutdown,
            db,
        })
    }

    /// Opens the database after bringing it to this program's schema.
    pub async fn migrate_and_open(config: &Config, world: World) -> anyhow::Result<Self> {
        Db::migrate(&config.database.url).await?;
        Self::open(config, world).await
    }
}

/// A server that listens.
pub struct Server {
    pub core: Core,
    pub public_address: SocketAddr,
    pub management_address: SocketAddr,
    drain_timeout: Duration,
}

/// Listeners that are bound but not served yet: their addresses are known before the issuer must be.
pub struct Listeners {
    public: TcpListener,
    management: TcpListener,
}

impl Listeners {
    pub fn bind(config: &Config) -> anyhow::Result<Self> {
        let bind = |key: &str, address: SocketAddr| {
            TcpListener::bind(address).with_context(|| {
                format!("cannot listen on {address}; is it in use? Set {key} to another")
            })
        };
        Ok(Self {
            public: bind("server.public_listen", config.server.public_listen)?,
            management: bind("server.management_listen", config.server.management_listen)?,
        })
    }

    pub fn public_address(&self) -> std::io::Result<SocketAddr> {
        self.public.local_addr()
    }
}

impl Server {
    /// Serves on bound listeners, without background work.
    pub fn listen(core: Core, config: &Config, listeners: Listeners) -> anyhow::Result<Self> {
        telemetry::metrics();
        let public_address = listeners.public.local_addr()?;
        let management_address = listeners.management.local_addr()?;
        let services = Data::new(core.services.clone());
        let workers = match config.server.workers {
            0 => std::thread::available_parallelism().map_or(2, usize::from),
            workers => workers,
        };
        let cancel_endpoint = config.ciba.cancel_endpoint;
        let public = HttpServer::new(move || {
            App::new()
                .app_data(services.clone())
                .wrap(from_fn(http::observe))
                .configure(|config| http::public(config, cancel_endpoint))
        })
        .workers(workers)
        // A client that hangs up has its request dropped: nothing is redeemed for nobody.
        .h1_allow_half_closed(false)
        .client_request_timeout(Duration::from_secs(5))
        .shutdown_timeout(config.server.drain_timeout.as_secs())
        .shutdown_signal(core.shutdown.draining.clone().cancelled_owned())
        .listen(listeners.public)?
        .run();
        let probe: Arc<dyn Readiness> = Arc::new(Probe {
            db: core.db.clone(),
            services: core.services.clone(),
        });
        let probe = Data::new(probe);
        let management = HttpServer::new(move || {
            App::new()
                .app_data(probe.clone())
                .configure(http::management)
        })
        .workers(1)
        .disable_signals()
        .listen(listeners.management)?
        .run();
        let management_handle = management.handle();
        core.shutdown.spawn(async move {
            if let Err(error) = public.await {
                tracing::error!(%error, "the public listener failed");
            }
            // Last: /readyz must say "draining" until the last request is done.
            management_handle.stop(true).await;
        });
        core.shutdown.spawn(async move {
            if let Err(error) = management.await {
                tracing::error!(%error, "the management listener failed");
            }
        });
        let drain_timeout = config.server.drain_timeout;
        Ok(Self {
            core,
            public_address,
            management_address,
            drain_timeout,
        })
    }

    /// Starts what runs beside the requests.
    pub fn start_background(&self) {
        let Core {
            services,
            workers,
            shutdown,
            ..
        } = &self.core;
        let stop = shutdown.draining.clone();
        for worker in workers {
            shutdown.spawn(worker.clone().run(stop.clone(), shutdown.tasks.clone()));
        }
        shutdown.spawn(worker::housekeeping(services.clone(), stop.clone()));
        shutdown.spawn(worker::follow_keys(services.clone(), stop));
    }

    /// Serves until the process is asked to stop, then drains.
    pub async fn run(self, mut signals: StopSignals) -> anyhow::Result<()> {
        self.start_background();
        tracing::info!(
            issuer = self.core.services.policy.issuer,
            public = %self.public_address,
            management = %self.management_address,
            database = self.core.db.dialect_name(),
            "serving"
        );
        signals.next().await;
        tracing::info!("draining; a second signal ends at once");
        tokio::select! {
            drained = self.stop() => drained,
            () = signals.next() => anyhow::bail!("stopped before everything was drained"),
        }
    }

    /// Drains: held polls are answered, requests in progress finish, workers end their job.
    pub async fn stop(self) -> anyhow::Result<()> {
        let Core {
            services,
            shutdown,
            db,
            ..
        } = self.core;
        shutdown.draining.cancel();
        shutdown.tasks.close();
        let deadline = SystemClock
            .now()
            .plus(self.drain_timeout + Duration::from_secs(5));
        let drained = tokio::select! {
            () = shutdown.tasks.wait() => true,
            () = SystemClock.sleep_until(deadline) => false,
        };
        // What happened since the last checkpoint is signed off, if there is still time for it.
        if let Err(error) = services.checkpoint().await {
            tracing::warn!(%error, "no checkpoint at the end; the next start makes one");
        }
        db.close().await;
        anyhow::ensure!(
            drained,
            "some work did not end in time; it will be taken up again"
        );
        tracing::info!("drained");
        Ok(())
    }
}

struct Probe {
    db: Db,
    services: Arc<Services>,
}

#[async_trait]
impl Readiness for Probe {
    async fn missing(&self) -> Option<&'static str> {
        if self.services.draining.is_cancelled() {
            return Some("draining");
        }
        let waited = SystemClock.now().plus(PROBE_TIMEOUT);
        let database = tokio::select! {
            now = self.db.now() => now,
            () = SystemClock.sleep_until(waited) => return Some("the database is slow"),
        };
        let Ok(database) = database else {
            return Some("the database is unreachable");
        };
        let now = self.services.clock.now();
        let apart = now.since(database).max(database.since(now));
        (apart > MAX_CLOCK_DIFFERENCE).then_some("the database's clock and ours differ by over 2 s")
    }

    fn metrics(&self) -> String {
        telemetry::metrics().render()
    }
}

fn policy(config: &Config) -> anyhow::Result<Policy> {
    Ok(Policy {
        issuer: config.server.issuer.clone(),
        default_expiry: config.ciba.default_expiry,
        max_expiry: config.ciba.max_expiry,
        interval: config.ciba.interval,
        open_requests_per_user: config.ciba.open_requests_per_user,
        max_long_poll: config.ciba.max_long_poll,
        held_polls_per_client: config.ciba.held_polls_per_client,
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

/// Calls to others: strict, but for loopback in dev mode.
fn outbound(config: &Config) -> anyhow::Result<Outbound> {
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
    Ok(Outbound::new(OutboundPolicy {
        allow_loopback_http: config.server.mode == Mode::Dev,
        extra_roots,
        allowed_ports: settings.allowed_ports.clone(),
        internal_networks: networks.context("outbound.internal_networks")?,
    })?)
}

/// Reads the key ring, after making the keys that a new database lacks.
async fn open_key_ring(config: &Config, db: &Db, world: &World) -> anyhow::Result<KeyRing> {
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
