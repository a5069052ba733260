//! Reading records, on whatever server they are.
//!
//! An answer comes with the generation of the tables: where that is as it was when the statement was made, the answer holds.

use std::collections::HashMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use storage_core::{Error, Filter, Key, Page, Query, Record, Result, TableName};

use super::{Catalog, Entry, Statements, history_version, keeps_history};
use crate::row::{self, SqlRow};
use crate::{SqlValue, Statement};

/// How often a read is begun anew because tables have changed meanwhile.
const ATTEMPTS: usize = 5;
/// How many candidates are fetched at a time where the database can't decide all of a filter.
const CANDIDATES: u64 = 1_000;

/// Why there is no answer.
#[derive(Debug)]
pub enum Fault {
    /// It was found here, such as that there is no such table.
    Ours(Error),
    /// The server said so, or the connection is lost.
    Server {
        /// What was said.
        error: Error,
        /// True where the tables may be others than the statement takes them to be.
        about_tables: bool,
    },
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Ours(error)
    }
}

/// An answer; none where it was not given for the tables as they are.
pub type Answered<T> = std::result::Result<Option<T>, Fault>;

/// A connection that reads.
pub trait Reader: Sync {
    /// The statements of a table.
    type Statements: Statements;
    /// What it answers with.
    type Row: SqlRow + Send + Sync;

    /// The present.
    fn now(&self) -> DateTime<Utc>;

    /// The tables as they are known, or read `anew`; this one not in the middle of a change.
    fn tables(&self, table: &TableName, anew: bool) -> impl Future<Output = Result<Arc<Catalog<Self::Statements>>>> + Send;

    /// Ends what the server has refused, so that the connection can be used again.
    fn undo(&self, about_tables: bool) -> impl Future<Output = Result<()>> + Send;

    /// The rows of one statement, if `tables` are what they were when it was answered.
    fn ask(
        &self,
        tables: &Catalog<Self::Statements>,
        sql: &str,
        values: Vec<SqlValue<'_>>,
    ) -> impl Future<Output = Answered<Vec<Self::Row>>> + Send;

    /// The same for the rows with these keys, in whatever order.
    fn by_keys(
        &self,
        tables: &Catalog<Self::Statements>,
        entry: &Entry<Self::Statements>,
        keys: &[Key],
    ) -> impl Future<Output = Answered<Vec<Self::Row>>> + Send;

    /// The same for the kept versions of a record, newest first.
    fn versions(
        &self,
        tables: &Catalog<Self::Statements>,
        table: &TableName,
        key: &Key,
    ) -> impl Future<Output = Answered<Vec<Self::Row>>> + Send;

    /// Begins to read as of one moment.
    fn begin(&self) -> impl Future<Output = std::result::Result<(), Fault>> + Send;

    /// The rows of one statement of that moment.
    fn rows(
        &self,
        sql: &Arc<str>,
        values: Vec<SqlValue<'_>>,
    ) -> impl Future<Output = std::result::Result<Vec<Self::Row>, Fault>> + Send;

    /// Ends it. True where `tables` are those of that moment.
    fn end(&self, tables: &Catalog<Self::Statements>) -> impl Future<Output = std::result::Result<bool, Fault>> + Send;
}

/// What is asked of the records of a table.
pub trait Question: Sync {
    /// What is answered.
    type Answer: Send;

    /// The table.
    fn table(&self) -> &TableName;

    /// True where the answer may be of a while ago.
    fn may_be_stale(&self) -> bool;

    /// Asks once.
    fn ask<R: Reader>(&self, reader: &R, tables: &Catalog<R::Statements>) -> impl Future<Output = Answered<Self::Answer>> + Send;
}

/// The answer, asked for again and again until the tables hold still.
///
/// # Errors
/// [`NotFound`](storage_core::ErrorKind::NotFound) where there is no such table. [`Unavailable`](storage_core::ErrorKind::Unavailable) where the tables are
/// changed all the time. Those of the server.
pub async fn read<R: Reader, Q: Question>(reader: &R, question: &Q) -> Result<Q::Answer> {
    let mut tables = reader.tables(question.table(), false).await?;
    let mut attempts = 0;
    loop {
        attempts += 1;
        let error = match question.ask(reader, &tables).await {
            Ok(Some(answer)) => return Ok(answer),
            Ok(None) => Error::unavailable("the tables are being changed all the time: try again"),
            // Somebody may have created the table, or the column.
            Err(Fault::Ours(error)) => error,
            Err(Fault::Server { error, about_tables }) => {
                reader.undo(about_tables).await?;
                if !about_tables {
                    return Err(error);
                }
                error
            }
        };
        let before = tables.generation;
        tables = reader.tables(question.table(), true).await?;
        if tables.generation == before || attempts == ATTEMPTS {
            return Err(error);
        }
    }
}

/// The records with these keys, in their order.
#[derive(Debug)]
pub struct Get<'q> {
    /// The table.
    pub table: &'q TableName,
    /// The keys.
    pub keys: &'q [Key],
    /// True where the answer may be of a while ago.
    pub stale: bool,
}

