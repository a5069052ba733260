//! Earlier versions of records, as JSON, in a table of their own.

use storage_core::{Error, Fields, History, Key, Record, Result, TableSchema, part_value};

use crate::SqlValue;
use crate::row::{self, SqlRow};

/// The key as JSON: a text, a number, or an array of both parts.
#[must_use]
pub fn history_key(key: &Key) -> String {
    match &key.partition {
        None => part_value(&key.id).to_string(),
        Some(partition) => serde_json::Value::Array(vec![part_value(partition), part_value(&key.id)]).to_string(),
    }
}

/// The kept version in a row of version, time, expiry and fields.
///
/// # Errors
/// [`Corrupt`](storage_core::ErrorKind::Corrupt) for a row of somebody else's.
pub fn history_version(found: &impl SqlRow, key: &Key) -> Result<Record> {
    let updated_at = row::time(found, 1)?.ok_or_else(|| Error::corrupt("a version in `_storage_history` has no time"))?;
    let (version, expires_at) = (row::version(found, 0)?, row::time(found, 2)?);
    Ok(Record { key: key.clone(), version, updated_at, expires_at, fields: history_fields(found, 3)? })
}

/// The fields of a kept version.
///
/// # Errors
/// [`Corrupt`](storage_core::ErrorKind::Corrupt) where there are none.
pub fn history_fields(found: &impl SqlRow, column: usize) -> Result<Fields> {
    match found.value(column)? {
        SqlValue::Json(text) | SqlValue::Text(text) => serde_json::from_str(&text)
            .map_err(|e| Error::corrupt(format!("a version in `_storage_history` can't be read: {e}")).with_source(e)),
        _ => Err(Error::corrupt("a version in `_storage_history` has no fields")),
    }
}

/// That there may be kept versions of the record.
///
/// # Errors
/// [`Unsupported`](storage_core::ErrorKind::Unsupported) where the table keeps none; [`InvalidInput`](storage_core::ErrorKind::InvalidInput) for a key of another kind.
pub fn keeps_history(schema: &TableSchema, key: &Key) -> Result<()> {
    schema.check_key(key)?;
    if schema.history == History::None {
        return Err(Error::unsupported(format!(
            "table `{}` keeps no history: create it with `history`, or alter it",
            schema.name
        )));
    }
    Ok(())
}
