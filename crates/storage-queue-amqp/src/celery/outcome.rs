//! What became of a task.

use lapin::BasicProperties;
use lapin::types::ShortString;
use serde_json::{Value, json};
use storage_core::{Error, Result};

use crate::wire::Parcel;

/// Why a task failed: as Python shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failure {
    /// The exception's class: `ValueError`.
    pub kind: String,
    /// What it says.
    pub message: String,
    /// Where it was raised, as text.
    pub traceback: Option<String>,
}

impl Failure {
    /// A failure as of Python's exception `kind`.
    pub fn new(kind: impl Into<String>, message: impl Into<String>) -> Self {
        Self { kind: kind.into(), message: message.into(), traceback: None }
    }

    /// Says where it came from.
    #[must_use]
    pub fn traceback(mut self, text: impl Into<String>) -> Self {
        self.traceback = Some(text.into());
        self
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.kind, self.message)
    }
}

impl std::error::Error for Failure {}

/// What became of a task.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It answered this.
    Success(Value),
    /// It failed.
    Failure(Failure),
    /// It was not run: it had expired, or somebody revoked it.
    Revoked(String),
}

/// The message that tells of it.
pub(super) fn reply(id: &str, outcome: &Outcome) -> Result<Parcel> {
    let exception =
        |kind: &str, message: &str, module: &str| json!({"exc_type": kind, "exc_message": [message], "exc_module": module});
    let (status, result, traceback) = match outcome {
        Outcome::Success(value) => ("SUCCESS", value.clone(), None),
        Outcome::Failure(failure) => {
            let text = failure.traceback.clone().unwrap_or_else(|| failure.to_string());
            ("FAILURE", exception(&failure.kind, &failure.message, "builtins"), Some(text))
        }
        Outcome::Revoked(why) => ("REVOKED", exception("TaskRevokedError", why, "celery.exceptions"), None),
    };
    let body = json!({"task_id": id, "status": status, "result": result, "traceback": traceback, "children": []});
    let id = ShortString::try_new(id).map_err(|_| Error::invalid("a task's id of more than 255 bytes"))?;
    let properties = BasicProperties::default()
        .with_content_type("application/json".into())
        .with_content_encoding("utf-8".into())
        .with_correlation_id(id)
        .with_delivery_mode(1);
    Ok(Parcel { body: serde_json::to_vec(&body)?.into(), properties })
}

/// The task's id and what became of it; `None` while it has not ended.
pub(super) fn read(body: &[u8]) -> Result<(String, Option<Outcome>)> {
    let reply: Value = serde_json::from_slice(body)?;
    let id = reply["task_id"].as_str().ok_or_else(|| Error::invalid("a result without a task"))?.to_owned();
    let result = &reply["result"];
    let message = || match &result["exc_message"] {
        Value::String(text) => text.clone(),
        Value::Array(parts) => {
            let text = |part: &Value| part.as_str().map_or_else(|| part.to_string(), str::to_owned);
            parts.iter().map(text).collect::<Vec<_>>().join(", ")
        }
        Value::Null => result.as_str().unwrap_or_default().to_owned(),
        other => other.to_string(),
    };
    let outcome = match reply["status"].as_str() {
        Some("SUCCESS") => Some(Outcome::Success(result.clone())),
        Some("FAILURE") => Some(Outcome::Failure(Failure {
            kind: result["exc_type"].as_str().unwrap_or("Exception").to_owned(),
            message: message(),
            traceback: reply["traceback"].as_str().map(str::to_owned),
        })),
        Some("REVOKED") => Some(Outcome::Revoked(message())),
        _ => None,
    };
    Ok((id, outcome))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_come_back_as_they_were() {
        let failure = Failure::new("ValueError", "no such thing").traceback("Traceback …");
        for outcome in [Outcome::Success(json!({"a": [1, null]})), Outcome::Failure(failure), Outcome::Revoked("expired".into())]
        {
            let parcel = reply("id", &outcome).unwrap();
            assert_eq!(read(&parcel.body).unwrap(), ("id".to_owned(), Some(outcome)));
        }
        assert_eq!(read(br#"{"task_id": "x", "status": "STARTED", "result": null}"#).unwrap().1, None);
        assert!(read(b"{}").is_err());
    }
}
