//! Batches: one script call each.

use std::collections::HashMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use storage_core::{Batch, Error, Expect, Fields, Key, NewMessage, QueueName, Record, Result, TableName, Version, Write};

use super::Records;
use super::encode;
use super::pack::Packed;
use super::row;
use super::table::{Table, list, next_bytes, status};
use crate::error::strange;
use crate::message::text;
use crate::queue;
use crate::scripts;

/// How many bytes a batch may have: it is one script call, which the server has in memory more than once.
pub(super) const MAX_CALL: usize = 128 << 20;

/// What came of a call.
pub(super) enum Outcome {
    Done(Vec<Version>),
    /// This table is not as it is known here.
    Stale(TableName),
    /// This table is being rewritten.
    Busy(TableName),
}

/// A batch as the script takes it.
#[derive(Default)]
struct Call<'b> {
    tables: Vec<Arc<Table>>,
    rows: Vec<(usize, &'b Key)>,
    queues: Vec<&'b QueueName>,
    writes: Vec<Vec<u8>>,
    numbers: HashMap<(usize, &'b Key), usize>,
}

/// Runs the batch once.
pub(super) async fn attempt(records: &Records, batch: &Batch) -> Result<Outcome> {
    let mut call = Call::default();
    for (index, write) in batch.writes.iter().enumerate() {
        call.add(records, write).await.map_err(|error| error.with_failed_write(index))?;
    }
    let (keys, arguments) = call.finish(records);
    let size: usize = arguments.iter().map(Vec::len).sum();
    if size > MAX_CALL {
        return Err(Error::invalid(format!(
            "the batch has {size} bytes, {MAX_CALL} at most, so that it can be done as a whole: use several"
        )));
    }
    let script = if call.queues.is_empty() { &scripts::COMMIT } else { &scripts::COMMIT_AND_SEND };
    let arguments: Vec<&[u8]> = arguments.iter().map(Vec::as_slice).collect();
    call.read(batch, records.client.script(script, &keys, &arguments).await?)
}

impl<'b> Call<'b> {
    async fn add(&mut self, records: &Records, write: &'b Write) -> Result<()> {
        let packed = match write {
            Write::Enqueue { queue, message } => self.message(queue, message)?,
            _ => {
                let Some((name, key)) = write.target() else { return Err(Error::internal("a write without a record")) };
                let at = match self.tables.iter().position(|table| table.schema.name == *name) {
                    Some(at) => at,
                    None => {
                        self.tables.push(records.known(name).await?);
                        self.tables.len() - 1
                    }
                };
                let rows = &mut self.rows;
                let number = *self.numbers.entry((at, key)).or_insert_with(|| {
                    rows.push((at, key));
                    rows.len()
                });
                pack(&self.tables[at], number, write)?
            }
        };
        self.writes.push(packed.finish());
        Ok(())
    }

    fn message(&mut self, queue: &'b QueueName, message: &NewMessage) -> Result<Packed> {
        // Dead letters are nobody's to send.
        queue.dead_letter()?;
        let number = self.queues.iter().position(|known| *known == queue).unwrap_or_else(|| {
            self.queues.push(queue);
            self.queues.len() - 1
        });
        let mut packed = Packed::default();
        packed.text((number + 1).to_string()).text("send").text(&message.body);
        for argument in queue::arguments(std::slice::from_ref(message))?.into_iter().flatten() {
            packed.text(argument);
        }
        Ok(packed)
    }

    /// Keys and arguments.
    fn finish(&mut self, records: &Records) -> (Vec<String>, Vec<Vec<u8>>) {
        let mut keys: Vec<String> = self.tables.iter().flat_map(|table| table.script_keys()).collect();
        let (mut tables, mut rows) = (Packed::default(), Packed::default());
        for table in &self.tables {
            tables.list(table.packed());
        }
        for (at, key) in &self.rows {
            let table = &self.tables[*at];
            keys.push(table.row(key));
            if table.schema.history != storage_core::History::None {
                keys.push(table.history(key));
            }
            rows.list(Packed::texts([(at + 1).to_string(), encode::key(key)]));
        }
        for queue in &self.queues {
            keys.extend(records.layout.keys(queue.as_str()));
        }
        let mut arguments = vec![records.now(), tables.finish(), rows.finish(), self.queues.len().to_string().into_bytes()];
        arguments.append(&mut self.writes);
        (keys, arguments)
    }

    fn read(&self, batch: &Batch, answer: redis::Value) -> Result<Outcome> {
        let (status, mut rest) = status(answer)?;
        if status == 0 {
            let number = |value| text(value)?.parse().map(Version).map_err(|_| strange("no version"));
            let versions = list(rest.next())?.into_iter().map(number).collect::<Result<Vec<_>>>()?;
            return Ok(Outcome::Done(versions));
        }
        let Some(redis::Value::Int(number)) = rest.next() else { return Err(strange("no number")) };
        let at = usize::try_from(number).ok().and_then(|number| number.checked_sub(1)).ok_or_else(|| strange("no number"))?;
        let table = || self.tables.get(at).map(|table| table.schema.name.clone()).ok_or_else(|| strange("no table's number"));
        match status {
            1 => Ok(Outcome::Stale(table()?)),
            2 => Ok(Outcome::Busy(table()?)),
            3 => {
                let found = text(redis::Value::BulkString(next_bytes(&mut rest)?))?;
                Err(failed(batch.writes.get(at), &found)?.with_failed_write(at))
            }
            4 => {
                let Some(redis::Value::Int(set)) = rest.next() else { return Err(strange("no number")) };
                let holder = next_bytes(&mut rest)?;
                Err(self.taken(batch.writes.get(at), set, &holder)?.with_failed_write(at))
            }
            5 => match batch.writes.get(at) {
                Some(Write::Enqueue { queue, .. }) => {
                    Err(Error::not_found(format!("there is no queue `{queue}`: create it first")).with_failed_write(at))
                }
                _ => Err(strange("no queue's number")),
            },
            6 => {
                let (table, key) = self.rows.get(at).ok_or_else(|| strange("no record's number"))?;
                let row = self.tables[*table].row(key);
                Err(Error::corrupt(format!("`{row}` was not written by this toolkit, or was damaged")))
            }
            _ => Err(strange("an unknown status")),
        }
    }

    fn taken(&self, write: Option<&Write>, set: i64, holder: &[u8]) -> Result<Error> {
        let name = write.and_then(Write::target).map(|(name, _)| name);
        let table =
            self.tables.iter().find(|table| Some(&table.schema.name) == name).ok_or_else(|| strange("no write's number"))?;
        Ok(taken(table, set, holder))
    }
}

/// The value of a unique set, counted from 1, is another record's.
pub(super) fn taken(table: &Table, set: i64, holder: &[u8]) -> Error {
    let columns = table.unique_columns(usize::try_from(set - 1).unwrap_or(usize::MAX));
    let holder = match encode::read_key(&table.schema, holder) {
        Some(key) => key.to_string(),
        None => String::from_utf8_lossy(holder).into_owned(),
    };
    Error::already_exists(format!(
        "record `{holder}` of table `{}` has the same value in {columns}, which is unique",
        table.schema.name
    ))
}

/// Why a precondition does not hold where this version was found.
fn failed(write: Option<&Write>, found: &str) -> Result<Error> {
    let write = write.ok_or_else(|| strange("no write's number"))?;
    let found = found.parse().map(Version).map_err(|_| strange("no version"))?;
    let Some((table, key)) = write.target() else { return Err(strange("no record's number")) };
    match write.expect().check(table, key, found) {
        Err(error) => Ok(error),
        Ok(()) => Err(strange("a precondition that holds")),
    }
}

fn pack(table: &Table, number: usize, write: &Write) -> Result<Packed> {
    let nothing = (Packed::default(), Packed::default(), Packed::default());
    let (what, expires, (fields, removed, index)) = match write {
        Write::Put { key, fields, expires_at, .. } => {
            let whole = Record {
                key: key.clone(),
                version: Version::NONE,
                updated_at: DateTime::<Utc>::MIN_UTC,
                expires_at: None,
                fields: fields.clone(),
            };
            let expires = expires_at.map(|at| at.timestamp_micros().to_string()).unwrap_or_default();
            ("put", expires, (pairs(fields)?.0, Packed::default(), table.index_of(&whole)))
        }
        Write::Merge { fields, .. } => {
            let (set, removed) = pairs(fields)?;
            ("merge", String::new(), (set, removed, table.index_of_changes(fields)))
        }
        Write::Delete { .. } => ("delete", String::new(), nothing),
        _ => ("check", String::new(), nothing),
    };
    let (expected, version) = match write.expect() {
        Expect::Anything => ("anything", Version::NONE),
        Expect::Absent => ("absent", Version::NONE),
        Expect::Present => ("present", Version::NONE),
        Expect::Version(version) => ("version", version),
    };
    let mut packed = Packed::default();
    packed.text(number.to_string()).text(what).text(expected).text(version.to_string()).text(expires);
    packed.list(fields).list(removed).list(index);
    Ok(packed)
}

/// Names and values of fields, and the names of those that are to be removed.
pub(super) fn pairs(fields: &Fields) -> Result<(Packed, Packed)> {
    let (mut set, mut removed) = (Packed::default(), Packed::default());
    for (name, value) in fields {
        if value.is_null() {
            removed.text(row::field(name).as_bytes());
        } else {
            set.text(row::field(name).as_bytes()).text(serde_json::to_vec(value)?);
        }
    }
    Ok((set, removed))
}
