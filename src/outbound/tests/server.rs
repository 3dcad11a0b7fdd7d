//! A server that counts who connects, and then does as it was told.

use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

/// What a server does when a request's head has come.
#[derive(Clone)]
pub enum Act {
    /// Sends this and closes, without having been asked anything.
    Banner(String),
    /// Sends this and waits for the next request.
    Say(String),
    /// Sends this and closes.
    SayAndClose(Vec<u8>),
    /// Sends the first, then the second again and again, with pauses.
    Repeat(String, String, Duration),
    /// Says nothing and stays.
    Hang,
    /// Sends this and tears the connection down.
    Reset(String),
}

impl Act {
    pub fn say(text: &str) -> Self {
        Self::Say(text.to_owned())
    }

    pub fn banner(text: &str) -> Self {
        Self::Banner(text.to_owned())
    }

    pub fn close_after(text: impl Into<Vec<u8>>) -> Self {
        Self::SayAndClose(text.into())
    }

    pub fn repeat(first: &str, again: &str, pause_ms: u64) -> Self {
        Self::Repeat(
            first.to_owned(),
            again.to_owned(),
            Duration::from_millis(pause_ms),
        )
    }
}

/// A self-signed certificate, and what a server needs to show it.
pub struct Identity {
    pub certificate: Vec<u8>,
    pub config: ServerConfig,
}

impl Identity {
    pub fn new(change: impl FnOnce(&mut rcgen::CertificateParams)) -> Self {
        let mut params = rcgen::CertificateParams::new(["rp.example".to_owned()]).unwrap();
        change(&mut params);
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            )
            .unwrap();
        Self {
            certificate: certificate.der().to_vec(),
            config,
        }
    }
}

/// Listens on loopback until dropped.
pub struct Server {
    port: u16,
    /// The ports of those who connected.
    peers: Arc<Mutex<Vec<u16>>>,
    heads: Arc<Mutex<Vec<String>>>,
    _tasks: JoinSet<()>,
}

impl Server {
    pub async fn plain(act: Act) -> Self {
        Self::new(act, None).await
    }

    pub async fn tls(act: Act, config: ServerConfig) -> Self {
        Self::new(act, Some(TlsAcceptor::from(Arc::new(config)))).await
    }

    async fn new(act: Act, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut server = Self {
            port: listener.local_addr().unwrap().port(),
            peers: Arc::default(),
            heads: Arc::default(),
            _tasks: JoinSet::new(),
        };
        let (peers, heads) = (Arc::clone(&server.peers), Arc::clone(&server.heads));
        server._tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, peer) = listener.accept().await.unwrap();
                peers.lock().unwrap().push(peer.port());
                let (act, tls, heads) = (act.clone(), tls.clone(), Arc::clone(&heads));
                connections.spawn(async move {
                    if matches!(act, Act::Reset(_)) {
                        stream.set_zero_linger().unwrap();
                    }
                    match tls {
                        None => serve(act, stream, &heads).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                serve(act, stream, &heads).await;
                            }
                        }
                    }
                });
            }
        });
        server
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Connections so far, those that still wait to be accepted among them: the one made here is behind
    /// them in the queue.
    pub async fn hits(&self) -> usize {
        let probe = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        let probe = probe.local_addr().unwrap().port();
        while !self.peers.lock().unwrap().contains(&probe) {
            tokio::task::yield_now().await;
        }
        let mut peers = self.peers.lock().unwrap();
        peers.retain(|port| *port != probe);
        peers.len()
    }

    /// The heads of the requests so far, in lower case.
    pub fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

/// Errors end the connection: the client hung up, which many a test wants to see.
async fn serve(
    act: Act,
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    heads: &Mutex<Vec<String>>,
) {
    if let Act::Banner(text) = &act {
        let _ = stream.write_all(text.as_bytes()).await;
        let _ = stream.shutdown().await;
        // Reads what the client says: closing with that unread would reset the connection.
        while stream.read_u8().await.is_ok() {}
        return;
    }
    while let Some(head) = read_head(&mut stream).await {
        heads.lock().unwrap().push(head);
        match &act {
            Act::Banner(_) => return,
            Act::Say(text) => {
                if stream.write_all(text.as_bytes()).await.is_err() {
                    return;
                }
            }
            Act::SayAndClose(bytes) => {
                let _ = stream.write_all(bytes).await;
                let _ = stream.shutdown().await;
                return;
            }
            Act::Repeat(first, again, pause) => {
                let mut sent = stream.write_all(first.as_bytes()).await;
                while sent.is_ok() {
                    wait(*pause).await;
                    sent = stream.write_all(again.as_bytes()).await;
                }
                return;
            }
            Act::Hang => std::future::pending().await,
            Act::Reset(text) => {
                let _ = stream.write_all(text.as_bytes()).await;
                let _ = stream.flush().await;
                // Long enough for the client to read what came, which a reset would throw away.
                wait(Duration::from_millis(100)).await;
                return;
            }
        }
    }
}

async fn wait(pause: Duration) {
    let _ = tokio::time::timeout(pause, std::future::pending::<()>()).await;
}

async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    Some(String::from_utf8(head).ok()?.to_lowercase())
}
