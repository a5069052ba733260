//! Creating, changing and dropping tables.
//!
//! The server keeps each change of a table by itself, whatever comes behind it. So what is to be done is noted first, and who changes tables next, or finds one in
//! the middle of a change and nobody at it, finishes what was left. Until that is done nobody uses the table.

use std::time::Duration;

use chrono::{DateTime, Utc};
use mysql_async::Value;
use storage_core::{Column, ColumnName, Error, Fields, Result, SchemaChange, TableName, TableSchema, Undeclared};
use storage_sql::server::is_same;
use storage_sql::{Dialect, EXTRA, SqlRow as _, SqlValue, Table, adopt_field, encode, has_fields, is_a_field, json_text, row};

use crate::catalog::{self, Catalog, Doing, Left};
use crate::connection::Connection;
use crate::error::{OrExplain as _, explain, is_collision, unique_violation};
use crate::history;
use crate::layout::Found;
use crate::row::{bound, key_values, moment, text};
use crate::shared::Shared;
use crate::statements::{quote, row_of};

/// How many rows one step of a change looks at.
const STEP: i64 = 500;
/// How often a note is tried again that others are in the way of.
const ATTEMPTS: usize = 10;
/// What says that a table is ours.
const COMMENT: &str = "storage toolkit: records; its schema is in _storage_tables";

/// Does something while nobody else changes tables of this database.
pub(crate) async fn alone<T>(
    connection: &Connection,
    patience: Duration,
    work: impl Future<Output = Result<T>> + Send,
) -> Result<T> {
    if lock(connection, patience.as_secs() / 2 + 1).await? {
        return locked(connection, work).await;
    }
    Err(Error::unavailable("somebody else is changing tables for longer than the timeout: try again"))
}

/// Finishes what somebody has left, unless somebody is at it.
pub(crate) async fn finish_left(shared: &Shared, connection: &Connection) -> Result<()> {
    if lock(connection, 0).await? {
        locked(connection, settled(shared, connection)).await?;
    }
    Ok(())
}

async fn lock(connection: &Connection, seconds: u64) -> Result<bool> {
    let lock = "SELECT GET_LOCK(CONCAT('storage.', LEFT(SHA2(DATABASE(), 256), 40)), ?)";
    let row = connection.row(lock, vec![Value::UInt(seconds)]).await?;
    Ok(row::integer(&row, 0)? == Some(1))
}

async fn locked<T>(connection: &Connection, work: impl Future<Output = Result<T>> + Send) -> Result<T> {
    let done = work.await;
    // With the connection the lock is gone too.
    if !connection.has_ended() {
        connection
            .query("SELECT RELEASE_LOCK(CONCAT('storage.', LEFT(SHA2(DATABASE(), 256), 40)))", Vec::new())
            .await
            .or_explain()?;
    }
    done
}

/// The tables as they are, none in the middle of a change.
async fn settled(shared: &Shared, connection: &Connection) -> Result<Catalog> {
    let (catalog, left) = catalog::load(connection, &Catalog::default()).await?;
    if left.is_empty() {
        return Ok(catalog);
    }
    for left in left {
        finish(shared, connection, left).await?;
    }
    Ok(catalog::load(connection, &Catalog::default()).await?.0)
}

async fn finish(shared: &Shared, connection: &Connection, left: Left) -> Result<()> {
    let schema = || {
        serde_json::from_str::<TableSchema>(&left.schema).map_err(|e| {
            Error::corrupt(format!("the schema of table `{}` in `_storage_tables` can't be read: {e}", left.name)).with_source(e)
        })
    };
    match &left.doing {
        Doing::Create => undo_creation(connection, &left.name).await,
        Doing::Drop => remove(connection, &left.name).await,
        Doing::Alter(change) => {
            // What can't be done is undone, and whoever wanted it does not hear of it any longer.
            match change_columns(shared, connection, &Table::new(Dialect::MySql, schema()?), change).await {
                Err(error) if connection.has_ended() => Err(error),
                _ => Ok(()),
            }
        }
        Doing::Tidy(change) => tidy(connection, &Table::new(Dialect::MySql, schema()?), change).await,
    }
}

/// Notes something about tables, and makes other connections read them anew.
async fn note(connection: &Connection, sql: &str, values: Vec<Value>) -> Result<()> {
    for attempt in 1.. {
        let noted = async {
            // Those who write hold a share of the number: they end first.
            connection.batch("START TRANSACTION").await?;
            connection.batch("UPDATE _storage_meta SET value = value + 1 WHERE name = 'generation'").await?;
            connection.execute(sql, values.clone()).await?;
            connection.batch("COMMIT").await
        };
        match noted.await {
            Ok(()) => return Ok(()),
            Err(error) => {
                connection.batch("ROLLBACK").await.or_explain()?;
                if !is_collision(&error) || attempt == ATTEMPTS {
                    return Err(explain(error));
                }
            }
        }
    }
    Ok(())
}

