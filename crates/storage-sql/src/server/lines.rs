//! What a group of works writes, as few statements as will do.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use storage_core::{Key, Record, TableName};

use super::{Change, Entry, Ground, Outcome, Statements};

/// One statement about rows of one table.
#[derive(Debug)]
pub struct Line<'o, S> {
    /// The table.
    pub entry: &'o Arc<Entry<S>>,
    /// Its name.
    pub table: &'o TableName,
    /// What is done to which rows.
    pub kind: Kind<'o>,
    /// The write that it stands for, or the first of them.
    pub write: usize,
}

/// What is done to rows.
#[derive(Debug)]
pub enum Kind<'o> {
    /// They are not there.
    Insert(Vec<&'o Record>),
    /// They are there.
    Update(Vec<&'o Record>),
    /// They are there.
    Delete(Vec<&'o Key>),
}

/// What becomes of one record, seen at the end.
struct Fate<'o, S> {
    entry: &'o Arc<Entry<S>>,
    was_row: bool,
    after: Option<&'o Record>,
    write: usize,
}

/// As few statements as will do. Tables with unique values go in order, since one record's value may be free because another gave it up.
pub fn in_bulk<'o, S: Statements>(outcomes: &'o [Outcome<'_, S>], ground: &Ground<'_>) -> Vec<Line<'o, S>> {
    let changes = outcomes.iter().filter(|outcome| outcome.failed.is_none()).flat_map(|outcome| &outcome.changes);
    let (unique, plain): (Vec<&Change<'_, S>>, Vec<&Change<'_, S>>) = changes.partition(|change| change.entry.has_unique());
    let mut fates: BTreeMap<&TableName, BTreeMap<&Key, Fate<'o, S>>> = BTreeMap::new();
    for change in plain {
        let was_row = ground.records.get(&(change.table, change.key)).is_some_and(|known| known.is_row);
        let fate = Fate { entry: &change.entry, was_row, after: change.after.as_deref(), write: change.write };
        fates.entry(change.table).or_default().insert(change.key, fate);
    }
    let mut lines = Vec::new();
    for (table, fates) in fates {
        lines.extend(of_table(table, &fates));
    }
    lines.extend(in_order(unique.into_iter(), ground, true));
    lines
}

/// Each write by itself, up to the one that fails.
pub fn one_by_one<'o, S: Statements>(outcomes: &'o [Outcome<'_, S>], ground: &Ground<'_>) -> Vec<Line<'o, S>> {
    in_order(outcomes.iter().flat_map(|outcome| &outcome.changes), ground, false)
}

fn of_table<'o, S>(table: &'o TableName, fates: &BTreeMap<&'o Key, Fate<'o, S>>) -> Vec<Line<'o, S>> {
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
fn in_order<'o, 'w: 'o, S>(
    changes: impl Iterator<Item = &'o Change<'w, S>>,
    ground: &Ground<'_>,
    grouped: bool,
) -> Vec<Line<'o, S>> {
    let mut rows: HashMap<(&TableName, &Key), bool> = HashMap::new();
    let mut lines: Vec<Line<'o, S>> = Vec::new();
    for change in changes {
        let place = (change.table, change.key);
        let is_row = rows.entry(place).or_insert_with(|| ground.records.get(&place).is_some_and(|known| known.is_row));
        let last = lines.last_mut().filter(|last| grouped && last.table == change.table);
        match (change.after.as_deref(), *is_row, last.map(|last| &mut last.kind)) {
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
