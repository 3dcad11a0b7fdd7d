//! Bad input: every parameter and header of every endpoint, wrong in every way we could think of.
//!
//! Each case is a line of a table: a name, a request, the status and error it must get. `check` also
//! holds, for every one of them, that nothing was changed and nothing was told.

mod assertion;
mod backchannel;
mod backchannel_headers;
mod cancel;
mod check;
mod client_auth;
mod connection;
mod decision;
mod device_api;
mod device_proof;
mod enrolment;
mod enrolment_key;
pub mod forge;
mod hint_tokens;
mod notification_token;
mod paths_and_methods;
mod roles;
mod shapes;
mod token;
mod token_life;
mod userinfo;
pub mod wire;

use crate::support::{RelyingParty, TestApp, registration};
use assent::domain::client::{ClientAuthentication, Registration, SecretTransport};
use assent::phone::Phone;
use wire::Request;

impl TestApp {
    /// Where the public listener is, for a bare connection.
    pub fn address(&self) -> &str {
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
    pub fn form(&self, target: &str, body: impl AsRef<[u8]>) -> Request {
        Request::form(target, body).with("authorization", &self.credentials)
    }
}

/// A request of the device API with this proof, whatever it is worth.
pub fn with_proof(method: &str, target: &str, jwt: &str) -> Request {
    Request::new(method, target).with("authorization", format!("DeviceProof {jwt}"))
}

/// A request of the device API with a proof of its own.
pub fn proven(phone: &Phone, method: &str, target: &str, body: &[u8]) -> Request {
    let claims = phone.proof_claims(method, target, body);
    let request = with_proof(method, target, &phone.sign("device-proof+jwt", &claims));
    if body.is_empty() {
        return request;
    }
    request.with("content-type", "application/json").body(body)
}