fn doing(doing: &Doing) -> Result<Value> {
    Ok(text(&serde_json::to_string(doing)?))
}

/// Creates a table. `false`: it is there with the same schema.
pub(crate) async fn create(shared: &Shared, connection: &Connection, schema: TableSchema) -> Result<bool> {
    schema.check()?;
    alone(connection, shared.settings.timeout, async {
        let catalog = settled(shared, connection).await?;
        if let Some(there) = catalog.similar(&schema.name) {
            return is_same(there.schema(), &schema);
        }
        let table = Table::new(Dialect::MySql, schema.clone());
        refuse_strangers(connection, &table).await?;
        let insert = "INSERT INTO _storage_tables (name, table_schema, doing) VALUES (?, ?, ?)";
        let values = vec![text(schema.name.as_str()), schema_value(&schema)?, doing(&Doing::Create)?];
        connection.execute(insert, values).await.or_explain()?;
        if let Err(error) = make(connection, &table, &shared.found).await {
            undo_creation(connection, &schema.name).await?;
            return Err(error);
        }
        let done = "UPDATE _storage_tables SET doing = NULL WHERE name = ?";
        note(connection, done, vec![text(schema.name.as_str())]).await?;
        Ok(true)
    })
    .await
}

async fn make(connection: &Connection, table: &Table, found: &Found) -> Result<()> {
    for create in table.create() {
        let create = format!("{create} DEFAULT CHARACTER SET utf8mb4 COLLATE {} COMMENT='{COMMENT}'", found.collation);
        connection.batch(&create).await.or_explain()?;
    }
    Ok(())
}

/// Removes what there is of a table that was not finished: nobody has written to it.
async fn undo_creation(connection: &Connection, name: &TableName) -> Result<()> {
    let ours = "SELECT EXISTS (SELECT 1 FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name = ? AND table_comment = ?)";
    if exists(connection, ours, vec![text(name.as_str()), text(COMMENT)]).await? {
        connection.batch(&format!("DROP TABLE IF EXISTS {}", quote(name.as_str()))).await.or_explain()?;
    }
    connection.execute("DELETE FROM _storage_tables WHERE name = ?", vec![text(name.as_str())]).await.or_explain().map(drop)
}

fn schema_value(schema: &TableSchema) -> Result<Value> {
    Ok(text(&json_text(Dialect::MySql, schema)?))
}

async fn exists(connection: &Connection, sql: &str, values: Vec<Value>) -> Result<bool> {
    Ok(row::integer(&connection.row(sql, values).await?, 0)? == Some(1))
}

/// Tables of other programs are left alone.
async fn refuse_strangers(connection: &Connection, table: &Table) -> Result<()> {
    let select = "SELECT EXISTS (SELECT 1 FROM information_schema.tables WHERE table_schema = DATABASE() AND LOWER(table_name) = LOWER(?))";
    if exists(connection, select, vec![text(table.name())]).await? {
        return Err(Error::already_exists(
            "the database has a table or view of that name that was not made by this toolkit: choose another name",
        ));
    }
    Ok(())
}

/// Drops a table. `false`: there is none.
pub(crate) async fn drop_table(shared: &Shared, connection: &Connection, name: TableName) -> Result<bool> {
    alone(connection, shared.settings.timeout, async {
        let catalog = settled(shared, connection).await?;
        if catalog.table(&name).is_err() {
            return Ok(false);
        }
        let mark = "UPDATE _storage_tables SET doing = ? WHERE name = ?";
        note(connection, mark, vec![doing(&Doing::Drop)?, text(name.as_str())]).await?;
        remove(connection, &name).await?;
        Ok(true)
    })
    .await
}

async fn remove(connection: &Connection, name: &TableName) -> Result<()> {
    // One that somebody else has dropped is to be forgotten all the same.
    connection.batch(&format!("DROP TABLE IF EXISTS {}", quote(name.as_str()))).await.or_explain()?;
    for delete in ["DELETE FROM _storage_history WHERE table_name = ?", "DELETE FROM _storage_tables WHERE name = ?"] {
        connection.execute(delete, vec![text(name.as_str())]).await.or_explain()?;
    }
    Ok(())
}

