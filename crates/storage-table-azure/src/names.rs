//! What tables and fields are called on the service.
//!
//! The service takes names of tables of letters and digits, 3 to 63, and does not tell letter case apart. A table whose name is such a name has it there too,
//! behind the prefix that the configuration gives. Any other has what is left of its name, then `X` and a hash of the whole.
//!
//! A field is a property of its name, where that is a letter and then letters, digits and `_`. Other characters are `_x002D_`: their UTF-16 unit in hex, as
//! .NET's `XmlConvert.DecodeName` reads it. Properties of the toolkit's own begin with `_`.

use sha2::{Digest as _, Sha256};
use storage_core::TableName;

/// The longest name of a table that the service takes.
const MAX_TABLE: usize = 63;
/// The longest name of a property.
const MAX_PROPERTY: usize = 255;
/// How many characters of the hash are used: 64 bits.
const HASH: usize = 16;
/// The table of all tables.
pub(crate) const CATALOGUE: &str = "storagecatalogue";
/// Between a property and the number of one of its parts: no name holds the character U+0000.
const PART: &str = "_x0000_";

fn is_valid(name: &str) -> bool {
    (3..=MAX_TABLE).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric())
        && name.bytes().next().is_some_and(|b| b.is_ascii_alphabetic())
        // The service's own.
        && !name.eq_ignore_ascii_case("tables")
}

fn looks_hashed(name: &str) -> bool {
    let at = name.len().saturating_sub(HASH + 1);
    let (_, end) = name.split_at_checked(at).unwrap_or_default();
    end.len() == HASH + 1 && end.starts_with(['x', 'X']) && end[1..].bytes().all(|b| b.is_ascii_hexdigit())
}

/// True for what may stand before all names.
pub(crate) fn is_prefix(prefix: &str) -> bool {
    prefix.len() <= 24 && (prefix.is_empty() || is_valid(&format!("{prefix}xxx")))
}

/// The table of all tables, on the service.
pub(crate) fn catalogue(prefix: &str) -> String {
    format!("{prefix}{CATALOGUE}")
}

/// The name of a table on the service. Those that differ in letter case alone have one.
pub(crate) fn table(prefix: &str, table: &TableName) -> String {
    let as_it_is = format!("{prefix}{table}");
    if is_valid(&as_it_is) && !looks_hashed(&as_it_is) && !table.as_str().eq_ignore_ascii_case(CATALOGUE) {
        return as_it_is;
    }
    let lower = table.as_str().to_ascii_lowercase();
    let hash = Sha256::digest(lower.as_bytes()).iter().take(HASH / 2).fold(String::new(), |mut hash, byte| {
        hash.push_str(&format!("{byte:02x}"));
        hash
    });
    let mut rest: String = lower.chars().filter(char::is_ascii_alphanumeric).collect();
    rest.truncate(MAX_TABLE - prefix.len() - HASH - 1);
    let begins_well = !prefix.is_empty() || rest.starts_with(|c: char| c.is_ascii_alphabetic());
    format!("{prefix}{}{rest}X{hash}", if begins_well { "" } else { "t" }).chars().take(MAX_TABLE).collect()
}

/// True where a character at the beginning of `rest` stands for itself.
fn is_plain(c: char, first: bool, rest: &str) -> bool {
    match c {
        'a'..='z' | 'A'..='Z' => true,
        '0'..='9' => !first,
        '_' => !first && !begins_like_an_escape(rest),
        _ => false,
    }
}

