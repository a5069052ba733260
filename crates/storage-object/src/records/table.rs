//! Tables, and the objects of their records.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use storage_core::document::{Document, DocumentRef, SchemaChanges};
use storage_core::{ETag, Error, Key, Record, Result, TableName, TableSchema};
use uuid::Uuid;

use super::names;
use super::objects::Objects;

/// The folder of the tables' objects.
pub(super) const TABLES: &str = "tables";
/// The folder of the records'.
pub(super) const DATA: &str = "data";
/// More tables than this are not remembered.
const MAX_KNOWN: usize = 1_000;

/// What the object of a table holds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct TableObject {
    pub(super) schema: TableSchema,
    /// Where its records are: a new folder each time that a table is created, so that nothing of one that was dropped comes back.
    pub(super) folder: String,
    /// True where records that expire may be among them: then a record has to be read to know that it is there.
    #[serde(default)]
    pub(super) expiring: bool,
    #[serde(flatten)]
    pub(super) changes: SchemaChanges,
}

/// One state of a table.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) object: TableObject,
    pub(super) etag: ETag,
}

pub(super) fn path(name: &TableName) -> String {
    // Letter case does not distinguish tables.
    format!("{TABLES}/{}.json", name.as_str().to_ascii_lowercase())
}

pub(super) fn no_table(name: &TableName) -> Error {
    Error::not_found(format!("there is no table `{name}`: create it first"))
}

impl Table {
    /// The table in the object at `path`, whatever the case of its name.
    pub(super) async fn read(objects: &Objects, path: &str) -> Result<Option<Self>> {
        let Some(found) = objects.get(path).await? else { return Ok(None) };
        let object = objects.parse(path, &found.bytes, "a table")?;
        Ok(Some(Self { object, etag: found.etag }))
    }

    pub(super) fn schema(&self) -> &TableSchema {
        &self.object.schema
    }

    /// Where its records are.
    pub(super) fn folder(&self) -> String {
        format!("{DATA}/{}", self.object.folder)
    }

    /// Where the object of a record is.
    pub(super) fn path(&self, key: &Key) -> String {
        format!("{}/{}", self.folder(), names::record(key))
    }

    pub(super) fn encode(&self, record: &Record, write: Uuid) -> Result<Vec<u8>> {
        let mut text = serde_json::to_vec(&StoredRef { document: DocumentRef::new(record, &self.object.changes), write })?;
        text.push(b'\n');
        Ok(text)
    }

    /// The record in an object, and the mark of the commit that wrote it.
    pub(super) fn decode(&self, objects: &Objects, path: &str, bytes: &[u8]) -> Result<(Record, Option<Uuid>)> {
        let Stored { document, write } = objects.parse(path, bytes, "a record")?;
        let record = document.into_record(&self.object.changes);
        if self.path(&record.key) != path {
            return Err(objects.corrupt(path, format_args!("it holds the record `{}`, which belongs elsewhere", record.key)));
        }
        Ok((record, write))
    }
}

/// What the object of a record holds.
#[derive(Serialize)]
struct StoredRef<'a> {
    #[serde(flatten)]
    document: DocumentRef<'a>,
    write: Uuid,
}

/// The same, also as a person may have written it.
#[derive(Deserialize)]
struct Stored {
    #[serde(flatten)]
    document: Document,
    #[serde(default)]
    write: Option<Uuid>,
}

/// The tables as they were last seen. A guess of where records are, to be held against the table's object in the same call: others may have changed it.
#[derive(Debug, Default)]
pub(super) struct Tables(Mutex<HashMap<TableName, Arc<Table>>>);

impl Tables {
    pub(super) fn guess(&self, name: &TableName) -> Option<Arc<Table>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// The table as it is now.
    pub(super) async fn load(&self, objects: &Objects, name: &TableName) -> Result<Arc<Table>> {
        let path = path(name);
        let Some(found) = objects.get(&path).await? else { return Err(no_table(name)) };
        if let Some(known) = self.guess(name).filter(|known| known.etag == found.etag) {
            return Ok(known);
        }
        let object: TableObject = objects.parse(&path, &found.bytes, "a table")?;
        if object.schema.name != *name {
            return Err(no_table(name));
        }
        let table = Arc::new(Table { object, etag: found.etag });
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MAX_KNOWN {
            known.clear();
        }
        known.insert(name.clone(), Arc::clone(&table));
        Ok(table)
    }
}
