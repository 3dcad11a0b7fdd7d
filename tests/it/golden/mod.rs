//! What is a promise on the wire, held against `tests/golden/*.json`.
//!
//! What differs from run to run is replaced by a name in angle brackets, times by their distance from
//! the present, and signed statements are taken apart. A test that finds a difference prints the whole
//! text that the file would have to hold. If the change is meant, put that text into the file by hand,
//! and think of the apps and clients out there that were written for the old one.

mod clients;
mod errors;
mod journey;
mod problems;

use crate::bad_input::wire::Request;
use crate::support::{START, TestApp};
use assent::crypto::from_base64url;
use assent::phone::http::Answer;
use serde_json::{Map, Value, json};
use std::fs;
use std::path::Path;

/// Members whose values are made up anew each time.
#[rustfmt::skip]
const RANDOM: &[&str] = &[
    "access_token", "at_hash", "auth_req_id", "bh", "challenge_hash", "code_hash", "device-nonce", "jti", "kid", "nonce",
    "refresh_token", "sub_ref", "urn:openid:params:jwt:claim:auth_req_id", "urn:openid:params:jwt:claim:rt_hash", "x", "y",
];

/// Names for values of this run.
#[derive(Clone, Default)]
pub struct Names(Vec<(String, &'static str)>);

impl Names {
    pub fn of(app: &TestApp) -> Self {
        Self(vec![(app.url.clone(), "<issuer>")])
    }

    pub fn with(mut self, value: impl ToString, name: &'static str) -> Self {
        self.0.push((value.to_string(), name));
        self
    }

    pub fn apply(&self, value: &Value) -> Value {
        match value {
            Value::Object(members) => {
                let named = |(name, value): (&String, &Value)| {
                    let known = self.apply(value);
                    // A value with a name of its own keeps it.
                    let anew = RANDOM.contains(&name.as_str()) && value.is_string();
                    let shown = if anew && known == *value {
                        json!(format!("<{name}>"))
                    } else {
                        known
                    };
                    (name.clone(), shown)
                };
                Value::Object(members.iter().map(named).collect::<Map<_, _>>())
            }
            Value::Array(values) => values.iter().map(|value| self.apply(value)).collect(),
            Value::String(text) => match taken_apart(text) {
                Some(statement) => self.apply(&statement),
                None => {
                    let named =
                        |text: String, (value, name): &(String, &str)| text.replace(value, name);
                    json!(self.0.iter().fold(text.clone(), named))
                }
            },
            Value::Number(number) => match number.as_i64().map(|time| time - START.secs()) {
                Some(0) => json!("<now>"),
                Some(distance @ -9999..=9999) => json!(format!("<now{distance:+}>")),
                _ => value.clone(),
            },
            _ => value.clone(),
        }
    }

    /// An answer with all of its headers that say something.
    fn answer(&self, answer: &Answer) -> Value {
        let silent = ["connection", "content-length", "date", "x-request-id"];
        let headers: Map<_, _> = answer
            .headers
            .iter()
            .filter(|(name, _)| !silent.contains(&name.as_str()))
            .map(|(name, value)| (name.clone(), json!(value)))
            .collect();
        let mut shown = json!({ "status": answer.status, "headers": headers });
        if !answer.body.is_empty() {
            shown["body"] = answer.json();
        }
        self.apply(&shown)
    }

    /// Sends a request and shows what came back.
    async fn exchange(&self, app: &TestApp, request: Request) -> Value {
        self.answer(&request.send(app.address()).await)
    }
}

/// The header and claims of a signed statement.
fn taken_apart(text: &str) -> Option<Value> {
    let mut parts = text.split('.').map(from_base64url);
    let header: Value = serde_json::from_slice(&parts.next()??).ok()?;
    let claims: Value = serde_json::from_slice(&parts.next()??).ok()?;
    parts.next()??;
    Some(json!({ "header": header, "claims": claims }))
}

/// Holds a document against its file.
#[track_caller]
pub fn assert_golden(name: &str, document: &Value) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/{name}.json"));
    let expected = fs::read_to_string(path).unwrap_or_default();
    let actual = serde_json::to_string_pretty(document).unwrap() + "\n";
    assert!(
        actual == expected,
        "tests/golden/{name}.json does not hold what the server says, which is:\n{actual}(end of {name})"
    );
}

/// Codes that need a setting of their own: `hints.rs` shows them, in the same form.
const SHOWN_IN_HINTS: [&str; 3] = [
    "expired_login_hint_token",
    "missing_user_code",
    "invalid_user_code",
];

/// A code that the sources know has its document in one of the files.
#[test]
fn every_code_is_shown() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut shown = Vec::new();
    for (file, member) in [("oauth-errors", "error"), ("problems", "code")] {
        let file = fs::read_to_string(root.join(format!("tests/golden/{file}.json"))).unwrap();
        let answers: Map<String, Value> = serde_json::from_str(&file).unwrap();
        shown.extend(
            answers
                .values()
                .map(|answer| answer["body"][member].clone()),
        );
    }
    let mut known = 0;
    for file in fs::read_dir(root.join("src/http")).unwrap() {
        let source = fs::read_to_string(file.unwrap().path()).unwrap();
        // A status, then the code; or a code alone where the status is always the same.
        let after_status = source.split("StatusCode::").skip(1).filter_map(|rest| {
            let (status, rest) = rest.split_once(',')?;
            let is_name = status.bytes().all(|b| b.is_ascii_uppercase() || b == b'_');
            rest.trim_start().strip_prefix('"').filter(|_| is_name)
        });
        let alone = [
            "bad(\"",
            "::InvalidGrant => \"",
            "::Pending => \"",
            "::Denied => \"",
        ]
        .into_iter()
        .flat_map(|before| source.split(before).skip(1));
        for rest in after_status.chain(alone) {
            let code = rest.split('"').next().unwrap();
            let elsewhere = SHOWN_IN_HINTS.contains(&code);
            assert!(
                elsewhere || shown.contains(&json!(code)),
                "{code} is not shown"
            );
            known += 1;
        }
    }
    assert!(known > 40, "the codes were not found: only {known}");
}
