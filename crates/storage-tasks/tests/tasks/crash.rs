//! Processes that end at any write: after each, and with each answer lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::json;
use storage_core::{Count, Result};
use storage_tasks::{Claim, OutboxRelay, RelayOptions, Start, SubmitOptions, Task, TaskFilter, TaskId, TaskStatus, TaskStore};

use crate::world::{World, drain, echo};

/// More writes than any of these operations makes.
const MOST_WRITES: i64 = 30;

/// Runs `act` in a process that ends after so many writes, for every number of writes; then `check` in one that starts after it.
async fn end_anywhere(
    world: &World,
    prepare: impl AsyncFn(&TaskStore, &TaskId),
    act: impl AsyncFn(&TaskStore, &TaskId) -> Result<()>,
    check: impl AsyncFn(&TaskStore, &TaskId, bool),
) {
    for takes_effect in [false, true] {
        let mut ended = true;
        for writes in 0..MOST_WRITES {
            let id = TaskId::from(format!("{takes_effect}-{writes}"));
            let dying = world.another_process();
            let tasks = dying.tasks().await;
            prepare(&tasks, &id).await;
            dying.faults.end_after(writes, takes_effect);
            let answered = tokio::select! {
                biased;
                () = dying.faults.ended() => false,
                outcome = act(&tasks, &id) => outcome.is_ok(),
            };
            ended = dying.faults.restart();
            let tasks = world.tasks().await;
            world.recover(&tasks).await;
            check(&tasks, &id, answered).await;
            if !ended {
                break;
            }
        }
        assert!(!ended, "the last round went through to its end");
    }
}

async fn submit(tasks: &TaskStore, id: &TaskId) -> Result<()> {
    tasks.submit("x", json!(1), SubmitOptions::default().task_id(&*id.task_id)).await.map(drop)
}

async fn get(tasks: &TaskStore, id: &TaskId) -> Option<Task> {
    tasks.get_task(id.clone()).await.unwrap()
}

/// Each kind of event that may come once came once, in order.
async fn assert_trace(tasks: &TaskStore, id: &TaskId, expected: &[&str]) {
    let events = tasks.events().of_task(id.clone()).await.unwrap();
    let once: Vec<_> = events.iter().map(|event| event.kind.as_str()).filter(|kind| *kind != "started").collect();
    assert_eq!(once, expected, "{events:#?}");
}

async fn assert_empty(world: &World) {
    let stats = world.stats().await;
    assert_eq!((stats.ready, stats.delayed, stats.leased), (Count::Exact(0), Count::Exact(0), Count::Exact(0)));
}

/// What was acknowledged runs; what was not runs or is not there; nothing runs twice.
pub(crate) async fn a_submission_may_end_anywhere(world: World) {
    let check = async |tasks: &TaskStore, id: &TaskId, answered: bool| {
        let there = get(tasks, id).await.is_some();
        assert!(there || !answered, "an acknowledged task is there");
        let runs = Arc::new(AtomicU32::new(0));
        drain(&world, &echo(tasks, &runs)).await.unwrap();
        assert_eq!(runs.load(Ordering::SeqCst), u32::from(there));
        if there {
            assert_eq!(get(tasks, id).await.unwrap().status, TaskStatus::Succeeded);
            assert_trace(tasks, id, &["submitted", "succeeded"]).await;
        } else {
            // Submitted again, as a caller would.
            submit(tasks, id).await.unwrap();
            drain(&world, &echo(tasks, &runs)).await.unwrap();
            assert_eq!(runs.load(Ordering::SeqCst), 1);
        }
        assert_empty(&world).await;
    };
    end_anywhere(&world, async |_, _| {}, submit, check).await;
}

/// Whatever a worker was at, the task ends succeeded, once, with its result and its trace.
pub(crate) async fn a_run_may_end_anywhere(world: World) {
    let act = async |tasks: &TaskStore, id: &TaskId| {
        submit(tasks, id).await?;
        drain(&world, &echo(tasks, &Arc::default())).await.map(drop)
    };
    let check = async |tasks: &TaskStore, id: &TaskId, answered: bool| {
        drain(&world, &echo(tasks, &Arc::default())).await.unwrap();
        let Some(task) = get(tasks, id).await else {
            assert!(!answered);
            return;
        };
        assert_eq!((task.status, &task.output), (TaskStatus::Succeeded, &Some(json!(1))));
        assert!(task.attempts <= 2);
        assert_eq!(tasks.results().get(id.clone()).await.unwrap().unwrap().output, Some(json!(1)));
        assert_trace(tasks, id, &["submitted", "succeeded"]).await;
        assert_in_one_table(tasks, id).await;
        assert_empty(&world).await;
    };
    end_anywhere(&world, async |_, _| {}, act, check).await;
}

