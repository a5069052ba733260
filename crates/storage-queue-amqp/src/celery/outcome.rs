//! What became of a task.

use chrono::{DateTime, Utc};
use lapin::BasicProperties;
use lapin::types::ShortString;
use serde_json::{Value, json};
use storage_core::{CallEnd, CallNews, Error, Result};

use crate::wire::Parcel;

/// Why a task failed: as Python shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failure {
    /// The exception's class: `ValueError`, or with its module `shop.errors.OutOfStock`.
    pub kind: String,
    /// What it says.
    pub message: String,
    /// Where it was raised, as text.
    pub traceback: Option<String>,
}

/// The class of failures that say none.
const PLAIN: &str = "RuntimeError";

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

    /// The whole as one text, as Python prints it: where it was raised, and in the last line kind and message.
    #[must_use]
    pub fn to_text(&self) -> String {
        let last = self.to_string();
        match self.traceback.as_deref().map(str::trim_end) {
            Some(traceback) if traceback.ends_with(&last) => traceback.to_owned(),
            Some(traceback) if !traceback.is_empty() => format!("{traceback}\n{last}"),
            _ => last,
        }
    }

    /// From such a text: a program's error output, say. One whose last line names no class is a `RuntimeError`.
    #[must_use]
    pub fn from_text(text: &str) -> Self {
        let text = text.trim_end();
        let last = text.lines().next_back().unwrap_or_default();
        let (kind, message) = class_in(last).unwrap_or((PLAIN, last));
        Self { kind: kind.to_owned(), message: message.to_owned(), traceback: Some(text.to_owned()) }
    }

    /// The module that Python looks for the class in, and the class's own name.
    fn place(&self) -> (&str, &str) {
        match (self.kind.rsplit_once('.'), &self.kind[..]) {
            (Some((module, name)), _) => (module, name),
            (None, "NotRegistered" | "TaskRevokedError" | "Reject" | "Retry" | "MaxRetriesExceededError") => {
                ("celery.exceptions", &self.kind)
            }
            (None, name) => ("builtins", name),
        }
    }
}

/// The class that a line names, and what it says: `exit code 1: ValueError: no such thing`.
fn class_in(line: &str) -> Option<(&str, &str)> {
    let mut rest = line;
    loop {
        let (part, more) = rest.split_once(": ").unwrap_or((rest, ""));
        if is_class(part) {
            return Some((part, more));
        }
        if more.is_empty() {
            return None;
        }
        rest = more;
    }
}

/// True for what looks like an exception's class: `ValueError`, `shop.errors.OutOfStock`.
fn is_class(text: &str) -> bool {
    let is_name = |part: &str| part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') && !part.is_empty();
    let name = text.rsplit('.').next().unwrap_or_default();
    name.len() > 2
        && name.starts_with(|c: char| c.is_ascii_uppercase())
        && name.contains(|c: char| c.is_ascii_lowercase())
        && text.split('.').all(is_name)
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.message.is_empty() { f.write_str(&self.kind) } else { write!(f, "{}: {}", self.kind, self.message) }
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

impl From<&CallEnd> for Outcome {
    fn from(end: &CallEnd) -> Self {
        match end {
            CallEnd::Succeeded(value) => Self::Success(value.clone()),
            CallEnd::Failed(text) => Self::Failure(Failure::from_text(text)),
            CallEnd::Cancelled(why) => Self::Revoked(why.clone()),
        }
    }
}

impl From<Outcome> for CallEnd {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Success(value) => Self::Succeeded(value),
            Outcome::Failure(failure) => Self::Failed(failure.to_text()),
            Outcome::Revoked(why) => Self::Cancelled(why),
        }
    }
}

/// What a result backend says of a task.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum State {
    /// It waits, or is to be tried again.
    Waiting,
    Started,
    Ended(Outcome),
}

impl State {
    pub(super) fn news(self) -> Option<CallNews> {
        match self {
            Self::Waiting => None,
            Self::Started => Some(CallNews::Started),
            Self::Ended(outcome) => Some(CallNews::Ended(outcome.into())),
        }
    }

    pub(super) fn outcome(self) -> Option<Outcome> {
        match self {
            Self::Ended(outcome) => Some(outcome),
            _ => None,
        }
    }
}

