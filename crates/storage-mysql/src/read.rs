//! Reading records.
//!
//! Behind each statement comes the question whether the tables are still those that it was made for: then what it answered holds.

use std::collections::HashMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use mysql_async::Value;
use storage_core::{Error, Filter, Key, Page, Query, Record, Result, TableName, TableSchema};
use storage_sql::server::{history_version, keeps_history};
use storage_sql::{Statement, row};

use crate::catalog::{self, Catalog, Entry};
use crate::connection::Connection;
use crate::error::{MyResult, explain, is_about_schema};
use crate::history;
use crate::row::{Row, bound, key_values, text};
use crate::shared::Shared;
use crate::statements::{MAX_KEYS, fill};

/// How often a read is begun anew because tables have changed meanwhile.
const ATTEMPTS: usize = 5;
/// How many candidates are fetched at a time where the database can't decide all of a filter.
const CANDIDATES: u64 = 1_000;

/// One moment for several statements.
const SNAPSHOT: &str = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY";

/// An answer, and whether it was given for the tables as they are.
type Answer<T> = MyResult<Result<Option<T>>>;

/// Whoever reads, again and again until the tables hold still.
struct Steady<'s> {
    shared: &'s Shared,
    connection: &'s Connection,
    table: &'s TableName,
    catalog: Arc<Catalog>,
    attempts: usize,
}

impl<'s> Steady<'s> {
    async fn new(shared: &'s Shared, connection: &'s Connection, table: &'s TableName) -> Result<Self> {
        Ok(Self { shared, connection, table, catalog: shared.still(connection, vec![table]).await?, attempts: 0 })
    }

    /// The answer, if it holds. `None`: it is to be asked for anew.
    async fn judge<T>(&mut self, answer: Answer<T>) -> Result<Option<T>> {
        self.attempts += 1;
        let changing = || Error::unavailable("the tables are being changed all the time: try again");
        let error = match answer {
            Ok(Ok(Some(answer))) => return Ok(Some(answer)),
            Ok(Ok(None)) => changing(),
            // Somebody may have created the table, or the column.
            Ok(Err(error)) => error,
            Err(error) => {
                if self.connection.has_ended() || !is_about_schema(&error) {
                    let error = explain(error);
                    // Where that fails too, the connection has ended.
                    let _ = self.connection.batch("ROLLBACK").await;
                    return Err(error);
                }
                self.connection.batch("ROLLBACK").await.map_err(explain)?;
                explain(error)
            }
        };
        let before = self.catalog.generation;
        catalog::reload(&self.shared.catalog, self.connection).await?;
        self.catalog = self.shared.still(self.connection, vec![self.table]).await?;
        if self.catalog.generation == before || self.attempts == ATTEMPTS { Err(error) } else { Ok(None) }
    }
}

/// One statement and the question behind it.
async fn ask(connection: &Connection, tables: &Catalog, sql: &str, values: Vec<Value>) -> Answer<Vec<Row>> {
    let rows = connection.query(sql, values).await?;
    Ok(match catalog::generation(connection).await {
        Ok(generation) => Ok(Some(rows).filter(|_| tables.is_current(generation))),
        Err(error) => Err(error),
    })
}

/// Turns what [`ask`] answered into something else.
fn then<T>(answer: Result<Option<Vec<Row>>>, make: impl FnOnce(Vec<Row>) -> Result<T>) -> Result<Option<T>> {
    answer?.map(make).transpose()
}

/// The records with these keys, in their order.
pub(crate) async fn get(
    shared: &Shared,
    connection: &Connection,
    table: &TableName,
    keys: &[Key],
) -> Result<Vec<Option<Record>>> {
    let mut steady = Steady::new(shared, connection, table).await?;
    loop {
        let answer = by_keys(shared, connection, &steady.catalog, table, keys).await;
        if let Some(records) = steady.judge(answer).await? {
            return Ok(records);
        }
    }
}

