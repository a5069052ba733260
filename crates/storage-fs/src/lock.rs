//! Advisory locks between processes (and between handles within one).
//!
//! A lock is two files: `x.gate` is held only while waiting for `x`. Whoever has just let go of `x` and wants it again queues
//! up behind those who wait at the gate, so neither a busy writer nor a crowd of readers keeps others out. The operating system
//! lets go of the locks of a process that dies.

use std::fs::{File, TryLockError};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use storage_core::Result;

use crate::file::{at, open_control};

#[derive(Debug)]
pub(crate) struct LockFile {
    gate: PathBuf,
    main: PathBuf,
}

/// A held lock; dropped, it lets go.
#[derive(Debug)]
#[must_use]
pub(crate) struct Held {
    _main: File,
}

/// Both files open, for one who takes the lock again and again. Two at a time would not keep each other out: it takes `&mut`.
#[derive(Debug)]
pub(crate) struct Opened {
    gate: File,
    main: File,
    path: PathBuf,
}

impl Opened {
    /// Waits until nobody else holds the lock.
    pub(crate) fn lock(&mut self) -> Result<()> {
        wait(|| self.gate.lock()).map_err(at(&self.path))?;
        let locked = wait(|| self.main.lock()).map_err(at(&self.path));
        self.gate.unlock().map_err(at(&self.path)).and(locked)
    }

    /// Lets go of it.
    pub(crate) fn unlock(&mut self) {
        // There is no reason for which this could fail; the end of the process would do it.
        self.main.unlock().unwrap_or_else(|error| tracing::error!(%error, "a lock is not let go of"));
    }
}

impl LockFile {
    pub(crate) fn new(folder: &Path, name: &str) -> Self {
        Self { gate: folder.join(format!("{name}.gate")), main: folder.join(name) }
    }

    /// Waits until nobody else holds the lock.
    pub(crate) fn exclusive(&self) -> Result<Held> {
        let gate = self.pass_gate()?;
        let main = open_control(&self.main)?;
        wait(|| main.lock()).map_err(at(&self.main))?;
        drop(gate);
        Ok(Held { _main: main })
    }

    /// Waits until nobody holds the lock exclusively.
    pub(crate) fn shared(&self) -> Result<Held> {
        let gate = self.pass_gate()?;
        let main = open_control(&self.main)?;
        wait(|| main.lock_shared()).map_err(at(&self.main))?;
        drop(gate);
        Ok(Held { _main: main })
    }

    pub(crate) fn open(&self) -> Result<Opened> {
        Ok(Opened { gate: open_control(&self.gate)?, main: open_control(&self.main)?, path: self.main.clone() })
    }

    fn pass_gate(&self) -> Result<File> {
        let gate = open_control(&self.gate)?;
        wait(|| gate.lock()).map_err(at(&self.gate))?;
        Ok(gate)
    }
}

fn wait(lock: impl Fn() -> io::Result<()>) -> io::Result<()> {
    loop {
        match lock() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            outcome => return outcome,
        }
    }
}

/// True where no living process holds a lock on the file.
pub(crate) fn is_abandoned(file: &File) -> bool {
    match file.try_lock() {
        Ok(()) => true,
        Err(TryLockError::WouldBlock | TryLockError::Error(_)) => false,
    }
}
