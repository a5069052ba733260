//! A store that a case has opened, and the time that passes there.

use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use storage_core::{Backends, BlobStore, Clock, QueueStore, RecordStore, Result};

use crate::check::refused_as_broken;
use crate::{Harness, Place};

/// What the shortest waits of real time add, for clocks that differ and for machines that are busy.
const MARGIN: Duration = Duration::from_millis(30);

/// How long a case waits, in real time, for what must come but may take its time: some services count in seconds.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A fresh store.
pub(crate) struct Opened<'h> {
    pub(crate) harness: &'h dyn Harness,
    pub(crate) backends: Backends,
    /// Moved by hand where the backend allows it.
    pub(crate) clock: Clock,
    started: (DateTime<Utc>, Instant),
    // Dropped last: it removes the data.
    pub(crate) place: Place,
}

impl<'h> Opened<'h> {
    /// On a manual clock, where the backend takes one.
    pub(crate) async fn fresh(harness: &'h dyn Harness) -> Result<Self> {
        let clock = if harness.takes_manual_clock() { Clock::manual() } else { Clock::system() };
        Self::on(harness, clock).await
    }

    /// On the system's clock: for cases that are about waiting itself.
    pub(crate) async fn in_real_time(harness: &'h dyn Harness) -> Result<Self> {
        Self::on(harness, Clock::system()).await
    }

    async fn on(harness: &'h dyn Harness, clock: Clock) -> Result<Self> {
        let mut place = harness.place().await?;
        place.config.clock = clock.clone();
        let backends = harness.open(&place.config).await?;
        crate::declared::note(&backends);
        let started = (clock.now(), Instant::now());
        Ok(Self { harness, backends, clock, started, place })
    }

    /// A second handle on the same data.
    pub(crate) async fn again(&self) -> Result<Backends> {
        self.harness.open(&self.place.config).await
    }

    /// Handles on what is left once the first ones are closed. A backend that forgets is opened before the last handle goes.
    pub(crate) async fn after(&self, close: impl Future<Output = Result<()>>) -> Result<Backends> {
        let other = self.again().await?;
        close.await?;
        if !self.harness.survives_close() {
            return Ok(other);
        }
        drop(other);
        self.again().await
    }

    /// Lets so much time pass for the store, and a little more.
    pub(crate) async fn pass(&self, time: Duration) {
        if self.clock.is_manual() {
            self.clock.advance(time + MARGIN);
        } else {
            tokio::time::sleep(time + MARGIN).await;
        }
    }

    /// How much time has passed for the store, at least. By the monotonic clock where it is real: nothing may happen before its time by this.
    pub(crate) fn elapsed(&self) -> Duration {
        if self.clock.is_manual() {
            (self.clock.now() - self.started.0).to_std().unwrap_or_default()
        } else {
            self.started.1.elapsed()
        }
    }

    /// Calls `look` until it answers something, while time passes in small steps; fails where it does not within `limit` of the store's time (real time: and [`PATIENCE`]).
    pub(crate) async fn until<T>(&self, what: &str, limit: Duration, look: impl AsyncFnMut() -> Result<Option<T>>) -> Result<T> {
        let mut look = look;
        let (from, real) = (self.elapsed(), Instant::now());
        let step = (limit / 50).clamp(Duration::from_millis(5), Duration::from_millis(100));
        loop {
            // Read before looking: an answer that comes late is not taken for one that never comes.
            let late =
                self.elapsed() - from > limit && real.elapsed() > if self.clock.is_manual() { Duration::ZERO } else { PATIENCE };
            if let Some(found) = look().await? {
                return Ok(found);
            }
            assert!(!late, "{what}: not after {:?}", self.elapsed() - from);
            if self.clock.is_manual() {
                self.clock.advance(step);
            } else {
                tokio::time::sleep(step).await;
            }
        }
    }

    pub(crate) fn records(&self) -> RecordStore {
        records(&self.backends)
    }

    pub(crate) fn queues(&self) -> QueueStore {
        queues(&self.backends)
    }

    pub(crate) fn blobs(&self) -> BlobStore {
        blobs(&self.backends)
    }
}

/// Handles on a place that can't be reached or used; `None` where the harness knows none, or where opening it failed already, as it may.
pub(crate) async fn broken(harness: &dyn Harness) -> Result<Option<(Place, Backends)>> {
    let Some(place) = harness.broken_place().await? else {
        crate::skip("the harness knows no broken place");
        return Ok(None);
    };
    let opened = harness.open(&place.config).await;
    if opened.is_err() {
        refused_as_broken(opened);
        return Ok(None);
    }
    Ok(Some((place, opened?)))
}

pub(crate) fn records(backends: &Backends) -> RecordStore {
    let backend =
        backends.records.as_ref().expect("the backend has no records: don't run the suites `records` and `transactions`");
    RecordStore::new(Arc::clone(backend))
}

pub(crate) fn queues(backends: &Backends) -> QueueStore {
    QueueStore::new(Arc::clone(backends.queue.as_ref().expect("the backend has no queues: don't run the suite `queues`")))
}

pub(crate) fn blobs(backends: &Backends) -> BlobStore {
    BlobStore::new(Arc::clone(backends.blobs.as_ref().expect("the backend has no blobs: don't run the suite `blobs`")))
}
