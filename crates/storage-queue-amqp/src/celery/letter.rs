//! Task messages of Celery's protocol 2.

use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldArray, FieldTable, ShortString};
use serde_json::{Map, Value, json};
use storage_core::message::{MAX_PRIORITY, RESERVED_ATTRIBUTE_PREFIX};
use storage_core::{Attributes, Error, Message, Result, clock};
use uuid::Uuid;

use super::task::{Embed, Task, read_time};
use crate::queue::MAX_BODY;
use crate::wire::{self, Parcel};

/// How a sender from here calls itself.
pub(super) const ORIGIN: &str = "storage";
/// How much of the arguments is shown where programs list tasks, in characters.
const SHOWN: usize = 1_024;
/// Headers that Celery gives a meaning to: no attribute of ours may have their names.
const HEADERS: [&str; 24] = [
    "lang",
    "task",
    "id",
    "shadow",
    "eta",
    "expires",
    "group",
    "group_index",
    "retries",
    "timelimit",
    "root_id",
    "parent_id",
    "argsrepr",
    "kwargsrepr",
    "origin",
    "ignore_result",
    "replaced_task_nesting",
    "stamped_headers",
    "stamps",
    "compression",
    "chord",
    "errbacks",
    "callbacks",
    "chain",
];

/// A task message, ready to be sent.
#[derive(Debug)]
pub(super) struct TaskLetter {
    pub(super) id: String,
    /// The id of the task whose result is that of the whole chain.
    pub(super) last_id: String,
    pub(super) parcel: Parcel,
}

fn iso(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Micros, false)
}

fn short(text: &str) -> Result<ShortString> {
    ShortString::try_new(text).map_err(|_| Error::invalid("a name or id of more than 255 bytes"))
}

/// What follows, last first, and the id of the last.
fn signatures(task: &Task, id: &str, reply_to: Option<&str>) -> (Option<Vec<Value>>, String) {
    let mut last_id = id.to_owned();
    let mut chain = Vec::new();
    for next in &task.chain {
        last_id = next.id.clone().unwrap_or_else(|| Uuid::new_v4().to_string());
        let mut options = json!({"task_id": last_id});
        let times = [("eta", next.eta), ("expires", next.expires)];
        let texts = times
            .into_iter()
            .filter_map(|(name, time)| Some((name, iso(time?))))
            .chain([("reply_to", reply_to.unwrap_or_default().to_owned())]);
        for (name, text) in texts.filter(|(_, text)| !text.is_empty()) {
            options[name] = text.into();
        }
        if let Some(priority) = next.priority {
            options["priority"] = priority.into();
        }
        chain.push(json!({
            "task": next.task, "args": next.args, "kwargs": next.kwargs, "options": options, "subtask_type": null, "immutable": false,
        }));
    }
    chain.reverse();
    let mut whole = task.embed.chain.clone().unwrap_or_default();
    whole.extend(chain);
    (Some(whole).filter(|chain| !chain.is_empty()), last_id)
}

/// The message of a task. `reply_to`: where its result goes, unless the task says so itself.
pub(super) fn encode(task: &Task, attributes: &Attributes, reply_to: Option<&str>) -> Result<TaskLetter> {
    task.check()?;
    let id = task.id.clone().unwrap_or_else(|| Uuid::new_v4().to_string());
    let reply_to = task.reply_to.as_deref().or(reply_to);
    let (chain, last_id) = signatures(task, &id, reply_to);
    let embed = json!({
        "callbacks": task.embed.callbacks, "errbacks": task.embed.errbacks, "chain": chain, "chord": task.embed.chord,
    });
    let body = serde_json::to_vec(&(&task.args, &task.kwargs, &embed))?;
    if body.len() > MAX_BODY {
        return Err(Error::invalid(format!(
            "the task has {} bytes, {MAX_BODY} at most: put large data into a blob and send its path",
            body.len()
        )));
    }
    let mut properties = BasicProperties::default()
        .with_content_type("application/json".into())
        .with_content_encoding("utf-8".into())
        .with_correlation_id(short(&id)?)
        .with_message_id(short(&id)?)
        .with_delivery_mode(2)
        .with_headers(headers(task, attributes, &id)?);
    if let Some(reply_to) = reply_to {
        properties = properties.with_reply_to(short(reply_to)?);
    }
    if let Some(priority) = task.priority {
        properties = properties.with_priority(priority);
    }
    Ok(TaskLetter { id, last_id, parcel: Parcel { body: body.into(), properties } })
}

