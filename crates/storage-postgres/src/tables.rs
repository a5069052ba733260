//! Creating, changing and dropping tables, within a transaction.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use storage_core::{Column, ColumnName, Error, Fields, Result, SchemaChange, TableName, TableSchema, Undeclared};
use storage_sql::server::is_same;
use storage_sql::{
    Dialect, EXPIRES_AT, EXTRA, SqlRow as _, SqlValue, Table, UPDATED_AT, VERSION, adopt_field, encode, has_fields, is_a_field,
    json_text, row,
};

use crate::bind::Param;
use crate::catalog::{self, Catalog};
use crate::connection::Connection;
use crate::error::{OrExplain as _, explain, unique_violation};
use crate::history;
use crate::layout::CHANGE_LOCK;
use crate::statements::quote;

/// How many rows one step of a change looks at.
const STEP: i64 = 1_000;

/// The tables as they are, with the right to change them, which nobody else has until the end of the transaction.
async fn alone(connection: &Connection) -> Result<Catalog> {
    connection.batch(CHANGE_LOCK).await.or_explain()?;
    catalog::load(connection, &Catalog::default()).await
}

/// Makes other connections read the tables anew.
async fn changed(connection: &Connection) -> Result<()> {
    connection.batch("UPDATE _storage_meta SET value = value + 1 WHERE name = 'generation'").await.or_explain()?;
    connection.forget_statements();
    Ok(())
}

/// Creates a table. `false`: it is there with the same schema.
pub(crate) async fn create(connection: &Connection, schema: &TableSchema) -> Result<bool> {
    schema.check()?;
    let catalog = alone(connection).await?;
    if let Some(there) = catalog.similar(&schema.name) {
        return is_same(there.schema(), schema);
    }
    let table = Table::new(Dialect::Postgres, schema.clone());
    refuse_strangers(connection, &table).await?;
    for statement in table.create().into_iter().chain(comments(&table)) {
        connection.batch(&statement).await.or_explain()?;
    }
    let insert = "INSERT INTO _storage_tables (name, schema) VALUES ($1, $2)";
    connection.execute(insert, vec![schema.name.as_str().into(), schema_value(schema)?]).await.or_explain()?;
    changed(connection).await?;
    Ok(true)
}

fn schema_value(schema: &TableSchema) -> Result<Param<'static>> {
    Ok(Param::One(SqlValue::Json(json_text(Dialect::Postgres, schema)?.into())))
}

/// What `\d+` shows beside the columns that the toolkit adds.
fn comments(table: &Table) -> Vec<String> {
    let name = quote(table.name());
    let column = |column: &str, text: &str| format!("COMMENT ON COLUMN {name}.{} IS '{text}'", quote(column));
    vec![
        format!("COMMENT ON TABLE {name} IS 'storage toolkit: records; its schema is in _storage_tables'"),
        column(VERSION, "grows by one with every write: the optimistic lock"),
        column(UPDATED_AT, "when this version was written"),
        column(EXPIRES_AT, "from when on the record counts as absent; null: never"),
        column(EXTRA, "fields outside the schema, as a JSON object; null: none"),
    ]
}

/// Tables of other programs are left alone.
async fn refuse_strangers(connection: &Connection, table: &Table) -> Result<()> {
    let select = "SELECT EXISTS (SELECT 1 FROM pg_class WHERE relnamespace = current_schema()::regnamespace AND lower(relname) = lower($1::text))";
    if connection.row(select, vec![table.name().into()]).await?.try_get(0).or_explain()? {
        return Err(Error::already_exists(
            "the database has a table, view or index of that name that was not made by this toolkit: choose another name",
        ));
    }
    Ok(())
}

/// Drops a table. `false`: there is none.
pub(crate) async fn drop_table(connection: &Connection, name: &TableName) -> Result<bool> {
    let catalog = alone(connection).await?;
    let Ok(entry) = catalog.table(name) else { return Ok(false) };
    // One that somebody else has dropped is to be forgotten all the same.
    let drop = entry.table.drop().replacen("DROP TABLE ", "DROP TABLE IF EXISTS ", 1);
    connection.batch(&drop).await.or_explain()?;
    for delete in ["DELETE FROM _storage_tables WHERE name = $1", "DELETE FROM _storage_history WHERE table_name = $1"] {
        connection.execute(delete, vec![name.as_str().into()]).await.or_explain()?;
    }
    changed(connection).await?;
    Ok(true)
}

