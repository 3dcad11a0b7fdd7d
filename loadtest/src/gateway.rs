//! A push gateway that takes everything: HTTP/2 as Apple speaks it, HTTP/1.1 as the others do, over TLS and over
//! connections that are kept.

use anyhow::Context as _;
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// What Apple allows once it has seen a valid token.
const STREAMS: u32 = 1000;

pub struct Gateway {
    listener: TcpListener,
    tls: TlsAcceptor,
    pub url: String,
    /// Its certificate, which whoever calls has to trust.
    pub root: Vec<u8>,
    /// How many connections were made to it.
    pub connections: Arc<AtomicUsize>,
}

impl Gateway {
    pub async fn bind() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let key = rcgen::KeyPair::generate()?;
        let params = rcgen::CertificateParams::new(["localhost".to_owned()])?;
        let certificate = params.self_signed(&key)?;
        let private = PrivateKeyDer::try_from(key.serialize_der()).map_err(anyhow::Error::msg)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], private)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self {
            listener,
            tls: TlsAcceptor::from(Arc::new(config)),
            url: format!("https://localhost:{port}"),
            root: certificate.der().to_vec(),
            connections: Arc::default(),
        })
    }

    /// Serves until it is dropped. What one connection ends by is nobody's concern but its client's.
    pub async fn serve(&self) {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = self.listener.accept().await {
            self.connections.fetch_add(1, Ordering::Relaxed);
            connections.spawn(connection(stream, self.tls.clone()));
        }
    }
}

async fn connection(stream: TcpStream, tls: TlsAcceptor) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let stream = tls.accept(stream).await?;
    if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
        http2(stream).await
    } else {
        http1(stream).await
    }
}

async fn http2(stream: TlsStream<TcpStream>) -> anyhow::Result<()> {
    let mut settings = h2::server::Builder::new();
    settings.max_concurrent_streams(STREAMS);
    let mut connection = settings.handshake::<_, &[u8]>(stream).await?;
    let mut messages = JoinSet::new();
    while let Some(accepted) = connection.accept().await {
        let (request, mut respond) = accepted?;
        messages.spawn(async move {
            let mut body = request.into_body();
            while let Some(Ok(chunk)) = body.data().await {
                let _ = body.flow_control().release_capacity(chunk.len());
            }
            let _ = respond.send_response(http::Response::new(()), true);
        });
        while messages.try_join_next().is_some() {}
    }
    Ok(())
}

async fn http1(mut stream: TlsStream<TcpStream>) -> anyhow::Result<()> {
    let mut bytes = Vec::new();
    loop {
        let (head, end) = loop {
            if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                let head = std::str::from_utf8(&bytes[..at])?;
                let whole = at + 4 + length(head).context("no content-length")?;
                if bytes.len() >= whole {
                    break (head.to_owned(), whole);
                }
            }
            if stream.read_buf(&mut bytes).await? == 0 {
                return Ok(());
            }
        };
        bytes.drain(..end);
        let (status, body) = match head.split(' ').nth(1) {
            Some("/token") => (200, r#"{"access_token":"token","expires_in":3599}"#),
            Some(path) if path.ends_with(":send") => (200, r#"{"name":"projects/p/messages/1"}"#),
            _ => (201, ""),
        };
        let answer = format!(
            "HTTP/1.1 {status} OK\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(answer.as_bytes()).await?;
        stream.flush().await?;
    }
}

fn length(head: &str) -> Option<usize> {
    let mut headers = head.lines().filter_map(|line| line.split_once(": "));
    let (_, value) = headers.find(|(name, _)| name.eq_ignore_ascii_case("content-length"))?;
    value.parse().ok()
}
