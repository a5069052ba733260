//! Filters: which records a query is about.

use std::borrow::Cow;
use std::cmp::Ordering;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::record::{Fields, part_value};
use crate::schema::{ColumnRef, ColumnType};
use crate::value::{self, canonical, compare};
use crate::{ColumnName, Error, Key, Record, Result, TableSchema, Version};

/// How deep filters may be nested.
pub const MAX_FILTER_DEPTH: usize = 64;
/// How many comparisons a filter may hold, each value of an `in` counted as one.
pub const MAX_FILTER_TERMS: usize = 10_000;

/// Which records: a comparison, or a combination of filters. The same answer on every backend:
///
/// - Two-valued: a missing field is null; `ne` is exactly not-`eq`; an ordering against null is false.
/// - Text compares bytewise and case-sensitively; `%` and `_` are ordinary characters.
/// - Integers and reals compare as numbers; values of different types are unequal and unordered.
///
/// ```
/// use storage_core::Filter;
/// let filter = Filter::eq("status", "done")? & !Filter::lt("priority", 3)?;
/// # Ok::<(), storage_core::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Filter {
    /// Every record.
    #[default]
    All,
    /// Equal; against null, the same as [`IsNull`](Self::IsNull).
    Eq(ColumnName, Value),
    /// Not equal.
    Ne(ColumnName, Value),
    /// Less.
    Lt(ColumnName, Value),
    /// Less or equal.
    Le(ColumnName, Value),
    /// Greater.
    Gt(ColumnName, Value),
    /// Greater or equal.
    Ge(ColumnName, Value),
    /// Equal to one of the values.
    In(ColumnName, Vec<Value>),
    /// Text that starts so.
    StartsWith(ColumnName, String),
    /// Text that has this in it.
    Contains(ColumnName, String),
    /// Missing.
    IsNull(ColumnName),
    /// All of them; of none: every record.
    And(Vec<Filter>),
    /// One of them at least; of none: no record.
    Or(Vec<Filter>),
    /// Not.
    Not(Box<Filter>),
}

