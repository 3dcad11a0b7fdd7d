//! The composition root: from settings to a running server. The only place that knows all types.

mod fast_path;
mod gateways;
mod key_ring;
mod readiness;
mod settings;

use crate::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::entropy::{Entropy, SystemEntropy};
use crate::http::{self, Admission, Readiness};
use crate::push::{PushRecorder, PushSender};
use crate::service::{Parts, Services};
use crate::shutdown::{Shutdown, StopSignals};
use crate::store::JobQueue;
use crate::store::redis::Redis;
use crate::store::sql::jobs::LEDGER_QUEUE;
use crate::store::sql::{AuditLog, Db, Directory, KeyTable, Ledger, SqlJobQueue, TokenStore};
use crate::telemetry;
use crate::worker::{self, Worker};
use actix_web::middleware::from_fn;
use actix_web::web::Data;
use actix_web::{App, HttpServer};
use anyhow::Context as _;
use fast_path::FastPath;
use readiness::Probe;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

/// What the world is to a server; a test brings its own.
#[derive(Clone)]
pub struct World {
    pub clock: Arc<dyn Clock>,
    pub entropy: Arc<dyn Entropy>,
    /// What wakes phones when the settings name no gateway.
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

/// The push gateways of these settings, each by name.
///
/// # Errors
/// Says what is wrong with the first that cannot be opened.
pub fn push_gateways(config: &Config) -> anyhow::Result<Vec<String>> {
    gateways::names(config)
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
    /// `None`: all is in the database.
    pub redis: Option<Redis>,
}

impl Core {
    /// Opens the database, which must be migrated, and its key ring.
    pub async fn open(config: &Config, world: World) -> anyhow::Result<Self> {
        let db = Db::open(&config.database.url).await?;
        let keys = Arc::new(key_ring::open(config, &db, &world).await?);
        let shutdown = Shutdown::default();
        let push: Arc<dyn PushSender> = match gateways::open(config)? {
            Some(router) => Arc::new(router),
            None => world.push,
        };
        let fast_path = FastPath::open(config, &db, &*world.entropy)?;
        if let Some(redis) = fast_path.redis.clone() {
            let clock = world.clock.clone();
            let stop = shutdown.draining.clone();
            shutdown.spawn(redis.run(move || clock.now(), stop));
        }
        let outbound = settings::outbound(config)?;
        let services = Arc::new(Services::new(Parts {
            policy: settings::policy(config)?,
            directory: Directory::new(db.clone(), keys.clone()),
            ledger: Ledger::new(db.clone(), keys.clone()),
            tokens: TokenStore::new(db.clone(), keys.clone()),
            audit_log: AuditLog::new(db.clone()),
            key_table: KeyTable::new(db.clone()),
            pending: fast_path.pending,
            deliveries: fast_path.deliveries,
            replays: fast_path.replays,
            push,
            webhook: settings::webhook(config, &outbound)?,
            outbound,
            keys,
            clock: world.clock,
            entropy: world.entropy,
            draining: shutdown.draining.clone(),
        }));
        let ledger_jobs = Arc::new(SqlJobQueue::new(db.clone(), LEDGER_QUEUE));
        let queues: [Arc<dyn JobQueue>; 2] = [fast_path.jobs, ledger_jobs];
        let [pending, ledger] = queues.clone();
        let workers = [
            Worker::new(
                services.clone(),
                pending,
                services.pending_jobs_ready.clone(),
            ),
            Worker::new(services.clone(), ledger, services.ledger_jobs_ready.clone()),
        ];
        Ok(Self {
            services,
            queues,
            workers,
            shutdown,
            db,
            redis: fast_path.redis,
        })
    }

    /// Whether the servers are fit for what they are to keep. Opening does not ask: an operator's command
    /// must work while Redis does not.
    ///
    /// # Errors
    /// Says what to change.
    pub async fn check(&self) -> anyhow::Result<()> {
        if let Some(redis) = &self.redis {
            redis.check(|| self.services.clock.now()).await?;
        }
        Ok(())
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
        let admission = Data::new(Admission::new(config.server.max_in_progress));
        let public = HttpServer::new(move || {
            App::new()
                .app_data(services.clone())
                .app_data(admission.clone())
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
            redis: core.redis.clone(),
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
