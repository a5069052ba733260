//! Records as rows.

use std::borrow::Cow;

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Row, Statement, ToSql};
use serde_json::Value;
use storage_core::{Error, Fields, Key, KeyPart, KeyType, Record, Result, TableSchema};
use storage_sql::row::extra;
use storage_sql::{Dialect, SqlRow, SqlValue, encode, encode_key_part};

use crate::error::{OrExplain, SqlResult};

/// A value to bind, without a copy.
pub(crate) struct Bound<'a>(pub(crate) &'a SqlValue<'a>);

impl ToSql for Bound<'_> {
    fn to_sql(&self) -> SqlResult<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self.0 {
            SqlValue::Null => ValueRef::Null,
            SqlValue::Boolean(b) => ValueRef::Integer(i64::from(*b)),
            SqlValue::Integer(n) => ValueRef::Integer(*n),
            SqlValue::Real(x) => ValueRef::Real(*x),
            SqlValue::Text(text) | SqlValue::Json(text) => ValueRef::Text(text.as_bytes()),
            SqlValue::Bytes(bytes) => ValueRef::Blob(bytes),
            SqlValue::Timestamp(time) => return Ok(ToSqlOutput::from(storage_sql::timestamp(*time))),
        }))
    }
}

/// Binds values one after the other.
pub(crate) struct Binder<'s, 'c> {
    statement: &'s mut Statement<'c>,
    next: usize,
}

impl<'s, 'c> Binder<'s, 'c> {
    pub(crate) fn new(statement: &'s mut Statement<'c>) -> Self {
        Self { statement, next: 1 }
    }

    pub(crate) fn bind(&mut self, value: impl ToSql) -> Result<()> {
        self.statement.raw_bind_parameter(self.next, value).or_explain()?;
        self.next += 1;
        Ok(())
    }

    /// The parts of a key, which must be one of the table.
    pub(crate) fn key(&mut self, schema: &TableSchema, key: &Key) -> Result<()> {
        let fits = schema.partition.is_some() == key.partition.is_some();
        let parts = || key.partition.iter().chain([&key.id]);
        let of_kind = |(column, part): (&storage_core::KeyColumn, &KeyPart)| {
            matches!((column.kind, part), (KeyType::Text, KeyPart::Text(_)) | (KeyType::Integer, KeyPart::Integer(_)))
        };
        if !fits || !schema.key_columns().zip(parts()).all(of_kind) {
            schema.check_key(key)?;
        }
        parts().try_for_each(|part| self.bind(Bound(&encode_key_part(part))))
    }

    /// The declared columns of a whole record. Answers with the fields that are left, as JSON.
    pub(crate) fn columns<'f>(&mut self, schema: &TableSchema, fields: &'f Fields) -> Result<SqlValue<'f>> {
        let mut found = 0;
        for column in &schema.columns {
            let value = match fields.get(column.name.as_str()) {
                Some(value) => {
                    found += 1;
                    value
                }
                // Whoever sent the record may not know the newest schema.
                None => column.default.as_ref().unwrap_or(&Value::Null),
            };
            self.bind(Bound(&encode(Dialect::Sqlite, column.kind, value)?))?;
        }
        if found == fields.len() { Ok(SqlValue::Null) } else { extra(Dialect::Sqlite, schema, fields) }
    }
}

/// A row that the database answered with.
struct Found<'r, 's>(&'r Row<'s>);

impl SqlRow for Found<'_, '_> {
    fn value(&self, column: usize) -> Result<SqlValue<'_>> {
        Ok(match self.0.get_ref(column).or_explain()? {
            ValueRef::Null => SqlValue::Null,
            ValueRef::Integer(n) => SqlValue::Integer(n),
            ValueRef::Real(x) => SqlValue::Real(x),
            ValueRef::Text(text) => SqlValue::Text(Cow::Borrowed(
                std::str::from_utf8(text)
                    .map_err(|e| Error::corrupt("a text column holds bytes that are no text").with_source(e))?,
            )),
            ValueRef::Blob(bytes) => SqlValue::Bytes(Cow::Borrowed(bytes)),
        })
    }
}

/// The record in a row with all columns of its table.
pub(crate) fn read(row: &Row<'_>, schema: &TableSchema) -> Result<Record> {
    storage_sql::row::read(&Found(row), schema)
}

/// A time in a system column.
pub(crate) fn time(row: &Row<'_>, column: usize) -> Result<Option<chrono::DateTime<chrono::Utc>>> {
    storage_sql::row::time(&Found(row), column)
}
