//! The statements of a table that read and write many records at once: keys and values come as one array a column.

use std::sync::Arc;

use storage_core::{ColumnType, TableSchema};
use storage_sql::{Dialect, EXPIRES_AT, EXTRA, Table, UPDATED_AT, VERSION};

/// The texts, rendered once.
#[derive(Debug)]
pub(crate) struct Statements {
    /// One key; yields the whole row. Its plan can be kept, while that for an array depends on how long it is.
    pub(crate) select_one: Arc<str>,
    /// Keys; yields whole rows.
    pub(crate) select: Arc<str>,
    /// Keys; locks the rows until the end of the transaction, in the order of their keys, and yields them.
    pub(crate) lock: Arc<str>,
    /// The same, but yields the keys, the version and the expiry alone.
    pub(crate) lock_versions: Arc<str>,
    /// Adds rows, which are copied in as the protocol has them.
    pub(crate) copy: Arc<str>,
    /// Columns; adds rows.
    pub(crate) insert: Arc<str>,
    /// Columns; overwrites the rows with these keys.
    pub(crate) update: Arc<str>,
    /// Keys; removes rows.
    pub(crate) delete: Arc<str>,
    /// The present time; removes rows that have expired.
    pub(crate) delete_expired: Arc<str>,
    /// The present time and a number; removes so many at most that nobody holds.
    pub(crate) sweep: Arc<str>,
}

impl Statements {
    pub(crate) fn of(table: &Table) -> Self {
        let schema = table.schema();
        let name = quote(table.name());
        let columns: Vec<String> = table.columns().into_iter().map(quote).collect();
        let types = types(schema);
        let keys = &columns[..schema.key_columns().count()];
        let all = columns.join(", ");
        let matching = matching(keys, &types);
        let order = keys.join(", ");
        let versions = [keys, &[quote(VERSION), quote(EXPIRES_AT)]].concat().join(", ");
        let arrays = |types: &[&str]| {
            types.iter().enumerate().map(|(n, kind)| format!("${}::{kind}[]", n + 1)).collect::<Vec<_>>().join(", ")
        };
        let given = |count: usize| (0..count).map(|n| format!("c{n}")).collect::<Vec<_>>().join(", ");
        let same = keys.iter().enumerate().map(|(n, key)| format!("t.{key} = u.c{n}")).collect::<Vec<_>>().join(" AND ");
        let set = columns.iter().enumerate().skip(keys.len()).map(|(n, column)| format!("{column} = u.c{n}")).collect::<Vec<_>>();
        let expires = quote(EXPIRES_AT);
        let this = keys.iter().enumerate().map(|(n, key)| format!("{key} = ${}", n + 1)).collect::<Vec<_>>().join(" AND ");
        Self {
            select_one: format!("SELECT {all} FROM {name} WHERE {this}").into(),
            select: format!("SELECT {all} FROM {name} t WHERE {matching}").into(),
            lock: format!("SELECT {all} FROM {name} t WHERE {matching} ORDER BY {order} FOR UPDATE OF t").into(),
            lock_versions: format!("SELECT {versions} FROM {name} t WHERE {matching} ORDER BY {order} FOR UPDATE OF t").into(),
            copy: format!("COPY {name} ({all}) FROM STDIN (FORMAT binary)").into(),
            insert: format!("INSERT INTO {name} ({all}) SELECT * FROM unnest({})", arrays(&types)).into(),
            update: format!(
                "UPDATE {name} t SET {} FROM unnest({}) u ({}) WHERE {same}",
                set.join(", "),
                arrays(&types),
                given(columns.len())
            )
            .into(),
            delete: format!("DELETE FROM {name} t WHERE {matching}").into(),
            delete_expired: format!("DELETE FROM {name} WHERE {expires} <= $1").into(),
            sweep: format!(
                "DELETE FROM {name} WHERE ctid = ANY (ARRAY(SELECT ctid FROM {name} WHERE {expires} <= $1 LIMIT $2 FOR UPDATE SKIP LOCKED))"
            )
            .into(),
        }
    }
}

/// That the keys of a row are among the given ones.
fn matching(keys: &[String], types: &[&str]) -> String {
    match keys {
        [partition, id] => {
            format!("({partition}, {id}) IN (SELECT * FROM unnest($1::{}[], $2::{}[]))", types[0], types[1])
        }
        _ => format!("{} = ANY ($1::{}[])", keys.concat(), types[0]),
    }
}

/// The types of all columns, in their order, without collations.
fn types(schema: &TableSchema) -> Vec<&'static str> {
    let plain = |kind| match kind {
        ColumnType::Text => "text",
        kind => Dialect::Postgres.column_type(kind, false),
    };
    let keys = schema.key_columns().map(|key| plain(key.kind.column_type()));
    let columns = schema.columns.iter().map(|column| plain(column.kind));
    let system = [VERSION, UPDATED_AT, EXPIRES_AT, EXTRA].map(|column| match column {
        VERSION => plain(ColumnType::Integer),
        EXTRA => plain(ColumnType::Json),
        _ => plain(ColumnType::Timestamp),
    });
    keys.chain(columns).chain(system).collect()
}

pub(crate) fn quote(name: &str) -> String {
    Dialect::Postgres.quote(name)
}
