//! Getting written files to the disk before anybody has to wait for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::base::Base;
use crate::journal::Journal;
use crate::state::State;

/// A flush of everything that is going on beside the writer. A checkpoint that follows it has little left to wait for under the lock.
#[derive(Debug, Default)]
pub(crate) struct Flush {
    /// The era that it is for.
    era: Option<u64>,
    done: Arc<AtomicBool>,
}

impl Flush {
    /// True once the files of this era have been flushed. The first question sets it going.
    pub(crate) fn is_done(&mut self, base: &Arc<Base>, state: &State) -> bool {
        if state.durable == 0 {
            return true;
        }
        if self.era == Some(state.era) {
            return self.done.load(Ordering::Acquire);
        }
        let done = Arc::new(AtomicBool::new(false));
        (self.era, self.done) = (Some(state.era), Arc::clone(&done));
        let base = Arc::clone(base);
        let started = std::thread::Builder::new().name("storage-fs-flush".into()).spawn(move || {
            let journal = Journal::open(&base.path("_storage/journal"));
            let flushed = journal.and_then(|journal| base.sync_all(&journal));
            // The checkpoint does it again, and tells.
            flushed.unwrap_or_else(|error| tracing::debug!(%error, "flush failed"));
            done.store(true, Ordering::Release);
        });
        if started.is_err() {
            self.done.store(true, Ordering::Release);
        }
        false
    }
}
