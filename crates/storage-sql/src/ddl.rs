//! CREATE, ALTER, DROP.

use std::borrow::Cow;
use std::fmt::Write as _;

use sea_query::{
    ConditionalStatement as _, Expr, ExprTrait, Index as SqlIndex, MysqlQueryBuilder, PostgresQueryBuilder, SqliteQueryBuilder,
};
use serde_json::Value;
use storage_core::{Column, ColumnName, ColumnType, Error, Index, Result, SchemaChange, value};

use crate::table::{ident, key_names};
use crate::{Dialect, EXPIRES_AT, EXTRA, Table, UPDATED_AT, VERSION, json_text};

impl Table {
    /// The statements that create the table and its indexes.
    #[must_use]
    pub fn create(&self) -> Vec<String> {
        let schema = self.schema();
        let mut columns = String::new();
        for key in schema.key_columns() {
            self.column(&mut columns, key.name.as_str(), &self.key_type(key.kind.column_type()), true);
        }
        for column in &schema.columns {
            self.column(&mut columns, column.name.as_str(), &self.type_of(column), column.required);
        }
        let system = |kind| self.dialect().column_type(kind, false);
        self.column(&mut columns, VERSION, system(ColumnType::Integer), true);
        self.column(&mut columns, UPDATED_AT, system(ColumnType::Timestamp), true);
        self.column(&mut columns, EXPIRES_AT, system(ColumnType::Timestamp), false);
        self.column(&mut columns, EXTRA, system(ColumnType::Json), false);
        let keys: Vec<String> = key_names(schema).map(|k| self.quote(k)).collect();
        if self.dialect() == Dialect::MySql {
            return vec![self.create_mysql(&columns, &keys.join(", "))];
        }
        let table = format!(
            "CREATE TABLE {} ({columns}PRIMARY KEY ({})){}",
            self.quote(self.name()),
            keys.join(", "),
            self.dialect().table_suffix()
        );
        let mut statements = vec![table, self.create_expiry_index()];
        statements.extend(schema.columns.iter().filter(|c| c.unique).map(|c| self.create_unique(&c.name)));
        statements.extend(schema.indexes.iter().map(|i| self.create_index(i)));
        statements
    }

    /// The statement that drops the table.
    #[must_use]
    pub fn drop(&self) -> String {
        format!("DROP TABLE {}", self.quote(self.name()))
    }

    /// The statements that change the table, which `self` describes as it is before. What the change means for undeclared fields is the
    /// caller's.
    ///
    /// # Errors
    /// [`Unsupported`](storage_core::ErrorKind::Unsupported) for a change that this version does not know.
    pub fn alter(&self, change: &SchemaChange) -> Result<Vec<String>> {
        if self.dialect() == Dialect::MySql {
            return self.alter_mysql(change);
        }
        let table = self.quote(self.name());
        Ok(match change {
            SchemaChange::AddColumn(column) => {
                let mut statements = vec![format!("ALTER TABLE {table} ADD COLUMN {}", self.added_column(column)?)];
                statements.extend(column.unique.then(|| self.create_unique(&column.name)));
                statements
            }
            SchemaChange::DropColumn(name) => {
                let unique = self.schema().column(name.as_str()).is_some_and(|c| c.unique);
                let mut statements: Vec<String> = unique.then(|| self.drop_index(&self.unique_name(name))).into_iter().collect();
                statements.push(format!("ALTER TABLE {table} DROP COLUMN {}", self.quote(name.as_str())));
                statements
            }
            SchemaChange::RenameColumn { from, to } => {
                let unique = self.schema().column(from.as_str()).is_some_and(|c| c.unique);
                let mut statements: Vec<String> = unique.then(|| self.drop_index(&self.unique_name(from))).into_iter().collect();
                let (old, new) = (self.quote(from.as_str()), self.quote(to.as_str()));
                statements.push(format!("ALTER TABLE {table} RENAME COLUMN {old} TO {new}"));
                statements.extend(unique.then(|| self.create_unique(to)));
                statements
            }
            SchemaChange::AddIndex(index) => vec![self.create_index(index)],
            SchemaChange::DropIndex(name) => vec![self.drop_index(&self.index_name(name.as_str()))],
            SchemaChange::SetUndeclared(_) | SchemaChange::SetHistory(_) => Vec::new(),
            other => return Err(Error::unsupported(format!("this version does not know the change {other:?}"))),
        })
    }

    pub(crate) fn quote(&self, name: &str) -> String {
        self.dialect().quote(name)
    }

