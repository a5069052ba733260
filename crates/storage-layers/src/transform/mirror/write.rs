//! Writing to all copies, the primary first.

use bytes::Bytes;
use storage_core::{BlobBackend, BlobBody, BlobMeta, BlobPath, ETag, Error, ErrorKind, GetOptions, PutMode, PutOptions, Result};

use super::{Core, owner};

/// A mode that the primary can decide.
fn decidable(mode: &PutMode) -> Result<()> {
    match mode {
        PutMode::Update(mark) if owner(mark).0 > 0 => Err(Error::conflict(
            "the mark is of another copy than the primary, which could not be read from then: read again, or repair the mirror",
        )),
        _ => Ok(()),
    }
}

/// Writes what `from` has at `path` to `to`. `None`: there is nothing any more, or it was replaced.
pub(super) async fn bring(
    from: &dyn BlobBackend,
    to: &dyn BlobBackend,
    path: &BlobPath,
    mark: Option<&ETag>,
    mode: PutMode,
) -> Result<Option<BlobMeta>> {
    let read = match from.get(path, &GetOptions::default().if_match(mark.cloned())).await {
        Ok(read) => read,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Conflict) => return Ok(None),
        Err(error) => return Err(error),
    };
    let options = PutOptions { mode, attributes: read.meta.attributes.clone() };
    let size = Some(read.meta.size);
    let body = BlobBody::Stream { stream: read.into_stream(), size };
    to.put(path, body, &options).await.map(Some)
}

/// What is brought to the other copies.
enum Over {
    /// These bytes.
    Bytes(Bytes, PutOptions),
    /// What the primary has, if it still has this mark.
    Primary(Option<ETag>),
}

impl Core {
    pub(super) async fn put(&self, path: &BlobPath, body: BlobBody, options: &PutOptions) -> Result<BlobMeta> {
        decidable(&options.mode)?;
        let bytes = match &body {
            BlobBody::Bytes(bytes) => Some(bytes.clone()),
            _ => None,
        };
        let meta = self.primary().put(path, body, options).await?;
        let _turn = self.turn(path).await;
        if let Some(bytes) = bytes.filter(|_| meta.etag.is_some()) {
            // Who wrote the primary later brings that over.
            match self.primary().head(path).await {
                Ok(now) if now.etag == meta.etag => {}
                _ => return Ok(meta),
            }
            let options = PutOptions { mode: PutMode::Overwrite, attributes: options.attributes.clone() };
            self.everywhere(path, &Over::Bytes(bytes, options)).await?;
            return Ok(meta);
        }
        self.everywhere(path, &Over::Primary(meta.etag.clone())).await?;
        Ok(meta)
    }

    pub(super) async fn copy(&self, from: &BlobPath, to: &BlobPath, mode: &PutMode) -> Result<BlobMeta> {
        decidable(mode)?;
        let meta = match self.primary().copy(from, to, mode).await {
            Err(error) if error.kind() == ErrorKind::NotFound => self.copy_of_other(from, to, mode, error).await?,
            copied => copied?,
        };
        let _turn = self.turn(to).await;
        self.everywhere(to, &Over::Primary(meta.etag.clone())).await?;
        Ok(meta)
    }

    /// Copies a blob to the primary that only another copy has.
    async fn copy_of_other(&self, from: &BlobPath, to: &BlobPath, mode: &PutMode, missing: Error) -> Result<BlobMeta> {
        let read = match self.get(from, &GetOptions::default()).await {
            Err(error) if error.kind() == ErrorKind::NotFound => return Err(missing),
            read => read?,
        };
        let options = PutOptions { mode: mode.clone(), attributes: read.meta.attributes.clone() };
        let size = Some(read.meta.size);
        self.primary().put(to, BlobBody::Stream { stream: read.into_stream(), size }, &options).await
    }

    async fn bring_over(&self, copy: &dyn BlobBackend, path: &BlobPath, over: &Over) -> Result<()> {
        match over {
            Over::Bytes(bytes, options) => copy.put(path, BlobBody::Bytes(bytes.clone()), options).await.map(drop),
            Over::Primary(mark) => bring(&**self.primary(), copy, path, mark.as_ref(), PutMode::Overwrite).await.map(drop),
        }
    }

    /// Brings a blob to the other copies. An error where too few are reached.
    async fn everywhere(&self, path: &BlobPath, over: &Over) -> Result<()> {
        let bringing: Vec<_> = self.others().map(|(_, copy)| self.bring_over(&**copy, path, over)).collect();
        let outcomes = futures::future::join_all(bringing).await;
        let reached = 1 + outcomes.iter().filter(|outcome| outcome.is_ok()).count();
        let enough = reached >= self.require.count(self.copies.len());
        let mut lacking = Ok(());
        for ((index, copy), outcome) in self.others().zip(outcomes) {
            let Err(error) = outcome else { continue };
            let place = copy.info();
            if enough {
                tracing::warn!(blob = %path, copy = %place, %error, "a copy of the mirror lacks a blob until it is repaired");
                continue;
            }
            let message = format!(
                "copy {index} of the mirror ({place}) lacks what was written to the primary, {reached} of {} copies have it: write again, or repair the mirror: {}",
                self.copies.len(),
                error.message()
            );
            lacking = lacking.and(Err(Error::new(error.kind(), message).with_source(error)));
        }
        lacking
    }

    pub(super) async fn delete(&self, path: &BlobPath, if_match: Option<&ETag>) -> Result<bool> {
        let _turn = self.turn(path).await;
        if let Some(mark) = if_match {
            decidable(&PutMode::Update(mark.clone()))?;
            let now = match self.primary().head(path).await {
                Ok(meta) => meta.etag,
                Err(error) if error.kind() == ErrorKind::NotFound => None,
                Err(error) => return Err(error),
            };
            if now.as_ref() != Some(mark) {
                return Err(Error::conflict(format!("expected mark {mark}: somebody else wrote or removed it")));
            }
        }
        let mut there = false;
        for (index, copy) in self.others() {
            there |= copy.delete(path, None).await.map_err(|error| {
                let place = copy.info();
                let message = format!(
                    "copy {index} of the mirror ({place}) could not delete, so that the primary did not: {}",
                    error.message()
                );
                Error::new(error.kind(), message).with_source(error)
            })?;
        }
        Ok(self.primary().delete(path, if_match).await? || there)
    }
}
