//! The peer: object_store, as a program would call it that moves files with care.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{StreamExt as _, TryStreamExt as _};
use object_store::aws::AmazonS3Builder;
use object_store::local::LocalFileSystem;
use object_store::path::Path as Name;
use object_store::{GetResultPayload, ObjectStore as Store, ObjectStoreExt as _, WriteMultipart};

use super::child::sync_file;
use super::{BLOB, Job, PART, Place, What};
use crate::seaweed::{PASSWORD, REGION, USER};
use crate::subject::{MoveSubject, Named, Role};

pub(super) struct ObjectStore;

impl Named for ObjectStore {
    fn name(&self) -> String {
        "object_store 0.14".to_owned()
    }

    fn role(&self) -> Role {
        Role::Peer
    }

    fn note(&self) -> String {
        "parts are uploaded through its WriteMultipart; of a bucket, ranges are fetched side by side and written in order"
            .to_owned()
    }
}

#[async_trait]
impl MoveSubject for ObjectStore {
    fn unable(&self, what: What, _to_bucket: bool) -> Option<String> {
        (what == What::Folder).then(|| "has no call for a folder".to_owned())
    }

    async fn upload(&self, job: &Job) -> Result<()> {
        let store = open(&job.place)?;
        let upload = store.put_multipart(&Name::from(BLOB)).await?;
        let mut parts = WriteMultipart::new_with_chunk_size(upload, PART);
        let mut file = File::open(&job.local)?;
        while let Some(piece) = next_piece(&mut file)? {
            parts.wait_for_capacity(job.parallel - 1).await?;
            parts.put(piece);
        }
        parts.finish().await?;
        Ok(())
    }

    async fn download(&self, job: &Job) -> Result<()> {
        let store = open(&job.place)?;
        let name = Name::from(BLOB);
        match job.place {
            Place::Folder { .. } => copy_out(&*store, &name, &job.local).await?,
            Place::Bucket { .. } => fetch(&store, &name, job).await?,
        }
        sync_file(&job.local).await
    }
}

fn open(place: &Place) -> Result<Arc<dyn Store>> {
    Ok(match place {
        Place::Folder { dir, fsync } => Arc::new(LocalFileSystem::new_with_prefix(dir)?.with_fsync(*fsync)),
        Place::Bucket { endpoint, bucket } => {
            let s3 = AmazonS3Builder::new().with_endpoint(endpoint).with_allow_http(true).with_bucket_name(bucket);
            let s3 = s3.with_region(REGION).with_access_key_id(USER).with_secret_access_key(PASSWORD);
            // As OpenDAL and rclone do: the body is not hashed for the signature.
            Arc::new(s3.with_unsigned_payload(true).build()?)
        }
    })
}

/// The next part. Read on this thread: the file is in the page cache.
fn next_piece(file: &mut File) -> Result<Option<Bytes>> {
    let mut piece = Vec::with_capacity(PART);
    let count = Read::by_ref(file).take(PART as u64).read_to_end(&mut piece)?;
    Ok((count > 0).then(|| piece.into()))
}

/// Out of a folder: the store hands the file out.
async fn copy_out(store: &dyn Store, name: &Name, to: &Path) -> Result<()> {
    let GetResultPayload::File(mut from, _) = store.get(name).await?.payload else { bail!("the store answered without a file") };
    let to = to.to_owned();
    let copy = move || -> Result<()> {
        let mut file = File::create(&to)?;
        let mut piece = vec![0; PART];
        loop {
            let count = from.read(&mut piece)?;
            if count == 0 {
                return Ok(());
            }
            file.write_all(&piece[..count])?;
        }
    };
    tokio::task::spawn_blocking(copy).await?
}

/// Out of a bucket.
async fn fetch(store: &Arc<dyn Store>, name: &Name, job: &Job) -> Result<()> {
    let size = store.head(name).await?.size;
    let part = u64::try_from(PART)?;
    let starts = (0..size.div_ceil(part)).map(|index| index * part);
    let ranges = futures::stream::iter(starts).map(|start| {
        let store = Arc::clone(store);
        let name = name.clone();
        async move { store.get_range(&name, start..(start + part).min(size)).await }
    });
    let mut pieces = ranges.buffered(job.parallel);
    let mut file = Some(File::create(&job.local)?);
    while let Some(piece) = pieces.try_next().await? {
        let mut taken = file.take().context("the file is given back after each piece")?;
        let write = move || taken.write_all(&piece).map(|()| taken);
        file = Some(tokio::task::spawn_blocking(write).await??);
    }
    Ok(())
}
