//! A handle on a store: closed by itself, and at the latest when it is dropped.

use std::fmt;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use storage_core::{BackendInfo, OpenFlag, Result};
use tokio::sync::Notify;

use super::{Common, Statements};

/// What the handles of an open store share.
pub trait Shared: fmt::Debug + Send + Sync + 'static {
    /// The statements of a table.
    type Statements: Statements;

    /// What every store has.
    fn common(&self) -> &Common<Self::Statements>;

    /// A handle was closed; `last`: it was the last.
    fn left(&self, last: bool);

    /// Closes the connections: everything is written.
    fn disconnect(&self);
}

/// How many handles on a store are open. At zero it is closed, for good.
#[derive(Debug)]
pub struct Users {
    count: Mutex<usize>,
    closed: AtomicBool,
    end: Notify,
}

impl Default for Users {
    /// One, who opens the store.
    fn default() -> Self {
        Self { count: Mutex::new(1), closed: AtomicBool::new(false), end: Notify::new() }
    }
}

impl Users {
    /// One more. `false`: the store is closed already.
    fn join(&self) -> bool {
        let mut count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        let open = *count > 0;
        *count += usize::from(open);
        open
    }

    /// One less. `true`: that was the last.
    fn leave(&self) -> bool {
        let mut count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        *count = count.saturating_sub(1);
        if *count == 0 {
            self.closed.store(true, Ordering::Release);
        }
        *count == 0
    }

    /// Wakes who waits for the end.
    fn tell_end(&self) {
        self.end.notify_waiters();
    }

    /// True where none is left.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Waits until none is left, or that long. `false`: none is left.
    pub async fn sleep(&self, duration: Duration) -> bool {
        let mut end = pin!(self.end.notified());
        end.as_mut().enable();
        if self.is_closed() {
            return false;
        }
        tokio::select! { () = end => false, () = tokio::time::sleep(duration) => !self.is_closed() }
    }
}

/// One user of a store.
#[derive(Debug)]
pub struct Handle<T: Shared> {
    shared: Arc<T>,
    open: OpenFlag,
}

impl<T: Shared> Handle<T> {
    /// A handle that the store counts already.
    pub fn counted(shared: Arc<T>) -> Self {
        Self { shared, open: OpenFlag::default() }
    }

    /// One more handle on the same store.
    pub fn another(&self) -> Self {
        let another = Self { shared: Arc::clone(&self.shared), open: OpenFlag::default() };
        if self.is_closed() || !self.shared.common().users.join() {
            another.open.close();
        }
        another
    }

    /// The store, as it is described.
    pub fn info(&self) -> &BackendInfo {
        &self.shared.common().info
    }

    fn leave(&self) -> bool {
        let last = self.shared.common().users.leave();
        self.shared.left(last);
        if last {
            self.shared.common().users.tell_end();
        }
        last
    }

    /// The store, whether or not this handle was closed.
    pub fn shared(&self) -> &Arc<T> {
        &self.shared
    }

    /// The store, unless this handle was closed.
    ///
    /// # Errors
    /// That it was.
    pub fn open(&self) -> Result<&Arc<T>> {
        self.open.check()?;
        Ok(&self.shared)
    }

    /// True where this handle was closed.
    pub fn is_closed(&self) -> bool {
        self.open.is_closed()
    }

    /// Closes the handle; the last one waits until everything is written, and closes the connections.
    ///
    /// # Errors
    /// None at present.
    pub async fn close(&self) -> Result<()> {
        if self.open.close() && self.leave() {
            self.shared.common().committer.finish().await;
            self.shared.disconnect();
        }
        Ok(())
    }
}

impl<T: Shared> Drop for Handle<T> {
    fn drop(&mut self) {
        if self.open.close() {
            // What was begun is finished; the connections close with the last that uses them.
            self.leave();
        }
    }
}
