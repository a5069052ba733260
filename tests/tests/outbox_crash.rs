//! A process is killed between commit and sending: every message of a committed batch arrives, once, and none of a batch that was rolled back.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests")]

use std::io::BufRead as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use storage_tests::outbox::{Kill, Ledger, Work, open_both};

/// Rounds in which the process ends exactly between commit and send. As many again are spread over the other moments.
const ROUNDS: u64 = 200;
/// After so many rounds a fresh store is begun.
const ROUNDS_PER_STORE: u64 = 40;

fn random() -> u64 {
    uuid::Uuid::new_v4().as_u64_pair().0
}

/// Every second round between commit and send, the others between send and note, or wherever it is.
fn kill_of(round: u64) -> Kill {
    match round % 4 {
        0 | 2 => Kill::BeforeSend(random() % 12),
        1 => Kill::AfterSend(random() % 12),
        _ => Kill::Outside,
    }
}

/// Runs the program until it is dead and answers what it acknowledged.
fn run_and_kill(work: Work, folder: &Path, start: u64, kill: Kill) -> Vec<(u64, u64)> {
    let work = if work == Work::Batches { "batches" } else { "tasks" };
    let mut child = Command::new(env!("CARGO_BIN_EXE_storage-test-child"))
        .args(["outbox", work])
        .arg(folder)
        .args([start.to_string(), kill.word()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let stdout = std::io::BufReader::new(child.stdout.take().unwrap());
    let reader = std::thread::spawn(move || {
        let lines = stdout.lines().map_while(Result::ok);
        lines
            .filter_map(|line| line.split_once(' ').and_then(|(w, n)| w.parse().ok().zip(n.parse().ok())))
            .collect::<Vec<(u64, u64)>>()
    });
    if kill == Kill::Outside {
        std::thread::sleep(Duration::from_micros(10_000 + random() % 60_000));
        assert!(child.try_wait().unwrap().is_none(), "it ended by itself");
        child.kill().unwrap();
    }
    let output = child.wait_with_output().unwrap();
    use std::os::unix::process::ExitStatusExt as _;
    assert_eq!(output.status.signal(), Some(9), "{kill:?}: {}", String::from_utf8_lossy(&output.stderr));
    reader.join().unwrap()
}

async fn kill_rounds(work: Work) {
    let (mut acknowledged, mut owed) = (0, Vec::new());
    for _ in 0..(2 * ROUNDS).div_ceil(ROUNDS_PER_STORE) {
        let folder = tempfile::tempdir().unwrap();
        let (mut ledger, mut start) = (Ledger::default(), 0);
        for round in 0..ROUNDS_PER_STORE {
            let lines = run_and_kill(work, folder.path(), start, kill_of(round));
            start = ledger.note(start, &lines);
            let (records, queues) = open_both(folder.path()).await.unwrap();
            ledger.check(work, &records.records, &queues.queues).await;
            records.records.close().await.unwrap();
            queues.queues.close().await.unwrap();
        }
        acknowledged += ledger.acknowledged();
        for (round, owed) in (0..).zip(&ledger.owed) {
            assert!(*owed > 0 || kill_of(round) == Kill::Outside, "killed between commit and note, it owes a message");
        }
        owed.extend(ledger.owed);
    }
    let left: u64 = owed.iter().sum();
    println!("{work:?}: {} kills, {acknowledged} acknowledged, {left} messages were owed and relayed", owed.len());
    assert!(owed.len() as u64 >= 2 * ROUNDS && acknowledged > 0);
}

#[tokio::test]
async fn every_committed_message_is_sent_and_no_other() {
    kill_rounds(Work::Batches).await;
}

#[tokio::test]
async fn every_submitted_task_is_sent_and_no_other() {
    kill_rounds(Work::Tasks).await;
}
