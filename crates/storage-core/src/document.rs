//! A record as a JSON document, for backends that keep each in a file or an object of its own.
//!
//! A change of the schema rewrites no documents: each says after how many changes it was written, and whoever reads it applies those that came since.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{Fields, Key, Record, SchemaChange, Version};

/// The changes that a table's schema has seen.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SchemaChanges {
    #[serde(default)]
    generation: u64,
    #[serde(default)]
    changes: Vec<Numbered>,
}

/// A change, and the generation of documents that is written since.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Numbered {
    generation: u64,
    change: SchemaChange,
}

impl SchemaChanges {
    /// One more.
    pub fn add(&mut self, change: SchemaChange) {
        self.generation += 1;
        self.changes.push(Numbered { generation: self.generation, change });
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.changes.len()
    }
}

/// A record as it is written down.
#[derive(Debug, Serialize)]
pub struct DocumentRef<'a> {
    key: &'a Key,
    version: Version,
    updated_at: DateTime<Utc>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<DateTime<Utc>>,
    #[serde(skip_serializing_if = "is_first")]
    generation: u64,
    fields: &'a Fields,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
fn is_first(generation: &u64) -> bool {
    *generation == 0
}

impl<'a> DocumentRef<'a> {
    /// A record of a table whose schema has seen these changes.
    #[must_use]
    pub fn new(record: &'a Record, changes: &SchemaChanges) -> Self {
        Self {
            key: &record.key,
            version: record.version,
            updated_at: record.updated_at,
            expires_at: record.expires_at,
            generation: changes.generation,
            fields: &record.fields,
        }
    }
}

/// The same as it is read; a person may have written it.
#[derive(Debug, Deserialize)]
pub struct Document {
    key: Key,
    version: Version,
    updated_at: DateTime<Utc>,
    #[serde(default)]
    expires_at: Option<DateTime<Utc>>,
    #[serde(default)]
    generation: u64,
    fields: Fields,
}

impl Document {
    /// True where it was written after changes that are not among these: who knows the table by them knows too little to read it.
    #[must_use]
    pub fn is_newer_than(&self, changes: &SchemaChanges) -> bool {
        self.generation > changes.generation
    }

    /// The record, with the changes that came since it was written.
    #[must_use]
    pub fn into_record(mut self, changes: &SchemaChanges) -> Record {
        for numbered in changes.changes.iter().filter(|numbered| numbered.generation > self.generation) {
            numbered.change.carry_fields(&mut self.fields);
        }
        let Self { key, version, updated_at, expires_at, fields, .. } = self;
        Record { key, version, updated_at, expires_at, fields }
    }
}
