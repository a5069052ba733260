//! What queues there are, and how they were created.
//!
//! AMQP can't list queues and keeps nothing about them, so their story is kept in a log: a stream of the broker's, which anybody can read from the
//! start without taking anything away. Whoever changes something appends an event and reads up to it: what comes first in the log came first.
//! Whoever only looks appends an event that changes nothing, so as to know when the end is reached.
//!
//! The log is bounded: from time to time somebody appends a snapshot, and the broker drops what is old.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use lapin::options::{BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicQosOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Consumer};
use serde::{Deserialize, Serialize};
use storage_core::{Error, ErrorKind, QueueName, QueueSpec, Result};
use tokio::sync::Mutex;
use uuid::Uuid;

use crate::error::{lapin, no_answer};
use crate::link::{Link, Role};
use crate::names::Names;
use crate::publish::{Letter, Publisher};
use crate::wire::{Parcel, number};

/// How much of the log the broker keeps.
const MAX_BYTES: i64 = 16 << 20;
/// In files of so many bytes, whole ones of which it drops.
const SEGMENT_BYTES: i64 = 1 << 20;
/// After so many events a snapshot is due: many fit into what is kept.
const SNAPSHOT_AFTER: u64 = 500;
/// How old what is known of a queue may be for one who begins to receive from it.
const RECENT: Duration = Duration::from_secs(1);
/// Where the end can't be marked, it is where nothing came for so long.
const QUIET: Duration = Duration::from_millis(500);
/// How many events the broker sends ahead.
const READ_AHEAD: u16 = 200;

/// What is known of a queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) spec: QueueSpec,
    /// The delays, in milliseconds, that have a queue of their own.
    #[serde(default)]
    pub(crate) delays: BTreeSet<u64>,
}

type Entries = BTreeMap<QueueName, Entry>;

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "lowercase")]
enum What {
    Create { queue: QueueName, spec: QueueSpec },
    Delete { queue: QueueName },
    Delay { queue: QueueName, millis: u64 },
    Look,
    Snapshot { upto: u64, queues: Entries },
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Event {
    #[serde(flatten)]
    what: What,
    /// By which the writer knows its own.
    id: Uuid,
}

/// What became of an event.
#[derive(Clone, Debug)]
pub(crate) enum Came {
    /// It changed something.
    Changed,
    /// It changed nothing: this was there.
    Found(Option<QueueSpec>),
}

#[derive(Debug, Default)]
struct State {
    queues: Entries,
    /// The next event's place in the log, once it has been read.
    next: Option<u64>,
    since_snapshot: u64,
    read_at: Option<Instant>,
}

/// The log as one handle has read it.
#[derive(Debug)]
pub(crate) struct Catalogue {
    link: Arc<Link>,
    publisher: Arc<Publisher>,
    stream: String,
    /// Locked while somebody reads: one reader is enough.
    state: Mutex<State>,
}

impl State {
    fn apply(&mut self, what: What) -> Came {
        self.since_snapshot += 1;
        match what {
            What::Create { queue, spec } => {
                if let Some(entry) = self.queues.get(&queue) {
                    return Came::Found(Some(entry.spec));
                }
                self.queues.insert(queue, Entry { spec, delays: BTreeSet::new() });
                Came::Changed
            }
            What::Delete { queue } => match self.queues.remove(&queue) {
                Some(_) => Came::Changed,
                None => Came::Found(None),
            },
            What::Delay { queue, millis } => {
                let spec = QueueSpec::default().max_deliveries(None);
                // Of a queue that was made by others nothing else is known.
                self.queues.entry(queue).or_insert(Entry { spec, delays: BTreeSet::new() }).delays.insert(millis);
                Came::Changed
            }
            What::Snapshot { .. } => {
                self.since_snapshot = 0;
                Came::Changed
            }
            What::Look => Came::Changed,
        }
    }

    /// Takes in what was read, of which `own` is the last. The first time all that is left of the log.
    fn take_in(&mut self, mut events: Vec<(u64, Event)>, own: Uuid) -> Came {
        if self.next.is_none() {
            let first = events.first().map_or(0, |(offset, _)| *offset);
            let newest = events.iter().rev().find_map(|(_, event)| match &event.what {
                // One that is about what is no longer there in full is of no use.
                What::Snapshot { upto, queues } if *upto + 1 >= first => Some((*upto, queues.clone())),
                _ => None,
            });
            if let Some((upto, queues)) = newest {
                self.queues = queues;
                events.retain(|(offset, _)| *offset > upto);
            }
        }
        let mut came = Came::Changed;
        for (offset, event) in events {
            if self.next.is_some_and(|next| offset < next) {
                continue;
            }
            self.next = Some(offset + 1);
            let outcome = self.apply(event.what);
            if event.id == own {
                came = outcome;
            }
        }
        self.read_at = Some(Instant::now());
        came
    }
}

impl Catalogue {
    pub(crate) fn new(link: Arc<Link>, publisher: Arc<Publisher>) -> Self {
        let stream = Names::new(&link.settings().prefix).catalogue();
        Self { link, publisher, stream, state: Mutex::default() }
    }

