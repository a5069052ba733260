//! Transactions: optimistic, written once for every backend.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures::TryStreamExt as _;

use crate::backoff::Backoff;
use crate::{
    Batch, Error, ErrorKind, Expect, Fields, Key, NewMessage, Page, Query, QueueName, Record, RecordStore, Result, TableName,
    Version, Write, merge,
};

/// How often [`RecordStore::transaction`] runs its closure before it gives up on conflicts.
pub const MAX_ATTEMPTS: u32 = 100;

type Address = (TableName, Key);

/// Reads and writes that take effect together, if nothing that was read has changed meanwhile.
///
/// Reads note the version that they saw; writes are staged here and read back by the same transaction; [`commit`](Self::commit) sends one batch with
/// a check for every read. Nothing is locked while user code runs, so dropping it is the rollback, and a cancelled future leaks nothing.
///
/// Not noticed: records that another program *adds* to what a [`find`](Self::find) has looked through. Where that matters, keep a record that both change.
///
/// A handle: clones are the same transaction, for work that goes on side by side within it.
#[derive(Clone, Debug)]
pub struct Transaction {
    store: RecordStore,
    /// Never locked over an await.
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    reads: BTreeMap<Address, Version>,
    /// The records as this transaction will leave them, and the order of the writes.
    staged: HashMap<Address, (u64, Option<StagedRecord>)>,
    messages: Vec<(QueueName, NewMessage)>,
    sequence: u64,
    /// Set by the commit; whoever still holds a clone can do no more.
    over: bool,
}

#[derive(Clone, Debug)]
struct StagedRecord {
    fields: Fields,
    expires_at: Option<DateTime<Utc>>,
    before: Version,
}

impl RecordStore {
    /// Starts a transaction to be committed by hand. Most programs want [`transaction`](Self::transaction).
    #[must_use]
    pub fn begin(&self) -> Transaction {
        Transaction { store: self.fresh(), state: Arc::default() }
    }

    /// Runs `work` in a transaction and commits it. On a conflict everything is rolled back and `work` runs again, up to [`MAX_ATTEMPTS`] times, a
    /// little later each time; an error of `work` rolls back and is returned.
    ///
    /// ```no_run
    /// # async fn f(store: storage_core::RecordStore) -> storage_core::Result<()> {
    /// use storage_core::{TableName, fields};
    /// use serde_json::json;
    /// let accounts = TableName::new("accounts")?;
    /// store.transaction(async |tx| {
    ///     let from = tx.get(&accounts, "alice").await?.map_or(0, |r| r.fields["cents"].as_i64().unwrap_or(0));
    ///     tx.update(&accounts, "alice", fields(json!({"cents": from - 10}))).await?;
    ///     Ok(())
    /// }).await
    /// # }
    /// ```
    ///
    /// # Errors
    /// Those of `work` and of [`Transaction::commit`].
    pub async fn transaction<T, F>(&self, mut work: impl FnMut(Transaction) -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let mut backoff = Backoff::new(Duration::from_millis(1), Duration::from_millis(50));
        for attempt in 1.. {
            let tx = self.begin();
            let outcome = match work(tx.clone()).await {
                Ok(value) => tx.commit().await.map(|_| value),
                // A conflict seen early (an `expect` of the closure's own) is a conflict all the same.
                Err(error) => Err(error),
            };
            match outcome {
                Err(error) if error.kind() == ErrorKind::Conflict && attempt < MAX_ATTEMPTS => {
                    tokio::time::sleep(backoff.next_delay()).await;
                }
                outcome => return outcome,
            }
        }
        Err(Error::internal("a transaction ran out of attempts without an answer"))
    }
}

impl Transaction {
    /// The record as this transaction sees it: its own writes first.
    ///
    /// # Errors
    /// See [`RecordStore::get`]. [`Conflict`](ErrorKind::Conflict) where the record changed since this transaction read it first.
    pub async fn get(&self, table: &TableName, key: impl Into<Key>) -> Result<Option<Record>> {
        let address = (table.clone(), key.into());
        if let Some((_, staged)) = self.state()?.staged.get(&address) {
            return Ok(staged.clone().map(|s| staged_record(&address.1, s)));
        }
        let record = self.store.get(table, address.1.clone()).await?;
        self.state()?.note_read(address, record.as_ref().map_or(Version::NONE, |r| r.version))?;
        Ok(record)
    }

