//! The baseline: the SQL that a careful person would write by hand on rusqlite, with cached statements.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, anyhow};
use bytes::Bytes;
use rusqlite::{Connection, params};

use super::drive::{QueueCase, SyncQueue};

const SCHEMA: &str = "
    CREATE TABLE messages (
        id INTEGER PRIMARY KEY,
        queue TEXT NOT NULL,
        body BLOB NOT NULL,
        attributes TEXT,
        visible_at INTEGER NOT NULL,
        priority INTEGER NOT NULL DEFAULT 0,
        deliveries INTEGER NOT NULL DEFAULT 0,
        receipt INTEGER
    );
    CREATE INDEX messages_ready ON messages (queue, priority DESC, visible_at, id) WHERE receipt IS NULL;
    CREATE INDEX messages_leased ON messages (visible_at) WHERE receipt IS NOT NULL;";
const SEND: &str = "INSERT INTO messages (queue, body, attributes, visible_at) VALUES (?1, ?2, ?3, ?4)";
/// Leases that ran out would be given back by an update of its own, now and then, through the second index: a message then
/// moves out of a small index instead of within a large one, which makes a claim a sixth cheaper.
const CLAIM: &str = "
    UPDATE messages SET visible_at = ?3, deliveries = deliveries + 1, receipt = random()
    WHERE id IN (
        SELECT id FROM messages WHERE queue = ?1 AND receipt IS NULL AND visible_at <= ?2
        ORDER BY priority DESC, visible_at, id LIMIT ?4)
    RETURNING id, receipt, body, attributes, deliveries";
const ACK: &str = "
    DELETE FROM messages
    WHERE (id, receipt) IN (SELECT value ->> 0, value ->> 1 FROM json_each(?1))";
const QUEUE: &str = "work";
const LEASE: Duration = Duration::from_secs(300);

/// How the workers share the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sharing {
    /// One connection behind a mutex: no worker ever waits in SQLite's busy handler.
    Mutex,
    /// A connection per worker.
    Each,
}

/// One worker's handle.
pub(crate) struct RawQueue {
    connection: Arc<Mutex<Connection>>,
}

/// Creates the database in `dir` and a handle for every worker.
pub(crate) fn open(dir: &Path, case: &QueueCase, sharing: Sharing) -> Result<Vec<RawQueue>> {
    let path = dir.join("raw.db");
    let first = connect(&path, case)?;
    first.execute_batch(SCHEMA)?;
    let first = Arc::new(Mutex::new(first));
    (0..case.workers)
        .map(|worker| {
            let connection = match sharing {
                Sharing::Each if worker > 0 => Arc::new(Mutex::new(connect(&path, case)?)),
                Sharing::Each | Sharing::Mutex => first.clone(),
            };
            Ok(RawQueue { connection })
        })
        .collect()
}

fn connect(path: &Path, case: &QueueCase) -> Result<Connection> {
    let connection = Connection::open(path).with_context(|| "opening the raw database")?;
    connection.busy_timeout(Duration::from_secs(60))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", case.sync.pragma())?;
    connection.pragma_update(None, "cache_size", -8192)?;
    // As storage-sqlite: else the claim, whose LIMIT is bound, would be prepared anew each time.
    connection.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    Ok(connection)
}

impl RawQueue {
    fn with<T>(&self, work: impl FnOnce(&mut Connection) -> Result<T>) -> Result<T> {
        let mut connection = self.connection.lock().map_err(|_| anyhow!("another worker panicked"))?;
        work(&mut connection)
    }
}

impl SyncQueue for RawQueue {
    type Receipt = (i64, i64);

    fn send(&mut self, bodies: &[Bytes]) -> Result<()> {
        self.with(|connection| {
            let now = micros()?;
            if let [body] = bodies {
                connection.prepare_cached(SEND)?.execute(params![QUEUE, &body[..], None::<String>, now])?;
                return Ok(());
            }
            let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
            {
                let mut statement = transaction.prepare_cached(SEND)?;
                for body in bodies {
                    statement.execute(params![QUEUE, &body[..], None::<String>, now])?;
                }
            }
            Ok(transaction.commit()?)
        })
    }

    fn receive(&mut self, max: usize) -> Result<Vec<((i64, i64), Bytes)>> {
        self.with(|connection| {
            let now = micros()?;
            let until = now + i64::try_from(LEASE.as_micros())?;
            let mut statement = connection.prepare_cached(CLAIM)?;
            let rows = statement.query_map(params![QUEUE, now, until, i64::try_from(max)?], |row| {
                let (id, receipt): (i64, i64) = (row.get(0)?, row.get(1)?);
                let body: Vec<u8> = row.get(2)?;
                let (_attributes, _deliveries): (Option<String>, i64) = (row.get(3)?, row.get(4)?);
                Ok(((id, receipt), Bytes::from(body)))
            })?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
    }

    fn delete(&mut self, receipts: &[(i64, i64)]) -> Result<()> {
        self.with(|connection| {
            let pairs = serde_json::to_string(receipts)?;
            let deleted = connection.prepare_cached(ACK)?.execute([pairs])?;
            anyhow::ensure!(deleted == receipts.len(), "{deleted} of {} receipts were still valid", receipts.len());
            Ok(())
        })
    }

    fn left(&mut self) -> Result<u64> {
        self.with(|connection| {
            let left: i64 = connection.query_row("SELECT count(*) FROM messages", [], |row| row.get(0))?;
            Ok(u64::try_from(left)?)
        })
    }

    fn settings(&mut self) -> Result<String> {
        self.with(|connection| {
            let journal: String = connection.pragma_query_value(None, "journal_mode", |row| row.get(0))?;
            let synchronous: i64 = connection.pragma_query_value(None, "synchronous", |row| row.get(0))?;
            Ok(super::drive::settings(&journal, synchronous))
        })
    }
}

fn micros() -> Result<i64> {
    Ok(i64::try_from(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_micros())?)
}
