//! Names of tables, columns, indexes and queues.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The longest name, in bytes: what PostgreSQL keeps of an identifier.
pub const MAX_NAME_LEN: usize = 63;

fn check(what: &str, name: &str) -> Result<()> {
    let mut bytes = name.bytes();
    let head_ok = bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    let tail_ok = bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if head_ok && tail_ok && name.len() <= MAX_NAME_LEN {
        return Ok(());
    }
    let shown: String = name.chars().take(80).collect();
    Err(Error::invalid(format!(
        "{shown:?} is not a {what}: use a letter or `_`, then letters, digits, `_` or `-`, {MAX_NAME_LEN} at most"
    )))
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        ///
        /// `[A-Za-z_][A-Za-z0-9_-]{0,62}`, checked when it is built; cheap to clone.
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks `name`.
            ///
            /// # Errors
            /// [`InvalidInput`](crate::ErrorKind::InvalidInput) where it is not of the form above.
            pub fn new(name: impl AsRef<str>) -> Result<Self> {
                let name = name.as_ref();
                check($what, name)?;
                Ok(Self(name.into()))
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = Error;
            fn from_str(name: &str) -> Result<Self> {
                Self::new(name)
            }
        }

        impl TryFrom<&str> for $name {
            type Error = Error;
            fn try_from(name: &str) -> Result<Self> {
                Self::new(name)
            }
        }

        impl TryFrom<String> for $name {
            type Error = Error;
            fn try_from(name: String) -> Result<Self> {
                Self::new(name)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0.as_ref().to_owned()
            }
        }

        impl PartialEq<str> for $name {
            fn eq(&self, other: &str) -> bool {
                &*self.0 == other
            }
        }

        impl PartialEq<&str> for $name {
            fn eq(&self, other: &&str) -> bool {
                &*self.0 == *other
            }
        }
    };
}

name_type!(
    /// The name of a table.
    TableName,
    "table name"
);
name_type!(
    /// The name of a column (a declared one, a key column, or a field outside the schema).
    ColumnName,
    "column name"
);
name_type!(
    /// The name of an index, unique within its table.
    IndexName,
    "index name"
);
name_type!(
    /// The name of a queue.
    QueueName,
    "queue name"
);

/// What a dead-letter queue's name ends with.
const DEAD_SUFFIX: &str = "-dead";

impl QueueName {
    /// The queue that takes this queue's dead letters: `<name>-dead`.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) where this is a dead-letter queue itself, or the name is longer than 58 bytes.
    pub fn dead_letter(&self) -> Result<Self> {
        if self.is_dead_letter() {
            return Err(Error::invalid(format!("queue `{self}` holds dead letters and has no dead-letter queue of its own")));
        }
        Self::new(format!("{self}{DEAD_SUFFIX}")).map_err(|_| {
            Error::invalid(format!(
                "queue name `{self}` is too long: {} bytes at most, so that `{DEAD_SUFFIX}` fits behind it",
                MAX_NAME_LEN - DEAD_SUFFIX.len()
            ))
        })
    }

    /// True for the name of a dead-letter queue.
    #[must_use]
    pub fn is_dead_letter(&self) -> bool {
        self.0.len() > DEAD_SUFFIX.len() && self.0.ends_with(DEAD_SUFFIX)
    }

    /// The queue whose dead letters this one takes.
    #[must_use]
    pub fn dead_letter_of(&self) -> Option<Self> {
        self.is_dead_letter().then(|| Self(self.0[..self.0.len() - DEAD_SUFFIX.len()].into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_the_documented_form_only() {
        for good in ["a", "_", "A-b_9", &"x".repeat(63)] {
            assert!(TableName::new(good).is_ok(), "{good}");
        }
        for bad in ["", "1a", "-a", "a b", "a.b", "a\"b", "ä", "a;drop table x", "../x", &"x".repeat(64)] {
            assert!(TableName::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn dead_letter_names_go_both_ways() {
        let queue = QueueName::new("mail").unwrap();
        let dead = queue.dead_letter().unwrap();
        assert_eq!(dead, "mail-dead");
        assert!(dead.is_dead_letter() && !queue.is_dead_letter());
        assert_eq!(dead.dead_letter_of(), Some(queue));
        assert!(dead.dead_letter().is_err());
        assert!(QueueName::new("x".repeat(59)).unwrap().dead_letter().is_err());
    }
}
