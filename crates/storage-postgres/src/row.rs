//! Records as rows.

use std::ops::Deref;

use crate::bind::{Cell, Param};
use crate::error::OrExplain as _;
use storage_core::{Key, Record, Result, TableSchema};
use storage_sql::{Dialect, SqlRow, SqlValue, encode_key_part, row};

/// Columns of arrays, filled row by row.
pub(crate) struct Columns<'a>(Vec<Vec<SqlValue<'a>>>);

impl<'a> Columns<'a> {
    /// The keys of a table, one array a part.
    pub(crate) fn of_keys(schema: &TableSchema, keys: impl IntoIterator<Item = &'a Key>) -> Vec<Param<'a>> {
        let mut columns = vec![Vec::new(); schema.key_columns().count()];
        for key in keys {
            for (column, part) in columns.iter_mut().zip(key.partition.iter().chain([&key.id])) {
                column.push(encode_key_part(part));
            }
        }
        columns.into_iter().map(Param::Many).collect()
    }

    /// One key, a value a part.
    pub(crate) fn of_key(key: &'a Key) -> Vec<Param<'a>> {
        key.partition.iter().chain([&key.id]).map(|part| Param::One(encode_key_part(part))).collect()
    }

    /// Whole records.
    pub(crate) fn of_records(schema: &TableSchema, records: impl IntoIterator<Item = &'a Record>) -> Result<Vec<Param<'a>>> {
        let keys = schema.key_columns().count();
        let mut columns = Self(vec![Vec::new(); keys + schema.columns.len() + 4]);
        for record in records {
            for (column, value) in columns.0.iter_mut().zip(row::values(Dialect::Postgres, schema, record)?) {
                column.push(value);
            }
        }
        Ok(columns.0.into_iter().map(Param::Many).collect())
    }
}

/// A row that the server answered with.
pub(crate) struct Row(pub(crate) tokio_postgres::Row);

impl Deref for Row {
    type Target = tokio_postgres::Row;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl SqlRow for Row {
    fn value(&self, column: usize) -> Result<SqlValue<'_>> {
        self.0.try_get::<_, Cell<'_>>(column).map(|cell| cell.0).or_explain()
    }
}
