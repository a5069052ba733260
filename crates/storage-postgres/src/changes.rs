//! Writing what a group of works comes to.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use storage_core::{History, Key, Record, TableName};
use tokio_postgres::Row;

use crate::apply::{Change, Outcome, kept};
use crate::catalog::Entry;
use crate::connection::{Connection, Step};
use crate::plan::{Ground, absence};
use crate::row::Columns;
use crate::{history, messages};

/// One statement about rows of one table.
pub(crate) struct Line<'o> {
    entry: &'o Arc<Entry>,
    table: &'o TableName,
    kind: Kind<'o>,
    /// The write that it stands for, or the first of them.
    write: usize,
}

enum Kind<'o> {
    Insert(Vec<&'o Record>),
    Update(Vec<&'o Record>),
    Delete(Vec<&'o Key>),
}

impl Line<'_> {
    pub(crate) fn table(&self) -> &TableName {
        self.table
    }

    pub(crate) fn table_name(&self) -> &str {
        self.entry.table.name()
    }

    pub(crate) fn write(&self) -> usize {
        self.write
    }
}

/// Statements in order.
pub(crate) struct Lines<'o> {
    lines: Vec<Line<'o>>,
    /// How many statements come before the first line's.
    offset: usize,
}

/// What becomes of one record, seen at the end.
struct Fate<'o> {
    entry: &'o Arc<Entry>,
    was_row: bool,
    after: Option<&'o Record>,
    write: usize,
}

impl<'o> Lines<'o> {
    /// As few statements as will do. Tables with unique values go in order, since one record's value may be free because another gave it up.
    pub(crate) fn in_bulk(outcomes: &'o [Outcome<'_>], ground: &Ground<'_>) -> Self {
        let changes = outcomes.iter().filter(|outcome| outcome.failed.is_none()).flat_map(|outcome| &outcome.changes);
        let (unique, plain): (Vec<&Change<'_>>, Vec<&Change<'_>>) = changes.partition(|change| change.entry.has_unique());
        let mut fates: BTreeMap<&TableName, BTreeMap<&Key, Fate<'o>>> = BTreeMap::new();
        for change in plain {
            let was_row = ground.records.get(&(change.table, change.key)).is_some_and(|known| known.is_row);
            let fate = Fate { entry: &change.entry, was_row, after: change.after.as_ref(), write: change.write };
            fates.entry(change.table).or_default().insert(change.key, fate);
        }
        let mut lines = Vec::new();
        for (table, fates) in fates {
            lines.extend(of_table(table, &fates));
        }
        lines.extend(in_order(unique.into_iter(), ground, true));
        Self::new(lines)
    }

    /// Each write by itself, up to the one that fails.
    pub(crate) fn one_by_one(outcomes: &'o [Outcome<'_>], ground: &Ground<'_>) -> Self {
        Self::new(in_order(outcomes.iter().flat_map(|outcome| &outcome.changes), ground, false))
    }

    fn new(lines: Vec<Line<'o>>) -> Self {
        let mut inserting: Vec<_> = lines.iter().filter(|l| matches!(l.kind, Kind::Insert(_))).map(|l| l.table).collect();
        inserting.sort_unstable();
        inserting.dedup();
        Self { lines, offset: inserting.len() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// The line of the statement at that place.
    pub(crate) fn get(&self, place: usize) -> Option<&Line<'o>> {
        self.lines.get(place.checked_sub(self.offset)?)
    }
}

fn of_table<'o>(table: &'o TableName, fates: &BTreeMap<&'o Key, Fate<'o>>) -> Vec<Line<'o>> {
    let (mut inserts, mut updates, mut deletes) = (Vec::new(), Vec::new(), Vec::new());
    for (key, fate) in fates {
        match (fate.was_row, fate.after) {
            (false, Some(record)) => inserts.push(record),
            (true, Some(record)) => updates.push(record),
            (true, None) => deletes.push(*key),
            (false, None) => {}
        }
    }
    let Some(first) = fates.values().next() else { return Vec::new() };
    let write = fates.values().map(|fate| fate.write).min().unwrap_or(0);
    let line = |kind| Line { entry: first.entry, table, kind, write };
    let mut lines = Vec::new();
    lines.extend((!deletes.is_empty()).then(|| line(Kind::Delete(deletes))));
    lines.extend((!updates.is_empty()).then(|| line(Kind::Update(updates))));
    lines.extend((!inserts.is_empty()).then(|| line(Kind::Insert(inserts))));
    lines
}

