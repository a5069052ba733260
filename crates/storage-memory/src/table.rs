//! One table: rows, unique values, expiry, history.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::ops::Bound;

use chrono::{DateTime, Utc};
use storage_core::{Applied, Clock, ColumnName, Error, History, Key, Page, Query, Record, Result, SchemaChange, TableSchema};

/// How many expired rows one commit removes from each table that it touches: the rest wait for the next.
const SWEEP: usize = 64;

#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) schema: TableSchema,
    rows: BTreeMap<Key, Record>,
    unique: Vec<Unique>,
    expiring: BTreeSet<(DateTime<Utc>, Key)>,
    history: BTreeMap<Key, VecDeque<Record>>,
}

/// Columns whose values together are unique, and who has which.
#[derive(Debug)]
struct Unique {
    columns: Vec<ColumnName>,
    holders: HashMap<Vec<String>, Key>,
}

impl Unique {
    /// The record's values as JSON texts, which are equal where the canonical values are. `None` where it lacks one.
    fn values(&self, schema: &TableSchema, record: &Record) -> Option<Vec<String>> {
        self.columns.iter().map(|c| record.value(schema, c.as_str()).map(|v| v.to_string())).collect()
    }
}

impl Table {
    pub(crate) fn new(schema: TableSchema) -> Self {
        let unique = schema.unique_sets().map(|columns| Unique { columns: columns.to_vec(), holders: HashMap::new() }).collect();
        Self { schema, rows: BTreeMap::new(), unique, expiring: BTreeSet::new(), history: BTreeMap::new() }
    }

    /// The time to hold expiry against. Tables where nothing expires don't pay for asking the clock.
    pub(crate) fn now(&self, clock: &Clock) -> DateTime<Utc> {
        if self.expiring.is_empty() { DateTime::<Utc>::MIN_UTC } else { clock.now() }
    }

    pub(crate) fn get(&self, key: &Key, now: DateTime<Utc>) -> Option<&Record> {
        self.rows.get(key).filter(|r| !r.is_expired(now))
    }

    pub(crate) fn count(&self, query: &Query, now: DateTime<Utc>) -> usize {
        self.rows.values().filter(|r| !r.is_expired(now) && query.filter.matches(&self.schema, r)).count()
    }

    pub(crate) fn scan(&self, query: &Query, now: DateTime<Utc>) -> Result<Page> {
        let wanted = |r: &&Record| !r.is_expired(now) && query.filter.matches(&self.schema, r);
        if !query.is_key_order(&self.schema) {
            return Page::select(query, &self.schema, self.rows.values().filter(wanted).cloned());
        }
        let start = query.cursor(&self.schema)?.map_or(Bound::Unbounded, |cursor| Bound::Excluded(cursor.key));
        let mut rest = self.rows.range((start, Bound::Unbounded)).map(|(_, record)| record).filter(wanted);
        let limit = usize::try_from(query.limit).unwrap_or(usize::MAX);
        let records: Vec<Record> = rest.by_ref().take(limit).cloned().collect();
        let more = rest.next().is_some();
        let next = records.last().filter(|_| more).map(|last| query.token_after(&self.schema, last));
        Ok(Page { records, next })
    }

    /// Puts what a write came to into effect and answers with what was there before, for [`restore`](Self::restore).
    pub(crate) fn apply(&mut self, key: &Key, applied: &Applied, now: DateTime<Utc>) -> Result<Option<Record>> {
        match applied {
            Applied::Put(record) => {
                self.check_unique(record, now)?;
                Ok(self.set(key, Some(record.clone())))
            }
            Applied::Deleted(_) => Ok(self.set(key, None)),
            Applied::Unchanged(_) => Ok(None),
        }
    }

    pub(crate) fn restore(&mut self, key: &Key, before: Option<Record>) {
        self.set(key, before);
    }

