//! The Directory: clients, people, devices and enrolments.

use super::at;
use crate::support::house::{entry, new_device, new_enrolment};
use crate::support::{Backend, House, START, all, on_both, registration};
use assent::domain::client::{
    Client, ClientAuthentication, Delivery, Registration, SecretTransport, SecretVerifier,
};
use assent::domain::device::{DeviceDescription, DeviceState, Platform};
use assent::domain::user::Login;
use assent::domain::{AppId, ClientId, Partition, Secret, User, UserId};
use assent::store::StoreError;
use std::time::Duration;

on_both!(
    everything_is_read_back_as_it_was_written,
    a_login_and_a_client_id_are_taken_once,
    locks_and_states_change_once,
    a_push_target_is_sealed_for_its_device,
    a_damaged_row_is_reported_with_its_place,
);

fn alice() -> User {
    User {
        id: UserId::new("sub-alice"),
        partition: Partition(200),
        login: Login::parse("alice").unwrap(),
        name: None,
        created_at: at(1),
        locked_at: None,
        tokens_not_before: None,
    }
}

fn bank() -> Client {
    Client {
        id: ClientId::new("bank"),
        secret: Some(SecretVerifier {
            key_version: 3,
            mac: [9; 32],
        }),
        registration: Registration {
            name: "Bänk".into(),
            authentication: ClientAuthentication::Secret(SecretTransport::Post),
            delivery: Delivery::Push {
                endpoint: "https://bank.example/notify".into(),
            },
            open_requests_per_user: 4,
            long_poll: Duration::from_millis(29_999),
            ..registration()
        },
        created_at: at(2),
        locked_at: None,
        tokens_not_before: None,
    }
}

/// `Debug` of what holds no secret, and the secret itself.
fn shown(client: &Client) -> String {
    format!("{client:?} {:?}", client.secret.as_ref().unwrap().mac)
}

async fn everything_is_read_back_as_it_was_written(backend: Backend) {
    let house = House::new(backend).await;
    let directory = &house.directory;
    let (alice, bank) = (alice(), bank());
    assert!(directory.client(&bank.id).await.unwrap().is_none());
    assert!(directory.insert_client(&bank, entry()).await.unwrap());
    let found = directory.client(&bank.id).await.unwrap().unwrap();
    assert_eq!(shown(&found), shown(&bank));
    assert_eq!(directory.clients().await.unwrap().len(), 1);

    assert!(directory.user(&alice.id).await.unwrap().is_none());
    assert!(directory.insert_user(&alice, entry()).await.unwrap());
    let by_id = directory.user(&alice.id).await.unwrap().unwrap();
    let by_login = directory
        .user_by_login(&alice.login)
        .await
        .unwrap()
        .unwrap();
    for found in [by_id, by_login] {
        assert_eq!(format!("{found:?}"), format!("{alice:?}"));
        assert_eq!(found.login, alice.login);
    }

    let enrolment = new_enrolment(&alice, "1");
    directory
        .insert_enrolment(&enrolment, alice.partition, entry())
        .await
        .unwrap();
    let mut device = new_device(&alice);
    directory
        .bind_device("link 1", &device, alice.partition, START, entry(), None)
        .await
        .unwrap();
    for hash in ["link 1", "lookup 1"] {
        let found = directory.enrolment(hash).await.unwrap().unwrap();
        assert_eq!(
            (found.link_hash.as_str(), found.secret_hash.as_str()),
            ("link 1", "secret 1")
        );
        assert_eq!(found.enrolment.user_id, alice.id);
        assert_eq!(found.enrolment.expires_at, enrolment.expires_at);
        assert_eq!(found.enrolment.device_id, Some(device.id.clone()));
    }
    assert!(directory.enrolment("secret 1").await.unwrap().is_none());

    device.description = DeviceDescription {
        label: "Älter".into(),
        platform: Platform::Fcm,
        app_version: "2".into(),
        os_version: "15".into(),
    };
    directory
        .describe_device(&device.id, &device.description)
        .await
        .unwrap();
    for target in [Some("registration-token"), Some("another"), None] {
        device.push_target = target.map(|target| Secret::new(target.into()));
        device.description.platform = if target.is_some() {
            Platform::Apns
        } else {
            Platform::None
        };
        device.app_id = target.map(AppId::new);
        let (platform, secret) = (device.description.platform, device.push_target.as_ref());
        directory
            .set_push_target(&device.id, platform, secret, device.app_id.as_ref(), START)
            .await
            .unwrap();
        let found = directory.device(&device.id).await.unwrap().unwrap();
        assert_eq!(format!("{found:?}"), format!("{device:?}"));
        assert_eq!(found.push_target.as_ref().map(Secret::expose), target);
    }
    let of_alice = directory.devices_of(&alice.id).await.unwrap();
    assert_eq!(format!("{of_alice:?}"), format!("[{device:?}]"));
    assert!(
        directory
            .devices_of(&UserId::new("bob"))
            .await
            .unwrap()
            .is_empty()
    );
}

