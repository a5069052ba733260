//! Results.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::json;
use storage_tasks::{ResultOptions, ResultStore, SubmitOptions, TaskResult, TaskStatus};
use tokio::time::Instant;

use crate::world::World;

fn result(task_id: &str, finished_at: DateTime<Utc>, expires_at: Option<DateTime<Utc>>) -> TaskResult {
    TaskResult {
        resource_id: "acme".into(),
        task_id: task_id.into(),
        status: TaskStatus::Succeeded,
        output: Some(json!({"rows": [1, 2, 3]})),
        error: None,
        blob: None,
        finished_at,
        expires_at,
    }
}

/// Woken at once in this process; found by looking again from another one.
pub(crate) async fn waiting_for_a_result_is_woken(world: World) {
    // Such that a look by the clock alone would come too late.
    let slow = ResultOptions { poll: Duration::from_secs(3600), ..world.result_options() };
    let tasks = world.tasks_with(world.options(), slow).await;
    let task = tasks.submit("x", 1, SubmitOptions::default()).await.unwrap().task;
    let waiting = tokio::spawn({
        let (results, id) = (tasks.results().clone(), task.id());
        async move { results.wait(id, Duration::from_secs(1800)).await }
    });
    let elsewhere = tokio::spawn({
        let (world, id) = (world.another_process(), task.id());
        async move { world.tasks().await.results().wait(id, Duration::from_secs(1800)).await }
    });
    // Long enough for the backoff to be beyond all patience.
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!waiting.is_finished());
    tasks.cancel(task.id()).await.unwrap();
    let woken = tokio::time::timeout(Duration::from_secs(20), waiting).await.expect("woken").unwrap().unwrap().unwrap();
    assert_eq!(woken.status, TaskStatus::Cancelled);
    let found = tokio::time::timeout(Duration::from_secs(20), elsewhere).await.expect("found").unwrap().unwrap().unwrap();
    assert_eq!(found, woken);
}

pub(crate) async fn waiting_ends_in_time(world: World) {
    let tasks = world.tasks().await;
    let began = Instant::now();
    assert!(tasks.results().wait("nobody", Duration::from_millis(120)).await.unwrap().is_none());
    assert!(began.elapsed() >= Duration::from_millis(120));
    assert!(tasks.results().wait("nobody", Duration::ZERO).await.unwrap().is_none());
}

pub(crate) async fn results_are_kept_as_long_as_told(world: World) {
    let keep = ResultOptions { keep: Some(Duration::from_secs(60)), ..world.result_options() };
    let tasks = world.tasks_with(world.options(), keep).await;
    let task = tasks.submit("x", 1, SubmitOptions::default()).await.unwrap().task;
    tasks.cancel(task.id()).await.unwrap();
    world.clock.advance(Duration::from_secs(59));
    assert!(tasks.results().get(task.id()).await.unwrap().is_some());
    world.clock.advance(Duration::from_secs(1));
    assert!(tasks.results().get(task.id()).await.unwrap().is_none());
    assert!(tasks.results().sweep().await.unwrap() <= 1);
    assert_eq!(tasks.results().sweep().await.unwrap(), 0, "a second sweep finds nothing");
    assert!(!tasks.results().delete(task.id()).await.unwrap());
}

/// In a bucket nobody frees what nobody reads, until a sweep.
#[tokio::test]
async fn a_sweep_frees_a_bucket() {
    let world = World::bucket().await;
    let keep = ResultOptions { keep: Some(Duration::from_secs(60)), ..world.result_options() };
    let tasks = world.tasks_with(world.options(), keep).await;
    for n in 0..5 {
        let task = tasks.submit("x", n, SubmitOptions::default()).await.unwrap().task;
        tasks.cancel(task.id()).await.unwrap();
    }
    assert_eq!(tasks.sweep().await.unwrap().results, 0);
    world.clock.advance(Duration::from_secs(61));
    assert_eq!(tasks.sweep().await.unwrap().results, 5);
    assert_eq!(tasks.sweep().await.unwrap().results, 0);
}

pub(crate) async fn results_on_blobs(world: World) {
    let results = ResultStore::on_blobs(&world.blobs(), world.result_options()).unwrap();
    let now = world.clock.now();
    let kept = result("a/b ü", now, None);
    results.put(&kept).await.unwrap();
    assert_eq!(results.get(kept.task()).await.unwrap(), Some(kept.clone()));
    results.put(&result("old", now, Some(now + Duration::from_secs(1)))).await.unwrap();
    world.clock.advance(Duration::from_secs(1));
    assert!(results.get(result("old", now, None).task()).await.unwrap().is_none());
    assert_eq!(results.sweep().await.unwrap(), 1);
    assert!(results.delete(kept.task()).await.unwrap());
    assert!(!results.delete(kept.task()).await.unwrap());
}
