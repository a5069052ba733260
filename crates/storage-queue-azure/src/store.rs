//! What all operations of a handle share.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use storage_core::{BackendInfo, Error, OpenFlag, QueueName, QueueSpec, Result};
use tokio::sync::watch;

use crate::client::{Client, LONGEST, Raw};
use crate::config::Settings;
use crate::held::Hand;
use crate::names;
use crate::spill::Spill;
use crate::text::{Content, Encoding};

/// How long it is believed what a queue is like.
const BELIEVED: Duration = Duration::from_secs(10);
/// How many queues are remembered.
const MOST_QUEUES: usize = 10_000;

/// A handle's state.
#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) client: Arc<Client>,
    pub(crate) hand: Arc<Hand>,
    pub(crate) info: BackendInfo,
    pub(crate) prefix: String,
    pub(crate) encoding: Encoding,
    pub(crate) poll: Duration,
    pub(crate) concurrency: usize,
    pub(crate) spill: Option<Spill>,
    pub(crate) open: OpenFlag,
    closing: watch::Sender<bool>,
    specs: Mutex<HashMap<QueueName, (QueueSpec, Instant)>>,
    /// How the last receive from a queue went, where that says something about the next.
    paces: Mutex<HashMap<QueueName, Pace>>,
}

/// What a receive found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Nothing,
    Some,
    /// As many messages as were asked for.
    All,
}

#[derive(Clone, Copy, Debug)]
enum Pace {
    /// It was empty, so often in a row.
    Empty(u32),
    /// It had as many messages as were asked for.
    Full,
}

impl Store {
    pub(crate) fn new(settings: &Settings) -> Result<Self> {
        Ok(Self {
            client: Arc::new(Client::new(settings)?),
            hand: Arc::default(),
            info: BackendInfo::new("azure-queue", settings.location.clone()),
            prefix: settings.prefix.clone(),
            encoding: settings.encoding,
            poll: settings.poll,
            concurrency: settings.concurrency,
            spill: None,
            open: OpenFlag::default(),
            closing: watch::Sender::new(false),
            specs: Mutex::default(),
            paces: Mutex::default(),
        })
    }

    /// The same, with a place for large bodies.
    pub(crate) fn with_spill(&self, spill: Spill) -> Self {
        Self {
            client: Arc::clone(&self.client),
            hand: Arc::clone(&self.hand),
            info: self.info.clone(),
            prefix: self.prefix.clone(),
            spill: Some(spill),
            open: OpenFlag::default(),
            closing: watch::Sender::new(false),
            specs: Mutex::default(),
            paces: Mutex::default(),
            ..*self
        }
    }

    pub(crate) fn close(&self) {
        self.open.close();
        self.closing.send_replace(true);
        self.hand.clear();
    }

    /// True once the handle is closed; waits for it.
    pub(crate) fn closing(&self) -> watch::Receiver<bool> {
        self.closing.subscribe()
    }

    pub(crate) fn lane(&self, queue: &QueueName) -> Lane {
        let there = names::on_service(&self.prefix, queue);
        match queue.dead_letter_of() {
            Some(source) => Lane { home: names::on_service(&self.prefix, &source), source, dead: true, there },
            None => Lane { home: there.clone(), source: queue.clone(), dead: false, there },
        }
    }

    /// The companion of a lane's queue.
    pub(crate) fn companion(&self, lane: &Lane) -> Result<Lane> {
        Ok(self.lane(&lane.source.dead_letter()?))
    }

    pub(crate) fn remembered(&self, queue: &QueueName) -> Option<QueueSpec> {
        let specs = self.specs.lock().unwrap_or_else(PoisonError::into_inner);
        specs.get(queue).filter(|(_, since)| since.elapsed() < BELIEVED).map(|(spec, _)| *spec)
    }

    pub(crate) fn remember(&self, queue: &QueueName, spec: Option<QueueSpec>) {
        let mut specs = self.specs.lock().unwrap_or_else(PoisonError::into_inner);
        if specs.len() >= MOST_QUEUES {
            specs.clear();
        }
        match spec {
            Some(spec) => drop(specs.insert(queue.clone(), (spec, Instant::now()))),
            None => drop(specs.remove(queue)),
        }
    }

    /// Takes note of what was found in a queue; answers how often in a row it was empty.
    pub(crate) fn note_found(&self, queue: &QueueName, found: What) -> u32 {
        let mut paces = self.paces.lock().unwrap_or_else(PoisonError::into_inner);
        let before = paces.remove(queue);
        if paces.len() >= MOST_QUEUES {
            paces.clear();
        }
        let (pace, times) = match (found, before) {
            (What::Some, _) => return 0,
            (What::All, _) => (Pace::Full, 0),
            (What::Nothing, Some(Pace::Empty(times))) => (Pace::Empty(times.saturating_add(1)), times.saturating_add(1)),
            (What::Nothing, _) => (Pace::Empty(1), 1),
        };
        paces.insert(queue.clone(), pace);
        times
    }

