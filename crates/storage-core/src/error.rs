//! The one error type of the toolkit.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use crate::BackendInfo;

/// Shorthand for a result with the toolkit's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, in terms a program can act on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The table, record, queue, message or blob is not there.
    NotFound,
    /// It is there already, or a unique value is taken.
    AlreadyExists,
    /// Somebody else changed it meanwhile: read again, then decide.
    Conflict,
    /// The message's lease ended and the message may be with another consumer.
    LeaseLost,
    /// The caller's data can't be accepted as it stands.
    InvalidInput,
    /// The backend does not offer this (see its capabilities).
    Unsupported,
    /// Credentials are missing, wrong or not allowed to do this.
    Unauthorized,
    /// The service asks to slow down.
    Throttled,
    /// No answer in time; whether it took effect is not known.
    Timeout,
    /// The service can't be reached or can't serve now.
    Unavailable,
    /// Stored data is damaged or was not written by this toolkit.
    Corrupt,
    /// The configuration is wrong.
    Config,
    /// A bug, or a failure that fits nothing above.
    Internal,
}

impl ErrorKind {
    /// The kind's name in kebab case: `not-found`, `lease-lost`, …
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotFound => "not-found",
            Self::AlreadyExists => "already-exists",
            Self::Conflict => "conflict",
            Self::LeaseLost => "lease-lost",
            Self::InvalidInput => "invalid-input",
            Self::Unsupported => "unsupported",
            Self::Unauthorized => "unauthorized",
            Self::Throttled => "throttled",
            Self::Timeout => "timeout",
            Self::Unavailable => "unavailable",
            Self::Corrupt => "corrupt",
            Self::Config => "config",
            Self::Internal => "internal",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An error: its [`kind`](Error::kind), what was being done to what on which backend, what went wrong, and the cause.
///
/// One pointer wide, so that `Result<T>` stays small on hot paths.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    backend: Option<String>,
    operation: Option<&'static str>,
    subject: Option<String>,
    message: String,
    failed_write: Option<usize>,
    retry_after: Option<Duration>,
    retryable: Option<bool>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error of `kind` with a message for a person: what went wrong and what to do.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            backend: None,
            operation: None,
            subject: None,
            message: message.into(),
            failed_write: None,
            retry_after: None,
            retryable: None,
            source: None,
        }))
    }

    /// [`ErrorKind::NotFound`].
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotFound, message)
    }

    /// [`ErrorKind::AlreadyExists`].
    pub fn already_exists(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::AlreadyExists, message)
    }

    /// [`ErrorKind::Conflict`].
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Conflict, message)
    }

    /// [`ErrorKind::LeaseLost`].
    pub fn lease_lost(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::LeaseLost, message)
    }

    /// [`ErrorKind::InvalidInput`].
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidInput, message)
    }

    /// [`ErrorKind::Unsupported`].
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unsupported, message)
    }

    /// [`ErrorKind::Timeout`].
    pub fn timeout(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Timeout, message)
    }

    /// [`ErrorKind::Unavailable`].
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unavailable, message)
    }

    /// [`ErrorKind::Corrupt`].
    pub fn corrupt(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Corrupt, message)
    }

    /// [`ErrorKind::Config`].
    pub fn config(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Config, message)
    }

    /// [`ErrorKind::Internal`].
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }

    /// Names the backend, unless an inner layer named one already.
    #[must_use]
    pub fn with_backend(mut self, backend: impl fmt::Display) -> Self {
        if self.0.backend.is_none() {
            self.0.backend = Some(backend.to_string());
        }
        self
    }

    /// Names the operation (`records.commit`), unless an inner layer named one already.
    #[must_use]
    pub fn with_operation(mut self, operation: &'static str) -> Self {
        self.0.operation.get_or_insert(operation);
        self
    }

    /// Names what was being worked on (``table `jobs` ``), unless an inner layer named it already.
    #[must_use]
    pub fn with_subject(mut self, subject: impl fmt::Display) -> Self {
        if self.0.subject.is_none() {
            self.0.subject = Some(subject.to_string());
        }
        self
    }

    /// Keeps the error that caused this one.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Says which write of a batch (counted from 0) could not be done.
    #[must_use]
    pub fn with_failed_write(mut self, index: usize) -> Self {
        self.0.failed_write = Some(index);
        self
    }

    /// Says how long the service asked to wait before the next try.
    #[must_use]
    pub fn with_retry_after(mut self, wait: Duration) -> Self {
        self.0.retry_after = Some(wait);
        self
    }

    /// Overrides what [`is_retryable`](Self::is_retryable) would say from the kind.
    #[must_use]
    pub fn with_retryable(mut self, retryable: bool) -> Self {
        self.0.retryable = Some(retryable);
        self
    }

    /// Says of a write that was not answered what its kind does not: it may have been done all the same. Other errors stay as they are.
    #[must_use]
    pub fn of_unanswered_write(self) -> Self {
        if !matches!(self.kind(), ErrorKind::Timeout | ErrorKind::Unavailable) {
            return self;
        }
        let message = format!("{}; it may have been written all the same: read the record before trying again", self.message());
        let unknown = Self::new(self.kind(), message).with_retryable(self.is_retryable());
        let unknown = match self.retry_after() {
            Some(wait) => unknown.with_retry_after(wait),
            None => unknown,
        };
        let unknown = match self.subject() {
            Some(subject) => unknown.with_subject(subject),
            None => unknown,
        };
        unknown.with_source(self)
    }

    /// What went wrong, for a program.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The backend that failed: driver and location, without secrets.
    #[must_use]
    pub fn backend(&self) -> Option<&str> {
        self.0.backend.as_deref()
    }

    /// The operation that failed, as `component.verb`.
    #[must_use]
    pub fn operation(&self) -> Option<&'static str> {
        self.0.operation
    }

    /// What was being worked on.
    #[must_use]
    pub fn subject(&self) -> Option<&str> {
        self.0.subject.as_deref()
    }

    /// What went wrong, for a person, without the context that [`Display`](fmt::Display) adds.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The write of a batch (counted from 0) that could not be done.
    #[must_use]
    pub fn failed_write(&self) -> Option<usize> {
        self.0.failed_write
    }

    /// How long the service asked to wait.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// True where the very same call may succeed later without the caller changing anything.
    ///
    /// It does not say that a repetition is *safe*: an append that timed out may have happened.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.0.retryable.unwrap_or(matches!(self.0.kind, ErrorKind::Throttled | ErrorKind::Timeout | ErrorKind::Unavailable))
    }

    /// A second error that says the same, for callers that share one outcome. The source becomes text.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        let inner = &self.0;
        Self(Box::new(Inner {
            kind: inner.kind,
            backend: inner.backend.clone(),
            operation: inner.operation,
            subject: inner.subject.clone(),
            message: inner.message.clone(),
            failed_write: inner.failed_write,
            retry_after: inner.retry_after,
            retryable: inner.retryable,
            source: inner.source.as_ref().map(|s| s.to_string().into()),
        }))
    }
}

