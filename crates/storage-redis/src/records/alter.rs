//! Changes of a table.
//!
//! One that leaves the records as they are takes effect by a script. For any other the records are written anew, as they are after the
//! change, under a new ID, which then takes the old one's place in one step: readers go on with the old ones, writers wait. If the program ends meanwhile, whoever
//! writes next, after half a minute, gives the change up for it.

use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _};
use redis::{Value, cmd};
use storage_core::{Column, Error, Result, SchemaChange, TableName, TableSchema, Undeclared};
use tokio::time::Instant;

use super::admin::{first_stamp, new_id};
use super::commit::{pairs, taken};
use super::pack::Packed;
use super::plan::{Plan, Range, Sorted};
use super::table::{Table, list, lower, next_bytes, status};
use super::{Records, changing, encode, row};
use crate::error::strange;
use crate::message::bytes;
use crate::scripts;

/// How long a rewriting goes on without a sign of life before it is given up.
const PATIENCE: Duration = Duration::from_secs(30);
/// How many records are written anew by one call.
const ROWS: usize = 200;
/// How many versions of a history.
const VERSIONS: usize = 200;
/// How many histories are written anew at once.
const AT_ONCE: usize = 64;

pub(super) async fn alter(records: &Arc<Records>, name: &TableName, change: &SchemaChange) -> Result<()> {
    let (records, name, change) = (Arc::clone(records), name.clone(), change.clone());
    // On its own: a caller who goes away must not leave a table that nobody can write to.
    let done = tokio::spawn(async move { records.alter(&name, &change).await }).await;
    done.map_err(|_| Error::internal("the change of the table ended without an answer"))?
}

impl Records {
    async fn alter(&self, name: &TableName, change: &SchemaChange) -> Result<()> {
        let started = Instant::now();
        loop {
            let table = self.fresh(name).await?;
            let after = change.apply(&table.schema)?;
            let state = match leaves_records(change, &table.schema) {
                true => self.change(&table, &after).await?,
                false => self.rewrite(&table, &after, change).await?,
            };
            self.tables.forget(name);
            match state {
                0 => return Ok(()),
                1 => {}
                2 => self.wait(name, started).await?,
                _ => return Err(strange("an unknown status")),
            }
            if started.elapsed() > self.client.timeout() {
                return Err(changing(name));
            }
        }
    }

    /// Changes the schema alone.
    async fn change(&self, table: &Table, after: &TableSchema) -> Result<i64> {
        let written = serde_json::to_string(after)?;
        let next = Table::new(&self.layout, after.clone(), written, table.id.clone(), next_stamp(table))?;
        let left: Vec<String> = next.path_keys().collect();
        let mut keys = vec![table.meta.clone(), table.dropped.clone()];
        keys.extend(table.path_keys().filter(|key| !left.contains(key)));
        let arguments = [table.stamp.as_bytes(), next.stamp.as_bytes(), next.text.as_bytes()];
        Ok(status(self.client.script(&scripts::CHANGE_TABLE, &keys, &arguments).await?)?.0)
    }

    /// Writes all records anew.
    async fn rewrite(&self, table: &Table, after: &TableSchema, change: &SchemaChange) -> Result<i64> {
        let (id, written) = (new_id(), serde_json::to_string(after)?);
        let next = Table::new(&self.layout, after.clone(), written, id.clone(), id)?;
        let keys = [table.meta.clone(), table.dropped.clone()];
        let patience = PATIENCE.as_micros().to_string();
        let arguments = [table.stamp.as_bytes(), next.id.as_bytes(), next.text.as_bytes(), patience.as_bytes()];
        let (state, _) = status(self.client.script(&scripts::BEGIN_REWRITE, &keys, &arguments).await?)?;
        if state != 0 {
            return Ok(state);
        }
        let copied = async {
            self.copy_rows(table, &next, change).await?;
            self.copy_histories(table, &next, change).await
        };
        let outcome = match copied.await {
            Ok(()) => {
                let stamp = first_stamp(&next.id);
                let arguments = [next.id.as_bytes(), stamp.as_bytes()];
                let (state, _) = status(self.client.script(&scripts::FINISH_REWRITE, &keys, &arguments).await?)?;
                if state == 0 { Ok(0) } else { Err(given_up(&table.schema.name)) }
            }
            Err(error) => {
                self.client.script(&scripts::ABANDON_REWRITE, &keys, &[next.id.as_bytes()]).await.map(|_| ())?;
                Err(error)
            }
        };
        self.purge_all(&lower(&table.schema.name)).await;
        outcome
    }

    async fn copy_rows(&self, table: &Table, next: &Table, change: &SchemaChange) -> Result<()> {
        let all = Range { from: b"-".to_vec(), to: b"+".to_vec() };
        let plan = Plan { index: None, ranges: Vec::new(), down: false, order: Sorted::Each(false) };
        let mut range = Some(all);
        while let Some(here) = range.take() {
            let chunk = self.chunk(table, &plan, &here, ROWS).await?.ok_or_else(|| given_up(&table.schema.name))?;
            range = chunk.rest;
            let (mut keys, mut rows): (Vec<String>, Vec<Vec<u8>>) = (next.script_keys().collect(), Vec::new());
            for mut record in chunk.records {
                change
                    .alter_fields(&next.schema, &mut record.fields)
                    .map_err(|e| Error::new(e.kind(), format!("record `{}`: {}", record.key, e.message())))?;
                keys.push(next.row(&record.key));
                rows.push(packed_row(next, &record)?.finish());
            }
            self.copy(next, &keys, &rows.iter().map(Vec::as_slice).collect::<Vec<_>>(), b"rows").await?;
        }
        Ok(())
    }

