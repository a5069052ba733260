//! What tables there are: read anew whenever anybody has changed the schema.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use rusqlite::Connection;
use storage_core::{Error, Result, TableName, TableSchema};
use storage_sql::{Dialect, Table};

use crate::connection::schema_cookie;
use crate::error::OrExplain;

/// How many statements that change single columns are kept per table.
const MAX_MERGES: usize = 64;

/// The tables as of one state of the database.
#[derive(Debug, Default)]
pub(crate) struct Catalog {
    /// SQLite's number of the state; it changes with every change of the schema.
    cookie: i64,
    tables: HashMap<TableName, Arc<Entry>>,
}

/// A table and the statements made for it.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) table: Table,
    merges: Mutex<HashMap<String, Arc<str>>>,
}

impl Entry {
    fn new(schema: TableSchema) -> Self {
        Self { table: Table::new(Dialect::Sqlite, schema), merges: Mutex::default() }
    }

    pub(crate) fn schema(&self) -> &TableSchema {
        self.table.schema()
    }

    /// The statement that changes these columns.
    pub(crate) fn merge<'a>(&self, columns: impl Iterator<Item = &'a str> + Clone, versioned: bool) -> Arc<str> {
        let mut shape = String::from(if versioned { "1" } else { "0" });
        for column in columns.clone() {
            shape.push(',');
            shape.push_str(column);
        }
        let mut merges = self.merges.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sql) = merges.get(&shape) {
            return Arc::clone(sql);
        }
        if merges.len() >= MAX_MERGES {
            merges.clear();
        }
        let columns: Vec<&str> = columns.collect();
        let sql: Arc<str> = self.table.write().merge(&columns, versioned).into();
        merges.insert(shape, Arc::clone(&sql));
        sql
    }
}

impl Catalog {
    /// Reads the tables, within a transaction. Those that are as in `before` keep their statements.
    pub(crate) fn load(connection: &Connection, before: &Self) -> Result<Self> {
        let cookie = schema_cookie(connection).or_explain()?;
        let mut select = connection.prepare_cached("SELECT name, schema FROM _storage_tables").or_explain()?;
        let mut rows = select.query([]).or_explain()?;
        let mut tables = HashMap::new();
        while let Some(row) = rows.next().or_explain()? {
            let name: String = row.get(0).or_explain()?;
            let schema: String = row.get(1).or_explain()?;
            let schema: TableSchema = serde_json::from_str(&schema).map_err(|e| {
                Error::corrupt(format!("the schema of table `{name}` in `_storage_tables` can't be read: {e}")).with_source(e)
            })?;
            let entry = match before.tables.get(&schema.name) {
                Some(entry) if *entry.schema() == schema => Arc::clone(entry),
                _ => Arc::new(Entry::new(schema.clone())),
            };
            tables.insert(schema.name, entry);
        }
        Ok(Self { cookie, tables })
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
}

/// The newest catalog that anybody in this process has read.
#[derive(Debug, Default)]
pub(crate) struct SharedCatalog(RwLock<Arc<Catalog>>);

impl SharedCatalog {
    pub(crate) fn get(&self) -> Arc<Catalog> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The catalog of the state that a transaction of `connection` sees.
    pub(crate) fn of(&self, connection: &Connection) -> Result<Arc<Catalog>> {
        let known = self.get();
        let cookie = schema_cookie(connection).or_explain()?;
        if known.cookie == cookie && cookie != 0 {
            return Ok(known);
        }
        let catalog = Arc::new(Catalog::load(connection, &known)?);
        self.publish(&catalog);
        Ok(catalog)
    }

    /// Makes a catalog known, unless a newer one is.
    pub(crate) fn publish(&self, catalog: &Arc<Catalog>) {
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if catalog.cookie > known.cookie {
            *known = Arc::clone(catalog);
        }
    }
}
