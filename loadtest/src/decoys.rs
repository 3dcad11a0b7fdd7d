//! Whether a client in decoy mode can tell by the clock who is known: pairs of requests for somebody and
//! for nobody, one after the other on one connection, in an order that changes.

use crate::cast::Cast;
use crate::database::Database;
use crate::load::Outcome;
use crate::operations::RelyingParty;
use crate::redis_server::RedisServer;
use crate::server::{Server, Settings};
use crate::stopwatch::{Stopwatch, pause};
use assent::domain::client::UnknownUser;
use serde::Serialize;
use std::fmt;
use std::path::Path;
use std::time::Duration;

/// Before each request, so that what the server still does for the last one is not in its time.
const BREATH: Duration = Duration::from_millis(10);
/// Pairs before the measurement: connections, plans and caches.
const WARM_UP: usize = 50;

/// What a client in decoy mode sees of the time that its requests take.
#[derive(Debug, Serialize)]
pub struct Decoys {
    pub database: &'static str,
    pub with_redis: bool,
    pub pairs: usize,
    pub failed: usize,
    pub failures: Vec<String>,
    pub asked: Compared,
    pub polled: Compared,
}

/// Requests for somebody next to requests for nobody.
#[derive(Debug, Serialize)]
pub struct Compared {
    pub somebody: Spread,
    pub nobody: Spread,
    /// In how many pairs the nobody took longer: half, if time tells nothing.
    pub nobody_slower_percent: f64,
    pub standard_error_percent: f64,
}

#[derive(Debug, Serialize)]
pub struct Spread {
    pub p10_ms: f64,
    pub p50_ms: f64,
    pub p90_ms: f64,
    pub p99_ms: f64,
}

pub async fn decoys(
    program: &Path,
    folder: &Path,
    database: &Database,
    redis: Option<&RedisServer>,
    people: usize,
    pairs: usize,
) -> anyhow::Result<Decoys> {
    let settings = Settings::new(folder, &database.url)?;
    let settings = match redis {
        Some(redis) => settings.with_redis(redis),
        None => settings,
    };
    let mut cast = Cast::seed_for(&settings, people, UnknownUser::Decoy).await?;
    let (server, _) = Server::start(program, &settings).await?;
    let known = cast.enrol().await?;
    let logins: Vec<[String; 2]> = known
        .iter()
        .enumerate()
        .map(|(number, (login, _))| [login.clone(), format!("nobody-{number}")])
        .collect();
    let (mut asked, mut polled) = (Pairs::default(), Pairs::default());
    let mut failures = Vec::new();
    for number in 0..WARM_UP + pairs {
        match pair(&cast.rp, &logins[number % logins.len()], number % 2 == 1).await {
            Ok((ask, poll)) if number >= WARM_UP => {
                asked.add(ask);
                polled.add(poll);
            }
            Ok(_) => {}
            Err(error) => failures.push(format!("{error:#}")),
        }
    }
    server.stop().await?;
    let failed = failures.len();
    failures.truncate(3);
    Ok(Decoys {
        database: database.name,
        with_redis: redis.is_some(),
        pairs: asked.count,
        failed,
        failures,
        asked: asked.compared(),
        polled: polled.compared(),
    })
}

/// How long it took to ask for somebody and for nobody, and to poll for each.
async fn pair(
    rp: &RelyingParty,
    logins: &[String; 2],
    nobody_first: bool,
) -> anyhow::Result<([Duration; 2], [Duration; 2])> {
    let order = if nobody_first { [1, 0] } else { [0, 1] };
    let (mut asked, mut polled) = ([Duration::ZERO; 2], [Duration::ZERO; 2]);
    let mut ids = [String::new(), String::new()];
    for who in order {
        pause(BREATH).await;
        let watch = Stopwatch::start();
        ids[who] = rp.ask(&logins[who], &[]).await?;
        asked[who] = watch.elapsed();
    }
    for who in order {
        pause(BREATH).await;
        let watch = Stopwatch::start();
        rp.finds_pending(&ids[who]).await?;
        polled[who] = watch.elapsed();
    }
    Ok((asked, polled))
}

#[derive(Default)]
struct Pairs {
    count: usize,
    /// In how many the nobody took longer.
    nobody_slower: usize,
    of: [Outcome; 2],
}

impl Pairs {
    fn add(&mut self, [somebody, nobody]: [Duration; 2]) {
        self.count += 1;
        self.nobody_slower += usize::from(nobody > somebody);
        self.of[0].add(somebody);
        self.of[1].add(nobody);
    }

    fn compared(mut self) -> Compared {
        let spread = |outcome: &mut Outcome| {
            outcome.times.sort_unstable();
            let [p10, p50, p90, p99] = [10, 50, 90, 99].map(|at| outcome.percentile(at));
            Spread {
                p10_ms: p10,
                p50_ms: p50,
                p90_ms: p90,
                p99_ms: p99,
            }
        };
        let [somebody, nobody] = &mut self.of;
        Compared {
            somebody: spread(somebody),
            nobody: spread(nobody),
            nobody_slower_percent: 100.0 * self.nobody_slower as f64 / self.count.max(1) as f64,
            // Of a fair coin: half, give or take twice this.
            standard_error_percent: 50.0 / (self.count.max(1) as f64).sqrt(),
        }
    }
}

impl fmt::Display for Decoys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let redis = if self.with_redis { " + Redis" } else { "" };
        writeln!(
            f,
            "{}{redis}: {} pairs of somebody and nobody, {} failed",
            self.database, self.pairs, self.failed
        )?;
        for (what, compared) in [("asked", &self.asked), ("polled", &self.polled)] {
            for (who, spread) in [
                ("somebody", &compared.somebody),
                ("nobody", &compared.nobody),
            ] {
                writeln!(
                    f,
                    "  {what:6} for {who:8} p10 {:.2} ms, p50 {:.2} ms, p90 {:.2} ms, p99 {:.2} ms",
                    spread.p10_ms, spread.p50_ms, spread.p90_ms, spread.p99_ms
                )?;
            }
            writeln!(
                f,
                "  {what:6} nobody took longer in {:.1} % of the pairs (a fair coin: 50 +- {:.1})",
                compared.nobody_slower_percent,
                2.0 * compared.standard_error_percent
            )?;
        }
        for failure in &self.failures {
            writeln!(f, "  FAILED      {failure}")?;
        }
        Ok(())
    }
}
