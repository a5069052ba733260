//! Records and their versions.

use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Key, KeyPart, TableSchema};

/// The fields of a record, without the key. Sorted by name.
pub type Fields = serde_json::Map<String, Value>;

/// The fields in a JSON object. Anything but an object is taken as no fields, so use it on literals: `fields(json!({"a": 1}))`.
#[must_use]
pub fn fields(value: Value) -> Fields {
    match value {
        Value::Object(map) => map,
        _ => Fields::new(),
    }
}

/// How often a record has been written: 1 when it is new, one more with every write.
///
/// The optimistic lock: see [`Expect::Version`](crate::Expect::Version). It counts the writes of one life of a record: nothing is kept of a deleted
/// or expired one, so that the next record of that key starts at 1 again, and a version that was read before may come to match it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Version(pub u64);

impl Version {
    /// No record.
    pub const NONE: Self = Self(0);
    /// A new record.
    pub const FIRST: Self = Self(1);

    /// The version after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A record as a backend holds it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Its key.
    pub key: Key,
    /// Its version.
    pub version: Version,
    /// When this version was written, by the backend's clock.
    pub updated_at: DateTime<Utc>,
    /// From when on it counts as absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<DateTime<Utc>>,
    /// Its fields in canonical form, without the key columns and without nulls.
    pub fields: Fields,
}

impl Record {
    /// The value of a column: a key column or a field. `None` where it is missing.
    #[must_use]
    pub fn value(&self, schema: &TableSchema, column: &str) -> Option<Value> {
        if schema.id.name == *column {
            return Some(part_value(&self.key.id));
        }
        if schema.partition.as_ref().is_some_and(|p| p.name == *column) {
            return self.key.partition.as_ref().map(part_value);
        }
        self.fields.get(column).cloned()
    }

    /// True where the record counts as absent at `now`.
    #[must_use]
    pub fn is_expired(&self, now: DateTime<Utc>) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }

    /// Key columns and fields together, as one JSON object: what a person or a typed program sees.
    #[must_use]
    pub fn to_object(&self, schema: &TableSchema) -> Fields {
        let mut object = self.fields.clone();
        for (column, part) in schema.key_columns().zip(self.key.partition.iter().chain([&self.key.id])) {
            object.insert(column.name.to_string(), part_value(part));
        }
        object
    }
}

/// A key part as a JSON value.
#[must_use]
pub fn part_value(part: &KeyPart) -> Value {
    match part {
        KeyPart::Integer(n) => Value::from(*n),
        KeyPart::Text(text) => Value::from(text.as_str()),
    }
}
