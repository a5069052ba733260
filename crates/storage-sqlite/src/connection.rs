//! Connections: how they are opened, and how they wait for each other.

use std::cell::Cell;
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};
use storage_core::{Error, ErrorKind, Result};

use crate::config::{Settings, Synchronous};
use crate::error::{OrExplain, SqlResult};

/// How many prepared statements a connection keeps.
const STATEMENTS: usize = 256;
/// To what the log file is cut after that.
const LOG_LIMIT: u32 = 64 << 20;

thread_local! {
    /// Until when this thread waits for locks.
    static PATIENCE: Cell<Option<Instant>> = const { Cell::new(None) };
    static JITTER: Cell<u32> = const { Cell::new(0x9e37_79b9) };
}

/// Runs `act`, in which waiting for other processes' locks lasts no longer than `patience` altogether.
pub(crate) fn patient<T>(patience: Duration, act: impl FnOnce() -> T) -> T {
    let before = PATIENCE.replace(Some(Instant::now() + patience));
    let result = act();
    PATIENCE.set(before);
    result
}

/// The busy handler. SQLite's own sleeps up to 100 ms, in which a process that commits all the time takes every turn; short random
/// naps give each the same chance.
fn wait_for_lock(count: i32) -> bool {
    if PATIENCE.get().is_none_or(|until| Instant::now() >= until) {
        return false;
    }
    let random = JITTER.get().wrapping_mul(1_664_525).wrapping_add(1_013_904_223 ^ std::process::id());
    JITTER.set(random);
    let longest = if count < 10 { 200 } else { 1_000 };
    std::thread::sleep(Duration::from_micros(u64::from(50 + (random >> 8) % longest)));
    true
}

/// Opens the connection that writes. `create`: makes the file where there is none.
pub(crate) fn open_writer(settings: &Settings, create: bool) -> Result<Connection> {
    try_open_writer(settings, create).map_err(|error| match std::fs::File::options().append(true).open(&settings.path) {
        // SQLite only says that it can't open the file; the system says why.
        Err(why) if error.kind() == ErrorKind::Unauthorized && why.kind() != std::io::ErrorKind::NotFound => {
            Error::from(why).with_source(error)
        }
        _ => error,
    })
}

fn try_open_writer(settings: &Settings, create: bool) -> Result<Connection> {
    let mut flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    flags.set(OpenFlags::SQLITE_OPEN_CREATE, create);
    let connection = open(settings, flags)?;
    let mode: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0)).or_explain()?;
    if mode != "wal" {
        return Err(Error::unavailable(format!(
            "the database can't be switched to a write-ahead log (journal mode is `{mode}`): its file system does not support one"
        ))
        .with_retryable(false));
    }
    pragma(&connection, "synchronous", settings.synchronous.pragma()).or_explain()?;
    // The writing thread sees to it, between two commits.
    pragma(&connection, "wal_autocheckpoint", 0).or_explain()?;
    pragma(&connection, "journal_size_limit", LOG_LIMIT).or_explain()?;
    Ok(connection)
}

/// Opens a connection that reads.
pub(crate) fn open_reader(settings: &Settings) -> Result<Connection> {
    // Reading takes part in the log's bookkeeping: the file itself is opened for writing.
    let connection = open(settings, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    pragma(&connection, "query_only", true).or_explain()?;
    Ok(connection)
}

fn open(settings: &Settings, flags: OpenFlags) -> Result<Connection> {
    let connection = Connection::open_with_flags(&settings.path, flags).or_explain()?;
    connection.busy_handler(Some(wait_for_lock)).or_explain()?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    // A misspelt column is an error, not a text.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DQS_DML, false).or_explain()?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DQS_DDL, false).or_explain()?;
    // Plans don't depend on bound values. Else every statement with a bound LIMIT would be prepared anew each time a value is bound.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).or_explain()?;
    // What a file brings along (views, triggers) can't call functions with side effects.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false).or_explain()?;
    pragma(&connection, "cache_size", -i64::from(settings.cache_mib) * 1024).or_explain()?;
    pragma(&connection, "temp_store", "MEMORY").or_explain()?;
    Ok(connection)
}

fn pragma(connection: &Connection, name: &str, value: impl rusqlite::ToSql) -> SqlResult<()> {
    connection.pragma_update(None, name, value)
}

impl Synchronous {
    const fn pragma(self) -> &'static str {
        match self {
            Self::Full => "FULL",
            Self::Normal => "NORMAL",
            Self::Off => "OFF",
        }
    }
}

/// Runs a statement that yields nothing, prepared once.
pub(crate) fn run(connection: &Connection, sql: &str) -> SqlResult<()> {
    connection.prepare_cached(sql)?.raw_execute().map(drop)
}

/// The number that changes with every change of the schema.
pub(crate) fn schema_cookie(connection: &Connection) -> SqlResult<i64> {
    number(connection, "PRAGMA schema_version")
}

/// The number that changes with every commit of another connection.
pub(crate) fn data_version(connection: &Connection) -> SqlResult<i64> {
    number(connection, "PRAGMA data_version")
}

fn number(connection: &Connection, sql: &str) -> SqlResult<i64> {
    connection.prepare_cached(sql)?.query_row([], |row| row.get(0))
}
