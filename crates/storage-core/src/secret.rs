//! Text that must not be shown.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, de};

/// A password, key or token: `Debug` and `Display` show `***`.
///
/// ```
/// use storage_core::Secret;
/// let key = Secret::new("hunter2");
/// assert_eq!(format!("{key:?} {key}"), "*** ***");
/// assert_eq!(key.expose(), "hunter2");
/// ```
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret(String);

impl Secret {
    /// Wraps `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for handing to a client library.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Serialize for Secret {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("***")
    }
}

/// Text alone. serde's own error for anything else would show it.
impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match serde_json::Value::deserialize(deserializer) {
            Ok(serde_json::Value::String(text)) => Ok(Self(text)),
            _ => Err(de::Error::custom(
                "it is text: put digits in quotes, and write a password in front of a URL's host (`name:PASSWORD@`), not behind its `?`",
            )),
        }
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_text_is_not_shown() {
        assert_eq!(serde_json::from_str::<Secret>("\"0123\"").unwrap().expose(), "0123");
        for bad in ["12345678", "true", "[\"hunter2\"]", "{\"a\":12345678}"] {
            let error = serde_json::from_str::<Secret>(bad).unwrap_err().to_string();
            assert!(error.contains("quotes") && !error.contains("5678") && !error.contains("hunter2"), "{error}");
        }
        #[derive(Debug, Deserialize)]
        #[serde(default)]
        #[derive(Default)]
        struct Options {
            key: Option<Secret>,
        }
        let config = crate::DriverConfig::from_url("x:?key=12345678");
        let error = config.typed_options::<Options>().unwrap_err();
        assert!(error.message().starts_with("option `key`: ") && !format!("{error:?}").contains("5678"), "{error:?}");
        let config = crate::DriverConfig::from_url("x:?key=a");
        assert_eq!(config.typed_options::<Options>().unwrap().key, Some(Secret::new("a")));
    }
}
