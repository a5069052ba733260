//! Schemas of tables.

mod builder;
mod change;
mod check;
mod column;

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use builder::SchemaBuilder;
pub use change::SchemaChange;
pub use column::{Column, ColumnRef, ColumnType, Index, KeyColumn, KeyType};

use crate::record::Fields;
use crate::value::{self, canonical, check_json};
use crate::{ColumnName, Error, Key, KeyPart, Result, TableName};

/// How many columns a table may have.
pub const MAX_COLUMNS: usize = 500;
/// How many indexes a table may have.
pub const MAX_INDEXES: usize = 32;
/// Tables whose names begin so belong to the backends.
pub const RESERVED_TABLE_PREFIX: &str = "_storage";

/// What happens to fields that the schema does not name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Undeclared {
    /// The record is refused.
    #[default]
    Reject,
    /// They are kept, and can be filtered on.
    Keep,
}

/// How many versions of a record are kept for [`history`](crate::RecordBackend::history).
///
/// As text: `none`, `{ keep = 10 }`, `keep_all`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum History {
    /// The current one alone; `history` is refused.
    #[default]
    None,
    /// The newest so many, the current one included, also after the record is deleted.
    Keep(u32),
    /// All of them, also after the record is deleted.
    #[serde(alias = "keepall")]
    KeepAll,
}

/// A table: its key, columns and indexes.
///
/// ```
/// use storage_core::{ColumnType, TableSchema};
/// let schema = TableSchema::builder("invoices")
///     .key("number")
///     .column("customer", ColumnType::Text).required()
///     .column("cents", ColumnType::Integer).default(0)
///     .index("by_customer", ["customer", "cents"])
///     .build()?;
/// assert_eq!(schema.columns.len(), 2);
/// # Ok::<(), storage_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TableSchema {
    /// The table's name.
    pub name: TableName,
    /// The first key column of a table with two.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition: Option<KeyColumn>,
    /// The key column, unique within the partition.
    pub id: KeyColumn,
    /// The declared columns.
    #[serde(default)]
    pub columns: Vec<Column>,
    /// The indexes.
    #[serde(default)]
    pub indexes: Vec<Index>,
    /// What happens to other fields.
    #[serde(default)]
    pub undeclared: Undeclared,
    /// How many versions are kept.
    #[serde(default)]
    pub history: History,
}

impl TableSchema {
    /// Starts a schema. Names are checked by [`build`](SchemaBuilder::build).
    pub fn builder(name: impl Into<String>) -> SchemaBuilder {
        SchemaBuilder::new(name.into())
    }

