//! Queues themselves: create, find, list, remove, purge, count.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use storage_core::{Count, Error, ErrorKind, QueueName, QueueSpec, QueueStats, Result};

use crate::client::NatsClient;
use crate::codec::{self, Stored};
use crate::config::Kept;
use crate::error::{Refusal, code};
use crate::names::{self, Lane, Names};
use crate::open::{ACK_WAIT, Description, LATER_ACK_WAIT, Open};
use crate::pull;
use crate::store::{Inner, Part};
use crate::stream::{Held, SHORTEST_WINDOW};

/// How many pulls may wait at a consumer.
const MAX_WAITING: u32 = 4096;
/// How many pages a listing has at most.
const MAX_PAGES: usize = 100_000;

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Creates a queue. False: it is there with the same spec.
///
/// # Errors
/// [`AlreadyExists`](storage_core::ErrorKind::AlreadyExists): with another spec, or the stream is not one of ours.
pub(crate) async fn create(inner: &Inner, queue: &QueueName, spec: &QueueSpec) -> Result<bool> {
    let settings = &inner.settings;
    let description = Description::new(spec);
    let names = Names::new(&settings.prefix, queue, &description.life);
    let limit = |limit: Option<u64>| limit.and_then(|n| i64::try_from(n).ok()).unwrap_or(-1);
    let config = json!({
        "name": names.stream,
        "description": serde_json::to_string(&description)?,
        "subjects": [names.all()],
        "retention": "workqueue",
        "storage": match settings.kept { Kept::File => "file", Kept::Memory => "memory" },
        "num_replicas": settings.replicas,
        // What does not fit is refused; the default would drop the oldest messages.
        "discard": "new",
        // By subject: what moves within the queue has a subject of its own and finds room.
        "max_msgs_per_subject": limit(settings.max_messages),
        "discard_new_per_subject": settings.max_messages.is_some(),
        "max_bytes": limit(settings.max_bytes),
        "max_consumers": -1,
        "max_age": 0,
        "duplicate_window": nanos(spec.dedup_window.max(SHORTEST_WINDOW)),
    });
    let created = inner.client.call(&format!("STREAM.CREATE.{}", names.stream), &config).await?;
    match created {
        Ok(_) => {}
        // The server takes an equal config for no error, but ours never are equal: each has a life of its own.
        Err(refusal) if refusal.code == code::STREAM_EXISTS => return there_already(inner, queue, spec).await,
        Err(refusal) if refusal.code == code::SUBJECTS_OVERLAP => {
            let message = format!("another stream has the subjects {}: choose another `prefix`", names.all());
            return Err(Error::already_exists(message));
        }
        Err(refusal) => return Err(refusal.into_error()),
    }
    if let Err(error) = create_consumers(&inner.client, &names).await {
        // The account allows no more of them: nobody could receive, and a queue that could not be created should not be there.
        if error.kind() == ErrorKind::Throttled {
            delete(inner, queue).await?;
        }
        return Err(error);
    }
    inner.remember(queue, Open::new(&settings.prefix, queue, &description));
    Ok(true)
}

async fn there_already(inner: &Inner, queue: &QueueName, spec: &QueueSpec) -> Result<bool> {
    let open = find(inner, queue).await?;
    if open.spec == *spec {
        return Ok(false);
    }
    Err(Error::already_exists(format!("it is there with another spec: {:?}", open.spec)))
}

