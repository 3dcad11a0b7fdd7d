//! A server of a test's own: a task for each connection, all of which end with it.

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// Serves what connects, each with its number, from 1.
pub fn accept<Served>(
    listener: TcpListener,
    serve: impl Fn(TcpStream, usize) -> Served + Send + 'static,
) -> JoinSet<()>
where
    Served: Future<Output = ()> + Send + 'static,
{
    JoinSet::from_iter([async move {
        let mut connections = JoinSet::new();
        for number in 1.. {
            let (stream, _) = listener.accept().await.unwrap();
            connections.spawn(serve(stream, number));
        }
    }])
}
