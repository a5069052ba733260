//! Kept versions: one file each, numbered in the order of writing.

use storage_core::{Error, History, Key, Record, Result};

use super::table::Table;
use crate::base::Base;
use crate::file;
use crate::group::Stage;
use crate::names;

fn folder(table: &Table, key: &Key) -> String {
    format!("{}/_history/{}", table.folder, names::stem(key))
}

fn path(folder: &str, number: u64) -> String {
    format!("{folder}/{number:012}.json")
}

/// The numbers of the versions in a folder, oldest first.
pub(crate) fn numbers(base: &Base, folder: &str) -> Result<Vec<u64>> {
    let names = file::names(&base.path(folder))?;
    let mut numbers: Vec<u64> = names.iter().filter_map(|name| name.strip_suffix(".json")?.parse().ok()).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// Keeps a version that is being written, and drops what is too old.
pub(super) fn keep(stage: &mut Stage<'_, '_>, table: &Table, record: &Record, text: Vec<u8>) -> Result<()> {
    let keep = match table.schema().history {
        History::None => return Ok(()),
        History::Keep(n) => usize::try_from(n).unwrap_or(usize::MAX),
        History::KeepAll => usize::MAX,
    };
    let folder = folder(table, &record.key);
    let numbers = stage.versions(&folder)?;
    let number = numbers.last().map_or(1, |last| last + 1);
    numbers.push(number);
    let old: Vec<u64> = numbers.drain(..numbers.len().saturating_sub(keep)).collect();
    stage.write(path(&folder, number), text);
    old.into_iter().for_each(|number| stage.remove(path(&folder, number)));
    Ok(())
}

/// The kept versions of a record, newest first.
pub(super) fn read(base: &Base, table: &Table, key: &Key) -> Result<Vec<Record>> {
    if table.schema().history == History::None {
        return Err(Error::unsupported(format!(
            "table `{}` keeps no history: create it with `history`, or alter it",
            table.schema().name
        )));
    }
    let folder = folder(table, key);
    let mut versions = Vec::new();
    for number in numbers(base, &folder)?.into_iter().rev() {
        let path = path(&folder, number);
        if let Some(bytes) = base.read(&path)? {
            versions.push(table.decode_for(base, key, &path, &bytes)?);
        }
    }
    Ok(versions)
}
