//! Records as rows.

use std::borrow::Cow;

use chrono::{DateTime, Utc};
use serde_json::Value;
use storage_core::{ColumnType, Error, Fields, Key, KeyPart, Record, Result, TableSchema, Undeclared, Version};
use storage_sql::{Dialect, SqlValue, decode, encode, encode_key_part, json_text};
use tokio_postgres::Row;

use crate::bind::{Cell, Param};
use crate::error::OrExplain as _;

/// Columns of arrays, filled row by row.
pub(crate) struct Columns<'a>(Vec<Vec<SqlValue<'a>>>);

impl<'a> Columns<'a> {
    /// The keys of a table, one array a part.
    pub(crate) fn of_keys(schema: &TableSchema, keys: impl IntoIterator<Item = &'a Key>) -> Vec<Param<'a>> {
        let mut columns = vec![Vec::new(); schema.key_columns().count()];
        for key in keys {
            for (column, part) in columns.iter_mut().zip(key.partition.iter().chain([&key.id])) {
                column.push(encode_key_part(part));
            }
        }
        columns.into_iter().map(Param::Many).collect()
    }

    /// Whole records.
    pub(crate) fn of_records(schema: &TableSchema, records: impl IntoIterator<Item = &'a Record>) -> Result<Vec<Param<'a>>> {
        let keys = schema.key_columns().count();
        let mut columns = Self(vec![Vec::new(); keys + schema.columns.len() + 4]);
        for record in records {
            columns.push(schema, record)?;
        }
        Ok(columns.0.into_iter().map(Param::Many).collect())
    }

    fn push(&mut self, schema: &TableSchema, record: &'a Record) -> Result<()> {
        let parts = record.key.partition.iter().chain([&record.key.id]).map(|part| Ok(encode_key_part(part)));
        let mut found = 0;
        let declared = schema.columns.iter().map(|column| match record.fields.get(column.name.as_str()) {
            Some(value) => {
                found += 1;
                encode(Dialect::Postgres, column.kind, value)
            }
            None => Ok(SqlValue::Null),
        });
        let values = parts.chain(declared).collect::<Result<Vec<_>>>()?;
        let extra = if found == record.fields.len() { SqlValue::Null } else { extra(schema, &record.fields)? };
        let system = [
            SqlValue::Integer(number(record.version)),
            SqlValue::Timestamp(record.updated_at),
            record.expires_at.map_or(SqlValue::Null, SqlValue::Timestamp),
            extra,
        ];
        for (column, value) in self.0.iter_mut().zip(values.into_iter().chain(system)) {
            column.push(value);
        }
        Ok(())
    }
}

pub(crate) fn number(version: Version) -> i64 {
    i64::try_from(version.0).unwrap_or(i64::MAX)
}

/// The fields outside the schema as one JSON object.
fn extra(schema: &TableSchema, fields: &Fields) -> Result<SqlValue<'static>> {
    let left = fields.iter().filter(|(name, value)| schema.column(name).is_none() && !value.is_null());
    let left: Fields = left.map(|(name, value)| (name.clone(), value.clone())).collect();
    let Some((name, _)) = left.iter().next() else { return Ok(SqlValue::Null) };
    if schema.undeclared == Undeclared::Reject {
        return Err(Error::invalid(format!("table `{}` has no column `{name}`", schema.name)));
    }
    Ok(SqlValue::Json(Cow::Owned(json_text(Dialect::Postgres, &left)?)))
}

/// A value that came back, without a copy.
pub(crate) fn value(row: &Row, column: usize) -> Result<SqlValue<'_>> {
    row.try_get::<_, Cell<'_>>(column).map(|cell| cell.0).or_explain()
}

pub(crate) fn stranger(what: &str) -> Error {
    Error::corrupt(format!("a row was not written by this toolkit: its {what} can't be read"))
}

/// The key in the first columns of a row, and how many they are.
pub(crate) fn key(row: &Row, schema: &TableSchema) -> Result<(Key, usize)> {
    let mut at = 0;
    let mut part = || {
        at += 1;
        match value(row, at - 1)? {
            SqlValue::Integer(n) => Ok(KeyPart::Integer(n)),
            SqlValue::Text(text) => Ok(KeyPart::Text(text.into_owned())),
            _ => Err(stranger("key")),
        }
    };
    let partition = schema.partition.as_ref().map(|_| part()).transpose()?;
    let key = Key { partition, id: part()? };
    Ok((key, at))
}

/// The record in a row with all columns of its table.
pub(crate) fn read(row: &Row, schema: &TableSchema) -> Result<Record> {
    let (key, mut at) = key(row, schema)?;
    let mut fields = Fields::new();
    for column in &schema.columns {
        match value(row, at)? {
            SqlValue::Null => {}
            found => drop(fields.insert(column.name.as_str().to_owned(), decode(column.kind, found)?)),
        }
        at += 1;
    }
    let version = version(row, at)?;
    let updated_at = time(row, at + 1)?.ok_or_else(|| stranger("time"))?;
    let expires_at = time(row, at + 2)?;
    match value(row, at + 3)? {
        SqlValue::Null => {}
        found => match decode(ColumnType::Json, found)? {
            Value::Object(extra) => fields.extend(extra),
            _ => return Err(stranger("`_extra`")),
        },
    }
    Ok(Record { key, version, updated_at, expires_at, fields })
}

pub(crate) fn version(row: &Row, column: usize) -> Result<Version> {
    match value(row, column)? {
        SqlValue::Integer(n) => Ok(Version(u64::try_from(n).map_err(|_| stranger("version"))?)),
        _ => Err(stranger("version")),
    }
}

/// A time in a system column.
pub(crate) fn time(row: &Row, column: usize) -> Result<Option<DateTime<Utc>>> {
    match value(row, column)? {
        SqlValue::Null => Ok(None),
        SqlValue::Timestamp(time) => Ok(Some(time)),
        _ => Err(stranger("time")),
    }
}
