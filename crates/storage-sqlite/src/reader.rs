//! Connections that read, each from a snapshot, without waiting for who writes.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, Utc};
use rusqlite::Connection;
use storage_core::{Clock, Result};

use crate::catalog::{Catalog, SharedCatalog};
use crate::config::Settings;
use crate::connection::{open_reader, run};
use crate::error::OrExplain;
use crate::jobs::closed;

/// One state of the database.
pub(crate) struct Snapshot<'c> {
    pub(crate) connection: &'c Connection,
    pub(crate) catalog: Arc<Catalog>,
    clock: &'c Clock,
}

impl Snapshot<'_> {
    pub(crate) fn now(&self) -> DateTime<Utc> {
        self.clock.now()
    }
}

/// Runs `read` on one state of the database.
pub(crate) fn snapshot<T>(
    connection: &Connection,
    catalog: &SharedCatalog,
    clock: &Clock,
    read: impl FnOnce(&Snapshot<'_>) -> Result<T>,
) -> Result<T> {
    run(connection, "BEGIN").or_explain()?;
    let result = catalog.of(connection).and_then(|catalog| read(&Snapshot { connection, catalog, clock }));
    // A reading transaction has nothing to lose.
    let ended = run(connection, "COMMIT").or_else(|_| run(connection, "ROLLBACK"));
    let value = result?;
    ended.or_explain()?;
    Ok(value)
}

/// Reading connections that nobody uses right now.
#[derive(Debug)]
pub(crate) struct Pool {
    state: Mutex<State>,
    returned: Condvar,
    max: usize,
}

#[derive(Debug, Default)]
struct State {
    idle: Vec<Connection>,
    /// How many there are, idle or not.
    open: usize,
    /// How many threads wait for one.
    waiting: usize,
    closed: bool,
}

impl Pool {
    pub(crate) fn new(max: usize) -> Self {
        Self { state: Mutex::default(), returned: Condvar::new(), max }
    }

    /// A connection, without waiting for one; `None` where all are in use.
    pub(crate) fn try_take(&self, settings: &Settings) -> Result<Option<Connection>> {
        let place = self.state().place(self.max);
        match place {
            Place::Idle(connection) => Ok(Some(connection)),
            Place::Free => self.open(settings).map(Some),
            Place::None => Ok(None),
        }
    }

    /// A connection, once there is one.
    pub(crate) fn take(&self, settings: &Settings) -> Result<Connection> {
        let mut state = self.state();
        loop {
            if state.closed {
                return Err(closed());
            }
            match state.place(self.max) {
                Place::Idle(connection) => return Ok(connection),
                Place::Free => break,
                Place::None => {
                    state.waiting += 1;
                    state = self.returned.wait(state).unwrap_or_else(PoisonError::into_inner);
                    state.waiting -= 1;
                }
            }
        }
        drop(state);
        self.open(settings)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self, settings: &Settings) -> Result<Connection> {
        open_reader(settings).inspect_err(|_| {
            self.state().open -= 1;
            self.returned.notify_one();
        })
    }

    /// Gives a connection back.
    pub(crate) fn give(&self, connection: Connection) {
        let mut state = self.state();
        if state.closed {
            drop(state);
            return;
        }
        state.idle.push(connection);
        let wake = state.waiting > 0;
        drop(state);
        if wake {
            self.returned.notify_one();
        }
    }

    /// Closes the idle ones now and the others when they come back.
    pub(crate) fn close(&self) {
        let idle = {
            let mut state = self.state();
            state.closed = true;
            std::mem::take(&mut state.idle)
        };
        drop(idle);
        self.returned.notify_all();
    }
}

/// Where a connection can come from.
enum Place {
    Idle(Connection),
    /// One may be opened, and is counted already.
    Free,
    None,
}

impl State {
    fn place(&mut self, max: usize) -> Place {
        if self.closed {
            return Place::None;
        }
        if let Some(connection) = self.idle.pop() {
            return Place::Idle(connection);
        }
        if self.open < max {
            self.open += 1;
            return Place::Free;
        }
        Place::None
    }
}
