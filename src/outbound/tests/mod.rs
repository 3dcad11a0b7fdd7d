//! The client against servers on this machine that do what servers should not.

mod answers;
mod refusals;
mod secure;
mod server;

use super::client::{LIMITS, Limits, Protocol};
use super::{
    HostResolver, Outbound, OutboundError, OutboundPolicy, OutboundRequest, OutboundResponse,
};
use async_trait::async_trait;
use server::{Act, Server};
use std::collections::VecDeque;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A resolver that gives one answer after the other, and the last for ever.
#[derive(Default)]
struct Script {
    answers: Mutex<VecDeque<Vec<IpAddr>>>,
    asked: Mutex<Vec<String>>,
}

impl Script {
    fn new(answers: &[&[&str]]) -> Arc<Self> {
        let parse = |answer: &&[&str]| answer.iter().map(|text| text.parse().unwrap()).collect();
        Arc::new(Self {
            answers: Mutex::new(answers.iter().map(parse).collect()),
            asked: Mutex::default(),
        })
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

#[async_trait]
impl HostResolver for Script {
    async fn lookup(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        self.asked.lock().unwrap().push(host.to_owned());
        let mut answers = self.answers.lock().unwrap();
        let answer = match answers.len() {
            0 => None,
            1 => answers.front().cloned(),
            _ => answers.pop_front(),
        };
        answer.ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

/// Shorter than in earnest, so that waiting for them is bearable.
const SHORT: Limits = Limits {
    connect: Duration::from_millis(400),
    total: Duration::from_millis(900),
    ..LIMITS
};

/// Loopback is allowed: everything below that calls a server does so by this.
fn development() -> OutboundPolicy {
    OutboundPolicy {
        allow_loopback_http: true,
        ..OutboundPolicy::default()
    }
}

/// As in production, but for the ports: that of the server must not be what saves it.
fn production(server: &Server) -> OutboundPolicy {
    OutboundPolicy {
        allowed_ports: vec![server.port()],
        ..OutboundPolicy::default()
    }
}

fn client(policy: OutboundPolicy, resolver: &Arc<Script>) -> Outbound {
    Outbound::with_limits(policy, Arc::clone(resolver) as _, SHORT, Protocol::Http1).unwrap()
}

async fn get(client: &Outbound, url: &str) -> Result<OutboundResponse, OutboundError> {
    client.send(OutboundRequest::get(url)).await
}

/// What a client in development makes of a plain HTTP server that acts like this.
async fn try_against(act: Act) -> Result<OutboundResponse, OutboundError> {
    let server = Server::plain(act).await;
    let url = format!("http://127.0.0.1:{}/", server.port());
    get(&client(development(), &Arc::default()), &url).await
}

#[test]
fn the_limits_are_those_of_the_design() {
    assert_eq!(LIMITS.connect, Duration::from_secs(2));
    assert_eq!(LIMITS.total, Duration::from_secs(5));
    assert_eq!(LIMITS.body, 65_536);
    assert_eq!(OutboundPolicy::default().allowed_ports, [443, 8443]);
}

#[test]
fn a_request_shows_nothing_of_itself() {
    let request = OutboundRequest::post(
        "https://rp.example/capability",
        "text/plain",
        b"body".into(),
    )
    .header("authorization", "Bearer secret");
    assert_eq!(
        format!("{request:?}"),
        "OutboundRequest { method: Post, .. }"
    );
}

#[test]
fn each_permission_opens_what_it_names() {
    let permits = |policy: &OutboundPolicy, text: &str| policy.permits(text.parse().unwrap());
    let standard = OutboundPolicy::default();
    let inside = OutboundPolicy {
        internal_networks: vec!["10.20.0.0/16".parse().unwrap()],
        ..OutboundPolicy::default()
    };
    for (address, by_standard, by_inside, by_development) in [
        ("1.1.1.1", true, true, true),
        ("10.20.3.4", false, true, false),
        ("10.21.3.4", false, false, false),
        ("127.0.0.1", false, false, true),
        ("::1", false, false, true),
        ("::ffff:127.0.0.1", false, false, false),
        ("::ffff:10.20.3.4", false, false, false),
    ] {
        assert_eq!(permits(&standard, address), by_standard, "{address}");
        assert_eq!(permits(&inside, address), by_inside, "{address}");
        assert_eq!(
            permits(&development(), address),
            by_development,
            "{address}"
        );
    }
}
