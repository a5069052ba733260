//! Creating, changing and dropping tables, within a write transaction.

use storage_core::{Column, ColumnName, Error, Fields, Result, SchemaChange, TableName, TableSchema, Undeclared};
use storage_sql::{Dialect, EXPIRES_AT, EXTRA, Table, adopt_field, encode, has_fields, is_a_field};

use crate::error::{OrExplain, explain, violation};
use crate::history;
use crate::row::Bound;
use crate::session::Session;

/// How many rows one step of a change looks at.
const STEP: i64 = 1_000;

/// Creates a table. `false`: it is there with the same schema.
pub(crate) fn create(session: &mut Session<'_>, schema: &TableSchema) -> Result<bool> {
    schema.check()?;
    if let Some(there) = session.catalog.similar(&schema.name) {
        let there = there.schema();
        if there.name != schema.name {
            return Err(Error::already_exists(format!(
                "there is a table `{}`, and letter case does not distinguish tables",
                there.name
            )));
        }
        return match there.difference(schema) {
            None => Ok(false),
            Some(difference) => Err(Error::already_exists(format!("it is there with another schema: {difference}"))),
        };
    }
    let table = Table::new(Dialect::Sqlite, schema.clone());
    refuse_strangers(session, &table)?;
    for statement in table.create() {
        session.connection.execute_batch(&statement).or_explain()?;
    }
    let insert = "INSERT INTO _storage_tables (name, schema) VALUES (?1, ?2)";
    session.connection.execute(insert, (schema.name.as_str(), serde_json::to_string(schema)?)).or_explain()?;
    session.reload()?;
    Ok(true)
}

/// Tables of other programs are left alone.
fn refuse_strangers(session: &Session<'_>, table: &Table) -> Result<()> {
    let select = "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE lower(name) = lower(?1))";
    let there: bool = session.connection.query_row(select, [table.name()], |row| row.get(0)).or_explain()?;
    if there {
        return Err(Error::already_exists(
            "the database has a table, view or index of that name that was not made by this toolkit: choose another name",
        ));
    }
    Ok(())
}

/// Drops a table. `false`: there is none.
pub(crate) fn drop_table(session: &mut Session<'_>, name: &TableName) -> Result<bool> {
    let Ok(entry) = session.catalog.table(name) else { return Ok(false) };
    session.connection.execute_batch(&entry.table.drop()).or_explain()?;
    session.connection.execute("DELETE FROM _storage_tables WHERE name = ?1", [name.as_str()]).or_explain()?;
    history::forget(session.connection, name)?;
    session.reload()?;
    Ok(true)
}

/// Changes a table and keeps its records.
pub(crate) fn alter(session: &mut Session<'_>, name: &TableName, change: &SchemaChange) -> Result<()> {
    let entry = std::sync::Arc::clone(session.catalog.table(name)?);
    let before = &entry.table;
    let after = Table::new(Dialect::Sqlite, change.apply(before.schema())?);
    let expired = format!("DELETE FROM \"{}\" WHERE \"{EXPIRES_AT}\" <= ?1", before.name());
    session.connection.execute(&expired, [&session.now_text]).or_explain()?;
    if let SchemaChange::RenameColumn { to, .. } = change {
        refuse_field(session, before, to)?;
    }
    if matches!(change, SchemaChange::SetUndeclared(Undeclared::Reject)) {
        refuse_fields(session, before)?;
    }
    for statement in before.alter(change)? {
        session.connection.execute_batch(&statement).map_err(|error| match violation(&error, before.name()) {
            Some(violation) => violation.into_error(name),
            None => explain(error),
        })?;
    }
    if let SchemaChange::AddColumn(column) = change {
        set_default(session, &after, column)?;
        adopt(session, &after, column)?;
    }
    if matches!(change, SchemaChange::DropColumn(_) | SchemaChange::RenameColumn { .. } | SchemaChange::AddColumn(_))
        && has_history(session, name)?
    {
        history::alter(session.connection, name, change)?;
    }
    let update = "UPDATE _storage_tables SET schema = ?1 WHERE name = ?2";
    session.connection.execute(update, (serde_json::to_string(after.schema())?, name.as_str())).or_explain()?;
    notify_others(session)?;
    session.reload()
}

