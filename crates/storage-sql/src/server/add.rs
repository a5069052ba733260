//! Works that only add: what has to be known before them is that nothing is there, which the database says when they are written.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use chrono::{DateTime, Utc};
use storage_core::{Applied, Expect, Key, NewMessage, QueueName, Record, TableName, Version, Write};

use super::apply::fill_in;
use super::{Catalog, Change, Entry, Kind, KnownQueues, Line, Outcome, Outgoing, Queue, Statements, Work};

/// How many groups are not tried after one that failed.
const PAUSE: u32 = 16;

/// What works come to that only add.
#[derive(Debug)]
pub struct Additions<'w, S> {
    /// What each of them comes to. The messages have no ids yet.
    pub outcomes: Vec<Outcome<'w, S>>,
    /// The numbers of the queues that get messages.
    pub queues: BTreeSet<i64>,
    /// True where messages of one queue are all there is.
    pub is_one_sending: bool,
}

impl<'w, S: Statements> Additions<'w, S> {
    /// `None`: they do something else than to insert records that are expected to be absent, and to send messages without dedup ids to queues that are known;
    /// or something is wrong with one of them, which is for others to say. Tables with unique values are out: there the database could not say which write is
    /// at fault.
    pub fn of(catalog: &Catalog<S>, queues: &KnownQueues, works: &[&'w Work], now: DateTime<Utc>) -> Option<Self> {
        let mut adding = Adding { catalog, known: queues, now, table: None, queues: BTreeSet::new() };
        let mut outcomes = Vec::with_capacity(works.len());
        for work in works {
            let mut outcome = Outcome { changes: Vec::new(), messages: Vec::new(), versions: Vec::new(), failed: None };
            match work {
                Work::Send(queue, messages) => {
                    outcome.messages = messages.iter().map(|message| adding.message(queue, message)).collect::<Option<_>>()?;
                }
                Work::Batch(writes) => {
                    outcome.changes.reserve(writes.len());
                    outcome.versions.reserve(writes.len());
                    for (index, write) in writes.iter().enumerate() {
                        adding.write(write, index, &mut outcome)?;
                    }
                }
            }
            outcomes.push(outcome);
        }
        let sends = outcomes.iter().any(|outcome| !outcome.messages.is_empty());
        if !sends && outcomes.iter().all(|outcome| outcome.changes.is_empty()) {
            return None;
        }
        let is_one_sending = adding.queues.len() == 1 && works.iter().all(|work| matches!(work, Work::Send(..)));
        Some(Self { outcomes, queues: adding.queues, is_one_sending })
    }

    /// What is inserted, a line a table, in the order of the keys. `None`: a record comes twice.
    pub fn lines(&self) -> Option<Vec<Line<'_, S>>> {
        let mut tables: BTreeMap<&TableName, Rows<'_, S>> = BTreeMap::new();
        for change in self.outcomes.iter().flat_map(|outcome| &outcome.changes) {
            let new = || Rows { entry: &change.entry, first: change.write, records: Vec::new() };
            let rows = tables.entry(change.table).or_insert_with(new);
            rows.first = change.write.min(rows.first);
            rows.records.extend(change.after.as_deref());
        }
        let mut lines = Vec::with_capacity(tables.len());
        for (table, Rows { entry, first, mut records }) in tables {
            records.sort_unstable_by_key(|record| &record.key);
            if records.windows(2).any(|pair| matches!(pair, [a, b] if a.key == b.key)) {
                return None;
            }
            lines.push(Line { entry, table, kind: Kind::Insert(records), write: first });
        }
        Some(lines)
    }
}

/// What a table gets.
struct Rows<'o, S> {
    entry: &'o Arc<Entry<S>>,
    /// The first write that adds some.
    first: usize,
    records: Vec<&'o Record>,
}

/// What was found out so far.
struct Adding<'a, 'w, S> {
    catalog: &'a Catalog<S>,
    known: &'a KnownQueues,
    now: DateTime<Utc>,
    /// The last table: most batches speak of one.
    table: Option<(&'w TableName, Arc<Entry<S>>)>,
    queues: BTreeSet<i64>,
}

impl<'w, S: Statements> Adding<'_, 'w, S> {
    fn write(&mut self, write: &'w Write, index: usize, outcome: &mut Outcome<'w, S>) -> Option<()> {
        let version = match write {
            Write::Put { table, key, expect: Expect::Absent, .. } => {
                outcome.changes.push(self.insert(write, (table, key), index)?);
                outcome.changes.last()?.after.as_ref()?.version
            }
            Write::Enqueue { queue, message } => {
                outcome.messages.push(self.message(queue, message)?);
                Version::NONE
            }
            Write::Put { .. } | Write::Merge { .. } | Write::Delete { .. } | Write::Check { .. } => return None,
        };
        outcome.versions.push(version);
        Some(())
    }

    fn insert(&mut self, write: &'w Write, (table, key): (&'w TableName, &'w Key), index: usize) -> Option<Change<'w, S>> {
        let entry = match &self.table {
            Some((name, entry)) if *name == table => Arc::clone(entry),
            _ => Arc::clone(self.catalog.table(table).ok().filter(|entry| !entry.has_unique())?),
        };
        entry.schema().check_key(key).ok()?;
        let Ok(Applied::Put(mut record)) = write.apply(None, self.now) else { return None };
        fill_in(&entry, &mut record);
        self.table = Some((table, Arc::clone(&entry)));
        Some(Change { entry, table, key, after: Some(Arc::new(record)), write: index })
    }

    fn message(&mut self, name: &QueueName, message: &'w NewMessage) -> Option<Outgoing<'w>> {
        if message.dedup_id.is_some() || name.dead_letter().is_err() {
            return None;
        }
        let queue: Queue = self.known.get(name)?;
        self.queues.insert(queue.id);
        Some(Outgoing { queue, message, id: 0, duplicate_of: None })
    }
}

/// Whether it is worth trying: where records were there, the next are likely to be there as well.
#[derive(Debug, Default)]
pub struct Luck(AtomicU32);

impl Luck {
    /// Asked before each group.
    pub fn holds(&self) -> bool {
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_err()
    }

    /// It failed.
    pub fn left(&self) {
        self.0.store(PAUSE, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn luck_comes_back() {
        let luck = Luck::default();
        assert!(luck.holds() && luck.holds());
        luck.left();
        assert_eq!((0..=PAUSE).filter(|_| luck.holds()).count(), 1);
        assert!(luck.holds());
    }
}