    fn check_unique(&mut self, record: &Record, now: DateTime<Utc>) -> Result<()> {
        for at in 0..self.unique.len() {
            let unique = &self.unique[at];
            let Some(values) = unique.values(&self.schema, record) else { continue };
            let Some(holder) = unique.holders.get(&values).filter(|holder| **holder != record.key).cloned() else { continue };
            if self.get(&holder, now).is_some() {
                return Err(taken(&self.schema, &unique.columns, &holder));
            }
            // The holder has expired and can go for good, whatever becomes of the batch.
            self.set(&holder, None);
        }
        Ok(())
    }

    fn set(&mut self, key: &Key, record: Option<Record>) -> Option<Record> {
        let before = self.rows.remove(key);
        if let Some(before) = &before {
            if let Some(at) = before.expires_at {
                self.expiring.remove(&(at, key.clone()));
            }
            for unique in &mut self.unique {
                if let Some(values) = unique.values(&self.schema, before) {
                    unique.holders.remove(&values);
                }
            }
        }
        if let Some(record) = record {
            if let Some(at) = record.expires_at {
                self.expiring.insert((at, key.clone()));
            }
            for unique in &mut self.unique {
                if let Some(values) = unique.values(&self.schema, &record) {
                    unique.holders.insert(values, key.clone());
                }
            }
            self.rows.insert(key.clone(), record);
        }
        before
    }

    /// Removes some of the rows that have expired.
    pub(crate) fn sweep(&mut self, now: DateTime<Utc>) {
        for _ in 0..SWEEP {
            let Some((_, key)) = self.expiring.first().filter(|(at, _)| *at <= now).cloned() else { return };
            self.set(&key, None);
        }
    }

    /// Keeps a version that a batch wrote, once the batch has taken effect.
    pub(crate) fn remember(&mut self, record: Record) {
        let keep = match self.schema.history {
            History::None => return,
            History::Keep(n) => usize::try_from(n).unwrap_or(usize::MAX),
            History::KeepAll => usize::MAX,
        };
        let versions = self.history.entry(record.key.clone()).or_default();
        versions.push_back(record);
        while versions.len() > keep {
            versions.pop_front();
        }
    }

    pub(crate) fn history(&self, key: &Key) -> Result<Vec<Record>> {
        if self.schema.history == History::None {
            return Err(Error::unsupported(format!(
                "table `{}` keeps no history: create it with `history`, or alter it",
                self.schema.name
            )));
        }
        Ok(self.history.get(key).map(|versions| versions.iter().rev().cloned().collect()).unwrap_or_default())
    }

    /// This table after a change, or why there can't be one.
    pub(crate) fn altered(&self, change: &SchemaChange) -> Result<Self> {
        let mut after = Self::new(change.apply(&self.schema)?);
        for record in self.rows.values() {
            let mut record = record.clone();
            change
                .alter_fields(&after.schema, &mut record.fields)
                .map_err(|e| Error::invalid(format!("record `{}`: {}", record.key, e.message())))?;
            // Expired rows count here: they may hold no value twice while they are still stored.
            after.check_unique(&record, DateTime::<Utc>::MIN_UTC)?;
            let key = record.key.clone();
            after.set(&key, Some(record));
        }
        after.history = self.history.clone();
        for record in after.history.values_mut().flatten() {
            change.apply_to_fields(&mut record.fields);
        }
        Ok(after)
    }

    pub(crate) fn drop_expired(&mut self, now: DateTime<Utc>) {
        while let Some((_, key)) = self.expiring.first().filter(|(at, _)| *at <= now).cloned() {
            self.set(&key, None);
        }
    }
}

fn taken(schema: &TableSchema, columns: &[ColumnName], holder: &Key) -> Error {
    let columns = columns.iter().map(|c| format!("`{c}`")).collect::<Vec<_>>().join(", ");
    Error::already_exists(format!(
        "record `{holder}` of table `{}` has the same value in {columns}, which is unique",
        schema.name
    ))
}
