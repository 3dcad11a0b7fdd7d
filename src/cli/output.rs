//! What a command prints: lines for people, or one JSON document for programs.

use crate::domain::Timestamp;
use serde_json::Value;
use std::io::Write as _;

pub struct Output {
    json: bool,
}

impl Output {
    pub const fn new(json: bool) -> Self {
        Self { json }
    }

    /// A result: `human` for people, `value` for programs.
    pub fn result(&self, human: &str, value: &Value) {
        let text = if self.json {
            format!("{value:#}")
        } else {
            human.to_owned()
        };
        self.write(&text);
    }

    /// A line that only people want.
    pub fn say(&self, human: &str) {
        if !self.json {
            self.write(human);
        }
    }

    /// A table with a heading; `empty` says what to do when there is nothing in it.
    pub fn table(&self, heading: &[&str], rows: &[Vec<String>], values: Vec<Value>, empty: &str) {
        if self.json {
            return self.write(&format!("{:#}", Value::Array(values)));
        }
        if rows.is_empty() {
            return self.write(empty);
        }
        let width = |column: usize| {
            let cells = rows.iter().map(|row| row[column].chars().count());
            cells.chain([heading[column].len()]).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..heading.len()).map(width).collect();
        let line = |cells: &[String]| {
            let padded = cells
                .iter()
                .zip(&widths)
                .map(|(cell, width)| format!("{cell:width$}"));
            padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
        };
        self.write(&line(
            &heading
                .iter()
                .map(|name| name.to_uppercase())
                .collect::<Vec<_>>(),
        ));
        for row in rows {
            self.write(&line(row));
        }
    }

    fn write(&self, text: &str) {
        // A reader that went away is not an error of ours.
        let _ = writeln!(std::io::stdout(), "{text}");
    }
}

/// A time as people read it, in UTC.
pub fn time(at: Timestamp) -> String {
    let format = time::format_description::well_known::Rfc3339;
    time::OffsetDateTime::from_unix_timestamp(at.secs())
        .ok()
        .and_then(|time| time.format(&format).ok())
        .unwrap_or_else(|| at.millis().to_string())
}
