//! [`HttpBlobs`]: the files of a folder on a WebDAV server.
//!
//! A write is one `PUT`, which servers such as Apache and nginx write beside the file and rename: readers see the old or the new one. Nothing is
//! moved or copied by the server onto a file that is there, since servers remove that one first. Conditions on writes are not offered: servers look
//! at the file before they write, not as they write, so that two writers may both find their condition true.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use chrono::Utc;
use futures::stream::{BoxStream, StreamExt as _};
use http::StatusCode;
use storage_core::{
    BackendInfo, BlobAttributes, BlobBackend, BlobBody, BlobCapabilities, BlobEntry, BlobMeta, BlobPath, BlobRead, ETag, Error,
    ErrorKind, GetOptions, ListOptions, OpenFlag, PutMode, PutOptions, Result,
};
use uuid::Uuid;

use super::dav::Dav;
use super::list::{self, has_blobs};
use super::put::{self, PIECE};
use crate::remote::pieces::{Pieces, size_of};
use crate::remote::read::{self, Source as _, changed, find_if_there};
use crate::remote::wire::Failure;

/// What the names of folders begin with that were put aside to see whether they are empty.
const ASIDE: &str = ".storage-aside-";
/// How often a delete looks again at a file that changed between look and delete.
const LOOKS: u32 = 8;

/// Blobs in a folder on a WebDAV server. Made by [`HttpDriver`](super::HttpDriver).
pub struct HttpBlobs {
    pub(super) dav: Arc<Dav>,
    pub(super) info: BackendInfo,
    pub(super) capabilities: BlobCapabilities,
    pub(super) open: OpenFlag,
}

impl fmt::Debug for HttpBlobs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpBlobs").field("info", &self.info).finish_non_exhaustive()
    }
}

/// Names that Apache keeps for itself, or that are folders put aside: they never show.
pub(super) fn is_ours(name: &str) -> bool {
    name == ".DAV" || name.starts_with(".davfs.tmp") || name.starts_with(ASIDE)
}

/// What is shown of a file: its mark is not, since no write can be held to it.
pub(super) fn shown(meta: BlobMeta) -> BlobMeta {
    BlobMeta { etag: None, attributes: BlobAttributes::default(), ..meta }
}

fn folder_of(key: &str) -> &str {
    key.rsplit_once('/').map_or("", |(folder, _)| folder)
}

impl HttpBlobs {
    fn key<'a>(&self, path: &'a BlobPath) -> Result<&'a str> {
        if path.segments().any(is_ours) {
            return Err(Error::invalid("WebDAV servers keep this name for themselves").with_backend(&self.info));
        }
        Ok(path.as_str())
    }

    async fn write(&self, key: &str, mut pieces: Pieces) -> Result<u64> {
        let first = pieces.next(PIECE).await?;
        if (first.len() as u64) < PIECE {
            let mut put = self.dav.put(key, first.clone()).await;
            if put.as_ref().is_err_and(is_in_the_way) {
                self.make_room(key).await?;
                put = self.dav.put(key, first).await;
            }
            return match put {
                Ok(()) => Ok(pieces.read()),
                Err(failure) => Err(self.explained(key, failure).await),
            };
        }
        // A body that is on its way can't be sent again: what is in the way is seen to before.
        match self.dav.look(key).await.map_err(Error::from)? {
            Some(entry) if !entry.is_folder => {}
            _ => self.make_room(key).await?,
        }
        match put::stream(&self.dav, key, first, pieces).await {
            Ok(size) => Ok(size),
            Err(failure) => Err(self.explained(key, failure).await),
        }
    }

    /// Makes the folders above, and takes away an empty one that has the name.
    async fn make_room(&self, key: &str) -> Result<()> {
        let folder = folder_of(key);
        if !folder.is_empty() {
            match self.dav.make_folders(folder).await {
                Ok(_) => {}
                Err(failure) => return Err(self.explained(key, failure).await),
            }
        }
        let is_folder = self.dav.look(key).await.map_err(Error::from)?.is_some_and(|entry| entry.is_folder);
        if is_folder { self.take_away(key).await } else { Ok(()) }
    }

    /// Removes a folder if no blob is below it. WebDAV removes folders with all that is in them: so it is put aside first, where nobody writes into it
    /// any more, and comes back if it is not empty.
    async fn take_away(&self, key: &str) -> Result<()> {
        let full = || Error::already_exists("there is a folder with blobs at this path");
        if has_blobs(&self.dav, &format!("{key}/")).await? {
            return Err(full());
        }
        let aside = match folder_of(key) {
            "" => format!("{ASIDE}{}", Uuid::now_v7()),
            folder => format!("{folder}/{ASIDE}{}", Uuid::now_v7()),
        };
        self.dav.move_folder(key, &aside).await.map_err(Error::from)?;
        if !has_blobs(&self.dav, &format!("{aside}/")).await? {
            return self.dav.delete_folder(&aside).await.map_err(Error::from);
        }
        match self.dav.move_folder(&aside, key).await {
            Ok(()) => Err(full()),
            Err(failure) => {
                let error = Error::from(failure);
                Err(Error::internal(format!(
                    "somebody wrote into the folder while it was being replaced; its blobs are now in `{aside}` on the server ({error})"
                )))
            }
        }
    }

    /// Why a write was refused.
    async fn explained(&self, key: &str, failure: Failure) -> Error {
        if failure.status().is_none_or(|_| is_in_the_way(&failure))
            && let Ok(Some(above)) = self.dav.file_above(key).await
        {
            return Error::already_exists(format!("there is a blob at `{above}`: none can be below it on this backend"));
        }
        if failure.status() == Some(StatusCode::PAYLOAD_TOO_LARGE) {
            return Error::invalid(
                "the server takes no file of this size: see LimitRequestBody of Apache, client_max_body_size of nginx",
            );
        }
        if failure.status() == Some(StatusCode::INSUFFICIENT_STORAGE) {
            return Error::unavailable("the server's disk is full, or the quota is used up");
        }
        failure.into()
    }
}

