//! What NATS says, in the toolkit's terms.

use async_nats::jetstream::context::{PublishError, PublishErrorKind};
use async_nats::{ConnectErrorKind, RequestErrorKind};
use serde_json::Value;
use storage_core::{Error, ErrorKind};

/// JetStream's numbers for what went wrong, as far as we tell them apart.
pub(crate) mod code {
    pub(crate) const ACCOUNT_RESOURCES: u64 = 10_002;
    pub(crate) const CONSUMER_NOT_FOUND: u64 = 10_014;
    pub(crate) const INSUFFICIENT_RESOURCES: u64 = 10_023;
    pub(crate) const MAXIMUM_CONSUMERS: u64 = 10_026;
    pub(crate) const MAXIMUM_STREAMS: u64 = 10_027;
    pub(crate) const MEMORY_RESOURCES: u64 = 10_028;
    pub(crate) const NO_MESSAGE: u64 = 10_037;
    pub(crate) const NOT_ENABLED_FOR_ACCOUNT: u64 = 10_039;
    pub(crate) const STORAGE_RESOURCES: u64 = 10_047;
    pub(crate) const MESSAGE_TOO_LARGE: u64 = 10_054;
    pub(crate) const SEQUENCE_NOT_FOUND: u64 = 10_043;
    pub(crate) const DELETE_FAILED: u64 = 10_057;
    pub(crate) const STREAM_EXISTS: u64 = 10_058;
    pub(crate) const STREAM_NOT_FOUND: u64 = 10_059;
    pub(crate) const SUBJECTS_OVERLAP: u64 = 10_065;
    pub(crate) const WRONG_LAST_SEQUENCE: u64 = 10_071;
    pub(crate) const NOT_ENABLED: u64 = 10_076;
    pub(crate) const STORE_FAILED: u64 = 10_077;
    pub(crate) const HEADERS_TOO_LARGE: u64 = 10_097;
}

/// Why a look into a stream, or a write to one, came to nothing.
#[derive(Debug)]
pub(crate) enum Fault {
    /// There is no such stream.
    NoStream,
    /// What is there was written by somebody who knows more of the table than we do.
    Outdated,
    Error(Error),
}

impl Fault {
    /// What is said of it where nothing closer is known.
    pub(crate) fn into_error(self) -> Error {
        match self {
            Self::NoStream => no_responders(),
            Self::Outdated => Error::conflict("a table was changed meanwhile: try again"),
            Self::Error(error) => error,
        }
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Self {
        if refusal.is_missing_stream() { Self::NoStream } else { Self::Error(refusal.into_error()) }
    }
}

/// JetStream's refusal of a call.
#[derive(Clone, Debug)]
pub(crate) struct Refusal {
    /// Its own number.
    pub(crate) code: u64,
    /// As in HTTP.
    status: u64,
    description: String,
}

impl Refusal {
    pub(crate) fn read(error: &Value) -> Self {
        let number = |name: &str| error.get(name).and_then(Value::as_u64).unwrap_or_default();
        let description = error.get("description").and_then(Value::as_str).unwrap_or("no reason given").to_owned();
        Self { code: number("err_code"), status: number("code"), description }
    }

    pub(crate) fn is_missing_stream(&self) -> bool {
        self.code == code::STREAM_NOT_FOUND
    }

    /// Of what is to be removed: gone, or never there.
    pub(crate) fn is_missing_message(&self) -> bool {
        self.code == code::NO_MESSAGE
            || (self.code == code::DELETE_FAILED && self.description.contains("no message found"))
            || self.code == code::SEQUENCE_NOT_FOUND
    }

