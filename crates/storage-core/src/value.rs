//! Values of columns: their canonical JSON form, and how they compare.
//!
//! Every backend stores and compares the canonical form, so that the same filter answers the same everywhere:
//! integers are `i64`, reals finite `f64`, timestamps `2026-11-21T09:30:00.000000Z` (fixed width: bytewise order is time
//! order), bytes standard base64. `null` is the same as a missing field and is not stored.

use std::cmp::Ordering;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use chrono::{DateTime, Datelike, NaiveDate, SecondsFormat, SubsecRound, Utc};
use serde_json::Value;

use crate::schema::ColumnType;
use crate::{Error, Result};

/// How deep arrays and objects may be nested in one value: below what JSON parsers commonly accept.
pub const MAX_DEPTH: usize = 100;

/// Writes `time` in the canonical form, cut to microseconds.
#[must_use]
pub fn timestamp(time: DateTime<Utc>) -> String {
    time.trunc_subsecs(6).to_rfc3339_opts(SecondsFormat::Micros, true)
}

/// Reads a timestamp in RFC 3339, with any offset and any number of digits.
///
/// # Errors
/// [`InvalidInput`](crate::ErrorKind::InvalidInput) where it is not one, or its year is not within 1 to 9999.
pub fn parse_timestamp(text: &str) -> Result<DateTime<Utc>> {
    let time = DateTime::parse_from_rfc3339(text)
        .map_err(|_| Error::invalid(format!("{} is not a timestamp like 2026-11-21T09:30:00Z", excerpt(text))))?
        .with_timezone(&Utc);
    if !(1..=9999).contains(&time.year()) {
        return Err(Error::invalid(format!("the timestamp {} is outside the years 1 to 9999", excerpt(text))));
    }
    Ok(time.trunc_subsecs(6))
}

/// Like [`parse_timestamp`], and a bare date is its first moment in UTC: for filters typed by a person.
pub(crate) fn parse_timestamp_or_date(text: &str) -> Result<DateTime<Utc>> {
    if text.len() == 10
        && let Ok(date) = text.parse::<NaiveDate>()
        && let Some(midnight) = date.and_hms_opt(0, 0, 0)
    {
        return Ok(midnight.and_utc());
    }
    parse_timestamp(text)
}

/// The canonical form of `value` for a column of type `kind`. `null` stays `null`.
///
/// # Errors
/// [`InvalidInput`](crate::ErrorKind::InvalidInput) where the value is of another type or can't be kept exactly.
pub fn canonical(kind: ColumnType, value: Value) -> Result<Value> {
    match (kind, value) {
        (_, Value::Null) => Ok(Value::Null),
        (ColumnType::Text, Value::String(text)) => check_text(&text).map(|()| Value::String(text)),
        (ColumnType::Boolean, value @ Value::Bool(_)) => Ok(value),
        (ColumnType::Integer, Value::Number(n)) => integer(&n).map(Value::from),
        (ColumnType::Real, Value::Number(n)) => real(&n).map(Value::from),
        (ColumnType::Timestamp, Value::String(text)) => parse_timestamp(&text).map(|t| Value::String(timestamp(t))),
        (ColumnType::Bytes, Value::String(text)) => decode_bytes(&text).map(|bytes| Value::String(encode_bytes(&bytes))),
        (ColumnType::Json, value) => check_json(&value).map(|()| value),
        (kind, value) => Err(Error::invalid(format!("{} is not {}", describe(&value), kind.article()))),
    }
}

/// Bytes as the canonical form holds them: standard base64 with padding.
#[must_use]
pub fn encode_bytes(bytes: &[u8]) -> String {
    BASE64.encode(bytes)
}

/// Reads what [`encode_bytes`] wrote.
///
/// # Errors
/// [`InvalidInput`](crate::ErrorKind::InvalidInput) where it is not standard base64.
pub fn decode_bytes(text: &str) -> Result<Vec<u8>> {
    BASE64.decode(text).map_err(|e| Error::invalid(format!("{} is not standard base64 with padding: {e}", excerpt(text))))
}

