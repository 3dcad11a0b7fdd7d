//! Months of random rotations on two nodes whose clocks differ and whose reloads come late.

use crate::support::{Backend, START, config, on_both};
use assent::app::{Core, World};
use assent::clock::{Clock as _, ManualClock};
use assent::crypto::KeyRing;
use assent::crypto::jose::Jws;
use assent::domain::key::{JWKS_MAX_AGE, MARGIN, Purpose, RELOAD_EVERY};
use assent::domain::{AuthReqId, ClientId, Partition, SignatureAlgorithm, Timestamp};
use assent::entropy::SystemEntropy;
use assent::push::PushRecorder;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

on_both!(whoever_holds_a_young_key_set_verifies_all_that_lives);

const ROTATIONS: usize = 50;
/// As long as the settings allow when everything else is as short as they allow.
const TOKEN_LIFE: Duration = Duration::from_secs(660);
const SKEW: Duration = Duration::from_secs(2);
const ALGORITHMS: [SignatureAlgorithm; 2] = [SignatureAlgorithm::Es256, SignatureAlgorithm::EdDsa];

/// Xorshift: the same numbers for the same seed, on every machine.
struct Dice(u64);

impl Dice {
    fn up_to(&mut self, most: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % (most + 1)
    }

    fn millis(&mut self, most: Duration) -> Duration {
        Duration::from_millis(self.up_to(most.as_millis() as u64))
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.up_to(from.len() as u64 - 1) as usize]
    }
}

struct Node {
    core: Core,
    clock: Arc<ManualClock>,
}

impl Node {
    async fn new(backend: &Backend, ahead: Duration) -> Self {
        let settings = [
            ("keys.activation_delay", "365s"),
            ("keys.retire_after", "720s"),
            ("keys.hint_retention", "720s"),
            ("keys.rotate_every", "0s"),
        ];
        let settings = settings.map(|(key, value)| (key, value.to_owned()));
        let clock = Arc::new(ManualClock::new(START.plus(ahead)));
        let world = World {
            clock: clock.clone(),
            entropy: Arc::new(SystemEntropy),
            push: Arc::new(PushRecorder::default()),
        };
        let config = config(backend, None, settings.to_vec());
        let core = Core::migrate_and_open(&config, world).await.unwrap();
        Self { core, clock }
    }

    fn keys(&self) -> &KeyRing {
        &self.core.services.keys
    }
}

struct Token {
    kid: String,
    text: String,
    ends: Timestamp,
}

struct Time {
    nodes: [Node; 2],
    dice: Dice,
    /// Real time; each node's clock is off by a little.
    now: Timestamp,
    tokens: Vec<Token>,
    /// Key sets as somebody fetched them.
    snapshots: Vec<(Timestamp, BTreeSet<String>)>,
    /// Since when every node has published a key.
    published: BTreeMap<String, Timestamp>,
    signed: BTreeSet<String>,
    checked: usize,
}

impl Time {
    fn advance(&mut self, by: Duration) {
        self.now = self.now.plus(by);
        for node in &self.nodes {
            node.clock.advance(by);
        }
    }

    /// Lets time pass. Both nodes reload at the beginning and at the end, late each time; what they
    /// would do in between changes nothing.
    async fn pass(&mut self, by: Duration) {
        let soon = (RELOAD_EVERY + MARGIN / 2).min(by);
        self.pass_shortly(soon).await;
        self.pass_shortly(by - soon).await;
    }

    async fn pass_shortly(&mut self, by: Duration) {
        let latest = (RELOAD_EVERY + MARGIN / 2).min(by);
        let mut late = [(self.dice.millis(latest), 0), (self.dice.millis(latest), 1)];
        late.sort_unstable();
        let [(short, second), (long, first)] = late;
        self.advance(by - long);
        self.reload(first).await;
        self.advance(long - short);
        self.reload(second).await;
        self.advance(short);
    }

    async fn reload(&mut self, node: usize) {
        self.nodes[node].core.services.reload_keys().await.unwrap();
        let published = self.nodes.each_ref().map(|node| kids(node.keys()));
        for kid in published[0].intersection(&published[1]) {
            self.published.entry(kid.clone()).or_insert(self.now);
        }
    }