    /// The first [`Query::limit`] records of a query, with this transaction's own writes in it.
    ///
    /// # Errors
    /// See [`RecordStore::scan`]. [`InvalidInput`](ErrorKind::InvalidInput) for a query with a page token.
    pub async fn find(&self, query: &Query) -> Result<Vec<Record>> {
        if query.after.is_some() {
            return Err(Error::invalid("a query within a transaction starts at its beginning: leave the page token out"));
        }
        let schema = self.store.schema(&query.table).await?;
        let canonical = query.canonical(&schema)?;
        let mut found = Vec::new();
        let mut stream = self.store.stream(Query { stale: false, ..query.clone() });
        while found.len() < usize::try_from(query.limit).unwrap_or(usize::MAX) {
            let Some(record) = stream.try_next().await? else { break };
            let mut state = self.state()?;
            let address = (query.table.clone(), record.key.clone());
            if !state.staged.contains_key(&address) {
                state.note_read(address, record.version)?;
                found.push(record);
            }
        }
        let state = self.state()?;
        let staged = state.staged.iter().filter(|((table, _), _)| *table == query.table);
        found.extend(staged.filter_map(|((_, key), (_, record))| record.clone().map(|r| staged_record(key, r))));
        Ok(Page::select(&canonical, &schema, found)?.records)
    }

    /// Stages a new record.
    ///
    /// # Errors
    /// [`AlreadyExists`](ErrorKind::AlreadyExists).
    pub async fn insert(&self, table: &TableName, key: impl Into<Key>, fields: Fields) -> Result<()> {
        let key = key.into();
        let found = self.get(table, key.clone()).await?.map_or(Version::NONE, |r| r.version);
        Expect::Absent.check(table, &key, found)?;
        self.put(table, key, fields).await
    }

    /// Stages a whole record, whether there is one or not.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) where it does not fit the schema.
    pub async fn put(&self, table: &TableName, key: impl Into<Key>, fields: Fields) -> Result<()> {
        self.put_until(table, key, fields, None).await
    }

    /// Stages a whole record that counts as absent from `expires_at` on.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) where it does not fit the schema.
    pub async fn put_until(
        &self,
        table: &TableName,
        key: impl Into<Key>,
        fields: Fields,
        expires_at: Option<DateTime<Utc>>,
    ) -> Result<()> {
        let key = key.into();
        let schema = self.store.schema(table).await?;
        schema.check_key(&key)?;
        let fields = schema.canonical_record(fields)?;
        self.state()?.stage((table.clone(), key), Some((fields, expires_at)));
        Ok(())
    }

    /// Stages a change of some fields of a record that is there; `null` removes one.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound); [`InvalidInput`](ErrorKind::InvalidInput) where it does not fit the schema.
    pub async fn update(&self, table: &TableName, key: impl Into<Key>, changed: Fields) -> Result<()> {
        let key = key.into();
        let changed = self.store.schema(table).await?.canonical_merge(changed)?;
        let Some(Record { mut fields, expires_at, .. }) = self.get(table, key.clone()).await? else {
            return Expect::Present.check(table, &key, Version::NONE);
        };
        merge(&mut fields, &changed);
        self.state()?.stage((table.clone(), key), Some((fields, expires_at)));
        Ok(())
    }

    /// Stages the removal of a record. `false`: there is none.
    ///
    /// # Errors
    /// See [`get`](Self::get).
    pub async fn delete(&self, table: &TableName, key: impl Into<Key>) -> Result<bool> {
        let key = key.into();
        let there = self.get(table, key.clone()).await?.is_some();
        if there {
            self.state()?.stage((table.clone(), key), None);
        }
        Ok(there)
    }