    /// The type of a part of the key.
    fn key_type(&self, kind: ColumnType) -> Cow<'static, str> {
        match self.dialect() {
            Dialect::MySql => self.key_type_mysql(kind),
            dialect => dialect.column_type(kind, true).into(),
        }
    }

    /// The type of a declared column.
    pub(crate) fn type_of(&self, column: &Column) -> Cow<'static, str> {
        match self.dialect() {
            Dialect::MySql => self.type_of_mysql(column),
            dialect => dialect.column_type(column.kind, false).into(),
        }
    }

    fn column(&self, columns: &mut String, name: &str, kind: &str, required: bool) {
        let null = if required { " NOT NULL" } else { "" };
        // Writing to a String can't fail.
        let _ = write!(columns, "{} {kind}{null}, ", self.quote(name));
    }

    pub(crate) fn added_column(&self, column: &Column) -> Result<String> {
        let kind = self.type_of(column);
        let null = if column.required { " NOT NULL" } else { "" };
        let default = match &column.default {
            // A text's has to be an expression there, which SQLite does not take.
            Some(value) if self.dialect() == Dialect::MySql => {
                format!(" DEFAULT ({})", literal(self.dialect(), column.kind, value)?)
            }
            Some(value) => format!(" DEFAULT {}", literal(self.dialect(), column.kind, value)?),
            None => String::new(),
        };
        Ok(format!("{} {kind}{null}{default}", self.quote(column.name.as_str())))
    }

    pub(crate) fn create_unique(&self, column: &ColumnName) -> String {
        let mut index = SqlIndex::create();
        index.name(self.unique_name(column)).unique().table(ident(self.name())).col(ident(column.as_str()));
        self.render_index(&index)
    }

    pub(crate) fn create_index(&self, index: &Index) -> String {
        let mut create = SqlIndex::create();
        create.name(self.index_name(index.name.as_str())).table(ident(self.name()));
        for column in &index.columns {
            create.col(ident(column.as_str()));
        }
        if index.unique {
            create.unique();
        } else {
            for key in self.schema().key_columns().filter(|k| !index.columns.contains(&k.name)) {
                create.col(ident(key.name.as_str()));
            }
        }
        self.render_index(&create)
    }

    fn create_expiry_index(&self) -> String {
        let mut index = SqlIndex::create();
        index.name(self.index_name(EXPIRES_AT)).table(ident(self.name())).col(ident(EXPIRES_AT));
        index.and_where(Expr::col(ident(EXPIRES_AT)).is_not_null());
        self.render_index(&index)
    }

    fn render_index(&self, index: &sea_query::IndexCreateStatement) -> String {
        match self.dialect() {
            Dialect::Sqlite => index.to_string(SqliteQueryBuilder),
            Dialect::Postgres => index.to_string(PostgresQueryBuilder),
            Dialect::MySql => index.to_string(MysqlQueryBuilder),
        }
    }

    fn drop_index(&self, name: &str) -> String {
        match self.dialect() {
            Dialect::Sqlite | Dialect::Postgres => format!("DROP INDEX {}", self.quote(name)),
            Dialect::MySql => format!("DROP INDEX {} ON {}", self.quote(name), self.quote(self.name())),
        }
    }

    /// The name in the database of an index. Index names are unique within the database in SQLite and PostgreSQL: they begin with the table's. No name of ours holds a point.
    #[must_use]
    pub fn index_name(&self, index: &str) -> String {
        match self.dialect() {
            Dialect::Sqlite => format!("{}.{index}", self.name()),
            Dialect::Postgres => short(format!("{}.{index}", self.name())),
            // One name is the primary key's.
            Dialect::MySql if index.eq_ignore_ascii_case("primary") => format!("{index}.index"),
            Dialect::MySql => index.to_owned(),
        }
    }

    /// The name in the database of the index that makes a column unique.
    #[must_use]
    pub fn unique_name(&self, column: &ColumnName) -> String {
        match self.dialect() {
            Dialect::Sqlite => format!("{}.{column}.unique", self.name()),
            Dialect::Postgres => short(format!("{}.{column}.unique", self.name())),
            Dialect::MySql => short(format!("{column}.unique")),
        }
    }
}

/// PostgreSQL cuts names to 63 bytes: a long one ends with a hash instead of its end.
fn short(name: String) -> String {
    if name.len() <= 63 {
        return name;
    }
    let hash = storage_core::fnv1a(&[name.as_bytes()]);
    format!("{}.{hash:016x}", &name[..46])
}

/// A default as a literal: DDL can't bind values.
fn literal(dialect: Dialect, kind: ColumnType, default: &Value) -> Result<String> {
    let text = |text: &str| match dialect {
        Dialect::MySql => format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''")),
        Dialect::Sqlite | Dialect::Postgres => format!("'{}'", text.replace('\'', "''")),
    };
    Ok(match (kind, default) {
        (_, Value::Null) => "NULL".to_owned(),
        (ColumnType::Json, value) => text(&json_text(dialect, value)?),
        (ColumnType::Bytes, Value::String(base64)) => {
            let hex = value::decode_bytes(base64)?.iter().fold(String::new(), |mut hex, byte| {
                let _ = write!(hex, "{byte:02x}");
                hex
            });
            if dialect == Dialect::Postgres { format!("'\\x{hex}'") } else { format!("x'{hex}'") }
        }
        (ColumnType::Timestamp, Value::String(at)) if dialect == Dialect::MySql => text(&at.replace('T', " ").replace('Z', "")),
        (_, Value::String(string)) => text(string),
        (_, Value::Bool(b)) if dialect == Dialect::Sqlite => i32::from(*b).to_string(),
        (_, Value::Bool(b)) => b.to_string(),
        // 17 digits: what it takes to name a real exactly.
        (ColumnType::Real, Value::Number(n)) => format!("{:.16e}", n.as_f64().unwrap_or_default()),
        (_, Value::Number(n)) => n.to_string(),
        (kind, _) => return Err(Error::invalid(format!("the default is not a value of type {kind:?}"))),
    })
}
