//! The rules of the house, pure: no async, no I/O, no clock; `now` is an argument.
//!
//! Read in the order of the journey: a [`Client`] asks about a [`User`] ([`request`]), the phone sees a
//! [`challenge`] and signs an [`approval`], which becomes an [`Outcome`], which is redeemed once.

#[macro_use]
pub mod text_enum;

pub mod approval;
pub mod binding_message;
pub mod breaker;
pub mod challenge;
pub mod client;
pub mod delivery;
pub mod device;
pub mod display;
pub mod enrolment;
pub mod event;
pub mod ids;
pub mod job;
pub mod key;
pub mod matching;
pub mod outcome;
pub mod pacing;
pub mod prompts;
pub mod request;
pub mod scope;
pub mod secret;
pub mod signature_algorithm;
pub mod strict_json;
pub mod time;
pub mod token;
pub mod user;
pub mod webhook;

pub use approval::{Approval, Decision, DenyReason};
pub use binding_message::BindingMessage;
pub use challenge::Challenge;
pub use client::Client;
pub use device::Device;
pub use event::{Event, EventKind};
pub use ids::{AppId, ClientId, DeviceId, Partition, RequestId, RequestKey, UserId};
pub use job::Job;
pub use outcome::Outcome;
pub use request::BackchannelRequest;
pub use scope::Scope;
pub use secret::{AuthReqId, Secret};
pub use signature_algorithm::SignatureAlgorithm;
pub use time::Timestamp;
pub use user::User;
pub use webhook::WebhookSecret;
