//! From columns to domain values; what does not fit is reported with its place, never unwrapped.

use crate::crypto::from_base64url;
use crate::domain::{RequestId, Timestamp};
use crate::store::StoreError;
use sqlx::Row as _;
use sqlx::any::AnyRow;
use std::str::FromStr;

/// One row on its way to a domain value.
pub struct Located<'a> {
    row: &'a AnyRow,
    table: &'static str,
    /// Column that names the row in a report.
    key: &'static str,
}

impl<'a> Located<'a> {
    pub const fn new(row: &'a AnyRow, table: &'static str, key: &'static str) -> Self {
        Self { row, table, key }
    }

    pub fn corrupt(&self, what: &'static str) -> StoreError {
        let row = self
            .row
            .try_get::<String, _>(self.key)
            .unwrap_or_else(|_| "?".into());
        StoreError::Corrupt {
            table: self.table,
            row,
            what,
        }
    }

    pub fn text(&self, column: &'static str) -> Result<String, StoreError> {
        self.row.try_get(column).map_err(|_| self.corrupt(column))
    }

    pub fn optional_text(&self, column: &'static str) -> Result<Option<String>, StoreError> {
        self.row.try_get(column).map_err(|_| self.corrupt(column))
    }

    pub fn number(&self, column: &'static str) -> Result<i64, StoreError> {
        self.row.try_get(column).map_err(|_| self.corrupt(column))
    }

    pub fn small<T: TryFrom<i64>>(&self, column: &'static str) -> Result<T, StoreError> {
        T::try_from(self.number(column)?).map_err(|_| self.corrupt(column))
    }

    pub fn time(&self, column: &'static str) -> Result<Timestamp, StoreError> {
        self.number(column).map(Timestamp::from_millis)
    }

    pub fn optional_time(&self, column: &'static str) -> Result<Option<Timestamp>, StoreError> {
        let millis: Option<i64> = self.row.try_get(column).map_err(|_| self.corrupt(column))?;
        Ok(millis.map(Timestamp::from_millis))
    }

    pub fn parse<T: FromStr>(&self, column: &'static str) -> Result<T, StoreError> {
        self.text(column)?.parse().map_err(|_| self.corrupt(column))
    }

    /// The same for a column that may be empty.
    pub fn optional<T: FromStr>(&self, column: &'static str) -> Result<Option<T>, StoreError> {
        self.optional_text(column)?
            .map(|text| text.parse().map_err(|_| self.corrupt(column)))
            .transpose()
    }

    pub fn parse_with<T>(
        &self,
        column: &'static str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Result<T, StoreError> {
        read(&self.text(column)?).ok_or_else(|| self.corrupt(column))
    }

    pub fn request_id(&self, column: &'static str) -> Result<RequestId, StoreError> {
        self.parse_with(column, RequestId::parse)
    }

    pub fn bytes32(&self, column: &'static str) -> Result<[u8; 32], StoreError> {
        self.parse_with(column, |text| from_base64url(text)?.try_into().ok())
    }
}
