//! How files are transferred, and what came of it.

use std::fmt;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use super::meter::ProgressFn;
use crate::{Error, PutOptions};

/// Which files of a folder are left out, since they are at their target already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Skip {
    /// None: all are transferred.
    #[default]
    Nothing,
    /// Those of the same size that have not been written since. An upload compares the file's time with the blob's, which is that of its last write; a
    /// download gives the file the blob's time, and looks for it the next time.
    Unchanged,
    /// Those of the same size, whatever their times.
    SameSize,
    /// Those of the same content. Where the sizes are the same, both sides are read.
    SameContent,
}

/// Is asked about a path below the folder, `/`-separated: `true` where it takes part. A folder's path ends with a slash; `false` for it leaves out everything
/// below, without looking.
pub type PathFilter = Arc<dyn Fn(&str) -> bool + Send + Sync>;

/// What was done with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileAction {
    /// It was written at the other side, or with [`dry_run`](TransferOptions::dry_run) would have been.
    Written,
    /// It was there already.
    Skipped,
    /// It was removed at the other side, or with [`dry_run`](TransferOptions::dry_run) would have been.
    Removed,
}

impl FileAction {
    /// `written`, `skipped`, `removed`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Written => "written",
            Self::Skipped => "skipped",
            Self::Removed => "removed",
        }
    }
}

/// One file of a transfer that is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileDone {
    /// Its path below the folder, or the blob's.
    pub path: String,
    /// What was done with it.
    pub action: FileAction,
    /// How many bytes it has; 0 for a removed file.
    pub bytes: u64,
}

/// Is told of every file that is done, one after the other, and should return at once.
pub type EachFn = Arc<dyn Fn(&FileDone) + Send + Sync>;

/// How files are transferred.
#[derive(Clone)]
pub struct TransferOptions {
    /// How many files, or parts of files, are under way at once. The memory used is bounded by this times 8 MiB, for each way.
    pub parallel: usize,
    /// Of folders: which files are left out, since they are there already.
    pub skip: Skip,
    /// Of folders: which files take part. `None`: all.
    pub filter: Option<PathFilter>,
    /// Of folders: when everything is transferred, what the source does not have is removed at the target. Not after a failure; and what the filter leaves out
    /// stays.
    pub delete: bool,
    /// Nothing is written or removed: the report says what would be.
    pub dry_run: bool,
    /// A file that can't be transferred does not keep the others from it: it ends up in the [report](TransferReport::failures). Otherwise the first such file
    /// ends the transfer with its error.
    pub keep_going: bool,
    /// Of copies between stores: a blob that was copied is removed at its source, if nobody has written it meanwhile.
    pub remove_source: bool,
    /// How many bytes move in a second at most, of all files together and on average: what a backend sends in parts may go a part at once. `None`: as many as
    /// can.
    pub bytes_per_second: Option<NonZeroU64>,
    /// Is told how far it has come.
    pub progress: Option<ProgressFn>,
    /// Is told of every file that is done.
    pub each: Option<EachFn>,
    /// For uploads and copies: mode and attributes. A copy for which none are given keeps the blob's.
    pub put: PutOptions,
}

impl Default for TransferOptions {
    /// 4 at once, everything, ended by the first failure, no reports.
    fn default() -> Self {
        Self {
            parallel: 4,
            skip: Skip::Nothing,
            filter: None,
            delete: false,
            dry_run: false,
            keep_going: false,
            remove_source: false,
            bytes_per_second: None,
            progress: None,
            each: None,
            put: PutOptions::default(),
        }
    }
}

impl fmt::Debug for TransferOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TransferOptions")
            .field("parallel", &self.parallel)
            .field("skip", &self.skip)
            .field("filter", &self.filter.is_some())
            .field("delete", &self.delete)
            .field("dry_run", &self.dry_run)
            .field("keep_going", &self.keep_going)
            .field("remove_source", &self.remove_source)
            .field("bytes_per_second", &self.bytes_per_second)
            .field("progress", &self.progress.is_some())
            .field("each", &self.each.is_some())
            .field("put", &self.put)
            .finish()
    }
}

/// How many errors a report holds; the others are counted.
pub(super) const MAX_FAILURES: usize = 1000;

/// What a transfer of several files did.
#[derive(Debug, Default)]
#[must_use = "with `keep_going` it may tell of failures"]
pub struct TransferReport {
    /// Files moved.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files left out, since they were there already.
    pub skipped: u64,
    /// Files removed at the target, since the source does not have them.
    pub removed: u64,
    /// Files that could not be transferred.
    pub failed: u64,
    /// Why: the first 1,000 errors.
    pub failures: Vec<Error>,
    /// How long it took.
    pub elapsed: Duration,
}

impl TransferReport {
    /// The two together: of transfers one after the other.
    pub fn and(mut self, other: Self) -> Self {
        self.files += other.files;
        self.bytes += other.bytes;
        self.skipped += other.skipped;
        self.removed += other.removed;
        self.failed += other.failed;
        let room = MAX_FAILURES.saturating_sub(self.failures.len());
        self.failures.extend(other.failures.into_iter().take(room));
        self.elapsed += other.elapsed;
        self
    }
}
