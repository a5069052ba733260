//! Task messages of Celery's protocol 2.

use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldArray, FieldTable, ShortString};
use serde_json::{Map, Value, json};
use storage_core::{Error, Result, clock};
use uuid::Uuid;

use crate::wire::Parcel;

/// A task for a Celery worker: its name, what it is called with, and when.
///
/// ```
/// use serde_json::json;
/// use storage_queue_amqp::celery::Task;
/// let task = Task::new("shop.add").arg(2).arg(3).then(Task::new("shop.mul").arg(10));
/// # let _ = task;
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Task {
    name: String,
    args: Vec<Value>,
    kwargs: Map<String, Value>,
    eta: Option<DateTime<Utc>>,
    expires: Option<DateTime<Utc>>,
    priority: Option<u8>,
    next: Option<Box<Task>>,
}

impl Task {
    /// A task by the name that it has in the app: `module.function`.
    pub fn new(name: impl Into<String>) -> Self {
        let (args, kwargs) = (Vec::new(), Map::new());
        Self { name: name.into(), args, kwargs, eta: None, expires: None, priority: None, next: None }
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

    /// Runs another task when this one is done, with its result before the other's own arguments. The result that one waits for is that of the last.
    #[must_use]
    pub fn then(mut self, next: Task) -> Self {
        self.next = Some(Box::new(match self.next.take() {
            Some(there) => there.then(next),
            None => next,
        }));
        self
    }
}

/// A task as one worker hands it to the next: `{task, args, kwargs, options, …}`.
pub(super) type Signature = Value;

/// A task message, ready to be sent.
#[derive(Debug)]
pub(super) struct Letter {
    /// The id of the task whose result is that of the whole chain.
    pub(super) last_id: String,
    pub(super) parcel: Parcel,
}

fn iso(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Micros, false)
}

/// What goes into a message's headers and body.
struct Parts<'a> {
    id: &'a str,
    root: &'a str,
    parent: Option<&'a str>,
    name: &'a str,
    args: &'a [Value],
    kwargs: &'a Map<String, Value>,
    eta: Option<String>,
    expires: Option<String>,
    priority: Option<u8>,
    /// What comes next, last first.
    chain: Value,
    reply_to: &'a str,
}

fn short(text: &str) -> Result<ShortString> {
    ShortString::try_new(text).map_err(|_| Error::invalid("a name or id of more than 255 bytes"))
}

fn parcel(parts: Parts<'_>) -> Result<Parcel> {
    let text = |text: &str| AMQPValue::LongString(text.as_bytes().into());
    let maybe = |value: Option<&str>| value.map_or(AMQPValue::Void, text);
    let repr = |value: String| text(&value.chars().take(1_024).collect::<String>());
    let mut headers = FieldTable::default();
    for (name, value) in [
        ("lang", text("py")),
        ("task", text(parts.name)),
        ("id", text(parts.id)),
        ("root_id", text(parts.root)),
        ("parent_id", maybe(parts.parent)),
        ("group", AMQPValue::Void),
        ("eta", maybe(parts.eta.as_deref())),
        ("expires", maybe(parts.expires.as_deref())),
        ("retries", AMQPValue::LongInt(0)),
        ("timelimit", AMQPValue::FieldArray(FieldArray::from(vec![AMQPValue::Void, AMQPValue::Void]))),
        ("argsrepr", repr(Value::from(parts.args.to_vec()).to_string())),
        ("kwargsrepr", repr(Value::Object(parts.kwargs.clone()).to_string())),
        ("origin", text("storage")),
        ("ignore_result", AMQPValue::Boolean(false)),
    ] {
        headers.insert(name.into(), value);
    }
    let embed = json!({"callbacks": null, "errbacks": null, "chain": parts.chain, "chord": null});
    let mut properties = BasicProperties::default()
        .with_content_type("application/json".into())
        .with_content_encoding("utf-8".into())
        .with_correlation_id(short(parts.id)?)
        .with_message_id(short(parts.id)?)
        .with_reply_to(short(parts.reply_to)?)
        .with_delivery_mode(2)
        .with_headers(headers);
    if let Some(priority) = parts.priority {
        properties = properties.with_priority(priority);
    }
    Ok(Parcel { body: serde_json::to_vec(&json!([parts.args, parts.kwargs, embed]))?.into(), properties })
}

/// The message of a new task, whose results go to the queue `reply_to`.
pub(super) fn encode(task: &Task, reply_to: &str) -> Result<Letter> {
    let id = Uuid::new_v4().to_string();
    // Those that follow, in order: each with the id that its result will have.
    let mut chain = Vec::new();
    let (mut next, mut last_id) = (task.next.as_deref(), id.clone());
    while let Some(task) = next {
        last_id = Uuid::new_v4().to_string();
        let mut options = json!({"task_id": last_id, "reply_to": reply_to});
        for (name, time) in [("eta", task.eta), ("expires", task.expires)] {
            if let Some(time) = time {
                options[name] = iso(time).into();
            }
        }
        if let Some(priority) = task.priority {
            options["priority"] = priority.into();
        }
        chain.push(json!({
            "task": task.name, "args": task.args, "kwargs": task.kwargs, "options": options,
            "subtask_type": null, "immutable": false,
        }));
        next = task.next.as_deref();
    }
    chain.reverse();
    let parts = Parts {
        id: &id,
        root: &id,
        parent: None,
        name: &task.name,
        args: &task.args,
        kwargs: &task.kwargs,
        eta: task.eta.map(iso),
        expires: task.expires.map(iso),
        priority: task.priority,
        chain: if chain.is_empty() { Value::Null } else { chain.into() },
        reply_to,
    };
    let parcel = parcel(parts)?;
    Ok(Letter { last_id, parcel })
}

/// The message of the next task of a chain, after one of the id `parent` answered `result`. `chain`: those left, last first.
pub(super) fn follow(
    mut chain: Vec<Signature>,
    result: &Value,
    parent: &str,
    root: &str,
    reply_to: &str,
) -> Result<Option<Parcel>> {
    let Some(next) = chain.pop() else { return Ok(None) };
    let bad = || Error::invalid("a chain holds what is no task");
    let name = next["task"].as_str().ok_or_else(bad)?;
    let mut args = next["args"].as_array().cloned().unwrap_or_default();
    if next["immutable"] != json!(true) {
        args.insert(0, result.clone());
    }
    let options = &next["options"];
    let id = options["task_id"].as_str().map_or_else(|| Uuid::new_v4().to_string(), str::to_owned);
    let option = |name: &str| options[name].as_str().map(str::to_owned);
    let parts = Parts {
        id: &id,
        root,
        parent: Some(parent),
        name,
        args: &args,
        kwargs: &next["kwargs"].as_object().cloned().unwrap_or_default(),
        eta: option("eta"),
        expires: option("expires"),
        priority: options["priority"].as_u64().and_then(|n| u8::try_from(n).ok()),
        chain: if chain.is_empty() { Value::Null } else { chain.into() },
        reply_to: options["reply_to"].as_str().unwrap_or(reply_to),
    };
    parcel(parts).map(Some)
}
