//! [`OpenFlag`].

use std::sync::atomic::{AtomicBool, Ordering};

use crate::{Error, Result};

/// Whether a handle on a store is open. Each handle is closed by itself, and what it is asked for afterwards is refused.
#[derive(Debug, Default)]
pub struct OpenFlag {
    closed: AtomicBool,
}

impl OpenFlag {
    /// Refuses what a closed handle is asked for.
    ///
    /// # Errors
    /// [`Unavailable`](crate::ErrorKind::Unavailable), not to be retried, once the handle is closed.
    pub fn check(&self) -> Result<()> {
        if self.is_closed() {
            return Err(Error::unavailable("this handle was closed: open another").with_retryable(false));
        }
        Ok(())
    }

    /// True from the first [`close`](Self::close) on.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Closes the handle. `false`: it was closed already.
    pub fn close(&self) -> bool {
        !self.closed.swap(true, Ordering::AcqRel)
    }
}
