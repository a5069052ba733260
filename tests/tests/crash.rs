//! A process is killed at random moments while it writes; what it had acknowledged is there afterwards, and nothing is there by half.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests")]

use std::io::BufRead as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use storage_tests::workload::Ledger;
use storage_tests::{address, open};

/// Rounds of killing, for one backend.
const ROUNDS: u32 = 200;
/// The same under `--soak`.
const SOAK_ROUNDS: u32 = 5000;
/// After so many rounds a fresh store is begun, so that checking does not come to take longer than writing.
const ROUNDS_PER_STORE: u32 = 25;

fn random_delay() -> Duration {
    let (random, _) = uuid::Uuid::new_v4().as_u64_pair();
    Duration::from_micros(2_000 + random % 58_000)
}

/// Runs the writers until they are killed and answers what they acknowledged.
fn run_and_kill(url: &str, start: u64) -> Vec<(u64, u64)> {
    let mut child = Command::new(env!("CARGO_BIN_EXE_storage-test-child"))
        .args(["write", url, &start.to_string()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let stdout = std::io::BufReader::new(child.stdout.take().unwrap());
    let reader = std::thread::spawn(move || {
        let lines = stdout.lines().map_while(Result::ok);
        // The last line may be cut in the middle: it was not read, so it was not acknowledged.
        lines
            .filter_map(|line| line.split_once(' ').map(|(w, n)| (w.parse().ok(), n.parse().ok())))
            .collect::<Vec<(Option<u64>, Option<u64>)>>()
    });
    std::thread::sleep(random_delay());
    let ended = child.try_wait().unwrap();
    child.kill().unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(ended.is_none(), "the writers ended by themselves: {}", String::from_utf8_lossy(&output.stderr));
    reader.join().unwrap().into_iter().filter_map(|(writer, n)| writer.zip(n)).collect()
}

async fn kill_rounds(backend: &str, rounds: u32) {
    let mut acknowledged = 0;
    for _ in 0..rounds.div_ceil(ROUNDS_PER_STORE) {
        let folder = tempfile::tempdir().unwrap();
        let url = address(backend, folder.path());
        let mut ledger = Ledger::default();
        let mut start = 0;
        // The first round creates the store: killed there too, it must open afterwards.
        for round in 0..ROUNDS_PER_STORE {
            let lines = run_and_kill(&url, start);
            start = ledger.note_round(start, &lines);
            let stores = open(&url).await.unwrap_or_else(|e| panic!("round {round}: the store does not open: {e}"));
            storage_tests::workload::prepare(&stores).await.unwrap();
            ledger.check(&stores).await;
            stores.records.close().await.unwrap();
        }
        ledger.assert_no_duplicates();
        acknowledged += ledger.acknowledged();
    }
    println!("{backend}: {rounds} kills, {acknowledged} acknowledged operations, all there");
    assert!(
        acknowledged > rounds as usize,
        "the writers hardly wrote: {acknowledged} operations in {rounds} rounds prove little"
    );
}

#[tokio::test]
async fn sqlite_keeps_what_it_acknowledged() {
    kill_rounds("sqlite", ROUNDS).await;
}

#[tokio::test]
async fn fs_keeps_what_it_acknowledged() {
    kill_rounds("fs", ROUNDS).await;
}

#[tokio::test]
#[ignore = "soak: takes hours; run with `cargo xtask test --soak`"]
async fn soak_sqlite_keeps_what_it_acknowledged() {
    kill_rounds("sqlite", SOAK_ROUNDS).await;
}

#[tokio::test]
#[ignore = "soak: takes hours; run with `cargo xtask test --soak`"]
async fn soak_fs_keeps_what_it_acknowledged() {
    kill_rounds("fs", SOAK_ROUNDS).await;
}