/// Changes a table and keeps its records.
pub(crate) async fn alter(shared: &Shared, connection: &Connection, name: TableName, change: SchemaChange) -> Result<()> {
    alone(connection, shared.settings.timeout, async {
        let catalog = settled(shared, connection).await?;
        let before = &catalog.table(&name)?.table;
        change.apply(before.schema())?;
        let mark = "UPDATE _storage_tables SET doing = ? WHERE name = ?";
        note(connection, mark, vec![doing(&Doing::Alter(change.clone()))?, text(name.as_str())]).await?;
        change_columns(shared, connection, before, &change).await
    })
    .await
}

/// Changes the columns, then what is in the rows. What is refused is undone.
async fn change_columns(shared: &Shared, connection: &Connection, before: &Table, change: &SchemaChange) -> Result<()> {
    let name = text(before.name());
    let after = Table::new(Dialect::MySql, change.apply(before.schema())?);
    match columns(connection, before, &after, change, shared.time.now()).await {
        Ok(()) => {}
        // Somebody else undoes it, or goes on.
        Err(error) if connection.has_ended() => return Err(error),
        Err(error) => {
            if let SchemaChange::AddColumn(column) = change
                && has_column(connection, before, &column.name).await?
            {
                let drop = format!("ALTER TABLE {} DROP COLUMN {}", quote(before.name()), quote(column.name.as_str()));
                connection.batch(&drop).await.or_explain()?;
            }
            note(connection, "UPDATE _storage_tables SET doing = NULL WHERE name = ?", vec![name]).await?;
            return Err(error);
        }
    }
    let mark = "UPDATE _storage_tables SET table_schema = ?, doing = ? WHERE name = ?";
    note(connection, mark, vec![schema_value(after.schema())?, doing(&Doing::Tidy(change.clone()))?, name]).await?;
    tidy(connection, &after, change).await
}

/// As far as it can be undone: nothing that a record had is lost yet. Done again it does what is left to do.
async fn columns(
    connection: &Connection,
    before: &Table,
    after: &Table,
    change: &SchemaChange,
    now: DateTime<Utc>,
) -> Result<()> {
    let schema = before.schema();
    let expired = format!("DELETE FROM {} WHERE {} <= ?", quote(before.name()), quote(storage_sql::EXPIRES_AT));
    connection.execute(&expired, vec![moment(now)]).await.or_explain()?;
    let done = match change {
        SchemaChange::AddColumn(column) => has_column(connection, before, &column.name).await?,
        SchemaChange::DropColumn(name) => !has_column(connection, before, name).await?,
        SchemaChange::RenameColumn { from, .. } => !has_column(connection, before, from).await?,
        SchemaChange::AddIndex(index) => has_index(connection, before, &before.index_name(index.name.as_str())).await?,
        SchemaChange::DropIndex(name) => !has_index(connection, before, &before.index_name(name.as_str())).await?,
        _ => false,
    };
    if let (SchemaChange::RenameColumn { to, .. }, false) = (change, done) {
        refuse_field(connection, before, to).await?;
    }
    if matches!(change, SchemaChange::SetUndeclared(Undeclared::Reject)) {
        refuse_fields(connection, before).await?;
    }
    let violated = |error| unique_violation(&error, &schema.name).unwrap_or_else(|| explain(error));
    let mut statements = before.alter(change)?.into_iter();
    if let Some(statement) = statements.next()
        && !done
    {
        connection.batch(&statement).await.map_err(violated)?;
    }
    if let SchemaChange::AddColumn(column) = change {
        adopt(connection, after, column).await?;
        if let Some(unique) = statements.next()
            && !has_index(connection, before, &before.unique_name(&column.name)).await?
        {
            connection.batch(&unique).await.map_err(violated)?;
        }
    }
    Ok(())
}

/// What the change means for fields in JSON. Done again it does what is left to do.
async fn tidy(connection: &Connection, after: &Table, change: &SchemaChange) -> Result<()> {
    if let SchemaChange::AddColumn(column) = change {
        remove_field(connection, after, &column.name).await?;
    }
    if matches!(change, SchemaChange::DropColumn(_) | SchemaChange::RenameColumn { .. } | SchemaChange::AddColumn(_)) {
        history::alter(connection, &after.schema().name, change).await?;
    }
    note(connection, "UPDATE _storage_tables SET doing = NULL WHERE name = ?", vec![text(after.name())]).await
}

async fn has_column(connection: &Connection, table: &Table, column: &ColumnName) -> Result<bool> {
    let select = "SELECT EXISTS (SELECT 1 FROM information_schema.columns WHERE table_schema = DATABASE() AND table_name = ? AND LOWER(column_name) = LOWER(?))";
    exists(connection, select, vec![text(table.name()), text(column.as_str())]).await
}

