//! Encrypting old blobs with the current key.

use std::sync::Arc;

use futures::stream::TryStreamExt as _;
use storage_core::{
    BlobBackend as _, BlobBody, BlobEntry, BlobPath, ErrorKind, GetOptions, ListOptions, PutMode, PutOptions, Result,
};

use super::EncryptedBlobs;
use crate::transform::wrap;

/// What to rotate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RotationOptions {
    /// Blobs below this path. `None`: all.
    pub prefix: Option<BlobPath>,
    /// Only blobs that sort behind this path: where an earlier rotation ended.
    pub start_after: Option<BlobPath>,
}

/// What a rotation did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RotationReport {
    /// Blobs looked at.
    pub checked: u64,
    /// Blobs that were encrypted anew.
    pub rotated: u64,
    /// Of these, the ones that were not encrypted before.
    pub were_plain: u64,
    /// Blobs that somebody wrote or removed meanwhile: what is there now is encrypted with the writer's current key.
    pub changed: u64,
    /// Bytes of blobs encrypted anew.
    pub bytes: u64,
}

impl EncryptedBlobs {
    /// Encrypts with the current key what is not: blobs under previous keys and, where [plain ones](super::PlainBlobs::Allow) are allowed, those. Attributes stay.
    ///
    /// Each blob is replaced whole, if nobody wrote it meanwhile. A rotation that is broken off is called again: blobs that are done cost it a look at the header.
    /// Once it reports no more `rotated`, previous keys can go, if all writers have the current one.
    ///
    /// # Errors
    /// [`Unsupported`](ErrorKind::Unsupported) where the backend has no conditional writes. The first blob's that can't be read or written: it is named.
    pub async fn rotate(&self, options: &RotationOptions) -> Result<RotationReport> {
        let core = &self.core;
        storage_core::require(core.capabilities.conditional, &core.info, "conditional writes, which a rotation needs")?;
        let listed = ListOptions { prefix: options.prefix.clone(), one_level: false, start_after: options.start_after.clone() };
        let mut entries = Arc::clone(&core.inner).list(&listed);
        let mut report = RotationReport::default();
        while let Some(entry) = entries.try_next().await? {
            let BlobEntry::Blob(found) = entry else { continue };
            report.checked += 1;
            match self.rotate_one(&found.path, &mut report).await {
                Ok(()) => {}
                Err(error) if matches!(error.kind(), ErrorKind::Conflict | ErrorKind::NotFound) => report.changed += 1,
                Err(error) => return Err(wrap::explain(&core.info, "blobs.rotate", &found.path)(error)),
            }
        }
        Ok(report)
    }

    async fn rotate_one(&self, path: &BlobPath, report: &mut RotationReport) -> Result<()> {
        let core = &self.core;
        let (meta, header) = core.look(path).await?;
        if header.as_ref().is_some_and(|header| header.key_id() == core.keys.current().id()) {
            return Ok(());
        }
        let Some(etag) = meta.etag else { return Ok(()) };
        let read = core.get(path, &GetOptions::default().if_match(Some(etag.clone()))).await?;
        let options = PutOptions { mode: PutMode::Update(etag), attributes: read.meta.attributes.clone() };
        let size = read.meta.size;
        let body = BlobBody::Stream { stream: read.into_stream(), size: Some(size) };
        self.put(path, body, &options).await?;
        report.rotated += 1;
        report.were_plain += u64::from(header.is_none());
        report.bytes += size;
        Ok(())
    }
}
