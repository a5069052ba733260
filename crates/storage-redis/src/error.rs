//! Redis' errors in terms of the toolkit.

use std::io;
use std::time::Duration;

use redis::{ErrorKind as Kind, RedisError};
use storage_core::{Error, ErrorKind};

/// Codes that a server may put behind `ERR …: -` where a script ran into them, as versions before 7 do.
const CODES: [&str; 10] =
    ["OOM", "READONLY", "WRONGTYPE", "MISCONF", "NOPERM", "NOREPLICAS", "MASTERDOWN", "CLUSTERDOWN", "LOADING", "BUSY"];

/// The code of a server's error, also of one within a script's.
pub(crate) fn code(error: &RedisError) -> Option<&str> {
    let code = error.code()?;
    if code != "ERR" {
        return Some(code);
    }
    let within =
        |text: &str| CODES.into_iter().find(|code| text.contains(&format!("-{code} ")) || text.contains(&format!(": {code} ")));
    error.detail().and_then(within).or(Some(code))
}

/// True where the connection, or the node behind it, is of no more use.
pub(crate) fn is_fatal(error: &RedisError) -> bool {
    error.is_io_error() || error.is_unrecoverable_error() || matches!(code(error), Some("READONLY" | "MASTERDOWN" | "NOAUTH"))
}

/// What an error means, and what to do about it. Servers don't repeat passwords in their errors, nor does the client.
pub(crate) fn explain(error: RedisError) -> Error {
    let text = error.to_string();
    let converted = match code(&error) {
        Some(code) => of_code(code, &error, &text),
        None => of_client(&error, &text),
    };
    if converted.kind() == ErrorKind::Unavailable && code(&error).is_some() {
        // The server itself says that it has done nothing.
        return converted.with_source(io::Error::new(io::ErrorKind::ConnectionRefused, error));
    }
    converted.with_source(error)
}

/// The error of who could not connect: nothing was sent, and layers may try again what is unsafe to repeat. They know it by its source.
pub(crate) fn unsent(error: &Error) -> Error {
    let same = error.duplicate();
    if same.kind() != ErrorKind::Unavailable {
        return same;
    }
    same.with_source(io::Error::new(io::ErrorKind::ConnectionRefused, error.message().to_owned()))
}

fn of_code(code: &str, error: &RedisError, text: &str) -> Error {
    let unauthorized = |message: String| Error::new(ErrorKind::Unauthorized, message);
    match code {
        "NOAUTH" => unauthorized("the server wants a password: set `password`, and `username` where it has users".into()),
        "WRONGPASS" => unauthorized("the server does not accept the user name and password".into()),
        "NOPERM" => {
            unauthorized(format!("the user may not do this ({text}): allow it the keys and channels of the prefix, and scripts"))
        }
        "OOM" => Error::new(
            ErrorKind::Throttled,
            "the server's memory is full (`maxmemory`); nothing was changed: remove records or messages, or give it more memory",
        ),
        "LOADING" => Error::unavailable("the server is starting and reads its data: try again"),
        "BUSY" => Error::unavailable("the server is busy with a script of somebody: try again"),
        "READONLY" => Error::unavailable(
            "the server is a replica and can't be written to: its primary has changed, or the address is a replica's",
        ),
        "MASTERDOWN" | "CLUSTERDOWN" | "TRYAGAIN" | "MOVED" | "ASK" | "NOREPLICAS" => {
            Error::unavailable(format!("the servers are changing places, or too many are gone ({text}): try again"))
        }
        "MISCONF" => Error::unavailable(format!("the server can't write its data to its disk and accepts no more ({text})")),
        "WRONGTYPE" => Error::corrupt(format!("a key holds what this toolkit did not write ({text}): use another `prefix`")),
        _ => of_text(error, text),
    }
}

/// What the server says without a code of its own.
fn of_text(error: &RedisError, text: &str) -> Error {
    let detail = error.detail().unwrap_or_default();
    if detail.contains("max number of clients") {
        return Error::unavailable("the server has as many clients as it allows (`maxclients`): try again");
    }
    if detail.contains("AUTH") || detail.contains("invalid password") {
        return Error::new(ErrorKind::Unauthorized, "the server does not accept the password, or has none");
    }
    if detail.contains("DB index is out of range") || text.contains("switch database") {
        return Error::config("the server has no database of that number: see `databases` in its configuration");
    }
    if detail.contains("cluster support disabled") {
        return Error::config("the server is no Cluster: use the scheme `redis`, without `cluster`");
    }
    Error::internal(format!("the server refused a command: {text}"))
}

