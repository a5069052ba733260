//! The three dialects, and where they differ.

use sea_query::{MysqlQueryBuilder, PostgresQueryBuilder, QueryStatementBuilder, SqliteQueryBuilder};
use storage_core::ColumnType;

/// A dialect of SQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// SQLite 3.37 or later (STRICT tables).
    Sqlite,
    /// PostgreSQL 14 or later.
    Postgres,
    /// MySQL 8 and MariaDB 10.6 or later.
    MySql,
}

impl Dialect {
    /// `name` as a quoted identifier.
    #[must_use]
    pub fn quote(self, name: &str) -> String {
        match self {
            Self::Sqlite | Self::Postgres => format!("\"{}\"", name.replace('"', "\"\"")),
            Self::MySql => format!("`{}`", name.replace('`', "``")),
        }
    }

    /// The type of a column in DDL. `keyed`: it is part of a key or an index, which MySQL can't have of unlimited length.
    #[must_use]
    pub const fn column_type(self, kind: ColumnType, keyed: bool) -> &'static str {
        match (self, kind) {
            (Self::Sqlite, ColumnType::Integer | ColumnType::Boolean) => "INTEGER",
            (Self::Sqlite, ColumnType::Real) => "REAL",
            (Self::Sqlite, ColumnType::Bytes) => "BLOB",
            (Self::Sqlite, ColumnType::Text | ColumnType::Timestamp | ColumnType::Json) => "TEXT",
            (Self::Postgres, ColumnType::Text) => "text COLLATE \"C\"",
            (Self::Postgres, ColumnType::Real) => "double precision",
            (Self::Postgres, ColumnType::Boolean) => "boolean",
            (Self::Postgres, ColumnType::Timestamp) => "timestamptz",
            (Self::Postgres, ColumnType::Json) => "jsonb",
            (Self::Postgres, ColumnType::Bytes) => "bytea",
            (Self::Postgres | Self::MySql, ColumnType::Integer) => "bigint",
            // Of the table's collation, which is to compare bytewise, trailing spaces too; see `mysql.rs`.
            (Self::MySql, ColumnType::Text) if keyed => "varchar(768)",
            (Self::MySql, ColumnType::Text) => "longtext",
            (Self::MySql, ColumnType::Bytes) if keyed => "varbinary(768)",
            (Self::MySql, ColumnType::Bytes) => "longblob",
            (Self::MySql, ColumnType::Real) => "double",
            (Self::MySql, ColumnType::Boolean) => "boolean",
            (Self::MySql, ColumnType::Timestamp) => "datetime(6)",
            // Not json, which MySQL rewrites.
            (Self::MySql, ColumnType::Json) => "longtext",
        }
    }

    /// The text of a statement; its values are bound in the order of their placeholders.
    pub(crate) fn render(self, statement: &impl QueryStatementBuilder) -> String {
        match self {
            Self::Sqlite => statement.build_any(&SqliteQueryBuilder).0,
            Self::Postgres => statement.build_any(&PostgresQueryBuilder).0,
            Self::MySql => statement.build_any(&MysqlQueryBuilder).0,
        }
    }

    /// What stands behind the parenthesis of CREATE TABLE.
    pub(crate) const fn table_suffix(self) -> &'static str {
        match self {
            Self::Sqlite => " STRICT",
            Self::Postgres => "",
            Self::MySql => " ENGINE=InnoDB",
        }
    }
}
