//! Writing what a group of works comes to.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use mysql_async::Value;
use storage_core::{Error, Record, TableName};
use storage_sql::server::{self, Kind, kept, limits};
use storage_sql::{Dialect, SqlValue, row};

use crate::connection::Connection;
use crate::error::MyResult;
use crate::layout::Found;
use crate::plan::share_absences;
use crate::row::{bound, key_values};
use crate::statements::{MAX_KEYS, Statements, fill};
use crate::{history, messages};

pub(crate) type Line<'o> = server::Line<'o, Statements>;
pub(crate) type Outcome<'w> = server::Outcome<'w, Statements>;

/// The line that failed, by its place, or what went wrong elsewhere.
pub(crate) enum Failure {
    At(usize, mysql_async::Error),
    Elsewhere(mysql_async::Error),
    Before(Error),
}

impl From<mysql_async::Error> for Failure {
    fn from(error: mysql_async::Error) -> Self {
        Self::Elsewhere(error)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Before(error)
    }
}

/// Writes everything but the end of the transaction. Messages have their numbers afterwards.
pub(crate) async fn write(
    connection: &Connection,
    found: &Found,
    lines: &[Line<'_>],
    outcomes: &[Outcome<'_>],
    now: DateTime<Utc>,
) -> Result<messages::Numbers, Failure> {
    let inserting: BTreeSet<&TableName> =
        lines.iter().filter(|line| matches!(line.kind, Kind::Insert(_))).map(|line| line.table).collect();
    for table in inserting {
        share_absences(connection, table).await?;
    }
    for (place, line) in lines.iter().enumerate() {
        let rows = rows(line)?;
        line_by_line(connection, found, line, rows).await.map_err(|error| Failure::At(place, error))?;
    }
    let versions = kept(outcomes);
    if !versions.is_empty() {
        history::keep(connection, history::rows(&versions)?, found.packet).await?;
        for (table, limit) in limits(outcomes) {
            let keys: BTreeSet<_> = versions.iter().filter(|(of, _)| *of == table).map(|(_, record)| &record.key).collect();
            history::trim(connection, table, &keys.into_iter().collect::<Vec<_>>(), limit).await?;
        }
    }
    messages::write(connection, found, outcomes, now).await
}

/// The rows that a line writes, each with about how many bytes it has.
fn rows(line: &Line<'_>) -> Result<Vec<(usize, Vec<Value>)>, Error> {
    let (Kind::Insert(records) | Kind::Update(records)) = &line.kind else { return Ok(Vec::new()) };
    let row = |record: &&Record| {
        let values = row::values(Dialect::MySql, line.entry.schema(), record)?;
        Ok((values.iter().map(size).sum(), values.into_iter().map(bound).collect()))
    };
    records.iter().map(row).collect()
}

fn size(value: &SqlValue<'_>) -> usize {
    match value {
        SqlValue::Text(text) | SqlValue::Json(text) => 16 + text.len(),
        SqlValue::Bytes(bytes) => 16 + bytes.len(),
        _ => 16,
    }
}

async fn line_by_line(connection: &Connection, found: &Found, line: &Line<'_>, rows: Vec<(usize, Vec<Value>)>) -> MyResult<()> {
    let sql = &line.entry.sql;
    match &line.kind {
        Kind::Insert(_) => {
            connection.in_portions(rows, sql.max_rows(), found.packet, |count| sql.insert(count, false)).await.map(drop)
        }
        // They are there and locked, so that it is their keys that are found taken, and not another value.
        Kind::Update(_) => {
            connection.in_portions(rows, sql.max_rows(), found.packet, |count| sql.insert(count, true)).await.map(drop)
        }
        Kind::Delete(keys) => {
            for keys in keys.chunks(MAX_KEYS) {
                let mut values = key_values(keys.iter().copied());
                let count = fill(&mut values, sql.parts());
                connection.execute(&sql.delete(count), values).await?;
            }
            Ok(())
        }
    }
}
