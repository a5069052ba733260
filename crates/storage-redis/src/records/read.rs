//! Reading: records by key, pages, counts, histories; and freeing what has expired.

use std::sync::Arc;

use redis::Value;
use storage_core::{Error, Filter, History, Key, Page, PageBuilder, Query, Record, Result, TableName};
use tokio::time::Instant;

use super::pack::Packed;
use super::plan::{Plan, Range, Sorted};
use super::table::{Table, list, next_bytes, status};
use super::{Records, encode, row};
use crate::client::Client;
use crate::error::strange;
use crate::scripts;

/// How many records one script call looks at, and how many bytes it answers but for a single record that has more: both bound how long others wait.
const CHUNK: usize = 1_000;
const MAX_ANSWER: &str = "16777216";
/// How many expired records one call frees.
const SWEEP: i64 = 500;

/// A part of a page.
pub(super) struct Chunk {
    pub(super) records: Vec<Record>,
    /// Where the next one begins. `None`: this was the last.
    pub(super) rest: Option<Range>,
}

/// A table that is another by now: the call has to begin anew.
fn current(status: i64) -> Result<bool> {
    match status {
        0 => Ok(true),
        1 => Ok(false),
        _ => Err(strange("an unknown status")),
    }
}

impl Records {
    pub(super) async fn get(&self, name: &TableName, keys: &[Key]) -> Result<Vec<Option<Record>>> {
        self.with_table(name, |table| async move { self.get_rows(&table, keys).await }).await
    }

    async fn get_rows(&self, table: &Table, keys: &[Key]) -> Result<Option<Vec<Option<Record>>>> {
        let names: Vec<String> = std::iter::once(table.meta.clone()).chain(keys.iter().map(|key| table.row(key))).collect();
        let answer = self.client.script(&scripts::GET, &names, &[table.stamp.as_bytes(), &self.now()]).await?;
        let (status, mut rest) = status(answer)?;
        if !current(status)? {
            return Ok(None);
        }
        let rows = list(rest.next())?;
        if rows.len() != keys.len() {
            return Err(strange("another number of records"));
        }
        keys.iter().zip(rows).map(|(key, hash)| row::read(table, key.clone(), hash)).collect::<Result<_>>().map(Some)
    }

    /// Some of the records in a range. `None`: the table is another by now.
    pub(super) async fn chunk(&self, table: &Table, plan: &Plan, range: &Range, limit: usize) -> Result<Option<Chunk>> {
        let path = plan.index.map(|number| &table.indexes[number]);
        let set = path.map_or_else(|| table.keys(), |path| path.key.clone());
        let columns = Packed::texts(path.iter().flat_map(|path| &path.columns).map(|(column, _)| column.as_str())).finish();
        let (now, limit, rows) = (self.now(), limit.to_string(), table.rows());
        let direction: &[u8] = if plan.down { b"down" } else { b"up" };
        let arguments = [
            table.stamp.as_bytes(),
            &now,
            direction,
            &range.from,
            &range.to,
            limit.as_bytes(),
            MAX_ANSWER.as_bytes(),
            rows.as_bytes(),
            &columns,
        ];
        let answer = self.client.script(&scripts::SCAN, &[table.meta.clone(), set.clone(), table.expiring()], &arguments).await?;
        let (status, mut rest) = status(answer)?;
        if status == 6 {
            let member = String::from_utf8_lossy(&next_bytes(&mut rest)?).into_owned();
            return Err(Error::corrupt(format!("`{rows}{member}` was not written by this toolkit, or was damaged")));
        }
        if !current(status)? {
            return Ok(None);
        }
        let more = rest.next() == Some(Value::Int(1));
        let last = next_bytes(&mut rest)?;
        let Some(records) = self.read_rows(table, &set, list(rest.next())?).await? else { return Ok(None) };
        let behind = || [&b"("[..], &last].concat();
        let rest = more.then(|| match plan.down {
            true => Range { from: range.from.clone(), to: behind() },
            false => Range { from: behind(), to: range.to.clone() },
        });
        Ok(Some(Chunk { records, rest }))
    }

