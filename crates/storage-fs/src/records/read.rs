//! Reading records.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use storage_core::{Error, Filter, Key, Page, PageBuilder, Query, Record, Result, TableName};

use super::table::Table;
use crate::base::Base;
use crate::cached::Found;
use crate::file;
use crate::names::{self, Stem};

/// More keys than this are read on a thread that may block.
const FEW: usize = 16;
/// Larger listings are not kept.
const MAX_LISTED: usize = 500_000;
/// More tables' listings than this are not kept.
const MAX_LISTINGS: usize = 64;
/// A folder that changed less than this before it was listed may change again within the same tick of the file system's clock.
const TICK: Duration = Duration::from_millis(50);

fn living(base: &Base, record: Record) -> Option<Record> {
    let expired = record.expires_at.is_some() && record.is_expired(base.clock.now());
    (!expired).then_some(record)
}

/// The record that is stored under `key`.
pub(super) fn get(base: &Base, table: &Table, key: &Key) -> Result<Option<Record>> {
    let path = table.path(key);
    let Some(bytes) = base.read(&path)? else { return Ok(None) };
    Ok(living(base, table.decode_for(base, key, &path, &bytes)?))
}

/// The records, where they can be had without waiting for a disk or a lock: all of one moment, since nothing has changed between the first and the
/// last. One alone is one file, which changes by one rename; the state is read before it, so that whoever saw one write of a batch sees the
/// others too.
pub(super) fn get_cached(base: &Base, table: &TableName, keys: &[Key]) -> Result<Option<Vec<Option<Record>>>> {
    if keys.len() > FEW {
        return Ok(None);
    }
    let state = base.state.read()?;
    let Some(table) = base.schemas.known(state.structure, table).filter(|_| state.is_settled()) else { return Ok(None) };
    let mut records = Vec::with_capacity(keys.len());
    for key in keys {
        let path = table.path(key);
        records.push(match base.read_cached(&path) {
            Found::There(bytes) => living(base, table.decode_for(base, key, &path, &bytes)?),
            Found::Missing => None,
            Found::Unknown => return Ok(None),
        });
    }
    let still = keys.len() < 2 || base.state.read()? == state;
    Ok(still.then_some(records))
}

/// The keys of a table in order, each with its file's name without the extension.
type Listing = Arc<Vec<(Key, String)>>;

/// Listings of tables' folders, each good until its folder changes.
#[derive(Debug, Default)]
pub(crate) struct Listings(Mutex<HashMap<String, (SystemTime, Listing)>>);

impl Listings {
    fn get(&self, base: &Base, table: &Table) -> Result<Listing> {
        let path = base.path(&table.folder);
        let changed = changed_at(&path)?;
        let known = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, listing)) = known().get(&table.folder)
            && Some(*at) == changed
        {
            return Ok(Arc::clone(listing));
        }
        let listing = Arc::new(list(base, table)?);
        let settled = changed.filter(|at| at.elapsed().is_ok_and(|age| age > TICK));
        let mut known = known();
        known.remove(&table.folder);
        if let Some(at) = settled.filter(|_| listing.len() <= MAX_LISTED) {
            if known.len() >= MAX_LISTINGS {
                known.clear();
            }
            known.insert(table.folder.clone(), (at, Arc::clone(&listing)));
        }
        Ok(listing)
    }
}

fn changed_at(folder: &Path) -> Result<Option<SystemTime>> {
    let found = file::if_there(std::fs::metadata(folder)).map_err(file::at(folder))?;
    Ok(found.and_then(|found| found.modified().ok()))
}

fn list(base: &Base, table: &Table) -> Result<Vec<(Key, String)>> {
    let mut keys = Vec::new();
    for name in file::names(&base.path(&table.folder))? {
        let Some(stem) = name.strip_suffix(".json").filter(|stem| !stem.starts_with(['_', '.'])) else { continue };
        let key = match names::decode_stem(table.schema(), stem) {
            Stem::Key(key) => key,
            Stem::Hashed => {
                let path = format!("{}/{name}", table.folder);
                let Some(bytes) = base.read(&path)? else { continue };
                let key = table.decode(base, &path, &bytes)?.key;
                if names::stem(&key) != stem {
                    return Err(base.corrupt(&path, format_args!("the file is not named after the record `{key}` that it holds")));
                }
                key
            }
            Stem::Foreign => {
                let path = format!("{}/{name}", table.folder);
                return Err(base.corrupt(&path, "the file's name is not that of a key of this table"));
            }
        };
        keys.push((key, stem.to_owned()));
    }
    keys.sort_unstable();
    Ok(keys)
}

/// Reads the records of a table by key, those alone that `wanted` can't rule out by their key.
struct Reader<'a> {
    base: &'a Base,
    table: &'a Table,
    listing: Listing,
    /// The part of the filter that speaks of the key alone, and the rest.
    by_key: Filter,
    by_fields: Filter,
}

impl<'a> Reader<'a> {
    fn new(base: &'a Base, table: &'a Table, filter: &Filter) -> Result<Self> {
        let (by_key, by_fields) = filter.split_key(table.schema());
        Ok(Self { base, table, listing: base.listings.get(base, table)?, by_key, by_fields })
    }

    fn start(&self, after: Option<&Key>) -> usize {
        after.map_or(0, |after| self.listing.partition_point(|(key, _)| key <= after))
    }

    /// The record at that place of the listing, where it is wanted.
    fn read(&self, at: usize) -> Result<Option<Record>> {
        let (key, stem) = &self.listing[at];
        if !self.by_key.matches_key(self.table.schema(), key) {
            return Ok(None);
        }
        let path = format!("{}/{stem}.json", self.table.folder);
        // Gone meanwhile: by hand, since nobody else writes now.
        let Some(bytes) = self.base.read(&path)? else { return Ok(None) };
        let record = living(self.base, self.table.decode_for(self.base, key, &path, &bytes)?);
        Ok(record.filter(|record| self.by_fields.matches(self.table.schema(), record)))
    }
}

pub(super) fn scan(base: &Base, table: &Table, query: &Query) -> Result<Page> {
    let reader = Reader::new(base, table, &query.filter)?;
    let schema = table.schema();
    let limit = usize::try_from(query.limit).map_err(|_| Error::invalid("the limit is too large"))?;
    if query.is_key_order(schema) {
        let cursor = query.cursor(schema)?;
        let mut records = Vec::new();
        for at in reader.start(cursor.as_ref().map(|cursor| &cursor.key))..reader.listing.len() {
            records.extend(reader.read(at)?);
            if records.len() > limit {
                records.truncate(limit);
                let next = records.last().map(|last| query.token_after(schema, last));
                return Ok(Page { records, next });
            }
        }
        return Ok(Page { records, next: None });
    }
    let mut page = PageBuilder::new(query, schema)?;
    for at in 0..reader.listing.len() {
        reader.read(at)?.into_iter().for_each(|record| page.push(record));
    }
    Ok(page.finish())
}

pub(super) fn count(base: &Base, table: &Table, query: &Query) -> Result<u64> {
    let reader = Reader::new(base, table, &query.filter)?;
    (0..reader.listing.len()).try_fold(0, |count, at| Ok(count + u64::from(reader.read(at)?.is_some())))
}
