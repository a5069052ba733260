//! From submission to the end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _};
use serde_json::{Value, json};
use storage_core::{Count, ErrorKind, NewMessage, Receive};
use storage_tasks::{
    Cancel, Claim, NewTask, Start, SubmitOptions, Task, TaskEnd, TaskFailure, TaskFilter, TaskId, TaskMessage, TaskOptions,
    TaskOutput, TaskStatus, TaskStore, TaskWorker, event,
};
use tokio::sync::Notify;

use crate::world::{World, drain, echo, worker_options};

async fn kinds(tasks: &TaskStore, task: &Task) -> Vec<String> {
    tasks.events().of_task(task.id()).await.unwrap().into_iter().map(|event| event.kind).collect()
}

pub(crate) async fn a_task_runs_and_leaves_its_result(world: World) {
    let tasks = world.tasks().await;
    let submitted = tasks.submit("add", json!([1, 2]), SubmitOptions::default()).await.unwrap();
    assert!(submitted.is_new && submitted.task.status == TaskStatus::Pending);
    let id = submitted.task.id();
    let worker = TaskWorker::new(&tasks, worker_options()).on("add", |context| async move {
        assert_eq!((context.task.status, context.task.attempts), (TaskStatus::Running, 1));
        let numbers: Vec<i64> = serde_json::from_value(context.task.input)?;
        Ok(TaskOutput::from(numbers.iter().sum::<i64>()).blob("sums/1"))
    });
    let report = drain(&world, &worker).await.unwrap();
    assert_eq!((report.done, report.retried, report.rejected), (1, 0, 0));
    let task = tasks.get_task(id.clone()).await.unwrap().unwrap();
    assert_eq!((task.status, &task.output, task.blob.as_deref()), (TaskStatus::Succeeded, &Some(json!(3)), Some("sums/1")));
    assert!(task.finished_at >= task.started_at && task.started_at.is_some() && task.unsent.is_none());
    let result = tasks.results().get(id).await.unwrap().unwrap();
    assert_eq!((result.status, result.output, result.blob.as_deref()), (TaskStatus::Succeeded, Some(json!(3)), Some("sums/1")));
    assert_eq!(kinds(&tasks, &task).await, ["submitted", "started", "succeeded"]);
    let stats = world.stats().await;
    assert_eq!((stats.ready, stats.leased, stats.dead), (Count::Exact(0), Count::Exact(0), Count::Exact(0)));
}

pub(crate) async fn priority_delay_and_batch_pass_through(world: World) {
    let tasks = world.tasks().await;
    let options = SubmitOptions::default().batch("b").resource_id("acme");
    tasks.submit("x", json!("low"), options.clone()).await.unwrap();
    tasks.submit("x", json!("high"), options.clone().priority(9)).await.unwrap();
    tasks.submit("x", json!("late"), options.delay(Duration::from_secs(60)).priority(9)).await.unwrap();
    let order = || async {
        let received = world.queue().receive(&tasks.options().queue, &Receive::up_to(10)).await.unwrap();
        let mut inputs = Vec::new();
        for delivery in received {
            let message: TaskMessage = delivery.message.json().unwrap();
            inputs.push(tasks.get_task(message.id()).await.unwrap().unwrap().input);
            world.queue().delete(&tasks.options().queue, &delivery.receipt).await.unwrap();
        }
        inputs
    };
    assert_eq!(order().await, [json!("high"), json!("low")]);
    world.clock.advance(Duration::from_secs(61));
    assert_eq!(order().await, [json!("late")]);
    let filter = TaskFilter { batch: Some("b".into()), ..TaskFilter::default() };
    assert_eq!(tasks.count(&filter).await.unwrap(), 3);
}

