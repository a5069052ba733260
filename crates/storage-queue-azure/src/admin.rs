//! Queues themselves: what they are like stands in their metadata.

use std::collections::HashMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use storage_core::{Count, Error, ErrorKind, QueueName, QueueSpec, QueueStats, Result};

use crate::client::MOST;
use crate::error::{Refusal, code};
use crate::moves;
use crate::names;
use crate::store::{Found, Lane, Store};

/// The metadata that says what a queue is like.
const KEY: &str = "storage_queue";
/// How often a large queue is cleared again: the service does it in pieces, and says so by a timeout.
const CLEARS: usize = 60;
/// How many pages of queues are listed.
const PAGES: usize = 1_000;

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Description {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    max_deliveries: Option<u32>,
    /// In microseconds.
    dedup_window: u64,
}

impl Description {
    fn new(queue: &QueueName, spec: &QueueSpec) -> Self {
        Self {
            name: queue.to_string(),
            max_deliveries: spec.max_deliveries,
            dedup_window: u64::try_from(spec.dedup_window.as_micros()).unwrap_or(u64::MAX),
        }
    }

    fn spec(&self) -> QueueSpec {
        QueueSpec { max_deliveries: self.max_deliveries, dedup_window: Duration::from_micros(self.dedup_window) }
    }

    fn metadata(&self) -> Result<HashMap<String, String>> {
        Ok(HashMap::from([(KEY.to_owned(), serde_json::to_string(self)?)]))
    }

    /// `None`: another program made the queue.
    fn read(metadata: &HashMap<String, String>) -> Option<Self> {
        // The service keeps names as they are written, but does not tell upper from lower case.
        let (_, text) = metadata.iter().find(|(name, _)| name.eq_ignore_ascii_case(KEY))?;
        serde_json::from_str(text).ok()
    }
}

/// What a queue is like that another program made.
fn unknown() -> QueueSpec {
    QueueSpec::default().max_deliveries(None)
}

pub(crate) async fn create(store: &Store, queue: &QueueName, spec: &QueueSpec) -> Result<bool> {
    let lane = store.lane(queue);
    store.remember(queue, None);
    let created = match store.client.create(&lane.there, Description::new(queue, spec).metadata()?).await {
        Ok(created) => created,
        Err(refusal) if refusal.is(code::QUEUE_EXISTS) => {
            let found = store.client.properties(&lane.there).await?;
            match Description::read(&found.metadata) {
                Some(found) if found.name != queue.as_str() => {
                    return Err(Error::already_exists(format!("`{}` is the queue `{}` on the service", lane.there, found.name)));
                }
                Some(found) if found.spec() == *spec => false,
                Some(_) => return Err(Error::already_exists("it is there with another spec")),
                None => return Err(Error::already_exists("it is there, made by another program, without a delivery cap")),
            }
        }
        Err(refusal) => return Err(refusal.into()),
    };
    create_companion(store, &lane).await?;
    Ok(created)
}

/// Creates the queue of dead letters, unless it is there.
pub(crate) async fn create_companion(store: &Store, lane: &Lane) -> Result<()> {
    let companion = store.companion(lane)?;
    let metadata = Description::new(&companion.queue()?, &unknown()).metadata()?;
    match store.client.create(&companion.there, metadata).await {
        Err(refusal) if !refusal.is(code::QUEUE_EXISTS) => Err(refusal.into()),
        _ => Ok(()),
    }
}

/// The dead letters' queue comes when it is needed, where another program made the queue.
///
/// # Errors
/// The first call's; [`NotFound`](ErrorKind::NotFound) where there is no such queue.
pub(crate) async fn with_companion<T, F>(store: &Store, lane: &Lane, call: impl Fn() -> F) -> Result<T, Refusal>
where
    F: Future<Output = Result<T, Refusal>>,
{
    match call().await {
        Err(refusal) if lane.dead && refusal.is(code::NO_QUEUE) => {
            fresh_spec(store, &lane.source).await?;
            create_companion(store, lane).await?;
            call().await
        }
        outcome => outcome,
    }
}

pub(crate) async fn delete(store: &Store, queue: &QueueName) -> Result<bool> {
    let lane = store.lane(queue);
    store.remember(queue, None);
    store.client.remove(&store.companion(&lane)?.there).await?;
    let was_there = store.client.remove(&lane.there).await?;
    if let Some(spill) = &store.spill {
        spill.remove_all(&lane.home).await?;
    }
    Ok(was_there)
}

