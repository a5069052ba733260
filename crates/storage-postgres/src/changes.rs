//! Writing what a group of works comes to.

use crate::row::Row;
use chrono::{DateTime, Utc};
use storage_core::TableName;
use storage_sql::server::{self, Kind, kept, limits};

use crate::connection::{Connection, Step};
use crate::plan::absence;
use crate::row::Columns;
use crate::statements::Statements;
use crate::{history, messages};

pub(crate) type Line<'o> = server::Line<'o, Statements>;
pub(crate) type Outcome<'w> = server::Outcome<'w, Statements>;

/// Statements in order.
pub(crate) struct Lines<'o>(pub(crate) Vec<Line<'o>>);

impl<'o> Lines<'o> {
    /// The tables that get new rows.
    fn inserting(&self) -> Vec<&'o TableName> {
        let inserts = self.0.iter().filter(|line| matches!(line.kind, Kind::Insert(_)));
        let mut tables: Vec<_> = inserts.map(|line| line.table).collect();
        tables.sort_unstable();
        tables.dedup();
        tables
    }

    /// The line of the statement at that place, behind the locks.
    pub(crate) fn get(&self, place: usize) -> Option<&Line<'o>> {
        self.0.get(place.checked_sub(self.inserting().len())?)
    }
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
    let mut steps = locks(connection, schema, lines).await?;
    steps.extend(rows(connection, lines, outcomes).await?);
    if let Some(columns) = messages::columns(outcomes, now)? {
        steps.push((connection.prepare(&messages::INSERT.into()).await?, columns));
    }
    Ok(connection.pipeline("", steps, end).await?)
}

/// The place of what failed before any statement was sent.
pub(crate) const BEFORE: usize = usize::MAX;

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
        Self::At(BEFORE, error)
    }
}

impl From<storage_core::Error> for Failure {
    fn from(error: storage_core::Error) -> Self {
        Self::Before(error)
    }
}

/// A share of the lock on what is not in a table, for each that gets rows.
pub(crate) async fn locks<'o>(connection: &Connection, schema: &str, lines: &Lines<'_>) -> Result<Vec<Step<'o>>, Failure> {
    let mut steps = Vec::new();
    for table in lines.inserting() {
        let lock = connection.prepare(&"SELECT pg_advisory_xact_lock_shared($1)".into()).await?;
        steps.push((lock, vec![absence(schema, table).into()]));
    }
    Ok(steps)
}

/// The statements about records, and their versions that are kept.
pub(crate) async fn rows<'o>(
    connection: &Connection,
    lines: &'o Lines<'_>,
    outcomes: &'o [Outcome<'_>],
) -> Result<Vec<Step<'o>>, Failure> {
    let mut steps = Vec::new();
    for line in &lines.0 {
        steps.push(step(line, connection).await?);
    }
    let versions = kept(outcomes);
    if !versions.is_empty() {
        steps.push((connection.prepare(&history::KEEP.into()).await?, history::columns(&versions)?));
        for (table, limit) in limits(outcomes) {
            let keys = versions.iter().filter(|(of, _)| *of == table).map(|(_, record)| &record.key);
            steps.push((connection.prepare(&history::TRIM.into()).await?, history::trim(table, keys, limit)));
        }
    }
    Ok(steps)
}

async fn step<'l>(line: &'l Line<'_>, connection: &Connection) -> Result<Step<'l>, Failure> {
    let (sql, schema) = (&line.entry.sql, line.entry.schema());
    Ok(match &line.kind {
        Kind::Insert(all) => (connection.prepare(&sql.insert).await?, Columns::of_records(schema, all.iter().copied())?),
        Kind::Update(all) => (connection.prepare(&sql.update).await?, Columns::of_records(schema, all.iter().copied())?),
        Kind::Delete(keys) => (connection.prepare(&sql.delete).await?, Columns::of_keys(schema, keys.iter().copied())),
    })
}
