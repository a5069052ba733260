//! Names of objects for keys: reversible, in the keys' order, without upper case.
//!
//! Digits, lower-case letters and `-` stand for themselves. Every other byte is a lead and two hex digits, and the leads are where they keep the order:
//! `,` for 20 to 2c, `.` for `.` and `/`, `_` for 3a to 60, `~` for 7b to ff. So `A/b` is `_41.2fb`, and `re.sub(rb"[,._~]([0-9a-f]{2})", …)` reads it.
//! Integers have 19 digits; negative ones are `-` and what they are more than -2^63.
//!
//! A partition is a folder whose name ends in `!`, which sorts before all the others, so that `a` comes before `a-b`, whatever is in them. A part that
//! grows longer than 200 bytes is cut there, and ends in `~~` and a hash: the object holds the whole key. Such names keep the order up to the `~~`.

use sha2::{Digest as _, Sha256};
use storage_core::{Key, KeyPart, KeyType, TableSchema};

/// Longer parts are hashed: two of them, a table and a prefix are within the length of a path.
const MAX_PART: usize = 200;
/// Ends what is left of a part that was too long.
const CUT: &str = "~~";
/// Sorts behind every name that begins with what is before it.
pub(super) const LAST: &str = "~~~";
/// Every byte that a part's name may have, in order.
const ALPHABET: &[u8] = b",-.0123456789_abcdefghijklmnopqrstuvwxyz~";

fn push_hex(text: &mut String, byte: u8) {
    for digit in [byte >> 4, byte & 15] {
        text.push(char::from(b"0123456789abcdef"[usize::from(digit)]));
    }
}

fn hash(text: &str) -> String {
    let digest = Sha256::digest(text.as_bytes());
    digest.iter().take(16).fold(String::with_capacity(32), |mut hex, byte| {
        push_hex(&mut hex, *byte);
        hex
    })
}

fn lead(byte: u8) -> Option<char> {
    match byte {
        b'-' | b'0'..=b'9' | b'a'..=b'z' => None,
        0..=0x2c => Some(','),
        b'.' | b'/' => Some('.'),
        0x3a..=0x60 => Some('_'),
        0x7b..=0xff => Some('~'),
    }
}

fn encode_text(text: &str) -> String {
    let mut name = String::with_capacity(text.len() + 8);
    for byte in text.bytes() {
        match lead(byte) {
            None => name.push(char::from(byte)),
            Some(lead) => {
                name.push(lead);
                push_hex(&mut name, byte);
            }
        }
    }
    name
}

