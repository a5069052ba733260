//! What the broker and the client say, in the toolkit's terms.

use std::time::Duration;

use lapin::ErrorKind as Lapin;
use lapin::protocol::{AMQPErrorKind, AMQPHardError, AMQPSoftError};
use storage_core::{Error, ErrorKind, Result};

/// How long a broker with an alarm is left alone.
const ALARM_PAUSE: Duration = Duration::from_secs(1);

/// An error of the client library.
pub(crate) fn lapin(error: lapin::Error) -> Error {
    let kind = match error.kind() {
        Lapin::ProtocolError(protocol) => match protocol.kind() {
            AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED) => ErrorKind::Unauthorized,
            AMQPErrorKind::Soft(AMQPSoftError::NOTFOUND) => ErrorKind::NotFound,
            // Also what a broker says of a queue that is being moved or has lost its nodes.
            AMQPErrorKind::Soft(AMQPSoftError::RESOURCELOCKED) => ErrorKind::Unavailable,
            AMQPErrorKind::Soft(AMQPSoftError::CONTENTTOOLARGE) => ErrorKind::InvalidInput,
            AMQPErrorKind::Soft(AMQPSoftError::PRECONDITIONFAILED) => precondition(protocol.get_message().as_str()),
            AMQPErrorKind::Soft(_) => ErrorKind::Unavailable,
            AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED) => ErrorKind::Unauthorized,
            AMQPErrorKind::Hard(AMQPHardError::NOTIMPLEMENTED) => ErrorKind::Unsupported,
            AMQPErrorKind::Hard(
                AMQPHardError::CONNECTIONFORCED | AMQPHardError::INTERNALERROR | AMQPHardError::RESOURCEERROR,
            ) => ErrorKind::Unavailable,
            AMQPErrorKind::Hard(_) => ErrorKind::Internal,
        },
        Lapin::AuthProviderError(_) => ErrorKind::Unauthorized,
        Lapin::InvalidProtocolVersion(_) => ErrorKind::Config,
        Lapin::SerialisationError(_) => ErrorKind::InvalidInput,
        Lapin::IOError(_)
        | Lapin::MissingHeartbeatError
        | Lapin::InvalidChannel(_)
        | Lapin::InvalidChannelState(..)
        | Lapin::InvalidConnectionState(_)
        | Lapin::RuntimeShutdownError(_)
        | Lapin::ChannelsLimitReached
        | Lapin::ParsingError(_) => ErrorKind::Unavailable,
        _ => ErrorKind::Internal,
    };
    let message = match kind {
        ErrorKind::Unauthorized => format!("the broker refuses: check user, password, virtual host and permissions ({error})"),
        ErrorKind::Unavailable => format!("the broker can't be reached, or the connection broke ({error})"),
        _ => error.to_string(),
    };
    Error::new(kind, message).with_source(error)
}

fn precondition(text: &str) -> ErrorKind {
    if text.contains("inequivalent arg") {
        ErrorKind::AlreadyExists
    } else if text.contains("unknown delivery tag") || text.contains("timeout") || text.contains("timed out") {
        // The channel was closed over a lease: another one works.
        ErrorKind::Unavailable
    } else {
        ErrorKind::InvalidInput
    }
}

pub(crate) fn no_queue(name: &str) -> Error {
    Error::not_found(format!("the broker has no queue `{name}`"))
}

pub(crate) fn no_answer(after: Duration) -> Error {
    Error::timeout(format!("the broker did not answer within {after:?}"))
}

/// The broker takes nothing now: memory or disk are short.
pub(crate) fn blocked() -> Error {
    Error::new(ErrorKind::Throttled, "the broker has raised an alarm (memory or disk) and takes no messages now")
        .with_retry_after(ALARM_PAUSE)
}

/// What comes of `work`, unless it takes longer than it may.
pub(crate) async fn within<T>(limit: Duration, work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::time::timeout(limit, work).await.unwrap_or_else(|_| Err(no_answer(limit)))
}
