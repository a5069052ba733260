//! What tables and records are called on the server.
//!
//! A record is a key of its table's bucket. Letters, digits, `-`, `_` and `/` stand for themselves; every other byte is `=` and two hex digits, so that
//! `a b` is `a=20b` and `re.sub(rb"=([0-9A-F]{2})", …)` reads it. Integers are in digits. Of two parts, the partition comes first: `acme.17`. A key that
//! begins with `_kv`, which NATS keeps for itself, begins with `=5Fkv`.

use async_nats::Subject;
use storage_core::{Key, KeyPart, KeyType, TableName, TableSchema};

/// What the subjects of all buckets begin with.
const ROOT: &str = "$KV";
/// What NATS keeps for itself.
const RESERVED: &str = "_kv";

/// The bucket of the catalogue. No table's bucket has that name, which always ends with its life.
pub(super) fn catalogue(prefix: &str) -> String {
    format!("{prefix}-tables")
}

/// The bucket of one life of a table.
pub(super) fn bucket(prefix: &str, table: &TableName, life: &str) -> String {
    format!("{prefix}-{}-{life}", table.as_str().to_ascii_lowercase())
}

/// The stream of a bucket.
pub(super) fn stream(bucket: &str) -> String {
    format!("KV_{bucket}")
}

/// All subjects of a bucket.
pub(super) fn all(bucket: &str) -> String {
    format!("{ROOT}.{bucket}.>")
}

/// The subject of a table's row in the catalogue.
pub(super) fn row(catalogue: &str, table: &TableName) -> String {
    // Letter case does not distinguish tables.
    format!("{ROOT}.{catalogue}.{}", table.as_str().to_ascii_lowercase())
}

/// The subject of a record.
pub(super) fn record(bucket: &str, key: &Key) -> String {
    let mut name = key.partition.as_ref().map_or_else(String::new, |partition| part(partition) + ".");
    name.push_str(&part(&key.id));
    if let Some(rest) = name.strip_prefix(RESERVED) {
        name = format!("=5Fkv{rest}");
    }
    format!("{ROOT}.{bucket}.{name}")
}

/// The subjects of a partition.
pub(super) fn partition(bucket: &str, of: &KeyPart) -> String {
    let any = Key { partition: Some(of.clone()), id: KeyPart::from("x") };
    let one = record(bucket, &any);
    format!("{}*", one.trim_end_matches('x'))
}

/// The key of a record's subject. `None`: no key of this table has it.
pub(super) fn key(schema: &TableSchema, bucket: &str, subject: &Subject) -> Option<Key> {
    let name = subject.strip_prefix(ROOT)?.strip_prefix('.')?.strip_prefix(bucket)?.strip_prefix('.')?;
    // Two subjects must not mean one key.
    schema.key_of_name(name, ".", decode).filter(|key| record(bucket, key) == subject.as_str())
}

fn part(part: &KeyPart) -> String {
    let text = match part {
        KeyPart::Integer(n) => return n.to_string(),
        KeyPart::Text(text) => text,
    };
    let mut name = String::with_capacity(text.len() + 8);
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'/' => name.push(char::from(byte)),
            byte => name.push_str(&format!("={byte:02X}")),
        }
    }
    name
}

fn decode(kind: KeyType, name: &str) -> Option<KeyPart> {
    if kind == KeyType::Integer {
        return name.parse().ok().map(KeyPart::Integer);
    }
    let mut bytes = name.bytes();
    let mut text = Vec::with_capacity(name.len());
    while let Some(byte) = bytes.next() {
        text.push(match byte {
            b'=' => {
                let digits = [bytes.next()?, bytes.next()?];
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(text).ok().map(KeyPart::Text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use proptest::prelude::*;

    use super::*;

    fn schema(partitioned: bool, kind: KeyType) -> TableSchema {
        let builder = TableSchema::builder("t").key_of("id", kind);
        if partitioned { builder.partition("p", KeyType::Text) } else { builder }.build().unwrap()
    }

    #[test]
    fn names_are_as_documented() {
        for (key, name) in [
            (Key::from("0190f3c2-7d1e"), "0190f3c2-7d1e"),
            ("A/b".into(), "A/b"),
            ("..".into(), "=2E=2E"),
            ("ü x".into(), "=C3=BC=20x"),
            ("=".into(), "=3D"),
            ("_kv_x".into(), "=5Fkv_x"),
            ("_k".into(), "_k"),
            (7.into(), "7"),
            (i64::MIN.into(), "-9223372036854775808"),
            (("acme", "t.1").into(), "acme.t=2E1"),
            (("_kv", "*").into(), "=5Fkv.=2A"),
        ] {
            assert_eq!(record("b", &key), format!("$KV.b.{name}"));
        }
        assert_eq!(partition("b", &"a x".into()), "$KV.b.a=20x.*");
        assert_eq!(partition("b", &"_kv".into()), "$KV.b.=5Fkv.*");
        assert_eq!(bucket("storage", &"Orders".parse().unwrap(), "01234567"), "storage-orders-01234567");
    }

    #[test]
    fn foreign_names_are_told_apart() {
        for foreign in ["$KV.b.a.b", "$KV.b.=61", "$KV.b.=4", "$KV.b.=c3=bc", "$KV.b.=FF", "$KV.b._kv", "$KV.c.a", "$KV.b"] {
            assert_eq!(key(&schema(false, KeyType::Text), "b", &foreign.into()), None, "{foreign}");
        }
        for foreign in ["$KV.b.+1", "$KV.b.01", "$KV.b.x", "$KV.b.-"] {
            assert_eq!(key(&schema(false, KeyType::Integer), "b", &foreign.into()), None, "{foreign}");
        }
        assert_eq!(key(&schema(true, KeyType::Text), "b", &"$KV.b.a".into()), None);
    }

    proptest! {
        #[test]
        fn keys_come_back(partition in proptest::option::of("\\PC{1,20}"), id in "\\PC{1,20}") {
            let key = Key { partition: partition.map(KeyPart::from), id: id.into() };
            let subject = record("b", &key);
            prop_assert!(subject.bytes().all(|b| b.is_ascii_alphanumeric() || b"$.=-_/".contains(&b)), "{}", subject);
            prop_assert!(!subject.contains(".."));
            let schema = schema(key.partition.is_some(), KeyType::Text);
            prop_assert_eq!(super::key(&schema, "b", &subject.into()), Some(key));
        }

        #[test]
        fn integers_come_back(n: i64) {
            let subject = record("b", &n.into());
            prop_assert_eq!(key(&schema(false, KeyType::Integer), "b", &subject.into()), Some(n.into()));
        }
    }
}