impl fmt::Display for Error {
    /// `records.commit on table `jobs` (sqlite app.db): conflict at write 2: expected version 3, found 4`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &self.0;
        let mut has_context = false;
        if let Some(operation) = inner.operation {
            f.write_str(operation)?;
            has_context = true;
        }
        if let Some(subject) = &inner.subject {
            if has_context {
                f.write_str(" on ")?;
            }
            f.write_str(subject)?;
            has_context = true;
        }
        if let Some(backend) = &inner.backend {
            if has_context {
                f.write_str(" ")?;
            }
            write!(f, "({backend})")?;
            has_context = true;
        }
        if has_context {
            f.write_str(": ")?;
        }
        write!(f, "{}", inner.kind)?;
        if let Some(index) = inner.failed_write {
            write!(f, " at write {index}")?;
        }
        write!(f, ": {}", inner.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")?;
        if let Some(source) = &self.0.source {
            write!(f, " (caused by: {source})")?;
        }
        Ok(())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|s| s as _)
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        use std::io::ErrorKind as Io;
        let (kind, message) = match error.kind() {
            Io::NotFound => (ErrorKind::NotFound, "the file or folder is not there"),
            Io::PermissionDenied => (ErrorKind::Unauthorized, "permission denied: check who owns the file or folder"),
            Io::ReadOnlyFilesystem => (ErrorKind::Unauthorized, "the file system is read-only"),
            Io::AlreadyExists => (ErrorKind::AlreadyExists, "the file or folder is there already"),
            Io::StorageFull => (ErrorKind::Unavailable, "the disk is full: free some space and try again"),
            Io::QuotaExceeded => (ErrorKind::Unavailable, "the disk quota is used up"),
            Io::TimedOut => (ErrorKind::Timeout, "no answer in time"),
            Io::ConnectionRefused | Io::ConnectionReset | Io::ConnectionAborted | Io::NotConnected | Io::BrokenPipe => {
                (ErrorKind::Unavailable, "the connection failed")
            }
            _ => (ErrorKind::Internal, "input/output failed"),
        };
        // A full disk does not empty itself while a retry loop runs.
        let full = matches!(error.kind(), Io::StorageFull | Io::QuotaExceeded);
        let converted = Self::new(kind, format!("{message} ({error})"));
        let converted = if full { converted.with_retryable(false) } else { converted };
        converted.with_source(error)
    }
}

