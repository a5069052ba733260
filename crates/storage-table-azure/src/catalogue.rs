//! The table of all tables: a row for each, with its schema and its name on the service.

use serde_json::{Map, Value, json};
use storage_core::{
    ColumnType, Error, Fields, History, Key, KeyType, Record, Result, SchemaChange, TableName, TableSchema, Version,
};

use crate::client::{Change, Search};
use crate::entity::{self, Entity};
use crate::error::{Refusal, code};
use crate::keys::{self, Place};
use crate::names;
use crate::odata::quoted;
use crate::read;
use crate::store::{Store, no_table};
use crate::table::{Past, Table};

/// The partition that all rows are in.
const TABLES: &str = "tables";
/// How often a change of a table begins anew because another came first.
const MAX_TRIES: u32 = 20;
/// How many changes one table may go through: its row holds what it was like before each.
const MAX_CHANGES: usize = 100;

/// What a row is like.
fn rows(there: String) -> Result<Table> {
    let rows = TableSchema::builder("catalogue").partition("kind", KeyType::Text).key("name");
    let rows = rows.column("table", ColumnType::Text).required().column("schema", ColumnType::Json).required();
    Ok(Table { schema: rows.column("past", ColumnType::Json).build()?, there, past: Vec::new() })
}

fn key(name: &TableName) -> Key {
    // Letter case does not distinguish tables.
    Key::partitioned(TABLES, name.as_str().to_ascii_lowercase())
}

fn table(entity: Entity) -> Result<(Table, String)> {
    let (Record { key, mut fields, .. }, etag) = entity.into_record(&rows(String::new())?)?;
    let bad = || Error::corrupt(format!("the row of table `{}` in the catalogue can't be read", key.id));
    let schema = serde_json::from_value(fields.remove("schema").unwrap_or_default()).map_err(|_| bad())?;
    let past = fields.remove("past").map_or(Ok(Vec::new()), serde_json::from_value).map_err(|_| bad())?;
    let Some(Value::String(there)) = fields.remove("table") else { return Err(bad()) };
    Ok((Table { schema, there, past }, etag))
}

/// The table of that name, whatever its case, and the mark of its row.
pub(crate) async fn look_up(store: &Store, name: &TableName) -> Result<Option<(Table, String)>> {
    let place = keys::place(&key(name))?;
    match store.client.get(&names::catalogue(&store.prefix), &place).await {
        Ok(found) => found.map(table).transpose(),
        Err(refusal) if refusal.is(code::NO_TABLE) => Ok(None),
        Err(refusal) => Err(refusal.into()),
    }
}

/// True where the very table is there; another in its place is an error.
async fn is_there(store: &Store, schema: &TableSchema) -> Result<bool> {
    let Some((there, _)) = look_up(store, &schema.name).await? else { return Ok(false) };
    if there.schema.name != schema.name {
        return Err(Error::already_exists(format!(
            "there is a table `{}`, and letter case does not distinguish tables",
            there.schema.name
        )));
    }
    if let Some(difference) = there.schema.difference(schema) {
        return Err(Error::already_exists(format!("it is there with another schema: {difference}")));
    }
    // Somebody may have got no further than this, or half-way with removing it.
    if is_empty(store, &there.there).await?.is_none() {
        store.client.create_table(&there.there).await?;
    }
    store.remember(there);
    Ok(true)
}

/// `None`: the service has no such table.
async fn is_empty(store: &Store, there: &str) -> Result<Option<bool>> {
    let mut search = Search::new(Vec::new(), 1).select(&["PartitionKey", "RowKey"]);
    while !search.is_over() {
        match store.client.find(there, &mut search).await {
            Ok(found) if found.is_empty() => {}
            Ok(_) => return Ok(Some(false)),
            Err(refusal) if refusal.is(code::NO_TABLE) => return Ok(None),
            Err(refusal) => return Err(refusal.into()),
        }
    }
    Ok(Some(true))
}

/// `false`: it was there.
pub(crate) async fn create(store: &Store, schema: &TableSchema) -> Result<bool> {
    let there = names::table(&store.prefix, &schema.name);
    for _ in 0..MAX_TRIES {
        if is_there(store, schema).await? {
            return Ok(false);
        }
        let made = store.client.create_table(&there).await?;
        // One without a row may be what is left of a creation that got no further: then nothing is in it.
        if !made && is_empty(store, &there).await? == Some(false) {
            if is_there(store, schema).await? {
                return Ok(false);
            }
            return Err(Error::already_exists(format!(
                "the account has a table `{there}` with entities in it that this toolkit did not make: use another name, or the option `prefix`"
            )));
        }
        match insert(store, schema, &there).await {
            Ok(table) => {
                store.remember(table);
                return Ok(true);
            }
            Err(refusal) if refusal.is_overtaken() => {}
            Err(refusal) if refusal.is(code::NO_TABLE) => {
                store.client.create_table(&names::catalogue(&store.prefix)).await?;
            }
            Err(refusal) => return Err(refusal.into()),
        }
    }
    Err(busy(&schema.name))
}

