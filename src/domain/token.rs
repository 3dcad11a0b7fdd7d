//! Issued tokens, and what can end them before their time.

use super::device::DeviceState;
use super::{ClientId, DeviceId, Scope, Timestamp, UserId};

/// What begins an opaque access token; secret scanners can find it.
pub const OPAQUE_PREFIX: &str = "assent_at_";
/// What begins a refresh token.
pub const REFRESH_PREFIX: &str = "assent_rt_";

/// An access token as it is remembered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessToken {
    /// Its `jti` (RFC 9068 2.2); an opaque token has one too.
    pub id: String,
    pub client_id: ClientId,
    /// `None`: the client acts for itself.
    pub user_id: Option<UserId>,
    pub device_id: Option<DeviceId>,
    /// The refresh family it came with, or from.
    pub family_id: Option<String>,
    /// The `sub` this client knows the person by.
    pub subject: String,
    pub audience: String,
    pub scope: Scope,
    pub acr: Option<String>,
    pub auth_time: Option<Timestamp>,
    pub issued_at: Timestamp,
    pub expires_at: Timestamp,
}

/// Everything that can end a token, read at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Revocations {
    pub token: Option<Timestamp>,
    pub family: Option<Timestamp>,
    /// The state of the device that approved; `None`: no device did.
    pub device: Option<DeviceState>,
    pub user_locked: Option<Timestamp>,
    pub user_not_before: Option<Timestamp>,
    pub client_locked: Option<Timestamp>,
    pub client_not_before: Option<Timestamp>,
}

impl Revocations {
    /// Whether a token issued at `issued_at` is still good. Each layer ends it alone.
    pub fn leave_alone(&self, issued_at: Timestamp) -> bool {
        let too_old = |not_before: Option<Timestamp>| not_before.is_some_and(|at| issued_at < at);
        self.token.is_none()
            && self.family.is_none()
            && matches!(self.device, None | Some(DeviceState::Active))
            && self.user_locked.is_none()
            && !too_old(self.user_not_before)
            && self.client_locked.is_none()
            && !too_old(self.client_not_before)
    }
}

/// An access token with everything that can end it.
#[derive(Clone, Debug)]
pub struct KnownToken {
    pub token: AccessToken,
    pub revocations: Revocations,
}

impl KnownToken {
    pub fn is_active(&self, now: Timestamp) -> bool {
        now < self.token.expires_at && self.revocations.leave_alone(self.token.issued_at)
    }
}

/// The right to get new access tokens, from one approval to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefreshFamily {
    pub id: String,
    pub client_id: ClientId,
    pub user_id: UserId,
    pub device_id: Option<DeviceId>,
    pub subject: String,
    pub scope: Scope,
    pub acr: String,
    pub auth_time: Timestamp,
    pub created_at: Timestamp,
    /// Absolute: no refresh moves it.
    pub expires_at: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_layer_ends_a_token_alone() {
        let at = |secs| Some(Timestamp::from_secs(secs));
        let issued = Timestamp::from_secs(100);
        let none = Revocations {
            device: Some(DeviceState::Active),
            ..Revocations::default()
        };
        assert!(none.leave_alone(issued));
        assert!(Revocations::default().leave_alone(issued));
        assert!(
            Revocations {
                user_not_before: at(100),
                ..none
            }
            .leave_alone(issued)
        );
        assert!(
            Revocations {
                client_not_before: at(100),
                ..none
            }
            .leave_alone(issued)
        );
        for revoked in [
            Revocations {
                token: at(1),
                ..none
            },
            Revocations {
                family: at(1),
                ..none
            },
            Revocations {
                device: Some(DeviceState::Revoked),
                ..none
            },
            Revocations {
                device: Some(DeviceState::Pending),
                ..none
            },
            Revocations {
                user_locked: at(1),
                ..none
            },
            Revocations {
                user_not_before: at(101),
                ..none
            },
            Revocations {
                client_locked: at(1),
                ..none
            },
            Revocations {
                client_not_before: at(101),
                ..none
            },
        ] {
            assert!(!revoked.leave_alone(issued), "{revoked:?}");
        }
    }
}
