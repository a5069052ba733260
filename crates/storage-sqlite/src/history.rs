//! Earlier versions of records, as JSON, in a table of their own.

use rusqlite::{Connection, Row};
use storage_core::{Error, Fields, History, Key, KeyPart, Record, Result, SchemaChange, TableName, Version, part_value};

use crate::error::OrExplain;
use crate::row;

/// How many versions one step of [`alter`] changes.
const STEP: i64 = 1_000;

/// Keeps a version that was just written, and lets go of those that are one too many.
pub(crate) fn keep(connection: &Connection, keep: History, table: &TableName, record: &Record) -> Result<()> {
    let limit = match keep {
        History::None => return Ok(()),
        History::Keep(versions) => Some(versions),
        History::KeepAll => None,
    };
    let key = key_text(&record.key);
    let fields = serde_json::to_string(&record.fields)?;
    let insert =
        "INSERT INTO _storage_history (table_name, key, version, updated_at, expires_at, fields) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    let values = (
        table.as_str(),
        &key,
        i64::try_from(record.version.0).unwrap_or(i64::MAX),
        storage_sql::timestamp(record.updated_at),
        record.expires_at.map(storage_sql::timestamp),
        fields,
    );
    connection.prepare_cached(insert).and_then(|mut insert| insert.execute(values)).or_explain()?;
    let Some(limit) = limit else { return Ok(()) };
    let trim = "DELETE FROM _storage_history WHERE seq IN \
                (SELECT seq FROM _storage_history WHERE table_name = ?1 AND key = ?2 ORDER BY seq DESC LIMIT -1 OFFSET ?3)";
    connection.prepare_cached(trim).and_then(|mut trim| trim.execute((table.as_str(), &key, limit))).or_explain()?;
    Ok(())
}

/// The kept versions of a record, newest first.
pub(crate) fn read(connection: &Connection, table: &TableName, key: &Key) -> Result<Vec<Record>> {
    let select = "SELECT version, updated_at, expires_at, fields FROM _storage_history \
                  WHERE table_name = ?1 AND key = ?2 ORDER BY seq DESC";
    let mut select = connection.prepare_cached(select).or_explain()?;
    let mut rows = select.query((table.as_str(), key_text(key))).or_explain()?;
    let mut versions = Vec::new();
    while let Some(row) = rows.next().or_explain()? {
        versions.push(version(row, key)?);
    }
    Ok(versions)
}

fn version(row: &Row<'_>, key: &Key) -> Result<Record> {
    let version: i64 = row.get(0).or_explain()?;
    let updated_at = row::time(row, 1)?.ok_or_else(|| Error::corrupt("a version in `_storage_history` has no time"))?;
    Ok(Record {
        key: key.clone(),
        version: Version(version.unsigned_abs()),
        updated_at,
        expires_at: row::time(row, 2)?,
        fields: fields(row, 3)?,
    })
}

fn fields(row: &Row<'_>, column: usize) -> Result<Fields> {
    let text = row.get_ref(column).and_then(|text| Ok(text.as_str()?)).or_explain()?;
    serde_json::from_str(text)
        .map_err(|e| Error::corrupt(format!("a version in `_storage_history` can't be read: {e}")).with_source(e))
}

/// The key as JSON: a text, a number, or an array of both parts.
fn key_text(key: &Key) -> String {
    let id = |part: &KeyPart| part_value(part);
    match &key.partition {
        None => id(&key.id).to_string(),
        Some(partition) => serde_json::Value::Array(vec![id(partition), id(&key.id)]).to_string(),
    }
}

/// Brings the kept versions of a table in line with a change of its schema.
pub(crate) fn alter(connection: &Connection, table: &TableName, change: &SchemaChange) -> Result<()> {
    let mut select = connection
        .prepare("SELECT seq, fields FROM _storage_history WHERE table_name = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3")
        .or_explain()?;
    let mut update = connection.prepare("UPDATE _storage_history SET fields = ?1 WHERE seq = ?2").or_explain()?;
    let mut last = -1_i64;
    loop {
        let mut changed = Vec::new();
        let mut rows = select.query((table.as_str(), last, STEP)).or_explain()?;
        let mut seen = 0;
        while let Some(row) = rows.next().or_explain()? {
            seen += 1;
            last = row.get(0).or_explain()?;
            let before = fields(row, 1)?;
            let mut after = before.clone();
            change.apply_to_fields(&mut after);
            if after != before {
                changed.push((last, serde_json::to_string(&after)?));
            }
        }
        drop(rows);
        for (seq, fields) in changed {
            update.execute((fields, seq)).or_explain()?;
        }
        if seen < STEP {
            return Ok(());
        }
    }
}

/// Forgets all versions of a table.
pub(crate) fn forget(connection: &Connection, table: &TableName) -> Result<()> {
    connection.execute("DELETE FROM _storage_history WHERE table_name = ?1", [table.as_str()]).or_explain()?;
    Ok(())
}
