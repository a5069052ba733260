//! What a key is on the service: a partition key and a row key, in the keys' order, that can be read back.
//!
//! The service refuses `/`, `\`, `#` and `?` in keys and compares them by UTF-16 units; `%` is trouble in addresses. Each of these is written as the character
//! before it, `~` and its hex digits: `/` is `.~2f`, since `.` comes before `/`. Everything else stands for itself, but for such a character before in front of `~`
//! or beyond ASCII, which is written in the same way (`.~` is `.~2e~`): so the order is kept. The characters from U+D7FF to U+FFFF are `U+D7FE ~` and
//! four digits, since UTF-16 sorts them behind those beyond U+FFFF. Integers have 19 digits; negative ones are `-` and what they are more than -2^63.

use storage_core::{Error, Key, KeyPart, KeyType, Result, TableSchema};

/// The longest key that the service takes: 1 KiB of UTF-16.
const MAX_UNITS: usize = 512;
/// The character before those that UTF-16 sorts behind larger ones.
const HIGH: char = '\u{d7fe}';

/// Where a record is within its table.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) partition: String,
    pub(crate) row: String,
}

/// The character that `c` is written by, where it can't stand for itself.
fn lead_of(c: char) -> Option<char> {
    match c {
        '#' => Some('"'),
        '%' => Some('$'),
        '/' => Some('.'),
        '?' => Some('>'),
        '\\' => Some('['),
        '\u{d7ff}'..='\u{ffff}' => Some(HIGH),
        _ => None,
    }
}

fn is_lead(c: char) -> bool {
    matches!(c, '"' | '$' | '.' | '>' | '[' | HIGH)
}

fn digits(lead: char) -> usize {
    if lead == HIGH { 4 } else { 2 }
}

/// The text as a key: `a` comes before `b` exactly where it does so here.
pub(crate) fn encode_text(text: &str) -> String {
    let mut key = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let lead = match lead_of(c) {
            None if is_lead(c) && chars.peek().is_some_and(|next| *next >= '~') => c,
            None => {
                key.push(c);
                continue;
            }
            Some(lead) => lead,
        };
        key.push(lead);
        key.push_str(&format!("~{:0width$x}", u32::from(c), width = digits(lead)));
    }
    key
}

fn decode_text(key: &str) -> Option<String> {
    let mut text = String::with_capacity(key.len());
    let mut rest = key;
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        match rest.strip_prefix('~').filter(|_| is_lead(c)) {
            None => text.push(c),
            Some(behind) => {
                let hex = behind.get(..digits(c))?;
                text.push(char::from_u32(u32::from_str_radix(hex, 16).ok()?)?);
                rest = &behind[hex.len()..];
            }
        }
    }
    Some(text)
}

fn encode(part: &KeyPart) -> String {
    match part {
        KeyPart::Integer(n) => KeyPart::sortable_integer(*n),
        KeyPart::Text(text) => encode_text(text),
    }
}

/// True where the service takes a key of this length.
pub(crate) fn fits(key: &str) -> bool {
    key.encode_utf16().count() <= MAX_UNITS
}

/// The key of a part.
///
/// # Errors
/// [`InvalidInput`](storage_core::ErrorKind::InvalidInput) where it is too long for the service.
fn checked(part: &KeyPart) -> Result<String> {
    let key = encode(part);
    if fits(&key) {
        return Ok(key);
    }
    Err(Error::invalid(format!(
        "the key has {} characters on the service, which takes {MAX_UNITS}: `/`, `\\`, `#`, `?` and `%` count four times, some others six times",
        key.encode_utf16().count()
    )))
}

/// Where the record of `key` is: a key of one part is a partition by itself, with an empty row key.
///
/// # Errors
/// As [`checked`].
pub(crate) fn place(key: &Key) -> Result<Place> {
    Ok(match &key.partition {
        Some(partition) => Place { partition: checked(partition)?, row: checked(&key.id)? },
        None => Place { partition: checked(&key.id)?, row: String::new() },
    })
}

