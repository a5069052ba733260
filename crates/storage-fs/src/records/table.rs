//! Tables and the files of their records.
//!
//! `records/<table>/_schema.json` holds the schema and every [change](storage_core::document) there has been.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use serde::{Deserialize, Serialize};
use storage_core::document::{Document, DocumentRef, SchemaChanges};
use storage_core::{Error, Key, Record, Result, TableName, TableSchema};

use crate::base::Base;
use crate::names;

pub(crate) const TABLES: &str = "records";
pub(crate) const SCHEMA: &str = "_schema.json";

/// What `_schema.json` holds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct SchemaFile {
    pub(crate) schema: TableSchema,
    /// Which folder below `_unique` is the index of unique values.
    #[serde(default)]
    pub(crate) unique: u64,
    #[serde(flatten)]
    pub(crate) changes: SchemaChanges,
}

#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) file: SchemaFile,
    pub(crate) folder: String,
}

pub(crate) fn folder(table: &TableName) -> String {
    // Letter case does not distinguish tables.
    format!("{TABLES}/{}", names::folder(&table.as_str().to_ascii_lowercase()))
}

pub(crate) fn no_table(table: &TableName) -> Error {
    Error::not_found(format!("there is no table `{table}`: create it first"))
}

impl Table {
    /// The table in `folder`, whatever the case of its name.
    pub(crate) fn load(base: &Base, folder: String) -> Result<Option<Self>> {
        let path = format!("{folder}/{SCHEMA}");
        let Some(bytes) = base.read(&path)? else { return Ok(None) };
        let file: SchemaFile = serde_json::from_slice(&bytes).map_err(|e| base.corrupt(&path, format_args!("no schema: {e}")))?;
        Ok(Some(Self { file, folder }))
    }

    pub(crate) fn schema(&self) -> &TableSchema {
        &self.file.schema
    }

    /// The file of a record.
    pub(crate) fn path(&self, key: &Key) -> String {
        format!("{}/{}.json", self.folder, names::stem(key))
    }

    pub(crate) fn encode(&self, record: &Record) -> Result<Vec<u8>> {
        let mut text = serde_json::to_vec_pretty(&DocumentRef::new(record, &self.file.changes))?;
        text.push(b'\n');
        Ok(text)
    }

    /// The record in a file: any JSON that has the shape of one.
    pub(crate) fn decode(&self, base: &Base, path: &str, bytes: &[u8]) -> Result<Record> {
        let document: Document =
            serde_json::from_slice(bytes).map_err(|e| base.corrupt(path, format_args!("this is not a record: {e}")))?;
        Ok(document.into_record(&self.file.changes))
    }

    /// The record of `key`, which must be what its file says.
    pub(crate) fn decode_for(&self, base: &Base, key: &Key, path: &str, bytes: &[u8]) -> Result<Record> {
        let record = self.decode(base, path, bytes)?;
        if record.key != *key {
            return Err(base.corrupt(path, format_args!("the file is named after the record `{key}` and holds `{}`", record.key)));
        }
        Ok(record)
    }
}

/// The tables that this process has read, good for one structure of the store.
#[derive(Debug, Default)]
pub(crate) struct Schemas(RwLock<(u64, HashMap<TableName, Arc<Table>>)>);

impl Schemas {
    /// The table, where it is known already.
    pub(crate) fn known(&self, structure: u64, name: &TableName) -> Option<Arc<Table>> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        (known.0 == structure).then(|| known.1.get(name).cloned()).flatten()
    }

    pub(crate) fn get(&self, base: &Base, structure: u64, name: &TableName) -> Result<Arc<Table>> {
        if let Some(table) = self.known(structure, name) {
            return Ok(table);
        }
        let table = Table::load(base, folder(name))?.filter(|table| table.file.schema.name == *name);
        let table = Arc::new(table.ok_or_else(|| no_table(name))?);
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if known.0 != structure {
            *known = (structure, HashMap::new());
        }
        known.1.insert(name.clone(), Arc::clone(&table));
        Ok(table)
    }
}
