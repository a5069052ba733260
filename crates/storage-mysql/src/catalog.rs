//! Reading what tables there are.

use std::collections::HashSet;
use std::sync::Arc;

use storage_core::{Error, Result, TableName};
use storage_sql::row;
use storage_sql::server::{self, SharedCatalog};

use crate::connection::Connection;
use crate::error::OrExplain as _;
use crate::row::Row;
use crate::statements::Statements;

/// The number of changes so far.
const GENERATION: &str = "SELECT value FROM _storage_meta WHERE name = 'generation'";

pub(crate) type Catalog = server::Catalog<Statements>;
pub(crate) type Entry = server::Entry<Statements>;

/// What is done to a table, in several steps, each of which the server keeps by itself: noted before the first of them, so that others finish what somebody
/// has left.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Doing {
    /// It is being made, and is not there yet.
    Create,
    /// It is being removed, and is gone already.
    Drop,
    /// Its columns are being changed. The schema is that of before.
    Alter(storage_core::SchemaChange),
    /// What is in its rows is being changed. The schema is that of afterwards.
    Tidy(storage_core::SchemaChange),
}

/// A table that is not as its schema says.
pub(crate) struct Left {
    pub(crate) name: TableName,
    pub(crate) schema: String,
    pub(crate) doing: Doing,
}

/// Reads the tables. Those that are as in `before` keep their statements. Those that are being changed come besides.
pub(crate) async fn load(connection: &Connection, before: &Catalog) -> Result<(Catalog, Vec<Left>)> {
    // One statement, so that all is of one moment.
    let select = "SELECT m.value, t.name, t.table_schema, t.doing FROM _storage_meta m LEFT JOIN _storage_tables t ON TRUE WHERE m.name = 'generation'";
    let rows = connection.query(select, Vec::new()).await.or_explain()?;
    let (mut tables, mut left) = (Vec::new(), Vec::new());
    for found in &rows {
        let Some((name, schema)) = row::text(found, 1)?.zip(row::text(found, 2)?) else { continue };
        match row::text(found, 3)? {
            None => tables.push((name, schema)),
            Some(doing) => {
                let doing = serde_json::from_str(&doing).map_err(|e| {
                    Error::corrupt(format!("what is done to table `{name}` can't be read in `_storage_tables`: {e}"))
                        .with_source(e)
                })?;
                left.push(Left { name: TableName::new(name)?, schema, doing });
            }
        }
    }
    let changing: HashSet<TableName> =
        left.iter().filter(|left| matches!(left.doing, Doing::Alter(_) | Doing::Tidy(_))).map(|left| left.name.clone()).collect();
    Ok((Catalog::new(number(&rows, 0)?, tables, before)?.with_changing(changing), left))
}

/// What is known; read first where nothing is.
pub(crate) async fn get(shared: &SharedCatalog<Statements>, connection: &Connection) -> Result<Arc<Catalog>> {
    let known = shared.known();
    if known.generation != 0 { Ok(known) } else { reload(shared, connection).await }
}

/// Reads it anew.
pub(crate) async fn reload(shared: &SharedCatalog<Statements>, connection: &Connection) -> Result<Arc<Catalog>> {
    Ok(shared.learn(load(connection, &shared.known()).await?.0))
}

/// The number of changes as of now; zero, where it is lost.
pub(crate) async fn generation(connection: &Connection) -> Result<i64> {
    number(&connection.query(GENERATION, Vec::new()).await.or_explain()?, 0)
}

/// The generation in that column.
pub(crate) fn number(rows: &[Row], column: usize) -> Result<i64> {
    Ok(rows.first().map(|found| row::integer(found, column)).transpose()?.flatten().unwrap_or(0))
}