pub(crate) async fn submitted_twice_it_runs_once(world: World) {
    let tasks = world.tasks().await;
    let options = || SubmitOptions::default().task_id("nightly");
    let first = tasks.submit("x", json!(1), options()).await.unwrap();
    let second = tasks.submit("x", json!(2), options()).await.unwrap();
    assert!(first.is_new && !second.is_new);
    assert_eq!(second.task.input, json!(1));
    let runs = Arc::default();
    drain(&world, &echo(&tasks, &runs)).await.unwrap();
    let third = tasks.submit("x", json!(3), options()).await.unwrap();
    assert!(!third.is_new && third.task.status == TaskStatus::Succeeded, "finished, it is there all the same");
    drain(&world, &echo(&tasks, &runs)).await.unwrap();
    assert_eq!(runs.load(Ordering::SeqCst), 1);
}

pub(crate) async fn of_eight_creators_one_is_first(world: World) {
    for round in 0..10 {
        let id = format!("round-{round}");
        let creators = (0..8).map(|creator| {
            let (world, id) = (world.another_process(), id.clone());
            tokio::spawn(async move {
                let tasks = world.tasks().await;
                let new = NewTask::new("x", creator).with(SubmitOptions::default().task_id(id));
                tasks.create_if_not_exists(new).await.unwrap()
            })
        });
        let created: Vec<_> = futures::future::try_join_all(creators).await.unwrap();
        assert_eq!(created.iter().filter(|created| created.is_new).count(), 1);
        let winner = created.iter().find(|created| created.is_new).unwrap();
        assert!(created.iter().all(|created| created.task.input == winner.task.input));
    }
}

pub(crate) async fn many_are_submitted_together(world: World) {
    let tasks = world.tasks().await;
    tasks.submit("x", json!(null), SubmitOptions::default().task_id("taken")).await.unwrap();
    let new = |n: u32| match n {
        500 => NewTask::new("x", n).with(SubmitOptions::default().task_id("taken")),
        n => NewTask::new("x", n),
    };
    let submitted = tasks.submit_all((0..600).map(new).collect()).await.unwrap();
    assert_eq!(submitted.len(), 600);
    assert_eq!(submitted.iter().filter(|submitted| submitted.is_new).count(), 599);
    assert!(submitted.iter().enumerate().all(|(n, submitted)| submitted.is_new == (n != 500)));
    let runs = Arc::default();
    drain(&world, &echo(&tasks, &runs)).await.unwrap();
    assert_eq!(runs.load(Ordering::SeqCst), 600);
    assert_eq!(tasks.count(&TaskFilter::status([TaskStatus::Succeeded])).await.unwrap(), 600);
}

pub(crate) async fn a_failure_is_tried_again_up_to_the_cap(world: World) {
    let tasks = world.tasks().await;
    let task = tasks.submit("x", json!(1), SubmitOptions::default()).await.unwrap().task;
    let lucky = tasks.submit("lucky", json!(1), SubmitOptions::default()).await.unwrap().task;
    let worker = TaskWorker::new(&tasks, worker_options())
        .on("x", |context| async move { Err::<Value, _>(TaskFailure::retry(format!("no luck {}", context.task.attempts))) })
        .on("lucky", |context| async move {
            if context.task.attempts < 2 { Err(TaskFailure::retry("not yet")) } else { Ok(json!("at last")) }
        });
    drain(&world, &worker).await.unwrap();
    let failed = tasks.get_task(task.id()).await.unwrap().unwrap();
    assert_eq!((failed.status, failed.attempts, failed.error.as_deref()), (TaskStatus::Failed, 3, Some("no luck 3")));
    let expected = ["submitted", "started", "retrying", "started", "retrying", "started", "failed"];
    assert_eq!(kinds(&tasks, &failed).await, expected);
    let result = tasks.results().get(task.id()).await.unwrap().unwrap();
    assert_eq!((result.status, result.error.as_deref()), (TaskStatus::Failed, Some("no luck 3")));
    let lucky = tasks.get_task(lucky.id()).await.unwrap().unwrap();
    assert_eq!((lucky.status, lucky.attempts, lucky.error), (TaskStatus::Succeeded, 2, None));
    assert_eq!(world.dead().await, 1);
    let dead = tasks.options().queue.dead_letter().unwrap();
    let letter = world.queue().peek(&dead, 1).await.unwrap().remove(0);
    assert_eq!(letter.attributes[storage_core::message::dead::REASON], "no luck 3");
}

