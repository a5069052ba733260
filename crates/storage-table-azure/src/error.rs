//! What the service's refusals mean.

use azure_core::http::headers::Headers;
use serde_json::Value;
use storage_azure::{refused, retry_after, shown};
use storage_core::{Error, ErrorKind};

/// Codes of the service that something is made of here.
pub(crate) mod code {
    pub(crate) const NO_TABLE: &str = "TableNotFound";
    pub(crate) const NO_ENTITY: &str = "ResourceNotFound";
    pub(crate) const TABLE_EXISTS: &str = "TableAlreadyExists";
    pub(crate) const ENTITY_EXISTS: &str = "EntityAlreadyExists";
    pub(crate) const NOT_THIS_STATE: &str = "UpdateConditionNotSatisfied";
}

/// Why a call failed, with the service's own code where it answered.
#[derive(Debug)]
pub(crate) struct Refusal {
    code: String,
    error: Error,
}

impl Refusal {
    /// The service said no.
    pub(crate) fn answered(status: u16, headers: &Headers, body: &[u8]) -> Self {
        let code =
            serde_json::from_slice(body).ok().and_then(|body: Value| body["odata.error"]["code"].as_str().map(str::to_owned));
        let refusal = Self::of(status, code.unwrap_or_default());
        match retry_after(headers) {
            Some(wait) => Self { error: refusal.error.with_retry_after(wait), ..refusal },
            None => refusal,
        }
    }

    /// As a status and a code say.
    pub(crate) fn of(status: u16, code: String) -> Self {
        let error = answered(status, &code);
        Self { code, error }
    }

    /// Somebody else came first.
    pub(crate) fn overtaken() -> Self {
        Self::of(412, code::NOT_THIS_STATE.to_owned())
    }

    pub(crate) fn map(self, with: impl FnOnce(Error) -> Error) -> Self {
        Self { error: with(self.error), ..self }
    }

    pub(crate) fn is(&self, code: &str) -> bool {
        self.code == code
    }

    pub(crate) fn is_corrupt(&self) -> bool {
        self.error.kind() == ErrorKind::Corrupt
    }

    /// True where the record is not as it was seen: somebody else came first.
    pub(crate) fn is_overtaken(&self) -> bool {
        [code::NO_ENTITY, code::ENTITY_EXISTS, code::NOT_THIS_STATE].iter().any(|code| self.is(code))
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

fn answered(status: u16, code: &str) -> Error {
    let what = shown(status, code);
    match (status, code) {
        (404, code::NO_TABLE) => Error::not_found(format!("the account has no such table ({what}): create it first")),
        (404, _) => Error::not_found(format!("there is no such entity ({what})")),
        (409, "TableBeingDeleted") => {
            Error::unavailable(format!("a table of this name is still being removed, which takes a minute ({what})"))
        }
        (409, _) => Error::already_exists(format!("it is there already ({what})")),
        (412, _) => Error::conflict(format!("another program changed it meanwhile ({what})")),
        (413, _) | (400, "EntityTooLarge" | "RequestBodyTooLarge" | "PropertyValueTooLarge") => {
            Error::invalid(format!("the records are too large for the service ({what}): put large data into a blob"))
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
            (404, "TableNotFound", ErrorKind::NotFound),
            (404, "ResourceNotFound", ErrorKind::NotFound),
            (403, "AuthorizationFailure", ErrorKind::Unauthorized),
            (409, "TableBeingDeleted", ErrorKind::Unavailable),
            (409, "EntityAlreadyExists", ErrorKind::AlreadyExists),
            (412, "UpdateConditionNotSatisfied", ErrorKind::Conflict),
            (413, "RequestBodyTooLarge", ErrorKind::InvalidInput),
            (503, "ServerBusy", ErrorKind::Throttled),
            (500, "OperationTimedOut", ErrorKind::Timeout),
            (500, "InternalError", ErrorKind::Unavailable),
        ];
        for (status, code, kind) in kinds {
            let error = answered(status, code);
            assert_eq!(error.kind(), kind, "{status} {code}");
            assert!(error.message().contains(code));
        }
        let mut headers = Headers::new();
        headers.insert("retry-after", "7");
        let refusal = Refusal::answered(503, &headers, br#"{"odata.error":{"code":"ServerBusy","message":{"value":"hunter2"}}}"#);
        assert!(refusal.is("ServerBusy") && !format!("{refusal:?}").contains("hunter2"));
        assert_eq!(Error::from(refusal).retry_after().map(|wait| wait.as_secs()), Some(7));
    }
}