fn headers(task: &Task, attributes: &Attributes, id: &str) -> Result<FieldTable> {
    let text = |text: &str| AMQPValue::LongString(text.as_bytes().into());
    let maybe = |value: Option<String>| value.map_or(AMQPValue::Void, |value| text(&value));
    let shown = |json: String| match json.char_indices().nth(SHOWN) {
        Some((end, _)) => text(&json[..end]),
        None => text(&json),
    };
    let mut headers = FieldTable::default();
    for (name, value) in attributes {
        if HEADERS.contains(&name.as_str()) {
            return Err(Error::invalid(format!("attribute `{name}`: Celery has a header of that name; set it in the task")));
        }
        headers.insert(short(name)?, text(value));
    }
    for (name, value) in [
        ("lang", text("py")),
        ("task", text(&task.task)),
        ("id", text(id)),
        ("root_id", text(task.root_id.as_deref().unwrap_or(id))),
        ("parent_id", maybe(task.parent_id.clone())),
        ("group", AMQPValue::Void),
        ("eta", maybe(task.eta.map(iso))),
        ("expires", maybe(task.expires.map(iso))),
        ("retries", AMQPValue::LongLongInt(task.retries.into())),
        ("timelimit", AMQPValue::FieldArray(FieldArray::from(vec![AMQPValue::Void, AMQPValue::Void]))),
        ("argsrepr", shown(serde_json::to_string(&task.args)?)),
        ("kwargsrepr", shown(serde_json::to_string(&task.kwargs)?)),
        ("origin", text(task.origin.as_deref().unwrap_or(ORIGIN))),
        ("ignore_result", AMQPValue::Boolean(task.ignore_result)),
    ] {
        headers.insert(name.into(), value);
    }
    Ok(headers)
}

/// The task of a message, and the attributes that Celery gives no meaning to.
///
/// # Errors
/// Why it can't be read.
pub(super) fn decode(message: &Message) -> Result<(Task, Attributes), String> {
    let header = |name: &str| message.attributes.get(name).cloned();
    let time = |name: &str| match header(name) {
        Some(text) => read_time(&text).map(Some).ok_or_else(|| format!("its header `{name}` is no time")),
        None => Ok(None),
    };
    let (Some(id), Some(name)) = (header("id"), header("task")) else {
        return Err("no task message of Celery's protocol 2".into());
    };
    if let Some(kind) = message.content_type.as_deref().filter(|kind| *kind != "application/json") {
        return Err(format!("its content type is `{kind}`: tasks are read as JSON (`task_serializer = \"json\"`)"));
    }
    if let Some(compression) = header("compression") {
        return Err(format!("it is compressed ({compression}): send it as it is"));
    }
    let body: Result<(Vec<Value>, Map<String, Value>, Embed), _> = serde_json::from_slice(&message.body);
    let (args, kwargs, embed) = body.map_err(|error| format!("its body is not that of a task message: {error}"))?;
    let task = Task {
        task: name,
        args,
        kwargs,
        eta: time("eta")?,
        expires: time("expires")?,
        priority: Some(message.priority).filter(|priority| *priority > 0),
        chain: Vec::new(),
        root_id: header("root_id"),
        parent_id: header("parent_id"),
        reply_to: header(wire::REPLY_TO),
        retries: header("retries").and_then(|n| n.parse().ok()).unwrap_or_default(),
        origin: header("origin"),
        ignore_result: header("ignore_result").as_deref() == Some("true"),
        embed,
        id: Some(id),
    };
    let is_ours = |name: &String| !HEADERS.contains(&name.as_str()) && !name.starts_with(RESERVED_ATTRIBUTE_PREFIX);
    let attributes = message.attributes.iter().filter(|(name, _)| is_ours(name)).map(|(n, v)| (n.clone(), v.clone())).collect();
    Ok((task, attributes))
}

/// The task of a signature, as it follows `after`: with `result` before its own arguments, unless it takes none. With the queue that it names.
pub(super) fn follow(
    signature: &Value,
    result: Value,
    after: &Task,
    chain: Option<Vec<Value>>,
) -> Result<(Task, Option<String>)> {
    let name = signature["task"].as_str().ok_or_else(|| Error::invalid("what is to follow is no task"))?;
    let mut args = signature["args"].as_array().cloned().unwrap_or_default();
    if signature["immutable"] != json!(true) {
        args.insert(0, result);
    }
    let options = &signature["options"];
    let text = |name: &str| options[name].as_str().map(str::to_owned);
    let signatures = |name: &str| options[name].as_array().cloned();
    let chord = [&signature["chord"], &options["chord"]].into_iter().find(|chord| !chord.is_null());
    let task = Task {
        task: name.to_owned(),
        args,
        kwargs: signature["kwargs"].as_object().cloned().unwrap_or_default(),
        id: text("task_id"),
        eta: moment(&options["eta"]).or_else(|| moment(&options["countdown"])),
        expires: moment(&options["expires"]),
        priority: options["priority"].as_u64().and_then(|n| u8::try_from(n).ok()).filter(|n| *n <= MAX_PRIORITY),
        root_id: after.root_id.clone().or_else(|| after.id.clone()),
        parent_id: after.id.clone(),
        reply_to: text("reply_to").or_else(|| after.reply_to.clone()),
        embed: Embed { callbacks: signatures("link"), errbacks: signatures("link_error"), chain, chord: chord.cloned() },
        ..Task::default()
    };
    Ok((task, text("queue").or_else(|| text("routing_key"))))
}

