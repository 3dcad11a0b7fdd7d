//! What the phone shows: lines rendered here, so that what is signed is what was seen.

use super::{BindingMessage, Scope};
use serde::{Deserialize, Serialize};

/// The rendered text of a request. The phone shows these lines and nothing else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Display {
    /// Which template rendered the lines.
    pub template: String,
    /// base64url(SHA-256(template text)): proves later which wording was in force.
    pub template_hash: String,
    pub lines: Vec<Line>,
}

/// One line on the phone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// What the line is about; the app translates it.
    pub label: String,
    pub text: String,
    /// True when the relying party supplied the text and nobody verified it.
    pub claimed: bool,
}

/// A wording with a name. A changed wording gets a new name.
#[derive(Clone, Copy, Debug)]
pub struct Template {
    pub name: &'static str,
    /// The order of the lines, hashed into every challenge.
    pub text: &'static str,
}

/// Sign-in and plain approval without transaction details.
pub const LOGIN: Template = Template {
    name: "login.v1",
    text: "requester: registry name of the client\nscope: scope as requested\nbinding_message: as claimed by the client",
};

impl Template {
    /// Renders the lines for one request. `hash` is SHA-256 of the template's text, base64url.
    pub fn render(
        &self,
        hash: String,
        client_name: &str,
        scope: &Scope,
        binding_message: Option<&BindingMessage>,
    ) -> Display {
        let line = |label: &str, text: String, claimed| Line {
            label: label.to_owned(),
            text,
            claimed,
        };
        let mut lines = vec![
            line("requester", client_name.to_owned(), false),
            line("scope", scope.to_string(), false),
        ];
        if let Some(message) = binding_message {
            lines.push(line("binding_message", message.as_str().to_owned(), true));
        }
        Display {
            template: self.name.to_owned(),
            template_hash: hash,
            lines,
        }
    }
}
