//! What the service's refusals and the client's failures mean.

use std::time::Duration;

use azure_core::error::ErrorKind as AzureKind;
use azure_core::http::headers::RETRY_AFTER;
use storage_core::{Error, ErrorKind};

/// Codes of the service that something is made of here.
pub(crate) mod code {
    pub(crate) const NO_QUEUE: &str = "QueueNotFound";
    pub(crate) const NO_MESSAGE: &str = "MessageNotFound";
    pub(crate) const QUEUE_EXISTS: &str = "QueueAlreadyExists";
}

/// Why a call failed, with the service's own code where it answered.
#[derive(Debug)]
pub(crate) struct Refusal {
    code: String,
    error: Error,
}

impl Refusal {
    pub(crate) fn is(&self, code: &str) -> bool {
        self.code == code
    }

    pub(crate) fn kind(&self) -> ErrorKind {
        self.error.kind()
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self { code: String::new(), error }
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        refusal.error
    }
}

impl From<azure_core::Error> for Refusal {
    fn from(error: azure_core::Error) -> Self {
        let AzureKind::HttpResponse { status, error_code, raw_response } = error.kind() else {
            return unanswered(error).into();
        };
        let code = error_code.clone().unwrap_or_default();
        let status: u16 = **status;
        let header = raw_response.as_ref().and_then(|response| response.headers().get_optional_str(&RETRY_AFTER));
        let wait = header.and_then(|seconds| seconds.trim().parse().ok()).map(Duration::from_secs);
        let error = answered(status, &code);
        let error = if let Some(wait) = wait { error.with_retry_after(wait) } else { error };
        Self { code, error }
    }
}

/// The service said no. Of its words its code alone is repeated: they may hold what was signed.
fn answered(status: u16, code: &str) -> Error {
    let known = !code.is_empty() && code.len() <= 64 && code.bytes().all(|b| b.is_ascii_alphanumeric());
    let what = if known { format!("{status} {code}") } else { status.to_string() };
    match (status, code) {
        (404, code::NO_MESSAGE) | (400, "PopReceiptMismatch") => {
            Error::lease_lost(format!("the lease has ended, or the receipt is not the newest ({what})"))
        }
        (404, _) => Error::not_found(format!("there is no such queue ({what})")),
        (401 | 403, _) => Error::new(
            ErrorKind::Unauthorized,
            format!(
                "the service refuses the credentials ({what}): check account, key or signature and its permissions, and the clock"
            ),
        ),
        (409, "QueueBeingDeleted") => {
            Error::unavailable(format!("a queue of this name is still being removed, which takes half a minute ({what})"))
        }
        (409, _) => Error::already_exists(format!("it is there already, and is another ({what})")),
        (413, _) | (400, "MessageTooLarge" | "RequestBodyTooLarge") => {
            Error::invalid(format!("the message is too large for the service ({what})"))
        }
        (429, _) | (503, "ServerBusy") => Error::new(ErrorKind::Throttled, format!("the service asks to slow down ({what})")),
        (408 | 504, _) | (500 | 503, "OperationTimedOut") => Error::timeout(format!("the service was too slow ({what})")),
        (400, _) => Error::invalid(format!("the service can't accept this ({what})")),
        (500.., _) => Error::unavailable(format!("the service can't serve now ({what})")),
        _ => Error::new(ErrorKind::Internal, format!("an answer of the service that was not expected ({what})")),
    }
}

/// There is no answer, or none that can be read. Addresses are left out of what is said: they may hold a signature.
fn unanswered(error: azure_core::Error) -> Error {
    let kind = error.kind().clone();
    let cause = match error.into_downcast::<reqwest::Error>() {
        Ok(cause) => cause.without_url(),
        Err(other) => return unanswered_otherwise(&kind, &other),
    };
    if cause.is_timeout() && !cause.is_connect() {
        return Error::timeout("the service does not answer in time").with_source(cause);
    }
    let what = if cause.is_connect() { "the service can't be reached" } else { "the connection to the service broke" };
    Error::unavailable(what).with_source(cause)
}

fn unanswered_otherwise(kind: &AzureKind, error: &azure_core::Error) -> Error {
    match kind {
        AzureKind::Connection => Error::unavailable("the service can't be reached"),
        AzureKind::Io => Error::unavailable("the connection to the service broke"),
        AzureKind::DataConversion => Error::unavailable("the service's answer can't be read"),
        AzureKind::Credential => {
            Error::new(ErrorKind::Unauthorized, format!("no token is to be had from Entra ID: {}", shortened(&error.to_string())))
        }
        _ => Error::new(ErrorKind::Internal, "the client failed"),
    }
}

/// The first line, as far as a person reads.
fn shortened(text: &str) -> String {
    text.lines().next().unwrap_or_default().chars().take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_told_apart() {
        let kinds = [
            (404, "QueueNotFound", ErrorKind::NotFound),
            (404, "MessageNotFound", ErrorKind::LeaseLost),
            (400, "PopReceiptMismatch", ErrorKind::LeaseLost),
            (403, "AuthenticationFailed", ErrorKind::Unauthorized),
            (409, "QueueAlreadyExists", ErrorKind::AlreadyExists),
            (409, "QueueBeingDeleted", ErrorKind::Unavailable),
            (413, "RequestBodyTooLarge", ErrorKind::InvalidInput),
            (503, "ServerBusy", ErrorKind::Throttled),
            (500, "OperationTimedOut", ErrorKind::Timeout),
            (500, "InternalError", ErrorKind::Unavailable),
            (302, "", ErrorKind::Internal),
        ];
        for (status, code, kind) in kinds {
            let error = answered(status, code);
            assert_eq!(error.kind(), kind, "{status} {code}");
            assert!(error.message().contains(code));
        }
        assert!(!answered(403, "key was hunter2").message().contains("hunter2"));
    }
}
