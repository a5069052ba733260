//! Section `blobs`: blobs of `storage-fs`, durable.

use std::path::Path;

use anyhow::{Context as _, Result};
use async_trait::async_trait;
use storage_core::{BlobPath, BlobStore};
use storage_fs::FsDriver;

use crate::subject::{BlobSubject, Named, Role};

/// The toolkit's local blobs.
pub fn subject() -> Option<Box<dyn BlobSubject>> {
    Some(Box::new(Ours::default()))
}

#[derive(Default)]
struct Ours {
    durable: Option<BlobStore>,
    quick: Option<BlobStore>,
}

async fn store(dir: &Path, fsync: bool) -> Result<BlobStore> {
    let url = format!("file://{}", dir.join("ours").display());
    let backends = super::open(&FsDriver, &url, &[("fsync", fsync.into())]).await?;
    Ok(BlobStore::new(backends.blobs.context("the driver has no blobs")?))
}

impl Ours {
    fn durable(&self) -> Result<&BlobStore> {
        self.durable.as_ref().context("open comes first")
    }

    fn quick(&self) -> Result<&BlobStore> {
        self.quick.as_ref().context("open comes first")
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
impl BlobSubject for Ours {
    async fn open(&mut self, dir: &Path) -> Result<()> {
        self.durable = Some(store(dir, true).await?);
        self.quick = Some(store(dir, false).await?);
        Ok(())
    }

    async fn upload(&self, from: &Path, name: &str) -> Result<()> {
        self.durable()?.upload_file(from, name).await?;
        Ok(())
    }

    async fn download(&self, name: &str, to: &Path) -> Result<()> {
        self.durable()?.download_file(name, to).await?;
        Ok(())
    }

    async fn put(&self, name: &str, bytes: Vec<u8>) -> Result<()> {
        self.quick()?.put(&BlobPath::new(name)?, bytes).await?;
        Ok(())
    }

    async fn get_all(&self, names: Vec<String>) -> Result<usize> {
        let mut sum = 0;
        for name in names {
            sum += self.quick()?.get(&BlobPath::new(name)?).await?.len();
        }
        Ok(sum)
    }
}
