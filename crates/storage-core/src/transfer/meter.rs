//! How far a transfer has come.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::pace::Pace;

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

/// Counts what several tasks move, reports it, and holds it to a rate.
#[derive(Clone)]
pub(super) struct Meter {
    counts: Arc<[AtomicU64; 4]>,
    report: Option<ProgressFn>,
    pace: Option<Arc<Pace>>,
}

impl Meter {
    pub(super) fn new(report: Option<ProgressFn>, bytes_per_second: Option<NonZeroU64>) -> Self {
        Self { counts: Arc::default(), report, pace: bytes_per_second.map(|rate| Arc::new(Pace::new(rate))) }
    }

    /// True where every piece has to come by here.
    pub(super) fn sees_pieces(&self) -> bool {
        self.report.is_some() || self.pace.is_some()
    }

    /// Waits until these bytes may move.
    pub(super) async fn pace(&self, bytes: u64) {
        if let Some(pace) = &self.pace {
            pace.wait(bytes).await;
        }
    }

    /// How many bytes to move at once, `most` where nothing holds them back.
    pub(super) fn piece(&self, most: u64) -> u64 {
        self.pace.as_ref().map_or(most, |pace| pace.piece().min(most))
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
