//! Whether two sides hold the same bytes.

use std::fs::File;
use std::path::Path;

use bytes::Bytes;
use futures::stream::TryStreamExt;

use super::local::{blocking, file_subject};
use super::pool::Run;
use crate::blob::file_stream;
use crate::{BlobPath, BlobStore, ByteStream, GetOptions, Result, ResultExt};

impl Run {
    /// Reads a blob and a file until they differ.
    pub(super) async fn same_as_file(&self, path: &BlobPath, local: &Path) -> Result<bool> {
        let owned = local.to_owned();
        let opened = blocking(move || Ok(File::open(&owned)?));
        let file = opened.await.context("blobs.compare", || file_subject(local))?;
        let blob = self.store.get_with(path, &GetOptions::default()).await?.into_stream();
        self.same(blob, file_stream(file, u64::MAX)).await.context("blobs.compare", || file_subject(local))
    }

    /// Reads a blob of each store until they differ.
    pub(super) async fn same_as_blob(&self, path: &BlobPath, target: &BlobStore, to: &BlobPath) -> Result<bool> {
        let all = GetOptions::default();
        let (from, to) = futures::future::try_join(self.store.get_with(path, &all), target.get_with(to, &all)).await?;
        self.same(from.into_stream(), to.into_stream()).await
    }

    async fn same(&self, mut one: ByteStream, mut other: ByteStream) -> Result<bool> {
        let (mut left, mut right) = (Bytes::new(), Bytes::new());
        loop {
            fill(&mut left, &mut one).await?;
            fill(&mut right, &mut other).await?;
            let len = left.len().min(right.len());
            if len == 0 {
                return Ok(left.is_empty() && right.is_empty());
            }
            self.meter.pace(len as u64).await;
            if left.split_to(len) != right.split_to(len) {
                return Ok(false);
            }
        }
    }
}

/// Takes the next piece that is not empty, where the last one is used up.
async fn fill(piece: &mut Bytes, pieces: &mut ByteStream) -> Result<()> {
    while piece.is_empty()
        && let Some(next) = pieces.try_next().await?
    {
        *piece = next;
    }
    Ok(())
}
