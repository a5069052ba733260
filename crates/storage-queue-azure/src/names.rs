//! What a queue is called on the service.
//!
//! The service takes names of lower-case letters, digits and single hyphens, 3 to 63. A queue whose name is such a name has it there too, behind the prefix
//! that the configuration gives. Any other has what is left of its name, then `-x` and a hash of the whole; its metadata says what it is called.

use sha2::{Digest as _, Sha256};
use storage_core::QueueName;

/// The longest name that the service takes.
const MAX: usize = 63;
/// How many characters of the hash are used: 64 bits.
const HASH: usize = 16;

/// True where the service takes the name.
fn is_valid(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = name.as_bytes();
    (3..=MAX).contains(&bytes.len())
        && bytes.iter().all(|b| plain(*b) || *b == b'-')
        && bytes.first().is_some_and(|b| plain(*b))
        && bytes.last().is_some_and(|b| plain(*b))
        && !name.contains("--")
}

/// True for a name that could be one with a hash.
fn looks_hashed(name: &str) -> bool {
    name.rsplit_once("-x").is_some_and(|(_, hash)| hash.len() == HASH && hash.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// True for what may stand before all names: so much that something is left for them.
pub(crate) fn is_prefix(prefix: &str) -> bool {
    prefix.len() <= 24 && (prefix.is_empty() || is_valid(&format!("{prefix}queue")))
}

/// The name of a queue on the service.
pub(crate) fn on_service(prefix: &str, queue: &QueueName) -> String {
    let as_it_is = format!("{prefix}{queue}");
    if is_valid(&as_it_is) && !looks_hashed(&as_it_is) {
        return as_it_is;
    }
    let hash = Sha256::digest(queue.as_str().as_bytes()).iter().take(HASH / 2).fold(String::new(), |mut hash, byte| {
        hash.push_str(&format!("{byte:02x}"));
        hash
    });
    let mut rest = String::new();
    for c in queue.as_str().chars() {
        match c.to_ascii_lowercase() {
            c @ ('a'..='z' | '0'..='9') => rest.push(c),
            _ if rest.is_empty() || rest.ends_with('-') => {}
            _ => rest.push('-'),
        }
    }
    rest.truncate(MAX - prefix.len() - HASH - "-x".len());
    let begun = format!("{prefix}{}", rest.trim_end_matches('-'));
    // `_` leaves nothing of itself.
    format!("{}-x{hash}", if begun.is_empty() { "q" } else { begun.trim_end_matches('-') })
}

/// The queue that has this name on the service, where its name says so by itself.
pub(crate) fn of_service(prefix: &str, name: &str) -> Option<QueueName> {
    if looks_hashed(name) {
        return None;
    }
    name.strip_prefix(prefix)?.parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn names_that_are_valid_stay() {
        for name in ["mail", "a-b-9", "mail-dead", &"q".repeat(63)] {
            let queue = name.parse().unwrap();
            assert_eq!(on_service("", &queue), name);
            assert_eq!(of_service("", name), Some(queue));
        }
        let queue: QueueName = "q".parse().unwrap();
        assert_eq!(on_service("app-", &queue), "app-q");
        assert_eq!((of_service("app-", "app-q"), of_service("app-", "other-q")), (Some(queue), None));
    }

    #[test]
    fn all_names_get_valid_ones_of_their_own() {
        let names = ["q", "Q", "ab", "A-b", "a_b", "a-b_", "a--b", "a-", "_", "__", "-x", "a-x0123456789abcdef", "Z9"];
        let long = ["x".repeat(63), "X".repeat(63), format!("{}_dead", "x".repeat(58)), format!("{}-", "x".repeat(62))];
        for prefix in ["", "app-", "abcdefghijklmnopqrstuvwx"] {
            assert!(is_prefix(prefix));
            let mut seen = std::collections::BTreeSet::new();
            for name in names.iter().copied().chain(long.iter().map(String::as_str)) {
                let Ok(queue) = name.parse() else { continue };
                let there = on_service(prefix, &queue);
                assert!(is_valid(&there) && there.starts_with(prefix.trim_end_matches('-')), "{name}: {there}");
                assert!(seen.insert(there.clone()), "{there} means two");
                assert!(of_service(prefix, &there).is_none_or(|found| found == queue), "{there}");
            }
        }
        for bad in ["-", "a--", "A", "a_", "abcdefghijklmnopqrstuvwxy"] {
            assert!(!is_prefix(bad), "{bad}");
        }
    }
}
