//! What a person does with their own devices.

use super::authenticate_device::AuthenticatedDevice;
use super::{Services, log_device};
use crate::domain::device::{DeviceDescription, DeviceState, InvalidPushTarget, Platform};
use crate::domain::{AppId, Device, DeviceId, EventKind, Partition, Secret, User, UserId};
use crate::store::StoreError;
use serde_json::json;

/// Who changed a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Actor {
    Owner,
    Operator,
}

impl Actor {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Operator => "operator",
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum PushTargetError {
    #[error("the push target cannot be used: {0}")]
    Invalid(#[from] InvalidPushTarget),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Services {
    /// The devices of the same person that are not revoked.
    pub async fn sibling_devices(
        &self,
        device: &AuthenticatedDevice,
    ) -> Result<Vec<Device>, StoreError> {
        let mut devices = self.directory.devices_of(&device.user_id).await?;
        devices.retain(|device| device.state != DeviceState::Revoked);
        Ok(devices)
    }

    /// Revokes one of the person's own devices; false when it is not theirs or revoked already.
    pub async fn revoke_own_device(
        &self,
        device: &AuthenticatedDevice,
        target: &DeviceId,
    ) -> Result<bool, StoreError> {
        let found = self.directory.device(target).await?;
        match found.filter(|found| found.user_id == device.user_id) {
            None => Ok(false),
            Some(found) => self.revoke_device(&found, Actor::Owner).await,
        }
    }

    /// Revokes a device: from then on it proves nothing, and what it approved but nobody redeemed
    /// yields no tokens. False when it was revoked already.
    pub async fn revoke_device(&self, device: &Device, by: Actor) -> Result<bool, StoreError> {
        let moved = self
            .move_device(
                device,
                &[DeviceState::Active, DeviceState::Pending],
                DeviceState::Revoked,
                "device.revoked",
                by,
            )
            .await?;
        if moved {
            tracing::info!(
                device = log_device(&device.id),
                by = by.as_str(),
                "device revoked"
            );
        }
        Ok(moved)
    }

    /// Lets a pending device take part; false when it was not pending.
    pub async fn confirm_device(&self, device: &Device) -> Result<bool, StoreError> {
        self.move_device(
            device,
            &[DeviceState::Pending],
            DeviceState::Active,
            "device.confirmed",
            Actor::Operator,
        )
        .await
    }

    async fn move_device(
        &self,
        device: &Device,
        from: &[DeviceState],
        to: DeviceState,
        kind: &'static str,
        by: Actor,
    ) -> Result<bool, StoreError> {
        let now = self.clock.now();
        let owner = self.owner(device).await?;
        let payload = json!({ "user": owner.id, "device": device.id, "by": by.as_str() });
        let entry = self.entry(kind, now, payload);
        let revoked = EventKind::DeviceRevoked {
            user: owner.id.clone(),
            device: device.id.clone(),
            by: by.as_str().into(),
        };
        let event = (to == DeviceState::Revoked)
            .then(|| self.event(revoked, owner.partition, now))
            .flatten();
        let moved = self
            .directory
            .move_device(device, from, to, now, entry, event.as_ref())
            .await?;
        if moved {
            if event.is_some() {
                self.ledger_jobs_ready.notify_waiters();
            }
            self.announce(&owner.id, owner.partition).await;
        }
        Ok(moved)
    }

    /// Has the person's streams look again at once. They would do so by themselves, a little later.
    pub(super) async fn announce(&self, user: &UserId, partition: Partition) {
        if let Err(error) = self.pending.announce(user, partition).await {
            tracing::warn!(%error, "streams are not told; they will look by themselves");
        }
    }

    async fn owner(&self, device: &Device) -> Result<User, StoreError> {
        self.directory
            .user(&device.user_id)
            .await?
            .ok_or_else(|| StoreError::Corrupt {
                table: "devices",
                row: device.id.to_string(),
                what: "user_id",
            })
    }

    /// Changes what the device says of itself.
    pub async fn describe_device(
        &self,
        device: &AuthenticatedDevice,
        description: &DeviceDescription,
    ) -> Result<(), StoreError> {
        self.directory
            .describe_device(&device.id, description)
            .await
    }

    /// Changes where a push reaches the device, and in which app.
    pub async fn set_push_target(
        &self,
        device: &AuthenticatedDevice,
        platform: Platform,
        target: Option<&Secret>,
        app_id: Option<&AppId>,
    ) -> Result<(), PushTargetError> {
        if let Some(target) = target {
            self.push.check_target(platform, target)?;
        }
        self.directory
            .set_push_target(&device.id, platform, target, app_id, self.clock.now())
            .await?;
        Ok(())
    }
}
