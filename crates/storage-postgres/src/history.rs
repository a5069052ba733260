//! Earlier versions of records, as JSON, in a table of their own.

use storage_core::{Key, Record, Result, SchemaChange, TableName};
use storage_sql::server::{history_fields, history_key};
use storage_sql::{Dialect, SqlValue, json_text, row};

use crate::bind::Param;
use crate::connection::Connection;
use crate::error::OrExplain as _;

/// Keeps versions that were just written, in their order.
pub(crate) const KEEP: &str = "INSERT INTO _storage_history (table_name, key, version, updated_at, expires_at, fields) \
                               SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[], $4::timestamptz[], $5::timestamptz[], $6::jsonb[])";
/// Lets go of versions that are too many, of the given keys.
pub(crate) const TRIM: &str = "DELETE FROM _storage_history WHERE seq IN (SELECT seq FROM (SELECT seq, row_number() OVER \
                               (PARTITION BY key ORDER BY seq DESC) AS place FROM _storage_history WHERE table_name = $1 AND \
                               key = ANY ($2::text[])) kept WHERE place > $3::bigint)";
/// The kept versions of a record, newest first.
pub(crate) const READ: &str = "SELECT version, updated_at, expires_at, fields FROM _storage_history WHERE table_name = $1 AND key = $2 \
                               ORDER BY seq DESC";
/// How many versions one step of [`alter`] changes.
const STEP: i64 = 1_000;

pub(crate) fn columns(versions: &[(&TableName, &Record)]) -> Result<Vec<Param<'static>>> {
    let text = |text: String| SqlValue::Text(text.into());
    let fields = versions.iter().map(|(_, record)| Ok(SqlValue::Json(json_text(Dialect::Postgres, &record.fields)?.into())));
    Ok(vec![
        Param::Many(versions.iter().map(|(table, _)| text(table.to_string())).collect()),
        Param::Many(versions.iter().map(|(_, record)| text(history_key(&record.key))).collect()),
        Param::integers(versions.iter().map(|(_, record)| row::number(record.version))),
        Param::times(versions.iter().map(|(_, record)| Some(record.updated_at))),
        Param::times(versions.iter().map(|(_, record)| record.expires_at)),
        Param::Many(fields.collect::<Result<_>>()?),
    ])
}

pub(crate) fn trim<'a>(table: &'a TableName, keys: impl Iterator<Item = &'a Key>, limit: u32) -> Vec<Param<'a>> {
    let keys = keys.map(|key| SqlValue::Text(history_key(key).into())).collect();
    vec![table.as_str().into(), Param::Many(keys), i64::from(limit).into()]
}

/// Brings the kept versions of a table in line with a change of its schema.
pub(crate) async fn alter(connection: &Connection, table: &TableName, change: &SchemaChange) -> Result<()> {
    let select = "SELECT seq, fields FROM _storage_history WHERE table_name = $1 AND seq > $2 ORDER BY seq LIMIT $3";
    let update = "UPDATE _storage_history h SET fields = u.fields FROM unnest($1::bigint[], $2::jsonb[]) u (seq, fields) WHERE h.seq = u.seq";
    let mut last = -1_i64;
    loop {
        let rows = connection.query(select, vec![table.as_str().into(), last.into(), STEP.into()]).await.or_explain()?;
        let Some(end) = rows.last() else { return Ok(()) };
        last = end.try_get(0).or_explain()?;
        let (mut numbers, mut changed) = (Vec::new(), Vec::new());
        for found in &rows {
            let mut fields = history_fields(found, 1)?;
            change.apply_to_fields(&mut fields);
            numbers.push(found.try_get(0).or_explain()?);
            changed.push(SqlValue::Json(json_text(Dialect::Postgres, &fields)?.into()));
        }
        connection.execute(update, vec![Param::integers(numbers), Param::Many(changed)]).await.or_explain()?;
    }
}
