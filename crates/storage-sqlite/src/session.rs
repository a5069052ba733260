//! A write transaction, as the jobs in it see it.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use rusqlite::Connection;
use storage_core::{Clock, QueueName, Result};

use crate::catalog::Catalog;
use crate::connection::run;
use crate::error::OrExplain;
use crate::queues::Queue;

/// How many ids of messages are reserved at a time, so that not every commit has to write down the next.
const RESERVE: i64 = 1_000;

/// Ids for messages that are reserved for this connection.
///
/// They are good as long as no other connection commits: its messages have later ids, and what is sent after them must too.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ids {
    next: i64,
    /// The first that is not reserved.
    reserved: i64,
}

/// How many queues a transaction remembers.
const KNOWN: usize = 16;

/// A queue that was looked up in this transaction.
pub(crate) struct Known {
    pub(crate) name: QueueName,
    pub(crate) queue: Queue,
    /// True where time has nothing left to change in it.
    pub(crate) settled: bool,
}

/// A write transaction that several jobs share.
pub(crate) struct Session<'c> {
    pub(crate) connection: &'c Connection,
    /// The time of everything in the transaction.
    pub(crate) now: DateTime<Utc>,
    /// The same in the canonical form.
    pub(crate) now_text: String,
    pub(crate) catalog: Arc<Catalog>,
    /// The ids of the next messages, where known.
    pub(crate) ids: Option<Ids>,
    /// Lanes with news, and how many messages.
    pub(crate) news: Vec<(i64, usize)>,
    /// Queues that need not be looked up again.
    pub(crate) known: Vec<Known>,
    /// Changes that may stay although their job failed: what time alone did to records and messages.
    pub(crate) harmless: u64,
}

/// What a job that is undone leaves as it was.
pub(crate) struct Mark {
    catalog: Arc<Catalog>,
    news: usize,
    changes: u64,
    harmless: u64,
}

impl<'c> Session<'c> {
    pub(crate) fn new(connection: &'c Connection, catalog: Arc<Catalog>, clock: &Clock, ids: Option<Ids>) -> Self {
        // Read within the transaction: later commits have later times.
        let now = clock.now();
        Self {
            connection,
            now,
            now_text: storage_sql::timestamp(now),
            catalog,
            ids,
            news: Vec::new(),
            known: Vec::new(),
            harmless: 0,
        }
    }

    /// The present time in microseconds.
    pub(crate) fn micros(&self) -> i64 {
        self.now.timestamp_micros()
    }

    pub(crate) fn mark(&self) -> Mark {
        Mark {
            catalog: Arc::clone(&self.catalog),
            news: self.news.len(),
            changes: self.connection.total_changes(),
            harmless: self.harmless,
        }
    }

    /// Forgets what a job did that was undone in the database.
    pub(crate) fn reset(&mut self, mark: Mark) {
        self.catalog = mark.catalog;
        self.news.truncate(mark.news);
        self.known.clear();
    }

    /// True where nothing was changed since `mark` that would have to be undone.
    pub(crate) fn is_clean_since(&self, mark: &Mark) -> bool {
        self.connection.total_changes() - mark.changes == self.harmless - mark.harmless
    }

    /// Notes a queue that was looked up.
    pub(crate) fn remember(&mut self, queue: Known) {
        if self.known.len() < KNOWN {
            self.known.push(queue);
        }
    }

    /// Notes that messages may have become due at the very present.
    pub(crate) fn unsettle(&mut self) {
        self.known.iter_mut().for_each(|known| known.settled = false);
    }

    /// Reads the catalog anew, after a change of the schema.
    pub(crate) fn reload(&mut self) -> Result<()> {
        self.catalog = Arc::new(Catalog::load(self.connection, &self.catalog)?);
        Ok(())
    }

    /// The id of a new message. Ids grow and are never used again.
    pub(crate) fn new_message_id(&mut self) -> Result<i64> {
        let ids = match &mut self.ids {
            Some(ids) => ids,
            none => {
                let select = "SELECT value FROM _storage_meta WHERE name = 'next_message'";
                let next = self
                    .connection
                    .prepare_cached(select)
                    .and_then(|mut select| select.query_row([], |row| row.get(0)))
                    .or_explain()?;
                none.insert(Ids { next, reserved: next })
            }
        };
        ids.next += 1;
        Ok(ids.next - 1)
    }

    /// Writes down, once for all jobs, what is left to write.
    pub(crate) fn finish(&mut self) -> Result<()> {
        let Some(ids) = &mut self.ids else { return Ok(()) };
        if ids.next > ids.reserved {
            ids.reserved = ids.next + RESERVE;
            self.connection
                .prepare_cached("UPDATE _storage_meta SET value = ?1 WHERE name = 'next_message'")
                .and_then(|mut update| update.execute([ids.reserved]))
                .or_explain()?;
        }
        Ok(())
    }

    /// Undoes what was done since the savepoint.
    pub(crate) fn roll_back_to_savepoint(&self) -> Result<()> {
        run(self.connection, "ROLLBACK TO job").or_explain()?;
        run(self.connection, "RELEASE job").or_explain()
    }
}
