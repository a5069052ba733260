//! A table in a fresh store, and short words for what cases do with it.

use futures::TryStreamExt as _;
use serde_json::Value;
use storage_core::{
    Atomicity, Batch, Expect, Filter, Key, Query, Record, RecordCapabilities, RecordStore, Result, SchemaBuilder, TableName,
    TableSchema, Version, Write, fields,
};

use crate::Harness;
use crate::opened::Opened;

/// A table `t` in a fresh store.
pub(crate) struct Table<'h> {
    pub(crate) opened: Opened<'h>,
    pub(crate) store: RecordStore,
    pub(crate) name: TableName,
}

/// A schema `t` with undeclared fields kept.
pub(crate) fn open_schema() -> SchemaBuilder {
    TableSchema::builder("t").keep_undeclared()
}

impl<'h> Table<'h> {
    pub(crate) async fn new(harness: &'h dyn Harness, schema: SchemaBuilder) -> Result<Self> {
        Self::within(Opened::fresh(harness).await?, schema).await
    }

    /// Keeps any fields.
    pub(crate) async fn open(harness: &'h dyn Harness) -> Result<Self> {
        Self::new(harness, open_schema()).await
    }

    /// In a store that the case has opened itself.
    pub(crate) async fn within(opened: Opened<'h>, schema: SchemaBuilder) -> Result<Self> {
        let store = opened.records();
        let schema = schema.build()?;
        assert!(store.create_table(&schema).await?, "a fresh store has no table `{}`", schema.name);
        Ok(Self { opened, store, name: schema.name })
    }

    pub(crate) fn capabilities(&self) -> &RecordCapabilities {
        self.store.capabilities()
    }

    /// Upserts.
    pub(crate) async fn put(&self, key: impl Into<Key>, value: Value) -> Result<Version> {
        self.store.upsert(&self.name, key, fields(value)).await
    }

    pub(crate) async fn put_if(&self, key: impl Into<Key>, value: Value, expect: Expect) -> Result<Version> {
        self.commit(Batch::new().put(&self.name, key, fields(value), expect)).await.map(|versions| versions[0])
    }

    pub(crate) async fn delete(&self, key: impl Into<Key>) -> Result<bool> {
        self.store.delete(&self.name, key, Expect::Anything).await
    }

    /// Upserts many, in as large batches as the backend takes.
    pub(crate) async fn put_all<K: Into<Key>>(&self, rows: impl IntoIterator<Item = (K, Value)>) -> Result<()> {
        let at_once = if self.capabilities().atomic >= Atomicity::Table { self.capabilities().max_batch.min(500) } else { 1 };
        let put = |(key, value): (K, Value)| Write::Put {
            table: self.name.clone(),
            key: key.into(),
            fields: fields(value),
            expect: Expect::Anything,
            expires_at: None,
        };
        let writes: Vec<Write> = rows.into_iter().map(put).collect();
        for chunk in writes.chunks(at_once) {
            self.store.commit(Batch::from(chunk.to_vec())).await?;
        }
        Ok(())
    }

    pub(crate) async fn commit(&self, batch: Batch) -> Result<Vec<Version>> {
        self.store.commit(batch).await
    }

    pub(crate) async fn get(&self, key: impl Into<Key>) -> Result<Option<Record>> {
        self.store.get(&self.name, key).await
    }

    /// The record's fields. Fails where there is none.
    pub(crate) async fn value(&self, key: impl Into<Key>) -> Result<Value> {
        let key = key.into();
        let record = self.get(key.clone()).await?;
        Ok(Value::Object(record.unwrap_or_else(|| panic!("there is no record `{key}`")).fields))
    }

    /// The record's version, [`Version::NONE`] where there is none.
    pub(crate) async fn version(&self, key: impl Into<Key>) -> Result<Version> {
        Ok(self.get(key).await?.map_or(Version::NONE, |record| record.version))
    }

    pub(crate) fn query(&self) -> Query {
        Query::table(self.name.clone()).expect("a name that was checked")
    }

    /// All records of a query, over all pages.
    pub(crate) async fn all(&self, query: Query) -> Result<Vec<Record>> {
        self.store.stream(query).try_collect().await
    }

    /// The keys of all records of a query, in its order.
    pub(crate) async fn keys(&self, query: Query) -> Result<Vec<String>> {
        Ok(self.all(query).await?.iter().map(|record| record.key.to_string()).collect())
    }

    /// The keys of all records that match, by key. That `count` agrees is checked along the way.
    pub(crate) async fn matching(&self, filter: Filter) -> Result<Vec<String>> {
        let query = self.query().filter(filter.clone());
        let count = self.store.count(&query).await?;
        let keys = self.keys(query).await?;
        assert_eq!(count, keys.len() as u64, "count and scan disagree about {filter:?}");
        Ok(keys)
    }

    pub(crate) async fn count(&self) -> Result<u64> {
        self.store.count(&self.query()).await
    }
}
