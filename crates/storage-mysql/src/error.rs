//! MySQL's errors in terms of the toolkit.

use std::io;

use mysql_async::{DriverError, IoError, ServerError};
use storage_core::{Error, ErrorKind, Result, TableName};

/// Short for a result of the driver.
pub(crate) type MyResult<T> = std::result::Result<T, mysql_async::Error>;

/// Turns driver errors into the toolkit's.
pub(crate) trait OrExplain<T> {
    fn or_explain(self) -> Result<T>;
}

impl<T> OrExplain<T> for MyResult<T> {
    fn or_explain(self) -> Result<T> {
        self.map_err(explain)
    }
}

/// What the server said, by its number.
fn code(error: &mysql_async::Error) -> Option<u16> {
    match error {
        mysql_async::Error::Server(error) => Some(error.code),
        _ => None,
    }
}

/// True where the whole work may be done again from its beginning: deadlock, a lock that was waited for too long, a collision in a cluster.
pub(crate) fn is_collision(error: &mysql_async::Error) -> bool {
    matches!(code(error), Some(1_213 | 1_205 | 1_020 | 1_047 | 1_615 | 3_101 | 3_572))
}

/// True where the tables are not as the statement takes them to be, or were changed under it.
pub(crate) fn is_about_schema(error: &mysql_async::Error) -> bool {
    matches!(code(error), Some(1_146 | 1_054 | 1_136 | 1_412 | 1_243 | 1_176))
}

/// True where a value is at fault.
pub(crate) fn is_fault(error: &mysql_async::Error) -> bool {
    let Some(code) = code(error) else {
        return matches!(error, mysql_async::Error::Driver(DriverError::PacketTooLarge));
    };
    matches!(code, 1_048 | 1_062 | 1_153 | 1_216 | 1_217 | 1_264 | 1_292 | 1_364 | 1_366 | 1_406 | 1_451 | 1_452 | 1_586 | 1_644)
        || matches!(code, 3_819 | 4_025 | 1_265 | 1_367 | 1_411 | 1_118 | 1_139)
}

/// True where the server or the network has ended the connection.
pub(crate) fn is_ended(error: &mysql_async::Error) -> bool {
    match error {
        mysql_async::Error::Io(_) => true,
        mysql_async::Error::Driver(error) => !matches!(error, DriverError::StmtParamsMismatch { .. }),
        error => matches!(code(error), Some(1_053 | 1_077 | 1_080 | 1_152 | 1_158..=1_161 | 1_184 | 1_927 | 3_169 | 4_031)),
    }
}

/// True where there is no such database.
pub(crate) fn is_missing_database(error: &Error) -> bool {
    error.kind() == ErrorKind::NotFound
}

/// True where the server is known to have done nothing, since there was no connection.
fn unsent(error: Error) -> Error {
    let message = error.message().to_owned();
    error.with_source(io::Error::new(io::ErrorKind::ConnectionRefused, message))
}

/// What an error of the driver means, and what to do about it.
pub(crate) fn explain(error: mysql_async::Error) -> Error {
    let converted = match &error {
        mysql_async::Error::Server(server) => of_server(server),
        error => of_client(error),
    };
    converted.with_source(error)
}

/// The same for an error while connecting: nothing was sent.
pub(crate) fn explain_connecting(error: mysql_async::Error) -> Error {
    let converted = explain(error);
    if converted.kind() == ErrorKind::Unavailable && converted.is_retryable() { unsent(converted) } else { converted }
}

/// There was no connection in time.
pub(crate) fn unreachable(limit: std::time::Duration) -> Error {
    unsent(Error::unavailable(format!("no connection to the server within {limit:?}: check the address, or that it runs")))
}

/// All connections were in use for too long.
pub(crate) fn exhausted(limit: std::time::Duration) -> Error {
    unsent(Error::unavailable(format!("none of the connections became free within {limit:?}: set a larger `pool_size`")))
}

