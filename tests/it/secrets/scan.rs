//! Looks for secrets in places where they must not be, in every form in which one could still be used.

use crate::support::Backend;
use assent::crypto::from_base64url;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use std::collections::{BTreeMap, BTreeSet};

/// Fewer bytes than these are no secret by themselves, and would be found by chance.
const SHORTEST: usize = 8;

/// What is looked for, each with a name.
pub struct Secrets {
    needles: Vec<(String, Vec<u8>)>,
    /// Needles by their first two bytes: at most places there is nothing to compare.
    begins: Vec<Vec<usize>>,
}

impl Secrets {
    pub fn new() -> Self {
        Self {
            needles: Vec::new(),
            begins: vec![Vec::new(); 1 << 16],
        }
    }

    /// A text, and the bytes it stands for if it is base64url.
    pub fn text(&mut self, what: &str, text: &str) {
        self.needle(what, text.as_bytes());
        self.bytes(&format!("{what}, encoded"), text.as_bytes());
        if let Some(bytes) = from_base64url(text) {
            self.bytes(&format!("{what}, decoded"), &bytes);
        }
    }

    /// Bytes, and how they are usually written down.
    pub fn bytes(&mut self, what: &str, bytes: &[u8]) {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        self.needle(what, bytes);
        self.needle(what, hex.as_bytes());
        self.needle(what, hex.to_uppercase().as_bytes());
        self.needle(what, STANDARD_NO_PAD.encode(bytes).as_bytes());
        self.needle(what, URL_SAFE_NO_PAD.encode(bytes).as_bytes());
    }

    /// A signed statement: its payload and its signature, not the header that all of a kind share.
    pub fn jwt(&mut self, what: &str, token: &str) {
        let parts: Vec<&str> = token.split('.').collect();
        assert_eq!(parts.len(), 3, "{what} is no JWT");
        self.text(&format!("{what}'s payload"), parts[1]);
        self.text(&format!("{what}'s signature"), parts[2]);
    }

    /// Exactly these bytes.
    pub fn needle(&mut self, what: &str, bytes: &[u8]) {
        assert!(bytes.len() >= SHORTEST, "{what} is too short to look for");
        self.begins[pair(bytes)].push(self.needles.len());
        self.needles.push((what.to_owned(), bytes.to_vec()));
    }

    pub fn count(&self) -> usize {
        self.needles.len()
    }

    /// Which secrets a place holds, each once.
    pub fn found_in(&self, place: &str, content: &[u8]) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        for (at, first) in content.windows(2).enumerate() {
            for number in &self.begins[pair(first)] {
                let (what, needle) = &self.needles[*number];
                if content[at..].starts_with(needle) {
                    found.insert(format!("{place} holds {what}"));
                }
            }
        }
        found
    }
}

fn pair(bytes: &[u8]) -> usize {
    usize::from(bytes[0]) << 8 | usize::from(bytes[1])
}

/// Every value of every table, and for SQLite the files themselves, where deleted values linger.
pub async fn database(backend: &Backend) -> Vec<(String, Vec<u8>)> {
    let columns = match backend {
        Backend::Sqlite(_) => {
            "SELECT m.name || ' ' || c.name FROM sqlite_master m, pragma_table_info(m.name) c \
             WHERE m.type = 'table' AND m.name <> '_sqlx_migrations'"
        }
        Backend::Postgres(_) => {
            "SELECT CAST(table_name || ' ' || column_name AS TEXT) FROM information_schema.columns \
             WHERE table_schema = 'public' AND table_name <> '_sqlx_migrations'"
        }
    };
    let mut tables: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for column in backend.column(columns).await {
        let (table, name) = column.split_once(' ').unwrap();
        let value = format!("COALESCE(CAST({name} AS TEXT), '')");
        tables.entry(table.to_owned()).or_default().push(value);
    }
    let mut places = Vec::new();
    for (table, values) in tables {
        let all = format!("SELECT {} FROM {table}", values.join(" || ' ' || "));
        let rows = backend.column(&all).await;
        places.push((format!("table {table}"), rows.join("\n").into()));
    }
    if let Backend::Sqlite(folder) = backend {
        for file in std::fs::read_dir(folder.path()).unwrap() {
            let path = file.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy();
            places.push((format!("file {name}"), std::fs::read(&path).unwrap()));
        }
    }
    places
}
