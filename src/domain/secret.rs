//! Values that must never be printed: their `Debug` says only what they are.

use std::fmt;
use zeroize::Zeroizing;

/// A secret text (client secret, enrolment code, token). Wiped when dropped; never equal by `==`.
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    pub fn new(value: String) -> Self {
        Self(Zeroizing::new(value))
    }

    /// The value itself, for the one place that must have it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// The handle a relying party polls with (CIBA Core 7.3). Knowing it proves nothing, yet it is stored
/// only sealed and looked up by its hash.
#[derive(Clone)]
pub struct AuthReqId(Zeroizing<String>);

impl AuthReqId {
    pub fn new(value: String) -> Self {
        Self(Zeroizing::new(value))
    }

    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for AuthReqId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AuthReqId(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_shows_no_value() {
        let shown = format!(
            "{:?} {:?}",
            Secret::new("hunter2".into()),
            AuthReqId::new("hunter3".into())
        );
        assert!(!shown.contains("hunter"), "{shown}");
    }
}
