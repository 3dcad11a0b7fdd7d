//! Relying parties and phones that are busy while something happens to their server.

use super::cast::{Bank, Cast, Flow, Person};
use crate::support::process::pause;
use assent::clock::{Clock as _, SystemClock};
use assent::domain::Decision;
use assent::entropy::{Entropy, SystemEntropy};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::task::JoinSet;

/// `Some` repeats the choices of a run that failed; the moments of the kills still depend on the machine.
const SEED: Option<u64> = None;

/// Small pseudo-random numbers with a seed that can be printed (splitmix64).
pub struct Chance {
    pub seed: u64,
    state: u64,
}

impl Chance {
    pub fn new() -> Self {
        let entropy: &dyn Entropy = &SystemEntropy;
        let seed = SEED.unwrap_or_else(|| u64::from_le_bytes(entropy.bytes()));
        println!("seed {seed}");
        Self::of(seed)
    }

    fn of(seed: u64) -> Self {
        Self { seed, state: seed }
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
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
            let chance = Chance::of(seed.wrapping_add(number as u64));
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
            flow.decide_while_held(5).await;
        }
        flows.push(flow);
        news.finished.fetch_add(1, Ordering::Relaxed);
    }
    flows
}
