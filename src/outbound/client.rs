//! Sends one request and reads a bounded answer.

use super::resolve::CheckedResolver;
use super::{
    HostResolver, Method, OutboundError, OutboundPolicy, OutboundRequest, OutboundResponse,
    RefusedUrl, SystemResolver, target,
};
use reqwest::header::{ACCEPT_ENCODING, HeaderMap, HeaderName, HeaderValue};
use reqwest::redirect;
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};
use std::sync::Arc;
use std::time::Duration;
use url::Url;

const USER_AGENT: &str = concat!("assent/", env!("CARGO_PKG_VERSION"));
const KEPT_HEADERS: [&str; 4] = ["apns-id", "cache-control", "content-type", "retry-after"];

/// What is spoken to servers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    Http1,
    Http2,
}

/// What one call may cost.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    /// From looking up the name to the end of the TLS handshake.
    pub(super) connect: Duration,
    /// From start to end, the answer's body included.
    pub(super) total: Duration,
    /// Bytes of the answer's body.
    pub(super) body: usize,
}

pub(super) const LIMITS: Limits = Limits {
    connect: Duration::from_secs(2),
    total: Duration::from_secs(5),
    body: 64 * 1024,
};

/// The client. Clones share connections and rules.
#[derive(Clone)]
pub struct Outbound {
    http: reqwest::Client,
    policy: Arc<OutboundPolicy>,
    limits: Limits,
}

#[derive(Debug, thiserror::Error)]
pub enum OutboundSetupError {
    #[error("an extra root certificate cannot be used: {0}")]
    Root(rustls::Error),
    #[error("TLS cannot be set up: {0}")]
    Tls(rustls::Error),
    #[error("the HTTP client cannot be set up: {0}")]
    Client(reqwest::Error),
}

impl Outbound {
    /// Looks names up by the operating system.
    ///
    /// # Errors
    /// An extra root that is no certificate.
    pub fn new(policy: OutboundPolicy) -> Result<Self, OutboundSetupError> {
        Self::with_resolver(policy, Arc::new(SystemResolver::default()))
    }

    /// Looks names up by `resolver`, whose answers are checked like any other's.
    ///
    /// # Errors
    /// An extra root that is no certificate.
    pub fn with_resolver(
        policy: OutboundPolicy,
        resolver: Arc<dyn HostResolver>,
    ) -> Result<Self, OutboundSetupError> {
        Self::with_limits(policy, resolver, LIMITS, Protocol::Http1)
    }

    /// For a push gateway that speaks HTTP/2 and nothing else: one connection, kept for as long as it lives.
    ///
    /// # Errors
    /// An extra root that is no certificate.
    pub fn over_http2(policy: OutboundPolicy) -> Result<Self, OutboundSetupError> {
        let resolver = Arc::new(SystemResolver::default());
        Self::with_limits(policy, resolver, LIMITS, Protocol::Http2)
    }

    pub(super) fn with_limits(
        policy: OutboundPolicy,
        resolver: Arc<dyn HostResolver>,
        limits: Limits,
        protocol: Protocol,
    ) -> Result<Self, OutboundSetupError> {
        let policy = Arc::new(policy);
        let checked = CheckedResolver {
            resolver,
            policy: Arc::clone(&policy),
        };
        let builder = match protocol {
            Protocol::Http1 => reqwest::Client::builder()
                .http1_only()
                .retry(reqwest::retry::never())
                .pool_idle_timeout(Duration::from_secs(30)),
            // A connection that has died in silence is found by a ping, not by the next message. What a
            // server says it has not looked at (RFC 9113 8.7) is sent again: one that takes one stream at a
            // time, as Apple's does at first, refuses those that came before it could say so.
            Protocol::Http2 => reqwest::Client::builder()
                .http2_prior_knowledge()
                .http2_keep_alive_interval(Duration::from_secs(60))
                .http2_keep_alive_timeout(Duration::from_secs(5))
                .http2_keep_alive_while_idle(true)
                .pool_idle_timeout(Duration::from_secs(3600)),
        };
        let http = builder
            .tls_backend_preconfigured(tls(&policy.extra_roots, protocol)?)
            .https_only(!policy.allow_loopback_http)
            .dns_resolver(checked)
            .redirect(redirect::Policy::none())
            .no_proxy()
            .referer(false)
            // Off by our choice of features already; another crate in the build could switch them on.
            .no_gzip()
            .no_brotli()
            .no_deflate()
            .no_zstd()
            .user_agent(USER_AGENT)
            // Left out, it would mean "anything" (RFC 9110 12.5.3).
            .default_headers(
                [(ACCEPT_ENCODING, HeaderValue::from_static("identity"))]
                    .into_iter()
                    .collect(),
            )
            .connect_timeout(limits.connect)
            .timeout(limits.total)
            .pool_max_idle_per_host(4)
            .build()
            .map_err(OutboundSetupError::Client)?;
        Ok(Self {
            http,
            policy,
            limits,
        })
    }

