//! Which gateway wakes a device: by its platform, and by its app where a server wakes several.

use super::apns::is_device_token;
use super::guard::{Callee, Guard};
use super::web_push::not_a_subscription;
use super::{Apns, Fcm, PushMessage, PushOutcome, PushSender, Reason, WebPush};
use crate::domain::device::{InvalidPushTarget, Platform};
use crate::domain::{AppId, Device, Secret, Timestamp};
use async_trait::async_trait;

/// All gateways of a server.
#[derive(Default)]
pub struct PushRouter {
    pub apns: Apps<Apns>,
    pub fcm: Apps<Fcm>,
    /// One key for all: a subscription is made for it.
    pub web_push: Option<WebPush>,
    guard: Guard,
}

/// One gateway's credentials, app by app.
pub struct Apps<G>(Vec<(Option<AppId>, G)>);

impl<G> Default for Apps<G> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<G> Apps<G> {
    pub fn add(&mut self, app_id: Option<AppId>, gateway: G) {
        self.0.push((app_id, gateway));
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A device that names an app gets that app's, any other the one that is for all. A single set of
    /// credentials is for devices that name none, too.
    fn choose(&self, app_id: Option<&AppId>) -> Option<&(Option<AppId>, G)> {
        let named = |wanted: Option<&AppId>| {
            let mut sets = self.0.iter();
            sets.find(|(id, _)| id.as_ref() == wanted)
        };
        let only = || self.0.first().filter(|_| self.0.len() == 1);
        match app_id {
            Some(_) => named(app_id).or_else(|| named(None)),
            None => named(None).or_else(only),
        }
    }
}

impl PushRouter {
    pub fn is_empty(&self) -> bool {
        self.apns.is_empty() && self.fcm.is_empty() && self.web_push.is_none()
    }
}

#[async_trait]
impl PushSender for PushRouter {
    async fn send(&self, device: &Device, message: &PushMessage, now: Timestamp) -> PushOutcome {
        let Some(target) = &device.push_target else {
            return PushOutcome::Unreachable;
        };
        let app_id = device.app_id.as_ref();
        let platform = device.description.platform;
        match platform {
            Platform::Apns => match self.apns.choose(app_id) {
                Some((app_id, apns)) => {
                    let callee = Callee::credentials(platform, app_id.as_ref());
                    let call = apns.send(target, message, now);
                    self.guard.call(callee, now, call).await
                }
                None => nobody(&self.apns),
            },
            Platform::Fcm => match self.fcm.choose(app_id) {
                Some((app_id, fcm)) => {
                    let callee = Callee::credentials(platform, app_id.as_ref());
                    let call = fcm.send(target, message, now);
                    self.guard.call(callee, now, call).await
                }
                None => nobody(&self.fcm),
            },
            Platform::WebPush => {
                let Some(web_push) = &self.web_push else {
                    return PushOutcome::Unreachable;
                };
                match web_push.subscription(target) {
                    Ok(subscription) => {
                        let callee = Callee::push_service(subscription.host());
                        let call = web_push.send(&subscription, message, now);
                        self.guard.call(callee, now, call).await
                    }
                    Err(InvalidPushTarget::Form) => not_a_subscription(),
                    // The operator has taken its host from the list since.
                    Err(InvalidPushTarget::Host) => PushOutcome::Unreachable,
                }
            }
            Platform::None => PushOutcome::Unreachable,
        }
    }

    fn check_target(&self, platform: Platform, target: &Secret) -> Result<(), InvalidPushTarget> {
        match platform {
            Platform::Apns if self.apns.is_empty() => Ok(()),
            Platform::Apns if is_device_token(target.expose()) => Ok(()),
            Platform::Apns => Err(InvalidPushTarget::Form),
            Platform::WebPush => match &self.web_push {
                Some(web_push) => web_push.subscription(target).map(drop),
                None => Ok(()),
            },
            // Google says of no form that it is the only one.
            Platform::Fcm | Platform::None => Ok(()),
        }
    }
}

/// No credentials fit: none are wanted, or those of one app are missing.
fn nobody<G>(apps: &Apps<G>) -> PushOutcome {
    if apps.is_empty() {
        return PushOutcome::Unreachable;
    }
    PushOutcome::Misconfigured {
        reason: Reason::known("no credentials for the device's app"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_chosen_by_the_app() {
        let apps = |ids: &[Option<&'static str>]| {
            let mut apps = Apps::default();
            for id in ids {
                apps.add(id.map(AppId::new), id.unwrap_or("for all"));
            }
            apps
        };
        for (sets, device, chosen) in [
            (&[][..], None, None),
            (&[None][..], None, Some("for all")),
            (&[None][..], Some("a"), Some("for all")),
            (&[Some("a")][..], None, Some("a")),
            (&[Some("a")][..], Some("a"), Some("a")),
            (&[Some("a")][..], Some("b"), None),
            (&[Some("a"), Some("b")][..], None, None),
            (&[Some("a"), Some("b")][..], Some("b"), Some("b")),
            (&[Some("a"), None][..], None, Some("for all")),
            (&[Some("a"), None][..], Some("a"), Some("a")),
            (&[Some("a"), None][..], Some("c"), Some("for all")),
        ] {
            let apps = apps(sets);
            let device = device.map(AppId::new);
            let found = apps.choose(device.as_ref()).map(|(_, gateway)| *gateway);
            assert_eq!(found, chosen, "{sets:?} {device:?}");
        }
    }
}
