//! Results, events and schedules in a bucket, by configuration.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::TryStreamExt as _;
use serde_json::{Value, json};
use storage_core::{Backends, ConsumerOptions, Driver, DriverConfig, OptionSpec, Result, Surfaces};
use storage_facade::{Registry, Storage};
use storage_memory::MemoryDriver;
use storage_tasks::{NewSchedule, ScheduleSpec, SubmitOptions, TaskWorker, WorkerOptions};

/// Opens a bucket as drivers of object stores do: blobs, and records on them. Its blobs are in memory.
#[derive(Debug)]
struct BucketDriver;

#[async_trait]
impl Driver for BucketDriver {
    fn name(&self) -> &'static str {
        "bucket"
    }

    fn schemes(&self) -> &'static [&'static str] {
        &["bucket"]
    }

    fn surfaces(&self) -> Surfaces {
        Surfaces { records: true, queue: false, blobs: true }
    }

    fn options(&self) -> &'static [OptionSpec] {
        &[]
    }

    async fn open(&self, config: &DriverConfig) -> Result<Backends> {
        let blobs = MemoryDriver.open(config).await?.blobs.expect("memory has blobs");
        storage_object::records::serve(blobs, config)
    }
}

#[tokio::test]
async fn results_events_and_schedules_live_in_a_bucket() {
    let mut registry = Registry::default();
    registry.register(Arc::new(BucketDriver));
    let builder = Storage::builder().no_file().no_env().registry(registry).set("task_queue", "memory:");
    let components = ["result_storage", "event_storage", "schedule_storage", "blobs"];
    let builder = components.into_iter().fold(builder, |builder, component| builder.set(component, "bucket://results"));
    let storage = builder.open().await.unwrap();

    let tasks = storage.tasks().await.unwrap();
    let task = tasks.submit("double", 21, SubmitOptions::default()).await.unwrap().task;
    let consumer = ConsumerOptions { drain: true, ..ConsumerOptions::default() };
    let double = |input: Value| json!(input.as_i64().unwrap() * 2);
    let worker = TaskWorker::new(&tasks, WorkerOptions { consumer, ..WorkerOptions::default() })
        .on_any(move |context| async move { Ok(double(context.task.input)) });
    worker.run(std::future::pending()).await.unwrap();
    let result = storage.results().await.unwrap().wait(task.id(), Duration::from_secs(20)).await.unwrap().unwrap();
    assert_eq!(result.output, Some(json!(42)));
    let kinds: Vec<String> = tasks.events().of_task(task.id()).await.unwrap().into_iter().map(|event| event.kind).collect();
    assert_eq!(kinds, ["submitted", "started", "succeeded"]);
    let nightly = NewSchedule::new("nightly", ScheduleSpec::every(Duration::from_secs(60)), "double", 1);
    storage.schedules().await.unwrap().add(nightly).await.unwrap();

    let blobs = storage.blobs().await.unwrap();
    let paths: Vec<String> = blobs.list_all(None).map_ok(|meta| meta.path.to_string()).try_collect().await.unwrap();
    for (table, records) in [("results-", 1), ("events-", 3), ("schedules-", 1)] {
        let found = paths.iter().filter(|path| path.starts_with(&format!("records/data/{table}"))).count();
        assert_eq!(found, records, "{table} in {paths:?}");
    }
    storage.close().await.unwrap();
}