async fn has_index(connection: &Connection, table: &Table, index: &str) -> Result<bool> {
    let select = "SELECT EXISTS (SELECT 1 FROM information_schema.statistics WHERE table_schema = DATABASE() AND table_name = ? AND LOWER(index_name) = LOWER(?))";
    exists(connection, select, vec![text(table.name()), text(index)]).await
}

/// That the fields outside the schema have one of that name; the names of columns need no escaping.
fn has_field(name: &ColumnName) -> String {
    format!("JSON_CONTAINS_PATH({}, 'one', '$.\"{name}\"')", quote(EXTRA))
}

async fn refuse_field(connection: &Connection, table: &Table, field: &ColumnName) -> Result<()> {
    let select = format!("SELECT EXISTS (SELECT 1 FROM {} WHERE {})", quote(table.name()), has_field(field));
    if exists(connection, &select, Vec::new()).await? {
        return Err(is_a_field(&table.schema().name, field));
    }
    Ok(())
}

async fn refuse_fields(connection: &Connection, table: &Table) -> Result<()> {
    let extra = quote(EXTRA);
    let select = format!("SELECT {extra} FROM {} WHERE {extra} IS NOT NULL LIMIT 1", quote(table.name()));
    let rows = connection.query(&select, Vec::new()).await.or_explain()?;
    let Some(found) = rows.first() else { return Ok(()) };
    let fields = extra_fields(&found.value(0)?)?;
    let field = fields.keys().next().map_or("", String::as_str);
    Err(has_fields(&table.schema().name, field))
}

fn extra_fields(value: &SqlValue<'_>) -> Result<Fields> {
    match value {
        SqlValue::Text(text) | SqlValue::Json(text) => {
            serde_json::from_str(text).map_err(|e| row::stranger("`_extra`").with_source(e))
        }
        _ => Err(row::stranger("`_extra`")),
    }
}

/// Puts fields that are outside the schema into the new column of their name too.
async fn adopt(connection: &Connection, after: &Table, column: &Column) -> Result<()> {
    let schema = after.schema();
    if schema.undeclared != Undeclared::Keep {
        return Ok(());
    }
    let (name, keys) = (quote(after.name()), key_columns(after));
    let update = format!(
        "UPDATE {name} SET {} = ? WHERE ({keys}) = {}",
        quote(column.name.as_str()),
        row_of(schema.key_columns().count())
    );
    let mut last: Option<Vec<Value>> = None;
    loop {
        let behind = last.as_ref().map_or_else(String::new, |last| format!(" AND ({keys}) > {}", row_of(last.len())));
        let select = format!(
            "SELECT {keys}, {} FROM {name} WHERE {}{behind} ORDER BY {keys} LIMIT ?",
            quote(EXTRA),
            has_field(&column.name)
        );
        let mut values = last.unwrap_or_default();
        values.push(Value::Int(STEP));
        let rows = connection.query(&select, values).await.or_explain()?;
        let Some(end) = rows.last() else { return Ok(()) };
        last = Some(key_values([&row::key(end, schema)?.0]));
        for found in &rows {
            let (key, at) = row::key(found, schema)?;
            let value = adopt_field(&mut extra_fields(&found.value(at)?)?, column)?;
            let mut values = vec![bound(encode(Dialect::MySql, column.kind, &value)?)];
            values.extend(key_values([&key]));
            connection.execute(&update, values).await.or_explain()?;
        }
    }
}

fn key_columns(table: &Table) -> String {
    table.schema().key_columns().map(|key| quote(key.name.as_str())).collect::<Vec<_>>().join(", ")
}

/// Removes a field from those that are outside the schema.
async fn remove_field(connection: &Connection, table: &Table, field: &ColumnName) -> Result<()> {
    let (name, keys, extra, schema) = (quote(table.name()), key_columns(table), quote(EXTRA), table.schema());
    let select = format!("SELECT {keys}, {extra} FROM {name} WHERE {} LIMIT ?", has_field(field));
    let update = format!("UPDATE {name} SET {extra} = ? WHERE ({keys}) = {}", row_of(schema.key_columns().count()));
    loop {
        let rows = connection.query(&select, vec![Value::Int(STEP)]).await.or_explain()?;
        if rows.is_empty() {
            return Ok(());
        }
        for found in &rows {
            let (key, at) = row::key(found, schema)?;
            let mut fields = extra_fields(&found.value(at)?)?;
            fields.remove(field.as_str());
            let left = if fields.is_empty() { Value::NULL } else { text(&json_text(Dialect::MySql, &fields)?) };
            let mut values = vec![left];
            values.extend(key_values([&key]));
            connection.execute(&update, values).await.or_explain()?;
        }
    }
}
