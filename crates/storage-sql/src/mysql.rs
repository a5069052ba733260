//! What MySQL and MariaDB want otherwise: an index has room for 3,072 bytes, of which a character takes 4, and each change of a table is one statement, since
//! each is a transaction.

use std::borrow::Cow;

use storage_core::{Column, ColumnName, ColumnType, Error, Index, Result, SchemaChange};

use crate::{Dialect, EXPIRES_AT, Table};

/// How many bytes the columns of an index have together.
const INDEX_BYTES: usize = 3_072;
/// How many characters a text in an index has at most: all of its bytes.
const INDEX_CHARS: usize = INDEX_BYTES / 4;
/// How many characters, or where there are two texts, bytes, a part of a key has.
const KEY_CHARS: usize = 512;
/// How many bytes a column that is neither text nor bytes takes of an index at most.
const FIXED: usize = 16;

impl Table {
    /// Two texts as long as keys may be have room in an index as bytes alone.
    pub(crate) fn key_type_mysql(&self, kind: ColumnType) -> Cow<'static, str> {
        match kind {
            ColumnType::Text if self.key_texts() > 1 => "varbinary(512)".into(),
            ColumnType::Text => "varchar(512)".into(),
            kind => Dialect::MySql.column_type(kind, true).into(),
        }
    }

    pub(crate) fn type_of_mysql(&self, column: &Column) -> Cow<'static, str> {
        let schema = self.schema();
        let keyed = column.unique || schema.indexes.iter().any(|index| index.columns.contains(&column.name));
        match column.kind {
            ColumnType::Text if keyed => format!("varchar({})", self.chars(&column.name)).into(),
            kind => Dialect::MySql.column_type(kind, keyed).into(),
        }
    }

    /// How many characters an indexed text has: of an index that is unique, so many that all columns have room.
    fn chars(&self, column: &ColumnName) -> usize {
        let unique = self.schema().indexes.iter().filter(|index| index.unique && index.columns.contains(column));
        unique.map(|index| self.room(index)).min().unwrap_or(INDEX_CHARS)
    }

    /// How many characters each declared text of an index can have.
    fn room(&self, index: &Index) -> usize {
        let (mut texts, mut others) = (0_usize, 0_usize);
        for column in &index.columns {
            let key = self.schema().key_columns().find(|key| key.name == *column);
            match key.map_or_else(|| self.kind(column), |key| Some(key.kind.column_type())) {
                Some(ColumnType::Text) if key.is_none() => texts += 1,
                Some(ColumnType::Text) => others += KEY_CHARS * if self.key_texts() > 1 { 1 } else { 4 },
                Some(ColumnType::Bytes) => others += INDEX_CHARS + 2,
                _ => others += FIXED,
            }
        }
        (INDEX_BYTES.saturating_sub(others) / 4 / texts.max(1)).clamp(1, INDEX_CHARS)
    }

    /// How many parts of the key are texts.
    fn key_texts(&self) -> usize {
        self.schema().key_columns().filter(|key| key.kind.column_type() == ColumnType::Text).count()
    }

    /// The columns of an index. Where it has no room for all of a text it orders by its beginning, if it is not unique. The key stands behind them anyway.
    fn columns_of(&self, index: &Index) -> String {
        let room = self.room(index);
        let column = |name: &ColumnName| {
            let quoted = Dialect::MySql.quote(name.as_str());
            let is_text = self.schema().column(name.as_str()).is_some_and(|column| column.kind == ColumnType::Text);
            let cut = !index.unique && is_text && self.chars(name) > room;
            if cut { format!("{quoted} ({room})") } else { quoted }
        };
        index.columns.iter().map(column).collect::<Vec<_>>().join(", ")
    }

    fn index_mysql(&self, index: &Index) -> String {
        let unique = if index.unique { "UNIQUE " } else { "" };
        let name = Dialect::MySql.quote(&self.index_name(index.name.as_str()));
        format!("{unique}INDEX {name} ({})", self.columns_of(index))
    }

    /// The table with its indexes. The server's collation stands behind it, if it is another than the database's.
    pub(crate) fn create_mysql(&self, columns: &str, keys: &str) -> String {
        let quote = |name: &str| Dialect::MySql.quote(name);
        let mut indexes = vec![format!("INDEX {} ({})", quote(EXPIRES_AT), quote(EXPIRES_AT))];
        let unique = self.schema().columns.iter().filter(|column| column.unique).map(|column| &column.name);
        indexes.extend(unique.map(|name| format!("UNIQUE INDEX {} ({})", quote(&self.unique_name(name)), quote(name.as_str()))));
        indexes.extend(self.schema().indexes.iter().map(|index| self.index_mysql(index)));
        let name = quote(self.name());
        format!("CREATE TABLE {name} ({columns}PRIMARY KEY ({keys}), {}){}", indexes.join(", "), Dialect::MySql.table_suffix())
    }

    /// The statements that change the table: one, or where a unique column is added, a second one for its index.
    pub(crate) fn alter_mysql(&self, change: &SchemaChange) -> Result<Vec<String>> {
        let quote = |name: &str| Dialect::MySql.quote(name);
        let after = Self::new(Dialect::MySql, change.apply(self.schema())?);
        let alter = |steps: Vec<String>| vec![format!("ALTER TABLE {} {}", quote(self.name()), steps.join(", "))];
        Ok(match change {
            SchemaChange::AddColumn(column) => {
                let mut statements = alter(vec![format!("ADD COLUMN {}", after.added_column(column)?)]);
                statements.extend(column.unique.then(|| self.create_unique(&column.name)));
                statements
            }
            // With its index, if it has one of its own.
            SchemaChange::DropColumn(name) => alter(vec![format!("DROP COLUMN {}", quote(name.as_str()))]),
            SchemaChange::RenameColumn { from, to } => {
                let mut steps = vec![format!("RENAME COLUMN {} TO {}", quote(from.as_str()), quote(to.as_str()))];
                if self.schema().column(from.as_str()).is_some_and(|column| column.unique) {
                    let (from, to) = (self.unique_name(from), self.unique_name(to));
                    steps.push(format!("RENAME INDEX {} TO {}", quote(&from), quote(&to)));
                }
                alter(steps)
            }
            SchemaChange::AddIndex(index) => {
                let mut steps = self.resize(&after);
                steps.push(format!("ADD {}", after.index_mysql(index)));
                alter(steps)
            }
            SchemaChange::DropIndex(name) => {
                let mut steps = vec![format!("DROP INDEX {}", quote(&self.index_name(name.as_str())))];
                steps.extend(self.resize(&after));
                alter(steps)
            }
            SchemaChange::SetUndeclared(_) | SchemaChange::SetHistory(_) => Vec::new(),
            other => return Err(Error::unsupported(format!("this version does not know the change {other:?}"))),
        })
    }

    /// Makes columns as long as they are to be with the indexes that there will be.
    fn resize(&self, after: &Self) -> Vec<String> {
        let columns = self.schema().columns.iter().filter(|column| self.type_of(column) != after.type_of(column));
        let step = |column: &Column| {
            let null = if column.required { " NOT NULL" } else { "" };
            format!("MODIFY COLUMN {} {}{null}", Dialect::MySql.quote(column.name.as_str()), after.type_of(column))
        };
        columns.map(step).collect()
    }
}
