//! Statements that write single records.

use sea_query::{Expr, ExprTrait, OnConflict, Query, ReturningClause, SimpleExpr, UpdateStatement};
use storage_core::TableSchema;

use crate::condition::placeholder;
use crate::select::live;
use crate::table::{column_names, ident, key_names};
use crate::{Dialect, EXPIRES_AT, EXTRA, UPDATED_AT, VERSION};

/// The statements of one table that read and write single records.
///
/// "Row" below is a value for each of [`Table::columns`](crate::Table::columns), "key" one for each key column, "set" one for each declared
/// column and then `_updated_at`, `_expires_at`, `_extra`; "now" is the present time. A record that is expired as of now counts as absent.
/// `ON CONFLICT` and `RETURNING` are for SQLite and PostgreSQL; MySQL has neither, and works with `select`, `store` and `delete`.
#[derive(Clone, Debug)]
pub struct WriteSql {
    dialect: Dialect,
    table: String,
    keys: Vec<String>,
    /// Binds a key; yields a row, expired or not.
    pub select: String,
    /// Binds a key; yields `_version` and `_expires_at`, expired or not.
    pub select_version: String,
    /// Binds a row; writes it unless a live record is there. As many rows are changed.
    pub insert: String,
    /// Binds a row, its version being 1; yields the version that is there afterwards.
    pub upsert: String,
    /// Binds a row; writes it as it is, version and all.
    pub store: String,
    /// Binds set, key, now; changes a live record and yields its new version, or nothing.
    pub replace: String,
    /// Binds set, key, now, version; changes a live record of that version. As many rows are changed.
    pub replace_version: String,
    /// Binds key and now; removes a live record and yields its version, or nothing.
    pub delete: String,
    /// Binds key, now and version; removes a live record of that version. As many rows are changed.
    pub delete_version: String,
}

impl WriteSql {
    pub(crate) fn new(dialect: Dialect, table: &str, schema: &TableSchema) -> Self {
        let keys: Vec<String> = key_names(schema).map(str::to_owned).collect();
        let columns: Vec<&str> = column_names(schema).chain([VERSION, UPDATED_AT, EXPIRES_AT, EXTRA]).collect();
        let mut sql = Self {
            dialect,
            table: table.to_owned(),
            keys,
            select: String::new(),
            select_version: String::new(),
            insert: String::new(),
            upsert: String::new(),
            store: String::new(),
            replace: String::new(),
            replace_version: String::new(),
            delete: String::new(),
            delete_version: String::new(),
        };
        sql.select = sql.select_columns(&columns);
        sql.select_version = sql.select_columns(&[VERSION, EXPIRES_AT]);
        sql.write_inserts(&columns);
        let set: Vec<&str> = schema.columns.iter().map(|c| c.name.as_str()).chain([UPDATED_AT, EXPIRES_AT, EXTRA]).collect();
        sql.replace = sql.update(&set, false);
        sql.replace_version = sql.update(&set, true);
        sql.delete = sql.delete(false);
        sql.delete_version = sql.delete(true);
        sql
    }

    /// An update of some declared columns. Binds a value for each, then `_updated_at`, key, now, and with `versioned` the version. Changes a
    /// live record (of that version); without `versioned` it yields the new version.
    #[must_use]
    pub fn merge(&self, columns: &[&str], versioned: bool) -> String {
        let set: Vec<&str> = columns.iter().copied().chain([UPDATED_AT]).collect();
        self.update(&set, versioned)
    }

    fn key_is(&self) -> SimpleExpr {
        let mut parts = self.keys.iter().map(|key| Expr::col(ident(key)).eq(placeholder()));
        let first = parts.next().unwrap_or_else(|| Expr::cust("1 = 0"));
        parts.fold(first, ExprTrait::and)
    }

    fn select_columns(&self, columns: &[&str]) -> String {
        let mut select = Query::select();
        select.columns(columns.iter().map(|c| ident(c))).from(ident(&self.table)).and_where(self.key_is());
        self.dialect.render(&select)
    }

    fn write_inserts(&mut self, columns: &[&str]) {
        let mut insert = Query::insert();
        insert.into_table(ident(&self.table)).columns(columns.iter().map(|c| ident(c)));
        // It panics where values and columns differ in number.
        insert.values_panic(columns.iter().map(|_| placeholder()));
        let conflict = || OnConflict::columns(self.keys.iter().map(|k| ident(k)));
        let others = || columns.iter().filter(|c| self.keys.iter().all(|k| k != **c)).map(|c| ident(c));
        let here = |column| Expr::col((ident(&self.table), ident(column)));
        let expired = || here(EXPIRES_AT).lte(Expr::col((ident("excluded"), ident(UPDATED_AT))));
        let mut store = insert.clone();
        store.on_conflict(conflict().update_columns(others()).to_owned());
        let mut absent = insert.clone();
        let mut upsert = insert;
        if self.dialect != Dialect::MySql {
            absent.on_conflict(conflict().update_columns(others()).action_and_where(expired()).to_owned());
            let next = Expr::case(expired(), Expr::cust("1")).finally(here(VERSION).add(Expr::cust("1")));
            let mut conflict = conflict();
            conflict.update_columns(
                columns.iter().filter(|c| **c != VERSION && self.keys.iter().all(|k| k != **c)).map(|c| ident(c)),
            );
            upsert.on_conflict(conflict.value(ident(VERSION), next).to_owned()).returning(returning_version());
        }
        self.insert = self.dialect.render(&absent);
        self.upsert = self.dialect.render(&upsert);
        self.store = self.dialect.render(&store);
    }

    fn update(&self, set: &[&str], versioned: bool) -> String {
        let mut update: UpdateStatement = Query::update();
        update.table(ident(&self.table)).values(set.iter().map(|c| (ident(c), placeholder())));
        update.value(ident(VERSION), Expr::col(ident(VERSION)).add(Expr::cust("1")));
        update.and_where(self.key_is()).and_where(live());
        if versioned {
            update.and_where(Expr::col(ident(VERSION)).eq(placeholder()));
        } else if self.dialect != Dialect::MySql {
            update.returning(returning_version());
        }
        self.dialect.render(&update)
    }

    fn delete(&self, versioned: bool) -> String {
        let mut delete = Query::delete();
        delete.from_table(ident(&self.table)).and_where(self.key_is()).and_where(live());
        if versioned {
            delete.and_where(Expr::col(ident(VERSION)).eq(placeholder()));
        } else if self.dialect != Dialect::MySql {
            delete.returning(returning_version());
        }
        self.dialect.render(&delete)
    }
}

fn returning_version() -> ReturningClause {
    Query::returning().column(ident(VERSION))
}