    /// Whether such a URL could be called, as far as its text tells: for registration. Looks nothing up,
    /// so the reason gives nothing away.
    ///
    /// # Errors
    /// [`RefusedUrl`]
    pub fn check_url(&self, url: &str) -> Result<Url, RefusedUrl> {
        target::check(&self.policy, url)
    }

    /// Checks the URL again, sends the request and reads the answer, whatever its status.
    ///
    /// # Errors
    /// [`OutboundError`] when there is no answer, or none that ends within the limits.
    pub async fn send(&self, request: OutboundRequest) -> Result<OutboundResponse, OutboundError> {
        let url = self.check_url(&request.url)?;
        self.exchange(url, request).await
    }

    /// Everything but the check of the URL.
    pub(super) async fn exchange(
        &self,
        url: Url,
        request: OutboundRequest,
    ) -> Result<OutboundResponse, OutboundError> {
        let method = match request.method {
            Method::Get => reqwest::Method::GET,
            Method::Post => reqwest::Method::POST,
        };
        let headers = header_map(&request.headers)?;
        let call = self
            .http
            .request(method, url)
            .headers(headers)
            .body(request.body);
        let response = call.send().await?;
        // The second lock on the door: the address that answered, however it came to be dialled.
        match response.remote_addr() {
            Some(peer) if self.policy.permits(peer.ip()) => {}
            peer => return Err(OutboundError::Refused(format!("{peer:?} answered"))),
        }
        let status = response.status().as_u16();
        let headers = kept(response.headers());
        let body = match request.ignore_answer_body {
            true => Vec::new(),
            false => self.read(response).await?,
        };
        Ok(OutboundResponse {
            status,
            headers,
            body,
        })
    }

    async fn read(&self, mut response: reqwest::Response) -> Result<Vec<u8>, OutboundError> {
        let too_large = || OutboundError::TooLarge(format!("more than {} bytes", self.limits.body));
        if response
            .content_length()
            .is_some_and(|length| length > self.limits.body as u64)
        {
            return Err(too_large());
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await? {
            if chunk.len() > self.limits.body - body.len() {
                return Err(too_large());
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }
}

fn header_map(headers: &[(&'static str, String)]) -> Result<HeaderMap, OutboundError> {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        // A value with a line break in it would be a header of somebody else's making.
        let refused = || OutboundError::Refused(format!("the header {name} cannot be sent"));
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| refused())?;
        let mut value = HeaderValue::from_str(value).map_err(|_| refused())?;
        value.set_sensitive(true);
        map.append(name, value);
    }
    Ok(map)
}

fn kept(headers: &HeaderMap) -> Vec<(&'static str, String)> {
    let joined = |name| {
        let lines = headers.get_all(name).iter();
        let lines: Vec<&str> = lines.filter_map(|value| value.to_str().ok()).collect();
        (!lines.is_empty()).then(|| (name, lines.join(", ")))
    };
    KEPT_HEADERS.into_iter().filter_map(joined).collect()
}

fn tls(extra_roots: &[Vec<u8>], protocol: Protocol) -> Result<ClientConfig, OutboundSetupError> {
    let mut roots = RootCertStore::from_iter(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    for der in extra_roots {
        let root = CertificateDer::from(der.clone());
        roots.add(root).map_err(OutboundSetupError::Root)?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(OutboundSetupError::Tls)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![match protocol {
        Protocol::Http1 => b"http/1.1".to_vec(),
        Protocol::Http2 => b"h2".to_vec(),
    }];
    Ok(config)
}
