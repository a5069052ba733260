//! The names of keys and channels.
//!
//! All keys of a queue share the hash tag `{name}`, so that a Cluster keeps them on one node and a script can take all of them:
//!
//! ```text
//! storage:queues                  hash        name of a queue -> its incarnation; may list one that is gone
//! storage:{mail}:meta             hash        spec (JSON), max_deliveries, dedup_window (µs), incarnation, seq (the last message's number)
//! storage:{mail}:body             hash        number of a message -> its body, as it is
//! storage:{mail}:attributes       hash        number -> its attributes, as JSON; none where it has none
//! storage:{mail}:state            hash        number -> "priority expires sent deliveries size lease type", times in µs, 0 and - for none
//! storage:{mail}:age              sorted set  all numbers, by number
//! storage:{mail}:ready            sorted set  those that can be received, by (9 - priority) * 2^49 + number
//! storage:{mail}:leased           sorted set  those with a consumer, by the end of the lease
//! storage:{mail}:delayed          sorted set  by the end of the delay
//! storage:{mail}:expiring         sorted set  ready ones with a time to live, by its end
//! storage:{mail}:dedup            hash        dedup id -> "number until"
//! storage:{mail}:dedup:until      sorted set  dedup ids, by the end of their window
//! storage:{mail}:dead:…           the same of the dead letters: body, attributes, state, age, ready, leased
//! storage:{mail}:dead:info        hash        number -> "deliveries at reason"
//! ```
//!
//! So do all keys of a table, whose tag is its name in lower case. `ID` is new each time that a table is created or rewritten:
//!
//! ```text
//! storage:tables                  hash        name of a table in lower case -> its ID; may list one that is gone
//! storage:{jobs}:table            hash        schema (JSON), id, stamp (what tells this state of the schema from others), and while it is being rewritten:
//!                                             altering (the new ID), altering_schema, altering_until (µs)
//! storage:{jobs}:dropped          hash        ID -> schema: what is still to be removed
//! storage:{jobs}:ID:row:KEY       hash        a record: field -> JSON; @version, @updated and @expires (µs), @index (what stands in the indexes)
//! storage:{jobs}:ID:history:KEY   list        its versions as JSON, the newest first
//! storage:{jobs}:ID:keys          sorted set  all KEYs, score 0
//! storage:{jobs}:ID:expiring      sorted set  KEYs, by the time of expiry
//! storage:{jobs}:ID:kept          sorted set  KEYs with a history, score 0
//! storage:{jobs}:ID:index:NAME    sorted set  the columns' values and the KEY, score 0; `.COLUMN` instead of NAME for a unique column
//! storage:{jobs}:ID:unique:NAME   hash        the columns' values -> "expires KEY", - for never
//! ```
//!
//! A KEY is the text as it is, an integer as 19 digits (a negative one as `-` and 2^63 + n); the parts of a key of two are separated by U+0001.
//! A field whose name begins with `@` has another one in front.
//!
//! Channels: `storage:{mail}:news` and `storage:{mail}:dead:news` say how many messages have become ready.

use storage_core::{Error, Result};

/// Behind the queue's name; in the order in which scripts take them.
const PARTS: [&str; 18] = [
    "meta",
    "body",
    "attributes",
    "state",
    "age",
    "ready",
    "leased",
    "delayed",
    "expiring",
    "dedup",
    "dedup:until",
    "dead:body",
    "dead:attributes",
    "dead:state",
    "dead:age",
    "dead:ready",
    "dead:leased",
    "dead:info",
];

/// The longest prefix.
const MAX_PREFIX: usize = 100;

/// The keys of a store.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    prefix: String,
}

impl Layout {
    pub(crate) fn new(prefix: &str) -> Result<Self> {
        // Braces would make another hash tag than the queue's name.
        let good = |c: char| !c.is_control() && !c.is_whitespace() && !matches!(c, '{' | '}' | '*' | '?' | '[' | ']' | '\\');
        if prefix.is_empty() || prefix.len() > MAX_PREFIX || !prefix.chars().all(good) {
            return Err(Error::config(format!(
                "option `prefix`: it needs 1 to {MAX_PREFIX} bytes, without blanks, braces, brackets, `*`, `?` and backslashes"
            )));
        }
        Ok(Self { prefix: prefix.to_owned() })
    }

    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The list of queues.
    pub(crate) fn queues(&self) -> String {
        format!("{}:queues", self.prefix)
    }

    /// What is known of the queue `home`.
    pub(crate) fn meta(&self, home: &str) -> String {
        self.key(home, PARTS[0])
    }

    /// All keys of the queue `home`, as scripts take them.
    pub(crate) fn keys(&self, home: &str) -> Vec<String> {
        PARTS.iter().map(|part| self.key(home, part)).collect()
    }

    /// Where news of the queue, or of its dead letters, are told.
    pub(crate) fn news(&self, home: &str, dead: bool) -> String {
        self.key(home, if dead { "dead:news" } else { "news" })
    }

    /// The list of tables.
    pub(crate) fn tables(&self) -> String {
        format!("{}:tables", self.prefix)
    }

    /// What is known of a table, by its name in lower case.
    pub(crate) fn table(&self, lower: &str) -> String {
        self.key(lower, "table")
    }

    /// What is left of earlier tables of that name.
    pub(crate) fn dropped(&self, lower: &str) -> String {
        self.key(lower, "dropped")
    }

    /// What the keys of a table's records begin with.
    pub(crate) fn data(&self, lower: &str, id: &str) -> String {
        self.key(lower, id) + ":"
    }

    fn key(&self, home: &str, part: &str) -> String {
        format!("{}:{{{home}}}:{part}", self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_a_queue_share_a_hash_tag() {
        let keys = Layout::new("app:storage").unwrap().keys("mail");
        assert_eq!(keys.len(), 18);
        assert!(keys.iter().all(|key| key.starts_with("app:storage:{mail}:")), "{keys:?}");
    }

    #[test]
    fn a_prefix_can_not_hide_the_hash_tag() {
        for bad in ["", "a{b}", "a b", "a*", &"x".repeat(101)] {
            assert!(Layout::new(bad).is_err(), "{bad}");
        }
    }
}
