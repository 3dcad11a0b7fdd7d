//! Bad input: every parameter and header of every endpoint, wrong in every way we could think of.
//!
//! Each case is a line of a table: a name, a request, the status and error it must get. `check` also
//! holds, for every one of them, that nothing was changed and nothing was told.

mod backchannel;
mod backchannel_headers;
mod check;
mod client_auth;
mod wire;

use crate::support::{RelyingParty, TestApp, registration};
use assent::domain::client::{ClientAuthentication, Registration, SecretTransport};
use wire::Request;

impl TestApp {
    /// Where the public listener is, for a bare connection.
    fn address(&self) -> &str {
        self.url.strip_prefix("http://").unwrap()
    }

    /// A relying party that sends its secret in the body.
    async fn posting_client(&self, id: &str) -> RelyingParty {
        let authentication = ClientAuthentication::Secret(SecretTransport::Post);
        self.client_with(
            id,
            Registration {
                authentication,
                ..registration()
            },
        )
        .await
    }
}

impl RelyingParty {
    /// A form from this client, body as given.
    fn form(&self, target: &str, body: impl AsRef<[u8]>) -> Request {
        Request::form(target, body).with("authorization", &self.credentials)
    }
}
