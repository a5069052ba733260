//! Bringing all copies to what the first has that has it.

use futures::stream::TryStreamExt as _;
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use storage_core::{BlobAttributes, BlobBackend, BlobMeta, BlobPath, Error, ErrorKind, GetOptions, ListOptions, PutMode, Result};

use super::list::{Rows, blob};
use super::write::bring;
use super::{Core, Mirror};

/// So many failures are reported with their messages; the others are counted.
const MAX_FAILURES: usize = 100;

/// What to repair, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RepairOptions {
    /// Blobs below this path. `None`: all.
    pub prefix: Option<BlobPath>,
    /// Only blobs that sort behind this path: the `last` of a repair that was broken off.
    pub start_after: Option<BlobPath>,
    /// Takes blobs of equal size for equal, without reading them.
    pub sizes_only: bool,
}

/// What a repair found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RepairReport {
    /// Blobs compared.
    pub checked: u64,
    /// Blobs brought to a copy that lacked them.
    pub missing: u64,
    /// Blobs brought to a copy that had other content or attributes.
    pub different: u64,
    /// Bytes brought over.
    pub bytes: u64,
    /// Blobs that somebody wrote or removed meanwhile, which were left to them.
    pub changed: u64,
    /// Blobs that could not be compared or brought over.
    pub failed: u64,
    /// The first 100 of these.
    pub failures: Vec<RepairFailure>,
    /// The last blob that was looked at: where to start after next time.
    pub last: Option<BlobPath>,
}

/// A blob that could not be repaired.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RepairFailure {
    /// The blob.
    pub path: BlobPath,
    /// The number of the copy, the primary being 0.
    pub copy: usize,
    /// Why.
    pub error: String,
}

impl RepairReport {
    fn fail(&mut self, path: &BlobPath, copy: usize, error: &Error) {
        self.failed += 1;
        if self.failures.len() < MAX_FAILURES {
            self.failures.push(RepairFailure { path: path.clone(), copy, error: error.to_string() });
        }
    }
}

/// What a blob is, whole.
#[derive(PartialEq, Eq)]
struct Content {
    hash: [u8; 32],
    attributes: BlobAttributes,
}

impl Content {
    async fn of(copy: &dyn BlobBackend, meta: &BlobMeta) -> Result<Self> {
        let read = copy.get(&meta.path, &GetOptions::default().if_match(meta.etag.clone())).await?;
        let attributes = read.meta.attributes.clone();
        let mut hash = Sha256::new();
        let mut stream = read.into_stream();
        while let Some(piece) = stream.try_next().await? {
            hash.update(&piece);
        }
        Ok(Self { hash: hash.finalize().into(), attributes })
    }
}

impl Mirror {
    /// Compares all copies by size, content (SHA-256) and attributes, and brings what is missing or differs from the first copy that has it to the others. In bounded memory; blobs
    /// that somebody writes meanwhile are left to them. A blob that can't be repaired is reported, and the repair goes on.
    ///
    /// # Errors
    /// Those of listing: here every copy has to be reachable.
    pub async fn repair(&self, options: &RepairOptions) -> Result<RepairReport> {
        let core = &self.core;
        let listed = ListOptions { prefix: options.prefix.clone(), one_level: false, start_after: options.start_after.clone() };
        let mut rows = Rows::new(&core.copies, &listed, false);
        let mut report = RepairReport::default();
        while let Some(row) = rows.next().await.map_err(|e| e.with_operation("blobs.repair").with_backend(&core.info))? {
            report.checked += 1;
            report.last = BlobPath::new(row.key).ok();
            core.repair_row(row.entries.into_iter().map(blob).collect(), options, &mut report).await;
        }
        Ok(report)
    }
}

impl Core {
    async fn repair_row(&self, found: Vec<Option<BlobMeta>>, options: &RepairOptions, report: &mut RepairReport) {
        let Some((first, source)) = found.iter().enumerate().find_map(|(index, meta)| Some((index, meta.as_ref()?))) else {
            return;
        };
        let mut content = None;
        for (index, meta) in found.iter().enumerate().filter(|(index, _)| *index != first) {
            let outcome = self.repair_copy(first, source, index, meta.as_ref(), options, &mut content, report).await;
            match outcome {
                Ok(()) => {}
                Err(error) if matches!(error.kind(), ErrorKind::Conflict | ErrorKind::AlreadyExists | ErrorKind::NotFound) => {
                    report.changed += 1;
                }
                Err(error) => report.fail(&source.path, index, &error),
            }
        }
    }

    #[allow(clippy::too_many_arguments, reason = "one step of one loop")]
    async fn repair_copy(
        &self,
        first: usize,
        source: &BlobMeta,
        index: usize,
        found: Option<&BlobMeta>,
        options: &RepairOptions,
        content: &mut Option<Content>,
        report: &mut RepairReport,
    ) -> Result<()> {
        let (from, to) = (&*self.copies[first], &*self.copies[index]);
        if let Some(found) = found.filter(|found| found.size == source.size) {
            if options.sizes_only {
                return Ok(());
            }
            let expected = match content {
                Some(content) => content,
                none => none.insert(Content::of(from, source).await?),
            };
            if Content::of(to, found).await? == *expected {
                return Ok(());
            }
        }
        let mode = match found.map(|found| found.etag.clone()) {
            Some(Some(etag)) if to.capabilities().conditional => PutMode::Update(etag),
            None if to.capabilities().create => PutMode::Create,
            _ => PutMode::Overwrite,
        };
        let _turn = self.turn(&source.path).await;
        if bring(from, to, &source.path, source.etag.as_ref(), mode).await?.is_none() {
            report.changed += 1;
            return Ok(());
        }
        report.bytes += source.size;
        match found {
            Some(_) => report.different += 1,
            None => report.missing += 1,
        }
        Ok(())
    }
}
