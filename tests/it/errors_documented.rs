//! docs/errors.md names every code that the sources can answer, and each of its tests exists.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn is_code(text: &str) -> bool {
    text.contains('_') && text.bytes().all(|b| b == b'_' || b.is_ascii_lowercase())
}

/// Every string in `source` that looks like a code, with what stands before it.
fn codes_in(source: &str) -> impl Iterator<Item = (&str, &str)> {
    source.match_indices('"').filter_map(move |(at, _)| {
        let (before, rest) = (&source[..at], &source[at + 1..]);
        let text = &rest[..rest.find('"')?];
        is_code(text).then(|| (before.trim_end(), text))
    })
}

/// Whether `before` ends with `StatusCode::SOMETHING,`.
fn follows_a_status(before: &str) -> bool {
    let Some(before) = before.strip_suffix(',') else {
        return false;
    };
    before
        .trim_end_matches(|c: char| c.is_ascii_uppercase() || c == '_')
        .ends_with("StatusCode::")
}

/// The codes of the sources: all that `http::error` and `http::problem` know, what the rest of `http` makes beside it, and
/// what is pushed.
fn codes_of_sources() -> BTreeSet<String> {
    let source = |path: &str| read(&root().join("src").join(path));
    let mut codes = BTreeSet::new();
    for file in ["http/error.rs", "http/problem.rs"] {
        codes.extend(codes_in(&source(file)).map(|(_, code)| code.to_owned()));
    }
    for file in rust_files(&root().join("src/http")) {
        let text = read(&file);
        let made = codes_in(&text).filter(|(before, _)| follows_a_status(before));
        codes.extend(made.map(|(_, code)| code.to_owned()));
    }
    let pushed = source("service/notify_client.rs");
    let made = codes_in(&pushed).filter(|(before, _)| before.ends_with("error("));
    codes.extend(made.map(|(_, code)| code.to_owned()));
    codes.remove("error_description");
    codes
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

/// One row of the table: the code, and the tests that show it.
struct Row {
    code: String,
    tests: Vec<String>,
}

fn rows(document: &str) -> Vec<Row> {
    let quoted = |cell: &str| -> Vec<String> {
        let parts = cell.split('`').skip(1).step_by(2);
        parts.map(str::to_owned).collect()
    };
    let table = document.lines().filter(|line| line.starts_with("| `"));
    table
        .map(|line| {
            let cells: Vec<&str> = line.trim_matches('|').split('|').collect();
            assert_eq!(cells.len(), 6, "a row has six cells: {line}");
            Row {
                code: quoted(cells[0]).concat(),
                tests: quoted(cells[5]),
            }
        })
        .collect()
}

/// What is wrong with a test named for a code; its name is a path below `tests/it`.
fn fault(test: &str, code: &str) -> Option<String> {
    let (module, name) = test.rsplit_once("::")?;
    let path = format!("tests/it/{}.rs", module.replace("::", "/"));
    let Ok(source) = fs::read_to_string(root().join(&path)) else {
        return Some(format!("{code}: there is no {path}"));
    };
    if !source.contains(&format!("fn {name}(")) {
        return Some(format!("{code}: there is no {name} in {path}"));
    }
    (!source.contains(&format!("\"{code}\""))).then(|| format!("{code}: {path} is not about it"))
}

#[test]
fn every_code_is_in_the_table_with_a_test() {
    let rows = rows(&read(&root().join("docs/errors.md")));
    let sources = codes_of_sources();
    // The search itself works: it found one of each kind.
    for known in [
        "slow_down",
        "device_known",
        "unsupported_grant_type",
        "not_found",
        "transaction_failed",
    ] {
        assert!(sources.contains(known), "{known} was not found in src");
    }
    let listed: BTreeSet<String> = rows.iter().map(|row| row.code.clone()).collect();
    let mut faults = Vec::new();
    for code in sources.difference(&listed) {
        faults.push(format!("{code}: docs/errors.md has no row for it"));
    }
    for code in listed.difference(&sources) {
        faults.push(format!("{code}: no source can answer it"));
    }
    for row in &rows {
        if row.tests.is_empty() {
            faults.push(format!("{}: a row names no test", row.code));
        }
        faults.extend(row.tests.iter().filter_map(|test| fault(test, &row.code)));
    }
    assert!(faults.is_empty(), "docs/errors.md:\n{}", faults.join("\n"));
}
