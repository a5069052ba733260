//! Whether a schema holds together.

use std::collections::HashSet;

use super::{ColumnRef, ColumnType, History, MAX_COLUMNS, MAX_INDEXES, RESERVED_TABLE_PREFIX, TableSchema};
use crate::value::canonical;
use crate::{Error, Result};

impl TableSchema {
    /// Checks the schema as a whole: names, duplicates (letter case does not distinguish columns), indexes, defaults.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) saying what is wrong.
    pub fn check(&self) -> Result<()> {
        let fail = |what: String| Err(Error::invalid(format!("schema of table `{}`: {what}", self.name)));
        if self.name.as_str().to_ascii_lowercase().starts_with(RESERVED_TABLE_PREFIX) {
            return fail(format!("names beginning with `{RESERVED_TABLE_PREFIX}` are reserved"));
        }
        if self.columns.len() > MAX_COLUMNS || self.indexes.len() > MAX_INDEXES {
            return fail(format!("{MAX_COLUMNS} columns and {MAX_INDEXES} indexes at most"));
        }
        let mut seen = HashSet::new();
        let names = self.key_columns().map(|k| &k.name).chain(self.columns.iter().map(|c| &c.name));
        for name in names {
            if name.as_str().starts_with('_') {
                return fail(format!("column `{name}`: names beginning with `_` are reserved"));
            }
            if !seen.insert(name.as_str().to_ascii_lowercase()) {
                return fail(format!("column `{name}` is there twice (letter case does not count)"));
            }
        }
        for column in &self.columns {
            if let Some(default) = &column.default
                && canonical(column.kind, default.clone()).ok().as_ref() != Some(default)
            {
                return fail(format!(
                    "the default of column `{}` is not {} in canonical form",
                    column.name,
                    column.kind.article()
                ));
            }
            if column.unique && column.kind == ColumnType::Json {
                return fail(format!("column `{}` holds JSON and can't be unique", column.name));
            }
        }
        if matches!(self.history, History::Keep(0)) {
            return fail("history: keep at least 1 version, or none".into());
        }
        self.check_indexes()
    }

    fn check_indexes(&self) -> Result<()> {
        let fail = |what: String| Err(Error::invalid(format!("schema of table `{}`: {what}", self.name)));
        let mut seen = HashSet::new();
        for index in &self.indexes {
            if !seen.insert(index.name.as_str().to_ascii_lowercase()) {
                return fail(format!("index `{}` is there twice", index.name));
            }
            if index.columns.is_empty() || index.columns.len() > 8 {
                return fail(format!("index `{}` needs 1 to 8 columns", index.name));
            }
            for name in &index.columns {
                match self.resolve(name)? {
                    ColumnRef::Undeclared => return fail(format!("index `{}`: column `{name}` is not declared", index.name)),
                    column if column.column_type().is_some_and(|kind| kind == ColumnType::Json) => {
                        return fail(format!("index `{}`: column `{name}` holds JSON", index.name));
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SchemaBuilder;

    #[test]
    fn bad_schemas_are_refused() {
        let build = |b: SchemaBuilder| b.build().unwrap_err().to_string();
        assert!(build(TableSchema::builder("_storage_x")).contains("reserved"));
        assert!(build(TableSchema::builder("t").column("_x", ColumnType::Text)).contains("reserved"));
        assert!(build(TableSchema::builder("t").column("ID", ColumnType::Text)).contains("twice"));
        assert!(build(TableSchema::builder("t").index("i", ["nope"])).contains("no column"));
        assert!(build(TableSchema::builder("t").required()).contains("comes behind"));
        assert!(build(TableSchema::builder("t").column("n", ColumnType::Integer).default("x")).contains("not an integer"));
    }
}
