//! Reading records from a snapshot.

use rusqlite::CachedStatement;
use storage_core::{Error, Filter, History, Key, Page, Query, Record, Result, TableName};
use storage_sql::Statement;

use crate::error::OrExplain;
use crate::history;
use crate::reader::Snapshot;
use crate::row::{self, Binder, Bound};

/// The records with these keys, in their order.
pub(crate) fn get(snapshot: &Snapshot<'_>, table: &TableName, keys: &[Key]) -> Result<Vec<Option<Record>>> {
    let entry = snapshot.catalog.table(table)?;
    let mut select = snapshot.connection.prepare_cached(&entry.table.write().select).or_explain()?;
    let mut one = |key: &Key| {
        Binder::new(&mut select).key(entry.schema(), key)?;
        let mut rows = select.raw_query();
        let record = rows.next().or_explain()?.map(|row| row::read(row, entry.schema())).transpose()?;
        Ok(record.filter(|record| record.expires_at.is_none_or(|at| at > snapshot.now())))
    };
    keys.iter().map(&mut one).collect()
}

/// One page.
pub(crate) fn scan(snapshot: &Snapshot<'_>, query: &Query) -> Result<Page> {
    let entry = snapshot.catalog.table(&query.table)?;
    let schema = entry.schema();
    let scan = entry.table.scan(query, snapshot.now())?;
    let limit = usize::try_from(query.limit).unwrap_or(usize::MAX);
    let mut records: Vec<Record> = Vec::with_capacity(limit.min(1_024));
    let mut more = false;
    'page: for segment in scan.segments {
        // One more than fits tells whether there is a next page. Where some candidates will fall through, there is no telling how many it takes.
        let rows = if scan.rest == Filter::All { (limit - records.len()) as u64 + 1 } else { u64::MAX };
        let segment = segment.with_limit(rows);
        let mut select = prepare(snapshot, &segment)?;
        let mut rows = select.raw_query();
        while let Some(row) = rows.next().or_explain()? {
            let record = if records.len() < limit || scan.rest != Filter::All { Some(row::read(row, schema)?) } else { None };
            if record.as_ref().is_some_and(|r| scan.rest != Filter::All && !scan.rest.matches(schema, r)) {
                continue;
            }
            if records.len() == limit {
                more = true;
                break 'page;
            }
            records.extend(record);
        }
    }
    let next = records.last().filter(|_| more).map(|last| query.token_after(schema, last));
    Ok(Page { records, next })
}

/// How many records match.
pub(crate) fn count(snapshot: &Snapshot<'_>, query: &Query) -> Result<u64> {
    let entry = snapshot.catalog.table(&query.table)?;
    let (statement, rest) = entry.table.count(query, snapshot.now())?;
    let mut select = prepare(snapshot, &statement)?;
    let mut rows = select.raw_query();
    let mut count = 0;
    while let Some(row) = rows.next().or_explain()? {
        if rest == Filter::All {
            return row.get(0).map(i64::unsigned_abs).or_explain();
        }
        count += u64::from(rest.matches(entry.schema(), &row::read(row, entry.schema())?));
    }
    Ok(count)
}

fn prepare<'c>(snapshot: &Snapshot<'c>, statement: &Statement) -> Result<CachedStatement<'c>> {
    let mut select = snapshot.connection.prepare_cached(&statement.sql).or_explain()?;
    let mut binder = Binder::new(&mut select);
    statement.values.iter().try_for_each(|value| binder.bind(Bound(value)))?;
    Ok(select)
}

/// The kept versions of a record, newest first.
pub(crate) fn history(snapshot: &Snapshot<'_>, table: &TableName, key: &Key) -> Result<Vec<Record>> {
    let entry = snapshot.catalog.table(table)?;
    entry.schema().check_key(key)?;
    if entry.schema().history == History::None {
        return Err(Error::unsupported(format!("table `{table}` keeps no history: create it with `history`, or alter it")));
    }
    history::read(snapshot.connection, table, key)
}
