//! From a name to addresses that may be called.
//!
//! The check sits inside the resolver that the HTTP client connects by: the addresses that were checked are
//! the ones it dials, and there is no second look-up whose answer could differ.

use super::{OutboundError, OutboundPolicy, target};
use async_trait::async_trait;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs as _};
use std::sync::Arc;
use tokio::sync::Semaphore;

/// Looks up a name's addresses.
#[async_trait]
pub trait HostResolver: Send + Sync {
    async fn lookup(&self, host: &str) -> io::Result<Vec<IpAddr>>;
}

/// Asks the operating system.
pub struct SystemResolver {
    slots: Arc<Semaphore>,
}

/// A look-up holds a thread until the system gives up, long after we have: names whose servers do not
/// answer may take this many threads and no more.
const LOOKUPS_AT_ONCE: usize = 64;

impl Default for SystemResolver {
    fn default() -> Self {
        Self {
            slots: Arc::new(Semaphore::new(LOOKUPS_AT_ONCE)),
        }
    }
}

#[async_trait]
impl HostResolver for SystemResolver {
    async fn lookup(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        let slot = Arc::clone(&self.slots).acquire_owned().await;
        let host = host.to_owned();
        let looked_up = tokio::task::spawn_blocking(move || {
            let _until_the_system_answers = slot;
            let found = (host.as_str(), 0).to_socket_addrs()?;
            Ok(found.map(|address| address.ip()).collect())
        });
        looked_up.await?
    }
}

/// The resolver that the HTTP client connects by.
pub(super) struct CheckedResolver {
    pub(super) resolver: Arc<dyn HostResolver>,
    pub(super) policy: Arc<OutboundPolicy>,
}

impl Resolve for CheckedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let resolver = Arc::clone(&self.resolver);
        let policy = Arc::clone(&self.policy);
        Box::pin(async move {
            let addresses = checked(&*resolver, &policy, name.as_str()).await?;
            // Port 0 stands for the URL's port.
            let dialled = addresses.into_iter().map(|ip| SocketAddr::new(ip, 0));
            Ok(Box::new(dialled) as Addrs)
        })
    }
}

async fn checked(
    resolver: &dyn HostResolver,
    policy: &OutboundPolicy,
    host: &str,
) -> Result<Vec<IpAddr>, OutboundError> {
    if policy.allow_loopback_http && target::is_localhost(host) {
        // Never asked of the DNS, whose answer could be anything (RFC 6761 6.3).
        return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
    }
    let found = resolver.lookup(host).await;
    let found = found.map_err(|error| OutboundError::Resolve(format!("{host}: {error}")))?;
    if found.is_empty() {
        return Err(OutboundError::Resolve(format!("{host} has no address")));
    }
    // One bad address condemns the name: whoever mixes them hopes that we pick for him.
    match found.iter().find(|address| !policy.permits(**address)) {
        Some(bad) => Err(OutboundError::Refused(format!(
            "{host} has the address {bad}"
        ))),
        None => Ok(found),
    }
}
