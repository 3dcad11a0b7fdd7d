//! What a phone's stream is told: what waits for its person, and how that changes.
//!
//! A stream is told differences between two looks at the inbox, not events: so a wake-up that is lost, or
//! comes twice, changes nothing but the time.

use super::Services;
use super::authenticate_device::{AuthenticatedDevice, DeviceAuthError};
use super::decide::InboxItem;
use crate::domain::device::DeviceState;
use crate::domain::{DeviceId, RequestId, Timestamp};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// Streams of one device on one node: one, and the one that comes after it while nobody has noticed yet that
/// the first is dead.
const PER_DEVICE: usize = 2;
/// How often a stream looks by itself.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// Streams that look at a time: all of them may be woken at once, and others need the stores, too.
pub(super) const LOOKS_AT_ONCE: usize = 8;

/// The streams that this process holds now.
#[derive(Clone, Debug, Default)]
pub(super) struct OpenStreams(Arc<Mutex<Table>>);

#[derive(Debug, Default)]
struct Table {
    count: usize,
    next: u64,
    /// Those of which nobody knows yet whose they are, oldest first.
    unproven: VecDeque<(u64, CancellationToken)>,
    /// Of each device that has proven itself, oldest first.
    of_device: HashMap<DeviceId, Vec<(u64, CancellationToken)>>,
}

/// A stream's place on this node; freed when it is dropped, however the stream ends.
#[derive(Debug)]
pub struct StreamPlace {
    streams: OpenStreams,
    number: u64,
    device: Option<DeviceId>,
    replaced: CancellationToken,
}

impl OpenStreams {
    fn take(&self, limit: usize) -> Option<StreamPlace> {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if table.count >= limit {
            // Whoever only opens streams must not keep those away who prove themselves at once.
            table.unproven.pop_front()?.1.cancel();
        }
        table.count += 1;
        table.next += 1;
        let (number, replaced) = (table.next, CancellationToken::new());
        table.unproven.push_back((number, replaced.clone()));
        metrics::gauge!("assent_streams_open").increment(1);
        Some(StreamPlace {
            streams: self.clone(),
            number,
            device: None,
            replaced,
        })
    }
}

impl StreamPlace {
    /// Now it is known whose stream it is: the newest stay.
    fn belongs_to(&mut self, device: &DeviceId) {
        let mut table = self
            .streams
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        table.unproven.retain(|(number, _)| *number != self.number);
        let streams = table.of_device.entry(device.clone()).or_default();
        streams.push((self.number, self.replaced.clone()));
        if streams.len() > PER_DEVICE {
            streams.remove(0).1.cancel();
        }
        drop(table);
        self.device = Some(device.clone());
    }
}

impl StreamPlace {
    /// Ends when newer streams have taken this one's place.
    pub fn replaced(&self) -> WaitForCancellationFutureOwned {
        self.replaced.clone().cancelled_owned()
    }
}

impl Drop for StreamPlace {
    fn drop(&mut self) {
        let mut table = self
            .streams
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        table.count -= 1;
        table.unproven.retain(|(number, _)| *number != self.number);
        metrics::gauge!("assent_streams_open").decrement(1);
        let Some(device) = &self.device else {
            return;
        };
        if let Some(streams) = table.of_device.get_mut(device) {
            streams.retain(|(number, _)| *number != self.number);
            if streams.is_empty() {
                table.of_device.remove(device);
            }
        }
    }
}

/// One stream, and what its phone has been told.
pub struct Following {
    place: StreamPlace,
    device: AuthenticatedDevice,
    told: Vec<InboxItem>,
    changes: watch::Receiver<u64>,
    looked_at: Timestamp,
}

/// What a phone is to be told.
#[derive(Clone, Debug)]
pub enum Change {
    /// It waits now.
    Waits(InboxItem),
    /// It waits no more: answered elsewhere, cancelled or expired.
    Resolved(RequestId),
}

impl Services {
    /// A place for one more stream; `None`: this node holds all that it may.
    pub fn take_stream_place(&self) -> Option<StreamPlace> {
        self.streams.take(self.policy.max_streams)
    }

