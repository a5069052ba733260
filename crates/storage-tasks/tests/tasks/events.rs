//! Events and their tails.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _};
use serde_json::json;
use storage_core::{Clock, RecordStore};
use storage_tasks::{Event, EventFilter, EventOptions, EventStore, SubmitOptions, TailFrom, TaskId, event};

use crate::world::World;

const SETTLE: Duration = Duration::from_secs(10);

/// The events of a writer whose clock differs, in the same table.
async fn writer(records: &RecordStore, clock: Clock) -> EventStore {
    EventStore::open(records, EventOptions { clock, ..EventOptions::default() }).await.unwrap()
}

async fn next(tail: &mut (impl futures::Stream<Item = storage_core::Result<Event>> + Unpin)) -> Event {
    tokio::time::timeout(Duration::from_secs(20), tail.next()).await.expect("an event comes").unwrap().unwrap()
}

/// Nothing comes while the tail looks many times.
async fn assert_silent(tail: &mut (impl futures::Stream<Item = storage_core::Result<Event>> + Unpin)) {
    let waited = tokio::time::timeout(Duration::from_millis(300), tail.next()).await;
    assert!(waited.is_err(), "{waited:?}");
}

pub(crate) async fn a_task_leaves_its_trace(world: World) {
    let tasks = world.tasks().await;
    let task = tasks.submit("x", 1, SubmitOptions::default().resource_id("acme")).await.unwrap().task;
    let own = tasks.events().append(task.id(), "progress", json!({"percent": 50})).await.unwrap();
    tasks.cancel(task.id()).await.unwrap();
    let events = tasks.events().of_task(task.id()).await.unwrap();
    assert!(events.windows(2).all(|pair| pair[0].id < pair[1].id));
    assert!(events.contains(&own));
    let cancelled = events.iter().find(|event| event.kind == event::kind::CANCELLED).unwrap();
    assert_eq!(cancelled.data, json!({"kind": "x", "status": "cancelled", "attempts": 0}));
    assert_eq!(cancelled.task(), task.id());
    assert!(tasks.events().of_task(TaskId::from(task.task_id)).await.unwrap().is_empty(), "of another resource");
}

pub(crate) async fn events_are_listed_by_task_kind_and_time(world: World) {
    let events = world.events(SETTLE).await;
    let start = world.clock.now();
    for n in 0..30 {
        events.append(format!("t{}", n % 3), format!("k{}", n % 2), json!(n)).await.unwrap();
        world.clock.advance(Duration::from_secs(1));
    }
    let count = |filter: EventFilter| {
        let events = events.clone();
        async move {
            let (mut found, mut after) = (Vec::new(), None);
            loop {
                let page = events.list(&filter, 7, after).await.unwrap();
                found.extend(page.events);
                after = page.next;
                if after.is_none() {
                    break;
                }
            }
            assert!(found.windows(2).all(|pair| pair[0].at < pair[1].at));
            found.len()
        }
    };
    let at = |seconds| start + Duration::from_secs(seconds);
    assert_eq!(count(EventFilter::default()).await, 30);
    assert_eq!(count(EventFilter::of_task("t1")).await, 10);
    assert_eq!(count(EventFilter { kind: Some("k1".into()), ..EventFilter::of_task("t1") }).await, 5);
    assert_eq!(count(EventFilter::between(at(10), at(20))).await, 10);
    assert_eq!(count(EventFilter { since: Some(at(29)), ..EventFilter::default() }).await, 1);
}

/// Four writers with clocks of their own, one a little behind, one far ahead.
pub(crate) async fn a_tail_misses_nothing_of_four_writers(world: World) {
    const EACH: i64 = 150;
    let reader = world.events(SETTLE).await;
    let mut tail = reader.tail(EventFilter::default(), TailFrom::Now);
    // It has begun: what a clock that is behind writes before its first look is taken for what was there.
    assert_silent(&mut tail).await;
    let skews = [0, -8_000, 3_000, 3_600_000];
    let writers = skews.map(|skew: i64| {
        let (records, clock) = (records_of(&world), world.clock.clone());
        tokio::spawn(async move {
            for n in 0..EACH {
                // A clock that differs by so much from the reader's.
                let at = clock.now() + chrono::TimeDelta::milliseconds(skew);
                put_at(&records, at, format!("{skew}/{n}")).await;
                clock.advance(Duration::from_millis(5));
                tokio::task::yield_now().await;
            }
        })
    });
    let mut seen = BTreeSet::new();
    for _ in 0..4 * EACH {
        let event = next(&mut tail).await;
        assert!(seen.insert(event.task_id.clone()), "{} comes twice", event.task_id);
    }
    futures::future::try_join_all(writers).await.unwrap();
    assert_silent(&mut tail).await;
    let all: Vec<_> = reader.tail(EventFilter::default(), TailFrom::Beginning).take(seen.len()).try_collect().await.unwrap();
    assert!(all.windows(2).all(|pair| pair[0].id < pair[1].id), "what is there already comes in order");
}

