//! Who waits for messages, and how they learn of some.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use storage_core::Result;
use tokio::sync::Notify;

use crate::config::Settings;
use crate::connection::{data_version, open_reader};
use crate::error::OrExplain;

/// How many waiting receivers one commit wakes at most; each that finds more than it takes wakes the next.
const WAKE: usize = 16;
/// How often, at most, the file is looked at for other processes' commits.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// News of messages, within this process and from others.
#[derive(Debug, Default)]
pub(crate) struct News {
    lanes: Mutex<HashMap<i64, Arc<Notify>>>,
    watch: Mutex<Watch>,
}

/// The connection that sees whether anybody has committed.
#[derive(Debug, Default)]
struct Watch {
    connection: Option<Connection>,
    looked: Option<Instant>,
    version: i64,
    /// Grows with every change seen.
    generation: u64,
}

impl News {
    /// What tells of news in a lane.
    pub(crate) fn of(&self, lane: i64) -> Arc<Notify> {
        Arc::clone(self.lanes.lock().unwrap_or_else(PoisonError::into_inner).entry(lane).or_default())
    }

    /// Wakes who waits for these lanes.
    pub(crate) fn announce(&self, news: &[(i64, usize)]) {
        if news.is_empty() {
            return;
        }
        let lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        for (lane, count) in news {
            let Some(notify) = lanes.get(lane) else { continue };
            for _ in 0..(*count).min(WAKE) {
                notify.notify_one();
            }
        }
    }

    /// Wakes everybody.
    pub(crate) fn announce_all(&self) {
        for notify in self.lanes.lock().unwrap_or_else(PoisonError::into_inner).values() {
            notify.notify_waiters();
        }
    }

    /// A number that has grown if anybody, another process for one, has committed since it was last asked for. However many ask, the file
    /// is not looked at more often than every 20 ms.
    pub(crate) fn generation(&self, settings: &Settings) -> Result<u64> {
        let mut watch = self.watch.lock().unwrap_or_else(PoisonError::into_inner);
        if watch.looked.is_some_and(|at| at.elapsed() < LOOK_EVERY) {
            return Ok(watch.generation);
        }
        let connection = match watch.connection.take() {
            Some(connection) => connection,
            None => open_reader(settings)?,
        };
        let version = data_version(&connection).or_explain()?;
        watch.generation += u64::from(version != watch.version);
        watch.version = version;
        watch.looked = Some(Instant::now());
        watch.connection = Some(connection);
        Ok(watch.generation)
    }

    /// Lets go of the connection.
    pub(crate) fn close(&self) {
        self.watch.lock().unwrap_or_else(PoisonError::into_inner).connection = None;
        self.announce_all();
    }
}
