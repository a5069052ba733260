//! The peer: OpenDAL.

use std::fs::File;
use std::io::{Read, Write};

use anyhow::{Context as _, Result};
use async_trait::async_trait;
use futures::TryStreamExt as _;
use opendal::{Operator, services};

use super::child::sync_file;
use super::{BLOB, Job, PART, Place, What};
use crate::seaweed::{PASSWORD, REGION, USER};
use crate::subject::{MoveSubject, Named, Role};

pub(super) struct OpenDal;

impl Named for OpenDal {
    fn name(&self) -> String {
        "OpenDAL 0.59".to_owned()
    }

    fn role(&self) -> Role {
        Role::Peer
    }

    fn note(&self) -> String {
        "a writer and a reader with its own options for parts and concurrency; in a folder it writes in place and syncs each file, but \
         not the folder"
            .to_owned()
    }
}

#[async_trait]
impl MoveSubject for OpenDal {
    fn unable(&self, what: What, _to_bucket: bool) -> Option<String> {
        (what == What::Folder).then(|| "has no call for a folder".to_owned())
    }

    async fn upload(&self, job: &Job) -> Result<()> {
        let store = open(&job.place)?;
        let mut writer = match job.place {
            // The only setting of a folder: parts are written one after the other.
            Place::Folder { .. } => store.writer(BLOB).await?,
            Place::Bucket { .. } => store.writer_with(BLOB).chunk(PART).concurrent(job.parallel).await?,
        };
        let mut file = File::open(&job.local)?;
        loop {
            let mut piece = Vec::with_capacity(PART);
            // Read on this thread: the file is in the page cache.
            let count = Read::by_ref(&mut file).take(PART as u64).read_to_end(&mut piece)?;
            if count == 0 {
                break;
            }
            writer.write(piece).await?;
        }
        writer.close().await?;
        Ok(())
    }

    async fn download(&self, job: &Job) -> Result<()> {
        let store = open(&job.place)?;
        let size = store.stat(BLOB).await?.content_length();
        let reader = store.reader_with(BLOB).chunk(PART).concurrent(job.parallel).await?;
        let mut pieces = reader.into_stream(0..size).await?;
        let mut file = Some(File::create(&job.local)?);
        while let Some(piece) = pieces.try_next().await? {
            let mut taken = file.take().context("the file is given back after each piece")?;
            let write = move || -> std::io::Result<File> {
                for bytes in piece {
                    taken.write_all(&bytes)?;
                }
                Ok(taken)
            };
            file = Some(tokio::task::spawn_blocking(write).await??);
        }
        sync_file(&job.local).await
    }
}

fn open(place: &Place) -> Result<Operator> {
    opendal::install_default();
    Ok(match place {
        Place::Folder { dir, .. } => Operator::new(services::Fs::default().root(dir.to_str().context("a path of text")?))?,
        Place::Bucket { endpoint, bucket } => {
            let s3 = services::S3::default().endpoint(endpoint).bucket(bucket).region(REGION);
            Operator::new(s3.access_key_id(USER).secret_access_key(PASSWORD).disable_config_load().disable_ec2_metadata())?
        }
    })
}
