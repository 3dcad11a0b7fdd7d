//! Every command as an operator types it: what it prints for people and for programs, how it ends, and
//! what it says when it cannot.

mod audit;
mod healthcheck;
mod operator;
mod phone;
mod push;
mod settings;
mod showcase;

use crate::support::process::{Finished, Site};

/// A command that must succeed; what it printed. Nothing goes to standard error.
#[track_caller]
fn succeeds(site: &Site, arguments: &[&str]) -> String {
    let done = site.run(arguments);
    assert_eq!(done.code, Some(0), "{arguments:?}: {done:?}");
    assert_eq!(done.stderr, "", "{arguments:?}");
    done.stdout
}

/// A command that must fail with exit code 1 and one message with these words; it prints no result.
#[track_caller]
fn fails(site: &Site, arguments: &[&str], words: &str) {
    let done = site.run(arguments);
    assert_eq!(done.code, Some(1), "{arguments:?}: {done:?}");
    assert_fails_with(&done, words);
    assert_eq!(done.stdout, "", "{arguments:?}");
}

#[track_caller]
fn assert_fails_with(done: &Finished, words: &str) {
    assert!(done.stderr.starts_with("assent: "), "{done:?}");
    assert!(done.stderr.contains(words), "{words}: {done:?}");
    assert!(!done.stderr.contains("panicked"), "{done:?}");
}

/// Arguments that make no sense: exit code 2, and how it is meant.
#[track_caller]
fn makes_no_sense(site: &Site, arguments: &[&str], words: &str) {
    let done = site.run(arguments);
    assert_eq!(done.code, Some(2), "{arguments:?}: {done:?}");
    assert!(done.stderr.contains(words), "{words}: {done:?}");
    assert!(done.stderr.contains("--help"), "{done:?}");
    assert_eq!(done.stdout, "", "{arguments:?}");
}
