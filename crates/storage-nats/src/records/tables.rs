//! The catalogue: a bucket with a row for each table. A change of a table takes effect by one conditional write of its row.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_nats::HeaderMap;
use async_nats::jetstream::message::PublishMessage;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::{StreamExt as _, TryStreamExt as _};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use storage_core::document::{Document, DocumentRef, SchemaChanges};
use storage_core::{Clock, Error, ErrorKind, Filter, History, Key, Record, Result, SchemaChange, TableName, TableSchema};
use uuid::Uuid;

use super::{keys, read};
use crate::error::Fault;
use crate::store::Inner;
use crate::stream::{self, Held};

/// How long it is believed what a table is like.
const BELIEVED: Duration = Duration::from_secs(10);
/// How many tables are remembered.
const MOST_TABLES: usize = 1_000;
/// How many rows are read at once.
const AT_ONCE: usize = 64;
/// How often a change of a table begins anew because another came first.
const MAX_TRIES: u32 = 20;
/// How many changes one table may go through: every record is read through those that came after it.
const MAX_CHANGES: usize = 1_000;
/// Says of a record when it expires, in microseconds, so that whoever counts need not read it.
const EXPIRES: &str = "Storage-Expires";
/// What the description of a bucket says.
const DESCRIPTION: &str = "a table of the storage toolkit";

/// What a row holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Row {
    pub(super) schema: TableSchema,
    /// Where its records are: a new bucket each time that a table is created, so that nothing of one that was dropped comes back.
    pub(super) bucket: String,
    #[serde(flatten)]
    pub(super) changes: SchemaChanges,
}

/// One state of a table.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Table {
    pub(super) row: Row,
    /// The place of the row.
    revision: u64,
    /// Of the bucket.
    pub(super) stream: String,
}

pub(super) fn no_table(name: &TableName) -> Error {
    Error::not_found(format!("there is no table `{name}`: create it first"))
}

impl Table {
    fn read(held: &Held) -> Result<Self> {
        let row: Row = serde_json::from_slice(&held.body)
            .map_err(|e| Error::corrupt(format!("`{}` in the catalogue is not the row of a table: {e}", held.subject)))?;
        Ok(Self { stream: keys::stream(&row.bucket), row, revision: held.sequence })
    }

    pub(super) fn schema(&self) -> &TableSchema {
        &self.row.schema
    }

    /// The subject of a record.
    pub(super) fn subject(&self, key: &Key) -> String {
        keys::record(&self.row.bucket, key)
    }

    pub(super) fn encode(&self, record: &Record) -> Result<PublishMessage> {
        let body = serde_json::to_vec(&DocumentRef::new(record, &self.row.changes))?;
        let message = PublishMessage::build().payload(body.into());
        Ok(match record.expires_at {
            Some(at) => message.header(EXPIRES, at.timestamp_micros().to_string().as_str()),
            None => message,
        })
    }

    /// The record in a message. Not for [markers](Held::is_marker).
    pub(super) fn decode(&self, held: &Held) -> Result<Record, Fault> {
        let corrupt = |what: &dyn std::fmt::Display| {
            let corrupt = Error::corrupt(format!("`{}` at {}: {what}", held.subject, held.sequence));
            Fault::from(corrupt)
        };
        let document: Document =
            serde_json::from_slice(&held.body).map_err(|e| corrupt(&format_args!("this is not a record: {e}")))?;
        if document.is_newer_than(&self.row.changes) {
            return Err(Fault::Outdated);
        }
        let record = document.into_record(&self.row.changes);
        if self.subject(&record.key) != held.subject.as_str() {
            return Err(corrupt(&format_args!("it holds the record `{}`, which belongs elsewhere", record.key)));
        }
        Ok(record)
    }
}

/// True where the headers say that a record has expired.
pub(super) fn is_expired(headers: &HeaderMap, now: DateTime<Utc>) -> bool {
    let at = headers.get(EXPIRES).and_then(|at| at.as_str().parse().ok());
    at.and_then(DateTime::from_timestamp_micros).is_some_and(|at| at <= now)
}

/// The tables as they are, or were a moment ago.
#[derive(Debug, Default)]
pub(super) struct Tables(Mutex<HashMap<TableName, (Arc<Table>, Instant)>>);

