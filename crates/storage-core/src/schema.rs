//! Schemas of tables.

use std::collections::HashSet;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::record::Fields;
use crate::value::{self, canonical, check_json};
use crate::{ColumnName, Error, IndexName, Key, KeyPart, Result, TableName};

/// How many columns a table may have.
pub const MAX_COLUMNS: usize = 500;
/// How many indexes a table may have.
pub const MAX_INDEXES: usize = 32;
/// Tables whose names begin so belong to the backends.
pub const RESERVED_TABLE_PREFIX: &str = "_storage";

/// The type of a column's values. See [`value`](crate::value) for their canonical JSON forms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ColumnType {
    /// UTF-8 text without U+0000, ordered bytewise.
    Text,
    /// A signed 64-bit integer.
    Integer,
    /// A finite 64-bit float.
    Real,
    /// True or false.
    Boolean,
    /// A moment in UTC, in microseconds; RFC 3339 in JSON.
    Timestamp,
    /// Any JSON value; can be filtered by `is null` alone.
    Json,
    /// Bytes; standard base64 in JSON. Can be compared for equality, not ordered.
    Bytes,
}

impl ColumnType {
    pub(crate) const fn article(self) -> &'static str {
        match self {
            Self::Text => "a text",
            Self::Integer => "an integer",
            Self::Real => "a real number",
            Self::Boolean => "a boolean",
            Self::Timestamp => "a timestamp",
            Self::Json => "JSON",
            Self::Bytes => "bytes in base64",
        }
    }

    /// True where values have an order that filters, sort orders and indexes can use.
    #[must_use]
    pub const fn is_ordered(self) -> bool {
        !matches!(self, Self::Json | Self::Bytes)
    }
}

/// The type of a key column.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyType {
    /// 1 to 512 bytes of UTF-8 without control characters.
    #[default]
    Text,
    /// A signed 64-bit integer.
    Integer,
}

impl KeyType {
    /// The column type that key values compare as.
    #[must_use]
    pub const fn column_type(self) -> ColumnType {
        match self {
            Self::Text => ColumnType::Text,
            Self::Integer => ColumnType::Integer,
        }
    }

    fn accepts(self, part: &KeyPart) -> bool {
        matches!((self, part), (Self::Text, KeyPart::Text(_)) | (Self::Integer, KeyPart::Integer(_)))
    }
}

/// A column that is part of the key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyColumn {
    /// Its name.
    pub name: ColumnName,
    /// Text or integer.
    #[serde(rename = "type", default)]
    pub kind: KeyType,
}

/// A declared column.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Column {
    /// Its name.
    pub name: ColumnName,
    /// The type of its values.
    #[serde(rename = "type")]
    pub kind: ColumnType,
    /// True: a record without it is refused.
    #[serde(default)]
    pub required: bool,
    /// True: no two records have the same value (any number have none).
    #[serde(default)]
    pub unique: bool,
    /// What a record gets that is put without it, in canonical form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<Value>,
}

/// An index over declared or key columns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Index {
    /// Its name, unique within the table.
    pub name: IndexName,
    /// The columns, most significant first.
    pub columns: Vec<ColumnName>,
    /// True: no two records have the same values in all of the columns (records that lack one don't count).
    #[serde(default)]
    pub unique: bool,
}

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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum History {
    /// The current one alone; `history` is refused.
    #[default]
    None,
    /// The newest so many, the current one included, also after the record is deleted.
    Keep(u32),
    /// All of them, also after the record is deleted.
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

/// What a name in a filter or an order refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnRef {
    /// The partition key column.
    Partition(KeyType),
    /// The id key column.
    Id(KeyType),
    /// A declared column.
    Declared(ColumnType),
    /// A field outside the schema, of any type ([`Undeclared::Keep`]).
    Undeclared,
}

impl ColumnRef {
    /// The type of its values, where there is one.
    #[must_use]
    pub const fn column_type(self) -> Option<ColumnType> {
        match self {
            Self::Partition(kind) | Self::Id(kind) => Some(kind.column_type()),
            Self::Declared(kind) => Some(kind),
            Self::Undeclared => None,
        }
    }
}

impl TableSchema {
    /// Starts a schema. Names are checked by [`build`](SchemaBuilder::build).
    pub fn builder(name: impl Into<String>) -> SchemaBuilder {
        SchemaBuilder { name: name.into(), ..Default::default() }
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
    fn keys_are_checked_against_the_schema() {
        let schema = invoices();
        assert!(schema.check_key(&Key::from(1)).is_ok());
        assert!(schema.check_key(&Key::from("1")).is_err());
        assert!(schema.check_key(&Key::from((1, 1))).is_err());
    }

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
