//! How far a transfer has come.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// How far a transfer has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes moved so far, those of an earlier, broken run included.
    pub bytes: u64,
    /// Bytes in all, as far as known.
    pub total_bytes: u64,
    /// Files finished.
    pub files: u64,
    /// Files in all, as far as known.
    pub total_files: u64,
}

/// Is told how far a transfer has come, from any thread, and should return at once.
pub type ProgressFn = Arc<dyn Fn(Progress) + Send + Sync>;

/// Counts what several tasks move, and reports it.
#[derive(Clone)]
pub(super) struct Meter {
    counts: Arc<[AtomicU64; 4]>,
    report: Option<ProgressFn>,
}

impl Meter {
    pub(super) fn new(report: Option<ProgressFn>) -> Self {
        Self { counts: Arc::default(), report }
    }

    /// True where somebody wants to know of every piece.
    pub(super) fn is_watched(&self) -> bool {
        self.report.is_some()
    }

    fn add(&self, by: Progress) {
        let Some(report) = &self.report else { return };
        let [bytes, total_bytes, files, total_files] = &*self.counts;
        let add = |count: &AtomicU64, n: u64| count.fetch_add(n, Ordering::Relaxed) + n;
        report(Progress {
            bytes: add(bytes, by.bytes),
            total_bytes: add(total_bytes, by.total_bytes),
            files: add(files, by.files),
            total_files: add(total_files, by.total_files),
        });
    }

    pub(super) fn expect(&self, files: u64, bytes: u64) {
        self.add(Progress { total_files: files, total_bytes: bytes, ..Progress::default() });
    }

    pub(super) fn moved(&self, bytes: u64) {
        self.add(Progress { bytes, ..Progress::default() });
    }

    pub(super) fn finished(&self) {
        self.add(Progress { files: 1, ..Progress::default() });
    }

    /// A file that is there already counts as moved.
    pub(super) fn skipped(&self, bytes: u64) {
        self.add(Progress { bytes, files: 1, ..Progress::default() });
    }
}
