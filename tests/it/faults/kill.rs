//! `kill -9` at random moments while several relying parties and phones are busy; and a server that is
//! held for a while and let go.

use super::busy::{Busy, Chance};
use super::cast::Cast;
use super::invariants;
use crate::support::process::{Site, pause};
use crate::support::{Backend, on_both};
use assent::domain::Decision;

on_both!(kill_under_load, a_server_that_was_held_goes_on);

const KILLS: u32 = 10;
/// Pairs of a relying party and a phone that are busy at the same time.
const PAIRS: usize = 6;
async fn kill_under_load(backend: Backend) {
    let mut chance = Chance::new();
    let site = Site::with(backend, vec![("ciba.interval", "1s".into())]);
    let (cast, mut server) = Cast::new(&site, 2, PAIRS).await;
    let busy = Busy::start(&cast, chance.seed);
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