fn decode_text(name: &str) -> Option<String> {
    let mut bytes = name.bytes();
    let mut text = Vec::with_capacity(name.len());
    while let Some(byte) = bytes.next() {
        text.push(match byte {
            b',' | b'.' | b'_' | b'~' => {
                let digits = [bytes.next()?, bytes.next()?];
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(text).ok()
}

/// The name of a key part.
pub(super) fn part(part: &KeyPart) -> String {
    let text = match part {
        KeyPart::Integer(n) => return KeyPart::sortable_integer(*n),
        KeyPart::Text(text) => text,
    };
    let mut name = encode_text(text);
    if name.len() > MAX_PART {
        name.truncate(MAX_PART);
        name.push_str(CUT);
        name.push_str(&hash(text));
    }
    name
}

/// The folder of a partition.
pub(super) fn partition(of: &KeyPart) -> String {
    part(of) + "!"
}

/// Where the object of a record is, below its table's folder.
pub(super) fn record(key: &Key) -> String {
    match &key.partition {
        Some(of) => format!("{}/{}", partition(of), part(&key.id)),
        None => part(&key.id),
    }
}

/// What of a name is sure to keep the order of the keys: all of it, or what stands before a hash.
pub(super) fn ordered(name: &str) -> &str {
    group(name, 0).unwrap_or(name)
}

/// The name, or one before it, of the first record whose part begins with `text`.
pub(super) fn first_from(text: &str) -> String {
    let mut name = encode_text(text);
    name.truncate(MAX_PART);
    name
}

/// A name that sorts closely before `name`, for listings that start behind what they are given. `None`: there is no need of one.
pub(super) fn before(name: &str) -> Option<String> {
    let (last, rest) = name.as_bytes().split_last()?;
    let rest = std::str::from_utf8(rest).ok()?;
    match ALPHABET.iter().position(|byte| byte == last)?.checked_sub(1) {
        Some(lower) => Some(format!("{rest}{}~", char::from(ALPHABET[lower]))),
        None => Some(rest.to_owned()).filter(|rest| !rest.is_empty()),
    }
}

/// What the names begin with that are together with this one, in no order. `None`: it stands by itself. `folder` is a part of it that they all have.
pub(super) fn group(name: &str, folder: usize) -> Option<&str> {
    let at = name.get(folder..)?.find(CUT)?;
    Some(&name[..folder + at + CUT.len()])
}

/// What a name says of its record's key.
#[derive(Debug, PartialEq)]
pub(super) enum Stem {
    /// This is the key.
    Key(Key),
    /// A part of it is a hash: the key is in the object.
    Cut,
    /// No key of this table has that name.
    Foreign,
}

pub(super) fn decode(schema: &TableSchema, name: &str) -> Stem {
    if name.contains(CUT) {
        return Stem::Cut;
    }
    let part = |kind: KeyType, text: &str| match kind {
        KeyType::Integer => KeyPart::from_sortable_integer(text).map(KeyPart::Integer),
        KeyType::Text => decode_text(text).map(KeyPart::Text),
    };
    // Two names must not mean one key.
    schema.key_of_name(name, "!/", part).filter(|key| record(key) == name).map_or(Stem::Foreign, Stem::Key)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn schema(partitioned: bool, kind: KeyType) -> TableSchema {
        let builder = TableSchema::builder("t").key_of("id", kind);
        if partitioned { builder.partition("p", KeyType::Text) } else { builder }.build().unwrap()
    }

    #[test]
    fn names_are_as_documented() {
        for (key, name) in [
            (Key::from("0190f3c2-7d1e-7000-8000-000000000001"), "0190f3c2-7d1e-7000-8000-000000000001"),
            ("A/b".into(), "_41.2fb"),
            ("..".into(), ".2e.2e"),
            ("ü x".into(), "~c3~bc,20x"),
            (7.into(), "0000000000000000007"),
            ((-1).into(), "-9223372036854775807"),
            (i64::MIN.into(), "-0000000000000000000"),
            (("acme", "t-1").into(), "acme!/t-1"),
        ] {
            assert_eq!(record(&key), name);
        }
    }

    #[test]
    fn foreign_names_are_told_apart() {
        for foreign in ["A", "_6a", "_4", "x!/y", "a b", "~ff", "Ü"] {
            assert_eq!(decode(&schema(false, KeyType::Text), foreign), Stem::Foreign, "{foreign}");
        }
        for foreign in ["1", "+000000000000000001", "-1", "0000000000000000007x"] {
            assert_eq!(decode(&schema(false, KeyType::Integer), foreign), Stem::Foreign, "{foreign}");
        }
        assert_eq!(decode(&schema(true, KeyType::Text), "x"), Stem::Foreign);
    }

    fn text() -> impl Strategy<Value = String> {
        let odd = prop::sample::select(vec![" ", "-", ".", "/", "0", "9", ":", "A", "_", "a", "z", "{", "~", "é", "\u{1F600}"]);
        prop_oneof![
            prop::collection::vec(odd.clone(), 1..5).prop_map(|parts| parts.concat()),
            (170..230_usize, prop::collection::vec(odd, 0..3)).prop_map(|(n, parts)| "k".repeat(n) + &parts.concat()),
        ]
    }

    fn key() -> impl Strategy<Value = Key> {
        (proptest::option::of(text()), text())
            .prop_map(|(partition, id)| Key { partition: partition.map(KeyPart::from), id: id.into() })
    }

    proptest! {
        #[test]
        fn names_are_reversible_and_in_order(a in key(), b in key()) {
            let (names, keys) = ([&a, &b].map(record), [&a, &b]);
            for (name, key) in names.iter().zip(keys) {
                prop_assert!(name.bytes().all(|byte| ALPHABET.contains(&byte) || b"!/".contains(&byte)), "{}", name);
                match decode(&schema(key.partition.is_some(), KeyType::Text), name) {
                    Stem::Key(found) => prop_assert_eq!(&found, key),
                    Stem::Cut => prop_assert!(ordered(name).ends_with(CUT)),
                    Stem::Foreign => prop_assert!(false, "{name}"),
                }
            }
            if a.partition.is_some() == b.partition.is_some() {
                prop_assert_eq!(names[0] == names[1], a == b);
                let [first, second] = [&names[0], &names[1]].map(|name| ordered(name));
                if first != second {
                    prop_assert_eq!(names[0].cmp(&names[1]), a.cmp(&b));
                }
            }
        }

        #[test]
        fn integers_are_in_order(a: i64, b: i64) {
            let names = [a, b].map(|n| record(&n.into()));
            prop_assert_eq!(names[0].cmp(&names[1]), a.cmp(&b));
            prop_assert_eq!(decode(&schema(false, KeyType::Integer), &names[0]), Stem::Key(a.into()));
        }

        #[test]
        fn what_is_before_is_before(name in key()) {
            let name = part(&name.id);
            prop_assert!(before(&name).is_none_or(|before| before < name));
        }
    }
}
