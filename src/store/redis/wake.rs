//! Nodes tell each other that something changed. A message may get lost; whoever waits also looks by
//! itself now and then, and everybody is woken whenever the subscription is new.

use super::keys::Keys;
use super::router::Router;
use super::schedule::Schedule;
use crate::domain::{Partition, RequestId, Timestamp, UserId};
use crate::store::StoreError;
use crate::store::waiters::Waiters;
use redis::{FromRedisValue as _, PushInfo, PushKind};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::unbounded_channel;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// How often the subscription shows that it lives.
const PING_EVERY: Duration = Duration::from_millis(500);
/// How long the server may take to answer it.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);
/// Between two attempts to subscribe.
const PAUSE: Duration = Duration::from_millis(100);
/// The node that made a job does it at once; the others look this much later.
const HEAD_START: Duration = Duration::from_millis(250);

/// What is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wake {
    /// A job was made in this partition.
    Job(Partition),
    /// Who waits for this request should look.
    Request(RequestId),
    /// Who watches what waits for this person should look.
    Inbox(UserId),
}

impl std::fmt::Display for Wake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Job(partition) => write!(f, "job {}", partition.0),
            Self::Request(id) => write!(f, "request {id}"),
            Self::Inbox(user) => write!(f, "inbox {user}"),
        }
    }
}

impl Wake {
    pub fn parse(text: &str) -> Option<Self> {
        match text.split_once(' ')? {
            ("job", partition) => partition.parse().ok().map(Partition).map(Self::Job),
            ("request", id) => RequestId::parse(id).map(Self::Request),
            ("inbox", user) => Some(Self::Inbox(UserId::new(user))),
            _ => None,
        }
    }
}

/// Listens for all of this node.
pub struct Listener {
    pub(super) router: Arc<Router>,
    pub(super) keys: Keys,
    pub(super) waiters: Arc<Waiters<RequestId>>,
    pub(super) inboxes: Arc<Waiters<UserId>>,
    pub(super) schedule: Arc<Schedule>,
}

impl Listener {
    /// Until `stop`: subscribed to whichever server lives. `now` is asked when a job becomes due.
    pub async fn run(self, now: impl Fn() -> Timestamp + Send, stop: CancellationToken) {
        for turn in 0.. {
            let listening = self.listen(turn, &now);
            tokio::select! {
                result = listening => if let Err(error) = result {
                    tracing::debug!(%error, "the subscription to Redis ended; subscribing again");
                },
                () = stop.cancelled() => return,
            }
            if timeout(PAUSE, stop.cancelled()).await.is_ok() {
                return;
            }
        }
    }

    async fn listen(&self, turn: usize, now: &impl Fn() -> Timestamp) -> Result<(), StoreError> {
        let unavailable = |error| StoreError::Unavailable(Box::new(error));
        let silent = || StoreError::Unavailable("the subscription does not answer".into());
        let (sender, mut pushes) = unbounded_channel();
        let (address, mut connection) = self.router.listen(turn, sender).await?;
        let subscribed = timeout(ANSWER_WITHIN, connection.subscribe(self.keys.channel())).await;
        subscribed.map_err(|_| silent())?.map_err(unavailable)?;
        // Whatever was said while nobody listened here.
        self.waiters.wake_all();
        self.inboxes.wake_all();
        self.schedule.sweep_soon();
        // A server that lives but is not one of ours any more hears nothing of the others.
        while self.router.is_connected(&address) {
            match timeout(PING_EVERY, pushes.recv()).await {
                Ok(Some(push)) if push.kind == PushKind::Disconnection => return Ok(()),
                Ok(Some(push)) => self.hear(&push, now),
                Ok(None) => return Ok(()),
                Err(_) => {
                    let ping = redis::cmd("PING");
                    let pong = ping.query_async::<redis::Value>(&mut connection);
                    let pong = timeout(ANSWER_WITHIN, pong).await;
                    pong.map_err(|_| silent())?.map_err(unavailable)?;
                }
            }
        }
        Ok(())
    }

    fn hear(&self, push: &PushInfo, now: &impl Fn() -> Timestamp) {
        let (PushKind::Message, [_, text]) = (&push.kind, &push.data[..]) else {
            return;
        };
        let text = String::from_redis_value_ref(text).unwrap_or_default();
        match Wake::parse(&text) {
            Some(Wake::Job(partition)) => self.schedule.note(partition, now().plus(HEAD_START)),
            Some(Wake::Request(id)) => self.waiters.wake(&id),
            Some(Wake::Inbox(user)) => self.inboxes.wake(&user),
            None => tracing::debug!(text, "a message that this program cannot read"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_read_as_it_was_written() {
        let request = Wake::Request(RequestId::from_bytes([9; 32]));
        let inbox = Wake::Inbox(UserId::new("alice in person"));
        for wake in [
            Wake::Job(Partition(0)),
            Wake::Job(Partition(255)),
            request,
            inbox,
        ] {
            assert_eq!(Wake::parse(&wake.to_string()), Some(wake));
        }
        for text in ["", "job", "job 256", "job -1", "request x", "other 1"] {
            assert_eq!(Wake::parse(text), None, "{text}");
        }
    }
}
