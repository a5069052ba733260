//! Values on their way to the server and back.

use std::borrow::Cow;
use std::error::Error as StdError;

use bytes::{BufMut as _, BytesMut};
use chrono::{DateTime, Utc};
use storage_sql::SqlValue;
use tokio_postgres::types::{FromSql, IsNull, Kind, ToSql, Type, to_sql_checked};

type Failure = Box<dyn StdError + Sync + Send>;

/// A parameter of a statement: a value, or an array of values.
#[derive(Clone, Debug)]
pub(crate) enum Param<'a> {
    One(SqlValue<'a>),
    Many(Vec<SqlValue<'a>>),
}

impl Param<'_> {
    pub(crate) fn time(time: DateTime<Utc>) -> Self {
        Self::One(SqlValue::Timestamp(time))
    }

    pub(crate) fn times(times: impl Iterator<Item = Option<DateTime<Utc>>>) -> Self {
        Self::Many(times.map(|time| time.map_or(SqlValue::Null, SqlValue::Timestamp)).collect())
    }

    pub(crate) fn integers(numbers: impl IntoIterator<Item = i64>) -> Self {
        Self::Many(numbers.into_iter().map(SqlValue::Integer).collect())
    }
}

impl From<i64> for Param<'_> {
    fn from(n: i64) -> Self {
        Self::One(SqlValue::Integer(n))
    }
}

impl<'a> From<&'a str> for Param<'a> {
    fn from(text: &'a str) -> Self {
        Self::One(SqlValue::Text(Cow::Borrowed(text)))
    }
}

impl<'a> From<SqlValue<'a>> for Param<'a> {
    fn from(value: SqlValue<'a>) -> Self {
        Self::One(value)
    }
}

/// One value, written as the server's type asks for.
#[derive(Debug)]
struct Bound<'a>(&'a SqlValue<'a>);

impl ToSql for Bound<'_> {
    fn to_sql(&self, ty: &Type, out: &mut BytesMut) -> Result<IsNull, Failure> {
        match (self.0, ty) {
            (SqlValue::Null, _) => Ok(IsNull::Yes),
            (SqlValue::Boolean(b), &Type::BOOL) => b.to_sql(ty, out),
            (SqlValue::Integer(n), &Type::INT8) => n.to_sql(ty, out),
            (SqlValue::Integer(n), &Type::INT4) => i32::try_from(*n)?.to_sql(ty, out),
            (SqlValue::Integer(n), &Type::INT2) => i16::try_from(*n)?.to_sql(ty, out),
            (SqlValue::Real(x), &Type::FLOAT8) => x.to_sql(ty, out),
            (SqlValue::Text(text), &(Type::TEXT | Type::VARCHAR | Type::BPCHAR | Type::NAME)) => text.as_ref().to_sql(ty, out),
            (SqlValue::Bytes(bytes), &Type::BYTEA) => bytes.as_ref().to_sql(ty, out),
            (SqlValue::Timestamp(time), &Type::TIMESTAMPTZ) => time.to_sql(ty, out),
            (SqlValue::Json(text), &Type::JSONB) => {
                out.put_u8(1);
                out.put_slice(text.as_bytes());
                Ok(IsNull::No)
            }
            (_, ty) => Err(format!("the column is of type {ty}").into()),
        }
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

impl ToSql for Param<'_> {
    fn to_sql(&self, ty: &Type, out: &mut BytesMut) -> Result<IsNull, Failure> {
        match (self, ty.kind()) {
            (Self::One(value), _) => Bound(value).to_sql(ty, out),
            (Self::Many(values), Kind::Array(_)) => values.iter().map(Bound).collect::<Vec<_>>().to_sql(ty, out),
            (Self::Many(_), _) => Err(format!("the parameter is of type {ty}, not an array").into()),
        }
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

/// A value that came back, without a copy.
pub(crate) struct Cell<'a>(pub(crate) SqlValue<'a>);

impl<'a> FromSql<'a> for Cell<'a> {
    fn from_sql(ty: &Type, raw: &'a [u8]) -> Result<Self, Failure> {
        Ok(Self(match *ty {
            Type::BOOL => SqlValue::Boolean(bool::from_sql(ty, raw)?),
            Type::INT8 => SqlValue::Integer(i64::from_sql(ty, raw)?),
            Type::INT4 => SqlValue::Integer(i32::from_sql(ty, raw)?.into()),
            Type::INT2 => SqlValue::Integer(i16::from_sql(ty, raw)?.into()),
            Type::FLOAT8 => match f64::from_sql(ty, raw)? {
                x if x.is_finite() => SqlValue::Real(x),
                x => return Err(format!("{x} is not a finite number").into()),
            },
            Type::TEXT | Type::VARCHAR | Type::BPCHAR | Type::NAME => SqlValue::Text(Cow::Borrowed(<&str>::from_sql(ty, raw)?)),
            Type::BYTEA => SqlValue::Bytes(Cow::Borrowed(raw)),
            Type::TIMESTAMPTZ => SqlValue::Timestamp(DateTime::<Utc>::from_sql(ty, raw)?),
            Type::JSONB => match raw.split_first() {
                Some((1, text)) => SqlValue::Json(Cow::Borrowed(std::str::from_utf8(text)?)),
                _ => return Err("an unknown version of jsonb".into()),
            },
            ref ty => return Err(format!("a column of type {ty} is not one of this toolkit's").into()),
        }))
    }

    fn from_sql_null(_: &Type) -> Result<Self, Failure> {
        Ok(Self(SqlValue::Null))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}