fn of_server(error: &ServerError) -> Error {
    // What may hold values of records, or a part of the statement, stays in the source.
    let text = error.message.as_str();
    match error.code {
        1_045 | 1_251 | 1_524 | 1_698 | 1_862 | 3_118 | 3_159 | 4_151 => {
            Error::new(ErrorKind::Unauthorized, format!("the server does not accept the login ({text})"))
        }
        1_044 | 1_142 | 1_143 | 1_227 | 1_370 | 1_410 | 1_419 => Error::new(
            ErrorKind::Unauthorized,
            format!(
                "the user may not do this ({text}): it needs SELECT, INSERT, UPDATE, DELETE on the database, and to make and change tables CREATE, ALTER, \
                 INDEX and DROP"
            ),
        ),
        1_049 => Error::not_found(format!("{text}: create it first")),
        1_213 | 1_205 | 1_020 | 3_101 | 3_572 => {
            Error::conflict("others wrote the same at the same time; nothing was changed").with_retryable(true)
        }
        1_317 | 1_969 | 3_024 => {
            Error::timeout(format!("it took longer than the timeout or was killed, and was given up ({text})"))
        }
        1_290 | 1_792 | 1_836 => {
            Error::unavailable(format!("the server is read-only and can't be written to: name the primary ({text})"))
        }
        1_040 | 1_203 | 1_226 => unsent(Error::unavailable(format!("the server has as many connections as it allows ({text})"))),
        1_021 | 1_114 | 3 => Error::unavailable("the server's disk is full; nothing was changed: free some space and try again")
            .with_retryable(false),
        1_047 | 1_053 | 1_077 | 1_080 | 1_152 | 1_158..=1_161 | 1_184 | 1_927 | 3_169 | 4_031 => {
            Error::unavailable(format!("the server ended the connection ({text})"))
        }
        1_062 | 1_586 => Error::already_exists("there is one with the same value"),
        1_050 | 1_061 | 1_007 => Error::already_exists(text.to_owned()),
        1_153 => Error::invalid("it is larger than the server's max_allowed_packet: write less at once, or set it higher"),
        1_406 => Error::invalid(format!("a value is too long for its column, since an index has no room for it ({text})")),
        1_071 | 1_118 | 1_074 | 1_117 | 1_069 | 1_170 => {
            Error::invalid(format!("the server has no room for such a table or index ({text})"))
        }
        1_048 | 1_216 | 1_217 | 1_264 | 1_265 | 1_292 | 1_364 | 1_366 | 1_367 | 1_411 | 1_451 | 1_452 | 1_644 | 3_819 | 4_025 => {
            Error::invalid(format!("a column or constraint of the database refuses it ({text})"))
        }
        1_412 | 1_615 => Error::unavailable("a table was just being changed: try again"),
        1_146 | 1_054 | 1_136 | 1_243 | 1_176 => {
            Error::corrupt(format!("a table is not as this toolkit made it ({text}): somebody else has changed it"))
        }
        1_034 | 1_035 | 1_194 | 1_195 | 1_712 | 1_713 => {
            Error::corrupt(format!("the server's data is damaged ({text}): restore a backup"))
        }
        code => Error::internal(format!("the server refused a statement ({code}: {text})")),
    }
}

/// The driver's own words hold no password.
fn of_client(error: &mysql_async::Error) -> Error {
    match error {
        #[cfg(feature = "tls")]
        mysql_async::Error::Io(IoError::Tls(error)) => {
            Error::unavailable(format!("no TLS with the server ({error}): see the option `sslmode`")).with_retryable(false)
        }
        mysql_async::Error::Io(IoError::Io(error)) if is_of_tls(error) => {
            Error::unavailable(format!("no TLS with the server ({error}): see the option `sslmode`")).with_retryable(false)
        }
        mysql_async::Error::Driver(error @ DriverError::NoClientSslFlagFromServer) => {
            Error::unavailable(format!("the server has no TLS ({error}): see the option `sslmode`")).with_retryable(false)
        }
        mysql_async::Error::Driver(error @ (DriverError::UnknownAuthPlugin { .. } | DriverError::CleartextPluginDisabled)) => {
            Error::new(ErrorKind::Unauthorized, format!("the login failed ({error})"))
        }
        mysql_async::Error::Driver(DriverError::PacketTooLarge) => {
            Error::invalid("it is larger than the server's max_allowed_packet: write less at once, or set it higher")
        }
        mysql_async::Error::Driver(error @ DriverError::StmtParamsMismatch { .. }) => Error::internal(error.to_string()),
        mysql_async::Error::Url(_) => Error::config("the address can't be read"),
        error => Error::unavailable(format!("the connection to the server failed ({error})")),
    }
}

/// A handshake that failed is an error of input and output for rustls.
fn is_of_tls(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::InvalidData
}

/// The index whose value is taken. The server's words hold the value; the name stands at their end.
fn taken(error: &mysql_async::Error) -> Option<&str> {
    let mysql_async::Error::Server(ServerError { code: 1_062 | 1_586, message, .. }) = error else { return None };
    Some(message.rsplit_once(" for key '")?.1.trim_end_matches('\''))
}

/// A unique value that is taken.
pub(crate) fn unique_violation(error: &mysql_async::Error, table: &TableName) -> Option<Error> {
    let index = taken(error)?;
    // MySQL puts the table's name in front.
    let index = index.strip_prefix(table.as_str()).and_then(|rest| rest.strip_prefix('.')).unwrap_or(index);
    let what = match index.strip_suffix(".unique") {
        Some(column) => format!("`{column}`"),
        None => format!("the columns of index `{index}`"),
    };
    Some(Error::already_exists(format!("a record of table `{table}` has the same value in {what}, which is unique")))
}

/// True where the key itself is taken: somebody else has inserted the record meanwhile.
pub(crate) fn is_taken_key(error: &mysql_async::Error) -> bool {
    taken(error).is_some_and(|index| index == "PRIMARY" || index.ends_with(".PRIMARY"))
}