/// The key of the record that is there; `None`: no record of this table can be there.
pub(crate) fn key(schema: &TableSchema, place: &Place) -> Option<Key> {
    let part = |kind: KeyType, key: &str| {
        let part = match kind {
            KeyType::Integer => KeyPart::from_sortable_integer(key).map(KeyPart::Integer),
            KeyType::Text => decode_text(key).map(KeyPart::Text),
        };
        // Two places must not mean one key.
        part.filter(|part| part.check().is_ok() && encode(part) == key)
    };
    match &schema.partition {
        Some(column) => {
            let (partition, id) = part(column.kind, &place.partition).zip(part(schema.id.kind, &place.row))?;
            Some(Key { partition: Some(partition), id })
        }
        None if place.row.is_empty() => part(schema.id.kind, &place.partition).map(|id| Key { partition: None, id }),
        None => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn keys_look_as_documented() {
        for (text, key) in [
            ("0190f3c2-7d1e-7000-8000-000000000001", "0190f3c2-7d1e-7000-8000-000000000001"),
            ("a.b_c:d (e) ü 中 \u{1F600} it's \"$1\" ~", "a.b_c:d (e) ü 中 \u{1F600} it's \"$1\" ~"),
            ("a/b", "a.~2fb"),
            ("..", ".."),
            ("../x", "...~2fx"),
            ("C:\\x", "C:[~5cx"),
            ("100%", "100$~25"),
            (".~", ".~2e~"),
            (".ü", ".~2eü"),
            ("\u{ffee}", "\u{d7fe}~ffee"),
        ] {
            assert_eq!(encode_text(text), key);
            assert_eq!(decode_text(key).unwrap(), text);
        }
        assert_eq!(KeyPart::sortable_integer(7), "0000000000000000007");
        assert_eq!(KeyPart::sortable_integer(i64::MIN), "-0000000000000000000");
    }

    #[test]
    fn foreign_and_long_keys_are_told() {
        let schema = TableSchema::builder("t").build().unwrap();
        for foreign in ["", "a/b", ".~41", ".~2", ".~2ex", "x\u{d7fe}~zzzz"] {
            assert_eq!(key(&schema, &Place { partition: foreign.into(), row: String::new() }), None, "{foreign}");
        }
        assert!(place(&"k".repeat(512).into()).is_ok());
        assert!(place(&"/".repeat(129).into()).unwrap_err().message().contains("516"));
    }

    fn text() -> impl Strategy<Value = String> {
        let odd = [
            " ",
            "\"",
            "#",
            "$",
            "%",
            "&",
            "-",
            ".",
            "/",
            "0",
            ">",
            "?",
            "@",
            "A",
            "[",
            "\\",
            "]",
            "a",
            "~",
            "é",
            "\u{d7fd}",
            "\u{d7fe}",
            "\u{d7ff}",
            "\u{e000}",
            "\u{ffff}",
            "\u{10000}",
            "\u{10ffff}",
        ];
        prop::collection::vec(prop::sample::select(odd.to_vec()), 1..6).prop_map(|parts| parts.concat())
    }

    proptest! {
        #[test]
        fn keys_are_reversible_and_in_order(a in text(), b in text()) {
            let (x, y) = (encode_text(&a), encode_text(&b));
            prop_assert_eq!(decode_text(&x).unwrap(), &a[..]);
            prop_assert!(!x.contains(['/', '\\', '#', '?', '%']));
            let units = |key: &str| key.encode_utf16().collect::<Vec<_>>();
            prop_assert_eq!(units(&x).cmp(&units(&y)), a.as_bytes().cmp(b.as_bytes()), "{} {}", x, y);
            prop_assert_eq!(x.as_bytes().cmp(y.as_bytes()), a.as_bytes().cmp(b.as_bytes()));
        }

        #[test]
        fn integers_are_in_order(a: i64, b: i64) {
            prop_assert_eq!(KeyPart::sortable_integer(a).cmp(&KeyPart::sortable_integer(b)), a.cmp(&b));
            prop_assert_eq!(KeyPart::from_sortable_integer(&KeyPart::sortable_integer(a)), Some(a));
        }
    }
}
