//! What every refusal must be: precise, without consequences, and silent about the rest.

use super::wire::Request;
use crate::support::{TestApp, assert_oauth_error, assert_problem};
use assent::phone::http::Answer;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Where a client may also authenticate in the body.
const TAKE_CLIENTS: &[&str] = &[
    "/token",
    "/bc-authorize",
    "/introspect",
    "/revoke",
    "/bc-cancel",
];

/// A bad request, and the answer it must get.
pub struct Case {
    name: String,
    request: Request,
    status: u16,
    error: &'static str,
}

/// One line of a table.
pub fn case(name: impl Into<String>, request: Request, status: u16, error: &'static str) -> Case {
    Case {
        name: name.into(),
        request,
        status,
        error,
    }
}

/// Sends every request; each must be refused as its line says, and all of them together must leave
/// every table as it was.
#[track_caller]
pub fn refuse<'a>(app: &'a TestApp, cases: Vec<Case>) -> impl Future<Output = ()> + 'a {
    let caller = std::panic::Location::caller();
    async move {
        let before = app.state().await;
        let mut wrong = Vec::new();
        for case in &cases {
            let answer = case.request.send(app.address()).await;
            let checked = catch_unwind(AssertUnwindSafe(|| check(case, &answer)));
            if let Err(panic) = checked {
                let why = panic
                    .downcast_ref::<String>()
                    .cloned()
                    .unwrap_or_else(|| "see above".into());
                wrong.push(format!(
                    "{}: {why}\n  {} {}",
                    case.name, answer.status, answer.body
                ));
            }
        }
        assert!(
            wrong.is_empty(),
            "{caller}: {} of {} are wrong:\n{}",
            wrong.len(),
            cases.len(),
            wrong.join("\n")
        );
        assert_unchanged(&before, &app.state().await);
    }
}

fn check(case: &Case, answer: &Answer) {
    if case.request.target.starts_with("/device/") {
        assert_problem(answer, case.status, case.error);
        let title = answer.json()["title"].as_str().unwrap().to_owned();
        assert!(!title.is_empty() && title.is_ascii(), "{title}");
    } else {
        assert_oauth_error(answer, case.status, case.error);
        assert_rfc_6749_text(answer.json()["error_description"].as_str().unwrap());
    }
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert!(answer.header("x-request-id").is_some());
    assert_eq!(answer.status == 405, answer.header("allow").is_some());
    // RFC 6749 5.2, RFC 9110 11.6.1: a challenge wherever the header was, or should have been, used.
    let by_header = case.request.names("authorization");
    let challenged = by_header || !TAKE_CLIENTS.contains(&case.request.path());
    let wanted = (case.status == 401 && challenged) || case.error == "insufficient_scope";
    assert_eq!(wanted, answer.header("www-authenticate").is_some());
    assert_tells_nothing(&case.request, answer);
}

/// RFC 6749 5.2: `%x20-21 / %x23-5B / %x5D-7E`.
fn assert_rfc_6749_text(description: &str) {
    let good = |b: u8| matches!(b, 0x20..=0x21 | 0x23..=0x5b | 0x5d..=0x7e);
    assert!(description.bytes().all(good), "{description}");
}

/// Traces of the inside: crates, sources, tables, Rust's way of printing values.
#[rustfmt::skip]
const INTERNALS: &[&str] = &[
    "sqlx", "sqlite", "postgres", "SQL", "SELECT", "panicked", "src/", ".rs", "serde", "actix", "assent::",
    "Error(", "Some(", "None", "enrolments", "pending_requests", "idempotency_keys", "audit_", "outcomes",
    "issuances", "replays", "refresh_families", "refresh_tokens", "checkpoints", "users", "clients",
];

/// An answer never repeats a value that was sent, and says nothing of how the server is made.
pub fn assert_tells_nothing(request: &Request, answer: &Answer) {
    let mut headers = answer.headers.clone();
    // Random letters may spell anything.
    headers.retain(|(name, _)| name != "x-request-id" && name != "device-nonce");
    let said = format!("{headers:?} {}", answer.body);
    for inside in INTERNALS {
        assert!(!said.contains(inside), "tells of {inside}");
    }
    for value in request.values() {
        assert!(!said.contains(&value), "repeats {value:.80}");
    }
}

#[track_caller]
pub fn assert_unchanged(before: &[(String, Vec<String>)], after: &[(String, Vec<String>)]) {
    for ((table, before), (_, after)) in before.iter().zip(after) {
        assert_eq!(before, after, "{table} was changed");
    }
}
