//! Records as hashes: a field each, its value as JSON.

use std::borrow::Cow;

use chrono::{DateTime, Utc};
use redis::Value;
use serde::Deserialize;
use storage_core::{ColumnType, Error, Fields, Key, Record, Result, TableSchema, Version};

use super::table::Table;
use crate::error::strange;

/// What our own fields begin with; one of a record's that begins so has another in front.
const OWN: char = '@';

/// The name of a record's field in the hash.
pub(super) fn field(name: &str) -> Cow<'_, str> {
    if name.starts_with(OWN) { Cow::Owned(format!("{OWN}{name}")) } else { Cow::Borrowed(name) }
}

fn damaged(table: &Table, key: &Key, what: &str) -> Error {
    Error::corrupt(format!("`{}` was not written by this toolkit, or was damaged: {what}", table.row(key)))
}

fn time(micros: i64) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp_micros(micros)
}

/// The record in all fields and values of a hash. `None` for an empty one: it is not there.
pub(super) fn read(table: &Table, key: Key, hash: Value) -> Result<Option<Record>> {
    let Value::Array(parts) = hash else { return Err(strange("no hash")) };
    if parts.is_empty() {
        return Ok(None);
    }
    let (mut fields, mut version, mut updated, mut expires) = (Fields::new(), None, None, None);
    let mut parts = parts.into_iter();
    while let (Some(name), Some(value)) = (parts.next(), parts.next()) {
        let (Value::BulkString(name), Value::BulkString(value)) = (name, value) else { return Err(strange("no field")) };
        let bad = |what: &str| damaged(table, &key, &format!("{what} of `{}`", String::from_utf8_lossy(&name)));
        let own = |value: &[u8]| {
            std::str::from_utf8(value).ok().and_then(|text| text.parse::<i64>().ok()).ok_or_else(|| bad("the number"))
        };
        match &name[..] {
            b"@version" => version = u64::try_from(own(&value)?).ok(),
            b"@updated" => updated = time(own(&value)?),
            b"@expires" => expires = Some(time(own(&value)?).ok_or_else(|| bad("the time"))?),
            b"@index" => {}
            _ => {
                let text = std::str::from_utf8(&name).map_err(|_| bad("the name"))?;
                let plain = text.strip_prefix(OWN).unwrap_or(text);
                let json = serde_json::from_slice(&value).map_err(|_| bad("the JSON"))?;
                if !fits(&table.schema, plain, &json) {
                    return Err(bad("the type"));
                }
                fields.insert(plain.to_owned(), json);
            }
        }
    }
    let (Some(version), Some(updated_at)) = (version, updated) else {
        return Err(damaged(table, &key, "it lacks `@version` or `@updated`"));
    };
    Ok(Some(Record { key, version: Version(version), updated_at, expires_at: expires, fields }))
}

/// True where a value is one that the column may have.
fn fits(schema: &TableSchema, name: &str, value: &serde_json::Value) -> bool {
    match schema.column(name).map(|column| column.kind) {
        None | Some(ColumnType::Json) => !value.is_null(),
        Some(ColumnType::Text | ColumnType::Timestamp | ColumnType::Bytes) => value.is_string(),
        Some(ColumnType::Integer) => value.is_i64(),
        Some(ColumnType::Real) => value.is_number(),
        Some(ColumnType::Boolean) => value.is_boolean(),
    }
}

/// A version as a history keeps it.
#[derive(Deserialize)]
struct Kept {
    version: u64,
    updated: i64,
    expires: Option<i64>,
    fields: Fields,
}

pub(super) fn read_kept(table: &Table, key: &Key, text: &[u8]) -> Result<Record> {
    let bad = || Error::corrupt(format!("`{}` holds what this toolkit did not write", table.history(key)));
    let kept: Kept = serde_json::from_slice(text).map_err(|_| bad())?;
    Ok(Record {
        key: key.clone(),
        version: Version(kept.version),
        updated_at: time(kept.updated).ok_or_else(bad)?,
        expires_at: kept.expires.map(|at| time(at).ok_or_else(bad)).transpose()?,
        fields: kept.fields,
    })
}

/// The same, to be written again.
pub(super) fn write_kept(record: &Record) -> Vec<u8> {
    let mut kept = serde_json::json!({
        "version": record.version.0, "updated": record.updated_at.timestamp_micros(), "fields": record.fields,
    });
    if let Some(at) = record.expires_at {
        kept["expires"] = at.timestamp_micros().into();
    }
    kept.to_string().into_bytes()
}