    /// The records in keys and hashes. A key without a hash is looked for once more: in a Cluster it may be on its way to another node, where a script that
    /// does not name it does not find it. One that is nowhere was evicted, or removed by hand.
    async fn read_rows(&self, table: &Table, set: &str, answered: Vec<Value>) -> Result<Option<Vec<Record>>> {
        let (mut records, mut missing) = (Vec::with_capacity(answered.len() / 2), Vec::new());
        let mut answered = answered.into_iter();
        while let (Some(member), Some(hash)) = (answered.next(), answered.next()) {
            let Value::BulkString(member) = member else { return Err(strange("no key")) };
            let key = encode::read_key(&table.schema, &member).ok_or_else(|| {
                Error::corrupt(format!(
                    "`{set}` holds the key `{}`, which is none of this table's",
                    String::from_utf8_lossy(&member)
                ))
            })?;
            match row::read(table, key.clone(), hash)? {
                Some(record) => records.push(record),
                None => missing.push((records.len(), key)),
            }
        }
        if missing.is_empty() {
            return Ok(Some(records));
        }
        let keys: Vec<Key> = missing.iter().map(|(_, key)| key.clone()).collect();
        let Some(found) = self.get_rows(table, &keys).await? else { return Ok(None) };
        let mut gone = Vec::new();
        for ((at, key), found) in missing.into_iter().zip(found).rev() {
            match found {
                Some(record) => records.insert(at, record),
                None => gone.push(key),
            }
        }
        self.tidy(table, &gone).await?;
        Ok(Some(records))
    }

    /// Forgets keys whose records are gone.
    async fn tidy(&self, table: &Table, gone: &[Key]) -> Result<()> {
        if gone.is_empty() {
            return Ok(());
        }
        let keys: Vec<String> =
            [table.meta.clone(), table.keys()].into_iter().chain(gone.iter().map(|key| table.row(key))).collect();
        let members: Vec<String> = gone.iter().map(encode::key).collect();
        let arguments: Vec<&[u8]> = std::iter::once(table.stamp.as_bytes()).chain(members.iter().map(String::as_bytes)).collect();
        self.client.script(&scripts::TIDY, &keys, &arguments).await.map(drop)
    }

    pub(super) async fn scan(&self, query: &Query) -> Result<Page> {
        self.with_table(&query.table, |table| async move { self.page(&table, query).await }).await
    }

    async fn page(&self, table: &Table, query: &Query) -> Result<Option<Page>> {
        let cursor = query.cursor(&table.schema)?;
        let plan = Plan::new(table, query, cursor.as_ref());
        let mut builder = PageBuilder::new(query, &table.schema)?;
        let mut group = None;
        let mut limit = if plan.order == Sorted::No { CHUNK } else { query.limit as usize + 1 }.min(CHUNK);
        let mut ranges: Vec<Range> = plan.ranges.iter().rev().cloned().collect();
        while let Some(range) = ranges.pop() {
            let Some(chunk) = self.chunk(table, &plan, &range, limit).await? else { return Ok(None) };
            for record in chunk.records {
                if builder.is_full() && ends_group(&plan, query, table, &mut group, &record) {
                    return Ok(Some(builder.finish()));
                }
                if plan.order != Sorted::No {
                    group = Some(group_of(query, table, &record));
                }
                builder.push(record);
            }
            ranges.extend(chunk.rest);
            limit = (limit * 2).min(CHUNK);
        }
        Ok(Some(builder.finish()))
    }

    pub(super) async fn count(&self, query: &Query) -> Result<u64> {
        self.with_table(&query.table, |table| async move {
            if query.filter == Filter::All { self.count_all(&table).await } else { self.count_some(&table, query).await }
        })
        .await
    }

