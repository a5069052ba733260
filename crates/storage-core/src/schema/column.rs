//! Columns, keys and indexes: what a schema is made of.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{ColumnName, IndexName, KeyPart};

/// The type of a column's values. See [`value`](crate::value) for their canonical JSON forms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ColumnType {
    /// UTF-8 text without U+0000, ordered bytewise.
    Text,
    /// A signed 64-bit integer.
    Integer,
    /// A finite 64-bit float.
    Real,
    /// True or false.
    Boolean,
    /// A moment in UTC, in microseconds; RFC 3339 in JSON.
    Timestamp,
    /// Any JSON value; can be filtered by `is null` alone.
    Json,
    /// Bytes; standard base64 in JSON. Can be compared for equality, not ordered.
    Bytes,
}

impl ColumnType {
    pub(crate) const fn article(self) -> &'static str {
        match self {
            Self::Text => "a text",
            Self::Integer => "an integer",
            Self::Real => "a real number",
            Self::Boolean => "a boolean",
            Self::Timestamp => "a timestamp",
            Self::Json => "JSON",
            Self::Bytes => "bytes in base64",
        }
    }

    /// True where values have an order that filters, sort orders and indexes can use.
    #[must_use]
    pub const fn is_ordered(self) -> bool {
        !matches!(self, Self::Json | Self::Bytes)
    }
}

/// The type of a key column.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyType {
    /// 1 to 512 bytes of UTF-8 without control characters.
    #[default]
    Text,
    /// A signed 64-bit integer.
    Integer,
}

impl KeyType {
    /// The column type that key values compare as.
    #[must_use]
    pub const fn column_type(self) -> ColumnType {
        match self {
            Self::Text => ColumnType::Text,
            Self::Integer => ColumnType::Integer,
        }
    }

    pub(super) fn accepts(self, part: &KeyPart) -> bool {
        matches!((self, part), (Self::Text, KeyPart::Text(_)) | (Self::Integer, KeyPart::Integer(_)))
    }
}

/// A column that is part of the key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyColumn {
    /// Its name.
    pub name: ColumnName,
    /// Text or integer.
    #[serde(rename = "type", default)]
    pub kind: KeyType,
}

/// A declared column.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Column {
    /// Its name.
    pub name: ColumnName,
    /// The type of its values.
    #[serde(rename = "type")]
    pub kind: ColumnType,
    /// True: a record without it is refused.
    #[serde(default)]
    pub required: bool,
    /// True: no two records have the same value (any number have none).
    #[serde(default)]
    pub unique: bool,
    /// What a record gets that is put without it, in canonical form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<Value>,
}

/// An index over declared or key columns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Index {
    /// Its name, unique within the table.
    pub name: IndexName,
    /// The columns, most significant first.
    pub columns: Vec<ColumnName>,
    /// True: no two records have the same values in all of the columns (records that lack one don't count).
    #[serde(default)]
    pub unique: bool,
}

/// What a name in a filter or an order refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnRef {
    /// The partition key column.
    Partition(KeyType),
    /// The id key column.
    Id(KeyType),
    /// A declared column.
    Declared(ColumnType),
    /// A field outside the schema, of any type ([`Undeclared::Keep`](crate::Undeclared::Keep)).
    Undeclared,
}

impl ColumnRef {
    /// The type of its values, where there is one.
    #[must_use]
    pub const fn column_type(self) -> Option<ColumnType> {
        match self {
            Self::Partition(kind) | Self::Id(kind) => Some(kind.column_type()),
            Self::Declared(kind) => Some(kind),
            Self::Undeclared => None,
        }
    }
}
