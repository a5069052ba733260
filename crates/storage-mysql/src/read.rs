//! Reading records.
//!
//! Behind each statement comes the question whether the tables are still those that it was made for: then what it answered holds.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use mysql_async::Value;
use storage_core::{Key, Result, TableName, TableSchema};
use storage_sql::SqlValue;
use storage_sql::server::{Answered, Fault, Reader};

use crate::catalog::{self, Catalog, Entry};
use crate::connection::Connection;
use crate::error::{explain, is_about_schema};
use crate::history;
use crate::row::{Row, bound, key_values, text};
use crate::shared::Shared;
use crate::statements::{MAX_KEYS, Statements, fill};

/// One moment for several statements.
const SNAPSHOT: &str = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY";

/// A connection that reads.
pub(crate) struct Reading<'s> {
    pub(crate) shared: &'s Shared,
    pub(crate) connection: &'s Connection,
}

impl Reading<'_> {
    fn refused(&self, error: mysql_async::Error) -> Fault {
        let about_tables = !self.connection.has_ended() && is_about_schema(&error);
        Fault::Server { error: explain(error), about_tables }
    }

    /// One statement and the question behind it.
    async fn dated(&self, tables: &Catalog, sql: &str, values: Vec<Value>) -> Answered<Vec<Row>> {
        let rows = self.connection.query(sql, values).await.map_err(|error| self.refused(error))?;
        let generation = catalog::generation(self.connection).await?;
        Ok(tables.is_current(generation).then_some(rows))
    }
}

impl Reader for Reading<'_> {
    type Statements = Statements;
    type Row = Row;

    fn now(&self) -> DateTime<Utc> {
        self.shared.time.now()
    }

    async fn tables(&self, table: &TableName, anew: bool) -> Result<Arc<Catalog>> {
        if anew {
            catalog::reload(&self.shared.catalog, self.connection).await?;
        }
        self.shared.still(self.connection, vec![table]).await
    }

    async fn undo(&self, about_tables: bool) -> Result<()> {
        let undone = self.connection.batch("ROLLBACK").await;
        // Where that fails too, the connection has ended, and what the server has refused says more.
        if about_tables { undone.map_err(explain) } else { Ok(()) }
    }

    async fn ask(&self, tables: &Catalog, sql: &str, values: Vec<SqlValue<'_>>) -> Answered<Vec<Row>> {
        self.dated(tables, sql, values.into_iter().map(bound).collect()).await
    }

    async fn by_keys(&self, tables: &Catalog, entry: &Entry, keys: &[Key]) -> Answered<Vec<Row>> {
        let (mut rows, mut same) = (Vec::new(), true);
        for keys in keys.chunks(MAX_KEYS) {
            let mut values = key_values(keys);
            let count = fill(&mut values, entry.sql.parts());
            let found = self.connection.query(&entry.sql.select(count), values).await.map_err(|error| self.refused(error))?;
            same &= tables.is_current(catalog::number(&found, entry.sql.generation())?);
            rows.extend(found.into_iter().filter(Row::has_key));
        }
        Ok(same.then_some(rows))
    }

    async fn versions(&self, tables: &Catalog, table: &TableName, key: &Key) -> Answered<Vec<Row>> {
        let [hash, key] = history::place(key);
        self.dated(tables, history::READ, vec![text(table.as_str()), hash, key]).await
    }

    async fn begin(&self) -> std::result::Result<(), Fault> {
        self.connection.batch(SNAPSHOT).await.map_err(|error| self.refused(error))
    }

    async fn rows(&self, sql: &Arc<str>, values: Vec<SqlValue<'_>>) -> std::result::Result<Vec<Row>, Fault> {
        let values = values.into_iter().map(bound).collect();
        self.connection.query(sql, values).await.map_err(|error| self.refused(error))
    }

    async fn end(&self, tables: &Catalog) -> std::result::Result<bool, Fault> {
        let generation = catalog::generation(self.connection).await;
        self.connection.batch("COMMIT").await.map_err(|error| self.refused(error))?;
        Ok(tables.is_current(generation?))
    }
}

/// All schemas, none of a table in the middle of a change.
pub(crate) async fn tables(shared: &Shared, connection: &Connection) -> Result<Vec<TableSchema>> {
    let tables = catalog::reload(&shared.catalog, connection).await?;
    let tables = shared.still(connection, tables.changing().collect()).await?;
    Ok(tables.schemas())
}
