//! Reading records.
//!
//! Each statement answers, beside its rows, how often the tables have been changed: where that is as it was when the statement was made, its answer holds.

use std::collections::HashMap;
use std::sync::Arc;

use crate::row::Row;
use chrono::{DateTime, Utc};
use storage_core::{Error, Filter, Key, Page, Query, Record, Result, TableName};
use storage_sql::server::{history_key, history_version, keeps_history};
use storage_sql::{SqlRow, SqlValue, Statement, row};

use crate::bind::Param;
use crate::catalog::{self, Catalog, Entry, GENERATION};
use crate::connection::Connection;
use crate::error::{PgResult, explain, is_about_schema};
use crate::history;
use crate::row::Columns;
use crate::shared::Shared;

/// How often a read is begun anew because tables have changed meanwhile.
const ATTEMPTS: usize = 5;
/// How many candidates are fetched at a time where the database can't decide all of a filter.
const CANDIDATES: u64 = 1_000;

/// An answer, and whether it was given for the tables as they are.
type Answer<T> = PgResult<Result<Option<T>>>;

/// Whoever reads, again and again until the tables hold still.
struct Steady<'s> {
    shared: &'s Shared,
    connection: &'s Connection,
    catalog: Arc<Catalog>,
    attempts: usize,
}

impl<'s> Steady<'s> {
    async fn new(shared: &'s Shared, connection: &'s Connection) -> Result<Self> {
        Ok(Self { shared, connection, catalog: catalog::get(&shared.catalog, connection).await?, attempts: 0 })
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
                let _ = self.connection.batch("ROLLBACK").await;
                if !is_about_schema(&error) {
                    return Err(explain(error));
                }
                self.connection.forget_statements();
                explain(error)
            }
        };
        let before = self.catalog.generation;
        self.catalog = catalog::reload(&self.shared.catalog, self.connection).await?;
        if self.catalog.generation == before || self.attempts == ATTEMPTS { Err(error) } else { Ok(None) }
    }
}

/// What a statement of [`ask`] answered: the rows, each with the generation before it.
struct Dated(Vec<Row>);

impl Dated {
    fn rows(&self) -> impl Iterator<Item = Behind<'_>> {
        self.0.iter().map(Behind)
    }
}

/// A row without its first column.
struct Behind<'r>(&'r Row);

impl SqlRow for Behind<'_> {
    fn value(&self, column: usize) -> Result<SqlValue<'_>> {
        self.0.value(column + 1)
    }
}

/// Asks, and for the generation as of the same moment. Where there are no rows that could tell it, it is asked for afterwards: it only grows.
async fn ask(connection: &Connection, tables: &Catalog, sql: &str, values: Vec<Param<'_>>) -> Answer<Dated> {
    let Some(rest) = sql.strip_prefix("SELECT ") else { return Ok(Err(Error::internal("a read that is no SELECT"))) };
    let dated: Arc<str> = format!("SELECT ({GENERATION}), {rest}").into();
    let rows = connection.rows(&connection.prepare(&dated).await?, values).await?;
    let generation = match rows.first() {
        Some(_) => catalog::generation(&rows),
        None => catalog::generation(&connection.query(GENERATION, Vec::new()).await?),
    };
    Ok(generation.map(|generation| tables.is_current(generation).then_some(Dated(rows))))
}

/// Turns what [`ask`] answered into something else.
fn then<T>(answer: Result<Option<Dated>>, make: impl FnOnce(Dated) -> Result<T>) -> Result<Option<T>> {
    answer?.map(make).transpose()
}

/// The records with these keys, in their order.
pub(crate) async fn get(
    shared: &Shared,
    connection: &Connection,
    table: &TableName,
    keys: &[Key],
) -> Result<Vec<Option<Record>>> {
    let mut steady = Steady::new(shared, connection).await?;
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
    catalog: &Catalog,
    table: &TableName,
    keys: &[Key],
) -> Answer<Vec<Option<Record>>> {
    let entry =
        catalog.table(table).and_then(|entry| keys.iter().try_for_each(|key| entry.schema().check_key(key)).map(|()| entry));
    let entry = match entry {
        Ok(entry) => entry,
        Err(error) => return Ok(Err(error)),
    };
    let answer = ask(connection, catalog, &entry.sql.select, Columns::of_keys(entry.schema(), keys)).await?;
    Ok(then(answer, |dated| {
        let now = shared.time.now();
        let records = dated.rows().map(|found| row::read(&found, entry.schema()));
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
    let mut steady = Steady::new(shared, connection).await?;
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
        return Ok(then(answer, |dated| Ok(finish(dated.rows().map(|found| row::read(&found, schema)).collect::<Result<_>>()?))));
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
    let mut steady = Steady::new(shared, connection).await?;
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
        return Ok(then(answer, |dated| {
            let count = dated.rows().next().map(|found| row::integer(&found, 0)).transpose()?.flatten();
            Ok(count.unwrap_or(0).unsigned_abs())
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

fn values(statement: &Statement) -> Vec<Param<'_>> {
    statement.values.iter().cloned().map(Param::One).collect()
}

/// Hands over the records that the database can't tell from those that are meant, in order, until `take` has enough: as of one moment, some at a time.
async fn candidates(
    connection: &Connection,
    entry: &Entry,
    query: &Query,
    now: DateTime<Utc>,
    mut take: impl FnMut(Record) -> bool,
) -> PgResult<Result<()>> {
    connection.batch("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    let mut query = query.clone();
    loop {
        let scan = match entry.table.scan(&query, now) {
            Ok(scan) => scan,
            Err(error) => return Ok(Err(error)),
        };
        let (mut fetched, mut last) = (0, None);
        for segment in scan.segments {
            let segment = segment.with_limit(CANDIDATES - fetched);
            let statement = connection.prepare(&segment.sql).await?;
            for found in connection.rows(&statement, values(&segment)).await? {
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
    let generation = connection.query(GENERATION, Vec::new()).await?;
    connection.batch("COMMIT").await?;
    match catalog::generation(&generation) {
        Ok(generation) if tables.is_current(generation) => Ok(answer.map(Some)),
        Ok(_) => Ok(Ok(None)),
        Err(error) => Ok(Err(error)),
    }
}

/// The kept versions of a record, newest first.
pub(crate) async fn history(shared: &Shared, connection: &Connection, table: &TableName, key: &Key) -> Result<Vec<Record>> {
    let mut steady = Steady::new(shared, connection).await?;
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
    let text = SqlValue::Text(history_key(key).into());
    let answer = ask(connection, catalog, history::READ, vec![table.as_str().into(), text.into()]).await?;
    Ok(then(answer, |dated| dated.rows().map(|found| history_version(&found, key)).collect()))
}
