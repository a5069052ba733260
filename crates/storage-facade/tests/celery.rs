//! A Celery app and programs from here share their tasks, by configuration alone: real Python at the other end.
#![cfg(all(feature = "amqp", feature = "redis", feature = "memory"))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt as _;
use serde_json::{Value, json};
use storage_core::{ConsumerOptions, ErrorKind, NewMessage};
use storage_facade::Storage;
use storage_tasks::{
    FollowOptions, OutboxRelay, RelayOptions, SubmitOptions, TaskContext, TaskFailure, TaskFollower, TaskStatus, TaskStore,
    TaskWorker, WorkerOptions,
};

const APP: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../storage-queue-amqp/tests/celery");
const WAIT: Duration = Duration::from_secs(30);

/// Where a test's app keeps results.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Results {
    Rpc,
    Redis,
}

/// A Celery app of a test's own.
struct App {
    broker: String,
    redis: String,
    queue: String,
    results: Results,
}

impl App {
    /// Skips the test where a server or Celery is missing.
    fn or_skip(results: Results) -> Option<Self> {
        let server = |variable: &str| {
            std::env::var(variable).map_err(|_| format!("no server: `cargo xtask test` starts it, or set {variable}"))
        };
        let python =
            Command::new("python3").args(["-c", "import celery, redis"]).output().is_ok_and(|output| output.status.success());
        let found = server("XTASK_TEST_RABBITMQ").and_then(|broker| Ok((broker, server("XTASK_TEST_REDIS")?)));
        let found = found.and_then(|found| {
            python
                .then_some(found)
                .ok_or_else(|| "python3 lacks `celery` and `redis`: `cargo xtask test --all` installs them".into())
        });
        let (broker, redis) = found.map_err(|reason| storage_conformance::skip(&reason)).ok()?;
        let (broker, redis) = (broker.trim_end_matches('/').to_owned(), redis.trim_end_matches('/').to_owned());
        Some(Self { broker, redis, queue: format!("app-{}", uuid::Uuid::now_v7().simple()), results })
    }

    /// The components as a Rust program of the shop configures them.
    async fn storage(&self) -> Storage {
        let mut queue =
            json!({"url": format!("celery+{}", self.broker), "options": {"reply_queue": format!("{}-replies", self.queue)}});
        if self.results == Results::Redis {
            queue["options"]["results"] = format!("{}/0", self.redis).into();
        }
        Storage::builder().no_file().no_env().set("default", "memory:").set("task_queue", queue).open().await.unwrap()
    }

    fn python(&self, words: &[&str]) -> Command {
        let backend = if self.results == Results::Redis { format!("{}/0", self.redis) } else { "rpc://".into() };
        let mut command = Command::new("python3");
        command.args(words).current_dir(APP).env("PYTHONDONTWRITEBYTECODE", "1").env("BACKEND", backend);
        command.env("BROKER", format!("{}/", self.broker)).env("QUEUE", &self.queue).stdin(Stdio::null());
        command
    }

    fn worker(&self) -> PythonWorker {
        // A name of its own: workers of the same name take each other's control messages.
        let name = format!("{}@localhost", self.queue);
        let words =
            ["-m", "celery", "-A", "app", "worker", "--pool", "solo", "-n", &name, "--without-gossip", "--without-mingle"];
        PythonWorker(self.python(&words).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("python3 is there"))
    }

    fn options(&self) -> SubmitOptions {
        SubmitOptions::default().queue(self.queue.parse::<storage_core::QueueName>().unwrap())
    }
}

struct PythonWorker(Child);

