//! Reading records: by key, and by a walk through a table's bucket.

use std::collections::HashSet;
use std::hash::{BuildHasher as _, RandomState};

use chrono::{DateTime, TimeDelta, Utc};
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use serde_json::Value;
use storage_core::{Clock, Filter, Key, KeyPart, Page, PageBuilder, Query, Record, Result};

use super::keys;
use super::tables::{self, Table};
use crate::error::Fault;
use crate::store::Inner;
use crate::stream::{Held, Look, Walk, last, remove};

/// How many records one call reads at once.
const AT_ONCE: usize = 64;
/// How many keys that a filter names are read one by one; for more, all are looked at.
const FEW_KEYS: usize = 256;
/// How many expired records and markers a query removes that came across them: a sweep takes all.
const TIDY: usize = 256;
/// How long a marker stays, so that other clients that watch see it.
const SEEN: TimeDelta = TimeDelta::minutes(1);

/// The records with these keys.
pub(super) async fn get(inner: &Inner, table: &Table, clock: &Clock, keys: &[Key]) -> Result<Vec<Option<Record>>, Fault> {
    let read = |key: &Key| {
        let subject = table.subject(key);
        async move {
            let Some(held) = last(&inner.client, &table.stream, &subject).await? else { return Ok(None) };
            if held.is_marker() {
                return Ok(None);
            }
            let record = table.decode(&held)?;
            Ok(Some(record).filter(|record| !record.is_expired(clock.now())))
        }
    };
    // Collected first: the futures would otherwise borrow from the closure that makes them.
    let reads: Vec<_> = keys.iter().map(read).collect();
    stream::iter(reads).buffered(AT_ONCE).try_collect().await
}

/// What a query reads.
enum Reach {
    /// These records.
    Keys(Vec<Key>),
    /// What has these subjects.
    Subjects(String),
}

fn reach(table: &Table, by_key: &Filter) -> Reach {
    let (schema, bucket) = (table.schema(), &table.row.bucket);
    let ids = named(by_key, schema.id.name.as_str());
    let Some(column) = &schema.partition else {
        return match ids {
            Some(ids) if ids.len() <= FEW_KEYS => Reach::Keys(ids.into_iter().map(Key::new).collect()),
            _ => Reach::Subjects(keys::all(bucket)),
        };
    };
    match (named(by_key, column.name.as_str()).as_deref(), ids) {
        (Some(partitions), Some(ids)) if partitions.len() * ids.len() <= FEW_KEYS => {
            let all = partitions.iter().flat_map(|partition| ids.iter().map(move |id| (partition, id)));
            Reach::Keys(all.map(|(partition, id)| Key::partitioned(partition.clone(), id.clone())).collect())
        }
        (Some([partition]), _) => Reach::Subjects(keys::partition(bucket, partition)),
        _ => Reach::Subjects(keys::all(bucket)),
    }
}

/// The values that a filter leaves to a key column, where it names them.
fn named(filter: &Filter, column: &str) -> Option<Vec<KeyPart>> {
    let part = |value: &Value| match value {
        Value::String(text) => Some(KeyPart::from(text)),
        value => value.as_i64().map(KeyPart::Integer),
    };
    filter.conjuncts().into_iter().find_map(|filter| match filter {
        Filter::Eq(name, value) if *name == *column => part(value).map(|part| vec![part]),
        Filter::In(name, values) if *name == *column => {
            let mut parts = values.iter().map(part).collect::<Option<Vec<_>>>()?;
            parts.sort_unstable();
            parts.dedup();
            Some(parts)
        }
        _ => None,
    })
}

/// A walk through a table, as of one moment for each record.
struct Search<'a> {
    inner: &'a Inner,
    table: &'a Table,
    now: DateTime<Utc>,
    walk: Walk,
    /// What came already, by its hash: what is written during the walk comes again.
    seen: HashSet<u64>,
    hasher: RandomState,
    /// Expired records, to be removed.
    expired: Vec<u64>,
    /// Markers that nobody needs any more.
    markers: Vec<u64>,
    /// How many of them to keep in mind.
    room: usize,
}

impl<'a> Search<'a> {
    async fn start(inner: &'a Inner, table: &'a Table, now: DateTime<Utc>, subjects: &str, bodies: bool) -> Result<Self, Fault> {
        let look = Look { filter: subjects, bodies, from: None };
        let walk = Walk::start(&inner.client, &table.stream, &look).await?;
        let (seen, hasher, expired, markers) = (HashSet::new(), RandomState::new(), Vec::new(), Vec::new());
        Ok(Self { inner, table, now, walk, seen, hasher, expired, markers, room: TIDY })
    }

