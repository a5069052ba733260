//! Whether a file and a blob hold the same bytes.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use futures::stream::TryStreamExt;

use super::local::{blocking, file_subject};
use crate::{BlobPath, BlobStore, GetOptions, Result, ResultExt};

/// Reads both until they differ.
pub(super) async fn same_content(store: &BlobStore, path: &BlobPath, local: &Path) -> Result<bool> {
    let owned = local.to_owned();
    let opened = blocking(move || Ok(File::open(&owned)?));
    let mut file = opened.await.context("blobs.compare", || file_subject(local))?;
    let mut pieces = store.get_with(path, &GetOptions::default()).await?.into_stream();
    while let Some(piece) = pieces.try_next().await? {
        let compared = blocking(move || {
            let mut bytes = vec![0; piece.len()];
            match file.read_exact(&mut bytes) {
                Ok(()) => Ok((bytes == piece, file)),
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok((false, file)),
                Err(error) => Err(error.into()),
            }
        });
        let (same, back) = compared.await.context("blobs.compare", || file_subject(local))?;
        if !same {
            return Ok(false);
        }
        file = back;
    }
    let at_end = blocking(move || Ok(file.read(&mut [0])? == 0));
    at_end.await.context("blobs.compare", || file_subject(local))
}