impl Drop for PythonWorker {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Ends with the test.
struct Beside(tokio::task::JoinHandle<()>);

impl Drop for Beside {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn follow(tasks: &TaskStore) -> Beside {
    let follower = TaskFollower::new(tasks, FollowOptions { poll: Duration::from_millis(50), ..FollowOptions::default() });
    Beside(tokio::spawn(async move {
        let _ = follower.run(std::future::pending()).await;
    }))
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..600 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("not in time: {what}");
}

/// What is submitted here is run by a Python worker, and its row follows: pending, running, succeeded or failed.
async fn a_python_workers_tasks_have_rows(results: Results) {
    let Some(app) = App::or_skip(results) else { return };
    let storage = app.storage().await;
    let tasks = storage.tasks().await.unwrap();
    assert!(tasks.is_foreign() && tasks.options().queue.as_str() == "celery");
    let submit =
        async |kind: &str, input: Value, options: SubmitOptions| tasks.submit(kind, input, options).await.unwrap().task.id();
    let sleep = submit("shop.sleep", json!([1.5]), app.options().task_id("nap")).await;
    assert_eq!(tasks.get_task("nap").await.unwrap().unwrap().status, TaskStatus::Pending);
    assert!(!tasks.submit("shop.sleep", json!([1.5]), app.options().task_id("nap")).await.unwrap().is_new);
    let _worker = app.worker();
    let _follower = follow(&tasks);
    until("it runs", async || tasks.get_task("nap").await.unwrap().unwrap().status == TaskStatus::Running).await;
    let result = tasks.results().wait(sleep, WAIT).await.unwrap().expect("it ends");
    assert_eq!((result.status, result.output), (TaskStatus::Succeeded, Some(json!("rested"))));
    until("its row says so", async || tasks.get_task("nap").await.unwrap().unwrap().status == TaskStatus::Succeeded).await;
    let kinds: Vec<String> = tasks.events().of_task("nap").await.unwrap().into_iter().map(|event| event.kind).collect();
    assert_eq!(kinds, ["submitted", "started", "succeeded"]);

    let both = submit("shop.add", json!({"args": [2], "kwargs": {"y": 3}}), app.options().resource_id("till/7")).await;
    let named = submit("shop.add", json!({"x": 2, "y": 5}), app.options().priority(3)).await;
    let later = submit("shop.add", json!([1]), app.options().delay(Duration::from_secs(1))).await;
    let fails = submit("shop.sell", json!("tea"), app.options()).await;
    let unknown = submit("shop.nowhere", json!(null), app.options()).await;
    let end = async |id| {
        let result = tasks.results().wait(id, WAIT).await.unwrap().expect("it ends");
        (result.status, result.output.unwrap_or_default(), result.error.unwrap_or_default())
    };
    assert_eq!(end(both.clone()).await, (TaskStatus::Succeeded, json!(5), String::new()));
    assert_eq!(end(named).await.1, json!(7));
    assert_eq!(end(later).await.1, json!(1));
    let (status, _, error) = end(fails.clone()).await;
    assert_eq!(status, TaskStatus::Failed);
    assert!(error.starts_with("Traceback") && error.ends_with("OutOfStock: no more tea"), "{error}");
    let (_, _, error) = end(unknown).await;
    assert!(error.lines().last().unwrap().starts_with("NotRegistered: "), "{error}");
    until("its row says so", async || {
        tasks.get_task(fails.clone()).await.unwrap().unwrap().error
            == tasks.results().get(fails.clone()).await.unwrap().unwrap().error
    })
    .await;
    // Sent again, it is not taken for what it was.
    let tried =
        async || tasks.events().of_task(fails.clone()).await.unwrap().into_iter().filter(|event| event.kind == "started").count();
    assert_eq!(tried().await, 1);
    tasks.retry(fails.clone()).await.unwrap();
    until("it fails again", async || {
        tried().await == 2 && tasks.get_task(fails.clone()).await.unwrap().unwrap().status == TaskStatus::Failed
    })
    .await;
    // What a task can't carry.
    let blob = tasks.submit("shop.add", json!([1]), app.options().blob("a/b")).await.unwrap_err();
    assert_eq!(blob.kind(), ErrorKind::Unsupported);
    let bad = tasks.submit("shop.add", json!({"args": 1}), app.options()).await.unwrap_err();
    assert_eq!(bad.kind(), ErrorKind::InvalidInput);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_python_workers_tasks_have_rows_by_rpc() {
    a_python_workers_tasks_have_rows(Results::Rpc).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_python_workers_tasks_have_rows_by_redis() {
    a_python_workers_tasks_have_rows(Results::Redis).await;
}

/// A result in Redis is read also of a task without a row, in another process, without a follower.
#[tokio::test(flavor = "multi_thread")]
async fn results_in_redis_are_read_by_anybody() {
    let Some(app) = App::or_skip(Results::Redis) else { return };
    let (storage, queue) = (app.storage().await, app.queue.parse().unwrap());
    let (queues, results) = (storage.queues().await.unwrap(), storage.results().await.unwrap());
    queues.ensure_queue(&queue, &queues.default_spec()).await.unwrap();
    let id = uuid::Uuid::new_v4().to_string();
    let body = json!({"task": "shop.add", "args": [2, 2], "id": id});
    queues.send(&queue, NewMessage::json(&body).unwrap()).await.unwrap();
    assert_eq!(results.get(id.clone()).await.unwrap(), None);
    let _worker = app.worker();
    let result = results.wait(id.clone(), WAIT).await.unwrap().expect("it ends");
    assert_eq!((result.status, result.output), (TaskStatus::Succeeded, Some(json!(4))));
    assert!(results.get(id).await.unwrap().is_some());
}

async fn add(context: TaskContext) -> Result<Value, TaskFailure> {
    let input = &context.task.input;
    let number = |value: &Value| value.as_i64().unwrap_or_default();
    Ok(json!(number(&input["args"][0]) + number(&input["kwargs"]["y"])))
}

/// A worker of tasks, as any of the toolkit's, runs what a Python client sends; its `r.get()` returns, and rows tell the tasks' lives.
async fn a_python_client_has_our_results(results: Results) {
    let Some(app) = App::or_skip(results) else { return };
    let storage = app.storage().await;
    let tasks = storage.tasks().await.unwrap();
    let consumer = ConsumerOptions { concurrency: 4, ..ConsumerOptions::default() };
    let options =
        WorkerOptions { queue: Some(app.queue.parse().unwrap()), consumer, foreign_delay: Some(Duration::from_millis(100)) };
    let fail = |context: TaskContext| async move {
        let text = context.task.input["args"][0].as_str().unwrap_or_default().to_owned();
        // As a program in Python, say, prints it.
        Err::<Value, _>(TaskFailure::retry(format!("Traceback (most recent call last):\n  in line 7\nValueError: {text}")))
    };
    let now = |_| async { Ok::<_, TaskFailure>(json!(chrono::Utc::now().timestamp_micros() as f64 / 1e6)) };
    let worker =
        TaskWorker::new(&tasks, options).on("rust.add", add).on("rust.fail", fail).on("rust.now", now).on("rust.seen", now);
    let worker = worker
        .on("rust.nowhere", |_| async { Err::<Value, _>(TaskFailure::fatal("NotRegistered: rust.nowhere")) })
        .on("rust.panics", |_| async { panic!("a bug") as Result<Value, TaskFailure> });
    let running = tokio::spawn(async move { worker.run(std::future::pending()).await });
    let mut client = app.python(&["client.py"]);
    let output = tokio::task::spawn_blocking(move || client.output().expect("python3 is there")).await.unwrap();
    running.abort();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(found["add"]["ok"], json!(5), "{found}");
    assert_eq!((&found["fail"]["kind"], &found["fail"]["message"]), (&json!("ValueError"), &json!("out of order")), "{found}");
    assert!(found["fail"]["traceback"].as_str().unwrap().contains("in line 7"), "{found}");
    assert_eq!(found["unknown"]["kind"], json!("NotRegistered"), "{found}");
    assert_eq!(found["expired"]["kind"], json!("TaskRevokedError"), "{found}");
    assert_eq!(found["panics"]["kind"], json!("RuntimeError"), "{found}");
    assert_eq!((&found["chain"]["ok"], &found["immutable"]["ok"]), (&json!(115), &json!(7)), "{found}");
    assert_eq!(found["chord"]["kind"], json!("NotImplementedError"), "{found}");
    assert!(found["later"]["ok"].as_f64().unwrap() >= 2.0, "{found}");
    if results == Results::Redis {
        assert_eq!(found["link"]["ok"], json!(21), "{found}");
    }
    let rows: Vec<_> = tasks.stream(storage_tasks::TaskFilter::default()).try_collect().await.unwrap();
    let of = |kind: &str| rows.iter().filter(|task| task.kind == kind).collect::<Vec<_>>();
    assert!(of("rust.fail").iter().all(|task| task.status == TaskStatus::Failed && task.attempts == 1), "{rows:?}");
    assert!(of("rust.add").len() >= 8 && of("rust.now").iter().all(|task| task.status == TaskStatus::Succeeded), "{rows:?}");
    let failed = of("rust.fail")[0];
    assert!(
        failed.error.as_deref().unwrap().ends_with("ValueError: out of order")
            || failed.error.as_deref().unwrap().ends_with("ValueError: again")
    );
    assert!(tasks.results().get(failed.id()).await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_python_client_has_our_results_by_rpc() {
    a_python_client_has_our_results(Results::Rpc).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_python_client_has_our_results_by_redis() {
    a_python_client_has_our_results(Results::Redis).await;
}

/// From here to here, over Celery's messages: retries and their count are the task's own.
#[tokio::test(flavor = "multi_thread")]
async fn our_own_tasks_are_tried_again() {
    let Some(app) = App::or_skip(Results::Rpc) else { return };
    let storage = app.storage().await;
    let tasks = storage.tasks().await.unwrap();
    let _relay = {
        let relay = OutboxRelay::new(&tasks, RelayOptions::default());
        Beside(tokio::spawn(async move {
            let _ = relay.run(std::future::pending()).await;
        }))
    };
    let _follower = follow(&tasks);
    let id = tasks.submit("flaky", json!({"x": 1}), app.options().max_attempts(3u32)).await.unwrap().task.id();
    let consumer = ConsumerOptions { retry_first: Duration::from_millis(50), ..ConsumerOptions::default() };
    let options = WorkerOptions { queue: Some(app.queue.parse().unwrap()), consumer, foreign_delay: None };
    let tries = Arc::new(std::sync::atomic::AtomicU32::new(0));
    let counted = Arc::clone(&tries);
    let worker = TaskWorker::new(&tasks, options).on("flaky", move |context: TaskContext| {
        let tries = counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst) + 1;
        async move {
            assert_eq!((&context.task.input, context.task.attempts), (&json!({"x": 1}), tries));
            if tries < 3 { Err(TaskFailure::retry("not yet")) } else { Ok(json!("at last")) }
        }
    });
    let _running = Beside(tokio::spawn(async move { drop(worker.run(std::future::pending()).await) }));
    let result = tasks.results().wait(id, WAIT).await.unwrap().expect("it ends");
    assert_eq!((result.status, result.output), (TaskStatus::Succeeded, Some(json!("at last"))));
    assert_eq!(tries.load(std::sync::atomic::Ordering::SeqCst), 3);
}

/// Results in a backend that is not there, and options that can't be meant, are said when the program starts.
#[tokio::test]
async fn bad_configuration_is_said() {
    let open =
        async |url: &str| Storage::builder().no_file().no_env().set("default", "memory:").set("task_queue", url).open().await;
    for (url, says) in [
        ("celery+amqp://localhost?results=postgres://h/db", "nothing here opens `postgres:`"),
        ("celery+amqp://localhost?results=redis://h/db", "number of a database"),
        ("celery+amqp://localhost?result=rpc", "did you mean `results`"),
        ("celery+redis://localhost", "did you mean `celery+amqp"),
    ] {
        let error = open(url).await.unwrap_err();
        assert!(error.kind() == ErrorKind::Config && error.to_string().contains(says), "{url}: {error}");
    }
}
