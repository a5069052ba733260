//! What the service's refusals and the client's failures mean.

use azure_core::error::ErrorKind as AzureKind;
use storage_azure::{refused, retry_after, shown, unanswered};
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
        let wait = raw_response.as_ref().and_then(|response| retry_after(response.headers()));
        let error = answered(status, &code);
        let error = if let Some(wait) = wait { error.with_retry_after(wait) } else { error };
        Self { code, error }
    }
}

/// The service said no.
fn answered(status: u16, code: &str) -> Error {
    let what = shown(status, code);
    match (status, code) {
        (404, code::NO_MESSAGE) | (400, "PopReceiptMismatch") => {
            Error::lease_lost(format!("the lease has ended, or the receipt is not the newest ({what})"))
        }
        (404, _) => Error::not_found(format!("there is no such queue ({what})")),
        (409, "QueueBeingDeleted") => {
            Error::unavailable(format!("a queue of this name is still being removed, which takes half a minute ({what})"))
        }
        (409, _) => Error::already_exists(format!("it is there already, and is another ({what})")),
        (413, _) | (400, "MessageTooLarge" | "RequestBodyTooLarge") => {
            Error::invalid(format!("the message is too large for the service ({what})"))
        }
        _ => refused(status, code),
    }
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
