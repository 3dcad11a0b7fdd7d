//! `assent device list|confirm|revoke`.

use super::output::time;
use super::{Context, user};
use crate::app::Core;
use crate::domain::{Device as Enrolled, DeviceId};
use crate::service::devices::Actor;
use anyhow::Context as _;
use clap::Subcommand;
use serde_json::json;

#[derive(Debug, Subcommand)]
pub enum Device {
    /// List a person's devices
    List {
        /// The person's login
        user: String,
    },
    /// Let a device take part that waits for confirmation
    Confirm {
        // A thumbprint in base64url may begin with a hyphen.
        #[arg(allow_hyphen_values = true)]
        device_id: String,
    },
    /// Revoke a device for ever
    Revoke {
        #[arg(allow_hyphen_values = true)]
        device_id: String,
    },
}

impl Device {
    pub async fn run(self, context: &Context) -> anyhow::Result<()> {
        let core = context.core().await?;
        let output = &context.output;
        match self {
            Self::List { user } => {
                let user = user::find(&core, &user).await?;
                let devices = core.services.directory.devices_of(&user.id).await?;
                let rows: Vec<_> = devices
                    .iter()
                    .map(|device| {
                        vec![
                            device.id.to_string(),
                            device.state.to_string(),
                            device.description.label.clone(),
                            device.description.platform.to_string(),
                            time(device.created_at),
                        ]
                    })
                    .collect();
                let values = devices
                    .iter()
                    .map(|device| {
                        json!({
                            "device_id": device.id,
                            "state": device.state,
                            "label": device.description.label,
                            "platform": device.description.platform,
                            "created_at": device.created_at.secs(),
                            "revoked_at": device.revoked_at.map(|at| at.secs()),
                        })
                    })
                    .collect();
                let empty = "There is no device; enrol one with `assent enrol USER`.";
                output.table(
                    &["device_id", "state", "label", "platform", "since"],
                    &rows,
                    values,
                    empty,
                );
            }
            Self::Confirm { device_id } => {
                let device = find(&core, &device_id).await?;
                let confirmed = core.services.confirm_device(&device).await?;
                anyhow::ensure!(
                    confirmed,
                    "the device does not wait for confirmation: it is {}",
                    device.state
                );
                output.result(
                    "The device is active.",
                    &json!({ "device_id": device.id, "state": "active" }),
                );
            }
            Self::Revoke { device_id } => {
                let device = find(&core, &device_id).await?;
                let revoked = core
                    .services
                    .revoke_device(&device, Actor::Operator)
                    .await?;
                anyhow::ensure!(revoked, "the device is revoked already");
                output.result(
                    "The device is revoked.",
                    &json!({ "device_id": device.id, "state": "revoked" }),
                );
            }
        }
        core.db.close().await;
        Ok(())
    }
}

pub async fn find(core: &Core, id: &str) -> anyhow::Result<Enrolled> {
    let unknown = "there is no such device; see `assent device list USER`";
    let id = DeviceId::parse(id).context(unknown)?;
    core.services.directory.device(&id).await?.context(unknown)
}
