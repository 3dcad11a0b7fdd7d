//! The house keeps its shape: who may use whom, which crate lives where, how long a file may get.
//!
//! Every path in the sources counts, in `use` trees and in code alike, tests included. The last two
//! tests check the checker: one that cannot fail would be worth nothing.

mod paths;

use paths::{paths, tokens};
use std::fs;
use std::path::Path;

/// The dependency direction (ARCHITECTURE.md): a module, and what it may use of ours.
const MAY_USE: &[(&str, &str)] = &[
    ("domain", ""),
    ("clock", "domain"),
    ("entropy", ""),
    ("failpoint", ""),
    ("crypto", "domain clock entropy"),
    ("outbound", "domain clock entropy"),
    ("store", "domain crypto failpoint"),
    ("push", "domain crypto outbound"),
    (
        "service",
        "domain crypto store push outbound clock entropy failpoint",
    ),
    ("config", "domain"),
    ("telemetry", "domain config"),
    ("shutdown", "clock"),
    (
        "worker",
        "service store domain clock config telemetry shutdown",
    ),
    ("http", "service domain clock config telemetry shutdown"),
    ("grpc", "service domain config telemetry shutdown"),
    ("phone", "domain crypto clock entropy"),
    (
        "app",
        "domain clock entropy failpoint crypto outbound store push service config telemetry \
         shutdown worker http grpc phone",
    ),
    ("cli", "app service domain config telemetry shutdown phone"),
    ("main", "cli"),
    ("lib", ""),
];

/// An external crate, with its family (`actix` covers `actix_web`), and the places that may name it.
const LIVES_IN: &[(&str, &str)] = &[
    ("actix", "http app"),
    ("tonic", "grpc app"),
    ("prost", "grpc"),
    ("tokio_tungstenite", "phone"),
    ("sqlx", "store::sql"),
    ("redis", "store::redis"),
    ("reqwest", "outbound phone"),
    ("a2", "push"),
    ("web_push", "push"),
    ("jsonwebtoken", "crypto"),
    ("aws_lc_rs", "crypto entropy"),
    ("rustls", "app http outbound phone"),
];

/// `domain` computes: it neither waits nor touches anything.
const NEVER_IN_DOMAIN: &str =
    "async await tokio std::env std::fs std::io std::net std::process std::thread";

#[test]
fn the_house_keeps_its_shape() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut folders, mut files, mut breaches) = (vec![root.clone()], 0, Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a source folder can be read") {
            let path = entry.expect("a source folder can be read").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let source = fs::read_to_string(&path).expect("a source file is UTF-8");
                let file = path.strip_prefix(&root).expect("it lies below src");
                breaches.extend(breaches_in(&file.to_string_lossy(), &source));
                files += 1;
            }
        }
    }
    assert!(files > 1, "the sources were not found");
    breaches.sort();
    let list = breaches.join("\n  ");
    assert!(breaches.is_empty(), "the house lost its shape:\n  {list}\n");
}

/// `file` is relative to `src/`.
fn breaches_in(file: &str, source: &str) -> Vec<String> {
    let place = file
        .trim_end_matches(".rs")
        .trim_end_matches("/mod")
        .replace('/', "::");
    let module = place.split("::").next().unwrap_or_default();
    let mut found = Vec::new();
    let mut breach = |line: usize, what: &str| found.push(format!("src/{file}:{line}: {what}"));

    let lines = source.lines().count();
    let most = if place == "main" { 80 } else { 800 };
    if lines >= most {
        breach(lines, &format!("too long, stays under {most} lines"));
    }
    if place.contains("util") {
        breach(1, "says nothing: name the file after what it does");
    }
    let Some((_, may_use)) = MAY_USE.iter().find(|(name, _)| *name == module) else {
        breach(1, "a module without a rule: give it one in MAY_USE");
        return found;
    };
    let tokens = tokens(source);
    for (path, line) in paths(&place, &tokens) {
        let (first, said) = (path[0], path.join("::"));
        // `mod redis;` beside `redis::Queue`: the path means the child, not the crate.
        let is_child = || {
            tokens
                .windows(2)
                .any(|pair| pair[0].0 == "mod" && pair[1].0 == first)
        };
        let home = LIVES_IN.iter().find(|(name, _)| below(first, name));
        if first == "crate" {
            let target = path.get(1).unwrap_or(&"crate");
            if *target != module && !may_use.split(' ').any(|name| name == *target) {
                breach(line, &format!("{said}: {module} may use only [{may_use}]"));
            }
        } else if module == "domain" && NEVER_IN_DOMAIN.split(' ').any(|name| below(&said, name)) {
            breach(line, &format!("{said}: domain neither waits nor does I/O"));
        } else if let Some((name, homes)) = home
            && !homes.split(' ').any(|home| below(&place, home))
            && !is_child()
        {
            breach(line, &format!("{said}: {name} lives only in [{homes}]"));
        }
    }
    found
}

/// `a::b` and `a_b` are below `a`, and so is `a`.
fn below(path: &str, root: &str) -> bool {
    path.strip_prefix(root)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with([':', '_']))
}

