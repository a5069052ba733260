//! Values as a driver binds and returns them.

use std::borrow::Cow;
use std::io;

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use storage_core::{ColumnType, Error, KeyPart, Result, value};

use crate::{Dialect, time};

/// A value to bind, or one that came back.
#[derive(Clone, Debug, PartialEq)]
pub enum SqlValue<'a> {
    /// NULL.
    Null,
    /// A boolean; where a dialect has none: 0 or 1.
    Boolean(bool),
    /// A signed 64-bit integer.
    Integer(i64),
    /// A 64-bit float.
    Real(f64),
    /// UTF-8 text.
    Text(Cow<'a, str>),
    /// Bytes.
    Bytes(Cow<'a, [u8]>),
    /// A moment, for dialects that have a type for it. SQLite holds its canonical text.
    Timestamp(DateTime<Utc>),
    /// JSON as text.
    Json(Cow<'a, str>),
}

impl SqlValue<'_> {
    /// The same value, owning what it refers to.
    #[must_use]
    pub fn into_owned(self) -> SqlValue<'static> {
        match self {
            Self::Null => SqlValue::Null,
            Self::Boolean(b) => SqlValue::Boolean(b),
            Self::Integer(n) => SqlValue::Integer(n),
            Self::Real(x) => SqlValue::Real(x),
            Self::Text(text) => SqlValue::Text(Cow::Owned(text.into_owned())),
            Self::Bytes(bytes) => SqlValue::Bytes(Cow::Owned(bytes.into_owned())),
            Self::Timestamp(time) => SqlValue::Timestamp(time),
            Self::Json(text) => SqlValue::Json(Cow::Owned(text.into_owned())),
        }
    }

    /// A moment in the form that the dialect holds.
    #[must_use]
    pub fn time(dialect: Dialect, time: DateTime<Utc>) -> Self {
        match dialect {
            Dialect::Sqlite => Self::Text(Cow::Owned(time::timestamp(time))),
            Dialect::Postgres | Dialect::MySql => Self::Timestamp(time),
        }
    }
}

/// A canonical JSON value as a column of type `kind` holds it.
///
/// # Errors
/// [`InvalidInput`](storage_core::ErrorKind::InvalidInput) where the value is not canonical for the type.
pub fn encode(dialect: Dialect, kind: ColumnType, value: &Value) -> Result<SqlValue<'_>> {
    Ok(match (kind, value) {
        (_, Value::Null) => SqlValue::Null,
        (ColumnType::Json, value) => SqlValue::Json(Cow::Owned(json_text(dialect, value)?)),
        (ColumnType::Text, Value::String(text)) => SqlValue::Text(Cow::Borrowed(text)),
        (ColumnType::Timestamp, Value::String(text)) if dialect == Dialect::Sqlite => SqlValue::Text(Cow::Borrowed(text)),
        (ColumnType::Timestamp, Value::String(text)) => SqlValue::Timestamp(time::parse_timestamp(text)?),
        (ColumnType::Bytes, Value::String(text)) => SqlValue::Bytes(Cow::Owned(value::decode_bytes(text)?)),
        (ColumnType::Boolean, Value::Bool(b)) => SqlValue::Boolean(*b),
        (ColumnType::Integer, Value::Number(n)) => SqlValue::Integer(n.as_i64().ok_or_else(|| not_canonical(kind))?),
        (ColumnType::Real, Value::Number(n)) => SqlValue::Real(n.as_f64().ok_or_else(|| not_canonical(kind))?),
        _ => return Err(not_canonical(kind)),
    })
}

/// JSON as text for a column of the dialect: read back, every number is of the kind and value that it was.
///
/// # Errors
/// None but a bug's: what is a JSON value can be written.
pub fn json_text<T: Serialize + ?Sized>(dialect: Dialect, value: &T) -> Result<String> {
    if dialect != Dialect::Postgres {
        return Ok(serde_json::to_string(value)?);
    }
    let mut text = Vec::new();
    value.serialize(&mut serde_json::Serializer::with_formatter(&mut text, PlainReals))?;
    String::from_utf8(text).map_err(|e| Error::internal("JSON is no text").with_source(e))
}

/// Writes reals without an exponent: jsonb takes `1e16` for an integer, and keeps `10000000000000000.0` as it is.
struct PlainReals;

impl serde_json::ser::Formatter for PlainReals {
    fn write_f64<W: io::Write + ?Sized>(&mut self, writer: &mut W, value: f64) -> io::Result<()> {
        if value.fract() == 0.0 { write!(writer, "{value}.0") } else { write!(writer, "{value}") }
    }
}

