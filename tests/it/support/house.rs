//! All parts of a server on a database, without listeners: for tests of the stores themselves.

use super::{Backend, START, config, registration};
use assent::app::{Core, World};
use assent::clock::ManualClock;
use assent::crypto::generate::generate_p256;
use assent::crypto::jose::thumbprint;
use assent::domain::device::{DeviceDescription, DeviceState, Platform};
use assent::domain::token::AccessToken;
use assent::domain::user::Login;
use assent::domain::{AppId, Client, ClientId, Device, Scope, Secret, User};
use assent::entropy::{Entropy, SystemEntropy};
use assent::push::PushRecorder;
use assent::service::Services;
use assent::store::sql::Directory;
use assent::store::sql::directory::{Bound, NewEnrolment};
use assent::store::sql::tokens::NewAccessToken;
use assent::store::sql::{AuditEntry, Db};
use std::future::poll_fn;
use std::ops::Deref;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

pub struct House {
    pub core: Core,
    pub clock: Arc<ManualClock>,
    /// Keeps the database alive as long as the parts.
    pub backend: Backend,
}

/// The parts themselves: `house.ledger`, `house.pending` and so on.
impl Deref for House {
    type Target = Services;

    fn deref(&self) -> &Services {
        &self.core.services
    }
}

impl House {
    pub async fn new(backend: Backend) -> Self {
        Self::with_entropy(backend, Arc::new(SystemEntropy)).await
    }

    pub async fn with_entropy(backend: Backend, entropy: Arc<dyn Entropy>) -> Self {
        let clock = Arc::new(ManualClock::new(START));
        let core = open(&backend, clock.clone(), entropy).await;
        Self {
            core,
            clock,
            backend,
        }
    }

    /// Another node on the same database, with the same clock.
    pub async fn node(&self) -> Core {
        open(&self.backend, self.clock.clone(), Arc::new(SystemEntropy)).await
    }

    pub fn db(&self) -> &Db {
        &self.core.db
    }

    pub async fn client(&self, id: &str) -> Client {
        let added = self
            .add_client(Some(ClientId::new(id)), registration())
            .await;
        added.unwrap().unwrap().0
    }

    pub async fn user(&self, login: &str) -> User {
        let login = Login::parse(login).unwrap();
        let name = Some("Alice Example".into());
        self.add_user(login, name).await.unwrap().unwrap()
    }

    /// A device of this person, bound by an enrolment of its own.
    pub async fn device(&self, user: &User) -> Device {
        bind_device(&self.directory, user).await
    }

    /// Asserts that every chain of the audit is whole.
    pub async fn assert_audit_is_whole(&self) {
        let report = self.verify_audit(None).await.unwrap();
        assert!(report.is_whole(), "{:?}", report.findings);
    }
}

/// A device of this person, bound by an enrolment of its own.
pub async fn bind_device(directory: &Directory, user: &User) -> Device {
    let device = new_device(user);
    let enrolment = new_enrolment(user, device.id.as_str());
    directory
        .insert_enrolment(&enrolment, user.partition, entry())
        .await
        .unwrap();
    let link = &enrolment.link_hash;
    let bound = directory.bind_device(link, &device, user.partition, START, entry(), None);
    assert_eq!(bound.await.unwrap(), Bound::Yes);
    device
}

async fn open(backend: &Backend, clock: Arc<ManualClock>, entropy: Arc<dyn Entropy>) -> Core {
    let world = World {
        clock,
        entropy,
        push: Arc::new(PushRecorder::default()),
    };
    Core::migrate_and_open(&config(backend, None, vec![]), world)
        .await
        .unwrap()
}

/// A device with a key of its own, in no database yet.
pub fn new_device(user: &User) -> Device {
    let (_, key) = generate_p256();
    Device {
        id: thumbprint(&key),
        user_id: user.id.clone(),
        partition: user.partition,
        state: DeviceState::Active,
        key,
        description: DeviceDescription {
            label: "Ally's phone".into(),
            platform: Platform::Fcm,
            app_version: "1.0".into(),
            os_version: "14".into(),
        },
        push_target: Some(Secret::new("registration-token".into())),
        push_registered_at: START,
        app_id: Some(AppId::new("com.example.approver")),
        created_at: START,
        revoked_at: None,
    }
}

/// An access token as it is written down.
pub fn access_token(id: &str, user: &User, client: &ClientId) -> NewAccessToken {
    NewAccessToken {
        token: AccessToken {
            id: id.into(),
            client_id: client.clone(),
            user_id: Some(user.id.clone()),
            device_id: None,
            family_id: None,
            subject: user.id.to_string(),
            audience: "https://as.example".into(),
            scope: Scope::parse("openid").unwrap(),
            acr: None,
            auth_time: Some(START),
            issued_at: START,
            expires_at: START.plus(std::time::Duration::from_secs(600)),
        },
        hash: None,
    }
}

/// An enrolment whose hashes are made from `name`.
pub fn new_enrolment(user: &User, name: &str) -> NewEnrolment {
    NewEnrolment {
        link_hash: format!("link {name}"),
        lookup_hash: format!("lookup {name}"),
        secret_hash: format!("secret {name}"),
        user_id: user.id.clone(),
        created_at: START,
        expires_at: START.plus(std::time::Duration::from_secs(600)),
    }
}

pub fn entry() -> AuditEntry {
    AuditEntry {
        kind: "test",
        at: START,
        payload: serde_json::json!({ "test": true }),
        salt: [7; 16],
    }
}

/// Polls a future up to `steps` times, then drops it where it stands, as a time-out or a client that
/// hangs up would. `None`: it had not ended.
pub async fn cancel_after<F: Future>(steps: usize, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut polls = 0;
    poll_fn(|context| {
        polls += 1;
        match future.as_mut().poll(context) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if polls >= steps => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}
