//! Reading records: by key, and by listing a table's folder.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use chrono::{DateTime, Utc};
use futures::stream::{self, Stream, StreamExt as _, TryStreamExt as _};
use storage_core::{Clock, Filter, Key, Page, PageBuilder, Query, Record, Result, TableName};

use super::names::{self, Stem};
use super::objects::{AT_ONCE, Objects};
use super::range::Range;
use super::table::{Table, Tables};

/// The records with these keys.
pub(super) async fn get(
    objects: &Objects,
    tables: &Tables,
    clock: &Clock,
    name: &TableName,
    keys: &[Key],
) -> Result<Vec<Option<Record>>> {
    let Some(guess) = tables.guess(name) else {
        let table = tables.load(objects, name).await?;
        return get_from(objects, clock, &table, keys).await;
    };
    let (table, found) = futures::join!(tables.load(objects, name), get_from(objects, clock, &guess, keys));
    let table = table?;
    // Changed meanwhile: what was read may be of another table, or before a change of its columns.
    if Arc::ptr_eq(&table, &guess) { found } else { get_from(objects, clock, &table, keys).await }
}

async fn get_from(objects: &Objects, clock: &Clock, table: &Table, keys: &[Key]) -> Result<Vec<Option<Record>>> {
    let read = |key: &Key| {
        let path = table.path(key);
        async move {
            let Some(found) = objects.get(&path).await? else { return Ok(None) };
            let (record, _) = table.decode(objects, &path, &found.bytes)?;
            Ok(Some(record).filter(|record| record.expires_at.is_none() || !record.is_expired(clock.now())))
        }
    };
    // Collected first: the futures would otherwise borrow from the closure that makes them.
    let reads: Vec<_> = keys.iter().map(read).collect();
    stream::iter(reads).buffered(AT_ONCE).try_collect().await
}

/// A look through a table.
struct Search<'a> {
    objects: &'a Objects,
    table: &'a Table,
    now: DateTime<Utc>,
    /// What the filter says of keys, decided before a record is read, and the rest.
    by_key: Filter,
    by_fields: Filter,
    /// How many expired records it has removed; none any more where that does not work, since the caller may not be allowed to write.
    swept: AtomicU64,
    sweeps: AtomicBool,
}

/// A name in the listing that may be of a wanted record, and what it is together with.
struct Candidate {
    path: String,
    group: Option<String>,
    /// False: the key is known and wanted.
    unknown: bool,
}

impl<'a> Search<'a> {
    fn new(objects: &'a Objects, table: &'a Table, clock: &Clock, filter: &Filter) -> Self {
        let (by_key, by_fields) = filter.split_key(table.schema());
        Self { objects, table, now: clock.now(), by_key, by_fields, swept: AtomicU64::new(0), sweeps: AtomicBool::new(true) }
    }

    /// What the listing has of wanted keys, in its order.
    fn candidates(&self, cursor: Option<&Key>) -> Result<impl Stream<Item = Result<Candidate>> + Send + '_> {
        let range = Range::of(self.table.schema(), &self.by_key, cursor);
        let mut folder = self.table.folder();
        // What the listing leaves out of the names.
        let partition = range.partition.clone().map_or_else(String::new, |partition| partition + "/");
        let after = range.after.as_deref().and_then(|after| after.strip_prefix(&*partition));
        let home = folder.clone();
        if let Some(partition) = &range.partition {
            folder = format!("{folder}/{partition}");
        }
        let listed = self.objects.list(&folder, after)?;
        let (last, skip) = (range.last.clone(), range.folder_len());
        let named = listed.map_ok(move |name| format!("{partition}{name}"));
        let within = named.try_take_while(move |name| {
            let within = last.as_ref().is_none_or(|last| name <= last);
            futures::future::ready(Ok(within))
        });
        Ok(within.try_filter_map(move |name| futures::future::ready(self.candidate(&home, &name, skip))))
    }

    fn candidate(&self, home: &str, name: &str, skip: usize) -> Result<Option<Candidate>> {
        let path = format!("{home}/{name}");
        let unknown = match names::decode(self.table.schema(), name) {
            Stem::Key(key) if !self.by_key.matches_key(self.table.schema(), &key) => return Ok(None),
            Stem::Key(_) => false,
            Stem::Cut => true,
            Stem::Foreign => return Err(self.objects.corrupt(&path, "no key of this table has that name")),
        };
        Ok(Some(Candidate { path, group: names::group(name, skip).map(str::to_owned), unknown }))
    }

    /// The record of a candidate, where it is there and wanted.
    async fn read(&self, candidate: Candidate) -> Result<(Option<String>, Option<Record>)> {
        let Candidate { path, group, unknown } = candidate;
        let Some(found) = self.objects.get(&path).await? else { return Ok((group, None)) };
        let (record, _) = self.table.decode(self.objects, &path, &found.bytes)?;
        if record.is_expired(self.now) {
            // It was paid for by reading it; left alone, every query would pay again.
            if self.sweeps.load(Ordering::Relaxed) {
                match self.objects.delete(&path, &found.etag).await {
                    Ok(deleted) => drop(self.swept.fetch_add(deleted.into(), Ordering::Relaxed)),
                    Err(_) => self.sweeps.store(false, Ordering::Relaxed),
                }
            }
            return Ok((group, None));
        }
        let schema = self.table.schema();
        let wanted = (!unknown || self.by_key.matches(schema, &record)) && self.by_fields.matches(schema, &record);
        Ok((group, Some(record).filter(|_| wanted)))
    }
}

