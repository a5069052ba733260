//! Tables as they are known here, and the keys of what belongs to them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use redis::{Value, cmd};
use storage_core::{ColumnName, ColumnType, Error, Fields, History, Key, Record, Result, TableName, TableSchema};

use super::encode;
use super::pack::Packed;
use crate::client::Client;
use crate::error::strange;
use crate::layout::Layout;
use crate::message::bytes;

/// More tables than this are not remembered.
const MAX_KNOWN: usize = 1_000;

/// A sorted set that leads to records by the values of columns.
#[derive(Debug)]
pub(super) struct Path {
    pub(super) key: String,
    pub(super) columns: Vec<(ColumnName, ColumnType)>,
}

/// One state of a table.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) schema: TableSchema,
    /// The schema as it is written down.
    pub(super) text: String,
    pub(super) id: String,
    /// What tells this state of the table from others.
    pub(super) stamp: String,
    pub(super) meta: String,
    pub(super) dropped: String,
    pub(super) data: String,
    pub(super) indexes: Vec<Path>,
    unique: Vec<Path>,
    /// All columns of indexes and unique sets.
    indexed: Vec<(ColumnName, ColumnType)>,
}

pub(super) fn no_table(name: &TableName) -> Error {
    Error::not_found(format!("there is no table `{name}`: create it first"))
}

/// Letter case does not distinguish tables.
pub(super) fn lower(name: &TableName) -> String {
    name.as_str().to_ascii_lowercase()
}

fn read_schema(text: &[u8], key: &str) -> Result<TableSchema> {
    serde_json::from_slice(text)
        .map_err(|e| Error::corrupt(format!("the schema in `{key}` was not written by this toolkit")).with_source(e))
}

impl Table {
    pub(super) fn new(layout: &Layout, schema: TableSchema, text: String, id: String, stamp: String) -> Result<Self> {
        let lower = lower(&schema.name);
        let data = layout.data(&lower, &id);
        let path = |kind: &str, name: &str, columns: &[ColumnName]| {
            let typed = |column: &ColumnName| {
                let kind = schema.resolve(column)?.column_type().unwrap_or(ColumnType::Json);
                Ok((column.clone(), kind))
            };
            Ok::<_, Error>(Path {
                key: format!("{data}{kind}:{name}"),
                columns: columns.iter().map(typed).collect::<Result<_>>()?,
            })
        };
        let (mut indexes, mut unique) = (Vec::new(), Vec::new());
        for column in schema.columns.iter().filter(|column| column.unique) {
            let (name, columns) = (format!(".{}", column.name), std::slice::from_ref(&column.name));
            indexes.push(path("index", &name, columns)?);
            unique.push(path("unique", &name, columns)?);
        }
        for index in &schema.indexes {
            indexes.push(path("index", index.name.as_str(), &index.columns)?);
            if index.unique {
                unique.push(path("unique", index.name.as_str(), &index.columns)?);
            }
        }
        let mut indexed: Vec<_> = indexes.iter().flat_map(|path| path.columns.iter().cloned()).collect();
        indexed.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        indexed.dedup();
        let (meta, dropped) = (layout.table(&lower), layout.dropped(&lower));
        Ok(Self { schema, text, id, stamp, meta, dropped, data, indexes, unique, indexed })
    }

    /// The table of that name in lower case, as it is now. `None`: there is none.
    pub(super) async fn read(client: &Client, layout: &Layout, lower: &str) -> Result<Option<Self>> {
        let key = layout.table(lower);
        let mut get = cmd("HMGET");
        get.arg(&key).arg("schema").arg("id").arg("stamp");
        let Value::Array(values) = client.command(&get, &key).await? else { return Err(strange("no list")) };
        let [schema, id, stamp] = <[Value; 3]>::try_from(values).map_err(|_| strange("another number of values"))?;
        if schema == Value::Nil {
            return Ok(None);
        }
        let part = |value: Value, what: &str| match value {
            Value::BulkString(bytes) => String::from_utf8(bytes).map_err(|_| damaged(&key, what)),
            _ => Err(damaged(&key, what)),
        };
        let text = part(schema, "schema")?;
        let schema = read_schema(text.as_bytes(), &key)?;
        Self::new(layout, schema, text, part(id, "id")?, part(stamp, "stamp")?).map(Some)
    }

    pub(super) fn keys(&self) -> String {
        format!("{}keys", self.data)
    }

    pub(super) fn expiring(&self) -> String {
        format!("{}expiring", self.data)
    }

    pub(super) fn kept(&self) -> String {
        format!("{}kept", self.data)
    }

    /// What the keys of rows begin with.
    pub(super) fn rows(&self) -> String {
        format!("{}row:", self.data)
    }