/// Makes the consumers of a queue. To make one that is there changes nothing.
pub(crate) async fn create_consumers(client: &NatsClient, names: &Names) -> Result<()> {
    let parts = [
        (names.consumer(Lane::Live), names.filter(Lane::Live), ACK_WAIT),
        (names.consumer(Lane::Dead), names.filter(Lane::Dead), ACK_WAIT),
        (names.later_consumer(), names.later(), LATER_ACK_WAIT),
    ];
    for (name, filter, ack_wait) in parts {
        let request = json!({
            "stream_name": names.stream,
            "config": {
                "durable_name": name,
                "filter_subject": filter,
                "deliver_policy": "all",
                "ack_policy": "explicit",
                "replay_policy": "instant",
                "ack_wait": nanos(ack_wait),
                // The cap is ours: the server's would stop delivering without a word.
                "max_deliver": -1,
                "max_ack_pending": -1,
                "max_waiting": MAX_WAITING,
            },
        });
        let created = client.call(&format!("CONSUMER.DURABLE.CREATE.{}.{name}", names.stream), &request).await?;
        created.map_err(Refusal::into_error)?;
    }
    Ok(())
}

/// The queue, as this store remembers it or as the server says.
///
/// # Errors
/// [`NotFound`](storage_core::ErrorKind::NotFound).
pub(crate) async fn open(inner: &Inner, queue: &QueueName) -> Result<Arc<Open>> {
    inner.check_open(Part::Queue)?;
    match inner.remembered(queue) {
        Some(open) => Ok(open),
        None => find(inner, queue).await,
    }
}

/// The queue, as the server says. Its consumers are made where they are missing.
///
/// # Errors
/// [`NotFound`](storage_core::ErrorKind::NotFound).
pub(crate) async fn find(inner: &Inner, queue: &QueueName) -> Result<Arc<Open>> {
    inner.forget(queue);
    let stream = names::stream(&inner.settings.prefix, queue);
    let found = match inner.client.call(&format!("STREAM.INFO.{stream}"), &Value::Null).await? {
        Ok(found) => found,
        Err(refusal) if refusal.is_missing_stream() => return Err(Error::not_found(format!("there is no queue `{queue}`"))),
        Err(refusal) => return Err(refusal.into_error()),
    };
    let Some(description) = read_description(&found["config"]) else {
        return Err(Error::already_exists(format!(
            "the stream `{stream}` is not a queue of this toolkit: choose another `prefix`"
        )));
    };
    let open = Open::new(&inner.settings.prefix, queue, &description);
    // Whoever created the stream may have been killed before it had made them all.
    if found["state"]["consumer_count"].as_u64().unwrap_or_default() < 3 {
        create_consumers(&inner.client, &open.names).await?;
    }
    Ok(inner.remember(queue, open))
}

fn read_description(config: &Value) -> Option<Description> {
    let description: Description = serde_json::from_str(config["description"].as_str()?).ok()?;
    (description.storage_queue == Description::VERSION).then_some(description)
}

/// Removes a queue. False: there was none.
///
/// # Errors
/// The server's.
pub(crate) async fn delete(inner: &Inner, queue: &QueueName) -> Result<bool> {
    inner.forget(queue);
    let stream = names::stream(&inner.settings.prefix, queue);
    match inner.client.call(&format!("STREAM.DELETE.{stream}"), &Value::Null).await? {
        Ok(_) => Ok(true),
        Err(refusal) if refusal.is_missing_stream() => Ok(false),
        Err(refusal) => Err(refusal.into_error()),
    }
}

/// All queues under the prefix, by name.
///
/// # Errors
/// The server's.
pub(crate) async fn list(inner: &Inner) -> Result<Vec<QueueName>> {
    let mut queues = Vec::new();
    let mut offset = 0;
    for _ in 0..MAX_PAGES {
        let request = json!({"offset": offset, "subject": format!("{}.>", inner.settings.prefix)});
        let page = inner.client.call("STREAM.LIST", &request).await?.map_err(Refusal::into_error)?;
        let streams = page["streams"].as_array().map(Vec::as_slice).unwrap_or_default();
        for stream in streams {
            let name = stream["config"]["name"].as_str().unwrap_or_default();
            let ours = read_description(&stream["config"]).is_some();
            queues.extend(names::queue_of(&inner.settings.prefix, name).filter(|_| ours));
        }
        offset += streams.len();
        if streams.is_empty() || offset as u64 >= page["total"].as_u64().unwrap_or_default() {
            break;
        }
    }
    queues.sort();
    queues.dedup();
    Ok(queues)
}

