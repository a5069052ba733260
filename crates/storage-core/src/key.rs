//! Keys of records.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The longest text of a key part, in bytes: what the narrowest backend can index.
pub const MAX_KEY_LEN: usize = 512;

/// One part of a key: text, or a 64-bit integer.
///
/// Integers sort before text; text sorts bytewise.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(untagged)]
pub enum KeyPart {
    /// An integer.
    Integer(i64),
    /// Text: 1 to 512 bytes of UTF-8 without control characters.
    Text(String),
}

impl KeyPart {
    /// Checks the text's length and characters.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for empty or long text, or control characters.
    pub fn check(&self) -> Result<()> {
        let Self::Text(text) = self else { return Ok(()) };
        if text.is_empty() {
            return Err(Error::invalid("a key is empty: use 1 to 512 bytes of text, or an integer"));
        }
        if text.len() > MAX_KEY_LEN {
            return Err(Error::invalid(format!("a key of {} bytes is too long: {MAX_KEY_LEN} at most", text.len())));
        }
        if text.chars().any(char::is_control) {
            return Err(Error::invalid(format!("the key {text:?} has a control character in it")));
        }
        Ok(())
    }
}

/// For backends whose keys are text.
impl KeyPart {
    /// Text that sorts bytewise as integers do: 19 digits; of a negative one `-`, and what it is more than -2^63.
    #[must_use]
    pub fn sortable_integer(n: i64) -> String {
        if n < 0 { format!("-{:019}", n - i64::MIN) } else { format!("{n:019}") }
    }

    /// The integer of such a text.
    #[must_use]
    pub fn from_sortable_integer(text: &str) -> Option<i64> {
        match text.strip_prefix('-') {
            Some(above) => i64::MIN.checked_add(above.parse().ok()?),
            None => text.parse().ok(),
        }
    }
}

impl fmt::Display for KeyPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Integer(n) => write!(f, "{n}"),
            Self::Text(text) => f.write_str(text),
        }
    }
}

impl From<i64> for KeyPart {
    fn from(n: i64) -> Self {
        Self::Integer(n)
    }
}

impl From<&str> for KeyPart {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for KeyPart {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<&String> for KeyPart {
    fn from(text: &String) -> Self {
        Self::Text(text.clone())
    }
}

impl From<uuid::Uuid> for KeyPart {
    fn from(id: uuid::Uuid) -> Self {
        Self::Text(id.to_string())
    }
}

/// The key of a record: one part, or a partition and an id.
///
/// ```
/// use storage_core::Key;
/// let simple: Key = "invoice-17".into();
/// let partitioned: Key = ("acme", 17).into();
/// assert_eq!(partitioned.to_string(), "acme/17");
/// assert!(simple.partition.is_none());
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Key {
    /// The partition, for tables with two key columns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition: Option<KeyPart>,
    /// The id, unique within the partition.
    pub id: KeyPart,
}

impl Key {
    /// A key of one part.
    pub fn new(id: impl Into<KeyPart>) -> Self {
        Self { partition: None, id: id.into() }
    }

    /// A key of two parts.
    pub fn partitioned(partition: impl Into<KeyPart>, id: impl Into<KeyPart>) -> Self {
        Self { partition: Some(partition.into()), id: id.into() }
    }

    /// Checks both parts.
    ///
    /// # Errors
    /// See [`KeyPart::check`].
    pub fn check(&self) -> Result<()> {
        if let Some(partition) = &self.partition {
            partition.check()?;
        }
        self.id.check()
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(partition) = &self.partition {
            write!(f, "{partition}/")?;
        }
        write!(f, "{}", self.id)
    }
}

impl<I: Into<KeyPart>> From<I> for Key {
    fn from(id: I) -> Self {
        Self::new(id)
    }
}

impl<P: Into<KeyPart>, I: Into<KeyPart>> From<(P, I)> for Key {
    fn from((partition, id): (P, I)) -> Self {
        Self::partitioned(partition, id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_text_parts() {
        assert!(Key::from("a").check().is_ok());
        assert!(Key::from(i64::MIN).check().is_ok());
        assert!(Key::from("ü '\"%/\\..").check().is_ok());
        assert!(Key::from("").check().is_err());
        assert!(Key::from("a\0b").check().is_err());
        assert!(Key::from("x".repeat(513)).check().is_err());
        assert!(Key::from(("", "a")).check().is_err());
    }

    #[test]
    fn order_is_integers_then_bytes() {
        let mut keys = vec![Key::from("b"), Key::from(2), Key::from("B"), Key::from(-1)];
        keys.sort();
        assert_eq!(keys, [Key::from(-1), Key::from(2), Key::from("B"), Key::from("b")]);
    }

    #[test]
    fn serde_keeps_the_kind_of_each_part() {
        for key in [Key::from("7"), Key::from(7), Key::from(("p", 7)), Key::from((1, "x"))] {
            let text = serde_json::to_string(&key).unwrap();
            assert_eq!(serde_json::from_str::<Key>(&text).unwrap(), key);
        }
    }
}