    /// Stages a message: it is sent if and only if the transaction commits.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) where the transaction is over.
    pub fn enqueue(&self, queue: &QueueName, message: NewMessage) -> Result<()> {
        self.state()?.messages.push((queue.clone(), message));
        Ok(())
    }

    fn state(&self) -> Result<MutexGuard<'_, State>> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.over {
            return Err(Error::invalid("the transaction is over: it was committed already"));
        }
        Ok(state)
    }

    /// Does all writes, if nothing that was read has changed. Answers the versions of the written records in the order in which they were written last.
    ///
    /// # Errors
    /// [`Conflict`](ErrorKind::Conflict): something that was read has changed: nothing was written. [`AlreadyExists`](ErrorKind::AlreadyExists): a unique
    /// value is taken. [`Unsupported`](ErrorKind::Unsupported): the transaction reaches further than the backend is atomic.
    pub async fn commit(self) -> Result<Vec<Version>> {
        let state = std::mem::replace(&mut *self.state()?, State { over: true, ..State::default() });
        let checks = state.reads.len();
        let expected = |version| if version == Version::NONE { Expect::Absent } else { Expect::Version(version) };
        let reads = state.reads.into_iter().map(|((table, key), version)| Write::Check { table, key, expect: expected(version) });
        let mut staged: Vec<_> = state.staged.into_iter().collect();
        staged.sort_unstable_by_key(|(_, (sequence, _))| *sequence);
        let writes = staged.into_iter().map(|((table, key), (_, record))| match record {
            Some(StagedRecord { fields, expires_at, .. }) => {
                Write::Put { table, key, fields, expect: Expect::Anything, expires_at }
            }
            None => Write::Delete { table, key, expect: Expect::Anything },
        });
        let messages = state.messages.into_iter().map(|(queue, message)| Write::Enqueue { queue, message });
        let batch: Batch = reads.chain(writes).chain(messages).collect();
        if batch.len() == checks && checks <= 1 {
            return Ok(Vec::new());
        }
        let mut versions = self.store.commit(batch).await.map_err(|error| match error.failed_write() {
            // A check says what a read no longer finds, in the words of an insert or update: for the caller it is a conflict.
            Some(index) if index < checks && matches!(error.kind(), ErrorKind::AlreadyExists | ErrorKind::NotFound) => {
                Error::conflict(error.message()).with_failed_write(index).with_source(error)
            }
            _ => error,
        })?;
        Ok(versions.split_off(checks.min(versions.len())))
    }
}

impl State {
    fn note_read(&mut self, address: Address, version: Version) -> Result<()> {
        match self.reads.get(&address) {
            Some(seen) if *seen != version => {
                let (table, key) = address;
                Err(Error::conflict(format!(
                    "record `{key}` of table `{table}` changed from version {seen} to {version} within the transaction"
                )))
            }
            Some(_) => Ok(()),
            None => {
                self.reads.insert(address, version);
                Ok(())
            }
        }
    }

    fn stage(&mut self, address: Address, record: Option<(Fields, Option<DateTime<Utc>>)>) {
        let before = self.reads.get(&address).copied().unwrap_or(Version::NONE);
        let record = record.map(|(fields, expires_at)| StagedRecord { fields, expires_at, before });
        self.sequence += 1;
        self.staged.insert(address, (self.sequence, record));
    }
}

fn staged_record(key: &Key, staged: StagedRecord) -> Record {
    Record {
        key: key.clone(),
        version: staged.before.next(),
        updated_at: Utc::now(),
        expires_at: staged.expires_at,
        fields: staged.fields,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_send<T: Send>(_: &T) {}

    /// A transaction must be usable within a spawned task.
    #[expect(dead_code, reason = "compiling is the test")]
    fn a_transaction_can_be_spawned(store: RecordStore, table: TableName) {
        let future = async move {
            let amount = 3;
            store
                .transaction(async |tx| {
                    let found = tx.get(&table, "a").await?;
                    tx.put(&table, "a", found.map_or_else(Fields::new, |r| r.fields)).await?;
                    Ok(amount)
                })
                .await
        };
        assert_send(&future);
        tokio::spawn(future);
    }
}
