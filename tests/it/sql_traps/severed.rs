//! A wire to PostgreSQL that is cut at a commit, or goes silent.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

/// Where the next commit's connection is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// The server never hears of the commit.
    BeforeCommit,
    /// The server has committed, and its answer is lost.
    AfterCommit,
    /// The same, and no other connection gets through until [`Wire::mend`].
    AfterCommitForGood,
    /// The server has committed, and from then on nothing gets through, until [`Wire::mend`].
    SilentAfterCommit,
}

/// A proxy in front of PostgreSQL.
pub struct Wire {
    /// The database's URL through the proxy.
    pub url: String,
    state: Arc<State>,
}

struct State {
    /// `host:port` of the server.
    server: String,
    /// Armed for the next commit.
    cut: Mutex<Option<Cut>>,
    down: watch::Sender<bool>,
    silent: watch::Sender<bool>,
    /// How often a client had something to say.
    said: AtomicUsize,
}

impl Wire {
    /// In front of the server that `url` names.
    pub async fn new(url: &str) -> Self {
        let (rest, database) = url.rsplit_once('/').unwrap();
        let (user, server) = rest.rsplit_once('@').unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            server: server.to_owned(),
            cut: Mutex::new(None),
            down: watch::Sender::new(false),
            silent: watch::Sender::new(false),
            said: AtomicUsize::new(0),
        });
        let (accepting, tasks) = (state.clone(), TaskTracker::new());
        tasks.clone().spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tasks.spawn(carry(accepting.clone(), client));
            }
        });
        Self {
            url: format!("{user}@{address}/{database}"),
            state,
        }
    }

    /// Cuts the connection of the next commit.
    pub fn arm(&self, cut: Cut) {
        *self.state.cut.lock().unwrap() = Some(cut);
    }

    /// Whether the last cut that was armed has happened.
    pub fn was_cut(&self) -> bool {
        self.state.cut.lock().unwrap().is_none()
    }

    /// Lets nothing more through, and leaves every connection open: a server that stands still.
    pub fn silence(&self) {
        self.state.silent.send_replace(true);
    }

    pub fn mend(&self) {
        self.state.down.send_replace(false);
        self.state.silent.send_replace(false);
    }

    pub fn said(&self) -> usize {
        self.state.said.load(Ordering::SeqCst)
    }
}

/// Carries one connection until it ends or is cut.
async fn carry(state: Arc<State>, mut client: TcpStream) {
    let mut down = state.down.subscribe();
    let mut silent = state.silent.subscribe();
    if *down.borrow() {
        return;
    }
    let Ok(mut server) = TcpStream::connect(&state.server).await else {
        return;
    };
    let (mut from_client, mut from_server) = ([0; 16 * 1024], [0; 16 * 1024]);
    loop {
        let heard = silent.wait_for(|silent| !silent).await;
        drop(heard.unwrap());
        tokio::select! {
            read = client.read(&mut from_client) => {
                let Ok(1..) = read else { return };
                let sent = &from_client[..read.unwrap()];
                state.said.fetch_add(1, Ordering::SeqCst);
                let commits = sent.windows(7).any(|text| text == b"COMMIT\0");
                let cut = if commits { state.cut.lock().unwrap().take() } else { None };
                if cut == Some(Cut::BeforeCommit) || server.write_all(sent).await.is_err() {
                    return;
                }
                if cut.is_some() {
                    // Its answer is waited for, so that it has happened, and then kept back.
                    let answered = server.read(&mut from_server).await.unwrap();
                    let tag = from_server[..answered].windows(7).any(|text| text == b"COMMIT\0");
                    assert!(tag, "the server did not commit");
                    if cut == Some(Cut::SilentAfterCommit) {
                        state.silent.send_replace(true);
                        continue;
                    }
                    state.down.send_replace(cut == Some(Cut::AfterCommitForGood));
                    return;
                }
            }
            read = server.read(&mut from_server) => {
                let Ok(1..) = read else { return };
                if client.write_all(&from_server[..read.unwrap()]).await.is_err() {
                    return;
                }
            }
            _ = silent.changed() => {}
            () = async { drop(down.wait_for(|down| *down).await) } => return,
        }
    }
}