pub(crate) async fn a_fatal_failure_and_a_panic(world: World) {
    let tasks = world.tasks().await;
    let fatal = tasks.submit("fatal", json!(1), SubmitOptions::default()).await.unwrap().task;
    let panics = tasks.submit("panics", json!(1), SubmitOptions::default().max_attempts(2u32)).await.unwrap().task;
    let worker = TaskWorker::new(&tasks, worker_options())
        .on("fatal", |_| async { Err::<Value, _>(TaskFailure::fatal("no such file")) })
        .on("panics", |context| async move {
            assert!(context.task.attempts == 0, "on purpose");
            Ok(Value::Null)
        });
    drain(&world, &worker).await.unwrap();
    let fatal = tasks.get_task(fatal.id()).await.unwrap().unwrap();
    assert_eq!((fatal.status, fatal.attempts, fatal.error.as_deref()), (TaskStatus::Failed, 1, Some("no such file")));
    let panics = tasks.get_task(panics.id()).await.unwrap().unwrap();
    assert_eq!((panics.status, panics.attempts), (TaskStatus::Failed, 2));
    assert!(panics.error.unwrap().contains("panicked: on purpose"));
    assert_eq!(world.dead().await, 2);
}

pub(crate) async fn a_finished_task_is_not_run_again(world: World) {
    let tasks = world.tasks().await;
    let runs = Arc::default();
    let task = tasks.submit("x", json!(1), SubmitOptions::default()).await.unwrap().task;
    drain(&world, &echo(&tasks, &runs)).await.unwrap();
    let before = tasks.get_task(task.id()).await.unwrap().unwrap();
    // Its message again, as after a lease that ran out before the delete arrived.
    let body = TaskMessage { resource_id: task.resource_id.clone(), task_id: task.task_id.clone(), uid: task.uid, generation: 0 };
    world.queue().send(&tasks.options().queue, NewMessage::json(&body).unwrap()).await.unwrap();
    let report = drain(&world, &echo(&tasks, &runs)).await.unwrap();
    assert_eq!((report.done, runs.load(Ordering::SeqCst)), (1, 1));
    assert_eq!(tasks.get_task(task.id()).await.unwrap().unwrap(), before);
    assert_eq!(kinds(&tasks, &task).await, ["submitted", "started", "succeeded"]);
}

pub(crate) async fn a_waiting_task_is_cancelled(world: World) {
    let tasks = world.tasks().await;
    let task = tasks.submit("x", json!(1), SubmitOptions::default()).await.unwrap().task;
    let Cancel::Cancelled(cancelled) = tasks.cancel(task.id()).await.unwrap() else { panic!("it had not begun") };
    assert_eq!(cancelled.status, TaskStatus::Cancelled);
    assert!(matches!(tasks.cancel(task.id()).await.unwrap(), Cancel::Finished(_)));
    let runs = Arc::default();
    drain(&world, &echo(&tasks, &runs)).await.unwrap();
    assert_eq!(runs.load(Ordering::SeqCst), 0);
    assert_eq!(kinds(&tasks, &task).await, ["submitted", "cancelled"]);
    assert_eq!(tasks.results().get(task.id()).await.unwrap().unwrap().status, TaskStatus::Cancelled);
    assert_eq!(tasks.cancel("nobody").await.unwrap_err().kind(), ErrorKind::NotFound);
}

