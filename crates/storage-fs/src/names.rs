//! File names for keys, tables and queues: reversible, and the same file on every operating system.
//!
//! Lower-case letters, digits, `-`, `.` and `_` stand for themselves. `!` switches between lower and upper case, so that `A` and
//! `a` differ where file names don't: `InvoiceA` is `!i!nvoice!a`. Every other byte is `%` and two hex digits. The parts of a key
//! are joined by `,`. A name that grows too long ends with `~` and a hash; the file itself holds the key.

use std::borrow::Cow;

use sha2::{Digest as _, Sha256};
use storage_core::{Key, KeyPart, KeyType, TableSchema};

/// Longer names are hashed: file systems take 255 bytes, and an extension comes behind.
const MAX_STEM: usize = 200;
/// How much of a long name stays readable.
const KEPT: usize = 120;

/// Names that Windows takes for devices, whatever extension they have.
const DEVICES: [&str; 4] = ["con", "prn", "aux", "nul"];

/// 32 hex digits that no two texts share.
pub(crate) fn hash(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().take(16).fold(String::with_capacity(32), |mut text, byte| {
        push_hex(&mut text, *byte);
        text
    })
}

fn push_hex(text: &mut String, byte: u8) {
    for digit in [byte >> 4, byte & 15] {
        text.push(char::from(b"0123456789abcdef"[usize::from(digit)]));
    }
}

fn is_device(stem: &str) -> bool {
    let stem = stem.split('.').next().unwrap_or(stem);
    let numbered = |name: &str| stem.strip_prefix(name).is_some_and(|n| n.len() == 1 && n != "0" && n.parse::<u8>().is_ok());
    DEVICES.contains(&stem) || numbered("com") || numbered("lpt")
}

/// Text as part of a file name.
fn encode_text(text: &str) -> String {
    let mut name = String::with_capacity(text.len() + 8);
    let mut upper = false;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' => {
                if byte.is_ascii_uppercase() != upper {
                    name.push('!');
                    upper = !upper;
                }
                name.push(char::from(byte.to_ascii_lowercase()));
            }
            // Names that begin so are ours (`_schema.json`), or hidden.
            b'_' | b'.' if at == 0 => {
                name.push('%');
                push_hex(&mut name, byte);
            }
            b'0'..=b'9' | b'-' | b'.' | b'_' => name.push(char::from(byte)),
            _ => {
                name.push('%');
                push_hex(&mut name, byte);
            }
        }
    }
    name
}

fn decode_text(name: &str) -> Option<String> {
    let mut bytes = name.bytes();
    let (mut text, mut upper) = (Vec::with_capacity(name.len()), false);
    while let Some(byte) = bytes.next() {
        match byte {
            b'!' => upper = !upper,
            b'%' => {
                let digits = [bytes.next()?, bytes.next()?];
                text.push(u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?);
            }
            byte if upper => text.push(byte.to_ascii_uppercase()),
            byte => text.push(byte),
        }
    }
    String::from_utf8(text).ok()
}

fn finish(mut name: String, whole: impl FnOnce() -> String) -> String {
    if is_device(&name) {
        let first = name.remove(0);
        let mut escaped = String::from("%");
        push_hex(&mut escaped, u8::try_from(first).unwrap_or(b'_'));
        name.insert_str(0, &escaped);
    }
    if name.len() > MAX_STEM {
        name.truncate(KEPT);
        name.push('~');
        name.push_str(&hash(whole().as_bytes()));
    }
    name
}

/// The folder of a table or queue. Letter case does not distinguish tables, so theirs are given in lower case.
pub(crate) fn folder(name: &str) -> String {
    finish(encode_text(name), || name.to_owned())
}

/// The name that [`folder`] was made of.
pub(crate) fn decode_folder(folder: &str) -> Option<String> {
    decode_text(folder).filter(|name| self::folder(name) == folder)
}

fn encode_part(part: &KeyPart) -> Cow<'_, str> {
    match part {
        KeyPart::Integer(n) => Cow::Owned(n.to_string()),
        KeyPart::Text(text) => Cow::Owned(encode_text(text)),
    }
}

/// A record's file name, without the extension.
pub(crate) fn stem(key: &Key) -> String {
    let mut name = String::new();
    if let Some(partition) = &key.partition {
        name.push_str(&encode_part(partition));
        name.push(',');
    }
    name.push_str(&encode_part(&key.id));
    finish(name, || serde_json::to_string(key).unwrap_or_default())
}

/// What a file name says of its record's key.
#[derive(Debug, PartialEq)]
pub(crate) enum Stem {
    /// This is the key.
    Key(Key),
    /// The name is a hash: the key is in the file.
    Hashed,
    /// No key of this table has that name.
    Foreign,
}

pub(crate) fn decode_stem(schema: &TableSchema, name: &str) -> Stem {
    if name.contains('~') {
        return Stem::Hashed;
    }
    let part = |kind: KeyType, text: &str| match kind {
        KeyType::Integer => text.parse().ok().map(KeyPart::Integer),
        KeyType::Text => decode_text(text).map(KeyPart::Text),
    };
    // Two names must not mean one key.
    schema.key_of_name(name, ",", part).filter(|key| stem(key) == name).map_or(Stem::Foreign, Stem::Key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema(partitioned: bool, kind: KeyType) -> TableSchema {
        let builder = TableSchema::builder("t").key_of("id", kind);
        if partitioned { builder.partition("p", KeyType::Text) } else { builder }.build().unwrap()
    }

    #[test]
    fn names_are_reversible_and_lower_case() {
        let texts = [
            "a",
            "A",
            "aB",
            "Ab",
            "INV-2026-a",
            "ü",
            "_x",
            ".hidden",
            "a.b.",
            "con",
            "CON",
            "com1",
            "com1.x",
            "a/b",
            "a\\b",
            "%41",
            "!",
            "a,b",
            "~",
        ];
        let mut seen = std::collections::HashSet::new();
        for text in texts {
            let key = Key::from(text);
            let name = stem(&key);
            assert_eq!(decode_stem(&schema(false, KeyType::Text), &name), Stem::Key(key), "{text} -> {name}");
            assert_eq!(name, name.to_ascii_lowercase());
            assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-._!%".contains(&b)), "{name}");
            assert!(!is_device(&name) && !name.starts_with(['_', '.']), "{name}");
            assert!(seen.insert(name));
        }
        assert_eq!(stem(&"INV-2026-a".into()), "!inv-2026-!a");
    }

    #[test]
    fn partitions_and_integers() {
        let key = Key::from(("A,b", -5));
        assert_eq!(stem(&key), "!a%2c!b,-5");
        assert_eq!(decode_stem(&schema(true, KeyType::Integer), "!a%2c!b,-5"), Stem::Key(key));
        for foreign in ["x", "x,05", "x,y,1", "X,1", "%61,1"] {
            assert_eq!(decode_stem(&schema(true, KeyType::Integer), foreign), Stem::Foreign, "{foreign}");
        }
    }

    #[test]
    fn long_keys_are_hashed_and_differ() {
        let (a, b) = (Key::from("x".repeat(512)), Key::from(format!("{}y", "x".repeat(511))));
        assert!(stem(&a).len() < 220 && stem(&a) != stem(&b));
        assert_eq!(decode_stem(&schema(false, KeyType::Text), &stem(&a)), Stem::Hashed);
        assert_eq!(decode_folder(&folder("Mail-In")).as_deref(), Some("Mail-In"));
    }
}
