//! What a group of works needs to know before it can be done: records, locked, and queues.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use storage_core::{Error, Fields, Key, QueueName, Record, Result, TableName, Write};

use super::{Catalog, Entry, Queue, Statements, Work};
use crate::row::{self, SqlRow};

/// A record by table and key.
pub type Place<'w> = (&'w TableName, &'w Key);

/// What is known of a record.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// True where there is a row, expired or not.
    pub is_row: bool,
    /// The record in it; without fields, where nobody needs them.
    pub record: Option<Arc<Record>>,
}

/// The records of one table.
#[derive(Debug)]
pub struct Need<'w, S> {
    /// The table.
    pub entry: Arc<Entry<S>>,
    /// Which of them.
    pub keys: BTreeSet<&'w Key>,
    /// True where fields are needed too.
    pub whole: bool,
    /// Keys that somebody checks for absence, perhaps.
    pub checked: BTreeSet<&'w Key>,
}

/// What is needed.
#[derive(Debug)]
pub struct Plan<'w, S> {
    /// Records, by table.
    pub tables: BTreeMap<&'w TableName, Need<'w, S>>,
    /// Queues.
    pub queues: BTreeSet<&'w QueueName>,
    /// How many messages are sent.
    pub messages: usize,
    /// How many writes there are.
    pub writes: usize,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Ground<'w> {
    /// Records that are spoken of.
    pub records: HashMap<Place<'w>, Known>,
    /// Queues that messages are for.
    pub queues: HashMap<QueueName, Queue>,
    /// Ids for messages, the next one last.
    pub ids: Vec<i64>,
}

impl<'w, S: Statements> Plan<'w, S> {
    /// What these works need.
    pub fn new(catalog: &Catalog<S>, works: &[&'w Work]) -> Self {
        let mut plan = Self { tables: BTreeMap::new(), queues: BTreeSet::new(), messages: 0, writes: 0 };
        for work in works {
            match work {
                Work::Send(queue, messages) => plan.queue(queue, messages.len()),
                Work::Batch(writes) => writes.iter().for_each(|write| plan.write(catalog, write)),
            }
        }
        plan
    }

    fn queue(&mut self, queue: &'w QueueName, messages: usize) {
        self.queues.insert(queue);
        self.messages += messages;
    }

    fn write(&mut self, catalog: &Catalog<S>, write: &'w Write) {
        self.writes += 1;
        if let Write::Enqueue { queue, .. } = write {
            return self.queue(queue, 1);
        }
        let Some((table, key)) = write.target() else { return };
        // What is wrong with table or key is found when its turn comes.
        let Ok(entry) = catalog.table(table) else { return };
        if entry.schema().check_key(key).is_err() {
            return;
        }
        let need = self.tables.entry(table).or_insert_with(|| Need {
            entry: Arc::clone(entry),
            keys: BTreeSet::new(),
            whole: false,
            checked: BTreeSet::new(),
        });
        need.keys.insert(key);
        need.whole |= matches!(write, Write::Merge { .. });
        if matches!(write, Write::Check { .. }) {
            need.checked.insert(key);
        }
    }

    /// What is known before anything was found.
    #[must_use]
    pub fn nothing(&self) -> Ground<'w> {
        let places = self.tables.iter().flat_map(|(table, need)| need.keys.iter().map(move |key| (*table, *key)));
        Ground { records: places.map(|place| (place, Known::default())).collect(), ..Ground::default() }
    }

    /// Records that are not there and have to stay away until the end of the transaction, since other writes may rely on that.
    pub fn absences(&self, ground: &Ground<'w>) -> Vec<(&'w TableName, BTreeSet<&'w Key>)> {
        if self.writes < 2 {
            return Vec::new();
        }
        let missing = self.tables.iter().map(|(table, need)| {
            let is_missing = |key: &&&Key| ground.records.get(&(*table, **key)).is_none_or(|known| !known.is_row);
            (*table, need.checked.iter().filter(is_missing).copied().collect::<BTreeSet<_>>())
        });
        missing.filter(|(_, keys)| !keys.is_empty()).collect()
    }
}

impl<'w> Ground<'w> {
    /// Takes note of rows: whole ones, or keys, version and expiry alone, as the need is.
    ///
    /// # Errors
    /// [`Corrupt`](storage_core::ErrorKind::Corrupt) for rows of somebody else's.
    pub fn take<S: Statements, R: SqlRow>(&mut self, table: &'w TableName, need: &Need<'w, S>, rows: &[R]) -> Result<()> {
        for found in rows {
            let record = if need.whole { row::read(found, need.entry.schema())? } else { outline(found, need.entry.schema())? };
            let key = need.keys.get(&record.key).copied();
            let key = key.ok_or_else(|| Error::internal("the server answered with a record that was not asked for"))?;
            self.records.insert((table, key), Known { is_row: true, record: Some(Arc::new(record)) });
        }
        Ok(())
    }
}

/// A record without its fields.
fn outline(found: &impl SqlRow, schema: &storage_core::TableSchema) -> Result<Record> {
    let (key, at) = row::key(found, schema)?;
    let (version, expires_at) = (row::version(found, at)?, row::time(found, at + 1)?);
    Ok(Record { key, version, updated_at: chrono::DateTime::UNIX_EPOCH, expires_at, fields: Fields::new() })
}