async fn a_login_and_a_client_id_are_taken_once(backend: Backend) {
    let house = House::new(backend).await;
    let before = house.backend.count("audit").await;
    let added = all((0..16).map(|n| {
        let directory = house.directory.clone();
        let user = User {
            id: UserId::new(format!("sub {n}")),
            partition: Partition(n),
            ..alice()
        };
        let mut client = bank();
        client.registration.name = format!("bank {n}");
        async move {
            let user_added = directory.insert_user(&user, entry()).await.unwrap();
            (
                user_added,
                directory.insert_client(&client, entry()).await.unwrap(),
            )
        }
    }))
    .await;
    assert_eq!(added.iter().filter(|(user, _)| *user).count(), 1);
    assert_eq!(added.iter().filter(|(_, client)| *client).count(), 1);
    assert_eq!(house.backend.count("users").await, 1);
    assert_eq!(house.backend.count("clients").await, 1);
    // Who lost left no trace.
    assert_eq!(house.backend.count("audit").await, before + 2);
    house.assert_audit_is_whole().await;

    // A `sub` is never reused; asking again would not help, and the error says so.
    let user = house
        .directory
        .user_by_login(&alice().login)
        .await
        .unwrap()
        .unwrap();
    let twin = User {
        login: Login::parse("twin").unwrap(),
        ..user
    };
    let refused = house.directory.insert_user(&twin, entry()).await;
    assert!(
        matches!(refused, Err(StoreError::Refused(_))),
        "{refused:?}"
    );
}

async fn locks_and_states_change_once(backend: Backend) {
    let house = House::new(backend).await;
    let directory = &house.directory;
    let (client, user) = (house.client("bank").await, house.user("alice").await);
    let device = house.device(&user).await;
    let moved = async |from: &[DeviceState], to, now| {
        let moved = directory.move_device(&device, from, to, now, entry(), None);
        moved.await.unwrap()
    };
    use DeviceState::{Active, Pending, Revoked};
    assert!(!moved(&[Pending], Active, START).await);
    assert!(moved(&[Active, Pending], Revoked, at(5)).await);
    assert!(!moved(&[Active, Pending], Revoked, at(6)).await);
    let found = directory.device(&device.id).await.unwrap().unwrap();
    assert_eq!((found.state, found.revoked_at), (Revoked, Some(at(5))));

    assert!(directory.lock_user(&user, at(7), entry()).await.unwrap());
    assert!(!directory.lock_user(&user, at(8), entry()).await.unwrap());
    let found = directory.user(&user.id).await.unwrap().unwrap();
    assert_eq!(found.locked_at, Some(at(7)));

    let secret = SecretVerifier {
        key_version: 2,
        mac: [5; 32],
    };
    assert!(
        directory
            .replace_secret(&client.id, &secret, entry())
            .await
            .unwrap()
    );
    assert!(
        directory
            .lock_client(&client.id, at(9), entry())
            .await
            .unwrap()
    );
    assert!(
        !directory
            .lock_client(&client.id, at(10), entry())
            .await
            .unwrap()
    );
    let found = directory.client(&client.id).await.unwrap().unwrap();
    assert_eq!(found.locked_at, Some(at(9)));
    let secret = found.secret.unwrap();
    assert_eq!((secret.key_version, secret.mac), (2, [5; 32]));
    let nobody = ClientId::new("nobody");
    assert!(
        !directory
            .lock_client(&nobody, START, entry())
            .await
            .unwrap()
    );
    assert!(
        !directory
            .replace_secret(&nobody, &secret, entry())
            .await
            .unwrap()
    );
    house.assert_audit_is_whole().await;
}