pub(crate) async fn a_running_task_is_asked_to_stop(world: World) {
    let tasks = world.tasks().await;
    let polite = tasks.submit("polite", json!(1), SubmitOptions::default()).await.unwrap().task;
    let deaf = tasks.submit("deaf", json!(1), SubmitOptions::default()).await.unwrap().task;
    let (running, told) = (Arc::new(tokio::sync::Semaphore::new(0)), Arc::new(Notify::new()));
    let (running_in, told_in, began) = (Arc::clone(&running), Arc::clone(&told), Arc::clone(&running));
    let worker = TaskWorker::new(&tasks, worker_options())
        .on("polite", move |context| {
            let running = Arc::clone(&running_in);
            async move {
                assert!(!context.cancel.is_cancelled().await?);
                running.add_permits(1);
                context.cancel.cancelled().await;
                assert!(context.cancel.is_cancelled().await?);
                Err::<Value, _>(TaskFailure::Cancelled)
            }
        })
        .on("deaf", move |_| {
            let (began, told) = (Arc::clone(&began), Arc::clone(&told_in));
            async move {
                began.add_permits(1);
                told.notified().await;
                Err::<Value, _>(TaskFailure::retry("failed on its own"))
            }
        });
    let cancelling = async {
        let _both = running.acquire_many(2).await.unwrap();
        for task in [&polite, &deaf] {
            assert!(matches!(tasks.cancel(task.id()).await.unwrap(), Cancel::Requested(_)));
        }
        told.notify_one();
    };
    let (report, ()) = tokio::join!(drain(&world, &worker), cancelling);
    assert_eq!(report.unwrap().done, 2);
    for task in [polite, deaf] {
        let task = tasks.get_task(task.id()).await.unwrap().unwrap();
        assert_eq!((task.status, task.attempts), (TaskStatus::Cancelled, 1), "between attempts it is checked in any case");
        assert_eq!(kinds(&tasks, &task).await, ["submitted", "started", "cancel_requested", "cancelled"]);
    }
}

pub(crate) async fn a_failed_task_is_sent_again_by_hand(world: World) {
    let tasks = world.tasks().await;
    let task = tasks.submit("x", json!(1), SubmitOptions::default()).await.unwrap().task;
    let failing = TaskWorker::new(&tasks, worker_options()).on_any(|_| async { Err::<Value, _>(TaskFailure::fatal("broken")) });
    drain(&world, &failing).await.unwrap();
    let again = tasks.retry(task.id()).await.unwrap();
    assert_eq!((again.status, again.attempts, again.generation), (TaskStatus::Pending, 0, 1));
    let runs = Arc::default();
    drain(&world, &echo(&tasks, &runs)).await.unwrap();
    let done = tasks.get_task(task.id()).await.unwrap().unwrap();
    assert_eq!((done.status, done.attempts, done.error.as_deref()), (TaskStatus::Succeeded, 1, None));
    assert_eq!(tasks.results().get(task.id()).await.unwrap().unwrap().status, TaskStatus::Succeeded);
    assert_eq!(tasks.retry(task.id()).await.unwrap_err().kind(), ErrorKind::InvalidInput, "it has succeeded");
    // The dead letter of the first generation, sent home, finds nothing to do.
    assert_eq!(world.queue().redrive(&tasks.options().queue, 10).await.unwrap(), 1);
    drain(&world, &echo(&tasks, &runs)).await.unwrap();
    assert_eq!(runs.load(Ordering::SeqCst), 1);
    assert_eq!(
        tasks.list(&TaskFilter::default(), 10, None).await.unwrap().tasks.len() as u64,
        tasks.count(&TaskFilter::status([TaskStatus::Pending])).await.unwrap()
    );
    assert_eq!(tasks.count(&TaskFilter::default()).await.unwrap(), 1);
}