/// The record store that the events are in.
fn records_of(world: &World) -> RecordStore {
    world.elsewhere().unwrap_or_else(|| world.records())
}

/// Writes an event at a time of the writer's own.
async fn put_at(records: &RecordStore, at: chrono::DateTime<chrono::Utc>, task: String) {
    let clock = Clock::manual();
    // A manual clock goes forward only; the world's began ahead of it.
    clock.advance((at - clock.now()).to_std().unwrap());
    writer(records, clock).await.append(task, "x", json!(null)).await.unwrap();
}

pub(crate) async fn a_tail_sees_late_and_early_clocks_once(world: World) {
    let reader = world.events(SETTLE).await;
    let records = records_of(&world);
    let at = |millis: i64| world.clock.now() + chrono::TimeDelta::milliseconds(millis);
    put_at(&records, at(-60_000), "history".into()).await;
    let mut tail = reader.tail(EventFilter::default(), TailFrom::Beginning);
    assert_eq!(next(&mut tail).await.task_id, "history");
    put_at(&records, at(3_600_000), "future".into()).await;
    assert_eq!(next(&mut tail).await.task_id, "future");
    put_at(&records, at(0), "now".into()).await;
    assert_eq!(next(&mut tail).await.task_id, "now", "one from the future does not hide it");
    put_at(&records, at(-9_000), "late".into()).await;
    assert_eq!(next(&mut tail).await.task_id, "late", "within the time to settle");
    assert_silent(&mut tail).await;
    for _ in 0..20 {
        world.clock.advance(Duration::from_secs(1));
        put_at(&records, at(0), "later".into()).await;
        assert_eq!(next(&mut tail).await.task_id, "later");
    }
    world.clock.advance(Duration::from_secs(4000));
    put_at(&records, at(0), "newest".into()).await;
    assert_eq!(next(&mut tail).await.task_id, "newest");
    assert_silent(&mut tail).await;
    // As documented: what comes later than that may be missed by the tail, and is in the list.
    put_at(&records, at(-60_000), "too late".into()).await;
    assert_silent(&mut tail).await;
    assert_eq!(reader.of_task("too late").await.unwrap().len(), 1);
}

pub(crate) async fn a_tail_from_now_begins_now(world: World) {
    let events = world.events(SETTLE).await;
    events.append("a", "before", json!(null)).await.unwrap();
    world.clock.advance(Duration::from_millis(1));
    let mut of_a = events.tail(EventFilter::of_task("a"), TailFrom::Now);
    let since = world.clock.now() + Duration::from_secs(1);
    let mut later = events.tail(EventFilter::default(), TailFrom::Since(since));
    events.append("a", "first", json!(null)).await.unwrap();
    events.append("b", "other", json!(null)).await.unwrap();
    assert_eq!(next(&mut of_a).await.kind, "first");
    assert_silent(&mut of_a).await;
    assert_silent(&mut later).await;
    world.clock.advance(Duration::from_secs(1));
    events.append("a", "second", json!(null)).await.unwrap();
    assert_eq!(next(&mut of_a).await.kind, "second");
    assert_eq!(next(&mut later).await.kind, "second");
}

pub(crate) async fn a_tail_goes_on_after_an_error(world: World) {
    let events = world.events(SETTLE).await;
    for n in 0..1200 {
        events.append(format!("t{n}"), "x", json!(null)).await.unwrap();
    }
    let mut tail = events.tail(EventFilter::default(), TailFrom::Beginning);
    let mut seen = Vec::new();
    for _ in 0..700 {
        seen.push(next(&mut tail).await.task_id);
    }
    world.faults.end_after(-1, false);
    let error = loop {
        match tail.next().await.unwrap() {
            Ok(event) => seen.push(event.task_id),
            Err(error) => break error,
        }
    };
    assert!(error.is_retryable());
    assert!(world.faults.restart());
    while seen.len() < 1200 {
        seen.push(next(&mut tail).await.task_id);
    }
    let expected: Vec<_> = (0..1200).map(|n| format!("t{n}")).collect();
    assert_eq!(seen, expected);
    assert_silent(&mut tail).await;
}
