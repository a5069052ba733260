//! Schedulers that share a store: leases of records, as the toolkit itself takes them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use storage_core::{Atomicity, Backends, Clock, QueueStore, RecordStore};
use storage_memory::MemoryStore;
use storage_tasks::{
    NewSchedule, ScheduleOptions, ScheduleSpec, ScheduleStore, Scheduler, SchedulerOptions, SchedulerReport, TaskOptions,
    TaskStore,
};

use crate::opened::Opened;
use crate::{CaseResult, Failure, Flavor, Harness};

#[doc(hidden)]
pub const FLAVOR: Flavor = Flavor::Threaded;

const SCHEDULES: u32 = 10;
const TICKS: u64 = 1000;

/// Two schedulers, each with a handle of its own, both at it all the time: each of 1,000 ticks submits one task, once.
pub async fn two_schedulers_fire_each_tick_once(h: &dyn Harness) -> CaseResult {
    let opened = Opened::fresh(h).await?;
    let clock = if opened.clock.is_manual() { opened.clock.clone() } else { Clock::manual() };
    let elsewhere = MemoryStore::with_clock(clock.clone()).backends();
    // Where each record takes a request or a sync of its own, the tasks are in memory: claims are what this is about.
    let atomic = opened.records().capabilities().atomic;
    let is_slow = h.few_queries() || atomic < Atomicity::Store;
    // So many ticks are due at a time.
    let step: u32 = if is_slow { 10 } else { 4 };
    let parts = |backends: &Backends| {
        let tasks = if is_slow { &elsewhere } else { backends };
        let queue = tasks.queue.as_ref().or(elsewhere.queue.as_ref());
        let records = |backends: &Backends| RecordStore::new(Arc::clone(backends.records.as_ref().expect("records")));
        (records(backends), records(tasks), QueueStore::new(Arc::clone(queue.expect("memory has queues"))))
    };
    let mut schedulers = Vec::new();
    for backends in [opened.backends.clone(), opened.again().await?] {
        let (records, tasks, queue) = parts(&backends);
        let schedules =
            ScheduleStore::open(&records, ScheduleOptions { clock: clock.clone(), ..ScheduleOptions::default() }).await?;
        let tasks = TaskStore::open(&tasks, &queue, TaskOptions { clock: clock.clone(), ..TaskOptions::default() }).await?;
        let options = SchedulerOptions { batch: 7, ..SchedulerOptions::default() };
        schedulers.push((Scheduler::new(&schedules, &tasks, options), schedules, tasks));
    }
    let (_, schedules, tasks) = &schedulers[0];
    for n in 0..SCHEDULES {
        let every = ScheduleSpec::every(Duration::from_secs(1));
        schedules.add(NewSchedule::new(format!("s{n}"), every, "x", json!(n))).await?;
    }
    let mut fired = 0;
    for _ in 0..TICKS / u64::from(SCHEDULES * step) {
        clock.advance(Duration::from_secs(u64::from(step)));
        let both = schedulers.iter().map(|(scheduler, schedules, _)| {
            let (scheduler, schedules, clock) = (scheduler.clone(), schedules.clone(), clock.clone());
            tokio::spawn(async move { until_nothing_is_due(&scheduler, &schedules, &clock).await })
        });
        for report in futures::future::try_join_all(both).await? {
            let report = report?;
            assert_eq!((report.repeated, report.failed), (0, 0), "claims keep them apart");
            fired += report.fired;
        }
    }
    assert_eq!(fired, TICKS);
    let submitted = submissions(tasks).await?;
    assert_eq!(submitted.len() as u64, TICKS);
    let twice: Vec<_> = submitted.iter().filter(|(_, times)| **times > 1).collect();
    assert!(twice.is_empty(), "{twice:?}");
    Ok(())
}

async fn until_nothing_is_due(
    scheduler: &Scheduler,
    schedules: &ScheduleStore,
    clock: &Clock,
) -> storage_core::Result<SchedulerReport> {
    let mut total = SchedulerReport::default();
    loop {
        let report = scheduler.tick().await?;
        total.fired += report.fired;
        total.repeated += report.repeated;
        total.failed += report.failed;
        if schedules.next_wake().await?.is_none_or(|at| at > clock.now()) {
            return Ok(total);
        }
    }
}

/// How often each task was submitted, by its events.
async fn submissions(tasks: &TaskStore) -> Result<BTreeMap<String, u32>, Failure> {
    let (mut count, mut after) = (BTreeMap::new(), None);
    loop {
        let page = tasks.events().list(&Default::default(), 1000, after).await?;
        for event in page.events.into_iter().filter(|event| event.kind == "submitted") {
            *count.entry(event.task_id).or_default() += 1;
        }
        after = page.next;
        if after.is_none() {
            return Ok(count);
        }
    }
}
