//! The matching code: shown by the relying party, typed on the phone. Who was not sent there by that
//! screen does not know it.

use super::Timestamp;
use std::ops::RangeInclusive;
use std::time::Duration;

/// How many digits a client may ask for.
pub const DIGITS: RangeInclusive<u8> = 2..=8;
/// Wrong codes in a row after which none is taken for a while.
const TRIES: u32 = 5;
/// For how long; twice as long after each further one.
const BLOCKED: Duration = Duration::from_secs(15 * 60);
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// Whether a text can be a code at all.
pub fn is_code(text: &str) -> bool {
    let length = u8::try_from(text.len()).unwrap_or(u8::MAX);
    DIGITS.contains(&length) && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// How a person's typing of codes has gone lately, over all their requests and devices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CodeEntry {
    pub wrong_in_a_row: u32,
    pub blocked_until: Option<Timestamp>,
}

impl CodeEntry {
    /// Until when no code is taken, if that is so.
    pub fn blocked(&self, now: Timestamp) -> Option<Timestamp> {
        self.blocked_until.filter(|until| now < *until)
    }

    #[must_use]
    pub fn after(self, code_is_right: bool, now: Timestamp) -> Self {
        if code_is_right {
            return Self::default();
        }
        let wrong_in_a_row = self.wrong_in_a_row.saturating_add(1);
        let over = wrong_in_a_row.checked_sub(TRIES);
        let block = over.map(|over| BLOCKED.saturating_mul(1 << over.min(20)).min(LONGEST));
        Self {
            wrong_in_a_row,
            blocked_until: block.map(|block| now.plus(block)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fifth_wrong_code_in_a_row_stops_code_entry_and_each_further_one_for_longer() {
        let now = Timestamp::from_secs(1000);
        let mut entry = CodeEntry::default();
        let mut blocks = Vec::new();
        for _ in 0..14 {
            entry = entry.after(false, now);
            blocks.push(
                entry
                    .blocked(now)
                    .map(|until| until.since(now).as_secs() / 60),
            );
        }
        let minutes = [15, 30, 60, 120, 240, 480, 960, 1440, 1440, 1440];
        assert_eq!(blocks[..4], [None; 4]);
        assert_eq!(blocks[4..], minutes.map(Some));
        assert_eq!(entry.after(true, now), CodeEntry::default());
    }

    #[test]
    fn a_block_ends() {
        let at = Timestamp::from_secs;
        let entry = CodeEntry {
            wrong_in_a_row: 5,
            blocked_until: Some(at(900)),
        };
        assert_eq!(entry.blocked(at(899)), Some(at(900)));
        assert_eq!(entry.blocked(at(900)), None);
    }

    #[test]
    fn what_can_be_a_code() {
        for code in ["00", "123456", "12345678"] {
            assert!(is_code(code), "{code}");
        }
        for code in [
            "",
            "1",
            "123456789",
            "12345a",
            " 123456",
            "１２３４",
            "-12345",
        ] {
            assert!(!is_code(code), "{code}");
        }
    }
}