/// Changes a table and keeps its records.
pub(crate) async fn alter(connection: &Connection, name: &TableName, change: &SchemaChange, now: DateTime<Utc>) -> Result<()> {
    let catalog = alone(connection).await?;
    let entry = Arc::clone(catalog.table(name)?);
    let before = &entry.table;
    let after = Table::new(Dialect::Postgres, change.apply(before.schema())?);
    // Who has begun to write ends first, and by the schema of before.
    connection.batch(&format!("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE", quote(before.name()))).await.or_explain()?;
    connection.execute(&entry.sql.delete_expired, vec![Param::time(now)]).await.or_explain()?;
    if let SchemaChange::RenameColumn { to, .. } = change {
        refuse_field(connection, before, to).await?;
    }
    if matches!(change, SchemaChange::SetUndeclared(Undeclared::Reject)) {
        refuse_fields(connection, before).await?;
    }
    let violated = |error| unique_violation(&error, name).unwrap_or_else(|| explain(error));
    for statement in before.alter(change)? {
        connection.batch(&statement).await.map_err(violated)?;
    }
    connection.forget_statements();
    if let SchemaChange::AddColumn(column) = change {
        adopt(connection, &after, column).await?;
    }
    if matches!(change, SchemaChange::DropColumn(_) | SchemaChange::RenameColumn { .. } | SchemaChange::AddColumn(_)) {
        history::alter(connection, name, change).await?;
    }
    let update = "UPDATE _storage_tables SET schema = $1 WHERE name = $2";
    connection.execute(update, vec![schema_value(after.schema())?, name.as_str().into()]).await.or_explain()?;
    changed(connection).await
}

async fn refuse_field(connection: &Connection, table: &Table, field: &ColumnName) -> Result<()> {
    let select = format!("SELECT EXISTS (SELECT 1 FROM {} WHERE {} ? $1)", quote(table.name()), quote(EXTRA));
    if connection.row(&select, vec![field.as_str().into()]).await?.try_get(0).or_explain()? {
        return Err(is_a_field(&table.schema().name, field));
    }
    Ok(())
}

async fn refuse_fields(connection: &Connection, table: &Table) -> Result<()> {
    let extra = quote(EXTRA);
    let select = format!("SELECT k FROM {}, jsonb_object_keys({extra}) k WHERE {extra} IS NOT NULL LIMIT 1", quote(table.name()));
    let rows = connection.query(&select, Vec::new()).await.or_explain()?;
    let Some(found) = rows.first() else { return Ok(()) };
    let field: String = found.try_get(0).or_explain()?;
    Err(has_fields(&table.schema().name, &field))
}

/// Moves a field that was outside the schema into the new column of its name.
async fn adopt(connection: &Connection, after: &Table, column: &Column) -> Result<()> {
    if after.schema().undeclared != Undeclared::Keep {
        return Ok(());
    }
    let (name, extra, target) = (quote(after.name()), quote(EXTRA), quote(column.name.as_str()));
    let kind = match column.kind {
        storage_core::ColumnType::Text => "text",
        kind => Dialect::Postgres.column_type(kind, false),
    };
    // Those that were moved have the field no longer, so that each step finds others.
    let select = format!("SELECT ctid::text, {extra} FROM {name} WHERE {extra} ? $1 LIMIT $2");
    let update = format!(
        "UPDATE {name} t SET {target} = u.value, {extra} = u.extra FROM unnest($1::text[], $2::{kind}[], $3::jsonb[]) u (place, value, extra) \
         WHERE t.ctid = u.place::tid"
    );
    loop {
        let rows = connection.query(&select, vec![column.name.as_str().into(), STEP.into()]).await.or_explain()?;
        if rows.is_empty() {
            return Ok(());
        }
        let (mut places, mut values, mut extras) = (Vec::new(), Vec::new(), Vec::new());
        for found in &rows {
            let SqlValue::Json(text) = found.value(1)? else { return Err(row::stranger("`_extra`")) };
            let mut fields: Fields = serde_json::from_str(&text)?;
            let value = adopt_field(&mut fields, column)?;
            places.push(found.value(0)?);
            values.push(encode(Dialect::Postgres, column.kind, &value)?.into_owned());
            extras.push(if fields.is_empty() {
                SqlValue::Null
            } else {
                SqlValue::Json(json_text(Dialect::Postgres, &fields)?.into())
            });
        }
        let values = vec![Param::Many(places), Param::Many(values), Param::Many(extras)];
        let moved = connection.execute(&update, values).await;
        moved.map_err(|error| unique_violation(&error, &after.schema().name).unwrap_or_else(|| explain(error)))?;
    }
}