pub(crate) async fn an_attempt_that_was_taken_over_does_not_count(world: World) {
    let tasks = world.tasks().await;
    let task = tasks.submit("x", json!(1), SubmitOptions::default()).await.unwrap().task;
    let claim = Claim::named("m1");
    let Start::Run(slow) = tasks.start(task.id(), &claim).await.unwrap() else { panic!("it was free") };
    let Start::Run(fast) = tasks.start(task.id(), &claim).await.unwrap() else { panic!("the same message takes over") };
    assert_eq!((slow.attempts, fast.attempts), (1, 2));
    assert_eq!(tasks.succeed(&slow, json!("slow")).await.unwrap_err().kind(), ErrorKind::LeaseLost);
    assert_eq!(tasks.retry_later(&slow, "slow", Duration::ZERO).await.unwrap_err().kind(), ErrorKind::LeaseLost);
    let done = tasks.succeed(&fast, json!("fast")).await.unwrap();
    assert_eq!(done.output, Some(json!("fast")));
    assert_eq!(tasks.fail(&slow, "slow").await.unwrap_err().kind(), ErrorKind::LeaseLost);
    assert!(matches!(tasks.start(task.id(), &claim).await.unwrap(), Start::Finished(_)));
    assert_eq!(tasks.start("nobody", &claim).await.unwrap(), Start::Gone);
}

pub(crate) async fn a_duplicate_message_runs_nothing(world: World) {
    let tasks = world.tasks().await;
    let task = tasks.submit("x", json!(1), SubmitOptions::default()).await.unwrap().task;
    let (one, two) = (Claim::named("m1"), Claim::named("m2"));
    let Start::Run(running) = tasks.start(task.id(), &one).await.unwrap() else { panic!("it was free") };
    assert_eq!(tasks.start(task.id(), &two).await.unwrap(), Start::Superseded);
    tasks.retry_later(&running, "later", Duration::ZERO).await.unwrap();
    assert_eq!(tasks.start(task.id(), &two).await.unwrap(), Start::Superseded, "also while it waits");
    let stale =
        TaskMessage { resource_id: task.resource_id.clone(), task_id: task.task_id.clone(), uid: task.uid, generation: 0 };
    tasks.retry(task.id()).await.unwrap();
    assert_eq!(tasks.start(task.id(), &Claim::of_message("m1", &stale)).await.unwrap(), Start::Superseded, "sent again");
    let Start::Run(again) = tasks.start(task.id(), &two).await.unwrap() else { panic!("it is free again") };
    // As often as it may be, and no more.
    let mut last = again;
    for _ in 0..2 {
        let Start::Run(next) = tasks.start(task.id(), &two).await.unwrap() else { panic!("three attempts") };
        last = next;
    }
    let Start::Finished(failed) = tasks.start(task.id(), &two).await.unwrap() else { panic!("no fourth attempt") };
    assert_eq!((last.attempts, failed.status), (3, TaskStatus::Failed));
    assert!(failed.error.unwrap().starts_with("gave up after 3 attempts"));
}

