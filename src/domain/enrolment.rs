//! The code that lets one phone bind itself to one person, once.

use super::{DeviceId, Timestamp, UserId};

/// How many wrong guesses a typed code survives.
pub const MAX_TRIES: u32 = 5;
/// Letters of a typed code: Crockford's base 32, without those that look alike.
pub const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
/// Letters that find the enrolment; no secret.
pub const LOOKUP_LEN: usize = 5;
/// Letters that prove the right to it: 11 × 5 = 55 bits.
pub const SECRET_LEN: usize = 11;
/// The typed code without its hyphens.
pub const TYPED_LEN: usize = LOOKUP_LEN + SECRET_LEN;
/// Characters of the code in a link: 32 random bytes in base64url.
pub const LINK_LEN: usize = 43;

/// An enrolment that waits for its phone, or has met it.
#[derive(Clone, Debug)]
pub struct Enrolment {
    pub user_id: UserId,
    pub expires_at: Timestamp,
    pub wrong_tries: u32,
    /// The device that used it.
    pub device_id: Option<DeviceId>,
}

impl Enrolment {
    /// Whether a phone may still use it.
    pub fn is_open(&self, now: Timestamp) -> bool {
        self.device_id.is_none() && now < self.expires_at && self.wrong_tries < MAX_TRIES
    }
}

/// A code as a phone sent it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EnrolmentCode {
    /// From the link or QR: at least 128 bits, found by its own keyed hash.
    Link(String),
    /// Typed by a person: found by its first letters, proven by the rest.
    Typed { lookup: String, secret: String },
}

impl EnrolmentCode {
    /// Reads either form. Typed codes may be lower case, hyphenated, and use look-alikes (O, I, L).
    pub fn parse(text: &str) -> Option<Self> {
        let is_base64url = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        if text.len() == LINK_LEN && text.bytes().all(is_base64url) {
            return Some(Self::Link(text.to_owned()));
        }
        if text.len() > 2 * TYPED_LEN {
            return None;
        }
        let letters = text
            .chars()
            .filter(|c| !matches!(c, '-' | ' '))
            .map(|c| match c.to_ascii_uppercase() {
                'O' => '0',
                'I' | 'L' => '1',
                other => other,
            })
            .collect::<String>();
        let known = letters.bytes().all(|b| ALPHABET.contains(&b));
        (known && letters.len() == TYPED_LEN).then(|| Self::Typed {
            lookup: letters[..LOOKUP_LEN].to_owned(),
            secret: letters[LOOKUP_LEN..].to_owned(),
        })
    }

    /// The form that is hashed into the proof: what the link holds, or the letters without hyphens.
    pub fn canonical(&self) -> String {
        match self {
            Self::Link(code) => code.clone(),
            Self::Typed { lookup, secret } => format!("{lookup}{secret}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_people_type_is_understood() {
        let code = EnrolmentCode::parse("AB0DE-FGHJK-MNPQR-1");
        assert_eq!(
            code,
            Some(EnrolmentCode::Typed {
                lookup: "AB0DE".into(),
                secret: "FGHJKMNPQR1".into()
            })
        );
        assert_eq!(EnrolmentCode::parse("abode fghjk mnpqr l"), code);
        for text in [
            "",
            "AB0DE",
            "AB0DE-FGHJK-MNPQR-U",
            "AB0DE-FGHJK-MNPQR-1A",
            "AB0DE-FGHJK-MNPQR-\u{c4}",
        ] {
            assert_eq!(EnrolmentCode::parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_refused_or_has_one_canonical_form(text in ".{0,50}|[0-9A-Za-z_-]{16,43}") {
            if let Some(code) = EnrolmentCode::parse(&text) {
                prop_assert_eq!(EnrolmentCode::parse(&code.canonical()), Some(code));
            }
        }
    }
}