/// The changes one after the other. `grouped`: inserts that follow each other share a statement, and so do deletes; updates don't, since in which order the
/// rows of one statement are changed, and their values with them, is the database's choice.
fn in_order<'o, 'w: 'o>(changes: impl Iterator<Item = &'o Change<'w>>, ground: &Ground<'_>, grouped: bool) -> Vec<Line<'o>> {
    let mut rows: HashMap<(&TableName, &Key), bool> = HashMap::new();
    let mut lines: Vec<Line<'o>> = Vec::new();
    for change in changes {
        let place = (change.table, change.key);
        let is_row = rows.entry(place).or_insert_with(|| ground.records.get(&place).is_some_and(|known| known.is_row));
        let last = lines.last_mut().filter(|last| grouped && last.table == change.table);
        match (&change.after, *is_row, last.map(|last| &mut last.kind)) {
            (Some(record), false, Some(Kind::Insert(records))) => records.push(record),
            (None, true, Some(Kind::Delete(keys))) => keys.push(change.key),
            (after, is_row, _) => {
                let kind = match after {
                    Some(record) if is_row => Kind::Update(vec![record]),
                    Some(record) => Kind::Insert(vec![record]),
                    None => Kind::Delete(vec![change.key]),
                };
                lines.push(Line { entry: &change.entry, table: change.table, kind, write: change.write });
            }
        }
        *is_row = change.after.is_some();
    }
    lines
}

/// Writes everything, and ends the transaction.
pub(crate) async fn write(
    connection: &Connection,
    schema: &str,
    lines: &Lines<'_>,
    outcomes: &[Outcome<'_>],
    now: DateTime<Utc>,
    end: &'static str,
) -> Result<Vec<Vec<Row>>, Failure> {
    let steps = steps(connection, schema, lines, outcomes, now).await?;
    Ok(connection.pipeline("", steps, end).await?)
}

/// The statement that failed, by its place, or what went wrong before.
pub(crate) enum Failure {
    At(usize, tokio_postgres::Error),
    Before(storage_core::Error),
}

impl From<(usize, tokio_postgres::Error)> for Failure {
    fn from((place, error): (usize, tokio_postgres::Error)) -> Self {
        Self::At(place, error)
    }
}

impl From<tokio_postgres::Error> for Failure {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::At(usize::MAX, error)
    }
}

impl From<storage_core::Error> for Failure {
    fn from(error: storage_core::Error) -> Self {
        Self::Before(error)
    }
}

async fn steps<'o>(
    connection: &Connection,
    schema: &str,
    lines: &'o Lines<'_>,
    outcomes: &'o [Outcome<'_>],
    now: DateTime<Utc>,
) -> Result<Vec<Step<'o>>, Failure> {
    let mut steps = Vec::new();
    let mut inserting: Vec<_> = lines.lines.iter().filter(|l| matches!(l.kind, Kind::Insert(_))).map(|l| l.table).collect();
    inserting.sort_unstable();
    inserting.dedup();
    for table in inserting {
        let lock = connection.prepare(&"SELECT pg_advisory_xact_lock_shared($1)".into()).await?;
        steps.push((lock, vec![absence(schema, table).into()]));
    }
    for line in &lines.lines {
        steps.push(line.step(connection).await?);
    }
    let versions = kept(outcomes);
    if !versions.is_empty() {
        steps.push((connection.prepare(&history::KEEP.into()).await?, history::columns(&versions)?));
        for (table, limit) in limits(outcomes) {
            let keys = versions.iter().filter(|(of, _)| *of == table).map(|(_, record)| &record.key);
            steps.push((connection.prepare(&history::TRIM.into()).await?, history::trim(table, keys, limit)));
        }
    }
    if let Some(columns) = messages::columns(outcomes, now)? {
        steps.push((connection.prepare(&messages::INSERT.into()).await?, columns));
    }
    Ok(steps)
}

/// Tables that keep so many versions.
fn limits<'o>(outcomes: &'o [Outcome<'_>]) -> BTreeMap<&'o TableName, u32> {
    let changes = outcomes.iter().filter(|outcome| outcome.failed.is_none()).flat_map(|outcome| &outcome.changes);
    changes
        .filter_map(|change| match change.entry.schema().history {
            History::Keep(limit) => Some((change.table, limit)),
            _ => None,
        })
        .collect()
}

impl Line<'_> {
    async fn step(&self, connection: &Connection) -> Result<Step<'_>, Failure> {
        let (sql, schema) = (&self.entry.sql, self.entry.schema());
        Ok(match &self.kind {
            Kind::Insert(all) => (connection.prepare(&sql.insert).await?, Columns::of_records(schema, all.iter().copied())?),
            Kind::Update(all) => (connection.prepare(&sql.update).await?, Columns::of_records(schema, all.iter().copied())?),
            Kind::Delete(keys) => (connection.prepare(&sql.delete).await?, Columns::of_keys(schema, keys.iter().copied())),
        })
    }
}
