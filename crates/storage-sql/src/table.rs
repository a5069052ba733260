//! A table and its SQL.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use sea_query::DynIden;
use storage_core::{ColumnName, ColumnType, TableSchema};

use crate::select::Shape;
use crate::{Dialect, WriteSql};

/// The system column of the record's version.
pub const VERSION: &str = "_version";
/// The system column of when the record was written.
pub const UPDATED_AT: &str = "_updated_at";
/// The system column of when the record expires.
pub const EXPIRES_AT: &str = "_expires_at";
/// The system column of the fields outside the schema, as one JSON object; NULL without any.
pub const EXTRA: &str = "_extra";

/// How many rendered statements a table keeps.
const MAX_SHAPES: usize = 256;

/// A table in a dialect: its schema, and the SQL for it, rendered once per shape.
pub struct Table {
    dialect: Dialect,
    schema: TableSchema,
    name: String,
    write: WriteSql,
    shapes: Mutex<HashMap<Shape, Arc<str>>>,
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table").field("dialect", &self.dialect).field("name", &self.name).finish_non_exhaustive()
    }
}

impl Table {
    /// The table of that schema.
    #[must_use]
    pub fn new(dialect: Dialect, schema: TableSchema) -> Self {
        let name = physical_name(dialect, schema.name.as_str());
        let write = WriteSql::new(dialect, &name, &schema);
        Self { dialect, schema, name, write, shapes: Mutex::default() }
    }

    /// Its schema.
    #[must_use]
    pub fn schema(&self) -> &TableSchema {
        &self.schema
    }

    /// Its dialect.
    #[must_use]
    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// Its name in the database, unquoted.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The statements that write single records.
    #[must_use]
    pub fn write(&self) -> &WriteSql {
        &self.write
    }

    /// The columns in the order in which every SELECT yields and every INSERT takes them: key columns, declared columns, then `_version`,
    /// `_updated_at`, `_expires_at`, `_extra`.
    #[must_use]
    pub fn columns(&self) -> Vec<&str> {
        column_names(&self.schema).chain([VERSION, UPDATED_AT, EXPIRES_AT, EXTRA]).collect()
    }

    /// The statement of that shape, from the cache or `render`.
    pub(crate) fn rendered(&self, shape: Shape, render: impl FnOnce(&Shape) -> String) -> Arc<str> {
        if let Some(sql) = self.shapes.lock().unwrap_or_else(PoisonError::into_inner).get(&shape) {
            return Arc::clone(sql);
        }
        let sql: Arc<str> = render(&shape).into();
        let mut shapes = self.shapes.lock().unwrap_or_else(PoisonError::into_inner);
        if shapes.len() >= MAX_SHAPES {
            shapes.clear();
        }
        shapes.insert(shape, Arc::clone(&sql));
        sql
    }

    /// The type of a key or declared column. `None`: it is outside the schema.
    pub(crate) fn kind(&self, column: &ColumnName) -> Option<ColumnType> {
        self.schema.resolve(column).ok().and_then(storage_core::ColumnRef::column_type)
    }

    /// True where no record lacks the column.
    pub(crate) fn is_required(&self, column: &ColumnName) -> bool {
        self.schema.column(column.as_str()).is_none_or(|c| c.required)
    }
}

/// Names of key and declared columns.
pub(crate) fn column_names(schema: &TableSchema) -> impl Iterator<Item = &str> {
    schema.key_columns().map(|k| k.name.as_str()).chain(schema.columns.iter().map(|c| c.name.as_str()))
}

/// Names of the key columns.
pub(crate) fn key_names(schema: &TableSchema) -> impl Iterator<Item = &str> {
    schema.key_columns().map(|k| k.name.as_str())
}

/// An identifier for sea-query, which quotes it.
pub(crate) fn ident(name: &str) -> DynIden {
    DynIden::from(name.to_owned())
}

/// SQLite keeps names that begin with `sqlite_` to itself; a point, which no name of ours has, gets around that.
fn physical_name(dialect: Dialect, name: &str) -> String {
    let reserved = name.get(..7).is_some_and(|head| head.eq_ignore_ascii_case("sqlite_"));
    if dialect == Dialect::Sqlite && reserved { format!(".{name}") } else { name.to_owned() }
}
