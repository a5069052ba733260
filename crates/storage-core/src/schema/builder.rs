//! [`SchemaBuilder`].

use serde_json::Value;

use super::{Column, ColumnType, History, Index, KeyColumn, KeyType, TableSchema, Undeclared};
use crate::value::canonical;
use crate::{ColumnName, Error, IndexName, Result, TableName};

/// Builds a [`TableSchema`]. `required`, `unique` and `default` speak of the column added last.
#[derive(Debug, Default)]
pub struct SchemaBuilder {
    name: String,
    partition: Option<(String, KeyType)>,
    id: Option<(String, KeyType)>,
    columns: Vec<(String, ColumnType, bool, bool, Option<Value>)>,
    indexes: Vec<(String, Vec<String>, bool)>,
    undeclared: Undeclared,
    history: History,
    misuse: Option<&'static str>,
}

impl SchemaBuilder {
    pub(super) fn new(name: String) -> Self {
        Self { name, ..Default::default() }
    }

    /// The id column, of text. Without it: `id`.
    #[must_use]
    pub fn key(self, name: impl Into<String>) -> Self {
        self.key_of(name, KeyType::Text)
    }

    /// The id column, of a type.
    #[must_use]
    pub fn key_of(mut self, name: impl Into<String>, kind: KeyType) -> Self {
        self.id = Some((name.into(), kind));
        self
    }

    /// The partition column, of a type: makes the key one of two parts.
    #[must_use]
    pub fn partition(mut self, name: impl Into<String>, kind: KeyType) -> Self {
        self.partition = Some((name.into(), kind));
        self
    }

    /// Adds a column.
    #[must_use]
    pub fn column(mut self, name: impl Into<String>, kind: ColumnType) -> Self {
        self.columns.push((name.into(), kind, false, false, None));
        self
    }

    /// A record without the column added last is refused.
    #[must_use]
    pub fn required(mut self) -> Self {
        match self.columns.last_mut() {
            Some(column) => column.2 = true,
            None => self.misuse = Some("`required` comes behind the column that it speaks of"),
        }
        self
    }

    /// No two records have the same value in the column added last.
    #[must_use]
    pub fn unique(mut self) -> Self {
        match self.columns.last_mut() {
            Some(column) => column.3 = true,
            None => self.misuse = Some("`unique` comes behind the column that it speaks of"),
        }
        self
    }

    /// What a record put without the column added last gets.
    #[must_use]
    pub fn default(mut self, value: impl Into<Value>) -> Self {
        match self.columns.last_mut() {
            Some(column) => column.4 = Some(value.into()),
            None => self.misuse = Some("`default` comes behind the column that it speaks of"),
        }
        self
    }

    /// Adds an index.
    #[must_use]
    pub fn index<C: Into<String>>(mut self, name: impl Into<String>, columns: impl IntoIterator<Item = C>) -> Self {
        self.indexes.push((name.into(), columns.into_iter().map(Into::into).collect(), false));
        self
    }

    /// Adds a unique index.
    #[must_use]
    pub fn unique_index<C: Into<String>>(mut self, name: impl Into<String>, columns: impl IntoIterator<Item = C>) -> Self {
        self.indexes.push((name.into(), columns.into_iter().map(Into::into).collect(), true));
        self
    }

    /// Keeps fields that the schema does not name.
    #[must_use]
    pub fn keep_undeclared(mut self) -> Self {
        self.undeclared = Undeclared::Keep;
        self
    }

    /// Keeps earlier versions.
    #[must_use]
    pub fn history(mut self, history: History) -> Self {
        self.history = history;
        self
    }

    /// Checks everything.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) saying what is wrong.
    pub fn build(self) -> Result<TableSchema> {
        if let Some(misuse) = self.misuse {
            return Err(Error::invalid(format!("schema of table `{}`: {misuse}", self.name)));
        }
        let key_column = |(name, kind): (String, KeyType)| Ok::<_, Error>(KeyColumn { name: ColumnName::new(name)?, kind });
        let columns = self.columns.into_iter().map(|(name, kind, required, unique, default)| {
            let name = ColumnName::new(name)?;
            let default = default.map(|value| canonical(kind, value)).transpose()?;
            Ok(Column { name, kind, required, unique, default })
        });
        let indexes = self.indexes.into_iter().map(|(name, columns, unique)| {
            let columns = columns.into_iter().map(ColumnName::new).collect::<Result<_>>()?;
            Ok(Index { name: IndexName::new(name)?, columns, unique })
        });
        let schema = TableSchema {
            name: TableName::new(&self.name)?,
            partition: self.partition.map(key_column).transpose()?,
            id: key_column(self.id.unwrap_or_else(|| ("id".into(), KeyType::Text)))?,
            columns: columns.collect::<Result<_>>()?,
            indexes: indexes.collect::<Result<_>>()?,
            undeclared: self.undeclared,
            history: self.history,
        };
        schema.check()?;
        Ok(schema)
    }
}