async fn by_keys(
    shared: &Shared,
    connection: &Connection,
    tables: &Catalog,
    table: &TableName,
    keys: &[Key],
) -> Answer<Vec<Option<Record>>> {
    let entry =
        tables.table(table).and_then(|entry| keys.iter().try_for_each(|key| entry.schema().check_key(key)).map(|()| entry));
    let entry = match entry {
        Ok(entry) => entry,
        Err(error) => return Ok(Err(error)),
    };
    let (mut rows, mut same) = (Vec::new(), true);
    for keys in keys.chunks(MAX_KEYS) {
        let mut values = key_values(keys);
        let count = fill(&mut values, entry.sql.parts());
        let found = connection.query(&entry.sql.select(count), values).await?;
        same &= match catalog::number(&found, entry.sql.generation()) {
            Ok(generation) => tables.is_current(generation),
            Err(error) => return Ok(Err(error)),
        };
        rows.extend(found.into_iter().filter(Row::has_key));
    }
    let answer = Ok(Some(rows).filter(|_| same));
    Ok(then(answer, |rows| {
        let now = shared.time.now();
        let records = rows.iter().map(|found| row::read(found, entry.schema()));
        let mut records = records.filter(|record| record.as_ref().map_or(true, |record| !record.is_expired(now)));
        if let [_] = keys {
            return Ok(vec![records.next().transpose()?]);
        }
        let found: HashMap<Key, Record> = records.map(|r| r.map(|r| (r.key.clone(), r))).collect::<Result<_>>()?;
        Ok(keys.iter().map(|key| found.get(key).cloned()).collect())
    }))
}

/// One page.
pub(crate) async fn scan(shared: &Shared, connection: &Connection, query: &Query) -> Result<Page> {
    let mut steady = Steady::new(shared, connection, &query.table).await?;
    loop {
        let answer = page(shared, connection, &steady.catalog, query).await;
        if let Some(page) = steady.judge(answer).await? {
            return Ok(page);
        }
    }
}

async fn page(shared: &Shared, connection: &Connection, catalog: &Catalog, query: &Query) -> Answer<Page> {
    let now = shared.time.now();
    let plan = catalog.table(&query.table).and_then(|entry| Ok((entry, entry.table.scan(query, now)?)));
    let (entry, scan) = match plan {
        Ok(plan) => plan,
        Err(error) => return Ok(Err(error)),
    };
    let limit = usize::try_from(query.limit).unwrap_or(usize::MAX);
    let schema = entry.schema();
    let finish = |mut records: Vec<Record>| {
        // One more than fits tells whether there is a next page.
        let more = records.len() > limit;
        records.truncate(limit);
        let next = records.last().filter(|_| more).map(|last| query.token_after(schema, last));
        Page { records, next }
    };
    if let ([segment], Filter::All) = (scan.segments.as_slice(), &scan.rest) {
        let segment = segment.clone().with_limit(limit as u64 + 1);
        let answer = ask(connection, catalog, &segment.sql, values(&segment)).await?;
        return Ok(then(answer, |rows| Ok(finish(rows.iter().map(|found| row::read(found, schema)).collect::<Result<_>>()?))));
    }
    let mut records = Vec::new();
    let taken = candidates(connection, entry, query, now, |record| {
        records.extend(Some(record).filter(|record| scan.rest == Filter::All || scan.rest.matches(schema, record)));
        records.len() <= limit
    });
    let taken = taken.await?;
    end(connection, catalog, taken.map(|()| finish(records))).await
}

/// How many records match.
pub(crate) async fn count(shared: &Shared, connection: &Connection, query: &Query) -> Result<u64> {
    let mut steady = Steady::new(shared, connection, &query.table).await?;
    loop {
        let answer = number(shared, connection, &steady.catalog, query).await;
        if let Some(count) = steady.judge(answer).await? {
            return Ok(count);
        }
    }
}

