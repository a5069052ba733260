//! The peer: object_store's local file system, told to sync.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use async_trait::async_trait;
use object_store::local::LocalFileSystem;
use object_store::path::Path as Name;
use object_store::{GetResultPayload, ObjectStoreExt};

use crate::subject::{BlobSubject, Named, Role};

/// Bytes that are read, or uploaded as a part, at once.
const PIECE: usize = 8 << 20;

#[derive(Default)]
pub(super) struct Local {
    synced: Option<Arc<LocalFileSystem>>,
    quick: Option<Arc<LocalFileSystem>>,
}

impl Local {
    fn synced(&self) -> Result<&LocalFileSystem> {
        self.synced.as_deref().context("the store is not open")
    }

    fn quick(&self) -> Result<&LocalFileSystem> {
        self.quick.as_deref().context("the store is not open")
    }
}

impl Named for Local {
    fn name(&self) -> String {
        "object_store 0.14".to_owned()
    }

    fn role(&self) -> Role {
        Role::Peer
    }
}

#[async_trait]
impl BlobSubject for Local {
    async fn open(&mut self, dir: &Path) -> Result<()> {
        self.synced = Some(Arc::new(LocalFileSystem::new_with_prefix(dir)?.with_fsync(true)));
        self.quick = Some(Arc::new(LocalFileSystem::new_with_prefix(dir)?));
        Ok(())
    }

    async fn upload(&self, from: &Path, name: &str) -> Result<()> {
        let mut upload = self.synced()?.put_multipart(&Name::from(name)).await?;
        let mut file = File::open(from)?;
        loop {
            let mut piece = Vec::with_capacity(PIECE);
            // Kept on this thread: it does nothing else in the meantime, and the file is in the page cache.
            let count = Read::by_ref(&mut file).take(PIECE as u64).read_to_end(&mut piece)?;
            if count == 0 {
                break;
            }
            upload.put_part(piece.into()).await?;
        }
        upload.complete().await?;
        Ok(())
    }

    async fn download(&self, name: &str, to: &Path) -> Result<()> {
        let result = self.synced()?.get(&Name::from(name)).await?;
        let GetResultPayload::File(mut from, _) = result.payload else { bail!("the store answered without a file") };
        let to = to.to_owned();
        tokio::task::spawn_blocking(move || {
            let mut file = File::create(&to)?;
            let mut piece = vec![0; PIECE];
            loop {
                let count = from.read(&mut piece)?;
                if count == 0 {
                    break;
                }
                file.write_all(&piece[..count])?;
            }
            file.sync_all()?;
            Ok(File::open(to.parent().context("a file needs a folder")?)?.sync_all()?)
        })
        .await?
    }

    async fn put(&self, name: &str, bytes: Vec<u8>) -> Result<()> {
        self.quick()?.put(&Name::from(name), bytes.into()).await?;
        Ok(())
    }

    async fn get_all(&self, names: Vec<String>) -> Result<usize> {
        let mut sum = 0;
        for name in names {
            sum += self.quick()?.get(&Name::from(name)).await?.bytes().await?.len();
        }
        Ok(sum)
    }
}
