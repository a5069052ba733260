//! [`Task`]: a task as a message holds it.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};
use storage_core::{Error, Result, clock};

/// A task: its name, what it is called with, and when.
///
/// As JSON it is the body of a message of a queue at `celery+amqp://`, sent and received. All but `task` can be left out of what is sent; of what is
/// received, `root_id`, `parent_id`, `reply_to`, `retries`, `origin`, `ignore_result` and `embed` say more, and are kept when it is sent again.
///
/// ```
/// use serde_json::json;
/// use storage_queue_amqp::celery::Task;
/// let task = Task::new("shop.add").arg(2).arg(3).then(Task::new("shop.mul").arg(10));
/// let json = json!({"task": "shop.add", "args": [2, 3], "kwargs": {}, "chain": [{"task": "shop.mul", "args": [10], "kwargs": {}}]});
/// assert_eq!(serde_json::to_value(&task)?, json);
/// assert_eq!(serde_json::from_value::<Task>(json)?, task);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Task {
    /// The name that it has in the app: `module.function`.
    pub task: String,
    /// Positional arguments.
    #[serde(default)]
    pub args: Vec<Value>,
    /// Keyword arguments.
    #[serde(default)]
    pub kwargs: Map<String, Value>,
    /// Its id: a fresh one, where it is sent without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Not to be run before that time.
    #[serde(default, deserialize_with = "time", skip_serializing_if = "Option::is_none")]
    pub eta: Option<DateTime<Utc>>,
    /// Not to be run after that time.
    #[serde(default, deserialize_with = "time", skip_serializing_if = "Option::is_none")]
    pub expires: Option<DateTime<Utc>>,
    /// The message's priority, where the queue has any: 0 to 9.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<u8>,
    /// What is to be run after it, in order, each with the result of the one before in front of its own arguments. The result that one waits for is that of
    /// the last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub chain: Vec<Task>,
    /// The first task of the chain that it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root_id: Option<String>,
    /// The task that it follows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent_id: Option<String>,
    /// The queue to which its result is sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<String>,
    /// How often the app tried it before.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub retries: u32,
    /// Which program sent it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
    /// True where nobody wants its result.
    #[serde(default, skip_serializing_if = "is_false")]
    pub ignore_result: bool,
    /// What is to follow it in Celery's own form, as it came.
    #[serde(default, skip_serializing_if = "Embed::is_empty")]
    pub embed: Embed,
}

/// What is to follow a task: signatures, `{"task", "args", "kwargs", "options", …}`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Embed {
    /// Run with its result.
    pub callbacks: Option<Vec<Value>>,
    /// Run with its id where it failed.
    pub errbacks: Option<Vec<Value>>,
    /// The rest of its chain, last first.
    pub chain: Option<Vec<Value>>,
    /// The end of the chord that it is part of.
    pub chord: Option<Value>,
}

impl Embed {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
const fn is_zero(n: &u32) -> bool {
    *n == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
const fn is_false(on: &bool) -> bool {
    !*on
}

/// A time as Celery writes it: without an offset where the app told it to, and then in UTC.
pub(super) fn read_time(text: &str) -> Option<DateTime<Utc>> {
    let time = DateTime::parse_from_rfc3339(text).or_else(|_| DateTime::parse_from_rfc3339(&format!("{text}+00:00"))).ok()?;
    Some(time.with_timezone(&Utc))
}

fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<DateTime<Utc>>, D::Error> {
    let Some(text) = Option::<String>::deserialize(deserializer)? else { return Ok(None) };
    read_time(&text).map(Some).ok_or_else(|| serde::de::Error::custom(format!("`{text}` is no time: write 2026-11-27T03:00:00Z")))
}

impl Task {
    /// A task by the name that it has in the app: `module.function`.
    pub fn new(name: impl Into<String>) -> Self {
        Self { task: name.into(), ..Self::default() }
    }

    /// Adds a positional argument.
    #[must_use]
    pub fn arg(mut self, value: impl Into<Value>) -> Self {
        self.args.push(value.into());
        self
    }

    /// Adds a keyword argument.
    #[must_use]
    pub fn kwarg(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.kwargs.insert(name.into(), value.into());
        self
    }

    /// Sets its id.
    #[must_use]
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// Not to be run before that time.
    #[must_use]
    pub fn eta(mut self, at: DateTime<Utc>) -> Self {
        self.eta = Some(at);
        self
    }

    /// Not to be run before so much time has passed.
    #[must_use]
    pub fn countdown(self, after: Duration) -> Self {
        self.eta(clock::add(Utc::now(), after))
    }

    /// Not to be run after that time.
    #[must_use]
    pub fn expires(mut self, at: DateTime<Utc>) -> Self {
        self.expires = Some(at);
        self
    }

    /// The message's priority, where the queue has any: 0 to 9.
    #[must_use]
    pub fn priority(mut self, priority: u8) -> Self {
        self.priority = Some(priority);
        self
    }

    /// Runs another task, with those that follow it, after this one and those that follow it already.
    #[must_use]
    pub fn then(mut self, mut next: Task) -> Self {
        let after = std::mem::take(&mut next.chain);
        self.chain.push(next);
        self.chain.extend(after);
        self
    }

    /// # Errors
    /// [`InvalidInput`](storage_core::ErrorKind::InvalidInput) for what no message can hold.
    pub(super) fn check(&self) -> Result<()> {
        let texts = [Some(&self.task), self.id.as_ref(), self.root_id.as_ref(), self.parent_id.as_ref(), self.reply_to.as_ref()];
        if self.task.is_empty() || texts.into_iter().flatten().any(|text| text.len() > 255) {
            return Err(Error::invalid("names and ids of tasks have 1 to 255 bytes"));
        }
        if let Some(priority) = self.priority.filter(|priority| *priority > storage_core::message::MAX_PRIORITY) {
            return Err(Error::invalid(format!("priority {priority}: 0 to 9")));
        }
        self.chain.iter().try_for_each(|next| {
            if next.chain.is_empty() {
                next.check()
            } else {
                Err(Error::invalid("a chain within a chain: list its tasks one after another"))
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_wrong_is_said() {
        let read = serde_json::from_str::<Task>;
        assert_eq!(read(r#"{"task": "a.b"}"#).unwrap(), Task::new("a.b"));
        assert!(read(r#"{"args": [1]}"#).unwrap_err().to_string().contains("`task`"));
        assert!(read(r#"{"task": "a", "countdown": 5}"#).unwrap_err().to_string().contains("countdown"));
        assert!(read(r#"{"task": "a", "eta": "soon"}"#).unwrap_err().to_string().contains("`soon` is no time"));
        let naive = read(r#"{"task": "a", "eta": "2026-11-27T03:00:00.123456"}"#).unwrap();
        assert_eq!(naive.eta.unwrap().timestamp_subsec_micros(), 123_456);
        for bad in [Task::new(""), Task::new("a").id("x".repeat(256)), Task::new("a").priority(10)] {
            assert!(bad.check().is_err() && Task::new("b").then(bad).check().is_err());
        }
    }

    #[test]
    fn chains_are_flat() {
        let task = Task::new("a").then(Task::new("b").then(Task::new("c"))).then(Task::new("d"));
        assert_eq!(task.chain.iter().map(|task| task.task.as_str()).collect::<Vec<_>>(), ["b", "c", "d"]);
        task.check().unwrap();
    }
}