async fn a_push_target_is_sealed_for_its_device(backend: Backend) {
    let house = House::new(backend).await;
    let user = house.user("alice").await;
    let (first, second) = (house.device(&user).await, house.device(&user).await);
    let stored = house
        .backend
        .column("SELECT push_target FROM devices")
        .await;
    assert!(stored.iter().all(|sealed| !sealed.contains("registration")));
    let moved = format!(
        "UPDATE devices SET push_target = (SELECT push_target FROM devices WHERE id = '{}') WHERE id = '{}'",
        first.id, second.id
    );
    assert_eq!(house.backend.execute(&moved).await, 1);
    assert!(house.directory.device(&first.id).await.unwrap().is_some());
    let one = house.directory.device(&second.id).await.map(|_| ());
    let many = house.directory.devices_of(&user.id).await.map(|_| ());
    for result in [one, many] {
        assert!(
            matches!(&result, Err(StoreError::Corrupt { table: "devices", row, what: "push_target" }) if *row == second.id.to_string()),
            "{result:?}"
        );
    }
}

/// Nothing in the database makes the server fall over; what it cannot read it names.
async fn a_damaged_row_is_reported_with_its_place(backend: Backend) {
    let house = House::new(backend).await;
    let (client, user) = (house.client("bank").await, house.user("alice").await);
    let device = house.device(&user).await;
    let directory = &house.directory;
    for (table, row, column, damage) in [
        ("clients", client.id.as_str(), "registration", "'{}'"),
        ("clients", client.id.as_str(), "secret_mac", "'AAAA'"),
        ("clients", client.id.as_str(), "secret_key_version", "-1"),
        ("users", user.id.as_str(), "login", "'two words'"),
        ("users", user.id.as_str(), "partition", "256"),
        ("devices", device.id.as_str(), "state", "'lost'"),
        ("devices", device.id.as_str(), "platform", "'pager'"),
        ("devices", device.id.as_str(), "public_jwk", "'{}'"),
        ("devices", device.id.as_str(), "push_target", "'1.AAAA'"),
        ("enrolments", "link", "wrong_tries", "-1"),
    ] {
        let link = format!("link {}", device.id);
        let (key, row) = match table {
            "enrolments" => ("link_hash", link.as_str()),
            _ => ("id", row),
        };
        let sql =
            |value: &str| format!("UPDATE {table} SET {column} = {value} WHERE {key} = '{row}'");
        let cell = format!("SELECT CAST({column} AS TEXT) FROM {table} WHERE {key} = '{row}'");
        let good = house.backend.column(&cell).await.remove(0);
        assert_eq!(house.backend.execute(&sql(damage)).await, 1);
        let result = match table {
            "clients" => directory.client(&client.id).await.map(|_| ()),
            "users" => directory.user(&user.id).await.map(|_| ()),
            "devices" => directory.device(&device.id).await.map(|_| ()),
            _ => directory.enrolment(&link).await.map(|_| ()),
        };
        assert!(
            matches!(&result, Err(StoreError::Corrupt { table: t, row: r, what }) if *t == table && r == row && *what == column),
            "{table}.{column} = {damage}: {result:?}"
        );
        let quoted = format!("'{good}'");
        let number = good.parse::<i64>().is_ok();
        house
            .backend
            .execute(&sql(if number { &good } else { &quoted }))
            .await;
    }
    assert!(directory.client(&client.id).await.unwrap().is_some());
    assert!(directory.device(&device.id).await.unwrap().is_some());
}