    async fn count_all(&self, table: &Table) -> Result<Option<u64>> {
        let keys = [table.meta.clone(), table.keys(), table.expiring()];
        let (status, mut rest) =
            status(self.client.script(&scripts::COUNT, &keys, &[table.stamp.as_bytes(), &self.now()]).await?)?;
        if !current(status)? {
            return Ok(None);
        }
        match rest.next() {
            Some(Value::Int(count)) => Ok(Some(u64::try_from(count).unwrap_or(0))),
            _ => Err(strange("no number")),
        }
    }

    async fn count_some(&self, table: &Table, query: &Query) -> Result<Option<u64>> {
        let query = Query { order: Vec::new(), after: None, ..query.clone() };
        let plan = Plan::new(table, &query, None);
        let mut ranges = plan.ranges.clone();
        let mut count = 0;
        while let Some(range) = ranges.pop() {
            let Some(chunk) = self.chunk(table, &plan, &range, CHUNK).await? else { return Ok(None) };
            count += chunk.records.iter().filter(|record| query.filter.matches(&table.schema, record)).count() as u64;
            ranges.extend(chunk.rest);
        }
        Ok(Some(count))
    }

    /// Frees all that has expired.
    pub(super) async fn sweep(&self, name: &TableName) -> Result<u64> {
        let (started, mut freed) = (Instant::now(), 0);
        loop {
            let table = self.known(name).await?;
            let keys: Vec<String> = table.script_keys().collect();
            let (now, packed, most) = (self.now(), table.packed().finish(), SWEEP.to_string());
            let answer = self.client.script(&scripts::SWEEP, &keys, &[&now, &packed, most.as_bytes()]).await?;
            let (status, mut rest) = status(answer)?;
            match (status, rest.next(), rest.next()) {
                (0, Some(Value::Int(these)), Some(Value::Int(seen))) => {
                    freed += u64::try_from(these).unwrap_or(0);
                    if seen < SWEEP {
                        return Ok(freed);
                    }
                }
                (1, ..) => self.tables.forget(name),
                (2, ..) => self.wait(name, started).await?,
                _ => return Err(strange("an unknown status")),
            }
        }
    }

    pub(super) async fn history(&self, name: &TableName, key: &Key) -> Result<Vec<Record>> {
        self.with_table(name, |table| async move { history_of(&self.client, &table, key).await }).await
    }
}

async fn history_of(client: &Arc<Client>, table: &Table, key: &Key) -> Result<Option<Vec<Record>>> {
    if table.schema.history == History::None {
        return Err(Error::unsupported(format!(
            "table `{}` keeps no history: create it with `history`, or alter it",
            table.schema.name
        )));
    }
    let keys = [table.meta.clone(), table.history(key)];
    let (status, mut rest) = status(client.script(&scripts::HISTORY, &keys, &[table.stamp.as_bytes()]).await?)?;
    if !current(status)? {
        return Ok(None);
    }
    let read = |text: Value| match text {
        Value::BulkString(text) => row::read_kept(table, key, &text),
        _ => Err(strange("no version")),
    };
    list(rest.next())?.into_iter().map(read).collect::<Result<_>>().map(Some)
}

/// The values that a record has in the query's columns: those that are alike in them are a group.
fn group_of(query: &Query, table: &Table, record: &Record) -> Vec<Option<serde_json::Value>> {
    query.order.iter().map(|order| record.value(&table.schema, order.column.as_str())).collect()
}

/// True where this record sorts behind all that were looked at before.
fn ends_group(
    plan: &Plan,
    query: &Query,
    table: &Table,
    group: &mut Option<Vec<Option<serde_json::Value>>>,
    record: &Record,
) -> bool {
    match plan.order {
        Sorted::No => false,
        Sorted::Each(_) => true,
        Sorted::Groups(_) => group.as_ref().is_some_and(|group| *group != group_of(query, table, record)),
    }
}
