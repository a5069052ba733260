//! [`RecordStore`]: what an application holds of a record backend.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use futures::stream::{BoxStream, StreamExt, TryStreamExt};

use crate::capability::require;
use crate::{
    Atomicity, BackendInfo, Batch, Error, ErrorKind, Expect, Fields, History, Key, Page, Query, Record, RecordBackend,
    RecordCapabilities, Result, ResultExt, SchemaChange, TableName, TableSchema, Version, Write,
};

/// Records in tables, on any backend. Cheap to clone.
///
/// Everything that goes in is checked against the table's schema and brought into canonical form; what the backend can't promise is refused
/// before anything is written.
#[derive(Clone, Debug)]
pub struct RecordStore {
    backend: Arc<dyn RecordBackend>,
    schemas: Arc<RwLock<HashMap<TableName, Arc<TableSchema>>>>,
    /// True where reads may be of a while ago.
    stale: bool,
}

impl RecordStore {
    /// A store over `backend`.
    pub fn new(backend: Arc<dyn RecordBackend>) -> Self {
        Self { backend, schemas: Arc::default(), stale: false }
    }

    /// The same store, whose reads (`get`, `scan`, `count` and what is made of them) may answer as of a while ago. A backend with a replica asks it then,
    /// which takes load off the primary; any other answers as of now. What this program has just written may not be there yet.
    ///
    /// Writes, their preconditions, [transactions](Self::transaction), [`history`](Self::history) and schemas are never stale.
    ///
    /// ```
    /// # async fn f(store: storage_core::RecordStore) -> storage_core::Result<()> {
    /// let jobs = "jobs".parse()?;
    /// let yesterday = store.stale().get(&jobs, "report").await?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn stale(&self) -> Self {
        Self { stale: true, ..self.clone() }
    }

    /// The same store, whose reads answer as of now: what it is unless made by [`stale`](Self::stale).
    #[must_use]
    pub fn fresh(&self) -> Self {
        Self { stale: false, ..self.clone() }
    }

    /// The backend itself.
    #[must_use]
    pub fn backend(&self) -> &Arc<dyn RecordBackend> {
        &self.backend
    }

    /// Which backend this is.
    #[must_use]
    pub fn info(&self) -> &BackendInfo {
        self.backend.info()
    }

    /// What the backend can do.
    #[must_use]
    pub fn capabilities(&self) -> &RecordCapabilities {
        self.backend.capabilities()
    }

    /// Creates a table. `false`: it was there with the same schema.
    ///
    /// # Errors
    /// [`AlreadyExists`](ErrorKind::AlreadyExists): it is there with another schema. [`Unsupported`](ErrorKind::Unsupported): the backend keeps no
    /// history, or can't enforce uniqueness. [`InvalidInput`](ErrorKind::InvalidInput): a bad schema.
    pub async fn create_table(&self, schema: &TableSchema) -> Result<bool> {
        let create = async {
            schema.check()?;
            self.check_offers(schema)?;
            self.backend.create_table(schema).await
        };
        let created = create.await.explain(self.info(), "records.create_table", || table_subject(&schema.name))?;
        self.remember(schema.clone());
        Ok(created)
    }

    fn check_offers(&self, schema: &TableSchema) -> Result<()> {
        let (capabilities, info) = (self.capabilities(), self.info());
        require(capabilities.history || schema.history == History::None, info, "record history")?;
        require(capabilities.unique || schema.unique_sets().next().is_none(), info, "unique columns")
    }

    /// Changes a table and keeps its records.
    ///
    /// # Errors
    /// See [`SchemaChange::apply`]; [`Unsupported`](ErrorKind::Unsupported) where the backend can't.
    pub async fn alter_table(&self, table: &TableName, change: &SchemaChange) -> Result<()> {
        let alter = async {
            require(self.capabilities().alter, self.info(), "changes of a table")?;
            let after = change.apply(&*self.fresh_schema(table).await?)?;
            self.check_offers(&after)?;
            self.backend.alter_table(table, change).await
        };
        let altered = alter.await.explain(self.info(), "records.alter_table", || table_subject(table));
        self.forget(table);
        altered
    }

    /// Removes a table with its records. `false`: there was none.
    ///
    /// # Errors
    /// The backend's.
    pub async fn drop_table(&self, table: &TableName) -> Result<bool> {
        let dropped = self.backend.drop_table(table).await.explain(self.info(), "records.drop_table", || table_subject(table));
        self.forget(table);
        dropped
    }

    /// All tables, by name.
    ///
    /// # Errors
    /// The backend's.
    pub async fn tables(&self) -> Result<Vec<TableSchema>> {
        self.backend.tables().await.explain(self.info(), "records.tables", || "all tables".into())
    }

    /// The schema of a table.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound).
    pub async fn schema(&self, table: &TableName) -> Result<Arc<TableSchema>> {
        self.known_schema(table).await.explain(self.info(), "records.schema", || table_subject(table))
    }

    async fn known_schema(&self, table: &TableName) -> Result<Arc<TableSchema>> {
        if let Some(schema) = self.schemas.read().unwrap_or_else(PoisonError::into_inner).get(table) {
            return Ok(Arc::clone(schema));
        }
        self.fresh_schema(table).await
    }

    async fn fresh_schema(&self, table: &TableName) -> Result<Arc<TableSchema>> {
        self.forget(table);
        let schemas = self.backend.tables().await?;
        match schemas.into_iter().find(|s| s.name == *table) {
            Some(schema) => Ok(self.remember(schema)),
            None => Err(Error::not_found(format!("there is no table `{table}`"))),
        }
    }

    fn remember(&self, schema: TableSchema) -> Arc<TableSchema> {
        let schema = Arc::new(schema);
        let mut schemas = self.schemas.write().unwrap_or_else(PoisonError::into_inner);
        schemas.insert(schema.name.clone(), Arc::clone(&schema));
        schema
    }

    fn forget(&self, table: &TableName) {
        self.schemas.write().unwrap_or_else(PoisonError::into_inner).remove(table);
    }

    /// Runs `call` with the schema known here; where the input does not fit it and another program has changed the table meanwhile, once more with
    /// the present one.
    async fn with_schema<T, F>(&self, table: &TableName, call: impl Fn(Arc<TableSchema>) -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let before = self.known_schema(table).await?;
        match call(Arc::clone(&before)).await {
            Err(error) if may_be_outdated(&error) && self.any_changed(&[table], &[before]).await? => {
                call(self.known_schema(table).await?).await
            }
            answer => answer,
        }
    }

    /// Reads the schemas anew; true where one is not as it was.
    async fn any_changed(&self, tables: &[impl std::borrow::Borrow<TableName>], before: &[Arc<TableSchema>]) -> Result<bool> {
        let mut changed = false;
        for (table, before) in tables.iter().zip(before) {
            changed |= *self.fresh_schema(table.borrow()).await? != **before;
        }
        Ok(changed)
    }

    /// The record with that key.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound): no such table. [`InvalidInput`](ErrorKind::InvalidInput): not a key of it.
    pub async fn get(&self, table: &TableName, key: impl Into<Key>) -> Result<Option<Record>> {
        let mut found = self.get_many(table, &[key.into()]).await?;
        Ok(found.pop().flatten())
    }

    /// The records with these keys, in their order, as of one moment (each of one of its own, where the backend is
    /// [`atomic`](RecordCapabilities::atomic) within a record alone).
    ///
    /// # Errors
    /// See [`get`](Self::get).
    pub async fn get_many(&self, table: &TableName, keys: &[Key]) -> Result<Vec<Option<Record>>> {
        let get = async {
            let schema = self.known_schema(table).await?;
            keys.iter().try_for_each(|key| schema.check_key(key))?;
            if self.stale { self.backend.get_stale(table, keys).await } else { self.backend.get(table, keys).await }
        };
        get.await.explain(self.info(), "records.get", || table_subject(table))
    }

    /// Writes a new record.
    ///
    /// # Errors
    /// [`AlreadyExists`](ErrorKind::AlreadyExists): the key or a unique value is taken. [`InvalidInput`](ErrorKind::InvalidInput): it does not fit the schema.
    pub async fn insert(&self, table: &TableName, key: impl Into<Key>, fields: Fields) -> Result<Version> {
        self.commit_one(Batch::new().put(table, key, fields, Expect::Absent)).await
    }

    /// Writes a record, whether there is one or not.
    ///
    /// # Errors
    /// See [`insert`](Self::insert).
    pub async fn upsert(&self, table: &TableName, key: impl Into<Key>, fields: Fields) -> Result<Version> {
        self.commit_one(Batch::new().put(table, key, fields, Expect::Anything)).await
    }

    /// Changes some fields of a record; `null` removes one.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) or, with [`Expect::Version`], [`Conflict`](ErrorKind::Conflict).
    pub async fn update(&self, table: &TableName, key: impl Into<Key>, fields: Fields, expect: Expect) -> Result<Version> {
        self.commit_one(Batch::new().merge(table, key, fields, expect)).await
    }

    /// Removes a record. `false`: there was none.
    ///
    /// # Errors
    /// With an expectation, what it says.
    pub async fn delete(&self, table: &TableName, key: impl Into<Key>, expect: Expect) -> Result<bool> {
        Ok(self.commit_one(Batch::new().delete(table, key, expect)).await? != Version::NONE)
    }

    async fn commit_one(&self, batch: Batch) -> Result<Version> {
        let versions = self.commit(batch).await?;
        versions.first().copied().ok_or_else(|| Error::internal("the backend answered a write without a version"))
    }

    /// Does all writes, in order, or none. Answers each with the version that is there afterwards.
    ///
    /// # Errors
    /// What the first write that can't be done says, with its index ([`Error::failed_write`]). [`Unsupported`](ErrorKind::Unsupported), before anything is written,
    /// where the batch reaches further than the backend's [`atomic`](RecordCapabilities::atomic).
    pub async fn commit(&self, batch: Batch) -> Result<Vec<Version>> {
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        self.check_reach(&batch).explain(self.info(), "records.commit", || "a batch".into())?;
        let targets: Vec<Option<TableName>> = batch.writes.iter().map(|w| w.target().map(|(table, _)| table.clone())).collect();
        let mut tables: Vec<&TableName> = targets.iter().flatten().collect();
        tables.sort_unstable();
        tables.dedup();
        let commit = async {
            let mut known = Vec::with_capacity(tables.len());
            for table in &tables {
                known.push(self.known_schema(table).await?);
            }
            let outcome = match self.canonical_batch(batch).await {
                Ok(canonical) => self.backend.commit(canonical).await,
                Err(error) => Err(error),
            };
            match outcome {
                // The batch is spent, so it can't simply be tried again with the present schemas as reads are.
                Err(error) if may_be_outdated(&error) && self.any_changed(&tables, &known).await? => {
                    Err(Error::conflict(format!(
                        "another program changed a table's schema meanwhile, try again; with the schema known before: {}",
                        error.message()
                    ))
                    .with_source(error))
                }
                outcome => outcome,
            }
        };
        let outcome = commit.await;
        let failed = outcome.as_ref().err().and_then(Error::failed_write);
        outcome.explain(self.info(), "records.commit", || {
            let table = match (failed, &*tables) {
                (Some(index), _) => targets.get(index).and_then(Option::as_ref),
                (None, [only]) => Some(*only),
                _ => None,
            };
            table.map_or_else(|| "a batch".into(), table_subject)
        })
    }

    fn check_reach(&self, batch: &Batch) -> Result<()> {
        let (capabilities, info) = (self.capabilities(), self.info());
        if batch.len() > capabilities.max_batch {
            return Err(Error::invalid(format!(
                "a batch of {} writes: {} at most on this backend",
                batch.len(),
                capabilities.max_batch
            )));
        }
        let what = match capabilities.atomic {
            Atomicity::Store => "messages within a batch",
            _ => {
                "messages within a batch (its batches reach over less than the store, so that a message could not be a part of one): send behind the commit"
            }
        };
        require(capabilities.enqueue || !batch.enqueues(), info, what)?;
        let expires = batch.writes.iter().any(|w| matches!(w, Write::Put { expires_at: Some(_), .. }));
        require(capabilities.expiry || !expires, info, "records that expire")?;
        let (reach, atomic) = (batch.reach(), capabilities.atomic);
        if reach > atomic {
            return Err(Error::unsupported(format!(
                "the batch reaches over a {reach:?}, and this backend is atomic within a {atomic:?}"
            ))
            .with_backend(info));
        }
        Ok(())
    }

    async fn canonical_batch(&self, mut batch: Batch) -> Result<Batch> {
        for (index, write) in batch.writes.iter_mut().enumerate() {
            self.canonicalize(write).await.map_err(|e| e.with_failed_write(index))?;
        }
        Ok(batch)
    }

    async fn canonicalize(&self, write: &mut Write) -> Result<()> {
        if let Some((table, key)) = write.target() {
            self.known_schema(table).await?.check_key(key)?;
        }
        match write {
            Write::Put { table, fields, .. } => {
                *fields = self.known_schema(table).await?.canonical_record(std::mem::take(fields))?;
                self.check_size(fields)
            }
            Write::Merge { expect: Expect::Absent, .. } => {
                Err(Error::invalid("a merge changes a record that is there: it can't expect it to be absent"))
            }
            Write::Merge { table, fields, .. } => {
                *fields = self.known_schema(table).await?.canonical_merge(std::mem::take(fields))?;
                self.check_size(fields)
            }
            Write::Enqueue { queue, message } => {
                crate::queue_store::check_sendable(queue)?;
                message.check()?;
                let (len, max) = (message.body.len(), self.capabilities().max_record_bytes);
                if len > max {
                    return Err(Error::invalid(format!(
                        "the message's body has {len} bytes, {max} at most within a batch on this backend"
                    )));
                }
                Ok(())
            }
            Write::Delete { .. } | Write::Check { .. } => Ok(()),
        }
    }

    fn check_size(&self, fields: &Fields) -> Result<()> {
        let (len, max) = (json_len(fields)?, self.capabilities().max_record_bytes);
        if len > max {
            return Err(Error::invalid(format!(
                "the record has {len} bytes as JSON, {max} at most on this backend: put large data into a blob"
            )));
        }
        Ok(())
    }

    /// One page of a query.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) for a filter, order, limit or token that does not fit; [`NotFound`](ErrorKind::NotFound): no such table.
    pub async fn scan(&self, query: &Query) -> Result<Page> {
        let scan = self
            .with_schema(&query.table, |schema| async move { self.backend.scan(&self.canonical_query(query, &schema)?).await });
        scan.await.explain(self.info(), "records.scan", || table_subject(&query.table))
    }

    fn canonical_query(&self, query: &Query, schema: &TableSchema) -> Result<Query> {
        let canonical = query.canonical(schema)?;
        Ok(Query { stale: canonical.stale || self.stale, ..canonical })
    }

    /// All records of a query, fetched page by page as they are taken ([`Query::limit`] records at a time).
    pub fn stream(&self, query: Query) -> BoxStream<'static, Result<Record>> {
        let store = self.clone();
        let pages = futures::stream::try_unfold(Some(query), move |query| {
            let store = store.clone();
            async move {
                let Some(query) = query else { return Ok::<_, Error>(None) };
                let page = store.scan(&query).await?;
                let next = page.next.map(|token| query.after(Some(token)));
                Ok(Some((futures::stream::iter(page.records.into_iter().map(Ok)), next)))
            }
        });
        pages.try_flatten().boxed()
    }

    /// How many records match the query's filter.
    ///
    /// # Errors
    /// See [`scan`](Self::scan).
    pub async fn count(&self, query: &Query) -> Result<u64> {
        let count = self
            .with_schema(&query.table, |schema| async move { self.backend.count(&self.canonical_query(query, &schema)?).await });
        count.await.explain(self.info(), "records.count", || table_subject(&query.table))
    }

    /// Frees what expired records take up, of those that match the query's filter at least, on backends that don't do so by themselves. Answers how many
    /// were freed here. Expired records count as absent with and without it.
    ///
    /// # Errors
    /// See [`count`](Self::count).
    pub async fn sweep(&self, query: &Query) -> Result<u64> {
        let sweep = self.with_schema(&query.table, |schema| async move { self.backend.sweep(&query.canonical(&schema)?).await });
        sweep.await.explain(self.info(), "records.sweep", || table_subject(&query.table))
    }

    /// The kept versions of a record, newest first, also after it was deleted.
    ///
    /// # Errors
    /// [`Unsupported`](ErrorKind::Unsupported) where the backend, or the table's schema, keeps none.
    pub async fn history(&self, table: &TableName, key: impl Into<Key>) -> Result<Vec<Record>> {
        let key = key.into();
        let history = async {
            let schema = self.known_schema(table).await?;
            schema.check_key(&key)?;
            require(self.capabilities().history, self.info(), "record history")?;
            if schema.history == History::None {
                return Err(Error::unsupported(format!("table `{table}` was created without history")));
            }
            self.backend.history(table, &key).await
        };
        history.await.explain(self.info(), "records.history", || format!("record `{key}` of table `{table}`"))
    }

    /// Writes a consistent copy of the whole store to `to`, which must not exist.
    ///
    /// # Errors
    /// [`Unsupported`](ErrorKind::Unsupported) where the service does its own; [`AlreadyExists`](ErrorKind::AlreadyExists).
    pub async fn backup(&self, to: &Path) -> Result<()> {
        let backup = async {
            require(self.capabilities().backup, self.info(), "backups (the service does its own)")?;
            self.backend.backup(to).await
        };
        backup.await.explain(self.info(), "records.backup", || to.display().to_string())
    }

    /// Asks for a sign of life.
    ///
    /// # Errors
    /// The backend's.
    pub async fn ping(&self) -> Result<()> {
        self.backend.ping().await.explain(self.info(), "records.ping", || "the store".into())
    }

    /// Finishes what is under way and lets go of everything.
    ///
    /// # Errors
    /// The backend's.
    pub async fn close(&self) -> Result<()> {
        self.backend.close().await.explain(self.info(), "records.close", || "the store".into())
    }
}

fn may_be_outdated(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::NotFound)
}

fn table_subject(table: &TableName) -> String {
    format!("table `{table}`")
}

/// How many bytes the fields have as JSON, without writing it anywhere.
pub(crate) fn json_len(fields: &Fields) -> Result<usize> {
    let mut counter = ByteCounter(0);
    serde_json::to_writer(&mut counter, fields)?;
    Ok(counter.0)
}

struct ByteCounter(usize);

impl std::io::Write for ByteCounter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
