//! A request that is withdrawn, or whose client, person or device is locked or revoked, between any two
//! steps of its way: what the client learns, and that no token lives on.

use crate::support::rp_endpoint::{Reply, RpEndpoint};
use crate::support::{
    Backend, RelyingParty, TestApp, approve, assert_oauth_error, on_both, registration, request_id,
    show,
};
use assent::domain::client::{Delivery, DeliveryMode, Grant, Registration};
use assent::domain::request::State;
use assent::domain::{Decision, User};
use assent::phone::{Phone, PhoneError, ShownRequest};
use assent::service::devices::Actor;
use assent::service::reconcile::Standings;
use serde_json::{Value, json};

on_both!(polled, pinged, pushed);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    Cancel,
    LockClient,
    LockUser,
    RevokeDevice,
}

/// Where the request is when it happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gap {
    Started,
    Shown,
    /// The Ledger has the approval, and the projection does not know of it.
    Decided,
    Approved,
    /// The tokens exist, and the push that was to bring them failed.
    Undelivered,
    Delivered,
}

const EVENTS: [Event; 4] = [
    Event::Cancel,
    Event::LockClient,
    Event::LockUser,
    Event::RevokeDevice,
];
const GAPS: [Gap; 6] = [
    Gap::Started,
    Gap::Shown,
    Gap::Decided,
    Gap::Approved,
    Gap::Undelivered,
    Gap::Delivered,
];

impl Gap {
    const fn has_approval(self) -> bool {
        !matches!(self, Self::Started | Self::Shown)
    }

    const fn has_tokens(self) -> bool {
        matches!(self, Self::Undelivered | Self::Delivered)
    }
}

/// What a poll says afterwards, and what it says when the time is up.
fn polls(event: Event, gap: Gap) -> (&'static str, &'static str) {
    match (event, gap) {
        (_, Gap::Undelivered | Gap::Delivered) => ("invalid_grant", "invalid_grant"),
        // Nobody can answer any more, and nobody has: only time ends it.
        (Event::LockClient | Event::RevokeDevice, Gap::Started | Gap::Shown) => {
            ("authorization_pending", "expired_token")
        }
        _ => ("access_denied", "access_denied"),
    }
}

/// The errors that are pushed. Of an expiry the client knows by itself (CIBA Core 12).
const fn pushes(event: Event, gap: Gap) -> Option<&'static str> {
    match (event, gap) {
        (_, Gap::Undelivered | Gap::Delivered) => None,
        (_, Gap::Decided | Gap::Approved) => Some("transaction_failed"),
        (Event::LockUser, _) => Some("access_denied"),
        // Whoever cancels knows.
        (Event::Cancel | Event::LockClient | Event::RevokeDevice, _) => None,
    }
}

/// What the phone is told that comes late.
const fn answers(event: Event) -> (u16, &'static str) {
    match event {
        Event::Cancel | Event::LockUser => (409, "already_decided"),
        Event::LockClient => (403, "decision_not_allowed"),
        Event::RevokeDevice => (403, "device_revoked"),
    }
}

async fn polled(backend: Backend) {
    every_gap(backend, DeliveryMode::Poll).await;
}

async fn pinged(backend: Backend) {
    every_gap(backend, DeliveryMode::Ping).await;
}

async fn pushed(backend: Backend) {
    every_gap(backend, DeliveryMode::Push).await;
}

async fn every_gap(backend: Backend, mode: DeliveryMode) {
    let app = TestApp::with(backend, vec![("ciba.cancel_endpoint", "true".into())]).await;
    let resource = Registration {
        audience: Some(app.url.clone()),
        ..registration()
    };
    let resource = app.client_with("resource", resource).await;
    for gap in GAPS {
        if gap == Gap::Undelivered && mode != DeliveryMode::Push {
            continue;
        }
        for event in EVENTS {
            let name = format!("{mode} {event:?} {gap:?}");
            let journey = Journey::begin(&app, mode, gap, &name.replace(' ', "-")).await;
            println!("{name}");
            journey.interrupt(event, gap).await;
            journey.check(event, gap, mode, &resource).await;
        }
    }
    let report = app.services().verify_audit(None).await.unwrap();
    assert!(report.is_whole(), "{:?}", report.findings);
}

