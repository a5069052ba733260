//! PostgreSQL's errors in terms of the toolkit.

use std::error::Error as StdError;
use std::io;

use storage_core::{Error, ErrorKind, Result, TableName};
use tokio_postgres::error::{DbError, SqlState};

/// Short for a result of the driver.
pub(crate) type PgResult<T> = std::result::Result<T, tokio_postgres::Error>;

/// Turns driver errors into the toolkit's.
pub(crate) trait OrExplain<T> {
    fn or_explain(self) -> Result<T>;
}

impl<T> OrExplain<T> for PgResult<T> {
    fn or_explain(self) -> Result<T> {
        self.map_err(explain)
    }
}

/// True where the whole work may be done again from its beginning: the server undid it because of others.
pub(crate) fn is_collision(error: &tokio_postgres::Error) -> bool {
    matches!(error.code(), Some(code) if *code == SqlState::T_R_SERIALIZATION_FAILURE || *code == SqlState::T_R_DEADLOCK_DETECTED)
}

/// True where the server said that it ends the connection: it did not commit what it had not yet said to be committed.
pub(crate) fn is_goodbye(error: &tokio_postgres::Error) -> bool {
    error.as_db_error().is_some_and(|db| db.code().code().starts_with("57P"))
}

/// True where the tables are not as the statement takes them to be.
pub(crate) fn is_about_schema(error: &tokio_postgres::Error) -> bool {
    let Some(db) = error.as_db_error() else { return false };
    let code = db.code();
    *code == SqlState::UNDEFINED_TABLE
        || *code == SqlState::UNDEFINED_COLUMN
        || *code == SqlState::DATATYPE_MISMATCH
        || *code == SqlState::UNDEFINED_FUNCTION
        || (*code == SqlState::FEATURE_NOT_SUPPORTED && db.message().contains("cached plan"))
}

/// True where the server is known to have done nothing, since there was no connection.
fn unsent(error: Error) -> Error {
    let message = error.message().to_owned();
    error.with_source(io::Error::new(io::ErrorKind::ConnectionRefused, message))
}

/// What an error of the driver means, and what to do about it.
pub(crate) fn explain(error: tokio_postgres::Error) -> Error {
    let converted = match error.as_db_error() {
        Some(db) => of_server(db),
        None => of_client(&error),
    };
    converted.with_source(error)
}

/// The same for an error while connecting: nothing was sent.
pub(crate) fn explain_connecting(error: tokio_postgres::Error) -> Error {
    let converted = explain(error);
    if converted.kind() == ErrorKind::Unavailable { unsent(converted) } else { converted }
}

/// There was no connection in time.
pub(crate) fn unreachable(limit: std::time::Duration) -> Error {
    unsent(Error::unavailable(format!("no connection to the server within {limit:?}: check the address, or that it runs")))
}

/// All connections were in use for too long.
pub(crate) fn exhausted(limit: std::time::Duration) -> Error {
    unsent(Error::unavailable(format!("none of the connections became free within {limit:?}: set a larger `pool_size`")))
}

fn of_server(db: &DbError) -> Error {
    let (code, text) = (db.code(), db.message());
    match code.code() {
        "28P01" | "28000" => Error::new(ErrorKind::Unauthorized, format!("the server does not accept the login ({text})")),
        "42501" => Error::new(
            ErrorKind::Unauthorized,
            format!(
                "the user may not do this ({text}): it needs to own the tables, or the rights on them, and CREATE on the schema"
            ),
        ),
        "3D000" => Error::not_found(format!("{text}: create it first (`createdb`)")),
        "3F000" => Error::not_found(format!("{text}: create it, or name another by the option `schema`")),
        "40001" | "40P01" => {
            Error::conflict(format!("others wrote the same at the same time; nothing was changed ({text})")).with_retryable(true)
        }
        "55P03" => Error::unavailable(format!("another transaction holds a lock for longer than the timeout ({text})")),
        "57014" => Error::timeout(format!("it took longer than the timeout, and was given up ({text})")),
        "25006" => Error::unavailable("the server is a standby or read-only and can't be written to: name the primary"),
        "25P03" | "57P01" | "57P02" | "57P03" | "57P05" => {
            Error::unavailable(format!("the server ended the connection ({text})"))
        }
        "53300" => unsent(Error::unavailable(format!("the server has as many connections as it allows ({text})"))),
        "53100" => Error::unavailable("the server's disk is full; nothing was changed: free some space and try again")
            .with_retryable(false),
        "23502" | "23503" | "23514" | "23P01" => Error::invalid(format!("a constraint of the database refuses it ({text})")),
        "23505" | "42P07" | "42710" | "42P06" => Error::already_exists(text.to_owned()),
        "54000" if text.contains("index row") => {
            Error::invalid(format!("a value is too long for the index of its column, about 2,700 bytes at most ({text})"))
        }
        "42P01" | "42703" | "42804" | "42883" => {
            Error::corrupt(format!("a table is not as this toolkit made it ({text}): somebody else has changed it"))
        }
        "XX001" | "XX002" => Error::corrupt(format!("the server's data is damaged ({text}): restore a backup")),
        code if code.starts_with("08") || code.starts_with("53") => {
            Error::unavailable(format!("the server can't serve now ({text})"))
        }
        code if code.starts_with("22") => Error::invalid(format!("the server does not take a value ({text})")),
        code => Error::internal(format!("the server refused a statement ({code}: {text})")),
    }
}

/// The driver's own words hold no password.
fn of_client(error: &tokio_postgres::Error) -> Error {
    let text = match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    };
    if text.contains("password missing") {
        return Error::new(ErrorKind::Unauthorized, "the server wants a password: set it in the URL or by the option `password`");
    }
    if text.contains("authentication") {
        return Error::new(ErrorKind::Unauthorized, format!("the login failed ({text})"));
    }
    if text.contains("TLS") {
        return Error::unavailable(format!("no TLS with the server ({text}): see the option `sslmode`")).with_retryable(false);
    }
    if text.contains("serializing") || text.contains("deserializing") || text.contains("converting") {
        return Error::corrupt(format!(
            "a column is of another type than its schema says ({text}): somebody else has changed it"
        ));
    }
    if text.contains("invalid configuration") || text.contains("connection string") {
        return Error::config(text);
    }
    Error::unavailable(format!("the connection to the server failed ({text})"))
}

/// A unique value that is taken.
pub(crate) fn unique_violation(error: &tokio_postgres::Error, table: &TableName) -> Option<Error> {
    let db = error.as_db_error().filter(|db| *db.code() == SqlState::UNIQUE_VIOLATION)?;
    // `Key (a, b)=(1, 2) already exists.`: the columns, not the values.
    let columns = db.detail().and_then(|detail| detail.strip_prefix("Key (")?.split_once(")=").map(|(columns, _)| columns));
    let columns = columns.map_or_else(
        || format!("the columns of index `{}`", db.constraint().unwrap_or_default()),
        |columns| columns.split(", ").map(|c| format!("`{}`", c.trim_matches('"'))).collect::<Vec<_>>().join(", "),
    );
    Some(Error::already_exists(format!("a record of table `{table}` has the same value in {columns}, which is unique")))
}

/// True where the key itself is taken: somebody else has inserted the record meanwhile.
pub(crate) fn is_taken_key(error: &tokio_postgres::Error, table: &str) -> bool {
    let Some(db) = error.as_db_error().filter(|db| *db.code() == SqlState::UNIQUE_VIOLATION) else { return false };
    db.table() == Some(table) && db.constraint().is_some_and(|constraint| !constraint.contains('.'))
}
