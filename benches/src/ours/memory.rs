//! Section `memory`: records of `storage-memory`.

use std::hint::black_box;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use async_trait::async_trait;
use storage_core::{Batch, Expect, RecordStore, TableName, TableSchema};
use storage_memory::MemoryStore;

use crate::subject::{Document, MemorySubject, Named, Role};

/// The toolkit's records in memory.
pub fn subject() -> Option<Box<dyn MemorySubject>> {
    Some(Box::new(Ours::default()))
}

#[derive(Default)]
struct Ours {
    opened: Option<(RecordStore, TableName)>,
}

impl Named for Ours {
    fn name(&self) -> String {
        "storage-memory".to_owned()
    }

    fn role(&self) -> Role {
        Role::Ours
    }
}

#[async_trait]
impl MemorySubject for Ours {
    async fn load(&mut self, records: Vec<Document>) -> Result<()> {
        let store = RecordStore::new(Arc::new(MemoryStore::new().records()));
        let schema = TableSchema::builder("documents").keep_undeclared().build()?;
        store.create_table(&schema).await?;
        for chunk in records.chunks(1_000) {
            let mut batch = Batch::new();
            for (key, fields) in chunk {
                batch = batch.put(&schema.name, key.as_str(), fields.clone(), Expect::Absent);
            }
            store.commit(batch).await?;
        }
        self.opened = Some((store, schema.name));
        Ok(())
    }

    async fn get_all(&self, ids: &[String]) -> Result<usize> {
        let (store, table) = self.opened.as_ref().context("load comes first")?;
        let mut found = 0;
        for id in ids {
            let record = store.get(table, id.as_str()).await?;
            found += usize::from(black_box(record).is_some_and(|record| record.key.id.to_string() == *id));
        }
        Ok(found)
    }
}