struct Journey<'a> {
    app: &'a TestApp,
    client: RelyingParty,
    endpoint: RpEndpoint,
    user: User,
    phone: Phone,
    id: String,
    shown: Option<ShownRequest>,
    /// Token responses, by poll or by push.
    tokens: Vec<Value>,
}

impl<'a> Journey<'a> {
    /// As far as `gap`.
    async fn begin(app: &'a TestApp, mode: DeliveryMode, gap: Gap, name: &str) -> Self {
        let replies: &[Reply] = match gap {
            Gap::Undelivered => &[Reply::Status(503)],
            _ => &[],
        };
        let endpoint = RpEndpoint::new(replies).await;
        let url = endpoint.url.clone();
        let mut registration = Registration {
            delivery: match mode {
                DeliveryMode::Poll => Delivery::Poll,
                DeliveryMode::Ping => Delivery::Ping { endpoint: url },
                DeliveryMode::Push => Delivery::Push { endpoint: url },
            },
            ..registration()
        };
        registration.grants.insert(Grant::RefreshToken);
        let client = app.client_with(name, registration).await;
        let user = app.user(&name.to_lowercase()).await;
        let phone = app.phone(&user).await;
        let id = client.start_told(user.login.as_str()).await;
        let mut journey = Self {
            app,
            client,
            endpoint,
            user,
            phone,
            id,
            shown: None,
            tokens: Vec::new(),
        };
        journey.go_to(gap, mode).await;
        journey
    }

    async fn go_to(&mut self, gap: Gap, mode: DeliveryMode) {
        match gap {
            Gap::Started => {}
            Gap::Shown => self.shown = Some(show(&self.phone, &self.id).await),
            Gap::Decided => {
                let table = "pending_requests";
                self.app.backend.refuse("UPDATE", table).await;
                approve(&self.phone, &self.id).await;
                self.app.backend.allow("UPDATE", table).await;
                let (pending, now) = (&self.app.services().pending, self.app.now());
                let known = pending
                    .find(self.app.key(&self.client, &self.id), now)
                    .await
                    .unwrap();
                assert_eq!(known.unwrap().state, State::Pending);
            }
            Gap::Approved => approve(&self.phone, &self.id).await,
            Gap::Undelivered | Gap::Delivered => {
                approve(&self.phone, &self.id).await;
                self.app.run_jobs().await;
                if mode != DeliveryMode::Push {
                    let answer = self.client.poll(&self.id).await;
                    assert_eq!(answer.status, 200, "{}", answer.body);
                    self.tokens.push(answer.json());
                }
            }
        }
    }

    async fn interrupt(&self, event: Event, gap: Gap) {
        let services = self.app.services();
        match event {
            Event::Cancel => {
                let parameters = [("auth_req_id", self.id.as_str())];
                let answer = self.client.post("/bc-cancel", &parameters).await;
                if gap.has_tokens() {
                    assert_oauth_error(&answer, 400, "invalid_request");
                } else {
                    assert_eq!(answer.status, 204, "{}", answer.body);
                }
            }
            Event::LockClient => {
                assert!(services.lock_client(&self.client.client.id).await.unwrap());
            }
            Event::LockUser => {
                services.lock_user(&self.user).await.unwrap();
            }
            Event::RevokeDevice => {
                let device = services.directory.device(&self.phone.id()).await;
                let device = device.unwrap().unwrap();
                let revoked = services.revoke_device(&device, Actor::Operator).await;
                assert!(revoked.unwrap());
            }
        }
    }

    async fn check(mut self, event: Event, gap: Gap, mode: DeliveryMode, resource: &RelyingParty) {
        if !gap.has_approval() {
            let (status, code) = answers(event);
            assert_eq!(self.late_answer().await, (status, code.to_owned()));
        }
        let before = self.endpoint.received().len();
        self.let_time_pass(1).await;
        match mode {
            DeliveryMode::Push => self.check_pushes(event, gap, before),
            DeliveryMode::Poll | DeliveryMode::Ping => {
                let pings = usize::from(mode == DeliveryMode::Ping && decided(event, gap));
                assert_eq!(self.endpoint.received().len(), pings);
                let (at_once, in_the_end) = polls(event, gap);
                assert_oauth_error(&self.client.poll(&self.id).await, 400, at_once);
                self.let_time_pass(119).await;
                assert_oauth_error(&self.client.poll(&self.id).await, 400, in_the_end);
            }
        }
        // Nothing comes later.
        let told = self.endpoint.received().len();
        self.let_time_pass(200).await;
        assert_eq!(self.endpoint.received().len(), told);
        self.check_tokens(event, gap, resource).await;
    }

