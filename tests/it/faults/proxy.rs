//! A wire to PostgreSQL that breaks at the one moment where nobody knows what happened: the commit.

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// What happens to the next `COMMIT` that passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum NextCommit {
    Passes = 0,
    /// It arrives and is carried out; the wire breaks before the reply.
    LosesItsReply = 1,
    /// The wire breaks before it arrives.
    IsLost = 2,
}

/// Passes everything between clients and a server. Dropped, it cuts every connection.
pub struct Proxy {
    pub port: u16,
    next: Arc<AtomicU8>,
    _tasks: JoinSet<()>,
}

impl Proxy {
    /// `server`: host and port.
    pub async fn new(server: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let next = Arc::new(AtomicU8::new(NextCommit::Passes as u8));
        let mut tasks = JoinSet::new();
        let armed = next.clone();
        tasks.spawn(async move {
            let mut wires = JoinSet::new();
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let server = TcpStream::connect(&server).await.unwrap();
                wires.spawn(wire(client, server, armed.clone()));
            }
        });
        Self {
            port,
            next,
            _tasks: tasks,
        }
    }

    pub fn next_commit(&self, fate: NextCommit) {
        self.next.store(fate as u8, Ordering::SeqCst);
    }

    /// Whether the commit that was waited for has come by.
    pub fn has_struck(&self) -> bool {
        self.next.load(Ordering::SeqCst) == NextCommit::Passes as u8
    }
}

/// One connection, until either side or the proxy ends it.
async fn wire(client: TcpStream, server: TcpStream, armed: Arc<AtomicU8>) {
    let (mut asked, mut answered) = (vec![0; 16 * 1024], vec![0; 16 * 1024]);
    loop {
        tokio::select! {
            Some(count) = read(&client, &mut asked) => {
                // PostgreSQL's simple query, which is how sqlx ends a transaction.
                let commits = asked[..count].windows(7).any(|bytes| bytes == b"COMMIT\0");
                let fate = match commits {
                    true => armed.swap(NextCommit::Passes as u8, Ordering::SeqCst),
                    false => NextCommit::Passes as u8,
                };
                if fate == NextCommit::IsLost as u8 {
                    return;
                }
                write(&server, &asked[..count]).await;
                if fate == NextCommit::LosesItsReply as u8 {
                    read(&server, &mut answered).await;
                    return;
                }
            }
            Some(count) = read(&server, &mut answered) => {
                write(&client, &answered[..count]).await;
            }
            else => return,
        }
    }
}

/// What arrived; `None` when the other side is gone.
async fn read(stream: &TcpStream, buffer: &mut [u8]) -> Option<usize> {
    loop {
        stream.readable().await.ok()?;
        match stream.try_read(buffer) {
            Ok(0) => return None,
            Ok(count) => return Some(count),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => return None,
        }
    }
}

/// Errors show at the next read.
async fn write(stream: &TcpStream, mut bytes: &[u8]) {
    while !bytes.is_empty() && stream.writable().await.is_ok() {
        match stream.try_write(bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}
