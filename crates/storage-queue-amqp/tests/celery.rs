//! Real Celery at the other end: a Python worker for our tasks, and a Python client for our worker.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use chrono::Utc;
use serde_json::{Value, json};
use storage_conformance::proxy::{Harm, Proxy};
use storage_core::{ConsumerOptions, Driver as _, DriverConfig, ErrorKind, MessageUpdate, NewMessage, QueueStore, Receive};
use storage_queue_amqp::celery::{Celery, CeleryDriver, Failure, Outcome, Task};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/celery");
const WAIT: Duration = Duration::from_secs(30);

/// The broker's address, where there is one, and Celery too.
fn address_or_skip() -> Option<String> {
    let address = common::address_or_skip()?;
    let has_celery = Command::new("python3").args(["-c", "import celery"]).output().is_ok_and(|output| output.status.success());
    if !has_celery {
        storage_conformance::skip("python3 has no package `celery`: `cargo xtask test --all` installs it");
        return None;
    }
    Some(address)
}

fn python(address: &str, queue: &str, words: &[&str]) -> Command {
    let mut command = Command::new("python3");
    command.args(words).current_dir(FOLDER).env("PYTHONDONTWRITEBYTECODE", "1");
    command.env("BROKER", format!("{address}/")).env("QUEUE", queue);
    command
}

struct PythonWorker(Child);

impl PythonWorker {
    fn start(address: &str, queue: &str) -> Self {
        // A name of its own: workers of the same name take each other's control messages.
        let name = format!("{queue}@localhost");
        let words =
            ["-m", "celery", "-A", "app", "worker", "--pool", "solo", "-n", &name, "--without-gossip", "--without-mingle"];
        let mut command = python(address, queue, &words);
        Self(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("python3 is there"))
    }
}

