//! assent asks a person, on their own phone, and brings back a signed answer.

pub mod clock;
pub mod domain;
pub mod entropy;