impl Tables {
    async fn load(&self, inner: &Inner, name: &TableName) -> Result<Arc<Table>> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned();
        match known.filter(|(_, since)| since.elapsed() < BELIEVED) {
            Some((table, _)) => Ok(table),
            None => self.look_up(inner, name).await,
        }
    }

    async fn look_up(&self, inner: &Inner, name: &TableName) -> Result<Arc<Table>> {
        self.forget(name);
        let (found, _) = row(inner, name).await?;
        match found.filter(|table| table.schema().name == *name) {
            Some(table) => Ok(self.remember(table)),
            None => Err(no_table(name)),
        }
    }

    fn remember(&self, table: Table) -> Arc<Table> {
        let table = Arc::new(table);
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST_TABLES {
            known.clear();
        }
        known.insert(table.schema().name.clone(), (Arc::clone(&table), Instant::now()));
        table
    }

    fn forget(&self, name: &TableName) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }

    /// Does something with a table. Where that shows that it is not what it was a moment ago, once more with what it is like now.
    pub(super) async fn with<T, F>(&self, inner: &Inner, name: &TableName, call: impl Fn(Arc<Table>) -> F) -> Result<T>
    where
        F: Future<Output = Result<T, Fault>>,
    {
        let mut table = self.load(inner, name).await?;
        for _ in 0..MAX_TRIES {
            let fault = match call(Arc::clone(&table)).await {
                Ok(answer) => return Ok(answer),
                Err(Fault::Error(error)) => return Err(error),
                Err(fault) => fault,
            };
            let now = self.look_up(inner, name).await?;
            if *now == *table {
                return Err(match fault {
                    Fault::NoStream => missing_bucket(inner, &table).await,
                    _ => Error::corrupt(format!("table `{name}` has records of a newer schema than its own")),
                });
            }
            table = now;
        }
        Err(busy(name))
    }

    /// Every table, by name; they are known from here on: whoever is told of a schema writes by it.
    pub(super) async fn all(&self, inner: &Inner) -> Result<Vec<TableSchema>> {
        let catalogue = keys::catalogue(&inner.settings.prefix);
        let stream = keys::stream(&catalogue);
        let found = match rows(inner, &stream, &keys::all(&catalogue)).await {
            Ok(found) => found,
            Err(Fault::NoStream) => return no_catalogue(inner, &stream).await.map(|()| Vec::new()),
            Err(fault) => return Err(fault.into_error()),
        };
        let mut tables: Vec<_> = found.into_iter().map(|table| self.remember(table).schema().clone()).collect();
        tables.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(tables)
    }

    /// Creates a table. False: it is there with the same schema.
    pub(super) async fn create(&self, inner: &Inner, schema: &TableSchema) -> Result<bool> {
        let prefix = &inner.settings.prefix;
        let catalogue = keys::catalogue(prefix);
        for _ in 0..MAX_TRIES {
            let (found, over) = row(inner, &schema.name).await?;
            if let Some(found) = found {
                check_same(found.schema(), schema)?;
                // Whoever created it may have got no further than the row.
                create_bucket(inner, &found.row.bucket).await?;
                self.remember(found);
                return Ok(false);
            }
            let life = format!("{:08x}", Uuid::new_v4().as_fields().0);
            let bucket = keys::bucket(prefix, &schema.name, &life);
            let new = Row { schema: schema.clone(), bucket, changes: SchemaChanges::default() };
            create_bucket(inner, &catalogue).await?;
            let Some(revision) = write(inner, &new, over).await? else { continue };
            let table = Table { stream: keys::stream(&new.bucket), row: new, revision };
            if let Err(error) = create_bucket(inner, &table.row.bucket).await {
                // The account has no room for it: a table that could not be created should not be there.
                if error.kind() == ErrorKind::Throttled {
                    clear(inner, &schema.name, revision).await?;
                }
                return Err(error);
            }
            self.remember(table);
            return Ok(true);
        }
        Err(busy(&schema.name))
    }

    /// Changes the schema; records are changed as they are read. What they can't be changed into is found out first.
    pub(super) async fn alter(&self, inner: &Inner, clock: &Clock, name: &TableName, change: &SchemaChange) -> Result<()> {
        for _ in 0..MAX_TRIES {
            let table = self.look_up(inner, name).await?;
            let after = change.apply(table.schema())?;
            check_offers(&after)?;
            if table.row.changes.count() >= MAX_CHANGES {
                return Err(Error::unsupported(format!(
                    "table `{name}` was changed {MAX_CHANGES} times: copy it to a new one, where its records are as they are now"
                )));
            }
            if change.concerns_records(table.schema()) {
                let checked = read::each(inner, &table, clock, &Filter::All, |mut record| {
                    let altered = change.alter_fields(&after, &mut record.fields);
                    altered.map_err(|e| Error::new(e.kind(), format!("record `{}`: {}", record.key, e.message())))
                });
                match checked.await {
                    Ok(()) => {}
                    Err(Fault::Outdated) => continue,
                    Err(fault) => return Err(fault.into_error()),
                }
            }
            let mut row = table.row.clone();
            row.changes.add(change.clone());
            row.schema = after;
            if let Some(revision) = write(inner, &row, table.revision).await? {
                self.remember(Table { row, revision, stream: table.stream.clone() });
                return Ok(());
            }
        }
        Err(busy(name))
    }

    /// Removes a table with its records. False: there was none.
    pub(super) async fn remove(&self, inner: &Inner, name: &TableName) -> Result<bool> {
        self.forget(name);
        for _ in 0..MAX_TRIES {
            let (found, _) = row(inner, name).await?;
            let Some(table) = found.filter(|table| table.schema().name == *name) else { return Ok(false) };
            // The bucket first: of a drop that ends here, the next one does the rest.
            stream::delete(&inner.client, &table.stream).await?;
            if clear(inner, name, table.revision).await? {
                // Somebody may have found the row without its bucket, and have made another.
                stream::delete(&inner.client, &table.stream).await?;
                return Ok(true);
            }
        }
        Err(busy(name))
    }
}