    /// The next record that is there, as it is stored.
    async fn next(&mut self) -> Result<Option<Held>, Fault> {
        while let Some(held) = self.walk.next().await? {
            if !self.seen.insert(self.hasher.hash_one(held.subject.as_str())) {
                continue;
            }
            if held.is_marker() {
                if self.now - held.stored > SEEN && self.markers.len() < self.room {
                    self.markers.push(held.sequence);
                }
            } else if tables::is_expired(&held.headers, self.now) {
                if self.expired.len() < self.room {
                    self.expired.push(held.sequence);
                }
            } else {
                return Ok(Some(held));
            }
        }
        Ok(None)
    }

    /// Removes what need not be there. Answers how many expired records these were. A place is never taken again, so what was written meanwhile stays.
    async fn tidy(self) -> Result<u64, Fault> {
        let Self { inner, table, expired, markers, .. } = self;
        let remove = |sequence: u64| remove(&inner.client, &table.stream, sequence);
        let removals: Vec<_> = markers.into_iter().map(remove).collect();
        stream::iter(removals).buffer_unordered(AT_ONCE).try_for_each(|_| async { Ok(()) }).await?;
        let removals: Vec<_> = expired.into_iter().map(remove).collect();
        let removed = stream::iter(removals).buffer_unordered(AT_ONCE);
        removed.try_fold(0, |sum, removed| async move { Ok(sum + u64::from(removed)) }).await
    }

    /// The same, where it does not matter: whoever reads may not be allowed to write.
    async fn tidy_if_possible(self) {
        if let Err(fault) = self.tidy().await {
            tracing::debug!(error = %fault.into_error(), "expired records stay");
        }
    }
}

/// Looks at every record that matches.
pub(super) async fn each(
    inner: &Inner,
    table: &Table,
    clock: &Clock,
    filter: &Filter,
    mut look: impl FnMut(Record) -> Result<()>,
) -> Result<(), Fault> {
    let (now, (by_key, _)) = (clock.now(), filter.split_key(table.schema()));
    let subjects = match reach(table, &by_key) {
        Reach::Keys(keys) => {
            for record in get(inner, table, clock, &keys).await?.into_iter().flatten() {
                if filter.matches(table.schema(), &record) {
                    look(record)?;
                }
            }
            return Ok(());
        }
        Reach::Subjects(subjects) => subjects,
    };
    let mut search = Search::start(inner, table, now, &subjects, true).await?;
    while let Some(held) = search.next().await? {
        let record = table.decode(&held)?;
        if !record.is_expired(now) && filter.matches(table.schema(), &record) {
            look(record)?;
        }
    }
    search.tidy_if_possible().await;
    Ok(())
}

pub(super) async fn scan(inner: &Inner, table: &Table, clock: &Clock, query: &Query) -> Result<Page, Fault> {
    let mut page = PageBuilder::new(query, table.schema())?;
    each(inner, table, clock, &query.filter, |record| {
        page.push(record);
        Ok(())
    })
    .await?;
    Ok(page.finish())
}

pub(super) async fn count(inner: &Inner, table: &Table, clock: &Clock, filter: &Filter) -> Result<u64, Fault> {
    let schema = table.schema();
    let (by_key, by_fields) = filter.split_key(schema);
    let mut count = 0;
    match reach(table, &by_key) {
        // The subject says the key, and a header the expiry: nobody needs the bodies.
        Reach::Subjects(subjects) if by_fields == Filter::All => {
            let mut search = Search::start(inner, table, clock.now(), &subjects, false).await?;
            while let Some(held) = search.next().await? {
                let Some(key) = keys::key(schema, &table.row.bucket, &held.subject) else {
                    let message = format!("`{}` at {}: no key of this table has that name", held.subject, held.sequence);
                    return Err(storage_core::Error::corrupt(message).into());
                };
                count += u64::from(by_key.matches_key(schema, &key));
            }
            search.tidy_if_possible().await;
        }
        _ => {
            let counted = each(inner, table, clock, filter, |_| {
                count += 1;
                Ok(())
            });
            counted.await?;
        }
    }
    Ok(count)
}

/// Removes all that has expired.
pub(super) async fn sweep(inner: &Inner, table: &Table, clock: &Clock, filter: &Filter) -> Result<u64, Fault> {
    let (by_key, _) = filter.split_key(table.schema());
    let subjects = match reach(table, &by_key) {
        Reach::Subjects(subjects) => subjects,
        Reach::Keys(_) => keys::all(&table.row.bucket),
    };
    let mut search = Search::start(inner, table, clock.now(), &subjects, false).await?;
    search.room = usize::MAX;
    while search.next().await?.is_some() {}
    search.tidy().await
}
