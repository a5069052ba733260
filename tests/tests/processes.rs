//! Several processes work on one store.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

use std::collections::BTreeMap;
use std::process::{Command, Stdio};

use storage_core::{NewMessage, QueueName, QueueSpec};
use storage_tests::{address, open};

const TASKS: usize = 5000;

/// Two processes, each with two workers, share 5,000 tasks: each task runs once, and no process says a word on its standard error.
async fn share(backend: &str) {
    let folder = tempfile::tempdir().unwrap();
    let url = address(backend, folder.path());
    let stores = open(&url).await.unwrap();
    let queue = QueueName::new("shared").unwrap();
    stores.queues.create_queue(&queue, &QueueSpec::default()).await.unwrap();
    let workers: Vec<_> = {
        let bodies: Vec<_> = (0..TASKS).map(|n| NewMessage::new(format!("task-{n}"))).collect();
        stores.queues.send_all(&queue, bodies).await.unwrap();
        (0..2)
            .map(|_| {
                Command::new(env!("CARGO_BIN_EXE_storage-test-child"))
                    .args(["work", &url, "shared"])
                    .stdout(Stdio::piped())
                    .stderr(Stdio::piped())
                    .spawn()
                    .unwrap()
            })
            .collect()
    };
    let mut runs: BTreeMap<String, usize> = BTreeMap::new();
    let mut shares = Vec::new();
    for worker in workers {
        let output = tokio::task::spawn_blocking(move || worker.wait_with_output()).await.unwrap().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "no error is shown");
        assert!(output.status.success(), "{:?}", output.status);
        let text = String::from_utf8(output.stdout).unwrap();
        shares.push(text.lines().count());
        text.lines().for_each(|line| *runs.entry(line.to_owned()).or_default() += 1);
    }
    println!("{backend}: the processes ran {shares:?} tasks");
    assert_eq!(runs.len(), TASKS, "each task runs");
    let twice: Vec<_> = runs.iter().filter(|(_, times)| **times > 1).collect();
    assert!(twice.is_empty(), "run twice within their lease: {twice:?}");
    assert!(shares.iter().all(|share| *share > 0), "one process did all the work: {shares:?}");
}

#[tokio::test]
async fn two_processes_share_a_queue_in_sqlite() {
    share("sqlite").await;
}

#[tokio::test]
async fn two_processes_share_a_queue_in_fs() {
    share("fs").await;
}
