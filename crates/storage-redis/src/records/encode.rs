//! Keys and values as bytes whose order is theirs: what stands in sorted sets.

use serde_json::{Number, Value};
use storage_core::{ColumnType, Key, KeyPart, KeyType, TableSchema};

/// Between the parts of a key: less than every character that a key may have.
pub(super) const BETWEEN: u8 = 1;
/// Behind a value: less than every byte that a value may have.
const END: u8 = 0;
/// In front of a value, and what stands for none: missing values come first.
const SOME: u8 = b'=';
const NONE: u8 = b'-';
/// More than every byte that a value may have.
pub(super) const LAST: u8 = 0xff;

fn part(part: &KeyPart) -> String {
    match part {
        KeyPart::Text(text) => text.clone(),
        KeyPart::Integer(n) => integer(*n),
    }
}

fn integer(n: i64) -> String {
    match n {
        0.. => format!("{n:019}"),
        // From i64::MIN, so that the smallest comes first.
        _ => format!("-{:019}", n.wrapping_sub(i64::MIN)),
    }
}

fn real(f: f64) -> String {
    let bits = f.to_bits();
    // IEEE 754: positive ones sort by their bits, negative ones the other way round.
    let ordered = if bits >> 63 == 0 { bits ^ (1 << 63) } else { !bits };
    format!("{ordered:016x}")
}

/// A key in the order of keys.
pub(super) fn key(key: &Key) -> String {
    match &key.partition {
        Some(partition) => format!("{}{}{}", part(partition), char::from(BETWEEN), part(&key.id)),
        None => part(&key.id),
    }
}

/// The key that [`key`] made this of.
pub(super) fn read_key(schema: &TableSchema, bytes: &[u8]) -> Option<Key> {
    let text = std::str::from_utf8(bytes).ok()?;
    let key = match &schema.partition {
        None => Key { partition: None, id: read_part(schema.id.kind, text)? },
        Some(column) => {
            let (partition, id) = text.split_once(char::from(BETWEEN))?;
            Key { partition: Some(read_part(column.kind, partition)?), id: read_part(schema.id.kind, id)? }
        }
    };
    schema.check_key(&key).ok().map(|()| key)
}

fn read_part(kind: KeyType, text: &str) -> Option<KeyPart> {
    match (kind, text.strip_prefix('-')) {
        (KeyType::Text, _) => Some(KeyPart::Text(text.to_owned())),
        (KeyType::Integer, None) => text.parse().ok().map(KeyPart::Integer),
        (KeyType::Integer, Some(rest)) => rest.parse::<i64>().ok().map(|n| KeyPart::Integer(n.wrapping_add(i64::MIN))),
    }
}

/// A value of a column of that type, canonical; `None` where the record has none.
pub(super) fn value(kind: ColumnType, value: Option<&Value>) -> Vec<u8> {
    match value {
        None | Some(Value::Null) => vec![NONE, END],
        Some(value) => [&[SOME], &*scalar(kind, value), &[END]].concat(),
    }
}

fn scalar(kind: ColumnType, value: &Value) -> Vec<u8> {
    match value {
        Value::String(text) => text.clone().into_bytes(),
        Value::Bool(b) => vec![b'0' + u8::from(*b)],
        Value::Number(n) => number(kind, n, f64::round),
        value => value.to_string().into_bytes(),
    }
}

/// A number as a column of that type keeps it. `to_whole`: what becomes of a real in a column of integers.
fn number(kind: ColumnType, n: &Number, to_whole: fn(f64) -> f64) -> Vec<u8> {
    let text = match (kind, n.as_i64()) {
        (ColumnType::Real, _) => real(n.as_f64().unwrap_or_default()),
        (_, Some(n)) => integer(n),
        #[expect(clippy::cast_possible_truncation, reason = "what is out of range becomes the end of the range")]
        (_, None) => integer(to_whole(n.as_f64().unwrap_or_default()) as i64),
    };
    text.into_bytes()
}

/// The beginning of all values that are not missing.
pub(super) const fn some() -> [u8; 1] {
    [SOME]
}

/// The least that a value not less than the literal may be.
pub(super) fn least(kind: ColumnType, literal: &Value) -> Vec<u8> {
    bound(kind, literal, f64::floor)
}

/// The most that a value not greater than the literal may be.
pub(super) fn most(kind: ColumnType, literal: &Value) -> Vec<u8> {
    bound(kind, literal, f64::ceil)
}

fn bound(kind: ColumnType, literal: &Value, to_whole: fn(f64) -> f64) -> Vec<u8> {
    match literal {
        Value::Number(n) => [&[SOME], &*number(kind, n, to_whole), &[END]].concat(),
        literal => value(kind, Some(literal)),
    }
}

/// What text that starts so begins with.
pub(super) fn beginning(text: &str) -> Vec<u8> {
    [&[SOME], text.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn keys_sort_as_they_do_and_can_be_read_back() {
        let mut keys: Vec<Key> = [i64::MIN, -10, -9, -1, 0, 1, 9, 10, i64::MAX].map(Key::from).into();
        let encoded: Vec<_> = keys.iter().map(key).collect();
        assert!(encoded.is_sorted(), "{encoded:?}");
        let schema = TableSchema::builder("t").key_of("id", KeyType::Integer).build().unwrap();
        for (key, encoded) in keys.drain(..).zip(encoded) {
            assert_eq!(read_key(&schema, encoded.as_bytes()), Some(key));
        }
        let pairs = [("a", "b"), ("a", "b!"), ("a!", "a"), ("aa", "a")].map(Key::from);
        let encoded = pairs.each_ref().map(key);
        assert!(encoded.is_sorted(), "{encoded:?}");
        let schema = TableSchema::builder("t").partition("p", KeyType::Text).build().unwrap();
        assert_eq!(encoded.each_ref().map(|text| read_key(&schema, text.as_bytes()).unwrap()), pairs);
        assert_eq!(read_key(&schema, b"a"), None);
    }

    #[test]
    fn values_sort_as_they_compare() {
        let sorted = |kind, values: &[Value]| {
            let encoded: Vec<_> = values.iter().map(|v| value(kind, Some(v))).collect();
            assert!(
                encoded.is_sorted() && encoded.iter().collect::<std::collections::BTreeSet<_>>().len() == values.len(),
                "{encoded:?}"
            );
        };
        sorted(
            ColumnType::Real,
            &[json!(null), json!(-1e300), json!(-1.5), json!(-1e-300), json!(0.0), json!(1e-300), json!(2.0), json!(10.0)],
        );
        sorted(ColumnType::Integer, &[json!(null), json!(i64::MIN), json!(-2), json!(0), json!(3), json!(i64::MAX)]);
        sorted(ColumnType::Text, &[json!(null), json!(""), json!("a"), json!("a "), json!("aa"), json!("b")]);
        sorted(ColumnType::Boolean, &[json!(null), json!(false), json!(true)]);
    }

    #[test]
    fn bounds_of_another_kind_of_number_leave_nothing_out() {
        let integer = |n: i64| value(ColumnType::Integer, Some(&json!(n)));
        assert_eq!((least(ColumnType::Integer, &json!(1.5)), most(ColumnType::Integer, &json!(1.5))), (integer(1), integer(2)));
        assert_eq!(most(ColumnType::Integer, &json!(1e300)), integer(i64::MAX));
        assert_eq!(least(ColumnType::Real, &json!(3)), value(ColumnType::Real, Some(&json!(3.0))));
    }
}
