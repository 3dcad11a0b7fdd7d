//! Polls that wait for a result (CIBA Core 10.1.1): at most one per request, a bounded number per client.

use crate::domain::{ClientId, RequestId};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio_util::sync::CancellationToken;

/// The polls this process holds now.
#[derive(Clone, Debug, Default)]
pub struct HeldPolls(Arc<Mutex<Table>>);

#[derive(Debug, Default)]
struct Table {
    held: HashMap<RequestId, (u64, CancellationToken)>,
    per_client: HashMap<ClientId, u32>,
    count: usize,
    next: u64,
}

/// One held poll; its place is freed when it is dropped, however it ends.
#[derive(Debug)]
pub struct HeldPoll {
    table: HeldPolls,
    client: ClientId,
    request: RequestId,
    number: u64,
    /// Cancelled when a newer poll for the same request arrives.
    pub replaced: CancellationToken,
}

impl HeldPolls {
    /// Ends the poll that is held for a request; true if there was one.
    pub fn replace(&self, request: RequestId) -> bool {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        table.held.remove(&request).is_some_and(|(_, token)| {
            token.cancel();
            true
        })
    }

    /// Whether a poll is held for a request.
    pub fn holds(&self, request: RequestId) -> bool {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .held
            .contains_key(&request)
    }

    /// How many polls are held.
    pub fn count(&self) -> usize {
        let table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        table.count
    }

    /// Whether the client holds fewer than `limit`.
    pub fn has_room(&self, client: &ClientId, limit: u32) -> bool {
        let table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        table.has_room(client, limit)
    }

    /// Takes a place; `None` when the client holds `limit` already.
    pub fn hold(&self, client: &ClientId, request: RequestId, limit: u32) -> Option<HeldPoll> {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !table.has_room(client, limit) {
            return None;
        }
        *table.per_client.entry(client.clone()).or_default() += 1;
        table.count += 1;
        table.next += 1;
        let number = table.next;
        let replaced = CancellationToken::new();
        if let Some((_, older)) = table.held.insert(request, (number, replaced.clone())) {
            older.cancel();
        }
        drop(table);
        Some(HeldPoll {
            table: self.clone(),
            client: client.clone(),
            request,
            number,
            replaced,
        })
    }
}

impl Table {
    fn has_room(&self, client: &ClientId, limit: u32) -> bool {
        self.per_client.get(client).copied().unwrap_or(0) < limit
    }
}

impl Drop for HeldPoll {
    fn drop(&mut self) {
        let mut table = self.table.0.lock().unwrap_or_else(PoisonError::into_inner);
        if table
            .held
            .get(&self.request)
            .is_some_and(|(number, _)| *number == self.number)
        {
            table.held.remove(&self.request);
        }
        table.count -= 1;
        if let Some(held) = table.per_client.get_mut(&self.client) {
            *held -= 1;
            if *held == 0 {
                table.per_client.remove(&self.client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newer_poll_ends_the_older_and_places_come_back() {
        let polls = HeldPolls::default();
        let client = ClientId::new("c");
        let request = RequestId::from_bytes([1; 32]);
        let first = polls.hold(&client, request, 2).unwrap();
        let second = polls.hold(&client, request, 2).unwrap();
        assert!(first.replaced.is_cancelled() && !second.replaced.is_cancelled());
        assert!(
            polls
                .hold(&client, RequestId::from_bytes([2; 32]), 2)
                .is_none()
        );
        drop(first);
        assert!(
            polls.replace(request),
            "the older's end does not remove the newer"
        );
        assert!(second.replaced.is_cancelled());
        drop(second);
        assert!(polls.0.lock().unwrap().per_client.is_empty());
    }
}