/// A time of a signature: as such, or in so many seconds.
fn moment(value: &Value) -> Option<DateTime<Utc>> {
    match value {
        Value::String(text) => read_time(text),
        Value::Number(seconds) => Some(clock::add(Utc::now(), Duration::try_from_secs_f64(seconds.as_f64()?).ok()?)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the broker hands it over.
    fn message(headers: &[(&str, &str)], body: &str) -> Message {
        Message {
            id: storage_core::MessageId("m".into()),
            body: body.to_owned().into(),
            attributes: headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            content_type: None,
            priority: 0,
            deliveries: 1,
            enqueued_at: Utc::now(),
            expires_at: None,
        }
    }

    #[test]
    fn task_messages_are_read_and_others_are_not() {
        let headers = [
            ("id", "1"),
            ("task", "a.b"),
            ("eta", "2026-11-27T03:00:00.123456"),
            ("expires", "2026-11-27T03:00:00+01:00"),
            ("tenant", "acme"),
        ];
        let (task, attributes) = decode(&message(&headers, r#"[[1], {"x": 2}, {"chain": null}]"#)).unwrap();
        assert_eq!((&task.args[..], task.id.as_deref()), (&[Value::from(1)][..], Some("1")));
        assert_eq!(task.expires.unwrap().to_rfc3339(), "2026-11-27T02:00:00+00:00");
        assert_eq!(task.eta.unwrap().timestamp_subsec_micros(), 123_456);
        assert_eq!(attributes.into_iter().collect::<Vec<_>>(), [("tenant".to_owned(), "acme".to_owned())]);
        for body in ["", "[]", "{}", "[[], {}]", "[{}, [], {}]"] {
            assert!(decode(&message(&headers, body)).is_err(), "{body}");
        }
        assert!(decode(&message(&[], "[[], {}, {}]")).is_err());
        let pickled =
            Message { content_type: Some("application/x-python-serialize".into()), ..message(&headers, "[[], {}, {}]") };
        assert!(decode(&pickled).unwrap_err().contains("x-python-serialize"));
    }

    #[test]
    fn what_is_sent_is_read() {
        let task = Task::new("a.b").arg(1).kwarg("x", json!({"y": null})).eta(Utc::now()).then(Task::new("c").id("end"));
        let attributes = [("tenant".to_owned(), "acme".to_owned())].into();
        let letter = encode(&task, &attributes, Some("replies")).unwrap();
        assert_eq!(letter.last_id, "end");
        let message = wire::decode(&letter.parcel.properties, letter.parcel.body);
        let (read, others) = decode(&message).unwrap();
        assert_eq!((&read.args, &read.kwargs, others), (&task.args, &task.kwargs, attributes));
        assert_eq!((read.id, read.reply_to.as_deref(), read.origin.as_deref()), (Some(letter.id), Some("replies"), Some(ORIGIN)));
        assert_eq!(read.embed.chain.unwrap()[0]["options"]["task_id"], "end");
        assert!(encode(&task, &[("eta".to_owned(), String::new())].into(), None).is_err());
    }

    #[test]
    fn what_follows_has_the_result() {
        let after = Task { reply_to: Some("there".into()), ..Task::new("a").id("1") };
        let signature =
            json!({"task": "b", "args": [2], "kwargs": {}, "options": {"task_id": "2", "queue": "fast"}, "immutable": false});
        let (task, queue) = follow(&signature, json!(9), &after, None).unwrap();
        assert_eq!(
            (task.args, task.parent_id.as_deref(), task.reply_to.as_deref()),
            (vec![json!(9), json!(2)], Some("1"), Some("there"))
        );
        assert_eq!(queue.as_deref(), Some("fast"));
        let soon = json!({"task": "b", "options": {"countdown": 5, "expires": 60.5}});
        let (task, _) = follow(&soon, json!(9), &after, None).unwrap();
        assert_eq!((task.expires.unwrap() - task.eta.unwrap()).num_seconds(), 55);
        let alone = json!({"task": "b", "args": [2], "immutable": true});
        assert_eq!(follow(&alone, json!(9), &after, None).unwrap().0.args, [json!(2)]);
        assert!(follow(&json!({}), Value::Null, &after, None).is_err());
    }
}
