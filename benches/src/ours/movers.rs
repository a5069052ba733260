//! Sections `remote` and `folders`: transfers of `storage-core`, to `storage-fs` and `storage-object`.

use anyhow::{Context as _, Result};
use async_trait::async_trait;
use storage_core::{BlobStore, TransferOptions};
use storage_fs::FsDriver;
use storage_object::S3Driver;

use crate::movers::{BLOB, Job, PART, Place, What};
use crate::seaweed::{PASSWORD, REGION, USER};
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

async fn open(job: &Job) -> Result<BlobStore> {
    let backends = match &job.place {
        Place::Folder { dir, fsync } => {
            super::open(&FsDriver, &format!("file://{}", dir.display()), &[("fsync", (*fsync).into())]).await?
        }
        Place::Bucket { endpoint, bucket } => {
            let options = [
                ("endpoint", endpoint.as_str().into()),
                ("region", REGION.into()),
                ("access_key", USER.into()),
                ("secret_key", PASSWORD.into()),
                ("part_mib", (PART >> 20).into()),
                ("concurrency", job.parallel.into()),
                // As OpenDAL and rclone do: the body is not hashed for the signature.
                ("unsigned_payload", true.into()),
            ];
            super::open(&S3Driver, &format!("s3://{bucket}"), &options).await?
        }
    };
    Ok(BlobStore::new(backends.blobs.context("the driver has no blobs")?))
}

fn options(job: &Job) -> TransferOptions {
    TransferOptions { parallel: job.parallel, ..TransferOptions::default() }
}

#[async_trait]
impl MoveSubject for Ours {
    async fn upload(&self, job: &Job) -> Result<()> {
        let store = open(job).await?;
        match job.what {
            What::File => drop(store.upload_file_with(&job.local, BLOB, &options(job)).await?),
            What::Folder => drop(store.upload_dir(&job.local, None, &options(job)).await?),
        }
        Ok(store.close().await?)
    }

    async fn download(&self, job: &Job) -> Result<()> {
        let store = open(job).await?;
        match job.what {
            What::File => drop(store.download_file_with(BLOB, &job.local, &options(job)).await?),
            What::Folder => drop(store.download_dir(None, &job.local, &options(job)).await?),
        }
        Ok(store.close().await?)
    }
}