    /// What clients and other nodes see and do at one moment.
    fn look(&mut self) {
        let now = self.now;
        self.tokens.retain(|token| token.ends > now);
        self.snapshots
            .retain(|(taken, _)| now.since(*taken) <= JWKS_MAX_AGE);
        for node in &self.nodes {
            self.snapshots.push((now, kids(node.keys())));
            for algorithm in ALGORITHMS {
                let text = node
                    .keys()
                    .sign_token(algorithm, "JWT", &json!({}))
                    .unwrap();
                let kid = Jws::parse(&text).unwrap().kid.unwrap();
                if self.signed.insert(kid.clone()) && self.signed.len() > ALGORITHMS.len() {
                    let since = self.published.get(&kid).map(|at| now.since(*at));
                    assert!(
                        since >= Some(JWKS_MAX_AGE),
                        "used {since:?} after it was published"
                    );
                }
                let ends = now.plus(TOKEN_LIFE);
                self.tokens.push(Token { kid, text, ends });
            }
        }
        for token in &self.tokens {
            for (taken, kids) in &self.snapshots {
                let age = now.since(*taken);
                assert!(kids.contains(&token.kid), "missing in a key set of {age:?}");
                self.checked += 1;
            }
        }
        // One at random with the real verification, on both nodes.
        let token = &self.tokens[self.dice.up_to(self.tokens.len() as u64 - 1) as usize];
        for node in &self.nodes {
            assert_eq!(
                node.keys().verify_token::<Value>("JWT", &token.text),
                Ok(json!({}))
            );
            assert_eq!(
                node.keys().verify_hint::<Value>("JWT", &token.text),
                Ok(json!({}))
            );
        }
    }

    /// What one node makes the other can read at once.
    fn hand_over(&self) -> (AuthReqId, String) {
        let [a, b] = self.nodes.each_ref().map(Node::keys);
        let client = ClientId::new("bank");
        let made = |keys: &KeyRing| {
            let id = keys.make_auth_req_id(&client, Partition(7), self.now, &SystemEntropy);
            (id, keys.seal("place", b"value"))
        };
        for (maker, reader) in [(a, b), (b, a)] {
            let (id, sealed) = made(maker);
            assert!(reader.open_auth_req_id(&client, &id).is_some());
            assert!(reader.open_sealed("place", &sealed).is_ok());
        }
        made(a)
    }
}

fn kids(keys: &KeyRing) -> BTreeSet<String> {
    let jwks = keys.token_jwks();
    let kid = |key: &Value| key["kid"].as_str().unwrap().to_owned();
    jwks["keys"].as_array().unwrap().iter().map(kid).collect()
}

async fn whoever_holds_a_young_key_set_verifies_all_that_lives(backend: Backend) {
    let seed = 0x5eed_2026;
    let mut world = Time {
        nodes: [
            Node::new(&backend, Duration::ZERO).await,
            Node::new(&backend, SKEW).await,
        ],
        dice: Dice(seed),
        now: START,
        tokens: Vec::new(),
        snapshots: Vec::new(),
        published: BTreeMap::new(),
        signed: BTreeSet::new(),
        checked: 0,
    };
    world.reload(0).await;
    let first = world.hand_over();
    let (mut of_tokens, mut longest) = (0, 0);
    while of_tokens < ROTATIONS {
        // From a rush in which each overtakes the last, to days of quiet.
        let unit = world.dice.pick(&[30, 30, 600, 86_400, 864_000]);
        let wait = world.dice.millis(Duration::from_secs(unit * 3));
        world.pass(wait).await;
        let purposes = [
            Purpose::TokenSigning,
            Purpose::TokenSigning,
            Purpose::IdMac,
            Purpose::DataSeal,
        ];
        let purpose = world.dice.pick(&purposes);
        let choices = [None, Some(ALGORITHMS[0]), Some(ALGORITHMS[1])];
        let algorithm = world.dice.pick(&choices);
        let algorithm = algorithm.filter(|_| purpose == Purpose::TokenSigning);
        let node = world.dice.up_to(1) as usize;
        let services = &world.nodes[node].core.services;
        let added = services
            .rotate_keys(purpose, algorithm, false)
            .await
            .unwrap();
        of_tokens += added.iter().filter(|new| new.algorithm.is_some()).count();
        world.reload(node).await;
        // Watch the hand-over closely, and the end of the one before; or be interrupted by the next.
        let steps = [
            60, 45, 45, 45, 45, 45, 30, 20, 15, 15, 15, 60, 300, 200, 60, 60, 90,
        ];
        let watched = world.dice.pick(&[0, 3, 8, steps.len(), steps.len()]);
        for step in &steps[..watched] {
            let step = Duration::from_secs(*step) + world.dice.millis(Duration::from_secs(10));
            world.pass(step).await;
            world.look();
            world.hand_over();
            longest = longest.max(kids(world.nodes[0].keys()).len());
        }
    }
    let days = world.now.since(START).as_secs() / 86_400;
    println!(
        "seed {seed:#x}: {of_tokens} new token keys in {days} days, {} keys signed, {} checks, up to {longest} keys published",
        world.signed.len(),
        world.checked
    );
    assert!(world.signed.len() > 20 && world.checked > 100_000 && days > 60 && longest > 4);
    for node in &world.nodes {
        let client = ClientId::new("bank");
        assert!(node.keys().open_auth_req_id(&client, &first.0).is_some());
        assert!(node.keys().open_sealed("place", &first.1).is_ok());
    }
    let report = world.nodes[0].core.services.verify_audit(None).await;
    assert!(report.unwrap().is_whole());
    let [now, _] = world.nodes.each_ref().map(|node| node.clock.now());
    assert_eq!(now, world.now);
}
