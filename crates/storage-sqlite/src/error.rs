//! SQLite's errors in terms of the toolkit.

use rusqlite::ffi;
use storage_core::{Error, Result, TableName};

/// Short for a result of the driver.
pub(crate) type SqlResult<T> = std::result::Result<T, rusqlite::Error>;

/// Turns driver errors into the toolkit's.
pub(crate) trait OrExplain<T> {
    fn or_explain(self) -> Result<T>;
}

impl<T> OrExplain<T> for SqlResult<T> {
    fn or_explain(self) -> Result<T> {
        self.map_err(explain)
    }
}

/// What an error of the driver means, and what to do about it.
pub(crate) fn explain(error: rusqlite::Error) -> Error {
    use rusqlite::ErrorCode as Code;
    let Some(code) = error.sqlite_error_code() else {
        return Error::internal(format!("the SQLite driver failed: {error}")).with_source(error);
    };
    // Not the cause's own words: "database is locked" helps nobody.
    if matches!(code, Code::DatabaseBusy | Code::DatabaseLocked | Code::FileLockingProtocolFailed) {
        return busy();
    }
    let converted = match code {
        Code::NotADatabase => Error::corrupt("the file is not a SQLite database, or is encrypted: check the path"),
        Code::DatabaseCorrupt => Error::corrupt(format!(
            "the database file is damaged ({error}): restore a backup, or save what can be read with `sqlite3 FILE .recover`"
        )),
        Code::DiskFull => disk_full(),
        Code::ReadOnly | Code::PermissionDenied | Code::AuthorizationForStatementDenied => Error::new(
            storage_core::ErrorKind::Unauthorized,
            format!(
                "the database can't be written ({error}): the file and its folder must be writable, for the log beside it too"
            ),
        ),
        Code::CannotOpen => Error::new(
            storage_core::ErrorKind::Unauthorized,
            format!(
                "the database can't be opened ({error}): check that its folder is there and that the file may be read and written"
            ),
        ),
        Code::SystemIoFailure => io_failure(&error),
        Code::OutOfMemory => Error::unavailable("SQLite is out of memory"),
        Code::OperationInterrupted | Code::OperationAborted => Error::unavailable("the operation was interrupted"),
        Code::TooBig => Error::invalid("a value is larger than SQLite can hold (1,000,000,000 bytes)"),
        Code::ConstraintViolation | Code::TypeMismatch => {
            Error::internal(format!("a constraint of the database failed: {error}"))
        }
        _ => Error::internal(format!("SQLite failed: {error}")),
    };
    converted.with_source(error)
}

/// Nobody let us in within the timeout.
pub(crate) fn busy() -> Error {
    Error::unavailable(
        "another process has been writing to the database for longer than the timeout; nothing was changed: try again, or set a longer \
         timeout",
    )
}

fn disk_full() -> Error {
    Error::unavailable("the disk is full; nothing was changed: free some space and try again").with_retryable(false)
}

fn io_failure(error: &rusqlite::Error) -> Error {
    match error.sqlite_error().map(|e| e.extended_code) {
        // What a full disk looks like where a file is mapped into memory.
        Some(ffi::SQLITE_IOERR_SHMSIZE) => disk_full(),
        _ => Error::unavailable(format!("input/output failed ({error}): check the disk and the file system")),
    }
}

/// A constraint that a write ran into.
pub(crate) enum Violation {
    /// Another record has the same values in these columns.
    Unique(Vec<String>),
    /// This column lacks a value.
    Required(String),
}

/// What constraint `error` speaks of, in table `name` (as the database calls it).
pub(crate) fn violation(error: &rusqlite::Error, name: &str) -> Option<Violation> {
    let rusqlite::Error::SqliteFailure(code, Some(message)) = error else { return None };
    // `UNIQUE constraint failed: jobs.a, jobs.b`; no name of ours holds a point, a comma or a blank.
    let (_, list) = message.split_once(": ")?;
    let columns = || list.split(", ").filter_map(|c| c.strip_prefix(name)?.strip_prefix('.')).map(str::to_owned);
    match code.extended_code {
        ffi::SQLITE_CONSTRAINT_UNIQUE | ffi::SQLITE_CONSTRAINT_PRIMARYKEY | ffi::SQLITE_CONSTRAINT_ROWID => {
            Some(Violation::Unique(columns().collect()))
        }
        ffi::SQLITE_CONSTRAINT_NOTNULL => columns().next().map(Violation::Required),
        _ => None,
    }
}

impl Violation {
    pub(crate) fn into_error(self, table: &TableName) -> Error {
        match self {
            Self::Unique(columns) => {
                let columns: Vec<String> = columns.iter().map(|c| format!("`{c}`")).collect();
                Error::already_exists(format!(
                    "a record of table `{table}` has the same value in {}, which is unique",
                    columns.join(", ")
                ))
            }
            Self::Required(column) => Error::invalid(format!("table `{table}` requires a value for column `{column}`")),
        }
    }
}
