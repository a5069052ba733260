//! What a cache counts.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use storage_core::{CacheStats, RemovalCause, Removals};

/// Is told of values that are no longer kept, and why: on whichever thread that comes up, after the fact, and briefly.
pub type OnRemoval = Arc<dyn Fn(&str, RemovalCause) + Send + Sync>;

#[derive(Default)]
pub(crate) struct Counters {
    hits: AtomicU64,
    misses: AtomicU64,
    sets: AtomicU64,
    expired: AtomicU64,
    evicted: AtomicU64,
    removed: AtomicU64,
    replaced: AtomicU64,
    damaged: AtomicU64,
    on_removal: Option<OnRemoval>,
}

impl fmt::Debug for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Counters").field("stats", &self.stats(None, None)).finish_non_exhaustive()
    }
}

pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Counters {
    pub(crate) fn new(on_removal: Option<OnRemoval>) -> Self {
        Self { on_removal, ..Self::default() }
    }

    pub(crate) fn read(&self, found: bool) {
        count(if found { &self.hits } else { &self.misses });
    }

    pub(crate) fn set(&self) {
        count(&self.sets);
    }

    pub(crate) fn gone(&self, key: &str, cause: RemovalCause) {
        count(match cause {
            RemovalCause::Expired => &self.expired,
            RemovalCause::Evicted => &self.evicted,
            RemovalCause::Removed => &self.removed,
            RemovalCause::Replaced => &self.replaced,
            RemovalCause::Damaged => &self.damaged,
        });
        if let Some(tell) = &self.on_removal {
            tell(key, cause);
        }
    }

    pub(crate) fn stats(&self, entries: Option<u64>, bytes: Option<u64>) -> CacheStats {
        let now = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let removals = Removals {
            expired: now(&self.expired),
            evicted: now(&self.evicted),
            removed: now(&self.removed),
            replaced: now(&self.replaced),
            damaged: now(&self.damaged),
        };
        CacheStats { hits: now(&self.hits), misses: now(&self.misses), sets: now(&self.sets), entries, bytes, removals }
    }
}