macro_rules! comparison {
    ($(#[$doc:meta])* $fn:ident, $variant:ident) => {
        $(#[$doc])*
        ///
        /// # Errors
        /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for a bad column name.
        pub fn $fn<C>(column: C, value: impl Into<Value>) -> Result<Self>
        where
            C: TryInto<ColumnName>,
            Error: From<C::Error>,
        {
            Ok(Self::$variant(column.try_into()?, value.into()))
        }
    };
}

impl Filter {
    comparison!(
        /// `column = value`.
        eq, Eq
    );
    comparison!(
        /// `column != value`.
        ne, Ne
    );
    comparison!(
        /// `column < value`.
        lt, Lt
    );
    comparison!(
        /// `column <= value`.
        le, Le
    );
    comparison!(
        /// `column > value`.
        gt, Gt
    );
    comparison!(
        /// `column >= value`.
        ge, Ge
    );

    /// `column in (values)`.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for a bad column name.
    pub fn is_in<C, V: Into<Value>>(column: C, values: impl IntoIterator<Item = V>) -> Result<Self>
    where
        C: TryInto<ColumnName>,
        Error: From<C::Error>,
    {
        Ok(Self::In(column.try_into()?, values.into_iter().map(Into::into).collect()))
    }

    /// Text in `column` starts with `prefix`.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for a bad column name.
    pub fn starts_with<C>(column: C, prefix: impl Into<String>) -> Result<Self>
    where
        C: TryInto<ColumnName>,
        Error: From<C::Error>,
    {
        Ok(Self::StartsWith(column.try_into()?, prefix.into()))
    }

    /// Text in `column` has `part` in it.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for a bad column name.
    pub fn contains<C>(column: C, part: impl Into<String>) -> Result<Self>
    where
        C: TryInto<ColumnName>,
        Error: From<C::Error>,
    {
        Ok(Self::Contains(column.try_into()?, part.into()))
    }

    /// `column` is missing.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for a bad column name.
    pub fn is_null<C>(column: C) -> Result<Self>
    where
        C: TryInto<ColumnName>,
        Error: From<C::Error>,
    {
        Ok(Self::IsNull(column.try_into()?))
    }

    /// The filter with its literals in canonical form, checked against the schema: what backends are given.
    ///
    /// After it, `Eq`/`Ne`/`In` hold no null, literals have the column's type (a number for either kind of number), and `Json`
    /// columns appear under `IsNull` alone.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for an unknown column, a literal of another type than the column's, an operator that the
    /// column's type doesn't have, or a filter beyond the bounds.
    pub fn canonical(&self, schema: &TableSchema) -> Result<Self> {
        let mut terms = 0;
        self.canonical_within(schema, 0, &mut terms)
    }

    fn canonical_within(&self, schema: &TableSchema, depth: usize, terms: &mut usize) -> Result<Self> {
        *terms += if let Self::In(_, values) = self { values.len() } else { 1 };
        if depth > MAX_FILTER_DEPTH || *terms > MAX_FILTER_TERMS {
            return Err(Error::invalid(format!(
                "the filter is too large: {MAX_FILTER_DEPTH} levels and {MAX_FILTER_TERMS} comparisons at most"
            )));
        }
        let mut all =
            |filters: &[Self]| filters.iter().map(|f| f.canonical_within(schema, depth + 1, terms)).collect::<Result<Vec<_>>>();
        let ordered = |column: &ColumnName, value: &Value| literal(schema, column, value, Operator::Order);
        let text = |column: &ColumnName, text: &String| {
            literal(schema, column, &Value::from(text.as_str()), Operator::Text)?;
            Ok::<_, Error>((column.clone(), text.clone()))
        };
        Ok(match self {
            Self::All => Self::All,
            Self::Eq(c, Value::Null) => Self::IsNull(checked(schema, c)?),
            Self::Ne(c, Value::Null) => Self::Not(Box::new(Self::IsNull(checked(schema, c)?))),
            Self::Eq(c, v) => Self::Eq(c.clone(), literal(schema, c, v, Operator::Equal)?),
            Self::Ne(c, v) => Self::Ne(c.clone(), literal(schema, c, v, Operator::Equal)?),
            Self::Lt(c, v) => Self::Lt(c.clone(), ordered(c, v)?),
            Self::Le(c, v) => Self::Le(c.clone(), ordered(c, v)?),
            Self::Gt(c, v) => Self::Gt(c.clone(), ordered(c, v)?),
            Self::Ge(c, v) => Self::Ge(c.clone(), ordered(c, v)?),
            Self::In(c, values) => canonical_in(schema, c, values)?,
            Self::StartsWith(c, t) => text(c, t).map(|(c, t)| Self::StartsWith(c, t))?,
            Self::Contains(c, t) => text(c, t).map(|(c, t)| Self::Contains(c, t))?,
            Self::IsNull(c) => Self::IsNull(checked(schema, c)?),
            Self::And(filters) => Self::And(all(filters)?),
            Self::Or(filters) => Self::Or(all(filters)?),
            Self::Not(filter) => Self::Not(Box::new(filter.canonical_within(schema, depth + 1, terms)?)),
        })
    }

    /// True where `record` is meant: the definition that every backend's own evaluation must agree with.
    #[must_use]
    pub fn matches(&self, schema: &TableSchema, record: &Record) -> bool {
        let value = |column: &ColumnName| lookup(schema, record, column);
        let ordering = |column: &ColumnName, literal: &Value| value(column).and_then(|v| compare(&v, literal));
        let equals = |column: &ColumnName, literal: &Value| match (value(column), literal) {
            (None, Value::Null) => true,
            (Some(v), literal) => compare(&v, literal) == Some(Ordering::Equal),
            (None, _) => false,
        };
        let text = |column: &ColumnName, test: &dyn Fn(&str) -> bool| value(column).is_some_and(|v| v.as_str().is_some_and(test));
        match self {
            Self::All => true,
            Self::Eq(c, v) => equals(c, v),
            Self::Ne(c, v) => !equals(c, v),
            Self::Lt(c, v) => ordering(c, v).is_some_and(Ordering::is_lt),
            Self::Le(c, v) => ordering(c, v).is_some_and(Ordering::is_le),
            Self::Gt(c, v) => ordering(c, v).is_some_and(Ordering::is_gt),
            Self::Ge(c, v) => ordering(c, v).is_some_and(Ordering::is_ge),
            Self::In(c, values) => values.iter().any(|v| equals(c, v)),
            Self::StartsWith(c, prefix) => text(c, &|t| t.starts_with(prefix)),
            Self::Contains(c, part) => text(c, &|t| t.contains(part)),
            Self::IsNull(c) => value(c).is_none(),
            Self::And(filters) => filters.iter().all(|f| f.matches(schema, record)),
            Self::Or(filters) => filters.iter().any(|f| f.matches(schema, record)),
            Self::Not(filter) => !filter.matches(schema, record),
        }
    }

    /// The filters that must all hold: those of an `And`, flattened, or this one alone.
    #[must_use]
    pub fn conjuncts(&self) -> Vec<&Self> {
        match self {
            Self::All => Vec::new(),
            Self::And(filters) => filters.iter().flat_map(Self::conjuncts).collect(),
            filter => vec![filter],
        }
    }

    /// Splits the filter into what a backend can evaluate itself and the rest, which [`matches`](Self::matches) decides.
    ///
    /// A record is meant exactly where both parts hold.
    #[must_use]
    pub fn split(&self, can_push: impl Fn(&Self) -> bool) -> (Self, Self) {
        let (push, rest): (Vec<_>, Vec<_>) = self.conjuncts().into_iter().cloned().partition(can_push);
        (Self::all_of(push), Self::all_of(rest))
    }

    /// Splits the filter into what it says of the key alone, which [`matches_key`](Self::matches_key) decides, and the rest.
    #[must_use]
    pub fn split_key(&self, schema: &TableSchema) -> (Self, Self) {
        self.split(|filter| filter.columns().iter().all(|column| schema.key_columns().any(|key| key.name == **column)))
    }

    /// True where a record of `key` is meant, by a filter that names key columns alone.
    #[must_use]
    pub fn matches_key(&self, schema: &TableSchema, key: &Key) -> bool {
        if *self == Self::All {
            return true;
        }
        let bare = Record {
            key: key.clone(),
            version: Version::NONE,
            updated_at: DateTime::<Utc>::MIN_UTC,
            expires_at: None,
            fields: Fields::new(),
        };
        self.matches(schema, &bare)
    }

    /// All of them, without a needless `And`.
    #[must_use]
    pub fn all_of(mut filters: Vec<Self>) -> Self {
        match filters.len() {
            0 => Self::All,
            1 => filters.remove(0),
            _ => Self::And(filters),
        }
    }

    /// Every column that the filter names.
    #[must_use]
    pub fn columns(&self) -> Vec<&ColumnName> {
        match self {
            Self::All => Vec::new(),
            Self::Eq(c, _)
            | Self::Ne(c, _)
            | Self::Lt(c, _)
            | Self::Le(c, _)
            | Self::Gt(c, _)
            | Self::Ge(c, _)
            | Self::In(c, _)
            | Self::StartsWith(c, _)
            | Self::Contains(c, _)
            | Self::IsNull(c) => vec![c],
            Self::And(filters) | Self::Or(filters) => filters.iter().flat_map(Self::columns).collect(),
            Self::Not(filter) => filter.columns(),
        }
    }
}

impl std::ops::BitAnd for Filter {
    type Output = Self;
    fn bitand(self, other: Self) -> Self {
        match (self, other) {
            (Self::All, filter) | (filter, Self::All) => filter,
            (Self::And(mut filters), other) => {
                filters.push(other);
                Self::And(filters)
            }
            (filter, other) => Self::And(vec![filter, other]),
        }
    }
}

impl std::ops::BitOr for Filter {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        match (self, other) {
            (Self::Or(mut filters), other) => {
                filters.push(other);
                Self::Or(filters)
            }
            (filter, other) => Self::Or(vec![filter, other]),
        }
    }
}

impl std::ops::Not for Filter {
    type Output = Self;
    fn not(self) -> Self {
        Self::Not(Box::new(self))
    }
}

fn lookup<'a>(schema: &TableSchema, record: &'a Record, column: &ColumnName) -> Option<Cow<'a, Value>> {
    if schema.id.name == *column {
        return Some(Cow::Owned(part_value(&record.key.id)));
    }
    if schema.partition.as_ref().is_some_and(|p| p.name == *column) {
        return record.key.partition.as_ref().map(|part| Cow::Owned(part_value(part)));
    }
    record.fields.get(column.as_str()).filter(|v| !v.is_null()).map(Cow::Borrowed)
}