fn integer(n: &serde_json::Number) -> Result<i64> {
    if let Some(i) = n.as_i64() {
        return Ok(i);
    }
    match n.as_f64() {
        // 2^63 itself is the first real beyond i64.
        Some(f) if n.is_f64() && f.fract() == 0.0 && (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&f) =>
        {
            #[expect(clippy::cast_possible_truncation, reason = "whole and in range, as just checked")]
            Ok(f as i64)
        }
        _ => Err(Error::invalid(format!("{n} is not an integer within -2^63 to 2^63-1"))),
    }
}

fn real(n: &serde_json::Number) -> Result<f64> {
    let f = n.as_f64().filter(|f| f.is_finite());
    let Some(f) = f else { return Err(Error::invalid(format!("{n} is not a finite real number"))) };
    let exact = n.is_f64() || compare_numbers(n, &serde_json::Number::from_f64(f).unwrap_or_else(|| 0.into())) == Ordering::Equal;
    if !exact {
        return Err(Error::invalid(format!("the integer {n} can't be kept exactly in a real column")));
    }
    // -0 and 0 compare equal, so they must read back equal too.
    Ok(if f == 0.0 { 0.0 } else { f })
}

fn check_text(text: &str) -> Result<()> {
    if text.contains('\0') {
        return Err(Error::invalid("text holds the character U+0000, which not every backend can store"));
    }
    Ok(())
}

