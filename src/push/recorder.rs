//! A sender that hands messages to nobody and remembers them.

use super::{PushMessage, PushOutcome, PushSender};
use crate::domain::{Device, DeviceId, Timestamp};
use async_trait::async_trait;
use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

/// How many messages are remembered.
const CAPACITY: usize = 1000;

/// Remembers the newest messages; for servers without a gateway, and for tests.
#[derive(Debug, Default)]
pub struct PushRecorder(Mutex<VecDeque<(DeviceId, PushMessage)>>);

impl PushRecorder {
    /// What was sent so far, oldest first.
    pub fn sent(&self) -> Vec<(DeviceId, PushMessage)> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .cloned()
            .collect()
    }
}

#[async_trait]
impl PushSender for PushRecorder {
    async fn send(&self, device: &Device, message: &PushMessage, _now: Timestamp) -> PushOutcome {
        let mut sent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if sent.len() == CAPACITY {
            sent.pop_front();
        }
        sent.push_back((device.id.clone(), message.clone()));
        PushOutcome::Accepted { id: None }
    }
}