    /// A queue that something was sent to is not known to be empty.
    pub(crate) fn note_sent(&self, queue: &QueueName) {
        let mut paces = self.paces.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(paces.get(queue), Some(Pace::Empty(_))) {
            paces.remove(queue);
        }
    }

    /// True where the last receive brought as much as it asked for.
    pub(crate) fn was_full(&self, queue: &QueueName) -> bool {
        let paces = self.paces.lock().unwrap_or_else(PoisonError::into_inner);
        matches!(paces.get(queue), Some(Pace::Full))
    }

    /// A message as it is understood, with its body still in its blob if it is in one.
    pub(crate) fn read(&self, raw: Raw) -> Found {
        let Raw { id, pop, text, received, inserted } = raw;
        Found { id, pop, received, inserted, content: Content::decode(&text, self.encoding) }
    }
}

/// A queue, or the dead letters of one.
#[derive(Clone, Debug)]
pub(crate) struct Lane {
    /// The queue, or the one whose dead letters these are.
    pub(crate) source: QueueName,
    pub(crate) dead: bool,
    /// What it is called on the service.
    pub(crate) there: String,
    /// What the queue is called there that large bodies are kept under.
    pub(crate) home: String,
}

impl Lane {
    pub(crate) fn queue(&self) -> Result<QueueName> {
        if self.dead { self.source.dead_letter() } else { Ok(self.source.clone()) }
    }
}

/// A message that the service gave out.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    /// The service's own id of it.
    pub(crate) id: String,
    pub(crate) pop: String,
    /// How often it was received, this time included.
    pub(crate) received: u32,
    pub(crate) inserted: DateTime<Utc>,
    pub(crate) content: Content,
}

impl Found {
    /// The id that the message was sent with.
    pub(crate) fn first_id(&self) -> &str {
        self.content.head.id.as_deref().unwrap_or(&self.id)
    }

    pub(crate) fn sent_at(&self) -> DateTime<Utc> {
        self.content.head.sent.unwrap_or(self.inserted)
    }

    pub(crate) fn message(&self, body: Bytes) -> storage_core::Message {
        let head = &self.content.head;
        storage_core::Message {
            id: storage_core::MessageId(self.first_id().to_owned()),
            body,
            attributes: head.attributes.clone(),
            content_type: head.content_type.clone(),
            priority: 0,
            deliveries: self.received,
            enqueued_at: self.sent_at(),
            expires_at: head.expires,
        }
    }
}

/// A time in the service's whole seconds: never shorter than asked for.
///
/// # Errors
/// [`InvalidInput`](storage_core::ErrorKind::InvalidInput) beyond seven days.
pub(crate) fn in_seconds(what: &str, time: Duration) -> Result<u32> {
    let whole = time.as_secs() + u64::from(time.subsec_nanos() > 0);
    u32::try_from(whole)
        .ok()
        .filter(|seconds| *seconds <= LONGEST)
        .ok_or_else(|| Error::invalid(format!("a {what} of {time:?} is too long for Azure Storage Queue: 7 days at most")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

    use storage_core::DriverConfig;

    use super::*;

    #[test]
    fn several_requests_at_once_are_for_queues_that_had_all_that_was_asked_for() {
        let settings = Settings::new(&DriverConfig::from_url("azure-queue:?emulator=true")).unwrap();
        let store = Store::new(&settings).unwrap();
        let (queue, other) = ("mail".parse().unwrap(), "post".parse().unwrap());
        assert!(!store.was_full(&queue), "nothing is known yet");
        assert_eq!(store.note_found(&queue, What::All), 0);
        assert!(store.was_full(&queue) && !store.was_full(&other));
        store.note_sent(&queue);
        assert!(store.was_full(&queue), "sending does not empty it");
        assert_eq!(store.note_found(&queue, What::Some), 0);
        assert!(!store.was_full(&queue), "the end of it came in sight");
        store.note_found(&queue, What::All);
        assert_eq!([What::Nothing, What::Nothing].map(|found| store.note_found(&queue, found)), [1, 2]);
        assert!(!store.was_full(&queue));
        store.note_sent(&queue);
        assert_eq!(store.note_found(&queue, What::Nothing), 1, "a queue that something was sent to is not known to be empty");
    }
}
