//! Tables under a prefix, of entities.

use chrono::{DateTime, Utc};
use storage_core::{
    Batch, Entity, ErrorKind, Expect, Fields, History, Key, Query, Record, RecordStore, Result, SchemaChange, TableName,
    TableSchema, Write,
};

/// A table of `E`, under a name that the options choose.
#[derive(Debug)]
pub(crate) struct Table<E> {
    pub(crate) records: RecordStore,
    pub(crate) name: TableName,
    kind: std::marker::PhantomData<fn(E) -> E>,
}

impl<E: Entity> Table<E> {
    /// Opens `<prefix><name>`; creates it where it is not there. One that kept another number of versions keeps as many as this from now on.
    pub(crate) async fn open(records: &RecordStore, prefix: &str, name: &str, history: History) -> Result<Self> {
        let mut schema = E::schema()?;
        schema.name = TableName::new(format!("{prefix}{name}"))?;
        schema.history = history;
        match records.create_table(&schema).await {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                let there = records.schema(&schema.name).await?;
                if (TableSchema { history, ..(*there).clone() }).difference(&schema).is_some() {
                    return Err(error);
                }
                records.alter_table(&schema.name, &SchemaChange::SetHistory(history)).await?;
            }
            outcome => drop(outcome?),
        }
        Ok(Self { records: records.clone(), name: schema.name, kind: std::marker::PhantomData })
    }

    pub(crate) async fn get(&self, key: Key) -> Result<Option<E>> {
        self.records.get(&self.name, key).await?.map(E::from_record).transpose()
    }

    /// The write of a whole entity. An expiry is left out where the backend has none: then a sweep does it.
    pub(crate) fn put(&self, entity: &E, expect: Expect, expires_at: Option<DateTime<Utc>>) -> Result<Write> {
        Ok(Write::Put {
            table: self.name.clone(),
            key: entity.key(),
            fields: entity.to_fields()?,
            expect,
            expires_at: expires_at.filter(|_| self.records.capabilities().expiry),
        })
    }

    pub(crate) fn delete(&self, key: Key, expect: Expect) -> Write {
        Write::Delete { table: self.name.clone(), key, expect }
    }

    pub(crate) fn merge(&self, key: Key, fields: Fields, expect: Expect) -> Write {
        Write::Merge { table: self.name.clone(), key, fields, expect }
    }

    pub(crate) async fn write(&self, write: Write) -> Result<storage_core::Version> {
        let versions = self.records.commit(Batch::new().with(write)).await?;
        Ok(versions.first().copied().unwrap_or_default())
    }

    pub(crate) fn query(&self) -> Query {
        Query {
            table: self.name.clone(),
            filter: storage_core::Filter::All,
            order: Vec::new(),
            limit: 100,
            after: None,
            stale: false,
        }
    }

    pub(crate) async fn page(&self, query: &Query) -> Result<(Vec<E>, Option<storage_core::PageToken>)> {
        let page = self.records.scan(query).await?;
        Ok((page.records.into_iter().map(E::from_record).collect::<Result<_>>()?, page.next))
    }

    /// Removes what `query` finds, which is what is no longer kept: where records expire, the backend knows by itself. Answers how many were removed here.
    pub(crate) async fn sweep(&self, query: Query) -> Result<u64> {
        if self.records.capabilities().expiry {
            return self.records.sweep(&query).await;
        }
        self.delete_matching(query.limit(1000)).await
    }

    /// Deletes what `query` finds, page by page, unless it has changed meanwhile. Answers how many.
    pub(crate) async fn delete_matching(&self, query: Query) -> Result<u64> {
        let mut deleted = 0;
        let mut next = Some(query);
        while let Some(query) = next {
            let page = self.records.scan(&query).await?;
            for Record { key, version, .. } in page.records {
                match self.write(self.delete(key, Expect::Version(version))).await {
                    Ok(_) => deleted += 1,
                    Err(error) if error.kind() == ErrorKind::Conflict => {}
                    Err(error) => return Err(error),
                }
            }
            next = page.next.map(|token| query.after(Some(token)));
        }
        Ok(deleted)
    }
}

/// True where both are the same store, so that one batch reaches both.
pub(crate) fn is_same_store(a: &RecordStore, b: &RecordStore) -> bool {
    a.backend().info() == b.backend().info()
}