pub(super) async fn scan(objects: &Objects, table: &Table, clock: &Clock, query: &Query) -> Result<Page> {
    let schema = table.schema();
    let search = Search::new(objects, table, clock, &query.filter);
    let in_order = query.is_key_order(schema);
    let cursor = query.cursor(schema)?.filter(|_| in_order);
    // Where every candidate is wanted, no more are read than the page holds, and the one behind it.
    let few = usize::try_from(query.limit).unwrap_or(AT_ONCE).saturating_add(1);
    let at_once = if in_order && search.by_fields == Filter::All { few.min(AT_ONCE) } else { AT_ONCE };
    let candidates = search.candidates(cursor.as_ref().map(|cursor| &cursor.key))?;
    let mut found = pin!(candidates.map_ok(|candidate| search.read(candidate)).try_buffered(at_once));
    let mut page = PageBuilder::new(query, schema)?;
    let mut last_group = None;
    while let Some((group, record)) = found.try_next().await? {
        // Those of one group come in no order: all of them are looked at.
        if in_order && page.is_full() && (group.is_none() || group != last_group) {
            break;
        }
        last_group = group;
        record.into_iter().for_each(|record| page.push(record));
        if in_order && page.is_full() && last_group.is_none() {
            break;
        }
    }
    Ok(page.finish())
}

pub(super) async fn count(objects: &Objects, table: &Table, clock: &Clock, filter: &Filter) -> Result<u64> {
    let search = Search::new(objects, table, clock, filter);
    // A name is enough where no field matters and nothing expires.
    let names_do = search.by_fields == Filter::All && !table.object.expiring;
    let count = |candidate: Candidate| {
        let search = &search;
        async move {
            if names_do && !candidate.unknown {
                return Ok(1);
            }
            Ok(u64::from(search.read(candidate).await?.1.is_some()))
        }
    };
    let counted = search.candidates(None)?.map_ok(count).try_buffer_unordered(AT_ONCE);
    counted.try_fold(0, |sum, one| async move { Ok(sum + one) }).await
}

/// Reads what may have expired, which removes what has.
pub(super) async fn sweep(objects: &Objects, table: &Table, clock: &Clock, filter: &Filter) -> Result<u64> {
    if !table.object.expiring {
        return Ok(0);
    }
    let search = Search::new(objects, table, clock, filter);
    let read = search.candidates(None)?.map_ok(|candidate| search.read(candidate)).try_buffer_unordered(AT_ONCE);
    read.try_for_each(|_| async { Ok(()) }).await?;
    Ok(search.swept.into_inner())
}

/// Looks at every record that matches.
pub(super) async fn each(
    objects: &Objects,
    table: &Table,
    clock: &Clock,
    filter: &Filter,
    mut look: impl FnMut(Record) -> Result<()>,
) -> Result<()> {
    let search = Search::new(objects, table, clock, filter);
    let mut found = pin!(search.candidates(None)?.map_ok(|candidate| search.read(candidate)).try_buffer_unordered(AT_ONCE));
    while let Some((_, record)) = found.try_next().await? {
        record.map_or(Ok(()), &mut look)?;
    }
    Ok(())
}
