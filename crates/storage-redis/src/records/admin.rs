//! Creating, listing and dropping tables; removing what is left of them.

use futures::{StreamExt as _, TryStreamExt as _};
use redis::{Value, cmd};
use storage_core::{Error, Result, TableName, TableSchema};
use uuid::Uuid;

use super::Records;
use super::table::{Table, list, lower};
use crate::error::strange;
use crate::message::{bytes, text};
use crate::scripts;

/// How many tables are looked at together.
const LOOKS: usize = 32;
/// How many records of a dropped table one call removes.
const PURGE: usize = 500;

/// The mark of a new table, or of a new state of its records.
pub(super) fn new_id() -> String {
    let mut id = Uuid::new_v4().simple().to_string();
    id.truncate(12);
    id
}

pub(super) fn first_stamp(id: &str) -> String {
    format!("{id}.0")
}

impl Records {
    pub(super) async fn create(&self, schema: &TableSchema) -> Result<bool> {
        let (name, written) = (lower(&schema.name), serde_json::to_string(schema)?);
        if let Some(there) = Table::read(&self.client, &self.layout, &name).await? {
            return same(&there.schema, schema);
        }
        let (id, meta, tables) = (new_id(), self.layout.table(&name), self.layout.tables());
        // First, and in another place of a Cluster: the list may name a table that is not there, but never lacks one.
        self.client.command(cmd("HSET").arg(&tables).arg(&name).arg(&id), &tables).await?;
        let stamp = first_stamp(&id);
        let arguments = [id.as_bytes(), stamp.as_bytes(), written.as_bytes()];
        let theirs = match self.client.script(&scripts::CREATE_TABLE, std::slice::from_ref(&meta), &arguments).await? {
            Value::Nil => {
                self.purge_all(&name).await;
                return Ok(true);
            }
            there => bytes(list(Some(there))?.pop().ok_or_else(|| strange("no table"))?)?,
        };
        // Somebody else was faster: the list has to name theirs, else the name would stay when the table goes.
        self.client.script(&scripts::RELIST, &[tables], &[name.as_bytes(), id.as_bytes(), &theirs]).await?;
        match Table::read(&self.client, &self.layout, &name).await? {
            Some(there) => same(&there.schema, schema),
            None => Err(Error::conflict("somebody else created the table and dropped it again, just now: try again")),
        }
    }

    pub(super) async fn drop_table(&self, name: &TableName) -> Result<bool> {
        let listed = lower(name);
        loop {
            self.tables.forget(name);
            let found = Table::read(&self.client, &self.layout, &listed).await?;
            let Some(table) = found.filter(|table| table.schema.name == *name) else { return Ok(false) };
            let keys = [table.meta.clone(), table.dropped.clone()];
            let id = match self.client.script(&scripts::DROP_TABLE, &keys, &[table.text.as_bytes()]).await? {
                Value::Nil => return Ok(false),
                // Changed since it was read.
                Value::Int(_) => continue,
                id => bytes(id)?,
            };
            let tables = self.layout.tables();
            self.client.script(&scripts::UNLIST, &[tables], &[listed.as_bytes(), &id]).await?;
            self.purge_all(&listed).await;
            return Ok(true);
        }
    }

    pub(super) async fn all_tables(&self) -> Result<Vec<TableSchema>> {
        let key = self.layout.tables();
        let listed = list(Some(self.client.command(cmd("HKEYS").arg(&key), &key).await?))?;
        let names = listed.into_iter().map(text).collect::<Result<Vec<_>>>()?;
        let looks = names.into_iter().map(|name| async move { Table::read(&self.client, &self.layout, &name).await });
        let found: Vec<_> = futures::stream::iter(looks).buffer_unordered(LOOKS).try_collect().await?;
        let mut tables: Vec<_> = found.into_iter().flatten().map(|table| table.schema).collect();
        tables.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(tables)
    }

    /// Removes what is left of earlier tables of a name. It is in nobody's way: that it can't be removed now is no reason to fail.
    pub(super) async fn purge_all(&self, name: &str) {
        if let Err(error) = self.purge_dropped(name).await {
            tracing::warn!(%error, "the records of a dropped table are not all removed: creating or dropping a table of its name tries again");
        }
    }

    async fn purge_dropped(&self, name: &str) -> Result<()> {
        let dropped = self.layout.dropped(name);
        let mut found = list(Some(self.client.command(cmd("HGETALL").arg(&dropped), &dropped).await?))?.into_iter();
        while let (Some(id), Some(schema)) = (found.next(), found.next()) {
            let (id, written) = (text(id)?, text(schema)?);
            let Ok(schema) = serde_json::from_str::<TableSchema>(&written) else {
                return Err(Error::corrupt(format!("`{dropped}` holds what this toolkit did not write")));
            };
            let table = Table::new(&self.layout, schema, written, id.clone(), first_stamp(&id))?;
            self.purge(&table).await?;
            self.client.command(cmd("HDEL").arg(&dropped).arg(&id), &dropped).await?;
        }
        Ok(())
    }

    /// Removes records, histories and indexes.
    async fn purge(&self, table: &Table) -> Result<()> {
        for (set, kind) in [(table.keys(), "row"), (table.kept(), "history")] {
            loop {
                let range = self.client.command(cmd("ZRANGE").arg(&set).arg(0).arg(PURGE - 1), &set).await?;
                let members = list(Some(range))?.into_iter().map(bytes).collect::<Result<Vec<_>>>()?;
                if members.is_empty() {
                    break;
                }
                let row = |member: &Vec<u8>| {
                    let member = std::str::from_utf8(member);
                    member.map(|member| format!("{}{kind}:{member}", table.data)).map_err(|_| strange("a key that is no text"))
                };
                let rows = members.iter().map(row).collect::<Result<Vec<_>>>()?;
                let keys: Vec<String> = std::iter::once(set.clone()).chain(rows).collect();
                let members: Vec<&[u8]> = members.iter().map(Vec::as_slice).collect();
                self.client.script(&scripts::PURGE_TABLE, &keys, &members).await?;
            }
        }
        let mut unlink = cmd("UNLINK");
        unlink.arg(table.expiring());
        for key in table.path_keys() {
            unlink.arg(key);
        }
        self.client.command(&unlink, &table.meta).await.map(drop)
    }
}

/// `false`: as asked for.
fn same(there: &TableSchema, asked: &TableSchema) -> Result<bool> {
    if there.name != asked.name {
        return Err(Error::already_exists(format!(
            "there is a table `{}`, and letter case does not distinguish tables",
            there.name
        )));
    }
    match there.difference(asked) {
        None => Ok(false),
        Some(difference) => Err(Error::already_exists(format!("it is there with another schema: {difference}"))),
    }
}
