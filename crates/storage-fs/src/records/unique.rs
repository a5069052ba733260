//! Who has a unique value: one small file a value, written in the same batch as the record.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use storage_core::{ColumnName, Error, Key, Record, Result, TableSchema};

use super::table::Table;
use crate::base::Base;
use crate::group::Stage;
use crate::names;

/// What the file of a value holds.
#[derive(Debug, Serialize, Deserialize)]
struct Holder {
    key: Key,
    /// For a person who looks.
    values: Vec<Value>,
}

fn values(schema: &TableSchema, columns: &[ColumnName], record: &Record) -> Option<Vec<Value>> {
    columns.iter().map(|column| record.value(schema, column.as_str())).collect()
}

fn path(folder: &str, generation: u64, columns: &[ColumnName], values: &[Value]) -> String {
    let columns = columns.iter().map(|c| names::folder(c.as_str())).collect::<Vec<_>>().join(",");
    let columns = if columns.len() > 200 { names::hash(columns.as_bytes()) } else { columns };
    let values = serde_json::to_vec(values).unwrap_or_default();
    format!("{folder}/_unique/{generation}/{columns}/{}.json", names::hash(&values))
}

/// The files of a record's unique values: path, content, columns.
pub(super) fn entries<'t>(
    folder: &str,
    generation: u64,
    schema: &'t TableSchema,
    record: &Record,
) -> Result<Vec<(String, Bytes, &'t [ColumnName])>> {
    let mut entries = Vec::new();
    for columns in schema.unique_sets() {
        let Some(values) = values(schema, columns, record) else { continue };
        let path = path(folder, generation, columns, &values);
        let holder = Holder { key: record.key.clone(), values };
        entries.push((path, Bytes::from(serde_json::to_vec(&holder)?), columns));
    }
    Ok(entries)
}

pub(super) fn taken(schema: &TableSchema, columns: &[ColumnName], holder: &Key) -> Error {
    let columns = columns.iter().map(|c| format!("`{c}`")).collect::<Vec<_>>().join(", ");
    Error::already_exists(format!(
        "record `{holder}` of table `{}` has the same value in {columns}, which is unique",
        schema.name
    ))
}

fn holder(base: &Base, path: &str, bytes: &[u8]) -> Result<Holder> {
    serde_json::from_slice(bytes).map_err(|e| base.corrupt(path, format_args!("this tells nobody's unique value: {e}")))
}

/// Moves the unique values of a record from what it was to what it will be.
pub(super) fn update(stage: &mut Stage<'_, '_>, table: &Table, before: Option<&Record>, after: Option<&Record>) -> Result<()> {
    let schema = table.schema();
    if schema.unique_sets().next().is_none() {
        return Ok(());
    }
    let of = |record: Option<&Record>| {
        record.map_or(Ok(Vec::new()), |record| entries(&table.folder, table.file.unique, schema, record))
    };
    let (old, new) = (of(before)?, of(after)?);
    for (path, content, columns) in &new {
        if old.iter().any(|(old, ..)| old == path) {
            continue;
        }
        if let (Some(found), Some(record)) = (stage.read(path)?, after) {
            let holder = holder(stage.group.base, path, &found)?;
            if holder.key != record.key && has(stage, table, &holder.key, columns, path)? {
                return Err(taken(schema, columns, &holder.key));
            }
        }
        stage.write(path.clone(), content.clone());
    }
    for (path, ..) in old {
        if new.iter().any(|(new, ..)| *new == path) {
            continue;
        }
        // A value that a record took over from an expired one is no longer this one's to give up.
        let mine = match (stage.read(&path)?, before) {
            (Some(found), Some(before)) => holder(stage.group.base, &path, &found)?.key == before.key,
            _ => false,
        };
        if mine {
            stage.remove(path);
        }
    }
    Ok(())
}

/// True where the record of `key` has not expired and has the value that its file at `path` tells of.
fn has(stage: &Stage<'_, '_>, table: &Table, key: &Key, columns: &[ColumnName], path: &str) -> Result<bool> {
    let file = table.path(key);
    let Some(bytes) = stage.read(&file)? else { return Ok(false) };
    let record = table.decode_for(stage.group.base, key, &file, &bytes)?;
    let has = values(table.schema(), columns, &record)
        .is_some_and(|values| self::path(&table.folder, table.file.unique, columns, &values) == path);
    Ok(has && !record.is_expired(stage.group.now))
}
