//! Writing: read, decide, put back if nobody else has meanwhile.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use storage_core::backoff::Backoff;
use storage_core::{Applied, Batch, Error, Expect, Key, Record, Result, TableName, Version, Write};

use crate::batch::MAX_CHANGES;
use crate::client::Change;
use crate::entity;
use crate::error::Refusal;
use crate::keys::{self, Place};
use crate::read;
use crate::store::Store;
use crate::table::Table;

/// How often a batch begins anew because another came first. Each time another one succeeded, so this is the number of those that overtake it.
const MAX_TRIES: u32 = 200;

/// All writes of `batch`, which are about one partition, or none.
pub(crate) async fn commit(store: &Store, batch: &Batch) -> Result<Vec<Version>> {
    let Some(mut commit) = Commit::new(store, batch)? else { return Ok(Vec::new()) };
    let mut backoff = Backoff::new(Duration::from_millis(1), Duration::from_millis(100));
    let mut fresh = false;
    for _ in 0..MAX_TRIES {
        let blind = std::mem::take(&mut commit.blind);
        match commit.attempt(blind).await {
            Ok(Some(versions)) => return Ok(versions),
            Ok(None) if blind => {}
            Ok(None) => tokio::time::sleep(backoff.next_delay()).await,
            // The table may have been changed since it was looked at.
            Err(refusal) if refusal.is_corrupt() && !std::mem::replace(&mut fresh, true) => store.forget(commit.name),
            Err(refusal) => return Err(store.told(commit.name, refusal)),
        }
    }
    Err(Error::conflict(format!(
        "others wrote the records of this batch {MAX_TRIES} times while it waited for its turn: try again later"
    )))
}

struct Commit<'a> {
    store: &'a Store,
    batch: &'a Batch,
    name: &'a TableName,
    /// The records that it is about, in the order in which they come first.
    keys: Vec<&'a Key>,
    places: Vec<Place>,
    /// True where it is tried first as if none of them were there: nothing has to be read for that.
    blind: bool,
}

/// A record that a batch is about.
struct Touched {
    /// The mark of what is there.
    etag: Option<String>,
    record: Option<Record>,
    changed: bool,
    /// True where something was asked of it, so that it must be as it was read when the batch takes effect.
    matters: bool,
}

impl<'a> Commit<'a> {
    fn new(store: &'a Store, batch: &'a Batch) -> Result<Option<Self>> {
        let mut keys: Vec<&Key> = Vec::new();
        let mut known = HashMap::new();
        let mut table = None;
        for write in &batch.writes {
            let Some((name, key)) = write.target() else { return Err(too_far()) };
            if *table.get_or_insert(name) != name {
                return Err(too_far());
            }
            known.entry(key).or_insert_with(|| {
                keys.push(key);
                write
            });
        }
        let Some(name) = table else { return Ok(None) };
        let places: Vec<Place> = keys.iter().map(|key| keys::place(key)).collect::<Result<_>>()?;
        if places.windows(2).any(|pair| pair[0].partition != pair[1].partition) {
            return Err(too_far());
        }
        let several = keys.len() > 1;
        let blind = known.values().all(|write| match write {
            Write::Put { expect: Expect::Absent, .. } => true,
            // What one record costs to read is less than what a vain try costs; what many cost is more.
            Write::Put { expect: Expect::Anything, .. } => several,
            _ => false,
        });
        Ok(Some(Self { store, batch, name, keys, places, blind }))
    }

    /// `None`: somebody else wrote meanwhile, or `blind` was wrong.
    async fn attempt(&self, blind: bool) -> Result<Option<Vec<Version>>, Refusal> {
        let table = self.store.table(self.name).await?;
        let mut touched = if blind { self.none() } else { self.read(&table).await? };
        let versions = match self.decide(&mut touched) {
            Ok(versions) => versions,
            Err(_) if blind => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let changes = self.changes(&table, touched)?;
        match self.write(&table, changes).await {
            Ok(()) => Ok(Some(versions)),
            Err(refusal) if refusal.is_overtaken() => Ok(None),
            Err(refusal) => Err(refusal),
        }
    }

    fn none(&self) -> HashMap<&'a Key, Touched> {
        let none = || Touched { etag: None, record: None, changed: false, matters: false };
        self.keys.iter().map(|key| (*key, none())).collect()
    }