/// A result as Celery keeps it, in its key or in its message.
pub(super) fn write(id: &str, outcome: &Outcome, at: DateTime<Utc>) -> Result<Vec<u8>> {
    let exception =
        |kind: &str, message: &str, module: &str| json!({"exc_type": kind, "exc_message": [message], "exc_module": module});
    let (status, result, traceback) = match outcome {
        Outcome::Success(value) => ("SUCCESS", value.clone(), None),
        Outcome::Failure(failure) => {
            let text = failure.traceback.clone().unwrap_or_else(|| failure.to_string());
            let (module, kind) = failure.place();
            ("FAILURE", exception(kind, &failure.message, module), Some(text))
        }
        Outcome::Revoked(why) => ("REVOKED", exception("TaskRevokedError", why, "celery.exceptions"), None),
    };
    let at = at.format("%Y-%m-%dT%H:%M:%S%.6f+00:00").to_string();
    let body =
        json!({"task_id": id, "status": status, "result": result, "traceback": traceback, "children": [], "date_done": at});
    Ok(serde_json::to_vec(&body)?)
}

/// The message that tells of it.
pub(super) fn reply(id: &str, outcome: &Outcome) -> Result<Parcel> {
    let body = write(id, outcome, Utc::now())?;
    let id = ShortString::try_new(id).map_err(|_| Error::invalid("a task's id of more than 255 bytes"))?;
    let properties = BasicProperties::default()
        .with_content_type("application/json".into())
        .with_content_encoding("utf-8".into())
        .with_correlation_id(id)
        // As Celery's own results: they are of no use when whoever waits for them has gone.
        .with_delivery_mode(1);
    Ok(Parcel { body: body.into(), properties })
}

/// The task's id, and what is known of it.
pub(super) fn read(body: &[u8]) -> Result<(String, State)> {
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
    let state = match reply["status"].as_str() {
        Some("SUCCESS") => State::Ended(Outcome::Success(result.clone())),
        Some("FAILURE") => State::Ended(Outcome::Failure(Failure {
            kind: result["exc_type"].as_str().unwrap_or("Exception").to_owned(),
            message: message(),
            traceback: reply["traceback"].as_str().map(str::to_owned),
        })),
        Some("REVOKED") => State::Ended(Outcome::Revoked(message())),
        Some("STARTED") => State::Started,
        _ => State::Waiting,
    };
    Ok((id, state))
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
            assert_eq!(read(&parcel.body).unwrap(), ("id".to_owned(), State::Ended(outcome)));
        }
        assert_eq!(read(br#"{"task_id": "x", "status": "STARTED", "result": null}"#).unwrap().1, State::Started);
        assert_eq!(read(br#"{"task_id": "x", "status": "RETRY", "result": null}"#).unwrap().1, State::Waiting);
        assert!(read(b"{}").is_err());
    }

    #[test]
    fn failures_are_texts_as_python_prints_them() {
        let traceback = "Traceback (most recent call last):\n  File \"a.py\", line 7\nshop.errors.OutOfStock: no more tea: sorry";
        let failure = Failure::from_text(&format!("{traceback}\n"));
        assert_eq!((&failure.kind[..], &failure.message[..]), ("shop.errors.OutOfStock", "no more tea: sorry"));
        assert_eq!(failure.place(), ("shop.errors", "OutOfStock"));
        assert_eq!(failure.to_text(), traceback);
        // Python's results name the class alone: the text keeps the one line.
        let short = Failure { kind: "OutOfStock".into(), ..failure };
        assert_eq!(short.to_text(), traceback);
        assert_eq!(Failure::new("KeyError", "").to_text(), "KeyError");
        assert_eq!(Failure::new("E", "m").traceback("in Rust, at src/main.rs:7").to_text(), "in Rust, at src/main.rs:7\nE: m");
        let after_code = Failure::from_text("exit code 3: ValueError: no such task: 7");
        assert_eq!((&after_code.kind[..], &after_code.message[..]), ("ValueError", "no such task: 7"));
        for plain in ["exit code 3", "exit code 1: sh: no such file", "CRITICAL: full", "", "note: it failed"] {
            let failure = Failure::from_text(plain);
            assert_eq!((&failure.kind[..], &failure.message[..]), (PLAIN, plain), "{plain}");
        }
    }
}
