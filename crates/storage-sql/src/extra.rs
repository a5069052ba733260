//! Fields outside the schema, where a schema is about to change.

use storage_core::{Column, ColumnName, Error, Fields, Result, TableName, value};

/// A column can't be called as a field outside the schema is.
#[must_use]
pub fn is_a_field(table: &TableName, field: &ColumnName) -> Error {
    Error::already_exists(format!("records of table `{table}` have a field `{field}` outside the schema"))
}

/// A table that takes no such fields has some.
#[must_use]
pub fn has_fields(table: &TableName, field: &str) -> Error {
    Error::invalid(format!("records of table `{table}` have fields outside the schema: `{field}`"))
}

/// Takes the field that becomes the column, as the column holds it.
///
/// # Errors
/// [`InvalidInput`](storage_core::ErrorKind::InvalidInput) for a value that it can't hold.
pub fn adopt_field(fields: &mut Fields, column: &Column) -> Result<serde_json::Value> {
    let value = fields.remove(column.name.as_str()).unwrap_or_default();
    value::canonical(column.kind, value).map_err(|e| {
        Error::invalid(format!("a record has a field `{}` that can't become the column: {}", column.name, e.message()))
    })
}
