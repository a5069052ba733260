//! Sections `remote` and `folders`: transfers of `storage-core`, to `storage-fs`.

use anyhow::{Context as _, Result, bail};
use async_trait::async_trait;
use storage_core::{BlobStore, TransferOptions};
use storage_fs::FsDriver;

use crate::movers::{BLOB, Job, Place, What};
use crate::subject::{MoveSubject, Named, Role};

/// The toolkit's transfers.
pub fn subject() -> Option<Box<dyn MoveSubject>> {
    Some(Box::new(Ours))
}

struct Ours;

impl Named for Ours {
    fn name(&self) -> String {
        "storage".to_owned()
    }

    fn role(&self) -> Role {
        Role::Ours
    }

    fn note(&self) -> String {
        "a download is always on the disk when it returns".to_owned()
    }
}

async fn open(place: &Place) -> Result<BlobStore> {
    let Place::Folder { dir, fsync } = place else { bail!("storage-object can't be opened yet") };
    let backends = super::open(&FsDriver, &format!("file://{}", dir.display()), &[("fsync", (*fsync).into())]).await?;
    Ok(BlobStore::new(backends.blobs.context("the driver has no blobs")?))
}

fn options(job: &Job) -> TransferOptions {
    TransferOptions { parallel: job.parallel, ..TransferOptions::default() }
}

#[async_trait]
impl MoveSubject for Ours {
    fn unable(&self, _what: What, to_bucket: bool) -> Option<String> {
        to_bucket.then(|| "storage-object can't be opened yet".to_owned())
    }

    async fn upload(&self, job: &Job) -> Result<()> {
        let store = open(&job.place).await?;
        match job.what {
            What::File => drop(store.upload_file_with(&job.local, BLOB, &options(job)).await?),
            What::Folder => drop(store.upload_dir(&job.local, None, &options(job)).await?),
        }
        Ok(store.close().await?)
    }

    async fn download(&self, job: &Job) -> Result<()> {
        let store = open(&job.place).await?;
        match job.what {
            What::File => drop(store.download_file_with(BLOB, &job.local, &options(job)).await?),
            What::Folder => drop(store.download_dir(None, &job.local, &options(job)).await?),
        }
        Ok(store.close().await?)
    }
}