    async fn read(&self, table: &Arc<Table>) -> Result<HashMap<&'a Key, Touched>, Refusal> {
        let mut found = HashMap::new();
        for entity in read::each(&self.store.client, &table.there, &self.places).await? {
            let (record, etag) = entity.into_record(table)?;
            found.insert(record.key.clone(), (record, etag));
        }
        let mut touched = self.none();
        for (key, touched) in &mut touched {
            if let Some((record, etag)) = found.remove(*key) {
                (touched.record, touched.etag) = (Some(record), Some(etag));
            }
        }
        Ok(touched)
    }

    /// What the writes make of the records that are there.
    fn decide(&self, touched: &mut HashMap<&'a Key, Touched>) -> Result<Vec<Version>> {
        let now = self.store.clock.now();
        let mut versions = Vec::with_capacity(self.batch.len());
        for (index, write) in self.batch.writes.iter().enumerate() {
            let Some(touched) = write.target().and_then(|(_, key)| touched.get_mut(key)) else { continue };
            let applied = write.apply(touched.record.as_ref(), now).map_err(|error| error.with_failed_write(index))?;
            versions.push(applied.version());
            touched.matters |= !matches!(write, Write::Check { expect: Expect::Anything, .. });
            match applied {
                Applied::Put(after) => touched.record = Some(after),
                Applied::Deleted(_) => touched.record = None,
                Applied::Unchanged(_) => continue,
            }
            touched.changed = true;
        }
        Ok(versions)
    }

    /// What has to be sent. That a record stays as it is can be had from the service by a change that changes nothing alone; that none is there, by one that
    /// says so, and goes again.
    fn changes(&self, table: &Table, mut touched: HashMap<&'a Key, Touched>) -> Result<Vec<(Place, Change)>> {
        let several = self.keys.len() > 1;
        let mut changes = Vec::with_capacity(self.keys.len());
        for (key, place) in self.keys.iter().zip(&self.places) {
            let Some(Touched { etag, record, changed, matters }) = touched.remove(key) else { continue };
            let encode = |record: &Record| {
                let last = |write: &Write| write.target().is_some_and(|(_, target)| target == *key);
                let index = self.batch.writes.iter().rposition(last).unwrap_or_default();
                entity::encode(table, place, record).map_err(|error| error.with_failed_write(index))
            };
            let change = match (changed, record, etag) {
                (true, Some(record), None) => Change::Insert(encode(&record)?),
                (true, Some(record), Some(etag)) => Change::Replace(encode(&record)?, etag),
                (true, None, Some(etag)) => Change::Delete(etag),
                (_, _, Some(etag)) if matters && several => Change::Touch(entity::bare(place), etag),
                (_, _, None) if matters && several => Change::Vacant(entity::vacant(place)),
                _ => continue,
            };
            changes.push((place.clone(), change));
        }
        Ok(changes)
    }

    async fn write(&self, table: &Table, changes: Vec<(Place, Change)>) -> Result<(), Refusal> {
        let client = &self.store.client;
        let lost = |refusal: Refusal| match refusal.is_overtaken() {
            true => refusal,
            false => refusal.map(Error::of_unanswered_write),
        };
        match &*changes {
            [] => Ok(()),
            changes if changes.iter().all(|(_, change)| only_checks(change)) => self.still_so(table, changes).await,
            [(place, change)] => client.change(&table.there, place, change).await.map(drop).map_err(lost),
            changes => {
                let marks = client.change_all(&table.there, changes).await.map_err(lost)?;
                for ((place, change), mark) in changes.iter().zip(marks) {
                    let (Change::Vacant(_), Some(mark)) = (change, mark) else { continue };
                    // It counts as absent while it is there: a sweep, or the next write of that record, removes it as well.
                    if let Err(refusal) = client.change(&table.there, place, &Change::Delete(mark)).await {
                        tracing::debug!(error = %Error::from(refusal), "an entity that says that none is there stays for now");
                    }
                }
                Ok(())
            }
        }
    }

    /// For a batch of checks: what was read, one after the other, was so at one moment if it is so still.
    async fn still_so(&self, table: &Table, changes: &[(Place, Change)]) -> Result<(), Refusal> {
        let found = read::each(&self.store.client, &table.there, &self.places).await?;
        let marks: HashMap<&Place, &str> = found.iter().map(|entity| (&entity.place, entity.etag.as_str())).collect();
        let same = changes.iter().all(|(place, change)| match change {
            Change::Touch(_, etag) => marks.get(place) == Some(&etag.as_str()),
            _ => !marks.contains_key(place),
        });
        if same { Ok(()) } else { Err(Refusal::overtaken()) }
    }
}

/// True of what leaves everything as it is.
fn only_checks(change: &Change) -> bool {
    matches!(change, Change::Touch(..) | Change::Vacant(_))
}

fn too_far() -> Error {
    Error::unsupported(format!(
        "a batch on this backend holds up to {MAX_CHANGES} writes of one partition of one table, and no messages; of a table with keys of one part, of one record"
    ))
}
