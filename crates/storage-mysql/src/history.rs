//! Earlier versions of records, as JSON, in a table of their own.

use mysql_async::Value;
use storage_core::{Key, Record, Result, SchemaChange, TableName};
use storage_sql::server::{history_fields, history_key};
use storage_sql::{Dialect, json_text, row};

use crate::connection::Connection;
use crate::error::{MyResult, OrExplain as _};
use crate::row::{maybe, moment, text};
use crate::statements::{MAX_KEYS, fill, list, repeated, row_of};

/// The kept versions of a record, newest first.
pub(crate) const READ: &str = "SELECT version, updated_at, expires_at, fields FROM _storage_history WHERE table_name = ? AND key_hash = ? \
                               AND record_key = ? ORDER BY seq DESC";
/// How many versions are written at once.
const ROWS: usize = 64;
/// How many versions one step of [`alter`] changes.
const STEP: i64 = 500;

/// What finds a record's versions: an index has no room for all keys.
pub(crate) fn place(key: &Key) -> [Value; 2] {
    let key = history_key(key);
    [Value::Int(storage_core::fnv1a(&[key.as_bytes()]).cast_signed()), text(&key)]
}

/// Versions as rows, each with about how many bytes it has.
pub(crate) fn rows(versions: &[(&TableName, &Record)]) -> Result<Vec<(usize, Vec<Value>)>> {
    let row = |(table, record): &(&TableName, &Record)| {
        let fields = json_text(Dialect::MySql, &record.fields)?;
        let [hash, key] = place(&record.key);
        let version = Value::Int(row::number(record.version));
        let size = fields.len() + 2_048;
        let (updated, expires) = (moment(record.updated_at), maybe(record.expires_at));
        Ok((size, vec![text(table.as_str()), hash, key, version, updated, expires, text(&fields)]))
    };
    versions.iter().map(row).collect()
}

/// Keeps versions that were just written, in their order.
pub(crate) async fn keep(connection: &Connection, rows: Vec<(usize, Vec<Value>)>, packet: usize) -> MyResult<()> {
    let insert = |rows| {
        let head =
            "INSERT INTO _storage_history (table_name, key_hash, record_key, version, updated_at, expires_at, fields) VALUES";
        format!("{head} {}", repeated(&row_of(7), rows))
    };
    connection.in_portions(rows, ROWS, packet, insert).await.map(drop)
}

/// Lets go of versions that are too many, of these keys.
pub(crate) async fn trim(connection: &Connection, table: &TableName, keys: &[&Key], limit: u32) -> MyResult<()> {
    for keys in keys.chunks(MAX_KEYS) {
        let mut places: Vec<Value> = keys.iter().flat_map(|key| place(key)).collect();
        let count = fill(&mut places, 2);
        let delete = format!(
            "DELETE h FROM _storage_history h JOIN (SELECT seq, ROW_NUMBER() OVER (PARTITION BY record_key ORDER BY seq DESC) AS place \
             FROM _storage_history WHERE table_name = ? AND (key_hash, record_key) IN {}) kept ON h.seq = kept.seq WHERE kept.place > ?",
            list(&row_of(2), count)
        );
        let mut values = vec![text(table.as_str())];
        values.extend(places);
        values.push(Value::Int(limit.into()));
        connection.execute(&delete, values).await?;
    }
    Ok(())
}

/// Brings the kept versions of a table in line with a change of its schema. Done again it changes nothing.
pub(crate) async fn alter(connection: &Connection, table: &TableName, change: &SchemaChange) -> Result<()> {
    let select = "SELECT seq, fields FROM _storage_history WHERE table_name = ? AND seq > ? ORDER BY seq LIMIT ?";
    let mut last = -1_i64;
    loop {
        let rows = connection.query(select, vec![text(table.as_str()), Value::Int(last), Value::Int(STEP)]).await.or_explain()?;
        if rows.is_empty() {
            return Ok(());
        }
        for found in &rows {
            last = row::integer(found, 0)?.unwrap_or(i64::MAX);
            let before = history_fields(found, 1)?;
            let mut after = before.clone();
            change.apply_to_fields(&mut after);
            if after != before {
                let values = vec![text(&json_text(Dialect::MySql, &after)?), Value::Int(last)];
                connection.execute("UPDATE _storage_history SET fields = ? WHERE seq = ?", values).await.or_explain()?;
            }
        }
    }
}