fn of_client(error: &RedisError, text: &str) -> Error {
    match error.kind() {
        Kind::AuthenticationFailed => {
            Error::new(ErrorKind::Unauthorized, "the server does not accept the password, or the user name and password")
        }
        Kind::InvalidClientConfig => Error::config(format!("the connection can't be set up: {text}")),
        Kind::Io if error.is_timeout() => silent(None),
        Kind::Io | Kind::ClusterConnectionNotFound => Error::unavailable(format!("the connection to the server failed: {text}")),
        Kind::Parse | Kind::UnexpectedReturnType => {
            Error::unavailable(format!("the server does not speak Redis' language: {text}"))
        }
        _ => Error::unavailable(format!("the server can't be used: {text}")),
    }
}

/// No answer in time.
pub(crate) fn silent(after: Option<Duration>) -> Error {
    let after = after.map(|after| format!(" after {after:?}")).unwrap_or_default();
    Error::timeout(format!("no answer from the server{after}; whether it took effect is not known"))
}

/// No connection in time.
pub(crate) fn unreachable(after: Duration) -> Error {
    Error::unavailable(format!("no connection to the server after {after:?}"))
}

/// An answer that no script of ours gives.
pub(crate) fn strange(what: &str) -> Error {
    Error::internal(format!("the server answered with {what}, which can't be read"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(wire: &str) -> Error {
        explain(redis::parse_redis_value(wire.as_bytes()).unwrap().extract_error().unwrap_err())
    }

    #[test]
    fn codes_become_kinds() {
        for (wire, kind, retryable) in [
            ("-NOAUTH Authentication required.\r\n", ErrorKind::Unauthorized, false),
            ("-WRONGPASS invalid username-password pair or user is disabled.\r\n", ErrorKind::Unauthorized, false),
            ("-NOPERM this user has no permissions to run the 'evalsha' command\r\n", ErrorKind::Unauthorized, false),
            ("-OOM command not allowed when used memory > 'maxmemory'.\r\n", ErrorKind::Throttled, true),
            ("-ERR Error running script (call to f_x): @user_script:1: -OOM command not allowed\r\n", ErrorKind::Throttled, true),
            ("-LOADING Redis is loading the dataset in memory\r\n", ErrorKind::Unavailable, true),
            ("-READONLY You can't write against a read only replica.\r\n", ErrorKind::Unavailable, true),
            ("-MASTERDOWN Link with MASTER is down\r\n", ErrorKind::Unavailable, true),
            ("-CLUSTERDOWN Hash slot not served\r\n", ErrorKind::Unavailable, true),
            ("-ERR max number of clients reached\r\n", ErrorKind::Unavailable, true),
            ("-WRONGTYPE Operation against a key holding the wrong kind of value\r\n", ErrorKind::Corrupt, false),
            ("-ERR unknown command\r\n", ErrorKind::Internal, false),
        ] {
            let error = of(wire);
            assert_eq!((error.kind(), error.is_retryable()), (kind, retryable), "{wire}: {error}");
        }
    }

    #[test]
    fn what_was_refused_is_known_by_its_source() {
        let refused = |error: &Error| {
            let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<io::Error>());
            source.is_some_and(|source| source.kind() == io::ErrorKind::ConnectionRefused)
        };
        assert!(refused(&of("-LOADING Redis is loading the dataset in memory\r\n")));
        assert!(refused(&unsent(&unreachable(Duration::from_secs(1)))));
        assert!(!refused(&explain(io::Error::from(io::ErrorKind::ConnectionReset).into())));
        assert!(!refused(&silent(None)));
    }

    #[test]
    fn connections_that_fail_are_tried_again() {
        let error = explain(io::Error::from(io::ErrorKind::ConnectionReset).into());
        assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Unavailable, true));
        let error = explain(io::Error::from(io::ErrorKind::TimedOut).into());
        assert_eq!(error.kind(), ErrorKind::Timeout);
    }
}
