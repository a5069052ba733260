//! Real Celery at the other end: a Python worker for our tasks, and a Python client for our worker.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use chrono::Utc;
use serde_json::{Value, json};
use storage_core::{ConsumerOptions, DriverConfig};
use storage_queue_amqp::celery::{Celery, Failure, Outcome, Task};

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
        let words =
            ["-m", "celery", "-A", "app", "worker", "--pool", "solo", "--without-gossip", "--without-mingle", "-l", "warning"];
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
    Celery::open(&DriverConfig::from_url(&format!("celery+{address}?prefix=s."))).unwrap()
}

/// A Celery 5 worker runs what was sent from here: success, failure, unknown task, eta, expiry, chain.
#[tokio::test(flavor = "multi_thread")]
async fn a_python_worker_runs_our_tasks() {
    let Some(address) = address_or_skip() else { return };
    let queue = format!("celery-{}", common::prefix().trim_end_matches('.'));
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

/// A Python client gets results from our worker: success, failure with its traceback, unknown task, expiry, countdown, chain.
#[tokio::test(flavor = "multi_thread")]
async fn a_python_client_gets_our_results() {
    let Some(address) = address_or_skip() else { return };
    let queue = format!("celery-{}", common::prefix().trim_end_matches('.'));
    let celery = Celery::open(&DriverConfig::from_url(&address)).unwrap();
    let worker = celery.worker(&queue.parse().unwrap()).await.unwrap();
    let worker = worker
        .options(ConsumerOptions { concurrency: 4, ..ConsumerOptions::default() })
        .task("rust.add", |request| async move {
            let number = |value: Option<&Value>| value.and_then(Value::as_i64).unwrap_or_default();
            Ok(json!(number(request.args.first()) + number(request.kwargs.get("y"))))
        })
        .task("rust.fail", |request| async move {
            Err(Failure::new("ValueError", request.args[0].as_str().unwrap_or_default()).traceback("in Rust, at src/main.rs:7"))
        })
        .task("rust.now", |_| async { Ok(json!(Utc::now().timestamp_micros() as f64 / 1e6)) })
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
    assert_eq!(found["chain"]["ok"], json!(15), "{found}");
    assert!(found["later"]["ok"].as_f64().unwrap() >= 2.0, "{found}");
    drop(stop);
    let started = Instant::now();
    let report = running.await.unwrap().unwrap();
    assert!(started.elapsed() < WAIT);
    assert_eq!((report.lost, report.rejected), (0, 0), "{report:?}");
}