pub(crate) async fn list(store: &Store) -> Result<Vec<QueueName>> {
    let (mut queues, mut marker) = (Vec::new(), None);
    for _ in 0..PAGES {
        let (page, next) = store.client.list(&store.prefix, marker, None).await?;
        queues.extend(page.into_iter().filter_map(|(there, metadata)| {
            let queue = match Description::read(&metadata) {
                Some(found) => found.name.parse().ok().filter(|queue| names::on_service(&store.prefix, queue) == there),
                None => names::of_service(&store.prefix, &there),
            };
            queue.filter(|queue| !queue.is_dead_letter())
        }));
        if next.is_none() {
            queues.sort_unstable();
            return Ok(queues);
        }
        marker = next;
    }
    Err(Error::unavailable("the service's list of queues does not end").with_retryable(false))
}

/// What a queue is like, as the service says now.
pub(crate) async fn fresh_spec(store: &Store, queue: &QueueName) -> Result<QueueSpec> {
    let found = store.client.properties(&store.lane(queue).there).await;
    if found.as_ref().is_err_and(|refusal| refusal.is(code::NO_QUEUE)) {
        store.remember(queue, None);
    }
    let spec = Description::read(&found?.metadata).map_or_else(unknown, |found| found.spec());
    store.remember(queue, Some(spec));
    Ok(spec)
}

/// The same, as it was a moment ago.
pub(crate) async fn spec(store: &Store, queue: &QueueName) -> Result<QueueSpec> {
    match store.remembered(queue) {
        Some(spec) => Ok(spec),
        None => fresh_spec(store, queue).await,
    }
}

pub(crate) async fn stats(store: &Store, lane: &Lane) -> Result<QueueStats> {
    let cap = if lane.dead { None } else { spec(store, &lane.source).await?.max_deliveries };
    let looked = with_companion(store, lane, || store.client.peek(&lane.there, MOST)).await?;
    let total = store.client.properties(&lane.there).await?.messages;
    let dead = if lane.dead {
        0
    } else {
        let companion = store.companion(lane)?;
        match store.client.properties(&companion.there).await {
            Ok(found) => found.messages,
            Err(refusal) if refusal.is(code::NO_QUEUE) => 0,
            Err(refusal) => return Err(refusal.into()),
        }
    };
    let seen = looked.len() as u64;
    let looked: Vec<_> = looked.into_iter().map(|raw| store.read(raw)).collect();
    let doomed = looked.iter().filter(|found| !lane.dead && moves::is_doomed(found, cap)).count() as u64;
    // What a look does not show is leased or delayed, if it shows all that is ready.
    let all_seen = seen < u64::from(MOST);
    let hidden = total.saturating_sub(seen);
    let count = |n: u64| if n == 0 { Count::Exact(0) } else { Count::Estimate(n) };
    let oldest = looked.iter().filter(|found| lane.dead || !moves::is_doomed(found, cap));
    Ok(QueueStats {
        ready: if all_seen { estimate(seen - doomed, total) } else { Count::Estimate(total.max(seen) - doomed) },
        delayed: if total == 0 { Count::Exact(0) } else { Count::Unknown },
        leased: if all_seen { estimate(hidden, total) } else { Count::Unknown },
        dead: count(dead + doomed),
        oldest: oldest.map(Found::sent_at).min(),
    })
}

/// Of nothing there is nothing. Anything else may have changed between two questions.
fn estimate(n: u64, total: u64) -> Count {
    if total == 0 && n == 0 { Count::Exact(0) } else { Count::Estimate(n) }
}

pub(crate) async fn purge(store: &Store, lane: &Lane) -> Result<u64> {
    let found = with_companion(store, lane, || store.client.properties(&lane.there)).await?;
    for _ in 0..CLEARS {
        match store.client.clear(&lane.there).await {
            Err(refusal) if refusal.kind() == ErrorKind::Timeout => {}
            outcome => return outcome.map(|()| found.messages).map_err(Into::into),
        }
    }
    Err(Error::timeout("the queue is so large that the service has not removed all of it yet: purge it again"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_spec_comes_back() {
        let queue: QueueName = "Q_1".parse().unwrap();
        for spec in [QueueSpec::default(), unknown().dedup_window(Duration::ZERO)] {
            let metadata = Description::new(&queue, &spec).metadata().unwrap();
            // Metadata are headers.
            assert!(metadata.values().all(|value| value.bytes().all(|b| (b' '..=b'~').contains(&b))));
            let shouted = metadata.iter().map(|(name, value)| (name.to_uppercase(), value.clone())).collect();
            assert_eq!(Description::read(&shouted).unwrap().spec(), spec);
        }
        assert_eq!(Description::read(&HashMap::new()), None);
    }
}
