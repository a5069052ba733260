//! What tables there are: read anew whenever anybody has changed one. The number of changes so far, the generation, is in the database.

use std::collections::{HashMap, HashSet};
use std::fmt::Debug;
use std::sync::{Arc, PoisonError, RwLock};

use storage_core::{Error, Result, TableName, TableSchema};

use crate::{Dialect, Table};

/// The statements that a backend makes for a table, once.
pub trait Statements: Debug + Send + Sync + Sized + 'static {
    /// Of which dialect they are.
    const DIALECT: Dialect;

    /// Those of this table.
    fn new(table: &Table) -> Self;
}

/// The tables as of one generation.
#[derive(Debug)]
pub struct Catalog<S> {
    /// Zero: not yet read.
    pub generation: i64,
    tables: HashMap<TableName, Arc<Entry<S>>>,
    /// Tables that somebody is just changing, which nobody can use meanwhile.
    changing: HashSet<TableName>,
}

/// A table and the statements made for it.
#[derive(Debug)]
pub struct Entry<S> {
    /// The table.
    pub table: Table,
    /// Its statements.
    pub sql: S,
}

impl<S: Statements> Entry<S> {
    fn new(schema: TableSchema) -> Self {
        let table = Table::new(S::DIALECT, schema);
        let sql = S::new(&table);
        Self { table, sql }
    }

    /// Its schema.
    pub fn schema(&self) -> &TableSchema {
        self.table.schema()
    }

    /// True where writes have to happen one by one, since each may meet a value that is taken.
    pub fn has_unique(&self) -> bool {
        self.schema().columns.iter().any(|column| column.unique) || self.schema().indexes.iter().any(|index| index.unique)
    }
}

impl<S> Default for Catalog<S> {
    fn default() -> Self {
        Self { generation: 0, tables: HashMap::new(), changing: HashSet::new() }
    }
}

impl<S: Statements> Catalog<S> {
    /// The tables of these names with these schemas, as JSON. Those that are as in `before` keep their statements.
    ///
    /// # Errors
    /// [`Corrupt`](storage_core::ErrorKind::Corrupt) where a schema can't be read, or there is no generation.
    pub fn new(generation: i64, tables: impl IntoIterator<Item = (String, String)>, before: &Self) -> Result<Self> {
        if generation == 0 {
            return Err(Error::corrupt("`_storage_meta` has lost its `generation`: somebody else has changed it"));
        }
        let mut found = HashMap::new();
        for (name, schema) in tables {
            let schema: TableSchema = serde_json::from_str(&schema).map_err(|e| {
                Error::corrupt(format!("the schema of table `{name}` in `_storage_tables` can't be read: {e}")).with_source(e)
            })?;
            let entry = match before.tables.get(&schema.name) {
                Some(entry) if *entry.schema() == schema => Arc::clone(entry),
                _ => Arc::new(Entry::new(schema.clone())),
            };
            found.insert(schema.name, entry);
        }
        Ok(Self { generation, tables: found, changing: HashSet::new() })
    }

    /// The same, with tables that somebody is just changing.
    #[must_use]
    pub fn with_changing(self, changing: HashSet<TableName>) -> Self {
        Self { changing, ..self }
    }

    /// True where somebody is just changing the table.
    #[must_use]
    pub fn is_changing(&self, name: &TableName) -> bool {
        self.changing.contains(name)
    }

    /// The tables that somebody is just changing.
    pub fn changing(&self) -> impl Iterator<Item = &TableName> {
        self.changing.iter()
    }

    /// The table of that name.
    ///
    /// # Errors
    /// [`NotFound`](storage_core::ErrorKind::NotFound). [`Unavailable`](storage_core::ErrorKind::Unavailable) while somebody changes it.
    pub fn table(&self, name: &TableName) -> Result<&Arc<Entry<S>>> {
        let missing = || match self.is_changing(name) {
            true => Error::unavailable(format!("table `{name}` is just being changed: try again")),
            false => Error::not_found(format!("there is no table `{name}`: create it first")),
        };
        self.tables.get(name).ok_or_else(missing)
    }

    /// The table of that name in whatever letter case.
    pub fn similar(&self, name: &TableName) -> Option<&Arc<Entry<S>>> {
        self.tables
            .get(name)
            .or_else(|| self.tables.iter().find(|(n, _)| n.as_str().eq_ignore_ascii_case(name.as_str())).map(|(_, entry)| entry))
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Entry<S>>> {
        self.tables.values()
    }

    /// All schemas, by name.
    pub fn schemas(&self) -> Vec<TableSchema> {
        let mut schemas: Vec<_> = self.tables.values().map(|entry| entry.schema().clone()).collect();
        schemas.sort_by(|a, b| a.name.cmp(&b.name));
        schemas
    }

    /// True where the tables are still those of this one.
    #[must_use]
    pub fn is_current(&self, generation: i64) -> bool {
        self.generation != 0 && generation == self.generation
    }
}

/// The newest catalog that anybody in this process has read.
#[derive(Debug)]
pub struct SharedCatalog<S>(RwLock<Arc<Catalog<S>>>);

impl<S> Default for SharedCatalog<S> {
    fn default() -> Self {
        Self(RwLock::default())
    }
}

impl<S: Statements> SharedCatalog<S> {
    /// What is known.
    pub fn known(&self) -> Arc<Catalog<S>> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes note of a catalog that was just read.
    pub fn learn(&self, catalog: Catalog<S>) -> Arc<Catalog<S>> {
        let catalog = Arc::new(catalog);
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if catalog.generation > known.generation {
            *known = Arc::clone(&catalog);
        }
        catalog
    }
}

/// Whether a table that is there is the one that is wanted.
///
/// # Errors
/// [`AlreadyExists`](storage_core::ErrorKind::AlreadyExists) where it is another. `false` otherwise, which is what creating it answers.
pub fn is_same(there: &TableSchema, wanted: &TableSchema) -> Result<bool> {
    if there.name != wanted.name {
        let message = format!("there is a table `{}`, and letter case does not distinguish tables", there.name);
        return Err(Error::already_exists(message));
    }
    match there.difference(wanted) {
        None => Ok(false),
        Some(difference) => Err(Error::already_exists(format!("it is there with another schema: {difference}"))),
    }
}