/// A file, what stands in it, and what has to be said about it.
const BREACHES: &str = r##"
domain/ids.rs ~ use crate::store::Ledger; ~ 1: crate::store::Ledger:
http/token.rs ~ \n\nfn f() { crate::store::get(); } ~ 3: crate::store::get:
http.rs ~ use crate::{domain::{Id, Job}, crypto::Mac}; ~ crate::crypto::Mac:
http/x.rs ~ use {crate::push::{self as p}, std::fmt}; ~ crate::push:
push/fcm.rs ~ use super::super::service::start; ~ crate::service::start:
push/mod.rs ~ mod t { use super::super::http::Form; } ~ crate::http::Form:
push/mod.rs ~ mod t { fn f() {} } use super::grpc; ~ crate::grpc:
service/redeem.rs ~ #[cfg(test)]\nmod tests { use crate::app::App; } ~ 2: crate::app::App:
worker/mod.rs ~ use crate as c; ~ crate:
worker/mod.rs ~ use crate::{self as c}; ~ crate:
worker/mod.rs ~ use super::*; ~ crate::*:
config.rs ~ fn f(x: &str) -> char { '"' } use crate::cli; // '"' ~ crate::cli:
cli/demo.rs ~ let x: <T as crate::store::JobQueue>::Id; ~ crate::store::JobQueue:
main.rs ~ fn main() { assent::service::run() } ~ crate::service::run:
lib.rs ~ pub mod domain; pub use crate::domain::Id; ~ crate::domain::Id:
service/start.rs ~ use sqlx::Row; ~ 1: sqlx::Row: sqlx lives only in [store::sql]
service/start.rs ~ use {sqlx, std::fmt}; ~ sqlx:
store/redis/lua.rs ~ fn f(r: sqlx::Result<()>) {} ~ sqlx::Result:
store/sql/mod.rs ~ use redis; ~ redis: redis lives only in [store::redis]
grpc/mod.rs ~ \n#[actix_web::test]\nasync fn f() {} ~ 2: actix_web::test: actix lives only in [http app]
http/mod.rs ~ use ::reqwest::Client as C; ~ reqwest lives only in [outbound phone]
http/stream.rs ~ use tokio_tungstenite::accept_async; ~ tokio_tungstenite lives only in [phone]
service/streams.rs ~ use actix_ws::Session; ~ actix lives only in [http app]
service/mint.rs ~ extern crate jsonwebtoken; ~ jsonwebtoken lives only in [crypto]
app.rs ~ use aws_lc_rs::rand; ~ aws_lc_rs lives only in [crypto entropy]
domain/job.rs ~ use std::{fmt, fs}; ~ std::fs: domain neither waits nor does I/O
domain/job.rs ~ pub async fn f() {} ~ async: domain neither waits nor does I/O
helpers.rs ~ ~ a module without a rule
http/utils.rs ~ ~ says nothing
"##;

#[test]
fn each_kind_of_breach_is_caught() {
    for case in BREACHES.trim().lines() {
        let [file, source, expected] = fields(case);
        let found = breaches_in(&file, &source);
        let caught = found
            .iter()
            .any(|breach| breach.contains(expected.as_str()));
        assert!(
            caught,
            "{case}\n  is to be caught; what was found: {found:?}"
        );
    }
    for (file, most) in [("http/token.rs", 800), ("main.rs", 80)] {
        assert_eq!(breaches_in(file, &"\n".repeat(most)).len(), 1, "{file}");
        assert_eq!(breaches_in(file, &"\n".repeat(most - 1)).len(), 0, "{file}");
    }
}

const HONEST: &str = r##"
lib.rs ~ //! crate::store\npub mod app;\nmod service;
main.rs ~ use assent::cli;\nfn main() { cli::run() }
http/token.rs ~ use crate::{domain::Id, http::error::E, service::{self, redeem}};
http/token.rs ~ use super::{error, super::service::mint};\npub(super) fn f() {}
http/token.rs ~ /* sqlx::Row */ let s = "sqlx::\"Row"; // crate::store::X
http/token.rs ~ let s = br#"crate::store::"X"#; fn f<'a>(c: &'a u8) { b'\''; '"'; }
store/mod.rs ~ mod redis;\npub mod sql;\npub use redis::RedisQueue; use self::sql::Db;
store/sql/ledger.rs ~ use sqlx::any::AnyRow; use crate::store::JobQueue;
store/sql.rs ~ mod tests { mod deep { use super::super::super::JobQueue; } }
push/web_push.rs ~ use web_push::Message; use crate::outbound::Client;
service/decide.rs ~ crate::failpoint::hit("x"); let redis = redis.get(a2);
app.rs ~ actix_web::rt::x(); rustls::crypto::aws_lc_rs::default_provider();
domain/mod.rs ~ mod time; pub use time::Timestamp; use crate::domain::x as y;
"##;

#[test]
fn honest_code_passes() {
    for case in HONEST.trim().lines() {
        let [file, source, _] = fields(case);
        let found = breaches_in(&file, &source);
        assert!(
            found.is_empty(),
            "{case}\n  is honest; what was found: {found:?}"
        );
    }
}

fn fields(case: &str) -> [String; 3] {
    let mut fields = case
        .split('~')
        .map(|field| field.trim().replace("\\n", "\n"));
    std::array::from_fn(|_| fields.next().unwrap_or_default())
}