    /// Creates a queue in the log.
    pub(crate) async fn create(&self, queue: &QueueName, spec: &QueueSpec) -> Result<Came> {
        self.append(What::Create { queue: queue.clone(), spec: *spec }).await.map(|(came, _)| came)
    }

    /// Removes it. `false`: it was not there. Answers the delays that it had.
    pub(crate) async fn delete(&self, queue: &QueueName) -> Result<(bool, BTreeSet<u64>)> {
        let delays = self.entry(queue).await?.map(|entry| entry.delays).unwrap_or_default();
        let (came, _) = self.append(What::Delete { queue: queue.clone() }).await?;
        Ok((matches!(came, Came::Changed), delays))
    }

    /// Remembers that there are queues for these delays.
    pub(crate) async fn add_delays(&self, queue: &QueueName, steps: &BTreeSet<u64>) -> Result<()> {
        let known = self.state.lock().await.queues.get(queue).map(|entry| entry.delays.clone()).unwrap_or_default();
        for millis in steps.difference(&known) {
            self.append(What::Delay { queue: queue.clone(), millis: *millis }).await?;
        }
        Ok(())
    }

    pub(crate) async fn queues(&self) -> Result<Vec<QueueName>> {
        self.append(What::Look).await.map(|(_, queues)| queues.into_keys().collect())
    }

    /// What the log says of a queue now.
    pub(crate) async fn entry(&self, queue: &QueueName) -> Result<Option<Entry>> {
        self.append(What::Look).await.map(|(_, mut queues)| queues.remove(queue))
    }

    /// What it said not longer ago than `age`.
    pub(crate) async fn recent_entry(&self, queue: &QueueName, age: Duration) -> Result<Option<Entry>> {
        {
            let state = self.state.lock().await;
            if state.read_at.is_some_and(|at| at.elapsed() <= age) {
                return Ok(state.queues.get(queue).cloned());
            }
        }
        self.entry(queue).await
    }

    /// What the log says of a queue, as far as a broker that takes nothing lets us know: consumers go on while it has an alarm.
    pub(crate) async fn entry_for_consumer(&self, queue: &QueueName) -> Result<Option<Entry>> {
        match self.recent_entry(queue, RECENT).await {
            Err(error) if matches!(error.kind(), ErrorKind::Throttled | ErrorKind::Timeout) => {}
            outcome => return outcome,
        }
        let mut state = self.state.lock().await;
        let events = self.read(state.next, None).await?;
        state.take_in(events, Uuid::nil());
        Ok(state.queues.get(queue).cloned())
    }

    async fn append(&self, what: What) -> Result<(Came, Entries)> {
        let mut state = self.state.lock().await;
        if state.next.is_none() {
            self.declare().await?;
        }
        let event = Event { what, id: Uuid::now_v7() };
        self.write(&event).await?;
        let events = self.read(state.next, Some(event.id)).await?;
        let came = state.take_in(events, event.id);
        if state.since_snapshot >= SNAPSHOT_AFTER
            && let Some(next) = state.next
        {
            state.since_snapshot = 0;
            let what = What::Snapshot { upto: next.saturating_sub(1), queues: state.queues.clone() };
            if let Err(error) = self.write(&Event { what, id: Uuid::now_v7() }).await {
                tracing::warn!(%error, "can't write a snapshot of the queues: the next reader will");
            }
        }
        Ok((came, state.queues.clone()))
    }

    async fn write(&self, event: &Event) -> Result<()> {
        let properties = BasicProperties::default().with_delivery_mode(2).with_content_type("application/json".into());
        let parcel = Parcel { body: serde_json::to_vec(event)?.into(), properties };
        let letter = Letter { to: self.stream.clone(), parcel };
        match self.publisher.publish(vec![letter.clone()]).await {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                self.declare().await?;
                self.publisher.publish(vec![letter]).await
            }
            outcome => outcome,
        }
    }