async fn number(shared: &Shared, connection: &Connection, catalog: &Catalog, query: &Query) -> Answer<u64> {
    let now = shared.time.now();
    let plan = catalog.table(&query.table).and_then(|entry| Ok((entry, entry.table.count(query, now)?)));
    let (entry, (statement, rest)) = match plan {
        Ok(plan) => plan,
        Err(error) => return Ok(Err(error)),
    };
    if rest == Filter::All {
        let answer = ask(connection, catalog, &statement.sql, values(&statement)).await?;
        return Ok(then(answer, |rows| {
            let count = rows.first().map(|found| row::integer(found, 0)).transpose()?.flatten().unwrap_or(0);
            Ok(count.unsigned_abs())
        }));
    }
    let mut count = 0;
    let every = Query { order: Vec::new(), after: None, ..query.clone() };
    let counted = candidates(connection, entry, &every, now, |record| {
        count += u64::from(rest.matches(entry.schema(), &record));
        true
    });
    let counted = counted.await?;
    end(connection, catalog, counted.map(|()| count)).await
}

fn values(statement: &Statement) -> Vec<Value> {
    statement.values.iter().cloned().map(bound).collect()
}

/// Hands over the records that the database can't tell from those that are meant, in order, until `take` has enough: as of one moment, some at a time.
async fn candidates(
    connection: &Connection,
    entry: &Entry,
    query: &Query,
    now: DateTime<Utc>,
    mut take: impl FnMut(Record) -> bool,
) -> MyResult<Result<()>> {
    connection.batch(SNAPSHOT).await?;
    let mut query = query.clone();
    loop {
        let scan = match entry.table.scan(&query, now) {
            Ok(scan) => scan,
            Err(error) => return Ok(Err(error)),
        };
        let (mut fetched, mut last) = (0, None);
        for segment in scan.segments {
            let segment = segment.with_limit(CANDIDATES - fetched);
            for found in connection.query(&segment.sql, values(&segment)).await? {
                fetched += 1;
                let record = match row::read(&found, entry.schema()) {
                    Ok(record) => record,
                    Err(error) => return Ok(Err(error)),
                };
                if fetched == CANDIDATES {
                    last = Some(query.token_after(entry.schema(), &record));
                }
                if !take(record) {
                    return Ok(Ok(()));
                }
            }
        }
        match last {
            Some(token) => query.after = Some(token),
            None => return Ok(Ok(())),
        }
    }
}

/// Ends what [`candidates`] began; whether the tables are the same is asked as of the same moment.
async fn end<T>(connection: &Connection, tables: &Catalog, answer: Result<T>) -> Answer<T> {
    let generation = catalog::generation(connection).await;
    connection.batch("COMMIT").await?;
    Ok(match generation {
        Ok(generation) if tables.is_current(generation) => answer.map(Some),
        Ok(_) => Ok(None),
        Err(error) => Err(error),
    })
}

/// The kept versions of a record, newest first.
pub(crate) async fn history(shared: &Shared, connection: &Connection, table: &TableName, key: &Key) -> Result<Vec<Record>> {
    let mut steady = Steady::new(shared, connection, table).await?;
    loop {
        let answer = versions(connection, &steady.catalog, table, key).await;
        if let Some(versions) = steady.judge(answer).await? {
            return Ok(versions);
        }
    }
}

async fn versions(connection: &Connection, catalog: &Catalog, table: &TableName, key: &Key) -> Answer<Vec<Record>> {
    let kept = catalog.table(table).and_then(|entry| keeps_history(entry.schema(), key));
    if let Err(error) = kept {
        return Ok(Err(error));
    }
    let [hash, key_text] = history::place(key);
    let answer = ask(connection, catalog, history::READ, vec![text(table.as_str()), hash, key_text]).await?;
    Ok(then(answer, |rows| rows.iter().map(|found| history_version(found, key)).collect()))
}

/// All schemas, none of a table in the middle of a change.
pub(crate) async fn tables(shared: &Shared, connection: &Connection) -> Result<Vec<TableSchema>> {
    let tables = catalog::reload(&shared.catalog, connection).await?;
    let tables = shared.still(connection, tables.changing().collect()).await?;
    Ok(tables.schemas())
}