/// Checks a value of any shape: depth, and no U+0000 in any text.
///
/// # Errors
/// [`InvalidInput`](crate::ErrorKind::InvalidInput).
pub fn check_json(value: &Value) -> Result<()> {
    // With a stack of our own: a value deep enough to be refused is deep enough to end a recursion badly.
    let mut stack = vec![(value, 1)];
    while let Some((value, depth)) = stack.pop() {
        if depth > MAX_DEPTH {
            return Err(Error::invalid(format!("the JSON is nested more than {MAX_DEPTH} deep")));
        }
        match value {
            Value::String(text) => check_text(text)?,
            Value::Array(items) => stack.extend(items.iter().map(|item| (item, depth + 1))),
            Value::Object(map) => {
                for (name, item) in map {
                    check_text(name)?;
                    stack.push((item, depth + 1));
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
    Ok(())
}

/// Compares two scalars of one type (numbers of any kind with each other). `None`: not comparable.
///
/// False sorts before true, text sorts bytewise.
#[must_use]
pub fn compare(a: &Value, b: &Value) -> Option<Ordering> {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => Some(compare_numbers(a, b)),
        (Value::String(a), Value::String(b)) => Some(a.as_bytes().cmp(b.as_bytes())),
        (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
        _ => None,
    }
}

/// Compares two JSON numbers by value, exactly, whatever their kinds.
#[must_use]
pub fn compare_numbers(a: &serde_json::Number, b: &serde_json::Number) -> Ordering {
    match (wide(a), wide(b)) {
        (Some(a), Some(b)) => a.cmp(&b),
        (Some(a), None) => compare_int_real(a, b.as_f64().unwrap_or(0.0)),
        (None, Some(b)) => compare_int_real(b, a.as_f64().unwrap_or(0.0)).reverse(),
        (None, None) => a.as_f64().partial_cmp(&b.as_f64()).unwrap_or(Ordering::Equal),
    }
}

fn wide(n: &serde_json::Number) -> Option<i128> {
    n.as_i64().map(i128::from).or_else(|| n.as_u64().map(i128::from))
}

fn compare_int_real(int: i128, real: f64) -> Ordering {
    // Beyond 2^65 no JSON integer reaches; within, the whole part of a real is exact in i128.
    const BOUND: f64 = 36_893_488_147_419_103_232.0;
    if real >= BOUND {
        return Ordering::Less;
    }
    if real <= -BOUND {
        return Ordering::Greater;
    }
    #[expect(clippy::cast_possible_truncation, reason = "within ±2^65, as just checked")]
    let whole = real.trunc() as i128;
    int.cmp(&whole).then_with(|| 0.0_f64.partial_cmp(&real.fract()).unwrap_or(Ordering::Equal))
}

/// The value in a message to a person: its kind, and an excerpt that gives nothing long away.
pub(crate) fn describe(value: &Value) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Bool(b) => format!("the boolean {b}"),
        Value::Number(n) => format!("the number {n}"),
        Value::String(text) => format!("the text {}", excerpt(text)),
        Value::Array(_) => "an array".into(),
        Value::Object(_) => "an object".into(),
    }
}

pub(crate) fn excerpt(text: &str) -> String {
    const SHOWN: usize = 40;
    let mut shown: String = text.chars().take(SHOWN).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    format!("{shown:?}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_compare_by_value_exactly() {
        let n = |v: Value| v.as_number().cloned().unwrap();
        let cases = [
            (json!(1), json!(1.0), Ordering::Equal),
            (json!(1), json!(1.5), Ordering::Less),
            (json!(-1), json!(-1.5), Ordering::Greater),
            (json!(i64::MAX), json!(9_223_372_036_854_775_808.0), Ordering::Less),
            (json!(9_007_199_254_740_993_i64), json!(9_007_199_254_740_992.0), Ordering::Greater),
            (json!(u64::MAX), json!(i64::MIN), Ordering::Greater),
            (json!(1), json!(1e300), Ordering::Less),
            (json!(-1), json!(-1e300), Ordering::Greater),
            (json!(0.0), json!(-0.0), Ordering::Equal),
        ];
        for (a, b, expected) in cases {
            assert_eq!(compare_numbers(&n(a.clone()), &n(b.clone())), expected, "{a} {b}");
            assert_eq!(compare_numbers(&n(b), &n(a)), expected.reverse());
        }
    }

    #[test]
    fn canonical_forms() {
        let ok = |kind, value: Value, expected: Value| assert_eq!(canonical(kind, value).unwrap(), expected);
        ok(ColumnType::Integer, json!(5.0), json!(5));
        ok(ColumnType::Real, json!(5), json!(5.0));
        ok(ColumnType::Timestamp, json!("2026-01-01T02:00:00.123456789+02:00"), json!("2026-01-01T00:00:00.123456Z"));
        ok(ColumnType::Bytes, json!("AAE="), json!("AAE="));
        ok(ColumnType::Text, Value::Null, Value::Null);
    }

    #[test]
    fn what_cannot_be_kept_is_refused() {
        for (kind, value) in [
            (ColumnType::Integer, json!(1.5)),
            (ColumnType::Integer, json!(u64::MAX)),
            (ColumnType::Integer, json!("1")),
            (ColumnType::Real, json!(9_007_199_254_740_993_i64)),
            (ColumnType::Boolean, json!(1)),
            (ColumnType::Text, json!("a\0b")),
            (ColumnType::Timestamp, json!("yesterday")),
            (ColumnType::Timestamp, json!("2026-01-01")),
            (ColumnType::Bytes, json!("AAE")),
            (ColumnType::Json, json!({"a\0": 1})),
        ] {
            let error = canonical(kind, value.clone()).unwrap_err();
            assert_eq!(error.kind(), crate::ErrorKind::InvalidInput, "{kind:?} {value}");
        }
    }

    #[test]
    fn deep_json_is_refused_without_recursion() {
        let nest = |levels| (0..levels).fold(json!(1), |inner, _| json!([inner]));
        assert!(check_json(&nest(MAX_DEPTH - 1)).is_ok());
        assert!(check_json(&nest(MAX_DEPTH)).is_err());
    }
}
