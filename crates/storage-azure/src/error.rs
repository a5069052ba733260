//! What a service's refusals and the official client's failures mean.

use std::time::Duration;

use azure_core::error::ErrorKind as AzureKind;
use azure_core::http::headers::{Headers, RETRY_AFTER};
use storage_core::{Error, ErrorKind};

/// A refusal in a message: its status, and its code if that is one. Nothing else of a service's words is repeated: they may hold what was signed.
#[must_use]
pub fn shown(status: u16, code: &str) -> String {
    let known = !code.is_empty() && code.len() <= 64 && code.bytes().all(|b| b.is_ascii_alphanumeric());
    if known { format!("{status} {code}") } else { status.to_string() }
}

/// How long the service asks to wait.
#[must_use]
pub fn retry_after(headers: &Headers) -> Option<Duration> {
    let seconds = headers.get_optional_str(&RETRY_AFTER)?;
    seconds.trim().parse().ok().map(Duration::from_secs)
}

/// What a refusal means that means the same in every service.
#[must_use]
pub fn refused(status: u16, code: &str) -> Error {
    let what = shown(status, code);
    match (status, code) {
        (401 | 403, _) => Error::new(
            ErrorKind::Unauthorized,
            format!(
                "the service refuses the credentials ({what}): check account, key or signature and its permissions, and the clock"
            ),
        ),
        (429, _) | (503, "ServerBusy") => Error::new(ErrorKind::Throttled, format!("the service asks to slow down ({what})")),
        (408 | 504, _) | (500 | 503, "OperationTimedOut") => Error::timeout(format!("the service was too slow ({what})")),
        (400, _) => Error::invalid(format!("the service can't accept this ({what})")),
        (500.., _) => Error::unavailable(format!("the service can't serve now ({what})")),
        _ => Error::new(ErrorKind::Internal, format!("an answer of the service that was not expected ({what})")),
    }
}

/// There is no answer, or none that can be read. Addresses are left out of what is said: they may hold a signature.
#[must_use]
pub fn unanswered(error: azure_core::Error) -> Error {
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