/// So that what takes `impl TryInto<TableName>` also takes a `TableName`.
impl From<std::convert::Infallible> for Error {
    fn from(never: std::convert::Infallible) -> Self {
        match never {}
    }
}

impl From<serde_json::Error> for Error {
    fn from(error: serde_json::Error) -> Self {
        Self::invalid(format!("not the JSON that was expected: {error}")).with_source(error)
    }
}

/// Adds context to the error of a result.
pub trait ResultExt<T> {
    /// See [`Error::with_operation`] and [`Error::with_subject`].
    ///
    /// # Errors
    /// The same error, with the context.
    fn context(self, operation: &'static str, subject: impl FnOnce() -> String) -> Result<T>;

    /// The same, and [`Error::with_backend`]: what a store adds to the errors of its backend.
    ///
    /// # Errors
    /// The same error, with the context.
    fn explain(self, backend: &BackendInfo, operation: &'static str, subject: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<Error>> ResultExt<T> for Result<T, E> {
    fn context(self, operation: &'static str, subject: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|e| e.into().with_operation(operation).with_subject(subject()))
    }

    fn explain(self, backend: &BackendInfo, operation: &'static str, subject: impl FnOnce() -> String) -> Result<T> {
        self.context(operation, subject).map_err(|e| e.with_backend(backend))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_pointer_wide() {
        assert_eq!(size_of::<Error>(), size_of::<usize>());
    }

    #[test]
    fn display_puts_context_before_the_message() {
        let error = Error::conflict("expected version 3, found 4")
            .with_failed_write(2)
            .with_operation("records.commit")
            .with_subject("table `jobs`")
            .with_backend("sqlite app.db");
        assert_eq!(
            error.to_string(),
            "records.commit on table `jobs` (sqlite app.db): conflict at write 2: expected version 3, found 4"
        );
    }

    #[test]
    fn inner_context_wins() {
        let error = Error::timeout("x").with_operation("blobs.put").with_operation("sync");
        assert_eq!(error.operation(), Some("blobs.put"));
    }

    #[test]
    fn a_full_disk_is_not_retried() {
        let error = Error::from(std::io::Error::from(std::io::ErrorKind::StorageFull));
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(!error.is_retryable());
        assert!(Error::throttled_for_test().is_retryable());
    }

    impl Error {
        fn throttled_for_test() -> Self {
            Self::new(ErrorKind::Throttled, "slow down")
        }
    }
}
