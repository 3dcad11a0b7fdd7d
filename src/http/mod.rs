//! The wire: parses, calls one use case, shapes the answer. Decides nothing.

mod admission;
mod backchannel;
mod cancel;
mod client;
mod device_api;
mod device_proof;
mod discovery;
mod enrolment;
mod error;
mod form;
mod management;
mod no_route;
mod observe;
mod problem;
mod stream;
mod token;
mod token_life;
mod userinfo;
mod websocket;

pub use admission::Admission;
pub use management::{Readiness, management};
pub use observe::observe;

use crate::service::Services;
use actix_web::web::{Data, ServiceConfig};
use std::sync::Arc;

/// What every handler can reach.
pub type App = Data<Arc<Services>>;

/// The paths, below the issuer, as clients and metadata know them.
pub mod path {
    pub const BACKCHANNEL: &str = "/bc-authorize";
    pub const TOKEN: &str = "/token";
    pub const USERINFO: &str = "/userinfo";
    pub const JWKS: &str = "/jwks";
    pub const INTROSPECT: &str = "/introspect";
    pub const REVOKE: &str = "/revoke";
    pub const CANCEL: &str = "/bc-cancel";
    pub const DEVICE_API: &str = "/device/v1/";
}

/// All public endpoints; `/bc-cancel` only where it is switched on.
pub fn public(config: &mut ServiceConfig, cancel_endpoint: bool) {
    if cancel_endpoint {
        cancel::configure(config);
    }
    discovery::configure(config);
    backchannel::configure(config);
    token::configure(config);
    token_life::configure(config);
    userinfo::configure(config);
    enrolment::configure(config);
    device_api::configure(config);
    stream::configure(config);
    config.default_service(actix_web::web::route().to(no_route::not_found));
}
