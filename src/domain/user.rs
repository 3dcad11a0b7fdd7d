//! The people who are asked.

use super::{Partition, Timestamp, UserId};
use std::fmt;
use unicode_normalization::UnicodeNormalization as _;

/// A person who can be asked for approval.
#[derive(Clone, Debug)]
pub struct User {
    pub id: UserId,
    pub partition: Partition,
    pub login: Login,
    /// What an RP with the `profile` scope learns as `name`.
    pub name: Option<String>,
    pub created_at: Timestamp,
    pub locked_at: Option<Timestamp>,
    /// Tokens issued before this are no longer good.
    pub tokens_not_before: Option<Timestamp>,
}

/// What a relying party may send as `login_hint`: folded, so that spellings of one login are one login.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Login(String);

/// Why a text is not a login.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a login is 1 to 128 visible characters without spaces")]
pub struct InvalidLogin;

impl Login {
    /// Brings the text to NFKC and lower case and checks what is left.
    pub fn parse(text: &str) -> Result<Self, InvalidLogin> {
        if text.len() > 1024 {
            return Err(InvalidLogin);
        }
        let folded: String = text
            .nfkc()
            .flat_map(char::to_lowercase)
            .collect::<String>()
            .nfkc()
            .collect();
        let visible = |c: char| !c.is_control() && !c.is_whitespace();
        let length = folded.chars().count();
        if length == 0 || length > 128 || !folded.chars().all(visible) {
            return Err(InvalidLogin);
        }
        Ok(Self(folded))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A login is personal: it is kept out of debug output and so out of logs.
impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Login(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn spellings_of_one_login_are_one_login() {
        assert_eq!(
            Login::parse("Zo\u{eb}@Bank.Example"),
            Login::parse("zoe\u{308}@bank.example")
        );
    }

    #[test]
    fn what_is_not_a_login() {
        for text in [
            "",
            " ",
            "a b",
            "a\0b",
            "a\nb",
            &"x".repeat(129),
            &"x".repeat(5000),
        ] {
            assert_eq!(Login::parse(text), Err(InvalidLogin), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn folding_is_stable(text in ".{0,140}") {
            if let Ok(login) = Login::parse(&text) {
                prop_assert_eq!(Login::parse(login.as_str()), Ok(login));
            }
        }
    }
}