impl Drop for PythonWorker {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn celery(address: &str) -> Celery {
    Celery::open(&DriverConfig::from_url(&format!("celery+{address}"))).unwrap()
}

fn fresh_queue() -> String {
    format!("celery-{}", common::prefix().trim_end_matches('.'))
}

/// The queues of the app, as configuration opens them.
async fn queues(address: &str, options: &str) -> QueueStore {
    let config = DriverConfig::from_url(&format!("celery+{address}{options}"));
    let opened = CeleryDriver::default().open(&config).await.unwrap();
    QueueStore::new(opened.queue.unwrap())
}

/// A Celery 5 worker runs what was sent from here: success, failure, unknown task, eta, expiry, chain.
#[tokio::test(flavor = "multi_thread")]
async fn a_python_worker_runs_our_tasks() {
    let Some(address) = address_or_skip() else { return };
    let queue = fresh_queue();
    let celery = celery(&address);
    let _worker = PythonWorker::start(&address, &queue);
    let started = Utc::now();
    let send = async |task: Task| celery.send(&queue, &task).await.unwrap();
    let result = async |id: &str| celery.result(id, WAIT).await.unwrap();

    let add = send(Task::new("shop.add").arg(2).kwarg("y", 3).priority(5)).await;
    assert_eq!(result(&add).await, Some(Outcome::Success(json!(5))));

    let later = send(Task::new("shop.now").countdown(Duration::from_secs(2))).await;
    let gone = send(Task::new("shop.add").arg(1).expires(Utc::now() - chrono::TimeDelta::seconds(5))).await;
    let chain = send(Task::new("shop.add").arg(2).arg(3).then(Task::new("shop.add").arg(10))).await;

    let fail = send(Task::new("shop.fail").arg("out of order")).await;
    let Some(Outcome::Failure(failure)) = result(&fail).await else { panic!("it fails") };
    assert_eq!((failure.kind.as_str(), failure.message.as_str()), ("ValueError", "out of order"));
    let traceback = failure.traceback.unwrap();
    assert!(traceback.contains("Traceback") && traceback.contains("raise ValueError(text)"), "{traceback}");

    let sell = send(Task::new("shop.sell").arg("tea")).await;
    let Some(Outcome::Failure(failure)) = result(&sell).await else { panic!("it fails") };
    assert_eq!((failure.kind.as_str(), failure.message.as_str()), ("OutOfStock", "no more tea"));
    assert!(failure.to_text().ends_with("app.OutOfStock: no more tea"), "{}", failure.to_text());

    let unknown = send(Task::new("shop.nowhere")).await;
    match result(&unknown).await {
        Some(Outcome::Failure(failure)) => assert_eq!(failure.kind, "NotRegistered"),
        other => panic!("nobody knows it: {other:?}"),
    }
    assert_eq!(result(&chain).await, Some(Outcome::Success(json!(15))));
    assert!(matches!(result(&gone).await, Some(Outcome::Revoked(_))));
    let Some(Outcome::Success(ran_at)) = result(&later).await else { panic!("it runs later") };
    let after = ran_at.as_f64().unwrap() - started.timestamp_micros() as f64 / 1e6;
    assert!(after >= 2.0, "it ran after {after} s");
    assert_eq!(celery.result("no such task", Duration::from_millis(50)).await.unwrap(), None);
}

/// A Python client gets results from our worker: success, failure with its traceback, unknown task, expiry, countdown, chain, callbacks.
#[tokio::test(flavor = "multi_thread")]
async fn a_python_client_gets_our_results() {
    let Some(address) = address_or_skip() else { return };
    let queue = fresh_queue();
    let (seen, mut sightings) = tokio::sync::mpsc::unbounded_channel();
    let worker = celery(&address).worker(&queue.parse().unwrap()).await.unwrap();
    let worker = worker
        .options(ConsumerOptions { concurrency: 4, ..ConsumerOptions::default() })
        .task("rust.add", |task| async move {
            let number = |value: Option<&Value>| value.and_then(Value::as_i64).unwrap_or_default();
            Ok(json!(number(task.args.first()) + number(task.kwargs.get("y"))))
        })
        .task("rust.fail", |task| async move {
            Err(Failure::new("ValueError", task.args[0].as_str().unwrap_or_default()).traceback("in Rust, at src/main.rs:7"))
        })
        .task("rust.now", |_| async { Ok(json!(Utc::now().timestamp_micros() as f64 / 1e6)) })
        .task("rust.seen", move |task| {
            let seen = seen.clone();
            async move { seen.send(task.args).map(|()| Value::Null).map_err(|_| Failure::new("E", "nobody looks")) }
        })
        .task("rust.panics", |_| async { panic!("a bug") });
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn(worker.run(async move { drop(stopped.await) }));
    let mut client = python(&address, &queue, &["client.py"]);
    let output = tokio::task::spawn_blocking(move || client.output().expect("python3 is there")).await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(found["add"]["ok"], json!(5), "{found}");
    assert_eq!((&found["fail"]["kind"], &found["fail"]["message"]), (&json!("ValueError"), &json!("out of order")), "{found}");
    assert_eq!(found["fail"]["traceback"], json!("in Rust, at src/main.rs:7"));
    assert_eq!(found["unknown"]["kind"], json!("NotRegistered"), "{found}");
    assert_eq!(found["expired"]["kind"], json!("TaskRevokedError"), "{found}");
    assert_eq!(found["panics"]["kind"], json!("RuntimeError"), "{found}");
    assert_eq!((&found["chain"]["ok"], &found["immutable"]["ok"]), (&json!(115), &json!(7)), "{found}");
    assert_eq!(found["chord"]["kind"], json!("NotImplementedError"), "{found}");
    assert!(found["later"]["ok"].as_f64().unwrap() >= 2.0, "{found}");
    // The callback of a failure is given the id of the task that failed; one whose result nobody wants runs all the same.
    let (errback, ignored) = (sightings.recv().await.unwrap(), sightings.recv().await.unwrap());
    assert_eq!(errback[0].as_str().map(str::len), Some(36), "{errback:?}");
    assert_eq!(ignored, [json!("ignored")]);
    drop(stop);
    let report = running.await.unwrap().unwrap();
    assert_eq!((report.lost, report.rejected), (0, 0), "{report:?}");
    // What was compressed is no task for everybody, and is not lost.
    let plain = common::open(&address).await;
    let dead = format!("{queue}-dead").parse().unwrap();
    let letters = plain.receive(&dead, &Receive::up_to(10).wait(Duration::from_secs(5))).await.unwrap();
    assert_eq!(letters.len(), 1);
    assert!(letters[0].message.attributes["storage-dead-reason"].contains("compressed"), "{letters:?}");
}

/// Many tasks go in one call, with their confirms in flight together; one that can't be sent keeps all of them back.
#[tokio::test(flavor = "multi_thread")]
async fn many_tasks_go_at_once() {
    let Some(address) = address_or_skip() else { return };
    let (queue, celery) = (fresh_queue(), celery(&address));
    let mut tasks: Vec<Task> = (0..12_000).map(|n| Task::new("shop.add").arg(n)).collect();
    let started = Instant::now();
    let ids = celery.send_all(&queue, &tasks).await.unwrap();
    // Far below what as many round trips would take.
    assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
    assert_eq!(ids.iter().collect::<std::collections::HashSet<_>>().len(), 12_000);
    let (queues, name) = (queues(&address, "").await, queue.parse().unwrap());
    assert_eq!(queues.stats(&name).await.unwrap().ready.value(), Some(12_000));
    tasks.truncate(10);
    tasks[7].task.clear();
    let error = celery.send_all(&queue, &tasks).await.unwrap_err();
    assert_eq!((error.kind(), error.failed_write()), (ErrorKind::InvalidInput, Some(7)));
    assert_eq!(queues.stats(&name).await.unwrap().ready.value(), Some(12_000));
    let received = queues.receive(&name, &Receive::up_to(3)).await.unwrap();
    let first: Task = received[0].message.json().unwrap();
    assert_eq!((first.args, first.id.as_ref()), (vec![json!(0)], Some(&ids[0])));
    queues.delete_queue(&name).await.unwrap();
}

/// As a queue of the toolkit: bodies are tasks as JSON, delays and attributes are Celery's, and what can't be meant is refused.
#[tokio::test(flavor = "multi_thread")]
async fn a_queue_of_tasks() {
    let Some(address) = address_or_skip() else { return };
    let (queues, name) = (queues(&address, "").await, fresh_queue().parse().unwrap());
    let task = |text: &str| NewMessage::new(text.to_owned());
    let missing = queues.send(&name, task(r#"{"task": "a"}"#)).await.unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    assert!(queues.create_queue(&name, &queues.default_spec()).await.unwrap());
    assert!(!queues.create_queue(&name, &queues.default_spec()).await.unwrap());

    let delayed = task(r#"{"task": "later"}"#).delay(Duration::from_secs(2));
    let started = Instant::now();
    let now = task(r#"{"task": "now", "kwargs": {"x": 1}, "id": "mine"}"#).attribute("tenant", "acme");
    let sent = queues.send_all(&name, vec![delayed, now]).await.unwrap();
    assert_eq!(sent[1].id.0, "mine");
    let request = Receive::up_to(10).wait(Duration::from_secs(20));
    let received = queues.receive(&name, &request).await.unwrap().remove(0);
    assert!(started.elapsed() < Duration::from_secs(2));
    let body: Task = received.message.json().unwrap();
    assert_eq!((body.task.as_str(), &body.kwargs["x"], received.message.id.0.as_str()), ("now", &json!(1), "mine"));
    assert_eq!(received.message.attributes.into_iter().collect::<Vec<_>>(), [("tenant".to_owned(), "acme".to_owned())]);
    let later = queues.receive(&name, &request).await.unwrap().remove(0);
    assert!(started.elapsed() >= Duration::from_millis(1_900), "{:?}", started.elapsed());
    assert_eq!(later.message.json::<Task>().unwrap().task, "later");
    // Given back, it comes again.
    queues.update(&name, &later.receipt, &MessageUpdate::visibility(Duration::ZERO)).await.unwrap();
    let later = queues.receive(&name, &request).await.unwrap().remove(0);
    queues.delete(&name, &later.receipt).await.unwrap();
    queues.delete(&name, &received.receipt).await.unwrap();

    for (message, kind) in [
        (task("hello"), ErrorKind::InvalidInput),
        (task(r#"{"task": "a", "retry": true}"#), ErrorKind::InvalidInput),
        (task(r#"{"task": "a"}"#).attribute("eta", "soon"), ErrorKind::InvalidInput),
        (task(r#"{"task": "a"}"#).priority(3), ErrorKind::Unsupported),
        (task(r#"{"task": "a"}"#).ttl(Duration::from_secs(9)), ErrorKind::Unsupported),
        (task(r#"{"task": "a"}"#).dedup_id("x"), ErrorKind::Unsupported),
    ] {
        assert_eq!(queues.send(&name, message).await.unwrap_err().kind(), kind);
    }
    assert_eq!(queues.queues().await.unwrap_err().kind(), ErrorKind::Unsupported);
    let capped = queues.default_spec().max_deliveries(3);
    assert_eq!(queues.create_queue(&name, &capped).await.unwrap_err().kind(), ErrorKind::Unsupported);
    assert!(queues.delete_queue(&name).await.unwrap());
}

/// Attributes are headers that a Python task sees.
#[tokio::test(flavor = "multi_thread")]
async fn a_python_task_sees_attributes() {
    let Some(address) = address_or_skip() else { return };
    let (queue, celery) = (fresh_queue(), celery(&address));
    let (queues, name) = (queues(&address, "").await, queue.parse().unwrap());
    let _worker = PythonWorker::start(&address, &queue);
    queues.ensure_queue(&name, &queues.default_spec()).await.unwrap();
    let reply_to = celery.address().await.unwrap();
    let body = json!({"task": "shop.headers", "id": "with-headers", "reply_to": reply_to});
    queues.send(&name, NewMessage::json(&body).unwrap().attribute("tenant", "acme")).await.unwrap();
    assert_eq!(celery.result("with-headers", WAIT).await.unwrap(), Some(Outcome::Success(json!("acme"))));
}

/// Connections cut in the middle of sending, and of acknowledging and answering: every task is run, and every result told.
#[tokio::test(flavor = "multi_thread")]
async fn cut_connections_lose_no_task_and_no_result() {
    const COUNT: usize = 1_000;
    let Some(address) = common::address_or_skip() else { return };
    let (queue, direct) = (fresh_queue(), celery(&address));
    let port = address.trim_end_matches('/').rsplit(':').next().unwrap().parse().unwrap();
    let (sending, working) = (Proxy::start(port).await, Proxy::start(port).await);
    let through = |proxy: &Proxy| celery(&format!("amqp://guest:guest@127.0.0.1:{}/", proxy.port()));
    let reply_to = Some(direct.address().await.unwrap().to_owned());
    let task = |n: usize| Task { reply_to: reply_to.clone(), ..Task::new("echo").arg(n).id(format!("{queue}-{n}")) };
    let tasks: Vec<Task> = (0..COUNT).map(task).collect();
    let sender = through(&sending);
    sender.send(&queue, &Task::new("echo")).await.unwrap();
    sending.harm(Harm::CutRequest(100_000));
    let mut failed = 0;
    for part in tasks.chunks(100) {
        // The same ids again: run twice, a task has one result.
        while let Err(error) = sender.send_all(&queue, part).await {
            assert!(error.is_retryable(), "{error}");
            failed += 1;
            assert!(failed < 20, "{error}");
        }
    }
    assert!(sending.is_done() && failed > 0, "it was not cut");
    working.harm(Harm::CutRequest(30_000));
    let worker = through(&working).worker(&queue.parse().unwrap()).await.unwrap();
    let worker = worker
        .options(ConsumerOptions { concurrency: 16, retry_first: Duration::from_millis(50), ..ConsumerOptions::default() })
        .task("echo", |task| async move { Ok(task.args.first().cloned().unwrap_or_default()) });
    let running = tokio::spawn(worker.run(std::future::pending()));
    for n in 0..COUNT {
        let found = direct.result(&format!("{queue}-{n}"), WAIT).await.unwrap();
        assert_eq!(found, Some(Outcome::Success(json!(n))));
    }
    assert!(working.is_done(), "it was not cut");
    running.abort();
}