    pub(crate) fn into_error(self) -> Error {
        from_code(self.code, self.status, &self.description)
    }
}

fn from_code(number: u64, status: u64, description: &str) -> Error {
    let kind = match number {
        code::STREAM_NOT_FOUND | code::CONSUMER_NOT_FOUND | code::NO_MESSAGE => ErrorKind::NotFound,
        code::STREAM_EXISTS | code::SUBJECTS_OVERLAP => ErrorKind::AlreadyExists,
        code::WRONG_LAST_SEQUENCE => ErrorKind::Conflict,
        code::MESSAGE_TOO_LARGE | code::HEADERS_TOO_LARGE => ErrorKind::InvalidInput,
        // Full: of this stream, of the account, or of the server.
        code::STORE_FAILED
        | code::ACCOUNT_RESOURCES
        | code::INSUFFICIENT_RESOURCES
        | code::STORAGE_RESOURCES
        | code::MEMORY_RESOURCES
        | code::MAXIMUM_STREAMS
        | code::MAXIMUM_CONSUMERS => ErrorKind::Throttled,
        code::NOT_ENABLED | code::NOT_ENABLED_FOR_ACCOUNT => ErrorKind::Unavailable,
        _ => match status {
            401 | 403 => ErrorKind::Unauthorized,
            404 => ErrorKind::NotFound,
            408 => ErrorKind::Timeout,
            503 => ErrorKind::Unavailable,
            _ => ErrorKind::Internal,
        },
    };
    let advice = match number {
        code::NOT_ENABLED => "; start the server with JetStream (`-js`)",
        code::NOT_ENABLED_FOR_ACCOUNT => "; the account has to have JetStream",
        code::STORE_FAILED => "; receive messages, or raise the limit of the stream",
        _ => "",
    };
    let error = Error::new(kind, format!("JetStream: {description} ({number}){advice}"));
    // JetStream is not switched on while a program waits.
    if matches!(number, code::NOT_ENABLED | code::NOT_ENABLED_FOR_ACCOUNT) { error.with_retryable(false) } else { error }
}

/// Why there is no connection. Of the cause nothing is told that may hold a credential: the kind, and what the system says of sockets and files.
pub(crate) fn from_connect(error: &async_nats::ConnectError) -> Error {
    let cause = std::error::Error::source(error).map(|source| format!(": {source}")).unwrap_or_default();
    match error.kind() {
        ConnectErrorKind::AuthorizationViolation => {
            Error::new(ErrorKind::Unauthorized, "the server does not let us in: check user, password, token or credentials file")
        }
        ConnectErrorKind::Authentication => {
            Error::new(ErrorKind::Unauthorized, "the credentials can't be used: check the nkey or the credentials file")
        }
        ConnectErrorKind::ServerParse => Error::config("the address is not one of a NATS server: use nats://host:4222"),
        ConnectErrorKind::Dns => Error::unavailable(format!("the server's name is not known{cause}")),
        ConnectErrorKind::TimedOut => Error::timeout("the server did not answer in time"),
        ConnectErrorKind::Tls => Error::unavailable(format!("TLS can't be spoken with the server: check `tls_ca`{cause}")),
        ConnectErrorKind::Io | ConnectErrorKind::MaxReconnects => {
            Error::unavailable(format!("the server can't be reached{cause}"))
        }
    }
}

pub(crate) fn from_request(error: &async_nats::RequestError) -> Error {
    match error.kind() {
        RequestErrorKind::TimedOut => Error::timeout("no answer in time"),
        RequestErrorKind::NoResponders => no_responders(),
        RequestErrorKind::MaxPayloadExceeded => too_large(),
        RequestErrorKind::InvalidSubject => Error::internal("a subject that NATS does not take"),
        RequestErrorKind::Other => Error::unavailable("the connection was closed or broke"),
    }
}

/// Nobody listens: for a call of JetStream's there is none, or none yet after a restart; for a subject, no stream.
pub(crate) fn no_responders() -> Error {
    Error::unavailable("nobody answers for JetStream: it is not switched on, not in this domain, or still starting")
}

fn too_large() -> Error {
    Error::invalid("the message is larger than the server takes (max_payload): put large data into a blob and send its path")
}

/// Why a message could not be written to the connection.
pub(crate) fn from_write(error: &async_nats::PublishError) -> Error {
    match error.kind() {
        async_nats::client::PublishErrorKind::MaxPayloadExceeded => too_large(),
        async_nats::client::PublishErrorKind::InvalidSubject => Error::internal("a subject that NATS does not take"),
        async_nats::client::PublishErrorKind::Send => Error::unavailable("the connection was closed"),
    }
}

/// Why a message was not stored.
pub(crate) fn from_publish(error: &PublishError) -> Error {
    match error.kind() {
        PublishErrorKind::StreamNotFound => no_responders(),
        PublishErrorKind::WrongLastMessageId | PublishErrorKind::WrongLastSequence => Error::conflict("it is there already"),
        PublishErrorKind::TimedOut => Error::timeout("no acknowledgement in time: the message may have been stored"),
        PublishErrorKind::MaxPayloadExceeded => too_large(),
        PublishErrorKind::BrokenPipe => Error::unavailable("the connection broke: the message may have been stored"),
        PublishErrorKind::MaxAckPending => Error::new(ErrorKind::Throttled, "too many messages wait for their acknowledgement"),
        PublishErrorKind::Other => {
            let source = std::error::Error::source(error);
            match source.and_then(|source| source.downcast_ref::<async_nats::jetstream::Error>()) {
                Some(refusal) => {
                    let status = u64::try_from(refusal.code()).unwrap_or_default();
                    from_code(refusal.error_code().0, status, &refusal.to_string())
                }
                None => Error::unavailable("the connection was closed or broke: the message may have been stored"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn refusals_have_kinds() {
        let kind = |code: u64, status: u64| {
            Refusal::read(&json!({"code": status, "err_code": code, "description": "x"})).into_error().kind()
        };
        assert_eq!(kind(10_059, 404), ErrorKind::NotFound);
        assert_eq!(kind(10_077, 503), ErrorKind::Throttled);
        assert_eq!(kind(10_023, 503), ErrorKind::Throttled);
        assert_eq!(kind(10_054, 400), ErrorKind::InvalidInput);
        assert_eq!(kind(10_008, 503), ErrorKind::Unavailable);
        assert_eq!(kind(1, 400), ErrorKind::Internal);
        let off = Refusal::read(&json!({"code": 503, "err_code": 10_076, "description": "JetStream not enabled"})).into_error();
        assert!(off.kind() == ErrorKind::Unavailable && !off.is_retryable());
    }
}