/// A folder is missing above, or something stands where the file is to be.
fn is_in_the_way(failure: &Failure) -> bool {
    let status = failure.status().map(|status| status.as_u16());
    status.is_some_and(|status| matches!(status, 400 | 403 | 404 | 405 | 409 | 500))
}

#[async_trait]
impl BlobBackend for HttpBlobs {
    fn info(&self) -> &BackendInfo {
        &self.info
    }

    fn capabilities(&self) -> &BlobCapabilities {
        &self.capabilities
    }

    async fn create_container(&self) -> Result<bool> {
        self.open.check()?;
        self.dav.make_folders("").await.map_err(|e| Error::from(e).with_backend(&self.info))
    }

    async fn put(&self, path: &BlobPath, body: BlobBody, _options: &PutOptions) -> Result<BlobMeta> {
        self.open.check()?;
        let put = async {
            let size = size_of(&body)?;
            self.write(self.key(path)?, Pieces::new(body.into_stream(), size)).await
        };
        let size = put.await.map_err(|e: Error| e.with_backend(&self.info))?;
        Ok(BlobMeta { path: path.clone(), size, modified_at: Utc::now(), etag: None, attributes: BlobAttributes::default() })
    }

    async fn get(&self, path: &BlobPath, options: &GetOptions) -> Result<BlobRead> {
        self.open.check()?;
        let get = async {
            let key = self.key(path)?;
            match read::get(&*self.dav, (path, key), options).await {
                // A folder sends elsewhere, or is refused.
                Err(error) if matches!(error.kind(), ErrorKind::Config | ErrorKind::Unsupported | ErrorKind::Conflict) => {
                    self.dav.find(key).await.map_err(Error::from)?;
                    Err(error)
                }
                read => read,
            }
        };
        let mut read = get.await.map_err(|e: Error| e.with_backend(&self.info))?;
        read.meta = shown(read.meta);
        Ok(read)
    }

    async fn head(&self, path: &BlobPath) -> Result<BlobMeta> {
        self.open.check()?;
        let head = async { self.dav.find(self.key(path)?).await.map_err(Error::from) };
        Ok(shown(head.await.map_err(|e| e.with_backend(&self.info))?.into_meta(path)))
    }

    async fn delete(&self, path: &BlobPath, _if_match: Option<&ETag>) -> Result<bool> {
        self.open.check()?;
        let delete = async {
            let key = self.key(path)?;
            for _ in 0..LOOKS {
                let Some(found) = find_if_there(&*self.dav, key).await? else { return Ok(false) };
                match self.dav.delete(key, &found).await {
                    Ok(()) => return Ok(true),
                    // Gone since the look: by somebody else, or by this very request, of which the answer was lost.
                    Err(failure) if failure.is_missing() => return Ok(true),
                    Err(failure) if failure.is(StatusCode::PRECONDITION_FAILED) => {}
                    Err(failure) => return Err(failure.into()),
                }
            }
            Err(changed())
        };
        delete.await.map_err(|e: Error| e.with_backend(&self.info))
    }

    /// Through here: the server would write over the target in place.
    async fn copy(&self, from: &BlobPath, to: &BlobPath, _mode: &PutMode) -> Result<BlobMeta> {
        self.open.check()?;
        let copy = async {
            let (source, target) = (self.key(from)?, self.key(to)?);
            if source == target {
                return Ok(self.dav.find(source).await.map_err(Error::from)?.into_meta(to));
            }
            let read = self.get(from, &GetOptions::default()).await?;
            let size = read.meta.size;
            self.write(target, Pieces::new(read.into_stream(), Some(size))).await?;
            Ok(BlobMeta { path: to.clone(), size, modified_at: Utc::now(), etag: None, attributes: BlobAttributes::default() })
        };
        copy.await.map(shown).map_err(|e: Error| e.with_backend(&self.info))
    }

    fn list(&self, options: &ListOptions) -> BoxStream<'static, Result<BlobEntry>> {
        if let Err(error) = self.open.check() {
            return futures::stream::once(async { Err(error) }).boxed();
        }
        let info = self.info.clone();
        let entries = list::entries(Arc::clone(&self.dav), options.clone());
        entries.map(move |entry| entry.map_err(|e| e.with_backend(&info))).boxed()
    }

    fn uri(&self, path: &BlobPath) -> String {
        self.dav.url(path.as_str())
    }

    async fn ping(&self) -> Result<()> {
        self.open.check()?;
        match self.dav.look("").await {
            Ok(Some(entry)) if entry.is_folder => Ok(()),
            Ok(_) => Err(Error::new(ErrorKind::NotFound, "the server has no such folder").with_backend(&self.info)),
            Err(failure) => Err(Error::from(failure).with_backend(&self.info)),
        }
    }

    async fn close(&self) -> Result<()> {
        self.open.close();
        Ok(())
    }
}