    /// The declared column of that name.
    #[must_use]
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|c| c.name == name)
    }

    /// What `name` refers to.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for a name the schema does not have and does not let through, with the nearest that it has.
    pub fn resolve(&self, name: &ColumnName) -> Result<ColumnRef> {
        if let Some(partition) = self.partition.as_ref().filter(|p| p.name == *name) {
            return Ok(ColumnRef::Partition(partition.kind));
        }
        if self.id.name == *name {
            return Ok(ColumnRef::Id(self.id.kind));
        }
        if let Some(column) = self.column(name.as_str()) {
            return Ok(ColumnRef::Declared(column.kind));
        }
        match self.undeclared {
            Undeclared::Keep => Ok(ColumnRef::Undeclared),
            Undeclared::Reject => Err(self.unknown_column(name.as_str())),
        }
    }

    fn unknown_column(&self, name: &str) -> Error {
        let known = self.key_columns().map(|k| k.name.as_str()).chain(self.columns.iter().map(|c| c.name.as_str()));
        let hint = crate::nearest(name, known).map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
        Error::invalid(format!("table `{}` has no column {}{hint}", self.name, value::excerpt(name)))
    }

    /// The key columns: partition (where there is one), then id.
    pub fn key_columns(&self) -> impl Iterator<Item = &KeyColumn> {
        self.partition.iter().chain(std::iter::once(&self.id))
    }

    /// The key that a name stands for which a backend made of one: its parts, with `between` in the middle where there are two, each as `part` reads it by its type.
    /// `None`: no key of this table. Whoever has several names for one key still has to tell which of them is its own.
    pub fn key_of_name(&self, name: &str, between: &str, part: impl Fn(KeyType, &str) -> Option<KeyPart>) -> Option<Key> {
        let (partition, id) = match (&self.partition, name.split_once(between)) {
            (Some(column), Some((first, second))) => (Some(part(column.kind, first)?), second),
            (None, None) => (None, name),
            _ => return None,
        };
        Some(Key { partition, id: part(self.id.kind, id)? })
    }

    /// Checks that `key` has the parts and types of this table's key.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput).
    pub fn check_key(&self, key: &Key) -> Result<()> {
        key.check()?;
        match (&self.partition, &key.partition) {
            (Some(column), None) => {
                return Err(Error::invalid(format!(
                    "a key of table `{}` has two parts, `{}` and `{}`; {key:?} has one",
                    self.name, column.name, self.id.name
                )));
            }
            (None, Some(_)) => {
                return Err(Error::invalid(format!(
                    "a key of table `{}` has one part, `{}`; `{key}` has two",
                    self.name, self.id.name
                )));
            }
            _ => {}
        }
        for (column, part) in self.key_columns().zip(key.partition.iter().chain([&key.id])) {
            if !column.kind.accepts(part) {
                return Err(Error::invalid(format!(
                    "key column `{}` of table `{}` holds {}, not {part:?}",
                    column.name,
                    self.name,
                    column.kind.column_type().article()
                )));
            }
        }
        Ok(())
    }

    /// The fields of a whole record in canonical form: defaults filled in, nulls left out, everything checked.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) naming the column.
    pub fn canonical_record(&self, fields: Fields) -> Result<Fields> {
        let mut canonical = self.canonical_fields(fields)?;
        for column in &self.columns {
            if canonical.get(column.name.as_str()).is_some_and(|v| !v.is_null()) {
                continue;
            }
            match &column.default {
                Some(default) => drop(canonical.insert(column.name.to_string(), default.clone())),
                None if column.required => return Err(self.missing(column)),
                None => {}
            }
        }
        canonical.retain(|_, value| !value.is_null());
        Ok(canonical)
    }

    /// The changed fields of a merge in canonical form; `null` stays and means: remove it.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) naming the column, also where a required one would be removed.
    pub fn canonical_merge(&self, fields: Fields) -> Result<Fields> {
        let canonical = self.canonical_fields(fields)?;
        let removed = self.columns.iter().find(|c| c.required && canonical.get(c.name.as_str()).is_some_and(Value::is_null));
        removed.map_or(Ok(canonical), |column| Err(self.missing(column)))
    }

    fn missing(&self, column: &Column) -> Error {
        Error::invalid(format!("table `{}` requires a value for column `{}`", self.name, column.name))
    }

    fn canonical_fields(&self, fields: Fields) -> Result<Fields> {
        fields
            .into_iter()
            .map(|(name, value)| {
                let value = self.canonical_field(&name, value)?;
                Ok((name, value))
            })
            .collect()
    }

    fn canonical_field(&self, name: &str, field: Value) -> Result<Value> {
        if let Some(column) = self.column(name) {
            return canonical(column.kind, field)
                .map_err(|e| Error::invalid(format!("column `{}` of table `{}`: {}", column.name, self.name, e.message())));
        }
        if self.key_columns().any(|k| k.name == *name) {
            return Err(Error::invalid(format!(
                "`{name}` is a key column of table `{}`: give it in the key, not in the fields",
                self.name
            )));
        }
        if self.undeclared == Undeclared::Reject {
            return Err(self.unknown_column(name));
        }
        if name.is_empty() || name.len() > 255 || name.chars().any(char::is_control) {
            return Err(Error::invalid(format!(
                "{} can't name a field: use 1 to 255 bytes without control characters",
                value::excerpt(name)
            )));
        }
        check_json(&field).map_err(|e| Error::invalid(format!("field `{name}` of table `{}`: {}", self.name, e.message())))?;
        Ok(field)
    }

    /// Every set of columns whose values must be unique together: unique columns, then unique indexes.
    pub fn unique_sets(&self) -> impl Iterator<Item = &[ColumnName]> {
        let columns = self.columns.iter().filter(|c| c.unique).map(|c| std::slice::from_ref(&c.name));
        columns.chain(self.indexes.iter().filter(|i| i.unique).map(|i| i.columns.as_slice()))
    }

    /// The first difference from `other`, in words; `None` where they are the same (the order of columns and indexes does not count).
    #[must_use]
    pub fn difference(&self, other: &Self) -> Option<String> {
        if self.partition != other.partition || self.id != other.id {
            return Some("the key columns differ".into());
        }
        if self.undeclared != other.undeclared {
            return Some(format!("undeclared is {:?}, not {:?}", other.undeclared, self.undeclared));
        }
        if self.history != other.history {
            return Some(format!("history is {:?}, not {:?}", other.history, self.history));
        }
        let columns = first_difference("column", &self.columns, &other.columns, |c| c.name.as_str());
        columns.or_else(|| first_difference("index", &self.indexes, &other.indexes, |i| i.name.as_str()))
    }
}