fn has_history(session: &Session<'_>, name: &TableName) -> Result<bool> {
    let select = "SELECT EXISTS (SELECT 1 FROM _storage_history WHERE table_name = ?1)";
    session.connection.query_row(select, [name.as_str()], |row| row.get(0)).or_explain()
}

/// Other connections learn of a new schema by SQLite's own number of it, which only its own changes move: so make one.
fn notify_others(session: &Session<'_>) -> Result<()> {
    session.connection.execute_batch("CREATE VIEW _storage_changed AS SELECT 1; DROP VIEW _storage_changed").or_explain()
}

fn refuse_field(session: &Session<'_>, table: &Table, field: &ColumnName) -> Result<()> {
    let select = format!("SELECT EXISTS (SELECT 1 FROM \"{}\" WHERE json_type(\"{EXTRA}\", ?1) IS NOT NULL)", table.name());
    let there: bool = session.connection.query_row(&select, [format!("$.\"{field}\"")], |row| row.get(0)).or_explain()?;
    if there {
        return Err(is_a_field(&table.schema().name, field));
    }
    Ok(())
}

fn refuse_fields(session: &Session<'_>, table: &Table) -> Result<()> {
    let select = format!("SELECT \"{EXTRA}\" FROM \"{}\" WHERE \"{EXTRA}\" IS NOT NULL LIMIT 1", table.name());
    let mut select = session.connection.prepare(&select).or_explain()?;
    let mut rows = select.query([]).or_explain()?;
    let Some(row) = rows.next().or_explain()? else { return Ok(()) };
    let extra: String = row.get(0).or_explain()?;
    let fields: Fields = serde_json::from_str(&extra)?;
    let field = fields.keys().next().map_or("", String::as_str);
    Err(has_fields(&table.schema().name, field))
}

/// Sets the default once more, as a bound value: the text of a real number in DDL goes through a parser of SQLite's own.
fn set_default(session: &Session<'_>, after: &Table, column: &Column) -> Result<()> {
    let Some(default) = &column.default else { return Ok(()) };
    if column.kind != storage_core::ColumnType::Real {
        return Ok(());
    }
    let update = format!("UPDATE \"{}\" SET \"{}\" = ?1", after.name(), column.name);
    let value = encode(Dialect::Sqlite, column.kind, default)?;
    session.connection.execute(&update, [Bound(&value)]).or_explain()?;
    Ok(())
}

/// Moves a field that was outside the schema into the new column of its name.
fn adopt(session: &Session<'_>, after: &Table, column: &Column) -> Result<()> {
    if after.schema().undeclared != Undeclared::Keep {
        return Ok(());
    }
    let name = after.name();
    let select = format!(
        "SELECT _rowid_, \"{EXTRA}\" FROM \"{name}\" WHERE _rowid_ >= ?1 AND json_type(\"{EXTRA}\", ?2) IS NOT NULL \
         ORDER BY _rowid_ LIMIT ?3"
    );
    let update = format!("UPDATE \"{name}\" SET \"{}\" = ?1, \"{EXTRA}\" = ?2 WHERE _rowid_ = ?3", column.name);
    let mut select = session.connection.prepare(&select).or_explain()?;
    let mut update = session.connection.prepare(&update).or_explain()?;
    let path = format!("$.\"{}\"", column.name);
    let mut from = i64::MIN;
    loop {
        let rows: Vec<(i64, String)> = select
            .query_map((from, &path, STEP), |row| Ok((row.get(0)?, row.get(1)?)))
            .and_then(Iterator::collect)
            .or_explain()?;
        let Some((rowid, _)) = rows.last() else { return Ok(()) };
        let next = rowid.checked_add(1);
        for (rowid, extra) in rows {
            let mut fields: Fields = serde_json::from_str(&extra)?;
            let found = adopt_field(&mut fields, column)?;
            let left = if fields.is_empty() { None } else { Some(serde_json::to_string(&fields)?) };
            let value = encode(Dialect::Sqlite, column.kind, &found)?;
            update.execute((Bound(&value), left, rowid)).map_err(|error| match violation(&error, name) {
                Some(violation) => violation.into_error(&after.schema().name),
                None => explain(error),
            })?;
        }
        let Some(next) = next else { return Ok(()) };
        from = next;
    }
}