/// Removes the messages of a part, delayed and leased ones too.
///
/// # Errors
/// The server's.
pub(crate) async fn purge(inner: &Inner, open: &Open, lane: Lane) -> Result<u64> {
    let names = &open.names;
    let mut parts = vec![(names.filter(lane), names.consumer(lane))];
    if lane == Lane::Live {
        // First: what is due meanwhile goes from here to there.
        parts.insert(0, (names.later(), names.later_consumer()));
    }
    let mut purged = 0;
    for (filter, consumer) in parts {
        let request = json!({"filter": filter});
        let answer = inner.client.call(&format!("STREAM.PURGE.{}", names.stream), &request).await?;
        purged += answer.map_err(Refusal::into_error)?["purged"].as_u64().unwrap_or_default();
        // Else the consumer goes on counting what is gone.
        pull::info(&inner.client, &names.stream, &consumer).await?;
    }
    Ok(purged)
}

/// How full a queue is. The server does not tell messages in somebody's hands from those that came back.
///
/// # Errors
/// The server's.
pub(crate) async fn stats(inner: &Inner, open: &Open, lane: Lane) -> Result<QueueStats> {
    let names = &open.names;
    let (lane_consumer, later_consumer, dead_consumer) =
        (names.consumer(lane), names.later_consumer(), names.consumer(Lane::Dead));
    let count = async |consumer: &str| -> Result<(u64, u64)> {
        let info = pull::info(&inner.client, &names.stream, consumer).await?;
        let number = |name: &str| info[name].as_u64().unwrap_or_default();
        Ok((number("num_pending"), number("num_ack_pending")))
    };
    let later = async {
        match lane {
            Lane::Live => count(&later_consumer).await.map(|(waiting, known)| waiting + known),
            Lane::Dead => Ok(0),
        }
    };
    let dead = async {
        match lane {
            Lane::Live => count(&dead_consumer).await.map(|(waiting, leased)| waiting + leased),
            Lane::Dead => Ok(0),
        }
    };
    let first = first_of(inner, names, lane);
    let ((ready, leased), delayed, dead, oldest) = futures::try_join!(count(&lane_consumer), later, dead, first)?;
    // Nothing is nothing; but of those that were delivered some may be back, or due to die.
    let settled = ready + leased == 0;
    let count = |n: u64| if n == 0 && settled { Count::Exact(0) } else { Count::Estimate(n) };
    Ok(QueueStats {
        ready: count(ready),
        delayed: count(delayed),
        leased: count(leased),
        dead: if settled && delayed == 0 { Count::Exact(dead) } else { Count::Estimate(dead) },
        oldest: oldest.map(|stored| stored.sent),
    })
}

async fn first_of(inner: &Inner, names: &Names, lane: Lane) -> Result<Option<Stored>> {
    let subject = match lane {
        Lane::Live => names.all_live(),
        Lane::Dead => names.filter(Lane::Dead),
    };
    get(inner, names, &json!({"seq": 1, "next_by_subj": subject})).await
}

/// The message at a place of the stream, by `{"seq": …}` or `{"last_by_subj": …}`.
///
/// # Errors
/// The server's.
pub(crate) async fn get(inner: &Inner, names: &Names, which: &Value) -> Result<Option<Stored>> {
    let answer = match inner.client.call(&format!("STREAM.MSG.GET.{}", names.stream), which).await? {
        Ok(answer) => answer,
        Err(refusal) if refusal.code == code::NO_MESSAGE => return Ok(None),
        Err(refusal) => return Err(refusal.into_error()),
    };
    let held = Held::read(&answer)?;
    Ok(Some(codec::decode(Some(&held.headers), held.body, held.sequence, held.stored)))
}
