//! What a batch does.

use std::sync::Arc;

use storage_core::{Applied, Batch, Key, Record, Result, TableName, Version, Write};

use super::table::Table;
use super::{history, unique};
use crate::group::{Group, Stage};
use crate::queue;
use crate::sweep;

/// Does all writes in order, or none.
pub(super) fn batch(group: &mut Group<'_>, batch: &Batch) -> Result<Vec<Version>> {
    let mut stage = Stage::new(group);
    let mut versions = Vec::with_capacity(batch.len());
    for (index, write) in batch.writes.iter().enumerate() {
        versions.push(step(&mut stage, write).map_err(|error| error.with_failed_write(index))?);
    }
    if versions.is_empty() {
        return Ok(versions);
    }
    stage.accept()?;
    group.must_be_durable();
    Ok(versions)
}

fn step(stage: &mut Stage<'_, '_>, write: &Write) -> Result<Version> {
    if let Write::Enqueue { queue, message } = write {
        queue::enqueue(stage, queue, message)?;
        return Ok(Version::NONE);
    }
    let Some((name, key)) = write.target() else { return Ok(Version::NONE) };
    let table = table(stage, name)?;
    let (path, before) = read(stage, &table, key)?;
    let applied = write.apply(before.as_ref(), stage.group.now)?;
    match &applied {
        Applied::Put(record) => put(stage, &table, path, before.as_ref(), record)?,
        Applied::Deleted(_) => {
            unique::update(stage, &table, before.as_ref(), None)?;
            stage.remove(path);
        }
        Applied::Unchanged(_) => {}
    }
    Ok(applied.version())
}

fn table(stage: &Stage<'_, '_>, name: &TableName) -> Result<Arc<Table>> {
    let base = stage.group.base;
    base.schemas.get(base, stage.group.structure, name)
}

fn read(stage: &Stage<'_, '_>, table: &Table, key: &Key) -> Result<(String, Option<Record>)> {
    let path = table.path(key);
    let Some(bytes) = stage.read(&path)? else { return Ok((path, None)) };
    let record = table.decode_for(stage.group.base, key, &path, &bytes)?;
    Ok((path, Some(record)))
}

fn put(stage: &mut Stage<'_, '_>, table: &Table, path: String, before: Option<&Record>, record: &Record) -> Result<()> {
    unique::update(stage, table, before, Some(record))?;
    let text = table.encode(record)?;
    history::keep(stage, table, record, text.clone())?;
    if let Some(at) = record.expires_at {
        sweep::remind(stage, at, &path)?;
    }
    stage.write(path, text);
    Ok(())
}

/// Removes the record in the file at `path`, if it has expired.
pub(crate) fn remove_expired(stage: &mut Stage<'_, '_>, path: &str) -> Result<()> {
    let (base, now) = (stage.group.base, stage.group.now);
    let Some((folder, _)) = path.rsplit_once('/') else { return Ok(()) };
    let (Some(bytes), Some(table)) = (stage.read(path)?, Table::load(base, folder.to_owned())?) else { return Ok(()) };
    let record = table.decode(base, path, &bytes)?;
    if record.is_expired(now) {
        unique::update(stage, &table, Some(&record), None)?;
        stage.remove(path.to_owned());
    }
    Ok(())
}