#[derive(Clone, Copy, PartialEq)]
enum Operator {
    Equal,
    Order,
    Text,
}

fn checked(schema: &TableSchema, column: &ColumnName) -> Result<ColumnName> {
    schema.resolve(column).map(|_| column.clone())
}

fn canonical_in(schema: &TableSchema, column: &ColumnName, values: &[Value]) -> Result<Filter> {
    checked(schema, column)?;
    let (nulls, others): (Vec<_>, Vec<_>) = values.iter().partition(|v| v.is_null());
    let others = others.into_iter().map(|v| literal(schema, column, v, Operator::Equal)).collect::<Result<Vec<_>>>()?;
    let listed = Filter::In(column.clone(), others);
    Ok(if nulls.is_empty() { listed } else { listed | Filter::IsNull(column.clone()) })
}

fn literal(schema: &TableSchema, column: &ColumnName, literal: &Value, operator: Operator) -> Result<Value> {
    let mismatch = |what: String| Err(Error::invalid(format!("column `{column}` of table `{}` {what}", schema.name)));
    let kind = match schema.resolve(column)? {
        ColumnRef::Undeclared => {
            value::check_json(literal)?;
            return Ok(literal.clone());
        }
        column => column.column_type().unwrap_or(ColumnType::Json),
    };
    if kind == ColumnType::Json {
        return mismatch("holds JSON and can be filtered by `is null` alone".into());
    }
    if operator == Operator::Order && !kind.is_ordered() {
        return mismatch(format!("holds {} and has no order", kind.article()));
    }
    if operator == Operator::Text && kind != ColumnType::Text {
        return mismatch(format!("holds {}, not text", kind.article()));
    }
    match (kind, literal) {
        (_, Value::Null) => Ok(Value::Null),
        // Either kind of number compares with either kind of column, by value.
        (ColumnType::Integer | ColumnType::Real, Value::Number(_)) => Ok(literal.clone()),
        (ColumnType::Timestamp, Value::String(text)) => Ok(Value::from(value::timestamp(value::parse_timestamp_or_date(text)?))),
        (kind, literal) => match canonical(kind, literal.clone()) {
            Ok(literal) => Ok(literal),
            Err(error) => mismatch(format!("is compared with what it can't hold: {}", error.message())),
        },
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{Version, fields};

    fn schema() -> TableSchema {
        TableSchema::builder("t")
            .column("n", ColumnType::Integer)
            .column("x", ColumnType::Real)
            .column("s", ColumnType::Text)
            .column("at", ColumnType::Timestamp)
            .column("j", ColumnType::Json)
            .column("b", ColumnType::Bytes)
            .keep_undeclared()
            .build()
            .unwrap()
    }

    fn matches(filter: Filter, record: Value) -> bool {
        let record =
            Record { key: "k".into(), version: Version::FIRST, updated_at: Utc::now(), expires_at: None, fields: fields(record) };
        filter.canonical(&schema()).unwrap().matches(&schema(), &record)
    }

    #[test]
    fn null_is_two_valued() {
        assert!(matches(Filter::ne("n", 5).unwrap(), json!({})));
        assert!(!matches(Filter::eq("n", 5).unwrap(), json!({})));
        assert!(!matches(Filter::lt("n", 5).unwrap(), json!({})));
        assert!(matches(!Filter::lt("n", 5).unwrap(), json!({})));
        assert!(matches(Filter::eq("n", Value::Null).unwrap(), json!({})));
        assert!(!matches(Filter::lt("n", Value::Null).unwrap(), json!({"n": 1})));
        assert!(matches(Filter::is_in("n", [json!(1), Value::Null]).unwrap(), json!({})));
        assert!(!matches(Filter::is_in("n", [json!(1)]).unwrap(), json!({})));
        assert!(matches(!Filter::is_in("n", [json!(1)]).unwrap(), json!({})));
    }

    #[test]
    fn text_is_literal_and_case_sensitive() {
        assert!(matches(Filter::contains("s", "50%").unwrap(), json!({"s": "a 50% b"})));
        assert!(!matches(Filter::contains("s", "50%").unwrap(), json!({"s": "a 500 b"})));
        assert!(!matches(Filter::starts_with("s", "A").unwrap(), json!({"s": "abc"})));
    }

    #[test]
    fn numbers_of_both_kinds_compare() {
        assert!(matches(Filter::gt("n", 2.5).unwrap(), json!({"n": 3})));
        assert!(matches(Filter::eq("x", 3).unwrap(), json!({"x": 3.0})));
        assert!(matches(Filter::eq("free", 3.0).unwrap(), json!({"free": 3})));
        assert!(!matches(Filter::eq("free", "3").unwrap(), json!({"free": 3})));
    }

    #[test]
    fn timestamps_are_compared_in_utc() {
        assert!(matches(Filter::eq("at", "2026-01-01T02:00:00+02:00").unwrap(), json!({"at": "2026-01-01T00:00:00.000000Z"})));
        assert!(matches(Filter::gt("at", "2025-12-31").unwrap(), json!({"at": "2026-01-01T00:00:00.000000Z"})));
    }

    #[test]
    fn nonsense_is_refused() {
        for filter in [
            Filter::eq("n", "x").unwrap(),
            Filter::eq("j", 1).unwrap(),
            Filter::lt("b", "AAE=").unwrap(),
            Filter::contains("n", "1").unwrap(),
            Filter::eq("at", "soon").unwrap(),
        ] {
            assert!(filter.canonical(&schema()).is_err(), "{filter:?}");
        }
        let deep = (0..100).fold(Filter::All, |inner, _| !inner);
        assert!(deep.canonical(&schema()).is_err());
    }

    #[test]
    fn split_keeps_the_meaning() {
        let filter = Filter::eq("n", 1).unwrap() & Filter::eq("free", 2).unwrap();
        let (push, rest) = filter.split(|f| f.columns().iter().all(|c| **c == "n"));
        assert_eq!(push, Filter::eq("n", 1).unwrap());
        assert_eq!(rest, Filter::eq("free", 2).unwrap());
    }
}
