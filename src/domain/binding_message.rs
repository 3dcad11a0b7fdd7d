//! The short text shown on both sides so that a person can tell two requests apart (CIBA Core 7.1).

use serde::{Deserialize, Serialize};
use unicode_normalization::UnicodeNormalization as _;
use unicode_properties::{GeneralCategory as Category, UnicodeGeneralCategory as _};
use unicode_segmentation::UnicodeSegmentation as _;

/// The most user-perceived characters a binding message may have.
pub const MAX_GRAPHEMES: usize = 64;
/// The most marks that may follow one base character: enough for every living script, too few to
/// cover the line above.
const MAX_MARKS: usize = 4;

/// A binding message that is safe to show: NFC, 1 to 64 graphemes, nothing invisible, nothing that
/// turns text around, no link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct BindingMessage(String);

/// Why a text cannot be shown; the wording goes to the relying party's developer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidBindingMessage {
    #[error("binding_message is empty")]
    Empty,
    #[error("binding_message is longer than 64 characters")]
    TooLong,
    #[error("binding_message has a control, format, private-use or unassigned character")]
    Character,
    #[error("binding_message has too many combining marks on one character")]
    Marks,
    #[error("binding_message must not contain a link or an e-mail address")]
    Link,
}

impl BindingMessage {
    /// Brings the text to NFC, trims surrounding spaces and checks what is left.
    pub fn parse(text: &str) -> Result<Self, InvalidBindingMessage> {
        // Bounds the work before normalising: no 64 graphemes need more than this.
        if text.len() > 64 * 4 * (1 + MAX_MARKS) {
            return Err(InvalidBindingMessage::TooLong);
        }
        let text: String = text.nfc().collect::<String>().trim_matches(' ').to_owned();
        if text.is_empty() {
            return Err(InvalidBindingMessage::Empty);
        }
        if !text.chars().all(is_showable) {
            return Err(InvalidBindingMessage::Character);
        }
        if has_mark_pile(&text) {
            return Err(InvalidBindingMessage::Marks);
        }
        if text.graphemes(true).count() > MAX_GRAPHEMES {
            return Err(InvalidBindingMessage::TooLong);
        }
        if looks_like_link(&text) {
            return Err(InvalidBindingMessage::Link);
        }
        Ok(Self(text))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whether a character shows what it is: visible, or a plain space, and leaves its neighbours where they
/// are.
pub fn is_showable(c: char) -> bool {
    // U+200D and U+FE0F stay out too: an emoji sequence is not worth an invisible character.
    !matches!(
        c.general_category(),
        Category::Control
            | Category::Format
            | Category::Surrogate
            | Category::PrivateUse
            | Category::Unassigned
            | Category::LineSeparator
            | Category::ParagraphSeparator
    ) && (c == ' ' || c.general_category() != Category::SpaceSeparator)
        && !is_invisible(c)
}

/// Characters that show nothing although their category says otherwise: fillers and selectors.
fn is_invisible(c: char) -> bool {
    matches!(
        c,
        '\u{034F}' | '\u{115F}' | '\u{1160}' | '\u{17B4}' | '\u{17B5}' | '\u{2800}' | '\u{3164}'
            | '\u{FFA0}' | '\u{FFFC}' | '\u{FFFD}' | '\u{180B}'..='\u{180F}' | '\u{FE00}'..='\u{FE0F}'
            | '\u{E0100}'..='\u{E01EF}'
    )
}

fn has_mark_pile(text: &str) -> bool {
    let mut marks = 0;
    text.chars().any(|c| {
        let is_mark = matches!(
            c.general_category(),
            Category::NonspacingMark | Category::EnclosingMark | Category::SpacingMark
        );
        marks = if is_mark { marks + 1 } else { 0 };
        marks > MAX_MARKS
    }) || text
        .chars()
        .next()
        .is_some_and(|c| c.general_category() == Category::NonspacingMark)
}

/// Anything a phone or an eye would take for a link: a scheme, `www.`, an address, or a host name
/// whose last label is letters only. Compatibility forms are folded first, so full-width does not hide it.
fn looks_like_link(text: &str) -> bool {
    let folded: String = text
        .nfkc()
        .collect::<String>()
        .to_lowercase()
        .replace('。', ".");
    // Whatever stands around it: a phone makes a link of “evil.example” too.
    let could_be_host = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_');
    let mut runs = folded.split(|c| !could_be_host(c));
    if runs.any(|run| is_host(run.trim_matches('.'))) {
        return true;
    }
    folded
        .split([' ', '(', ')', '<', '>', '"', '\'', ',', ';', '[', ']'])
        .any(|word| {
            let word = word.trim_end_matches(['.', '!', '?', ':']);
            word.contains("://")
                || word.starts_with("www.")
                || word
                    .split_once('@')
                    .is_some_and(|(name, host)| !name.is_empty() && !host.is_empty())
                || [
                    "http:",
                    "https:",
                    "javascript:",
                    "data:",
                    "mailto:",
                    "tel:",
                    "intent:",
                ]
                .iter()
                .any(|scheme| word.starts_with(scheme))
        })
}

/// At least two labels, the last of letters only.
fn is_host(run: &str) -> bool {
    let mut labels = run.rsplit('.');
    let top = labels.next().unwrap_or_default();
    let mut rest = labels.peekable();
    rest.peek().is_some()
        && top.chars().count() >= 2
        && (top.chars().all(char::is_alphabetic) || top.starts_with("xn--"))
        && rest.all(|label| !label.is_empty())
}

impl From<BindingMessage> for String {
    fn from(message: BindingMessage) -> Self {
        message.0
    }
}

impl TryFrom<String> for BindingMessage {
    type Error = InvalidBindingMessage;

    fn try_from(text: String) -> Result<Self, InvalidBindingMessage> {
        Self::parse(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::InvalidBindingMessage as Why;
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_people_write_is_welcome() {
        for text in [
            "1234",
            "W4SCT",
            "Überweisung an Société Générale",
            "Pay £12.50 to Zoë",
            "Rent for Mr. Smith. Code 77-3",
            "ยืนยันการจ่ายเงิน 500 บาท",
            "支付 100 元",
            "مبلغ 50",
            "Zahlung 1.234,56 € (Ref. A/7)",
            "Tickets 👍 x2",
            "“Miete” 3/4, St. Gallen",
            "z. B. 12.50–13.00 Uhr / U.S.A.",
            "Data: 7; Tel: 12",
        ] {
            assert!(
                BindingMessage::parse(text).is_ok(),
                "{text}: {:?}",
                BindingMessage::parse(text)
            );
        }
    }

    #[test]
    fn spellings_of_one_text_are_one_message() {
        assert_eq!(
            BindingMessage::parse("Zoe\u{308}"),
            BindingMessage::parse("Zo\u{eb}")
        );
        assert_eq!(
            BindingMessage::parse(" a ").map(String::from),
            Ok("a".into())
        );
    }

    #[test]
    fn what_could_mislead_is_refused() {
        let cases: &[(&str, Why)] = &[
            ("", Why::Empty),
            ("   ", Why::Empty),
            ("a\nb", Why::Character),
            ("a\tb", Why::Character),
            ("a\0b", Why::Character),
            ("\u{202E}05 ruE yaP", Why::Character),
            ("a\u{2066}b", Why::Character),
            ("a\u{200B}b", Why::Character),
            ("a\u{200D}b", Why::Character),
            ("a\u{FEFF}b", Why::Character),
            ("a\u{00AD}b", Why::Character),
            ("a\u{061C}b", Why::Character),
            ("a\u{E000}b", Why::Character),
            ("a\u{0378}b", Why::Character),
            ("a\u{2028}b", Why::Character),
            ("a\u{00A0}b", Why::Character),
            ("a\u{3000}b", Why::Character),
            ("a\u{2800}b", Why::Character),
            ("a\u{3164}b", Why::Character),
            ("a\u{FE0F}b", Why::Character),
            ("a\u{E0041}b", Why::Character),
            ("a\u{300}\u{301}\u{302}\u{303}\u{304}\u{305}", Why::Marks),
            ("\u{338}abc", Why::Marks),
            ("https://evil.example", Why::Link),
            ("see HTTP://X", Why::Link),
            ("go to evil.example now", Why::Link),
            ("evil.example/pay?x=1", Why::Link),
            ("(www.evil)", Why::Link),
            ("mail me@evil.example", Why::Link),
            ("ｅｖｉｌ．ｅｘａｍｐｌｅ", Why::Link),
            ("evil。example", Why::Link),
            ("javascript:alert(1)", Why::Link),
            ("bank.xn--p1ai", Why::Link),
            ("“evil.example”", Why::Link),
            ("→evil.example", Why::Link),
            ("//evil.example", Why::Link),
            ("a|evil.example…", Why::Link),
        ];
        for (text, why) in cases {
            assert_eq!(BindingMessage::parse(text), Err(*why), "{text:?}");
        }
    }

    #[test]
    fn sixty_four_graphemes_and_no_more() {
        assert!(BindingMessage::parse(&"é".repeat(64)).is_ok());
        assert_eq!(BindingMessage::parse(&"é".repeat(65)), Err(Why::TooLong));
        assert_eq!(
            BindingMessage::parse(&"x".repeat(100_000)),
            Err(Why::TooLong)
        );
    }

    proptest! {
        #[test]
        fn what_is_accepted_is_stable_and_visible(text in "\\PC{0,70}|.{0,70}") {
            if let Ok(message) = BindingMessage::parse(&text) {
                prop_assert_eq!(BindingMessage::parse(message.as_str()), Ok(message.clone()));
                prop_assert!(message.as_str().chars().all(|c| !c.is_control()));
                prop_assert!(message.as_str().graphemes(true).count() <= MAX_GRAPHEMES);
            }
        }
    }
}