    /// How many streams this node holds.
    pub fn open_streams(&self) -> usize {
        let table = self.streams.0.lock();
        table.unwrap_or_else(PoisonError::into_inner).count
    }

    /// Begins to follow the inbox of a device's person. Nothing has been told yet.
    pub fn follow(&self, mut place: StreamPlace, device: AuthenticatedDevice) -> Following {
        place.belongs_to(&device.id);
        Following {
            place,
            changes: self.pending.watch_inbox(&device.user_id),
            device,
            told: vec![],
            looked_at: self.clock.now(),
        }
    }

    /// Until there may be something to tell. May be dropped and called again.
    pub async fn until_next_look(&self, following: &mut Following) {
        let by_itself = following.looked_at.plus(LOOK_EVERY);
        let ends = following.told.iter().map(|item| item.expires_at);
        let at = ends.fold(by_itself, Timestamp::min);
        tokio::select! {
            // Whoever wakes lives as long as the process.
            _ = following.changes.changed() => {}
            () = self.clock.sleep_until(at) => {}
        }
    }

    /// What has changed since the last look, by what the stores say now.
    ///
    /// # Errors
    /// The device may not be told any more, or nobody can say whether it may.
    pub async fn look(&self, following: &mut Following) -> Result<Vec<Change>, DeviceAuthError> {
        let Ok(_turn) = self.looking.acquire().await else {
            return Ok(vec![]);
        };
        // From here on a wake-up means another look.
        following.changes.mark_unchanged();
        following.looked_at = self.clock.now();
        let device = self.directory.device(&following.device.id).await?;
        match device.map(|device| device.state) {
            Some(DeviceState::Active) => {}
            Some(DeviceState::Pending) => return Err(DeviceAuthError::Unconfirmed),
            Some(DeviceState::Revoked) | None => return Err(DeviceAuthError::Revoked),
        }
        let now_waiting = self.inbox(&following.device).await?;
        let told = std::mem::replace(&mut following.told, now_waiting.clone());
        let is_in = |items: &[InboxItem], id: RequestId| items.iter().any(|found| found.id == id);
        let gone = told.iter().filter(|item| !is_in(&now_waiting, item.id));
        let new = now_waiting.iter().filter(|item| !is_in(&told, item.id));
        let gone = gone.map(|item| Change::Resolved(item.id));
        Ok(gone.chain(new.cloned().map(Change::Waits)).collect())
    }
}

impl Following {
    /// Ends when newer streams of the same device have taken this one's place.
    pub fn replaced(&self) -> WaitForCancellationFutureOwned {
        self.place.replaced()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_holds_so_many_and_a_device_the_newest() {
        let streams = OpenStreams::default();
        let device = DeviceId::new("phone");
        let mut places: Vec<_> = (0..3).map(|_| streams.take(3).unwrap()).collect();
        for place in &mut places {
            place.belongs_to(&device);
        }
        assert!(streams.take(3).is_none(), "the node is full");
        let replaced = |place: &StreamPlace| place.replaced.is_cancelled();
        assert_eq!(
            places.iter().map(replaced).collect::<Vec<_>>(),
            [true, false, false]
        );
        places.remove(0);
        let mut other = streams.take(3).unwrap();
        other.belongs_to(&DeviceId::new("another"));
        assert!(!replaced(&places[0]), "of another device");
        drop((places, other));
        let table = streams.0.lock().unwrap();
        assert!(table.count == 0 && table.of_device.is_empty());
    }

    #[test]
    fn who_proves_nothing_makes_way() {
        let streams = OpenStreams::default();
        let mut proven = streams.take(3).unwrap();
        proven.belongs_to(&DeviceId::new("phone"));
        let idle = [streams.take(3).unwrap(), streams.take(3).unwrap()];
        let newest = streams.take(3).unwrap();
        let replaced = [&proven, &idle[0], &idle[1], &newest].map(|it| it.replaced.is_cancelled());
        assert_eq!(replaced, [false, true, false, false]);
        drop((proven, idle, newest));
        let table = streams.0.lock().unwrap();
        assert!(table.count == 0 && table.unproven.is_empty());
    }
}
