//! Creating, changing and dropping tables. Each takes effect by one rename.

use std::collections::HashSet;
use std::fs;

use storage_core::document::SchemaChanges;
use storage_core::{Error, Result, SchemaChange, TableName, TableSchema};

use super::table::{SCHEMA, SchemaFile, TABLES, Table, folder, no_table};
use super::unique;
use crate::base::{Base, SCRATCH, TRASH};
use crate::crash::step;
use crate::file::{self, at, create_folders};

/// True where the very table is there; another in its place is an error.
pub(super) fn is_there(base: &Base, schema: &TableSchema) -> Result<bool> {
    let Some(there) = Table::load(base, folder(&schema.name))? else { return Ok(false) };
    let there = there.schema();
    if there.name != schema.name {
        return Err(Error::already_exists(format!(
            "there is a table `{}`, and letter case does not distinguish tables",
            there.name
        )));
    }
    match there.difference(schema) {
        None => Ok(true),
        Some(difference) => Err(Error::already_exists(format!("it is there with another schema: {difference}"))),
    }
}

pub(super) fn create(base: &Base, schema: &TableSchema) -> Result<bool> {
    if is_there(base, schema)? {
        return Ok(false);
    }
    let (made, home) = (base.path(SCRATCH).join("table"), base.path(&folder(&schema.name)));
    file::remove_tree(&made)?;
    create_folders(&made, false)?;
    let schema = SchemaFile { schema: schema.clone(), unique: 0, changes: SchemaChanges::default() };
    file::write_new(&made.join(SCHEMA), &text(&schema)?, base.durable)?;
    create_folders(&base.path(TABLES), base.durable)?;
    settle(base, &made)?;
    step();
    fs::rename(&made, &home).map_err(at(&home))?;
    settle(base, &base.path(TABLES))?;
    Ok(true)
}

fn text(schema: &SchemaFile) -> Result<Vec<u8>> {
    let mut text = serde_json::to_vec_pretty(schema)?;
    text.push(b'\n');
    Ok(text)
}

fn settle(base: &Base, folder: &std::path::Path) -> Result<()> {
    if base.durable { file::sync_folder(folder) } else { Ok(()) }
}

pub(super) fn drop(base: &Base, table: &TableName) -> Result<bool> {
    let there = Table::load(base, folder(table))?.filter(|there| there.schema().name == *table);
    let Some(there) = there else { return Ok(false) };
    discard(base, &there.folder)?;
    Ok(true)
}

/// Takes a folder away with one rename; what was in it is removed by and by.
pub(crate) fn discard(base: &Base, folder: &str) -> Result<()> {
    let path = base.path(folder);
    let trash = base.path(TRASH);
    create_folders(&trash, false)?;
    fs::rename(&path, trash.join(uuid::Uuid::new_v4().to_string())).map_err(at(&path))?;
    settle(base, crate::base::parent(&path))
}

pub(super) fn tables(base: &Base) -> Result<Vec<TableSchema>> {
    let mut tables = Vec::new();
    for name in file::names(&base.path(TABLES))? {
        tables.extend(Table::load(base, format!("{TABLES}/{name}"))?.map(|table| table.file.schema));
    }
    tables.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    Ok(tables)
}

/// Changes the schema; records are changed as they are read. What they can't be changed into is found out first.
pub(super) fn alter(base: &Base, name: &TableName, change: &SchemaChange) -> Result<()> {
    let table = Table::load(base, folder(name))?.filter(|table| table.schema().name == *name).ok_or_else(|| no_table(name))?;
    let after = change.apply(table.schema())?;
    let sets = |schema: &TableSchema| schema.unique_sets().map(<[_]>::to_vec).collect::<HashSet<_>>();
    let unique_changes = sets(table.schema()) != sets(&after);
    let reads = unique_changes || change.concerns_records(table.schema());
    let mut file = table.file.clone();
    if unique_changes {
        file.unique += 1;
        file::remove_tree(&base.path(&format!("{}/_unique/{}", table.folder, file.unique)))?;
    }
    if reads {
        check_records(base, &table, change, &after, unique_changes.then_some(file.unique))?;
    }
    step();
    file.changes.add(change.clone());
    file.schema = after;
    let path = base.path(&format!("{}/{SCHEMA}", table.folder));
    file::replace(&base.path(SCRATCH).join("schema"), &path, &text(&file)?, base.durable)?;
    step();
    if unique_changes {
        file::remove_tree(&base.path(&format!("{}/_unique/{}", table.folder, table.file.unique)))?;
    }
    Ok(())
}

/// Holds every record against the schema to be, and writes the new index of unique values where there is to be one.
fn check_records(base: &Base, table: &Table, change: &SchemaChange, after: &TableSchema, unique: Option<u64>) -> Result<()> {
    let now = base.clock.now();
    for name in file::names(&base.path(&table.folder))? {
        if !name.ends_with(".json") || name.starts_with(['_', '.']) {
            continue;
        }
        let path = format!("{}/{name}", table.folder);
        let Some(bytes) = base.read(&path)? else { continue };
        let mut record = table.decode(base, &path, &bytes)?;
        if record.is_expired(now) {
            continue;
        }
        change
            .alter_fields(after, &mut record.fields)
            .map_err(|e| Error::invalid(format!("record `{}`: {}", record.key, e.message())))?;
        let Some(generation) = unique else { continue };
        for (path, content, columns) in unique::entries(&table.folder, generation, after, &record)? {
            let path = base.path(&path);
            if path.exists() {
                return Err(unique::taken(after, columns, &record.key));
            }
            create_folders(crate::base::parent(&path), base.durable)?;
            file::write_new(&path, &content, false)?;
        }
    }
    if unique.is_some() && base.durable {
        base.sync_folder_tree(&format!("{}/_unique", table.folder))?;
    }
    Ok(())
}
