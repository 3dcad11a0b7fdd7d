//! What keeps people from being worn down, fooled, guessed or found out.

mod bombing;
mod decoys;
mod deliveries;
mod denials;
mod matching;

use crate::support::{RelyingParty, TestApp};
use assent::domain::RequestId;
use assent::phone::Phone;

/// `bank`, `shop` and whoever else asks.
async fn clients<const N: usize>(app: &TestApp, names: [&str; N]) -> [RelyingParty; N] {
    let mut clients = Vec::new();
    for name in names {
        clients.push(app.client(name).await);
    }
    let Ok(clients) = clients.try_into() else {
        unreachable!("as many clients as names")
    };
    clients
}

/// What waits in a phone's inbox.
async fn inbox(phone: &Phone) -> Vec<RequestId> {
    let waiting = phone.inbox().await.unwrap();
    waiting.into_iter().map(|item| item.id).collect()
}

/// How many pushes the jobs that are due now send.
async fn pushes(app: &TestApp) -> usize {
    let before = app.push.sent().len();
    app.run_jobs().await;
    app.push.sent().len() - before
}