fn busy(name: &TableName) -> Error {
    Error::conflict(format!("others create and change table `{name}` all the time: try again later"))
}

pub(super) fn check_offers(schema: &TableSchema) -> Result<()> {
    if schema.unique_sets().next().is_some() {
        return Err(Error::unsupported("records on NATS can't enforce unique columns: each record is a key of its own"));
    }
    if schema.history != History::None {
        return Err(Error::unsupported("records on NATS keep no history: a bucket holds the last state of each"));
    }
    Ok(())
}

fn check_same(there: &TableSchema, schema: &TableSchema) -> Result<()> {
    if there.name != schema.name {
        let message = format!("there is a table `{}`, and letter case does not distinguish tables", there.name);
        return Err(Error::already_exists(message));
    }
    match there.difference(schema) {
        None => Ok(()),
        Some(difference) => Err(Error::already_exists(format!("it is there with another schema: {difference}"))),
    }
}

/// What is said of a table whose row is there.
async fn missing_bucket(inner: &Inner, table: &Table) -> Error {
    match inner.client.call(&format!("STREAM.INFO.{}", table.stream), &Value::Null).await {
        // Nobody answered for it a moment ago: a cluster that chooses a leader, or a server that starts.
        Ok(Ok(_)) => crate::error::no_responders(),
        Ok(Err(refusal)) if refusal.is_missing_stream() => Error::not_found(format!(
            "table `{}` has no bucket `{}`: it was not created to the end, or somebody removed it; create the table again",
            table.schema().name,
            table.row.bucket
        )),
        Ok(Err(refusal)) => refusal.into_error(),
        Err(error) => error,
    }
}

/// That nobody answered for the catalogue may have another reason than that there is none.
async fn no_catalogue(inner: &Inner, stream: &str) -> Result<()> {
    match inner.client.call(&format!("STREAM.INFO.{stream}"), &Value::Null).await? {
        Err(refusal) if refusal.is_missing_stream() => Ok(()),
        Err(refusal) => Err(refusal.into_error()),
        Ok(_) => Err(crate::error::no_responders()),
    }
}

async fn create_bucket(inner: &Inner, bucket: &str) -> Result<()> {
    let mut config = stream::config(inner, &keys::stream(bucket), DESCRIPTION, &[keys::all(bucket)]);
    config["max_msgs_per_subject"] = 1.into();
    stream::create(inner, &config).await
}

/// The table of that name, whatever its case, and the place to write over.
async fn row(inner: &Inner, name: &TableName) -> Result<(Option<Table>, u64)> {
    let catalogue = keys::catalogue(&inner.settings.prefix);
    match stream::last(&inner.client, &keys::stream(&catalogue), &keys::row(&catalogue, name)).await {
        Ok(None) | Err(Fault::NoStream) => Ok((None, 0)),
        Ok(Some(held)) if held.is_marker() => Ok((None, held.sequence)),
        Ok(Some(held)) => Ok((Some(Table::read(&held)?), held.sequence)),
        Err(fault) => Err(fault.into_error()),
    }
}

/// All rows: by their names, then one by one, so that the leader of a cluster answers, which knows what was written a moment ago.
async fn rows(inner: &Inner, stream: &str, filter: &str) -> Result<Vec<Table>, Fault> {
    let request = json!({"subjects_filter": filter});
    let info = inner.client.call(&format!("STREAM.INFO.{stream}"), &request).await??;
    let subjects: Vec<String> =
        info["state"]["subjects"].as_object().into_iter().flatten().map(|(name, _)| name.clone()).collect();
    let read = |subject: String| async move {
        let held = stream::last(&inner.client, stream, &subject).await?;
        held.filter(|held| !held.is_marker()).map(|held| Table::read(&held).map_err(Fault::from)).transpose()
    };
    let rows: Vec<Option<Table>> =
        futures::stream::iter(subjects.into_iter().map(read)).buffer_unordered(AT_ONCE).try_collect().await?;
    Ok(rows.into_iter().flatten().collect())
}

/// Writes a row over the one at a place. `None`: another has come first.
async fn write(inner: &Inner, row: &Row, over: u64) -> Result<Option<u64>> {
    let body = Bytes::from(serde_json::to_vec(row)?);
    let catalogue = keys::catalogue(&inner.settings.prefix);
    let message = PublishMessage::build().payload(body);
    stream::put(inner, keys::row(&catalogue, &row.schema.name), message, over).await.map_err(Fault::into_error)
}

/// Removes a row. False: another has come first.
async fn clear(inner: &Inner, name: &TableName, over: u64) -> Result<bool> {
    let catalogue = keys::catalogue(&inner.settings.prefix);
    let cleared = stream::put(inner, keys::row(&catalogue, name), stream::marker(), over).await;
    Ok(cleared.map_err(Fault::into_error)?.is_some())
}
