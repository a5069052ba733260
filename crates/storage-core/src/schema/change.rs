//! [`SchemaChange`]: how a table is changed and keeps its records.

use serde::{Deserialize, Serialize};

use super::{Column, ColumnRef, History, Index, TableSchema, Undeclared};
use crate::record::Fields;
use crate::value::canonical;
use crate::{ColumnName, Error, IndexName, Result};

/// A change of a table that keeps its records.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SchemaChange {
    /// Adds a column. A required one needs a default, which existing records get.
    AddColumn(Column),
    /// Removes a column and its values. Refused while an index uses it.
    DropColumn(ColumnName),
    /// Renames a column, in indexes too.
    RenameColumn {
        /// The column as it is called now.
        from: ColumnName,
        /// What it is to be called.
        to: ColumnName,
    },
    /// Adds an index.
    AddIndex(Index),
    /// Removes an index.
    DropIndex(IndexName),
    /// Changes what is done with fields outside the schema. To `Reject` is refused while there are any.
    SetUndeclared(Undeclared),
    /// Changes how many versions are kept, from the next write of each record on.
    SetHistory(History),
}

impl SchemaChange {
    /// The schema after this change.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound), [`AlreadyExists`](crate::ErrorKind::AlreadyExists) or
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) where the change does not fit the schema.
    pub fn apply(&self, schema: &TableSchema) -> Result<TableSchema> {
        let mut after = schema.clone();
        match self {
            Self::AddColumn(column) => {
                if after.resolve(&column.name).is_ok_and(|found| found != ColumnRef::Undeclared) {
                    return Err(Error::already_exists(format!("table `{}` has a column `{}`", schema.name, column.name)));
                }
                if column.required && column.default.is_none() {
                    return Err(Error::invalid(format!(
                        "a required column needs a default for the records that are there: `{}`",
                        column.name
                    )));
                }
                after.columns.push(column.clone());
            }
            Self::DropColumn(name) => {
                let position = schema.position(name)?;
                if let Some(index) = after.indexes.iter().find(|i| i.columns.contains(name)) {
                    return Err(Error::invalid(format!("index `{}` uses column `{name}`: drop the index first", index.name)));
                }
                after.columns.remove(position);
            }
            Self::RenameColumn { from, to } => {
                let position = schema.position(from)?;
                if after.resolve(to).is_ok_and(|found| found != ColumnRef::Undeclared) {
                    return Err(Error::already_exists(format!("table `{}` has a column `{to}`", schema.name)));
                }
                after.columns[position].name = to.clone();
                for column in after.indexes.iter_mut().flat_map(|i| &mut i.columns).filter(|c| *c == from) {
                    *column = to.clone();
                }
            }
            Self::AddIndex(index) => {
                if after.indexes.iter().any(|i| i.name == index.name) {
                    return Err(Error::already_exists(format!("table `{}` has an index `{}`", schema.name, index.name)));
                }
                after.indexes.push(index.clone());
            }
            Self::DropIndex(name) => {
                let before = after.indexes.len();
                after.indexes.retain(|i| i.name != *name);
                if after.indexes.len() == before {
                    return Err(Error::not_found(format!("table `{}` has no index `{name}`", schema.name)));
                }
            }
            Self::SetUndeclared(undeclared) => after.undeclared = *undeclared,
            Self::SetHistory(history) => after.history = *history,
        }
        after.check()?;
        Ok(after)
    }

    /// What a stored record's fields become under this change.
    pub fn apply_to_fields(&self, fields: &mut Fields) {
        match self {
            Self::AddColumn(Column { name, default: Some(default), .. }) => {
                fields.entry(name.as_str()).or_insert_with(|| default.clone());
            }
            Self::DropColumn(name) => drop(fields.remove(name.as_str())),
            Self::RenameColumn { from, to } => {
                if let Some(value) = fields.remove(from.as_str()) {
                    fields.insert(to.to_string(), value);
                }
            }
            _ => {}
        }
    }
}

/// For backends that change records as they alter the table, or later, as they read them.
impl SchemaChange {
    /// Changes a stored record's fields; `after` is the schema after this change.
    ///
    /// # Errors
    /// [`AlreadyExists`](crate::ErrorKind::AlreadyExists) or [`InvalidInput`](crate::ErrorKind::InvalidInput) where a field from outside the schema is in
    /// the way: the table can't be changed so.
    pub fn alter_fields(&self, after: &TableSchema, fields: &mut Fields) -> Result<()> {
        if let Self::RenameColumn { to, .. } = self
            && fields.contains_key(to.as_str())
        {
            return Err(Error::already_exists(format!("it has a field `{to}` outside the schema")));
        }
        self.apply_to_fields(fields);
        match self {
            Self::AddColumn(column) => adopt(column, fields),
            Self::SetUndeclared(Undeclared::Reject) => match fields.keys().find(|name| after.column(name).is_none()) {
                Some(name) => Err(Error::invalid(format!("field `{name}` is outside the schema"))),
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }

    /// Makes of a record's fields, written before this change, what they are after it. They were held against the change when it was made; of others
    /// (older versions) it makes what it can.
    pub fn carry_fields(&self, fields: &mut Fields) {
        self.apply_to_fields(fields);
        if let Self::AddColumn(column) = self {
            adopt(column, fields).unwrap_or_default();
        }
    }

    /// True where the change of `before` asks something of the records that are there, so that each has to be looked at.
    #[must_use]
    pub fn concerns_records(&self, before: &TableSchema) -> bool {
        let keeps = before.undeclared == Undeclared::Keep;
        match self {
            Self::AddColumn(_) | Self::RenameColumn { .. } => keeps,
            Self::SetUndeclared(undeclared) => keeps && *undeclared == Undeclared::Reject,
            _ => false,
        }
    }
}

/// A field that was outside the schema becomes the value of a new column of its name.
fn adopt(column: &Column, fields: &mut Fields) -> Result<()> {
    if let Some(found) = fields.get_mut(column.name.as_str()) {
        *found = canonical(column.kind, found.clone())?;
    }
    Ok(())
}

impl TableSchema {
    fn position(&self, name: &ColumnName) -> Result<usize> {
        let position = self.columns.iter().position(|c| c.name == *name);
        position.ok_or_else(|| match self.key_columns().any(|k| k.name == *name) {
            true => Error::invalid(format!("`{name}` is a key column of table `{}` and can't be changed", self.name)),
            false => Error::not_found(format!("table `{}` has no column `{name}`", self.name)),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::ColumnType;
    use crate::record::fields;

    fn invoices() -> TableSchema {
        let builder = TableSchema::builder("invoices").key("number").column("customer", ColumnType::Text).required();
        builder.index("by_customer", ["customer"]).build().unwrap()
    }

    #[test]
    fn changes_apply_to_schema_and_fields() {
        let schema = invoices();
        let rename = SchemaChange::RenameColumn { from: "customer".try_into().unwrap(), to: "client".try_into().unwrap() };
        let renamed = rename.apply(&schema).unwrap();
        assert_eq!(renamed.indexes[0].columns[0], "client");
        let mut record = fields(json!({"customer": "a"}));
        rename.apply_to_fields(&mut record);
        assert_eq!(record, fields(json!({"client": "a"})));
        assert!(SchemaChange::DropColumn("customer".try_into().unwrap()).apply(&schema).is_err());
        assert!(SchemaChange::DropColumn("number".try_into().unwrap()).apply(&schema).is_err());
        assert!(schema.difference(&renamed).is_some() && schema.difference(&schema.clone()).is_none());
    }
}