/// True also where only what follows would make an escape of it.
fn begins_like_an_escape(text: &str) -> bool {
    let hex = text.strip_prefix("_x").and_then(|rest| rest.get(..4));
    hex.is_some_and(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// The UTF-16 unit that an escape at the beginning of `text` stands for.
fn escape_at(text: &str) -> Option<u16> {
    let hex = text.strip_prefix("_x")?.get(..5)?.strip_suffix('_')?;
    if !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    u16::from_str_radix(hex, 16).ok()
}

fn is_the_services(name: &str) -> bool {
    ["PartitionKey", "RowKey", "Timestamp", "ETag"].iter().any(|own| own.eq_ignore_ascii_case(name))
}

/// The property of a field. `None`: no property can have such a name.
pub(crate) fn property(field: &str) -> Option<String> {
    let mut property = String::with_capacity(field.len());
    let reserved = is_the_services(field);
    for (at, c) in field.char_indices() {
        if is_plain(c, at == 0, &field[at..]) && !(reserved && at == 0) {
            property.push(c);
            continue;
        }
        for unit in c.encode_utf16(&mut [0; 2]) {
            property.push_str(&format!("_x{unit:04X}_"));
        }
    }
    (property.len() <= MAX_PROPERTY - PART.len() - 2).then_some(property)
}

/// The field of a property. `None`: it is a part of another, or one of the toolkit's own.
pub(crate) fn field(property: &str) -> Option<String> {
    if property.contains(PART) || (property.starts_with('_') && escape_at(property).is_none()) {
        return None;
    }
    let mut units = Vec::with_capacity(property.len());
    let mut rest = property;
    while let Some(c) = rest.chars().next() {
        let taken = match escape_at(rest) {
            Some(unit) => {
                units.push(unit);
                "_x0000_".len()
            }
            None => {
                units.extend_from_slice(c.encode_utf16(&mut [0; 2]));
                c.len_utf8()
            }
        };
        rest = &rest[taken..];
    }
    String::from_utf16(&units).ok()
}

/// The property that holds a value's n-th part: the first is the property itself.
pub(crate) fn part(property: &str, n: usize) -> String {
    if n == 1 { property.to_owned() } else { format!("{property}{PART}{n}") }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn tables_keep_names_that_the_service_takes() {
        for name in ["tasks", "Orders2", &"q".repeat(63)] {
            assert_eq!(table("", &name.parse().unwrap()), name);
        }
        assert_eq!(table("app", &"t".parse().unwrap()), "appt");
    }

    #[test]
    fn all_tables_get_valid_names_of_their_own() {
        let names = [
            "t",
            "tt",
            "ab",
            "a-b",
            "a_b",
            "a_b_",
            "_",
            "__",
            "_9",
            "tables",
            "storagecatalogue",
            "x0123456789abcdef",
            "abX0123456789abcdef",
        ];
        let long = ["x".repeat(63), format!("{}_dead", "x".repeat(58)), format!("{}-", "x".repeat(62))];
        for prefix in ["", "app", "abcdefghijklmnopqrstuvwx"] {
            assert!(is_prefix(prefix));
            let mut seen = BTreeSet::from([catalogue(prefix)]);
            for name in names.iter().copied().chain(long.iter().map(String::as_str)) {
                let there = table(prefix, &name.parse().unwrap());
                assert!(is_valid(&there) && there.starts_with(prefix), "{name}: {there}");
                assert!(seen.insert(there.to_ascii_lowercase()), "{there} means two");
                let upper = table(prefix, &name.to_ascii_uppercase().parse().unwrap());
                assert!(upper.eq_ignore_ascii_case(&there), "{there} {upper}");
            }
        }
        for bad in ["-", "9a", "a_", "abcdefghijklmnopqrstuvwxy"] {
            assert!(!is_prefix(bad), "{bad}");
        }
    }

    #[test]
    fn fields_keep_names_that_the_service_takes() {
        for (field, name) in [
            ("status", "status"),
            ("Under_score", "Under_score"),
            ("a__b_", "a__b_"),
            ("where-to", "where_x002D_to"),
            ("_version", "_x005F_version"),
            ("a_x002D_b", "a_x005F_x002D_b"),
            ("PartitionKey", "_x0050_artitionKey"),
            ("9", "_x0039_"),
            ("\u{1F600}", "_xD83D__xDE00_"),
            ("a_-", "a__x002D_"),
            ("a_x1234ü", "a_x005F_x1234_x00FC_"),
        ] {
            assert_eq!(property(field).as_deref(), Some(name));
            assert_eq!(super::field(name).as_deref(), Some(field));
        }
        assert_eq!(property(&"-".repeat(40)), None);
        assert_eq!((field("_version"), field(&part("a", 2))), (None, None));
        assert_eq!((part("a", 1), part("a", 2)), ("a".to_owned(), "a_x0000_2".to_owned()));
    }
}
