//! Relying parties and phones that are busy while something happens to Redis, and what came of it.

use super::busy::{Busy, Chance};
use super::cast::{Cast, Flow, Trouble};
use super::invariants;
use crate::support::Backend;
use crate::support::process::{ServerProcess, Site};
use assent::clock::{Clock as _, SystemClock};
use assent::domain::{Decision, Timestamp};
use std::sync::Arc;

/// Pairs of a relying party and a phone.
const PAIRS: usize = 6;

/// A site whose pending requests lie in Redis.
pub fn site(backend: Backend, redis_url: &str) -> Site {
    let settings = vec![
        ("ciba.interval", "1s".into()),
        ("redis.url", redis_url.to_owned()),
    ];
    Site::with(backend, settings)
}

/// How often a fault strikes. More than once is for those who have the time: see CONTRIBUTING.md.
#[expect(
    clippy::disallowed_methods,
    reason = "how the long profile is asked for"
)]
pub fn rounds() -> usize {
    let rounds = std::env::var("ASSENT_TEST_FAULT_ROUNDS").ok();
    rounds.map_or(1, |rounds| rounds.parse().unwrap())
}

pub struct Storm {
    pub site: Site,
    pub cast: Cast,
    pub chance: Chance,
    /// One node, or two, of which each serves one of the relying parties.
    pub nodes: Vec<ServerProcess>,
    busy: Busy,
    /// When the fault struck.
    struck: Vec<Timestamp>,
}

impl Storm {
    pub async fn on_one_node(site: Site) -> Self {
        let (cast, server) = Cast::new(&site, 2, PAIRS).await;
        Self::begin(site, cast, vec![server])
    }

    pub async fn on_two_nodes(site: Site) -> Self {
        let (mut cast, server) = Cast::new(&site, 2, PAIRS).await;
        let (another, url) = site.serve_another().await;
        let bank = Arc::get_mut(&mut cast.banks[1]);
        bank.expect("nobody is busy yet").url = url;
        Self::begin(site, cast, vec![server, another])
    }

    fn begin(site: Site, cast: Cast, nodes: Vec<ServerProcess>) -> Self {
        let chance = Chance::new();
        Self {
            busy: Busy::start(&cast, chance.seed),
            site,
            cast,
            chance,
            nodes,
            struck: Vec::new(),
        }
    }

    /// Waits until so many requests more are over.
    pub async fn work(&self, more: usize) {
        self.busy.finish(more).await;
    }

    /// Now the fault strikes.
    pub fn strike(&mut self) {
        self.struck.push(SystemClock.now());
    }

    /// Lets everybody finish, checks every promise, and prints a line of the table of faults.
    pub async fn end(self, fault: &str) -> Vec<Flow> {
        let flows = self.busy.stop().await;
        for mut node in self.nodes {
            node.stop().await;
            let log = node.log();
            assert!(!log.contains("panicked"), "{log}");
        }
        invariants::check(&self.site, &flows).await;

        let count = |is: fn(&Flow) -> bool| flows.iter().filter(|flow| is(flow)).count();
        let mut trouble = Trouble::default();
        flows.iter().for_each(|flow| trouble.add(flow.trouble));
        // How long after a fault somebody was last refused.
        let after = |last: Timestamp| {
            let struck = self.struck.iter().rfind(|struck| **struck <= last)?;
            Some(last.since(*struck).as_millis())
        };
        let lasts = flows.iter().filter_map(|flow| flow.trouble.last);
        let window = lasts.filter_map(after).max().unwrap_or(0);
        println!(
            "{fault}: {} requests, {} decisions acknowledged, {} of them lost, {} tokens doubled, \
             {} forgotten undecided, {} forgotten while decided, {} answers of 503, {} dropped, errors for {window} ms",
            flows.len(),
            count(|flow| flow.acknowledged),
            // An approval was redeemed, whether or not the response arrived: see the invariants.
            count(|flow| flow.acknowledged
                && flow.decision == Decision::Approve
                && flow.end != "invalid_grant"),
            count(|flow| flow.tokens.len() > 1),
            count(Flow::is_forgotten),
            count(|flow| flow.crossed),
            trouble.refused,
            trouble.dropped,
        );
        flows
    }
}
