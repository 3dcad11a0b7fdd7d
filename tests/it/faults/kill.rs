//! `kill -9` at random moments while several relying parties and phones are busy; and a server that is
//! held for a while and let go.

use super::cast::{Bank, Cast, Flow, Person, Trouble};
use super::invariants;
use crate::support::process::{Site, pause};
use crate::support::{Backend, on_both};
use assent::clock::{Clock as _, SystemClock};
use assent::domain::Decision;
use assent::entropy::{Entropy, SystemEntropy};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::task::JoinSet;

on_both!(kill_under_load, a_server_that_was_held_goes_on);

const KILLS: u32 = 10;
/// Pairs of a relying party and a phone that are busy at the same time.
const PAIRS: usize = 6;
/// `Some` repeats the choices of a run that failed; the moments of the kills still depend on the machine.
const SEED: Option<u64> = None;

/// Small pseudo-random numbers with a seed that can be printed (splitmix64).
struct Chance(u64);

impl Chance {
    fn new() -> Self {
        let entropy: &dyn Entropy = &SystemEntropy;
        let seed = SEED.unwrap_or_else(|| u64::from_le_bytes(entropy.bytes()));
        println!("seed {seed}");
        Self(seed)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }
}

/// A relying party and a phone that are busy until told to stop, and then finish what they began.
pub struct Busy {
    news: Arc<News>,
    pairs: JoinSet<Vec<Flow>>,
}

/// What those who are busy and those who watch them tell each other.
#[derive(Default)]
struct News {
    stop: AtomicBool,
    finished: AtomicUsize,
}

impl Busy {
    pub fn start(cast: &Cast, seed: u64) -> Self {
        let news = Arc::new(News::default());
        let mut pairs = JoinSet::new();
        for (number, person) in cast.people.iter().enumerate() {
            let bank = cast.banks[number % cast.banks.len()].clone();
            let chance = Chance(seed.wrapping_add(number as u64));
            pairs.spawn(busy(bank, person.clone(), chance, news.clone()));
        }
        Self { news, pairs }
    }

    /// Waits until they have finished so many requests more: on a machine that is busy otherwise, too.
    pub async fn finish(&self, more: usize) {
        let enough = self.news.finished.load(Ordering::Relaxed) + more;
        let until = SystemClock.now().plus(Duration::from_secs(60));
        while self.news.finished.load(Ordering::Relaxed) < enough {
            assert!(SystemClock.now() < until, "nothing happens any more");
            pause(5).await;
        }
    }

    /// What they did, when all of it is over.
    pub async fn stop(self) -> Vec<Flow> {
        self.news.stop.store(true, Ordering::Relaxed);
        self.pairs.join_all().await.into_iter().flatten().collect()
    }
}

async fn busy(
    bank: Arc<Bank>,
    person: Arc<Person>,
    mut chance: Chance,
    news: Arc<News>,
) -> Vec<Flow> {
    let mut flows = Vec::new();
    while !news.stop.load(Ordering::Relaxed) {
        let decision = match chance.below(3) {
            0 => Decision::Deny,
            _ => Decision::Approve,
        };
        let mut flow = Flow::begin(&bank, &person, decision).await;
        if chance.below(2) == 0 {
            flow.decide().await;
            flow.redeem(0).await;
        } else {
            // The relying party waits at the server while the phone decides.
            let id = flow.id();
            let decided = async {
                let mut trouble = Trouble::default();
                let shown = person.look(id, &mut trouble).await;
                person.decide(&shown, decision, &mut trouble).await;
                trouble
            };
            let (trouble, ()) = tokio::join!(decided, flow.redeem(5));
            flow.trouble.add(trouble);
            flow.acknowledged = true;
        }
        flows.push(flow);
        news.finished.fetch_add(1, Ordering::Relaxed);
    }
    flows
}

async fn kill_under_load(backend: Backend) {
    let mut chance = Chance::new();
    let site = Site::with(backend, vec![("ciba.interval", "1s".into())]);
    let (cast, mut server) = Cast::new(&site, 2, PAIRS).await;
    let busy = Busy::start(&cast, chance.0);
    for _ in 0..KILLS {
        busy.finish(3).await;
        pause(chance.below(400)).await;
        server.kill();
        server = site.serve().await;
    }
    busy.finish(3).await;
    let flows = busy.stop().await;
    server.stop().await;

    invariants::check(&site, &flows).await;
    let approved = flows
        .iter()
        .filter(|flow| flow.decision == Decision::Approve);
    let (mut with_tokens, mut without) = (0, 0);
    for flow in approved {
        match flow.tokens.len() {
            0 => without += 1,
            _ => with_tokens += 1,
        }
    }
    println!(
        "{} requests, {with_tokens} with tokens, {without} lost them",
        flows.len()
    );
    // Each kill can cost each relying party at most the response it was waiting for.
    assert!(
        without <= KILLS as usize * PAIRS,
        "{without} responses lost"
    );
}

/// SIGSTOP: as a machine that sleeps, or swaps. Nobody is told anything wrong when it wakes.
async fn a_server_that_was_held_goes_on(backend: Backend) {
    let site = Site::with(backend, vec![("ciba.interval", "1s".into())]);
    let (cast, mut server) = Cast::new(&site, 2, PAIRS).await;
    let busy = Busy::start(&cast, 1);
    busy.finish(5).await;
    server.signal("STOP");
    pause(3000).await;
    server.signal("CONT");
    busy.finish(5).await;
    let flows = busy.stop().await;
    server.stop().await;
    invariants::check(&site, &flows).await;
    for flow in &flows {
        let trouble = flow.trouble;
        assert_eq!((trouble.dropped, trouble.refused), (0, 0), "unanswered");
    }
}
