//! What the writing thread does when there is nothing else to do: it removes what has expired, and shortens the log.

use std::time::{Duration, Instant};

use rusqlite::Connection;
use storage_core::Result;
use storage_sql::EXPIRES_AT;

use crate::connection::{patient, run};
use crate::database::Shared;
use crate::error::{OrExplain, SqlResult};

/// How many rows one step removes.
const STEP: i64 = 500;
/// How often it is looked for rows to remove.
const SWEEP_EVERY: Duration = Duration::from_secs(5);
/// How long maintenance waits for other processes: it can be done another time.
const PATIENCE: Duration = Duration::from_millis(5);

/// How much log, in KiB, is written before it is moved into the database file.
const LOG_KIB: u32 = 16 * 1_024;
/// How much of it is enough behind many small commits. A log that grows makes each sync wait for the file's new length too, about a third more; one that
/// is written again from its beginning does not. A move costs some syncs itself, so large commits have more of them share one.
const SMALL_LOG_KIB: u32 = 2 * 1_024;
/// What many is.
const MANY_COMMITS: u32 = 64;
/// About how much log a commit takes besides what is written: some pages of 4 KiB.
const COMMIT_KIB: u32 = 16;

/// When what was done last.
#[derive(Debug, Default)]
pub(crate) struct Maintenance {
    swept: Option<Instant>,
    /// About how much log there is that was not yet moved into the file.
    log_kib: u32,
    /// How many commits it holds.
    commits: u32,
}

impl Maintenance {
    /// Behind a group of jobs: one step now and then, so that a busy writer sweeps too.
    pub(crate) fn after_commit(&mut self, connection: &Connection, shared: &Shared, kib: u32) {
        self.log_kib = self.log_kib.saturating_add(2 * kib + COMMIT_KIB);
        self.commits += 1;
        if self.log_kib > LOG_KIB || (self.log_kib > SMALL_LOG_KIB && self.commits >= MANY_COMMITS) {
            self.shorten_log(connection);
        }
        if self.swept.is_none_or(|at| at.elapsed() > SWEEP_EVERY) {
            self.swept = Some(Instant::now());
            note(step(connection, shared).map(drop));
        }
    }

    /// Behind a job on a caller's thread, where there is time for nothing else: true where the writing thread should do something.
    pub(crate) fn is_due_after_commit(&mut self) -> bool {
        let before = self.log_kib;
        self.log_kib = self.log_kib.saturating_add(COMMIT_KIB);
        before <= LOG_KIB && self.log_kib > LOG_KIB
    }

    fn shorten_log(&mut self, connection: &Connection) {
        (self.log_kib, self.commits) = (0, 0);
        note(patient(PATIENCE, || checkpoint(connection, "PASSIVE")).or_explain());
    }

    /// With nothing else to do.
    pub(crate) fn idle(&mut self, connection: &Connection, shared: &Shared) {
        if self.swept.is_none_or(|at| at.elapsed() > SWEEP_EVERY) {
            match step(connection, shared) {
                // More to do: the next idle moment goes on.
                Ok(removed) if removed >= STEP => return,
                swept => note(swept.map(drop)),
            }
            self.swept = Some(Instant::now());
        }
        if self.log_kib > 0 {
            self.shorten_log(connection);
        }
    }

    /// At the end.
    pub(crate) fn finish(&mut self, connection: &Connection, shared: &Shared) {
        note(patient(shared.settings.timeout.min(Duration::from_secs(1)), || checkpoint(connection, "TRUNCATE")).or_explain());
    }
}

/// Nobody waits for an answer: what goes wrong here goes wrong in the next write too, which says so.
fn note(result: Result<()>) {
    if let Err(error) = result {
        tracing::debug!(%error, "maintenance of the database was put off");
    }
}

fn checkpoint(connection: &Connection, mode: &str) -> SqlResult<()> {
    connection.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |_| Ok(()))
}

/// Removes some of what has expired. Answers how many rows.
fn step(connection: &Connection, shared: &Shared) -> Result<i64> {
    let now = shared.settings.clock.now();
    let catalog = shared.catalog.get();
    let expired = |connection: &Connection| -> SqlResult<Vec<String>> {
        let text = storage_sql::timestamp(now);
        let mut tables = Vec::new();
        for entry in catalog.all() {
            let name = format!("\"{}\"", entry.table.name());
            let any = format!("SELECT EXISTS (SELECT 1 FROM {name} WHERE \"{EXPIRES_AT}\" <= ?1)");
            if connection.prepare_cached(&any)?.query_row([&text], |row| row.get(0))? {
                tables.push(name);
            }
        }
        Ok(tables)
    };
    // A table may be gone by now; the next sweep knows.
    let tables = expired(connection).or_explain()?;
    let forgotten: bool = connection
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM _storage_dedup WHERE until <= ?1)")
        .and_then(|mut select| select.query_row([now.timestamp_micros()], |row| row.get(0)))
        .or_explain()?;
    if tables.is_empty() && !forgotten {
        return Ok(0);
    }
    patient(PATIENCE, || {
        run(connection, "BEGIN IMMEDIATE").or_explain()?;
        let removed = sweep(connection, &tables, &storage_sql::timestamp(now), now.timestamp_micros()).or_explain();
        let end = if removed.is_ok() { "COMMIT" } else { "ROLLBACK" };
        let ended = run(connection, end).or_explain();
        if ended.is_err() && !connection.is_autocommit() {
            let _ = run(connection, "ROLLBACK");
        }
        ended.and(removed)
    })
}

fn sweep(connection: &Connection, tables: &[String], now: &str, micros: i64) -> SqlResult<i64> {
    let mut removed = 0;
    for name in tables {
        let delete =
            format!("DELETE FROM {name} WHERE _rowid_ IN (SELECT _rowid_ FROM {name} WHERE \"{EXPIRES_AT}\" <= ?1 LIMIT ?2)");
        removed += connection.prepare_cached(&delete)?.execute((now, STEP))?;
    }
    removed += connection
        .prepare_cached(
            "DELETE FROM _storage_dedup WHERE (queue, dedup_id) IN \
             (SELECT queue, dedup_id FROM _storage_dedup WHERE until <= ?1 LIMIT ?2)",
        )?
        .execute((micros, STEP))?;
    Ok(i64::try_from(removed).unwrap_or(i64::MAX))
}
