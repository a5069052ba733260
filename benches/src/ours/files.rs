//! Section `fs`: records of `storage-fs`, durable.

use std::path::Path;

use anyhow::{Context as _, Result};
use async_trait::async_trait;
use storage_core::{Batch, Expect, RecordStore, TableName, TableSchema};
use storage_fs::FsDriver;

use crate::subject::{Document, FileSubject, Named, Role};

/// The toolkit's records as files.
pub fn subject() -> Option<Box<dyn FileSubject>> {
    Some(Box::new(Ours::default()))
}

#[derive(Default)]
struct Ours {
    opened: Option<(RecordStore, TableName)>,
}

impl Ours {
    fn opened(&self) -> Result<&(RecordStore, TableName)> {
        self.opened.as_ref().context("open comes first")
    }
}

impl Named for Ours {
    fn name(&self) -> String {
        "storage-fs".to_owned()
    }

    fn role(&self) -> Role {
        Role::Ours
    }
}

#[async_trait]
impl FileSubject for Ours {
    async fn open(&mut self, dir: &Path) -> Result<()> {
        let url = format!("file://{}", dir.join("ours").display());
        let store = super::records(&super::open(&FsDriver, &url, &[]).await?)?;
        let schema = TableSchema::builder("documents").keep_undeclared().build()?;
        store.create_table(&schema).await?;
        self.opened = Some((store, schema.name));
        Ok(())
    }

    async fn load(&self, records: Vec<Document>) -> Result<()> {
        let (store, table) = self.opened()?;
        for chunk in records.chunks(1_000) {
            let mut batch = Batch::new();
            for (key, fields) in chunk {
                batch = batch.put(table, key.as_str(), fields.clone(), Expect::Anything);
            }
            store.commit(batch).await?;
        }
        Ok(())
    }

    async fn put_all(&self, records: Vec<Document>) -> Result<()> {
        let (store, table) = self.opened()?;
        for (key, fields) in records {
            store.upsert(table, key, fields).await?;
        }
        Ok(())
    }

    async fn get_all(&self, ids: Vec<String>) -> Result<usize> {
        let (store, table) = self.opened()?;
        let mut found = 0;
        for id in ids {
            found += usize::from(store.get(table, id).await?.is_some());
        }
        Ok(found)
    }
}