    async fn copy(&self, next: &Table, keys: &[String], what: &[&[u8]], kind: &[u8]) -> Result<()> {
        let (packed, patience) = (next.packed().finish(), PATIENCE.as_micros().to_string());
        let mut arguments = vec![&packed[..], patience.as_bytes(), kind];
        arguments.extend(what);
        let (state, mut rest) = status(self.client.script(&scripts::COPY, keys, &arguments).await?)?;
        match (state, rest.next(), rest.next()) {
            (0, ..) => Ok(()),
            (1, ..) => Err(given_up(&next.schema.name)),
            (4, Some(_), Some(Value::Int(set))) => Err(taken(next, set, &next_bytes(&mut rest)?)),
            _ => Err(strange("an unknown status")),
        }
    }

    /// Versions of records that are gone are among them.
    async fn copy_histories(&self, table: &Table, next: &Table, change: &SchemaChange) -> Result<()> {
        let (set, mut from) = (table.kept(), "-".to_owned());
        loop {
            let mut page = cmd("ZRANGEBYLEX");
            page.arg(&set).arg(&from).arg("+").arg("LIMIT").arg(0).arg(ROWS);
            let members = list(Some(self.client.command(&page, &set).await?))?;
            let Some(last) = members.last().cloned() else { return Ok(()) };
            let copies =
                members.into_iter().map(|member| async move { self.copy_history(table, next, change, &bytes(member)?).await });
            futures::stream::iter(copies).buffer_unordered(AT_ONCE).try_collect::<()>().await?;
            from = format!("({}", String::from_utf8(bytes(last)?).map_err(|_| strange("a key that is no text"))?);
        }
    }

    async fn copy_history(&self, table: &Table, next: &Table, change: &SchemaChange, member: &[u8]) -> Result<()> {
        let key = encode::read_key(&table.schema, member)
            .ok_or_else(|| Error::corrupt(format!("`{}` holds a key that is none of this table's", table.kept())))?;
        let (list_key, mut at) = (table.history(&key), 0);
        let mut keys: Vec<String> = next.script_keys().collect();
        keys.push(next.history(&key));
        loop {
            let mut page = cmd("LRANGE");
            page.arg(&list_key).arg(at).arg(at + VERSIONS - 1);
            let texts = list(Some(self.client.command(&page, &list_key).await?))?;
            if texts.is_empty() {
                return Ok(());
            }
            let is_last = texts.len() < VERSIONS;
            at += VERSIONS;
            let mut versions = Vec::with_capacity(texts.len());
            for text in texts {
                let mut version = row::read_kept(table, &key, &bytes(text)?)?;
                change.apply_to_fields(&mut version.fields);
                versions.push(row::write_kept(&version));
            }
            let arguments: Vec<&[u8]> = std::iter::once(member).chain(versions.iter().map(Vec::as_slice)).collect();
            self.copy(next, &keys, &arguments, b"history").await?;
            if is_last {
                return Ok(());
            }
        }
    }
}

fn given_up(name: &TableName) -> Error {
    Error::conflict(format!("table `{name}` was dropped meanwhile, or the change took so long that it was given up: try again"))
}

fn next_stamp(table: &Table) -> String {
    let number = table.stamp.rsplit_once('.').and_then(|(_, number)| number.parse::<u64>().ok()).unwrap_or(0);
    format!("{}.{}", table.id, number + 1)
}

/// True where the stored records are what they are after the change, indexes included.
fn leaves_records(change: &SchemaChange, before: &TableSchema) -> bool {
    let keeps = before.undeclared == Undeclared::Keep;
    match change {
        SchemaChange::AddColumn(Column { unique, default, .. }) => !keeps && !unique && default.is_none(),
        SchemaChange::DropIndex(_) | SchemaChange::SetHistory(_) => true,
        SchemaChange::SetUndeclared(undeclared) => !keeps || *undeclared == Undeclared::Keep,
        _ => false,
    }
}

fn packed_row(table: &Table, record: &storage_core::Record) -> Result<Packed> {
    let (fields, _) = pairs(&record.fields)?;
    let mut hash = Packed::default();
    hash.text("@version").text(record.version.to_string());
    hash.text("@updated").text(record.updated_at.timestamp_micros().to_string());
    let expires = record.expires_at.map(|at| at.timestamp_micros().to_string()).unwrap_or_default();
    if !expires.is_empty() {
        hash.text("@expires").text(&expires);
    }
    hash.append(fields);
    let mut packed = Packed::default();
    packed.text(encode::key(&record.key)).text(expires).list(hash).list(table.index_of(record));
    Ok(packed)
}