async fn assert_in_one_table(tasks: &TaskStore, id: &TaskId) {
    let filter = TaskFilter { task_id: Some(id.task_id.clone()), ..TaskFilter::default() };
    assert_eq!(tasks.count(&filter).await.unwrap(), 1, "in one table and not in both");
}

pub(crate) async fn a_cancel_may_end_anywhere(world: World) {
    let prepare = async |tasks: &TaskStore, id: &TaskId| submit(tasks, id).await.unwrap();
    let act = async |tasks: &TaskStore, id: &TaskId| tasks.cancel(id.clone()).await.map(drop);
    let check = async |tasks: &TaskStore, id: &TaskId, answered: bool| {
        let runs = Arc::new(AtomicU32::new(0));
        drain(&world, &echo(tasks, &runs)).await.unwrap();
        let task = get(tasks, id).await.unwrap();
        let cancelled = task.status == TaskStatus::Cancelled;
        assert!(cancelled || !answered);
        assert_eq!(runs.load(Ordering::SeqCst), u32::from(!cancelled));
        let end = if cancelled { "cancelled" } else { "succeeded" };
        assert_trace(tasks, id, &["submitted", end]).await;
        assert_eq!(tasks.results().get(id.clone()).await.unwrap().unwrap().status, task.status);
        assert_in_one_table(tasks, id).await;
    };
    end_anywhere(&world, prepare, act, check).await;
}

pub(crate) async fn a_retry_may_end_anywhere(world: World) {
    let prepare = async |tasks: &TaskStore, id: &TaskId| {
        submit(tasks, id).await.unwrap();
        let Start::Run(task) = tasks.start(id.clone(), &Claim::default()).await.unwrap() else { panic!("it was free") };
        tasks.fail(&task, "broken").await.unwrap();
        drain(&world, &echo(tasks, &Arc::default())).await.unwrap();
    };
    let act = async |tasks: &TaskStore, id: &TaskId| tasks.retry(id.clone()).await.map(drop);
    let check = async |tasks: &TaskStore, id: &TaskId, answered: bool| {
        let runs = Arc::new(AtomicU32::new(0));
        drain(&world, &echo(tasks, &runs)).await.unwrap();
        let task = get(tasks, id).await.unwrap();
        let again = task.status == TaskStatus::Succeeded;
        assert!(again || (!answered && task.status == TaskStatus::Failed));
        assert_eq!(runs.load(Ordering::SeqCst), u32::from(again));
        let expected = ["submitted", "failed", "resubmitted", "succeeded"];
        assert_trace(tasks, id, &expected[..if again { 4 } else { 2 }]).await;
        assert_in_one_table(tasks, id).await;
    };
    end_anywhere(&world, prepare, act, check).await;
}

/// Two relays at once, without dedup in some worlds: the worker takes out what was sent twice.
pub(crate) async fn two_relays_run_each_task_once(world: World) {
    const TASKS: u32 = 40;
    let tasks = world.tasks().await;
    if !tasks.is_one_batch() {
        for n in 0..TASKS {
            let dying = world.another_process();
            let tasks = dying.tasks().await;
            // The task, with events and results elsewhere no more than it, and then nothing.
            dying.faults.end_after(1, false);
            tokio::select! {
                biased;
                () = dying.faults.ended() => {}
                submitted = tasks.submit("x", n, SubmitOptions::default()) => assert!(submitted.is_ok()),
            }
        }
        assert_eq!(tasks.count(&TaskFilter::status([TaskStatus::Pending])).await.unwrap(), u64::from(TASKS));
        assert_empty(&world).await;
    } else {
        for n in 0..TASKS {
            tasks.submit("x", n, SubmitOptions::default()).await.unwrap();
        }
    }
    let relays = [(); 2].map(|()| OutboxRelay::new(&tasks, RelayOptions { page: 7, ..RelayOptions::default() }));
    let (a, b) = tokio::join!(relays[0].drain(), relays[1].drain());
    assert!(a.unwrap() + b.unwrap() >= if tasks.is_one_batch() { 0 } else { u64::from(TASKS) });
    assert_eq!(relays[0].drain().await.unwrap(), 0, "nothing is owed any more");
    let runs = Arc::new(AtomicU32::new(0));
    drain(&world, &echo(&tasks, &runs)).await.unwrap();
    assert_eq!(runs.load(Ordering::SeqCst), TASKS);
    assert_eq!(tasks.count(&TaskFilter::status([TaskStatus::Succeeded])).await.unwrap(), u64::from(TASKS));
    assert_empty(&world).await;
}