    /// The phone tries nevertheless.
    async fn late_answer(&self) -> (u16, String) {
        let shown = match &self.shown {
            Some(shown) => shown,
            None => match self.phone.show(request_id(&self.id)).await {
                Err(PhoneError::Refused { status, code, .. }) => return (status, code),
                other => panic!("the phone sees {other:?}"),
            },
        };
        let answer = self.phone.try_answer(shown, Decision::Approve, None).await;
        let answer = answer.unwrap();
        let code = answer.json()["code"].as_str().unwrap().to_owned();
        (answer.status, code)
    }

    /// What worker and housekeeping do meanwhile.
    async fn let_time_pass(&self, seconds: u64) {
        self.app.services().reconcile(Standings::All).await.unwrap();
        self.app.run_jobs().await;
        self.app.advance(seconds);
        self.app.services().reconcile(Standings::All).await.unwrap();
        self.app.run_jobs().await;
    }

    fn check_pushes(&mut self, event: Event, gap: Gap, before: usize) {
        let all = self.endpoint.received();
        let (old, new) = all.split_at(before);
        match gap {
            Gap::Delivered => {
                assert_eq!((old.len(), new.len()), (1, 0));
                self.tokens.push(old[0].json());
            }
            Gap::Undelivered => {
                // What was promised once is sent again, to the byte: the tokens are worth nothing.
                assert_eq!((old.len(), new.len()), (1, 1));
                assert_eq!(old[0].body, new[0].body);
                self.tokens.push(new[0].json());
            }
            _ => {
                let errors: Vec<Value> = new.iter().map(|push| push.json()).collect();
                let expected: Vec<Value> = pushes(event, gap)
                    .map(|error| {
                        let description = &errors[0]["error_description"];
                        json!({ "auth_req_id": self.id, "error": error, "error_description": description })
                    })
                    .into_iter()
                    .collect();
                assert_eq!(errors, expected);
            }
        }
    }

    /// Whoever holds a token holds nothing, unless the client came too late to withdraw.
    async fn check_tokens(&self, event: Event, gap: Gap, resource: &RelyingParty) {
        let issued = format!(
            "issuances WHERE kind = 'issued' AND request_id = '{}'",
            request_id(&self.id)
        );
        let count = usize::from(gap.has_tokens());
        assert_eq!(self.app.backend.count(&issued).await, count);
        assert_eq!(self.tokens.len(), count);
        for tokens in &self.tokens {
            let alive = event == Event::Cancel;
            let token = |name: &str| tokens[name].as_str().unwrap().to_owned();
            let (access, refresh) = (token("access_token"), token("refresh_token"));
            for caller in [resource, &self.client] {
                let about = caller.introspect(&access).await.json();
                assert_eq!(about["active"], alive, "{about}");
            }
            let about = self.client.introspect(&refresh).await.json();
            assert_eq!(about["active"], alive, "{about}");
            let bearer = format!("Bearer {access}");
            let headers = [("authorization", bearer.as_str())];
            let url = format!("{}/userinfo", self.app.url);
            let answer = self.app.http.get(&url, &headers).await.unwrap();
            assert_eq!(answer.status == 200, alive, "{}", answer.body);
            let refreshed = self.client.refresh(&refresh).await;
            if alive {
                assert_eq!(refreshed.status, 200, "{}", refreshed.body);
            } else {
                assert_oauth_error(&refreshed, 400, "invalid_grant");
            }
        }
    }
}

/// Whether the Ledger knows an outcome that a client can be told of.
const fn decided(event: Event, gap: Gap) -> bool {
    gap.has_approval() || matches!(event, Event::LockUser)
}