fn not_canonical(kind: ColumnType) -> Error {
    Error::invalid(format!(
        "a value is not in canonical form for a column of type {kind:?}: was the table's schema changed meanwhile?"
    ))
}

/// A part of a key as its column holds it.
#[must_use]
pub fn encode_key_part(part: &KeyPart) -> SqlValue<'_> {
    match part {
        KeyPart::Integer(n) => SqlValue::Integer(*n),
        KeyPart::Text(text) => SqlValue::Text(Cow::Borrowed(text)),
    }
}

/// The canonical JSON value of what a column of type `kind` held.
///
/// # Errors
/// [`Corrupt`](storage_core::ErrorKind::Corrupt) where a column of that type can't hold it.
pub fn decode(kind: ColumnType, value: SqlValue<'_>) -> Result<Value> {
    Ok(match (kind, value) {
        (_, SqlValue::Null) => Value::Null,
        (ColumnType::Text | ColumnType::Timestamp, SqlValue::Text(text)) => Value::String(text.into_owned()),
        (ColumnType::Timestamp, SqlValue::Timestamp(at)) => Value::String(time::timestamp(at)),
        (ColumnType::Json, SqlValue::Json(text) | SqlValue::Text(text)) => {
            serde_json::from_str(&text).map_err(|e| Error::corrupt(format!("a JSON column holds no JSON: {e}")).with_source(e))?
        }
        (ColumnType::Bytes, SqlValue::Bytes(bytes)) => Value::String(value::encode_bytes(&bytes)),
        (ColumnType::Text, SqlValue::Bytes(bytes)) => Value::String(
            String::from_utf8(bytes.into_owned())
                .map_err(|e| Error::corrupt("a text column holds bytes that are no text").with_source(e))?,
        ),
        (ColumnType::Boolean, SqlValue::Boolean(b)) => Value::Bool(b),
        (ColumnType::Boolean, SqlValue::Integer(n)) => Value::Bool(n != 0),
        (ColumnType::Integer, SqlValue::Integer(n)) => Value::from(n),
        (ColumnType::Real, SqlValue::Real(x)) => Value::from(x),
        (kind, found) => {
            let found = match found {
                SqlValue::Boolean(_) => "a boolean",
                SqlValue::Integer(_) => "an integer",
                SqlValue::Real(_) => "a real number",
                SqlValue::Text(_) | SqlValue::Json(_) => "text",
                SqlValue::Bytes(_) => "bytes",
                SqlValue::Timestamp(_) => "a timestamp",
                SqlValue::Null => "null",
            };
            return Err(Error::corrupt(format!("a column of type {kind:?} holds {found}: it was not written by this toolkit")));
        }
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_encoded_comes_back() {
        for (kind, value) in [
            (ColumnType::Text, json!("ä%_")),
            (ColumnType::Integer, json!(i64::MIN)),
            (ColumnType::Real, json!(0.1)),
            (ColumnType::Real, json!(3.0)),
            (ColumnType::Boolean, json!(true)),
            (ColumnType::Timestamp, json!("2026-11-21T09:30:00.000000Z")),
            (ColumnType::Json, json!({"a": [1, 1e16, null]})),
            (ColumnType::Bytes, json!("AAE=")),
            (ColumnType::Text, Value::Null),
        ] {
            for dialect in [Dialect::Sqlite, Dialect::Postgres, Dialect::MySql] {
                let encoded = encode(dialect, kind, &value).unwrap().into_owned();
                assert_eq!(decode(kind, encoded).unwrap(), value, "{dialect:?}");
            }
        }
    }

    #[test]
    fn jsonb_keeps_the_kind_of_numbers() {
        let text = json_text(Dialect::Postgres, &json!([1, 1.0, 1e16, 0.1, 5e-324, -2.5e-7, u64::MAX])).unwrap();
        assert!(text.starts_with("[1,1.0,10000000000000000.0,0.1,0.000") && !text.contains('e'), "{text}");
        assert!(text.ends_with("5,-0.00000025,18446744073709551615]"), "{text}");
        assert_eq!(json_text(Dialect::Sqlite, &json!(0.5)).unwrap(), "0.5");
    }

    #[test]
    fn strangers_are_noticed() {
        assert!(encode(Dialect::Sqlite, ColumnType::Integer, &json!("1")).is_err());
        let error = decode(ColumnType::Integer, SqlValue::Text("1".into())).unwrap_err();
        assert_eq!(error.kind(), storage_core::ErrorKind::Corrupt);
    }
}
