//! The baseline: what `cp` does (the kernel copies), then fsync of the file and its folder.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use async_trait::async_trait;

use crate::subject::{BlobSubject, Named, Role};

#[derive(Default)]
pub(super) struct Copy {
    dir: PathBuf,
}

impl Named for Copy {
    fn name(&self) -> String {
        "copy + fsync".to_owned()
    }

    fn role(&self) -> Role {
        Role::Baseline
    }
}

#[async_trait]
impl BlobSubject for Copy {
    async fn open(&mut self, dir: &Path) -> Result<()> {
        self.dir = dir.to_owned();
        Ok(())
    }

    async fn upload(&self, from: &Path, name: &str) -> Result<()> {
        copy(from.to_owned(), self.dir.join(name)).await
    }

    async fn download(&self, name: &str, to: &Path) -> Result<()> {
        copy(self.dir.join(name), to.to_owned()).await
    }

    async fn put(&self, name: &str, bytes: Vec<u8>) -> Result<()> {
        let path = self.dir.join(name);
        fs::create_dir_all(path.parent().context("a blob needs a folder")?)?;
        Ok(fs::write(path, bytes)?)
    }

    async fn get_all(&self, names: Vec<String>) -> Result<usize> {
        let dir = self.dir.clone();
        let read = move || names.iter().try_fold(0, |sum, name| Ok(sum + fs::read(dir.join(name))?.len()));
        tokio::task::spawn_blocking(read).await?
    }
}

async fn copy(from: PathBuf, to: PathBuf) -> Result<()> {
    tokio::task::spawn_blocking(move || {
        fs::copy(&from, &to)?;
        File::open(&to)?.sync_all()?;
        Ok(File::open(to.parent().context("a file needs a folder")?)?.sync_all()?)
    })
    .await?
}
