//! What tables there are: read anew whenever anybody has changed one.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use storage_core::{Error, Result, TableName, TableSchema};
use storage_sql::{Dialect, Table};
use tokio_postgres::Row;

use crate::connection::Connection;
use crate::error::OrExplain as _;
use crate::statements::Statements;

/// The number of changes so far.
pub(crate) const GENERATION: &str = "SELECT value FROM _storage_meta WHERE name = 'generation'";

/// The tables as of one generation.
#[derive(Debug, Default)]
pub(crate) struct Catalog {
    /// Zero: not yet read.
    pub(crate) generation: i64,
    tables: HashMap<TableName, Arc<Entry>>,
}

/// A table and the statements made for it.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) table: Table,
    pub(crate) sql: Statements,
}

impl Entry {
    fn new(schema: TableSchema) -> Self {
        let table = Table::new(Dialect::Postgres, schema);
        let sql = Statements::new(&table);
        Self { table, sql }
    }

    pub(crate) fn schema(&self) -> &TableSchema {
        self.table.schema()
    }

    /// True where writes have to happen one by one, since each may meet a value that is taken.
    pub(crate) fn has_unique(&self) -> bool {
        self.schema().columns.iter().any(|column| column.unique) || self.schema().indexes.iter().any(|index| index.unique)
    }
}

impl Catalog {
    /// Reads the tables. Those that are as in `before` keep their statements.
    pub(crate) async fn load(connection: &Connection, before: &Self) -> Result<Self> {
        // One statement, so that both are of one moment.
        let select = "SELECT (SELECT value FROM _storage_meta WHERE name = 'generation'), name, schema::text FROM (SELECT 1) one LEFT JOIN \
                      _storage_tables ON true";
        let rows = connection.query(select, Vec::new()).await.or_explain()?;
        let mut tables = HashMap::new();
        let mut generation = 0;
        for row in rows {
            generation = row.try_get::<_, Option<i64>>(0).or_explain()?.unwrap_or(0);
            let Some(name) = row.try_get::<_, Option<String>>(1).or_explain()? else { continue };
            let schema: TableSchema = serde_json::from_str(row.try_get(2).or_explain()?).map_err(|e| {
                Error::corrupt(format!("the schema of table `{name}` in `_storage_tables` can't be read: {e}")).with_source(e)
            })?;
            let entry = match before.tables.get(&schema.name) {
                Some(entry) if *entry.schema() == schema => Arc::clone(entry),
                _ => Arc::new(Entry::new(schema.clone())),
            };
            tables.insert(schema.name, entry);
        }
        if generation == 0 {
            return Err(Error::corrupt("`_storage_meta` has lost its `generation`: somebody else has changed it"));
        }
        Ok(Self { generation, tables })
    }

    /// The table of that name.
    pub(crate) fn table(&self, name: &TableName) -> Result<&Arc<Entry>> {
        self.tables.get(name).ok_or_else(|| Error::not_found(format!("there is no table `{name}`: create it first")))
    }

    /// The table of that name in whatever letter case.
    pub(crate) fn similar(&self, name: &TableName) -> Option<&Arc<Entry>> {
        self.tables
            .get(name)
            .or_else(|| self.tables.iter().find(|(n, _)| n.as_str().eq_ignore_ascii_case(name.as_str())).map(|(_, entry)| entry))
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.tables.values()
    }

    /// All schemas, by name.
    pub(crate) fn schemas(&self) -> Vec<TableSchema> {
        let mut schemas: Vec<_> = self.tables.values().map(|entry| entry.schema().clone()).collect();
        schemas.sort_by(|a, b| a.name.cmp(&b.name));
        schemas
    }

    /// True where what [`GENERATION`] answered is this one's.
    pub(crate) fn is_current(&self, answer: &[Row]) -> Result<bool> {
        let generation: i64 = match answer.first() {
            Some(row) => row.try_get(0).or_explain()?,
            None => 0,
        };
        Ok(self.generation != 0 && generation == self.generation)
    }
}

/// The newest catalog that anybody in this process has read.
#[derive(Debug, Default)]
pub(crate) struct SharedCatalog(RwLock<Arc<Catalog>>);

impl SharedCatalog {
    /// What is known; read first where nothing is.
    pub(crate) async fn get(&self, connection: &Connection) -> Result<Arc<Catalog>> {
        let known = self.known();
        if known.generation != 0 { Ok(known) } else { self.reload(connection).await }
    }

    pub(crate) fn known(&self) -> Arc<Catalog> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads it anew.
    pub(crate) async fn reload(&self, connection: &Connection) -> Result<Arc<Catalog>> {
        let catalog = Arc::new(Catalog::load(connection, &self.known()).await?);
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if catalog.generation > known.generation {
            *known = Arc::clone(&catalog);
        }
        Ok(catalog)
    }
}
