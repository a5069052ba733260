//! How many calls there may be at a time.

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};

use storage_core::{Error, ErrorKind, Result};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::Concurrency;

pub(super) struct Slots {
    settings: Concurrency,
    slots: Semaphore,
    waiting: AtomicU32,
}

impl Slots {
    pub(super) fn new(settings: Concurrency) -> Self {
        Self { settings, slots: Semaphore::new(settings.max as usize), waiting: AtomicU32::new(0) }
    }

    /// Waits for a turn, first come, first served.
    pub(super) async fn take(&self) -> Result<SemaphorePermit<'_>> {
        if let Ok(slot) = self.slots.try_acquire() {
            return Ok(slot);
        }
        let _place = Place::take(&self.waiting, self.settings.max_waiting).ok_or_else(|| {
            let Concurrency { max, max_waiting } = self.settings;
            Error::new(
                ErrorKind::Throttled,
                format!("{max} calls run and {max_waiting} wait already, as many as the limits of this program allow: nothing was sent; call less, or raise `concurrency`"),
            )
        })?;
        self.slots.acquire().await.map_err(|e| Error::internal("the concurrency limit was closed").with_source(e))
    }
}

impl fmt::Debug for Slots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slots")
            .field("settings", &self.settings)
            .field("free", &self.slots.available_permits())
            .finish_non_exhaustive()
    }
}

/// A place among those that wait, given back when it is dropped.
pub(super) struct Place<'a>(&'a AtomicU32);

impl<'a> Place<'a> {
    pub(super) fn take(waiting: &'a AtomicU32, max: u32) -> Option<Self> {
        waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| (n < max).then_some(n + 1)).ok()?;
        Some(Self(waiting))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use futures::poll;

    use super::*;

    #[tokio::test]
    async fn one_more_than_may_wait_is_throttled() {
        let slots = Slots::new(Concurrency { max: 1, max_waiting: 1 });
        let first = slots.take().await.unwrap();
        let mut second = Box::pin(slots.take());
        assert!(poll!(&mut second).is_pending());
        assert_eq!(slots.take().await.unwrap_err().kind(), ErrorKind::Throttled);
        drop(first);
        let second = second.await.unwrap();
        let mut third = Box::pin(slots.take());
        assert!(poll!(&mut third).is_pending());
        drop(third);
        let mut fourth = Box::pin(slots.take());
        assert!(poll!(&mut fourth).is_pending(), "the third gave its place back");
        drop(second);
        drop(fourth.await.unwrap());
    }
}
