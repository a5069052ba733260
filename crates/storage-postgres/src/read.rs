//! Reading records.
//!
//! Each statement answers, beside its rows, how often the tables have been changed: where that is as it was when the statement was made, its answer holds.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use storage_core::{Error, Key, Result, TableName};
use storage_sql::server::{Answered, Fault, Reader, history_key};
use storage_sql::{SqlRow, SqlValue};

use crate::bind::Param;
use crate::catalog::{self, Catalog, Entry, GENERATION};
use crate::connection::Connection;
use crate::error::{explain, is_about_schema};
use crate::history;
use crate::row::{Columns, Row};
use crate::shared::Shared;
use crate::statements::Statements;

/// One moment for several statements.
const SNAPSHOT: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

/// A connection that reads.
pub(crate) struct Reading<'s> {
    pub(crate) shared: &'s Shared,
    pub(crate) connection: &'s Connection,
}

/// A row, behind the columns that are none of the question's.
pub(crate) struct Behind {
    row: Row,
    columns: usize,
}

impl SqlRow for Behind {
    fn value(&self, column: usize) -> Result<SqlValue<'_>> {
        self.row.value(column + self.columns)
    }
}

fn refused(error: tokio_postgres::Error) -> Fault {
    let about_tables = is_about_schema(&error);
    Fault::Server { error: explain(error), about_tables }
}

fn bound(values: Vec<SqlValue<'_>>) -> Vec<Param<'_>> {
    values.into_iter().map(Param::One).collect()
}

impl Reading<'_> {
    /// Asks, and for the generation as of the same moment. Where there are no rows that could tell it, it is asked for afterwards: it only grows.
    async fn dated(&self, tables: &Catalog, sql: &str, values: Vec<Param<'_>>) -> Answered<Vec<Behind>> {
        let rest = sql.strip_prefix("SELECT ").ok_or_else(|| Error::internal("a read that is no SELECT"))?;
        let dated: Arc<str> = format!("SELECT ({GENERATION}), {rest}").into();
        let statement = self.connection.prepare(&dated).await.map_err(refused)?;
        let rows = self.connection.rows(&statement, values).await.map_err(refused)?;
        let generation = match rows.first() {
            Some(_) => catalog::generation(&rows)?,
            None => catalog::generation(&self.connection.query(GENERATION, Vec::new()).await.map_err(refused)?)?,
        };
        let behind = |rows: Vec<Row>| rows.into_iter().map(|row| Behind { row, columns: 1 }).collect();
        Ok(tables.is_current(generation).then(|| behind(rows)))
    }
}

impl Reader for Reading<'_> {
    type Statements = Statements;
    type Row = Behind;

    fn now(&self) -> DateTime<Utc> {
        self.shared.time.now()
    }

    async fn tables(&self, _table: &TableName, anew: bool) -> Result<Arc<Catalog>> {
        let catalog = &self.shared.catalog;
        if anew { catalog::reload(catalog, self.connection).await } else { catalog::get(catalog, self.connection).await }
    }

    async fn undo(&self, about_tables: bool) -> Result<()> {
        let _ = self.connection.batch("ROLLBACK").await;
        if about_tables {
            self.connection.forget_statements();
        }
        Ok(())
    }

    async fn ask(&self, tables: &Catalog, sql: &str, values: Vec<SqlValue<'_>>) -> Answered<Vec<Behind>> {
        self.dated(tables, sql, bound(values)).await
    }

    async fn by_keys(&self, tables: &Catalog, entry: &Entry, keys: &[Key]) -> Answered<Vec<Behind>> {
        match keys {
            [key] => self.dated(tables, &entry.sql.select_one, Columns::of_key(key)).await,
            keys => self.dated(tables, &entry.sql.select, Columns::of_keys(entry.schema(), keys)).await,
        }
    }

    async fn versions(&self, tables: &Catalog, table: &TableName, key: &Key) -> Answered<Vec<Behind>> {
        let text = SqlValue::Text(history_key(key).into());
        self.dated(tables, history::READ, vec![table.as_str().into(), text.into()]).await
    }

    async fn begin(&self) -> std::result::Result<(), Fault> {
        self.connection.batch(SNAPSHOT).await.map_err(refused)
    }

    async fn rows(&self, sql: &Arc<str>, values: Vec<SqlValue<'_>>) -> std::result::Result<Vec<Behind>, Fault> {
        let statement = self.connection.prepare(sql).await.map_err(refused)?;
        let rows = self.connection.rows(&statement, bound(values)).await.map_err(refused)?;
        Ok(rows.into_iter().map(|row| Behind { row, columns: 0 }).collect())
    }

    async fn end(&self, tables: &Catalog) -> std::result::Result<bool, Fault> {
        let generation = self.connection.query(GENERATION, Vec::new()).await.map_err(refused)?;
        self.connection.batch("COMMIT").await.map_err(refused)?;
        Ok(tables.is_current(catalog::generation(&generation)?))
    }
}
