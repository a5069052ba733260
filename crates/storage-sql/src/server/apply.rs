//! What a group of works does, computed from what is there: each in turn, none seeing those that fail.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use storage_core::{Applied, Error, History, Key, NewMessage, QueueName, Record, Result, Sent, TableName, Version, Write};

use super::{Answer, Catalog, Entry, Ground, Place, Queue, Statements, Work, message_id};

/// One change of a row.
#[derive(Debug)]
pub struct Change<'w, S> {
    /// The table.
    pub entry: Arc<Entry<S>>,
    /// Its name.
    pub table: &'w TableName,
    /// The record.
    pub key: &'w Key,
    /// What is there afterwards.
    pub after: Option<Arc<Record>>,
    /// Which write of its batch it is.
    pub write: usize,
}

/// A message on its way.
#[derive(Debug)]
pub struct Outgoing<'w> {
    /// Where it goes.
    pub queue: Queue,
    /// What is sent.
    pub message: &'w NewMessage,
    /// What it will be called.
    pub id: i64,
    /// Set where a message with the same dedup id was there before: its id.
    pub duplicate_of: Option<i64>,
}

/// What one work comes to.
#[derive(Debug)]
pub struct Outcome<'w, S> {
    /// What it changes, in order.
    pub changes: Vec<Change<'w, S>>,
    /// What it sends, in order.
    pub messages: Vec<Outgoing<'w>>,
    /// One for each write of a batch.
    pub versions: Vec<Version>,
    /// Why it has no effect.
    pub failed: Option<Error>,
}

impl<S: Statements> Outcome<'_, S> {
    /// True where a write before the one that failed might have failed at the database first.
    pub fn is_uncertain(&self) -> bool {
        self.failed.is_some() && self.changes.iter().any(|change| change.entry.has_unique())
    }
}

/// Applies all works in turn.
pub fn apply<'w, S: Statements>(
    catalog: &Catalog<S>,
    works: &[&'w Work],
    ground: &mut Ground<'w>,
    now: DateTime<Utc>,
) -> Vec<Outcome<'w, S>> {
    let mut outcomes = Vec::with_capacity(works.len());
    for work in works {
        let mut turn = Turn { catalog, ground, now, staged: HashMap::new(), outcome: Outcome::new() };
        let done = match work {
            Work::Send(queue, messages) => messages.iter().try_for_each(|message| turn.enqueue(queue, message)),
            Work::Batch(writes) => writes
                .iter()
                .enumerate()
                .try_for_each(|(index, write)| turn.write(write, index).map_err(|error| error.with_failed_write(index))),
        };
        let Turn { staged, mut outcome, .. } = turn;
        match done {
            Ok(()) => {
                for (place, record) in staged {
                    ground.records.entry(place).or_default().record = record;
                }
            }
            Err(error) => outcome.failed = Some(error),
        }
        outcomes.push(outcome);
    }
    outcomes
}

impl<S: Statements> Outcome<'_, S> {
    fn new() -> Self {
        Self { changes: Vec::new(), messages: Vec::new(), versions: Vec::new(), failed: None }
    }
}

struct Turn<'a, 'w, S> {
    catalog: &'a Catalog<S>,
    ground: &'a mut Ground<'w>,
    now: DateTime<Utc>,
    staged: HashMap<Place<'w>, Option<Arc<Record>>>,
    outcome: Outcome<'w, S>,
}

impl<'w, S: Statements> Turn<'_, 'w, S> {
    fn write(&mut self, write: &'w Write, index: usize) -> Result<()> {
        let version = match write {
            Write::Enqueue { queue, message } => self.enqueue(queue, message).map(|()| Version::NONE)?,
            write => match write.target() {
                Some(place) => {
                    self.record(write, place, index).map_err(|e| e.with_subject(format_args!("table `{}`", place.0)))?
                }
                None => Version::NONE,
            },
        };
        self.outcome.versions.push(version);
        Ok(())
    }

    fn record(&mut self, write: &'w Write, place: Place<'w>, index: usize) -> Result<Version> {
        let (table, key) = place;
        let entry = self.catalog.table(table)?;
        entry.schema().check_key(key)?;
        let current = match self.staged.get(&place) {
            Some(staged) => staged.as_deref(),
            None => self.ground.records.get(&place).and_then(|known| known.record.as_deref()),
        };
        let applied = write.apply(current, self.now)?;
        let version = applied.version();
        let after = match applied {
            Applied::Unchanged(_) => return Ok(version),
            Applied::Deleted(_) => None,
            Applied::Put(mut record) => {
                if matches!(write, Write::Put { .. }) {
                    fill_in(entry, &mut record);
                }
                Some(Arc::new(record))
            }
        };
        self.outcome.changes.push(Change { entry: Arc::clone(entry), table, key, after: after.clone(), write: index });
        self.staged.insert(place, after);
        Ok(version)
    }

    fn enqueue(&mut self, name: &QueueName, message: &'w NewMessage) -> Result<()> {
        name.dead_letter()?;
        let queue = self.ground.queues.get(name).copied();
        let queue = queue.ok_or_else(|| Error::not_found(format!("there is no queue `{name}`: create it first")))?;
        let id = self.ground.ids.pop().ok_or_else(|| Error::internal("there are fewer ids than messages"))?;
        self.outcome.messages.push(Outgoing { queue, message, id, duplicate_of: None });
        Ok(())
    }
}

/// Whoever sent the record may not know the newest schema.
pub(super) fn fill_in<S: Statements>(entry: &Entry<S>, record: &mut Record) {
    for column in &entry.schema().columns {
        if let Some(default) = &column.default
            && !record.fields.contains_key(column.name.as_str())
        {
            record.fields.insert(column.name.to_string(), default.clone());
        }
    }
}

/// The messages of works that take effect.
pub fn sent<'o, 'w, S>(outcomes: &'o [Outcome<'w, S>]) -> impl Iterator<Item = &'o Outgoing<'w>> {
    outcomes.iter().filter(|outcome| outcome.failed.is_none()).flat_map(|outcome| &outcome.messages)
}

/// Tables that keep so many versions and no more, of those that are changed.
pub fn limits<'o, S: Statements>(outcomes: &'o [Outcome<'_, S>]) -> BTreeMap<&'o TableName, u32> {
    let changes = outcomes.iter().filter(|outcome| outcome.failed.is_none()).flat_map(|outcome| &outcome.changes);
    changes
        .filter_map(|change| match change.entry.schema().history {
            History::Keep(limit) => Some((change.table, limit)),
            _ => None,
        })
        .collect()
}

/// What is answered for a work.
///
/// # Errors
/// Why it has no effect.
pub fn answer<S>(outcome: Outcome<'_, S>, work: &Work) -> Result<Answer> {
    if let Some(error) = outcome.failed {
        return Err(error);
    }
    let sent = outcome
        .messages
        .iter()
        .map(|m| Sent { id: message_id(m.duplicate_of.unwrap_or(m.id)), duplicate: m.duplicate_of.is_some() });
    Ok(match work {
        Work::Send(..) => Answer::Sent(sent.collect()),
        Work::Batch(_) => Answer::Versions(outcome.versions),
    })
}

/// The versions that are to be kept, in order.
pub fn kept<'o, S: Statements>(outcomes: &'o [Outcome<'_, S>]) -> Vec<(&'o TableName, &'o Record)> {
    let changes = outcomes.iter().filter(|outcome| outcome.failed.is_none()).flat_map(|outcome| &outcome.changes);
    changes
        .filter(|change| change.entry.schema().history != History::None)
        .filter_map(|change| Some((change.table, change.after.as_deref()?)))
        .collect()
}