fn first_difference<T: PartialEq + fmt::Debug>(
    what: &str,
    mine: &[T],
    theirs: &[T],
    name: impl Fn(&T) -> &str,
) -> Option<String> {
    for item in mine {
        match theirs.iter().find(|t| name(t) == name(item)) {
            None => return Some(format!("{what} `{}` is not there", name(item))),
            Some(their) if their != item => return Some(format!("{what} `{}` differs", name(item))),
            Some(_) => {}
        }
    }
    let extra = theirs.iter().find(|t| mine.iter().all(|m| name(m) != name(t)))?;
    Some(format!("{what} `{}` is there already", name(extra)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::record::fields;

    fn invoices() -> TableSchema {
        TableSchema::builder("invoices")
            .key_of("number", KeyType::Integer)
            .column("customer", ColumnType::Text)
            .required()
            .column("cents", ColumnType::Integer)
            .default(0)
            .column("due", ColumnType::Timestamp)
            .index("by_customer", ["customer"])
            .build()
            .unwrap()
    }

    #[test]
    fn a_whole_record_gets_defaults_and_loses_nulls() {
        let record = invoices().canonical_record(fields(json!({"customer": "acme", "due": null}))).unwrap();
        assert_eq!(record, fields(json!({"customer": "acme", "cents": 0})));
    }

    #[test]
    fn bad_records_name_the_column() {
        for (bad, part) in [
            (json!({}), "requires a value for column `customer`"),
            (json!({"customer": 1}), "column `customer`"),
            (json!({"customer": "a", "cent": 1}), "did you mean `cents`"),
            (json!({"customer": "a", "number": 1}), "is a key column"),
        ] {
            let error = invoices().canonical_record(fields(bad)).unwrap_err();
            assert!(error.message().contains(part), "{error}");
        }
        assert!(invoices().canonical_merge(fields(json!({"customer": null}))).is_err());
        assert!(invoices().canonical_merge(fields(json!({"due": null}))).is_ok());
    }

    #[test]
    fn history_as_text() {
        let read = |text: &str| serde_json::from_str::<History>(text).unwrap();
        assert_eq!(serde_json::to_string(&History::KeepAll).unwrap(), r#""keep_all""#);
        assert_eq!(
            (read(r#""keep_all""#), read(r#"{"keep": 3}"#), read(r#""none""#)),
            (History::KeepAll, History::Keep(3), History::None)
        );
        assert_eq!(read(r#""keepall""#), History::KeepAll, "as it was written before");
    }

    #[test]
    fn keys_are_read_from_names() {
        let part = |kind: KeyType, text: &str| match kind {
            KeyType::Integer => text.parse().ok().map(KeyPart::Integer),
            KeyType::Text => Some(KeyPart::from(text)),
        };
        let two = TableSchema::builder("t").partition("p", KeyType::Text).key_of("n", KeyType::Integer).build().unwrap();
        for (schema, name, key) in [
            (&invoices(), "7", Some(Key::from(7))),
            (&invoices(), "x", None),
            (&invoices(), "a--7", None),
            (&two, "a--7", Some(("a", 7).into())),
            (&two, "a--x", None),
            (&two, "7", None),
        ] {
            assert_eq!(schema.key_of_name(name, "--", part), key, "{name}");
        }
    }

    #[test]
    fn keys_are_checked_against_the_schema() {
        let schema = invoices();
        assert!(schema.check_key(&Key::from(1)).is_ok());
        assert!(schema.check_key(&Key::from("1")).is_err());
        assert!(schema.check_key(&Key::from((1, 1))).is_err());
    }
}
