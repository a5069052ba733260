//! Records as rows.

use std::borrow::Cow;

use chrono::{DateTime, Utc};
use serde_json::Value;
use storage_core::{ColumnType, Error, Fields, Key, KeyPart, Record, Result, TableSchema, Undeclared, Version};

use crate::{Dialect, SqlValue, decode, encode, encode_key_part, json_text, parse_timestamp};

/// A row that a driver answered with.
pub trait SqlRow {
    /// The value in a column, without a copy where that is possible.
    ///
    /// # Errors
    /// [`Corrupt`](storage_core::ErrorKind::Corrupt) for a value that no column of ours holds.
    fn value(&self, column: usize) -> Result<SqlValue<'_>>;
}

/// A row that is not as the toolkit writes them.
#[must_use]
pub fn stranger(what: &str) -> Error {
    Error::corrupt(format!("a row was not written by this toolkit: its {what} can't be read"))
}

/// The key in the first columns of a row, and how many they are.
///
/// # Errors
/// [`Corrupt`](storage_core::ErrorKind::Corrupt) for a row of somebody else's; so do all that read here.
pub fn key(row: &impl SqlRow, schema: &TableSchema) -> Result<(Key, usize)> {
    let mut at = 0;
    let mut part = || {
        at += 1;
        match row.value(at - 1)? {
            SqlValue::Integer(n) => Ok(KeyPart::Integer(n)),
            SqlValue::Text(text) => Ok(KeyPart::Text(text.into_owned())),
            SqlValue::Bytes(bytes) => String::from_utf8(bytes.into_owned()).map(KeyPart::Text).map_err(|_| stranger("key")),
            _ => Err(stranger("key")),
        }
    };
    let partition = schema.partition.as_ref().map(|_| part()).transpose()?;
    let key = Key { partition, id: part()? };
    Ok((key, at))
}

/// The record in a row with all columns of its table.
///
/// # Errors
/// See [`key`].
pub fn read(row: &impl SqlRow, schema: &TableSchema) -> Result<Record> {
    let (key, mut at) = key(row, schema)?;
    let mut fields = Fields::new();
    for column in &schema.columns {
        match row.value(at)? {
            SqlValue::Null => {}
            found => drop(fields.insert(column.name.as_str().to_owned(), decode(column.kind, found)?)),
        }
        at += 1;
    }
    let version = version(row, at)?;
    let updated_at = time(row, at + 1)?.ok_or_else(|| stranger("time"))?;
    let expires_at = time(row, at + 2)?;
    match row.value(at + 3)? {
        SqlValue::Null => {}
        found => match decode(ColumnType::Json, found)? {
            Value::Object(extra) => fields.extend(extra),
            _ => return Err(stranger("`_extra`")),
        },
    }
    Ok(Record { key, version, updated_at, expires_at, fields })
}

/// A record as the values of its row, in the order of [`Table::columns`](crate::Table::columns).
///
/// # Errors
/// [`InvalidInput`](storage_core::ErrorKind::InvalidInput) for fields that the schema does not allow.
pub fn values<'a>(dialect: Dialect, schema: &TableSchema, record: &'a Record) -> Result<Vec<SqlValue<'a>>> {
    let mut values = Vec::with_capacity(schema.columns.len() + 6);
    values.extend(record.key.partition.iter().chain([&record.key.id]).map(encode_key_part));
    let mut found = 0;
    for column in &schema.columns {
        values.push(match record.fields.get(column.name.as_str()) {
            Some(value) => {
                found += 1;
                encode(dialect, column.kind, value)?
            }
            None => SqlValue::Null,
        });
    }
    let extra = if found == record.fields.len() { SqlValue::Null } else { extra(dialect, schema, &record.fields)? };
    values.push(SqlValue::Integer(number(record.version)));
    values.push(SqlValue::time(dialect, record.updated_at));
    values.push(record.expires_at.map_or(SqlValue::Null, |at| SqlValue::time(dialect, at)));
    values.push(extra);
    Ok(values)
}

/// A version as it is stored.
#[must_use]
pub fn number(version: Version) -> i64 {
    i64::try_from(version.0).unwrap_or(i64::MAX)
}

/// The fields outside the schema as one JSON object.
///
/// # Errors
/// [`InvalidInput`](storage_core::ErrorKind::InvalidInput) where there are some and may be none.
pub fn extra(dialect: Dialect, schema: &TableSchema, fields: &Fields) -> Result<SqlValue<'static>> {
    let left = fields.iter().filter(|(name, value)| schema.column(name).is_none() && !value.is_null());
    let left: Fields = left.map(|(name, value)| (name.clone(), value.clone())).collect();
    let Some((name, _)) = left.iter().next() else { return Ok(SqlValue::Null) };
    if schema.undeclared == Undeclared::Reject {
        return Err(Error::invalid(format!("table `{}` has no column `{name}`", schema.name)));
    }
    Ok(SqlValue::Json(Cow::Owned(json_text(dialect, &left)?)))
}

/// The version in a column.
///
/// # Errors
/// See [`key`].
pub fn version(row: &impl SqlRow, column: usize) -> Result<Version> {
    match row.value(column)? {
        SqlValue::Integer(n) => Ok(Version(u64::try_from(n).map_err(|_| stranger("version"))?)),
        _ => Err(stranger("version")),
    }
}

/// A time in a system column.
///
/// # Errors
/// See [`key`].
pub fn time(row: &impl SqlRow, column: usize) -> Result<Option<DateTime<Utc>>> {
    match row.value(column)? {
        SqlValue::Null => Ok(None),
        SqlValue::Timestamp(time) => Ok(Some(time)),
        SqlValue::Text(text) => parse_timestamp(&text).map(Some).map_err(|_| stranger("time")),
        _ => Err(stranger("time")),
    }
}

/// A number in a column of the toolkit's own tables.
///
/// # Errors
/// See [`key`].
pub fn integer(row: &impl SqlRow, column: usize) -> Result<Option<i64>> {
    match row.value(column)? {
        SqlValue::Null => Ok(None),
        SqlValue::Integer(n) => Ok(Some(n)),
        SqlValue::Boolean(b) => Ok(Some(i64::from(b))),
        _ => Err(stranger("number")),
    }
}

/// A text in a column of the toolkit's own tables.
///
/// # Errors
/// See [`key`].
pub fn text(row: &impl SqlRow, column: usize) -> Result<Option<String>> {
    match row.value(column)? {
        SqlValue::Null => Ok(None),
        SqlValue::Text(text) | SqlValue::Json(text) => Ok(Some(text.into_owned())),
        _ => Err(stranger("text")),
    }
}
