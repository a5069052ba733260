//! Values on their way to the server and back.

use std::borrow::Cow;

use chrono::{DateTime, Datelike as _, NaiveDate, Timelike as _, Utc};
use mysql_async::Value;
use mysql_async::consts::ColumnType;
use storage_core::{Error, Key, Result};
use storage_sql::{SqlRow, SqlValue, encode_key_part};

/// The character set of what is no text.
const BINARY: u16 = 63;

/// A value as the driver binds it.
pub(crate) fn bound(value: SqlValue<'_>) -> Value {
    match value {
        SqlValue::Null => Value::NULL,
        SqlValue::Boolean(b) => Value::Int(i64::from(b)),
        SqlValue::Integer(n) => Value::Int(n),
        SqlValue::Real(x) => Value::Double(x),
        SqlValue::Text(text) | SqlValue::Json(text) => Value::Bytes(text.into_owned().into_bytes()),
        SqlValue::Bytes(bytes) => Value::Bytes(bytes.into_owned()),
        SqlValue::Timestamp(time) => moment(time),
    }
}

/// A moment as the driver binds it. Dates are within the years 1 to 9999.
pub(crate) fn moment(time: DateTime<Utc>) -> Value {
    let byte = |n: u32| u8::try_from(n).unwrap_or(u8::MAX);
    let year = u16::try_from(time.year()).unwrap_or(9_999);
    Value::Date(
        year,
        byte(time.month()),
        byte(time.day()),
        byte(time.hour()),
        byte(time.minute()),
        byte(time.second()),
        time.timestamp_subsec_micros(),
    )
}

/// The same for one that may be missing.
pub(crate) fn maybe(time: Option<DateTime<Utc>>) -> Value {
    time.map_or(Value::NULL, moment)
}

/// Text as the driver binds it.
pub(crate) fn text(text: &str) -> Value {
    Value::Bytes(text.as_bytes().to_vec())
}

/// The parts of keys, one key behind the other.
pub(crate) fn key_values<'k>(keys: impl IntoIterator<Item = &'k Key>) -> Vec<Value> {
    let parts = keys.into_iter().flat_map(|key| key.partition.iter().chain([&key.id]));
    parts.map(|part| bound(encode_key_part(part))).collect()
}

/// A row that the server answered with.
#[derive(Debug)]
pub(crate) struct Row(pub(crate) mysql_async::Row);

impl Row {
    /// True where there is a record, in a row that comes also where there is none.
    pub(crate) fn has_key(&self) -> bool {
        !matches!(self.0.as_ref(0), Some(Value::NULL))
    }
}

impl SqlRow for Row {
    fn value(&self, column: usize) -> Result<SqlValue<'_>> {
        let about = self.0.columns_ref().get(column);
        let (Some(value), Some(about)) = (self.0.as_ref(column), about) else {
            return Err(Error::internal("the server answered with fewer columns than were asked for"));
        };
        let strange = |what: &str| Error::corrupt(format!("a column holds {what}: somebody else has changed it"));
        Ok(match value {
            Value::NULL => SqlValue::Null,
            Value::Int(n) => SqlValue::Integer(*n),
            Value::UInt(n) => SqlValue::Integer(i64::try_from(*n).map_err(|_| strange("a number that is too large"))?),
            Value::Double(x) if x.is_finite() => SqlValue::Real(*x),
            Value::Date(year, month, day, hour, minute, second, micros)
                if matches!(about.column_type(), ColumnType::MYSQL_TYPE_DATETIME | ColumnType::MYSQL_TYPE_TIMESTAMP) =>
            {
                let date = NaiveDate::from_ymd_opt(i32::from(*year), (*month).into(), (*day).into());
                let time =
                    date.and_then(|date| date.and_hms_micro_opt((*hour).into(), (*minute).into(), (*second).into(), *micros));
                SqlValue::Timestamp(time.ok_or_else(|| strange("a date that is none"))?.and_utc())
            }
            Value::Bytes(bytes) if is_number(about.column_type()) => integer(bytes)?,
            Value::Bytes(bytes) if about.character_set() == BINARY => SqlValue::Bytes(Cow::Borrowed(bytes)),
            Value::Bytes(bytes) => SqlValue::Text(Cow::Borrowed(std::str::from_utf8(bytes).map_err(|e| {
                Error::corrupt("a text column holds bytes that are no UTF-8: somebody else has changed it").with_source(e)
            })?)),
            Value::Double(_) => return Err(strange("a number that is not finite")),
            Value::Float(_) | Value::Date(..) | Value::Time(..) => {
                return Err(strange("a value of a type that is not this toolkit's"));
            }
        })
    }
}

/// A type whose values come as text where a statement was not prepared.
fn is_number(kind: ColumnType) -> bool {
    use ColumnType::{
        MYSQL_TYPE_DECIMAL, MYSQL_TYPE_INT24, MYSQL_TYPE_LONG, MYSQL_TYPE_LONGLONG, MYSQL_TYPE_NEWDECIMAL, MYSQL_TYPE_SHORT,
        MYSQL_TYPE_TINY,
    };
    matches!(
        kind,
        MYSQL_TYPE_TINY
            | MYSQL_TYPE_SHORT
            | MYSQL_TYPE_INT24
            | MYSQL_TYPE_LONG
            | MYSQL_TYPE_LONGLONG
            | MYSQL_TYPE_DECIMAL
            | MYSQL_TYPE_NEWDECIMAL
    )
}

fn integer(digits: &[u8]) -> Result<SqlValue<'static>> {
    let number = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok());
    number.map(SqlValue::Integer).ok_or_else(|| Error::corrupt("a column holds a number that is none of this toolkit's"))
}
