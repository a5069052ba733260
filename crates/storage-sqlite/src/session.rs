//! A write transaction, as the jobs in it see it.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use rusqlite::Connection;
use storage_core::{Clock, Result};

use crate::catalog::Catalog;
use crate::connection::run;
use crate::error::OrExplain;

/// A write transaction that several jobs share.
pub(crate) struct Session<'c> {
    pub(crate) connection: &'c Connection,
    /// The time of everything in the transaction.
    pub(crate) now: DateTime<Utc>,
    /// The same in the canonical form.
    pub(crate) now_text: String,
    pub(crate) catalog: Arc<Catalog>,
    /// The id of the next message, once one was sent.
    next_message: Option<i64>,
    /// Lanes with news, and how many messages.
    pub(crate) news: Vec<(i64, usize)>,
    /// Changes that may stay although their job failed: expired records that were in the way.
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
    pub(crate) fn new(connection: &'c Connection, catalog: Arc<Catalog>, clock: &Clock) -> Self {
        // Read within the transaction: later commits have later times.
        let now = clock.now();
        Self {
            connection,
            now,
            now_text: storage_sql::timestamp(now),
            catalog,
            next_message: None,
            news: Vec::new(),
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
    }

    /// True where nothing was changed since `mark` that would have to be undone.
    pub(crate) fn is_clean_since(&self, mark: &Mark) -> bool {
        self.connection.total_changes() - mark.changes == self.harmless - mark.harmless
    }

    /// Reads the catalog anew, after a change of the schema.
    pub(crate) fn reload(&mut self) -> Result<()> {
        self.catalog = Arc::new(Catalog::load(self.connection, &self.catalog)?);
        Ok(())
    }

    /// The id of a new message. Ids grow and are never used again.
    pub(crate) fn new_message_id(&mut self) -> Result<i64> {
        let id = match self.next_message {
            Some(id) => id,
            None => self
                .connection
                .prepare_cached("SELECT value FROM _storage_meta WHERE name = 'next_message'")
                .and_then(|mut select| select.query_row([], |row| row.get(0)))
                .or_explain()?,
        };
        self.next_message = Some(id + 1);
        Ok(id)
    }

    /// Writes down, once for all jobs, what is left to write.
    pub(crate) fn finish(&self) -> Result<()> {
        if let Some(next) = self.next_message {
            self.connection
                .prepare_cached("UPDATE _storage_meta SET value = ?1 WHERE name = 'next_message'")
                .and_then(|mut update| update.execute([next]))
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