    pub(super) fn row(&self, key: &Key) -> String {
        self.rows() + &encode::key(key)
    }

    pub(super) fn history(&self, key: &Key) -> String {
        format!("{}history:{}", self.data, encode::key(key))
    }

    /// The keys of the table as scripts take them.
    pub(super) fn script_keys(&self) -> impl Iterator<Item = String> {
        let own = [self.meta.clone(), self.dropped.clone(), self.keys(), self.expiring(), self.kept()];
        own.into_iter().chain(self.path_keys())
    }

    /// The keys of its indexes and unique values.
    pub(super) fn path_keys(&self) -> impl Iterator<Item = String> {
        self.indexes.iter().chain(&self.unique).map(|path| path.key.clone())
    }

    /// The table as scripts are told of it.
    pub(super) fn packed(&self) -> Packed {
        let keep = match self.schema.history {
            History::None => "0".to_owned(),
            History::Keep(n) => n.to_string(),
            History::KeepAll => "-1".to_owned(),
        };
        let columns = |paths: &[Path]| {
            let mut list = Packed::default();
            for path in paths {
                list.list(Packed::texts(path.columns.iter().map(|(column, _)| column.as_str())));
            }
            list
        };
        let mut packed = Packed::default();
        packed.text(&self.stamp).text(keep).text(&self.data).list(columns(&self.indexes)).list(columns(&self.unique));
        packed
    }

    /// What stands in the indexes for a whole record: column, value, and so on, without those that are missing.
    pub(super) fn index_of(&self, record: &Record) -> Packed {
        let mut packed = Packed::default();
        for (column, kind) in &self.indexed {
            if let Some(value) = record.value(&self.schema, column.as_str()) {
                packed.text(column.as_str()).text(encode::value(*kind, Some(&value)));
            }
        }
        packed
    }

    /// The same for changed fields: nothing for one that is removed.
    pub(super) fn index_of_changes(&self, fields: &Fields) -> Packed {
        let mut packed = Packed::default();
        for (column, kind) in &self.indexed {
            if let Some(value) = fields.get(column.as_str()) {
                let entry = if value.is_null() { Vec::new() } else { encode::value(*kind, Some(value)) };
                packed.text(column.as_str()).text(entry);
            }
        }
        packed
    }

    /// What the columns of a unique set are called, in words.
    pub(super) fn unique_columns(&self, number: usize) -> String {
        let columns = self.unique.get(number).map(|path| path.columns.as_slice()).unwrap_or_default();
        columns.iter().map(|(column, _)| format!("`{column}`")).collect::<Vec<_>>().join(", ")
    }
}

fn damaged(key: &str, what: &str) -> Error {
    Error::corrupt(format!("`{what}` of `{key}` was not written by this toolkit"))
}

/// The tables as they were last seen. Scripts hold what they are told of a table against what is there.
#[derive(Debug, Default)]
pub(super) struct Tables(Mutex<HashMap<TableName, Arc<Table>>>);

impl Tables {
    /// The table as it was last seen, or as it is.
    pub(super) async fn known(&self, client: &Client, layout: &Layout, name: &TableName) -> Result<Arc<Table>> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned();
        match known {
            Some(table) => Ok(table),
            None => self.fresh(client, layout, name).await,
        }
    }

    /// The table as it is now.
    pub(super) async fn fresh(&self, client: &Client, layout: &Layout, name: &TableName) -> Result<Arc<Table>> {
        self.forget(name);
        let found = Table::read(client, layout, &lower(name)).await?;
        let table = Arc::new(found.filter(|table| table.schema.name == *name).ok_or_else(|| no_table(name))?);
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MAX_KNOWN {
            known.clear();
        }
        known.insert(name.clone(), Arc::clone(&table));
        Ok(table)
    }

    pub(super) fn forget(&self, name: &TableName) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }
}

/// The number that a script's answer begins with, and the rest.
pub(super) fn status(answer: Value) -> Result<(i64, std::vec::IntoIter<Value>)> {
    let Value::Array(values) = answer else { return Err(strange("no list")) };
    let mut values = values.into_iter();
    match values.next() {
        Some(Value::Int(status)) => Ok((status, values)),
        _ => Err(strange("no status")),
    }
}

pub(super) fn list(value: Option<Value>) -> Result<Vec<Value>> {
    match value {
        Some(Value::Array(values)) => Ok(values),
        _ => Err(strange("no list")),
    }
}

pub(super) fn next_bytes(values: &mut impl Iterator<Item = Value>) -> Result<Vec<u8>> {
    bytes(values.next().ok_or_else(|| strange("too few values"))?)
}