/// What a table's row holds.
fn row(store: &Store, table: &Table, version: usize) -> Result<(Place, Map<String, Value>)> {
    let rows = rows(names::catalogue(&store.prefix))?;
    let key = key(&table.schema.name);
    let place = keys::place(&key)?;
    let mut fields: Fields = storage_core::fields(json!({"table": table.there, "schema": serde_json::to_value(&table.schema)?}));
    if !table.past.is_empty() {
        fields.insert("past".into(), serde_json::to_value(&table.past)?);
    }
    let version = Version(u64::try_from(version).unwrap_or(u64::MAX));
    let record = Record { key, version, updated_at: store.clock.now(), expires_at: None, fields };
    let entity = entity::encode(&rows, &place, &record)?;
    Ok((place, entity))
}

async fn insert(store: &Store, schema: &TableSchema, there: &str) -> Result<Table, Refusal> {
    let table = Table { schema: schema.clone(), there: there.to_owned(), past: Vec::new() };
    let (place, entity) = row(store, &table, 1)?;
    store.client.change(&names::catalogue(&store.prefix), &place, &Change::Insert(entity)).await?;
    Ok(table)
}

/// Changes the schema; records are changed as they are read. What they can't be changed into is found out first.
pub(crate) async fn alter(store: &Store, name: &TableName, change: &SchemaChange) -> Result<()> {
    store.forget(name);
    for _ in 0..MAX_TRIES {
        let found = look_up(store, name).await?.filter(|(table, _)| table.schema.name == *name);
        let (mut table, etag) = found.ok_or_else(|| no_table(name))?;
        let after = change.apply(&table.schema)?;
        check_offers(&after)?;
        if table.generation() >= MAX_CHANGES {
            return Err(Error::unsupported(format!(
                "table `{name}` was changed {MAX_CHANGES} times: copy it to a new one, where its records are as they are now"
            )));
        }
        if change.concerns_records(&table.schema) {
            let look = |mut record: Record| {
                change
                    .alter_fields(&after, &mut record.fields)
                    .map_err(|e| Error::new(e.kind(), format!("record `{}`: {}", record.key, e.message())))
            };
            read::all(&store.client, &table, &store.clock, look).await.map_err(|refusal| store.told(name, refusal))?;
        }
        let schema = std::mem::replace(&mut table.schema, after);
        table.past.push(Past { schema, change: change.clone() });
        let (place, entity) = row(store, &table, table.generation() + 1)?;
        match store.client.change(&names::catalogue(&store.prefix), &place, &Change::Replace(entity, etag)).await {
            Ok(_) => {
                store.forget(name);
                return Ok(());
            }
            Err(refusal) if refusal.is_overtaken() => {}
            Err(refusal) => return Err(Error::from(refusal).of_unanswered_write()),
        }
    }
    Err(busy(name))
}

/// What no table can have here.
pub(crate) fn check_offers(schema: &TableSchema) -> Result<()> {
    if schema.unique_sets().next().is_some() || schema.history != History::None {
        return Err(Error::unsupported("Azure Table Storage has no unique columns, and keeps no history here"));
    }
    Ok(())
}

fn busy(name: &TableName) -> Error {
    Error::conflict(format!("others create, change and drop table `{name}` all the time: try again later"))
}

/// `false`: there was none. The table goes first: what is left of a call that got no further is a row, which the next one finds.
pub(crate) async fn drop_table(store: &Store, name: &TableName) -> Result<bool> {
    store.forget(name);
    let Some((table, etag)) = look_up(store, name).await?.filter(|(table, _)| table.schema.name == *name) else {
        return Ok(false);
    };
    store.client.drop_table(&table.there).await?;
    let place = keys::place(&key(name))?;
    match store.client.change(&names::catalogue(&store.prefix), &place, &Change::Delete(etag)).await {
        Ok(_) => Ok(true),
        // Another removed it at the same time.
        Err(refusal) if refusal.is_overtaken() => Ok(true),
        Err(refusal) => Err(refusal.into()),
    }
}

/// All tables, by name.
pub(crate) async fn tables(store: &Store) -> Result<Vec<TableSchema>> {
    let place = Place { partition: TABLES.to_owned(), row: String::new() };
    let mut search = Search::new(vec![format!("PartitionKey eq {}", quoted(&place.partition))], crate::client::MOST);
    let mut tables = Vec::new();
    while !search.is_over() {
        match store.client.find(&names::catalogue(&store.prefix), &mut search).await {
            Ok(found) => {
                for entity in found {
                    let (table, _) = table(entity)?;
                    tables.push(store.remember(table).schema.clone());
                }
            }
            Err(refusal) if refusal.is(code::NO_TABLE) => return Ok(tables),
            Err(refusal) => return Err(refusal.into()),
        }
    }
    tables.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    Ok(tables)
}