pub(crate) async fn a_task_not_started_in_time_fails(world: World) {
    let tasks = world.tasks().await;
    let ttl = || SubmitOptions::default().ttl(Duration::from_secs(10));
    let received = tasks.submit("x", json!(1), ttl()).await.unwrap().task;
    let unseen = tasks.submit("x", json!(2), ttl().delay(Duration::from_secs(5))).await.unwrap().task;
    let error = tasks.submit("x", json!(3), ttl().delay(Duration::from_secs(10))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    world.clock.advance(Duration::from_secs(10));
    let Start::Finished(failed) = tasks.start(received.id(), &Claim::default()).await.unwrap() else { panic!("too late") };
    assert_eq!(failed.status, TaskStatus::Failed);
    assert_eq!(tasks.recover().await.unwrap().expired, 1);
    let unseen = tasks.get_task(unseen.id()).await.unwrap().unwrap();
    assert!(unseen.status == TaskStatus::Failed && unseen.error.as_deref().unwrap().starts_with("expired"));
    assert_eq!(kinds(&tasks, &unseen).await, ["submitted", "failed"]);
    let runs = Arc::default();
    drain(&world, &echo(&tasks, &runs)).await.unwrap();
    assert_eq!(runs.load(Ordering::SeqCst), 0);
}

pub(crate) async fn what_is_deleted_can_come_again(world: World) {
    let tasks = world.tasks().await;
    let options = || SubmitOptions::default().task_id("a");
    tasks.submit("x", json!("old"), options()).await.unwrap();
    assert!(tasks.delete_task("a").await.unwrap());
    assert!(!tasks.delete_task("a").await.unwrap());
    assert!(tasks.submit("x", json!("new"), options()).await.unwrap().is_new);
    let seen: Arc<std::sync::Mutex<Vec<Value>>> = Arc::default();
    let worker = TaskWorker::new(&tasks, worker_options()).on_any({
        let seen = Arc::clone(&seen);
        move |context| {
            seen.lock().unwrap().push(context.task.input);
            async { Ok(()) }
        }
    });
    let report = drain(&world, &worker).await.unwrap();
    assert_eq!(report.done, 2, "the old message finds another task under its id");
    assert_eq!(*seen.lock().unwrap(), [json!("new")]);
    assert!(tasks.delete_task("a").await.unwrap(), "finished ones too");
    let mut task = tasks.submit("x", json!(1), options()).await.unwrap().task;
    task.end_for_test(TaskEnd::Cancelled);
    let written = tasks.upsert_task(&task).await.unwrap();
    assert_eq!(tasks.get_task("a").await.unwrap().unwrap(), written);
    assert_eq!(tasks.count(&TaskFilter::default()).await.unwrap(), 1);
}

trait EndForTest {
    fn end_for_test(&mut self, end: TaskEnd);
}

impl EndForTest for Task {
    fn end_for_test(&mut self, end: TaskEnd) {
        self.status = end.status();
    }
}

pub(crate) async fn lists_are_narrowed_and_paged(world: World) {
    let tasks = world.tasks().await;
    for n in 0..25 {
        let resource = if n % 2 == 0 { "even" } else { "odd" };
        let options = SubmitOptions::default().resource_id(resource).task_id(format!("t{n:02}")).batch(format!("b{}", n % 5));
        let task = tasks.submit(if n < 10 { "small" } else { "large" }, n, options).await.unwrap().task;
        if n % 5 == 0 {
            tasks.cancel(task.id()).await.unwrap();
        }
    }
    let all = |filter: TaskFilter| {
        let tasks = tasks.clone();
        async move {
            let (mut found, mut after) = (Vec::new(), None);
            loop {
                let page = tasks.list(&filter, 4, after).await.unwrap();
                assert!(page.tasks.len() <= 4);
                found.extend(page.tasks);
                // Through its text, as a command would.
                after = match page.next {
                    Some(token) => Some(token.to_string().parse().unwrap()),
                    None => break,
                };
            }
            let streamed: Vec<_> = tasks.stream(filter.clone()).map_ok(|task| task.id()).try_collect().await.unwrap();
            assert_eq!(found.iter().map(Task::id).collect::<Vec<_>>(), streamed);
            assert_eq!(tasks.count(&filter).await.unwrap(), found.len() as u64);
            found.len()
        }
    };
    let default = TaskFilter::default;
    assert_eq!(all(default()).await, 25);
    assert_eq!(all(TaskFilter::status([TaskStatus::Cancelled])).await, 5);
    assert_eq!(all(TaskFilter::status([TaskStatus::Pending, TaskStatus::Cancelled])).await, 25);
    assert_eq!(all(TaskFilter::status([TaskStatus::Running])).await, 0);
    assert_eq!(all(TaskFilter { kind: Some("small".into()), ..default() }).await, 10);
    assert_eq!(all(TaskFilter { batch: Some("b0".into()), ..TaskFilter::status([TaskStatus::Cancelled]) }).await, 5);
    assert_eq!(all(TaskFilter { resource_id: Some("odd".into()), ..default() }).await, 12);
    assert_eq!(tasks.find_task("t03").await.unwrap().unwrap().resource_id, "odd");
    assert!(tasks.find_task("t99").await.unwrap().is_none());
    tasks.submit("x", 1, SubmitOptions::default().resource_id("third").task_id("t03")).await.unwrap();
    assert_eq!(tasks.find_task("t03").await.unwrap_err().kind(), ErrorKind::InvalidInput);
    assert!("x.y".parse::<storage_tasks::TaskToken>().is_err());
}

pub(crate) async fn readers_see_a_task_all_the_time_it_moves(world: World) {
    let tasks = world.tasks().await;
    let ids: Vec<TaskId> = (0..20).map(|n| TaskId::from(format!("t{n}"))).collect();
    for id in &ids {
        tasks.submit("x", 1, SubmitOptions::default().task_id(&*id.task_id)).await.unwrap();
    }
    let over = Arc::new(AtomicBool::new(false));
    let reader = tokio::spawn({
        let (tasks, ids, over) = (world.another_process().tasks().await, ids.clone(), Arc::clone(&over));
        async move {
            let (mut ended, mut reads) = (vec![false; ids.len()], 0_u32);
            while !over.load(Ordering::SeqCst) || reads < 20 {
                for (id, ended) in ids.iter().zip(&mut ended) {
                    let task = tasks.get_task(id.clone()).await.unwrap().expect("a task is in one table or the other");
                    assert!(!*ended || task.status.is_finished(), "what has ended does not come back");
                    *ended = task.status.is_finished();
                    reads += 1;
                }
                tokio::task::yield_now().await;
            }
        }
    });
    for id in &ids {
        let Start::Run(task) = tasks.start(id.clone(), &Claim::default()).await.unwrap() else { panic!("it was free") };
        tokio::task::yield_now().await;
        tasks.succeed(&task, Value::Null).await.unwrap();
        tokio::task::yield_now().await;
    }
    over.store(true, Ordering::SeqCst);
    reader.await.unwrap();
    let open = tasks.create_if_not_exists(NewTask::new("x", 1)).await.unwrap().task;
    let moved = tasks.move_to_finished(open.id(), TaskEnd::Failed("by hand".into())).await.unwrap();
    assert_eq!((moved.status, moved.error.as_deref()), (TaskStatus::Failed, Some("by hand")));
    let again = tasks.move_to_finished(open.id(), TaskEnd::Cancelled).await.unwrap();
    assert_eq!(again.status, TaskStatus::Failed, "a finished one stays as it is");
    let unstarted = tasks.create_if_not_exists(NewTask::new("x", 1)).await.unwrap().task;
    let error = tasks.move_to_finished(unstarted.id(), TaskEnd::Succeeded(TaskOutput::default())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}

pub(crate) async fn finished_tasks_are_kept_as_long_as_told(world: World) {
    let options = TaskOptions { keep_finished: Some(Duration::from_secs(60)), ..world.options() };
    let tasks = world.tasks_with(options, world.result_options()).await;
    let old = tasks.submit("x", 1, SubmitOptions::default()).await.unwrap().task;
    tasks.cancel(old.id()).await.unwrap();
    let waiting = tasks.submit("x", 1, SubmitOptions::default()).await.unwrap().task;
    world.clock.advance(Duration::from_secs(59));
    tasks.sweep().await.unwrap();
    assert!(tasks.get_task(old.id()).await.unwrap().is_some());
    world.clock.advance(Duration::from_secs(1));
    tasks.sweep().await.unwrap();
    assert!(tasks.get_task(old.id()).await.unwrap().is_none());
    assert!(tasks.get_task(waiting.id()).await.unwrap().is_some());
    assert_eq!(kinds(&tasks, &old).await, [event::kind::SUBMITTED, event::kind::CANCELLED], "events have a time of their own");
}

pub(crate) async fn kinds_without_a_handler_wait_for_another_worker(world: World) {
    let tasks = world.tasks().await;
    let task = tasks.submit("other", 1, SubmitOptions::default()).await.unwrap().task;
    tasks.submit("mine", 1, SubmitOptions::default()).await.unwrap();
    let runs = Arc::new(AtomicU32::new(0));
    let mine = TaskWorker::new(&tasks, worker_options()).on("mine", |_| async { Ok(()) });
    let other = {
        let runs = Arc::clone(&runs);
        TaskWorker::new(&tasks, worker_options()).on("other", move |_| {
            runs.fetch_add(1, Ordering::SeqCst);
            async { Ok(()) }
        })
    };
    let (a, b) = tokio::join!(drain(&world, &mine), drain(&world, &other));
    assert_eq!(a.unwrap().done + b.unwrap().done, 2);
    let task = tasks.get_task(task.id()).await.unwrap().unwrap();
    assert_eq!((task.status, task.attempts, runs.load(Ordering::SeqCst)), (TaskStatus::Succeeded, 1, 1));
    let all: Vec<_> = tasks.stream(TaskFilter::default()).collect().await;
    assert_eq!(all.len(), 2);
}

pub(crate) async fn what_is_put_back_does_not_count(world: World) {
    let tasks = world.tasks().await;
    let options = SubmitOptions::default().max_attempts(2_u32);
    let task = tasks.submit("x", json!(1), options).await.unwrap().task;
    let claim = Claim::named("m1");
    for _ in 0..5 {
        let Start::Run(running) = tasks.start(task.id(), &claim).await.unwrap() else { panic!("it waits") };
        assert_eq!(running.attempts, 1);
        let waiting = tasks.put_back(&running, "not now", Duration::ZERO).await.unwrap();
        assert_eq!((waiting.status, waiting.attempts, waiting.error.as_deref()), (TaskStatus::Pending, 0, Some("not now")));
        assert_eq!(tasks.succeed(&running, json!(1)).await.unwrap_err().kind(), ErrorKind::LeaseLost, "it gave it back");
    }
    // One that lost it keeps its number for itself.
    let Start::Run(lost) = tasks.start(task.id(), &claim).await.unwrap() else { panic!("it waits") };
    let Start::Run(second) = tasks.start(task.id(), &claim).await.unwrap() else { panic!("taken over") };
    tasks.put_back(&second, "not now", Duration::ZERO).await.unwrap();
    let Start::Run(third) = tasks.start(task.id(), &claim).await.unwrap() else { panic!("it waits") };
    assert_eq!((lost.attempts, second.attempts, third.attempts), (1, 2, 2));
    assert_eq!(tasks.put_back(&lost, "not now", Duration::ZERO).await.unwrap_err().kind(), ErrorKind::LeaseLost);
    tasks.succeed(&third, json!("done")).await.unwrap();
}

pub(crate) async fn a_worker_of_some_kinds_drains_these(world: World) {
    let tasks = world.tasks().await;
    for kind in ["mine", "other", "mine", "other"] {
        tasks.submit(kind, json!(1), SubmitOptions::default()).await.unwrap();
    }
    let worker = TaskWorker::new(&tasks, worker_options()).on("mine", |_| async { Ok::<Value, TaskFailure>(json!("done")) });
    let report = drain(&world, &worker).await.unwrap();
    assert_eq!(report.done, 2, "{report:?}");
    let pending: Vec<Task> = tasks.stream(TaskFilter::status([TaskStatus::Pending])).try_collect().await.unwrap();
    assert_eq!(pending.iter().map(|task| &*task.kind).collect::<Vec<_>>(), ["other", "other"]);
    // Nothing of its own at all, while another's message is leased.
    let leased = world.queue().receive(&tasks.options().queue, &Receive::up_to(10)).await.unwrap();
    assert!(!leased.is_empty());
    assert_eq!(drain(&world, &worker).await.unwrap().done, 0);
    assert!(tasks.count(&TaskFilter::status([TaskStatus::Pending])).await.unwrap() == 2);
}