    async fn declare(&self) -> Result<()> {
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), AMQPValue::LongString("stream".into()));
        arguments.insert("x-max-length-bytes".into(), AMQPValue::LongLongInt(MAX_BYTES));
        arguments.insert("x-stream-max-segment-size-bytes".into(), AMQPValue::LongLongInt(SEGMENT_BYTES));
        let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        let declared =
            self.link.briefly(async |channel| channel.queue_declare(self.stream.as_str().into(), options, arguments).await).await;
        declared.map(drop).map_err(|error| {
            let message = format!("can't make the stream `{}`, in which queues are listed: {}", self.stream, error.message());
            Error::new(error.kind(), message).with_source(error)
        })
    }

    /// Reads the log from `next`, or from the start, up to the event of that id, or until no more comes.
    async fn read(&self, next: Option<u64>, own: Option<Uuid>) -> Result<Vec<(u64, Event)>> {
        let limit = self.link.settings().timeout;
        let channel = self.link.channel(Role::Receive).await?;
        let events = tokio::time::timeout(limit, self.read_on(&channel, next, own)).await;
        if channel.status().connected() {
            drop(tokio::time::timeout(Duration::from_millis(200), channel.close(200, "done".into())).await);
        }
        events.unwrap_or_else(|_| Err(no_answer(limit)))
    }

    async fn read_on(&self, channel: &Channel, next: Option<u64>, own: Option<Uuid>) -> Result<Vec<(u64, Event)>> {
        channel.basic_qos(READ_AHEAD, BasicQosOptions::default()).await.map_err(lapin)?;
        let offset = match next.and_then(|next| i64::try_from(next).ok()) {
            Some(next) => AMQPValue::LongLongInt(next),
            None => AMQPValue::LongString("first".into()),
        };
        let mut arguments = FieldTable::default();
        arguments.insert("x-stream-offset".into(), offset);
        let consumer = channel.basic_consume(self.stream.as_str().into(), "".into(), BasicConsumeOptions::default(), arguments);
        let mut consumer = consumer.await.map_err(lapin)?;
        let events = self.events(channel, &mut consumer, own).await?;
        // Asked for before the channel is closed: else the client ends the connection over an answer that comes too late.
        channel.basic_cancel(consumer.tag(), BasicCancelOptions::default()).await.map_err(lapin)?;
        Ok(events)
    }

    async fn events(&self, channel: &Channel, consumer: &mut Consumer, own: Option<Uuid>) -> Result<Vec<(u64, Event)>> {
        let mut events = Vec::new();
        loop {
            let next = tokio::time::timeout(if own.is_some() { Duration::MAX } else { QUIET }, consumer.next());
            let Ok(next) = next.await else { return Ok(events) };
            let Some(delivery) = next else { break };
            let delivery = delivery.map_err(lapin)?;
            channel.basic_ack(delivery.delivery_tag, BasicAckOptions::default()).await.map_err(lapin)?;
            let offset = number(&delivery.properties, "x-stream-offset").and_then(|n| u64::try_from(n).ok());
            let Some(offset) = offset else { return Err(self.foreign("an event without a place")) };
            let event: Event = serde_json::from_slice(&delivery.data).map_err(|_| self.foreign("what is no event"))?;
            let is_own = own == Some(event.id);
            events.push((offset, event));
            if is_own {
                return Ok(events);
            }
        }
        Err(Error::unavailable("the broker stopped sending the list of queues"))
    }

    fn foreign(&self, what: &str) -> Error {
        Error::corrupt(format!("the stream `{}` holds {what}: another program writes to it, or a newer version", self.stream))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(what: What) -> Event {
        Event { what, id: Uuid::now_v7() }
    }

    fn create(queue: &str) -> What {
        What::Create { queue: queue.parse().unwrap(), spec: QueueSpec::default() }
    }

    #[test]
    fn the_first_in_the_log_wins() {
        let mut state = State::default();
        let (mine, theirs) = (event(create("q")), event(create("q")));
        let own = mine.id;
        assert!(matches!(state.take_in(vec![(0, theirs), (1, mine)], own), Came::Found(Some(_))));
        let delete = event(What::Delete { queue: "q".parse().unwrap() });
        let own = delete.id;
        assert!(matches!(state.take_in(vec![(2, delete)], own), Came::Changed));
        assert!(state.queues.is_empty());
    }

    #[test]
    fn a_snapshot_stands_for_what_was_dropped() {
        // Events 0 to 9 are gone; the snapshot was made after 11, and 12 was written before it arrived.
        let queues: Entries = [("old".parse().unwrap(), Entry { spec: QueueSpec::default(), delays: BTreeSet::new() })].into();
        let look = event(What::Look);
        let own = look.id;
        let log = vec![
            (10, event(What::Delete { queue: "older".parse().unwrap() })),
            (11, event(What::Look)),
            (12, event(create("new"))),
            (13, event(What::Snapshot { upto: 11, queues })),
            (14, look),
        ];
        let mut state = State::default();
        state.take_in(log, own);
        assert_eq!(state.queues.keys().map(QueueName::as_str).collect::<Vec<_>>(), ["new", "old"]);
        assert_eq!(state.next, Some(15));
    }

    #[test]
    fn events_are_json_that_others_can_read() {
        let text = serde_json::to_string(&event(create("q"))).unwrap();
        assert!(text.contains("\"op\":\"create\"") && text.contains("\"queue\":\"q\""), "{text}");
        assert!(matches!(serde_json::from_str::<Event>(&text).unwrap().what, What::Create { .. }));
    }
}
