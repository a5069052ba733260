//! Reading what tables there are.

use std::sync::Arc;

use crate::row::Row;
use storage_core::Result;
use storage_sql::server::{self, SharedCatalog};
use storage_sql::{Dialect, Table, row};

use crate::connection::Connection;
use crate::error::OrExplain as _;
use crate::statements::Statements;

/// The number of changes so far.
pub(crate) const GENERATION: &str = "SELECT value FROM _storage_meta WHERE name = 'generation'";

pub(crate) type Catalog = server::Catalog<Statements>;
pub(crate) type Entry = server::Entry<Statements>;

impl server::Statements for Statements {
    const DIALECT: Dialect = Dialect::Postgres;

    fn new(table: &Table) -> Self {
        Self::of(table)
    }
}

/// Reads the tables. Those that are as in `before` keep their statements.
pub(crate) async fn load(connection: &Connection, before: &Catalog) -> Result<Catalog> {
    // One statement, so that both are of one moment.
    let select = "SELECT (SELECT value FROM _storage_meta WHERE name = 'generation'), name, schema FROM (SELECT 1) one LEFT JOIN \
                  _storage_tables ON true";
    let rows = connection.query(select, Vec::new()).await.or_explain()?;
    let generation = generation(&rows)?;
    let mut tables = Vec::new();
    for found in &rows {
        tables.extend(row::text(found, 1)?.zip(row::text(found, 2)?));
    }
    Catalog::new(generation, tables, before)
}

/// What is known; read first where nothing is.
pub(crate) async fn get(shared: &SharedCatalog<Statements>, connection: &Connection) -> Result<Arc<Catalog>> {
    let known = shared.known();
    if known.generation != 0 { Ok(known) } else { reload(shared, connection).await }
}

/// Reads it anew.
pub(crate) async fn reload(shared: &SharedCatalog<Statements>, connection: &Connection) -> Result<Arc<Catalog>> {
    Ok(shared.learn(load(connection, &shared.known()).await?))
}

/// What [`GENERATION`] answered; zero, where it is lost.
pub(crate) fn generation(answer: &[Row]) -> Result<i64> {
    Ok(answer.first().map(|found| row::integer(found, 0)).transpose()?.flatten().unwrap_or(0))
}
