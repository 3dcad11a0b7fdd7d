//! A wire between two programs that a test can hold, slow down and cut: between a server and its store,
//! or between a store and its replica.

use crate::support::process::pause;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// What happens to bytes that travel in one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Pass,
    /// They wait, and arrive when the fate is another.
    Stall,
    /// They never arrive.
    Drop,
    /// They arrive so much later.
    Delay(Duration),
    /// So many bytes of each connection still arrive, then it is cut.
    CutAfter(usize),
    /// The receiver is told that nothing more comes; the other direction goes on.
    HalfClose,
}

/// A breach in the moment that nobody can tell apart from the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Breach {
    /// The connection is cut before the request arrives.
    BeforeItArrives,
    /// The request is carried out; the connection is cut before its reply arrives.
    BeforeItsReply,
}

/// Passes everything between clients and a server. Dropped, it cuts every connection.
pub struct Wire {
    pub port: u16,
    /// Where new connections go.
    server: watch::Sender<String>,
    requests: watch::Sender<Fate>,
    replies: watch::Sender<Fate>,
    /// Counts up when all connections are to be cut.
    cuts: watch::Sender<u32>,
    trap: Arc<Mutex<Option<Trap>>>,
    _tasks: JoinSet<()>,
}

/// Whether bytes hold the request that is waited for.
type Meant = dyn Fn(&[u8]) -> bool + Send;

/// What is to be done to the next request that is meant.
struct Trap {
    meant: Box<Meant>,
    breach: Breach,
}

impl Wire {
    /// `server`: host and port.
    pub async fn to(server: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (server, wanted) = watch::channel(server);
        let (requests, on_requests) = watch::channel(Fate::Pass);
        let (replies, on_replies) = watch::channel(Fate::Pass);
        let (cuts, on_cut) = watch::channel(0);
        let trap = Arc::new(Mutex::new(None));
        let mut tasks = JoinSet::new();
        let armed = trap.clone();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let server = wanted.borrow().clone();
                let requests = on_requests.clone();
                let replies = on_replies.clone();
                let (mut cut, armed) = (on_cut.clone(), armed.clone());
                cut.mark_unchanged();
                connections.spawn(async move {
                    // Without a server, the client finds its connection closed.
                    if let Ok(server) = TcpStream::connect(&server).await {
                        tokio::select! {
                            () = carry(client, server, requests, replies, armed) => {}
                            _ = cut.changed() => {}
                        }
                    }
                });
            }
        });
        Self {
            port,
            server,
            requests,
            replies,
            cuts,
            trap,
            _tasks: tasks,
        }
    }

    /// What happens to bytes from clients to the server, from now on.
    pub fn requests(&self, fate: Fate) {
        self.requests.send_replace(fate);
    }

    /// What happens to bytes from the server to clients, from now on.
    pub fn replies(&self, fate: Fate) {
        self.replies.send_replace(fate);
    }

    /// What happens to all bytes, from now on.
    pub fn both(&self, fate: Fate) {
        self.requests(fate);
        self.replies(fate);
    }

    /// Cuts every connection; new ones go to `server`.
    pub fn lead_to(&self, server: String) {
        self.server.send_replace(server);
        self.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Breaks the connection on which the next request comes that is `meant`.
    pub fn break_at(&self, breach: Breach, meant: impl Fn(&[u8]) -> bool + Send + 'static) {
        *self.trap.lock().unwrap() = Some(Trap {
            meant: Box::new(meant),
            breach,
        });
    }

    /// Whether the request that was waited for has come by.
    pub fn has_broken(&self) -> bool {
        self.trap.lock().unwrap().is_none()
    }
}

/// The connection is no more.
struct Cut;

/// One connection, until both sides have said all, or it is cut.
async fn carry(
    client: TcpStream,
    server: TcpStream,
    requests: watch::Receiver<Fate>,
    replies: watch::Receiver<Fate>,
    trap: Arc<Mutex<Option<Trap>>>,
) {
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let reply_is_lost = AtomicBool::new(false);
    let request = |bytes: &[u8]| {
        let mut trap = trap.lock().unwrap();
        match trap.take_if(|trap| (trap.meant)(bytes)) {
            None => {}
            Some(trap) => match trap.breach {
                Breach::BeforeItArrives => return Err(Cut),
                Breach::BeforeItsReply => reply_is_lost.store(true, Ordering::SeqCst),
            },
        }
        Ok(())
    };
    // That a reply has come shows that the request was carried out.
    let reply = |_: &[u8]| match reply_is_lost.load(Ordering::SeqCst) {
        true => Err(Cut),
        false => Ok(()),
    };
    let asked = pump(from_client, to_server, requests, request);
    let answered = pump(from_server, to_client, replies, reply);
    let _: Result<_, Cut> = tokio::try_join!(asked, answered);
}

/// One direction of a connection, until there is nothing more to come.
async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut fate: watch::Receiver<Fate>,
    look: impl Fn(&[u8]) -> Result<(), Cut>,
) -> Result<(), Cut> {
    let mut buffer = vec![0; 16 * 1024];
    let (mut known, mut passed) = (Fate::Pass, 0);
    while *fate.borrow_and_update() != Fate::HalfClose {
        let count = tokio::select! {
            count = from.read(&mut buffer) => count.map_err(|_| Cut)?,
            _ = fate.changed() => continue,
        };
        if count == 0 {
            break;
        }
        look(&buffer[..count])?;
        let fate = *fate
            .wait_for(|fate| *fate != Fate::Stall)
            .await
            .map_err(|_| Cut)?;
        if fate != known {
            (known, passed) = (fate, 0);
        }
        let mut arrive = count;
        match fate {
            Fate::Drop => continue,
            Fate::Delay(delay) => pause(delay.as_millis() as u64).await,
            Fate::CutAfter(limit) => arrive = count.min(limit - passed),
            Fate::Pass | Fate::Stall | Fate::HalfClose => {}
        }
        to.write_all(&buffer[..arrive]).await.map_err(|_| Cut)?;
        passed += arrive;
        if fate == Fate::CutAfter(passed) {
            return Err(Cut);
        }
    }
    to.shutdown().await.map_err(|_| Cut)
}
