//! Creating, changing and dropping tables. Each takes effect by one conditional write of the table's object.

use futures::stream::TryStreamExt as _;
use serde_json::json;
use storage_core::document::SchemaChanges;
use storage_core::{Clock, Error, Filter, Result, SchemaChange, TableName, TableSchema};
use uuid::Uuid;

use super::objects::Objects;
use super::read;
use super::table::{DATA, TABLES, Table, TableObject, no_table, path};

/// Says which folders of dropped tables are still to be emptied.
const DROPPED: &str = "dropped";
/// How often a change of a table begins anew because another came first.
const MAX_TRIES: u32 = 20;
/// How many changes one table may go through: every record is read through those that came after it.
const MAX_CHANGES: usize = 1_000;

/// True where the very table is there; another in its place is an error.
async fn is_there(objects: &Objects, schema: &TableSchema) -> Result<bool> {
    let Some(there) = Table::read(objects, &path(&schema.name)).await? else { return Ok(false) };
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

fn text(object: &TableObject) -> Result<Vec<u8>> {
    let mut text = serde_json::to_vec_pretty(object)?;
    text.push(b'\n');
    Ok(text)
}

pub(super) async fn create(objects: &Objects, schema: &TableSchema) -> Result<bool> {
    for _ in 0..MAX_TRIES {
        if is_there(objects, schema).await? {
            return Ok(false);
        }
        tidy(objects).await;
        let name = schema.name.as_str().to_ascii_lowercase();
        let folder = format!("{name}-{:08x}", Uuid::new_v4().as_fields().0);
        let object = TableObject { schema: schema.clone(), folder, expiring: false, changes: SchemaChanges::default() };
        if objects.put(&path(&schema.name), text(&object)?, None).await? {
            return Ok(true);
        }
    }
    Err(busy(&schema.name))
}

fn busy(name: &TableName) -> Error {
    Error::conflict(format!("others create and change table `{name}` all the time: try again later"))
}

async fn there(objects: &Objects, name: &TableName) -> Result<Option<Table>> {
    Ok(Table::read(objects, &path(name)).await?.filter(|table| table.schema().name == *name))
}

/// Changes the schema; records are changed as they are read. What they can't be changed into is found out first.
pub(super) async fn alter(objects: &Objects, clock: &Clock, name: &TableName, change: &SchemaChange) -> Result<()> {
    for _ in 0..MAX_TRIES {
        let table = there(objects, name).await?.ok_or_else(|| no_table(name))?;
        let after = change.apply(table.schema())?;
        super::check_offers(&after)?;
        if table.object.changes.count() >= MAX_CHANGES {
            return Err(Error::unsupported(format!(
                "table `{name}` was changed {MAX_CHANGES} times: copy it to a new one, where its records are as they are now"
            )));
        }
        if change.concerns_records(table.schema()) {
            read::each(objects, &table, clock, &Filter::All, |mut record| {
                change
                    .alter_fields(&after, &mut record.fields)
                    .map_err(|e| Error::new(e.kind(), format!("record `{}`: {}", record.key, e.message())))
            })
            .await?;
        }
        let mut object = table.object.clone();
        object.changes.add(change.clone());
        object.schema = after;
        if objects.put(&path(name), text(&object)?, Some(&table.etag)).await? {
            return Ok(());
        }
    }
    Err(busy(name))
}

/// Says of a table that records in it may expire, before the first one does.
pub(super) async fn expect_expiry(objects: &Objects, name: &TableName) -> Result<()> {
    for _ in 0..MAX_TRIES {
        let table = there(objects, name).await?.ok_or_else(|| no_table(name))?;
        if table.object.expiring {
            return Ok(());
        }
        let object = TableObject { expiring: true, ..table.object };
        if objects.put(&path(name), text(&object)?, Some(&table.etag)).await? {
            return Ok(());
        }
    }
    Err(busy(name))
}

/// The table is gone at once; its records by and by, the rest of them with the next table that is created or dropped.
pub(super) async fn drop(objects: &Objects, name: &TableName) -> Result<bool> {
    for _ in 0..MAX_TRIES {
        let Some(table) = there(objects, name).await? else { return Ok(false) };
        let note = json!({"table": name, "folder": table.object.folder}).to_string();
        // It may be there already, of one who got no further.
        objects.put(&note_of(&table.object.folder), note.into_bytes(), None).await?;
        if objects.delete(&path(name), &table.etag).await? {
            tidy(objects).await;
            return Ok(true);
        }
    }
    Err(busy(name))
}

fn note_of(folder: &str) -> String {
    format!("{DROPPED}/{folder}.json")
}

/// What is left of dropped tables is in nobody's way: that it can't be removed now is no reason to fail.
async fn tidy(objects: &Objects) {
    if let Err(error) = finish_drops(objects).await {
        tracing::warn!(%error, "the records of a dropped table are not all removed: creating or dropping a table tries again");
    }
}

/// Empties the folders of tables that were dropped.
async fn finish_drops(objects: &Objects) -> Result<()> {
    let mut notes = objects.list(DROPPED, None)?;
    while let Some(note) = notes.try_next().await? {
        let Some((folder, (name, _))) = note.strip_suffix(".json").and_then(|folder| Some((folder, folder.rsplit_once('-')?)))
        else {
            continue;
        };
        // A drop that ended before it took effect left a note, and the table.
        let table = Table::read(objects, &format!("{TABLES}/{name}.json")).await?;
        if table.is_none_or(|table| table.object.folder != folder) {
            objects.purge(&format!("{DATA}/{folder}")).await?;
        }
        if let Some(found) = objects.get(&note_of(folder)).await? {
            objects.delete(&note_of(folder), &found.etag).await?;
        }
    }
    Ok(())
}

pub(super) async fn tables(objects: &Objects) -> Result<Vec<TableSchema>> {
    let names: Vec<String> = objects.list(TABLES, None)?.try_collect().await?;
    let mut tables = Vec::with_capacity(names.len());
    for name in names {
        tables.extend(Table::read(objects, &format!("{TABLES}/{name}")).await?.map(|table| table.object.schema));
    }
    tables.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    Ok(tables)
}