impl Question for Get<'_> {
    type Answer = Vec<Option<Record>>;

    fn table(&self) -> &TableName {
        self.table
    }

    fn may_be_stale(&self) -> bool {
        self.stale
    }

    async fn ask<R: Reader>(&self, reader: &R, tables: &Catalog<R::Statements>) -> Answered<Self::Answer> {
        let entry = tables.table(self.table)?;
        self.keys.iter().try_for_each(|key| entry.schema().check_key(key))?;
        let Some(rows) = reader.by_keys(tables, entry, self.keys).await? else { return Ok(None) };
        let now = reader.now();
        let records = rows.iter().map(|found| row::read(found, entry.schema()));
        let mut records = records.filter(|record| record.as_ref().map_or(true, |record| !record.is_expired(now)));
        if let [_] = self.keys {
            return Ok(Some(vec![records.next().transpose()?]));
        }
        let found: HashMap<Key, Record> = records.map(|r| r.map(|r| (r.key.clone(), r))).collect::<Result<_>>()?;
        Ok(Some(self.keys.iter().map(|key| found.get(key).cloned()).collect()))
    }
}

/// One page.
#[derive(Debug)]
pub struct Scan<'q>(pub &'q Query);

impl Question for Scan<'_> {
    type Answer = Page;

    fn table(&self) -> &TableName {
        &self.0.table
    }

    fn may_be_stale(&self) -> bool {
        self.0.stale
    }

    async fn ask<R: Reader>(&self, reader: &R, tables: &Catalog<R::Statements>) -> Answered<Page> {
        let (query, now) = (self.0, reader.now());
        let entry = tables.table(&query.table)?;
        let scan = entry.table.scan(query, now)?;
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
            let Statement { sql, values } = segment.clone().with_limit(limit as u64 + 1);
            let Some(rows) = reader.ask(tables, &sql, values).await? else { return Ok(None) };
            return Ok(Some(finish(rows.iter().map(|found| row::read(found, schema)).collect::<Result<_>>()?)));
        }
        let mut records = Vec::new();
        let taken = candidates(reader, entry, query, now, |record| {
            records.extend(Some(record).filter(|record| scan.rest == Filter::All || scan.rest.matches(schema, record)));
            records.len() <= limit
        });
        let taken = taken.await;
        end(reader, tables, taken).await.map(|held| held.map(|()| finish(records)))
    }
}

/// How many records match.
#[derive(Debug)]
pub struct Count<'q>(pub &'q Query);

impl Question for Count<'_> {
    type Answer = u64;

    fn table(&self) -> &TableName {
        &self.0.table
    }

    fn may_be_stale(&self) -> bool {
        self.0.stale
    }

    async fn ask<R: Reader>(&self, reader: &R, tables: &Catalog<R::Statements>) -> Answered<u64> {
        let (query, now) = (self.0, reader.now());
        let entry = tables.table(&query.table)?;
        let (statement, rest) = entry.table.count(query, now)?;
        if rest == Filter::All {
            let Some(rows) = reader.ask(tables, &statement.sql, statement.values).await? else { return Ok(None) };
            let count = rows.first().map(|found| row::integer(found, 0)).transpose()?.flatten();
            return Ok(Some(count.unwrap_or(0).unsigned_abs()));
        }
        let mut count = 0;
        let every = Query { order: Vec::new(), after: None, ..query.clone() };
        let counted = candidates(reader, entry, &every, now, |record| {
            count += u64::from(rest.matches(entry.schema(), &record));
            true
        });
        let counted = counted.await;
        end(reader, tables, counted).await.map(|held| held.map(|()| count))
    }
}

/// The kept versions of a record, newest first.
#[derive(Debug)]
pub struct Versions<'q> {
    /// The table.
    pub table: &'q TableName,
    /// The record.
    pub key: &'q Key,
}

impl Question for Versions<'_> {
    type Answer = Vec<Record>;

    fn table(&self) -> &TableName {
        self.table
    }

    fn may_be_stale(&self) -> bool {
        false
    }

    async fn ask<R: Reader>(&self, reader: &R, tables: &Catalog<R::Statements>) -> Answered<Vec<Record>> {
        keeps_history(tables.table(self.table)?.schema(), self.key)?;
        let Some(rows) = reader.versions(tables, self.table, self.key).await? else { return Ok(None) };
        Ok(Some(rows.iter().map(|found| history_version(found, self.key)).collect::<Result<_>>()?))
    }
}

/// Hands over the records that the database can't tell from those that are meant, in order, until `take` has enough: as of one moment, some at a time.
async fn candidates<R: Reader>(
    reader: &R,
    entry: &Entry<R::Statements>,
    query: &Query,
    now: DateTime<Utc>,
    mut take: impl FnMut(Record) -> bool + Send,
) -> std::result::Result<(), Fault> {
    reader.begin().await?;
    let mut query = query.clone();
    loop {
        let scan = entry.table.scan(&query, now)?;
        let (mut fetched, mut last) = (0, None);
        for segment in scan.segments {
            let Statement { sql, values } = segment.with_limit(CANDIDATES - fetched);
            for found in reader.rows(&sql, values).await? {
                fetched += 1;
                let record = row::read(&found, entry.schema())?;
                if fetched == CANDIDATES {
                    last = Some(query.token_after(entry.schema(), &record));
                }
                if !take(record) {
                    return Ok(());
                }
            }
        }
        match last {
            Some(token) => query.after = Some(token),
            None => return Ok(()),
        }
    }
}

/// Ends what [`candidates`] began; whether the tables are the same is asked as of the same moment.
async fn end<R: Reader>(reader: &R, tables: &Catalog<R::Statements>, taken: std::result::Result<(), Fault>) -> Answered<()> {
    if let Err(Fault::Server { .. }) = taken {
        return taken.map(Some);
    }
    let is_current = reader.end(tables).await?;
    if is_current { taken.map(Some) } else { Ok(None) }
}
