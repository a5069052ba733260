//! Queues on Redis: rows of tasks go beside them, into SQLite.

use serde_json::json;

use crate::support::{Sandbox, carries_the_tasks_of_a_worker};

/// The address of the server with a prefix that nobody else uses; skips the test where there is none.
fn address(test: &str) -> Option<String> {
    let Ok(address) = std::env::var("XTASK_TEST_REDIS") else {
        storage_conformance::skip("no Redis: `cargo xtask test` starts it where it is installed, or set XTASK_TEST_REDIS");
        return None;
    };
    Some(format!("{address}?prefix=cli-{test}-{}", std::process::id()))
}

#[test]
fn redis_queues_by_url() {
    let Some(url) = address("queues") else { return };
    let sandbox = Sandbox::new();
    let on = |args: &[&str]| [&["--url", &url], args].concat().iter().map(ToString::to_string).collect::<Vec<_>>();
    let ok = |args: &[&str]| sandbox.ok(&on(args).iter().map(String::as_str).collect::<Vec<_>>());
    let json = |args: &[&str]| sandbox.json(&on(args).iter().map(String::as_str).collect::<Vec<_>>());
    ok(&["queue", "create", "q", "--max-deliveries", "1"]);
    let lines: Vec<String> = (0..2_500).map(|n| format!("line {n}")).collect();
    let send = on(&["queue", "send", "q", "-"]);
    sandbox.run_with(&send.iter().map(String::as_str).collect::<Vec<_>>(), lines.join("\n").as_bytes()).ok();
    let received = ok(&["queue", "receive", "q", "--max", "2499", "--delete"]);
    assert_eq!(received.lines().collect::<Vec<_>>(), lines[..2_499]);
    let last = json(&["queue", "receive", "q", "--wait", "5s"]).remove(0);
    assert_eq!(last["body"], "line 2499");
    ok(&["queue", "update", "q", last["receipt"].as_str().unwrap(), "--visibility", "0s"]);
    let stats = json(&["queue", "stats", "q"]).remove(0);
    assert_eq!((&stats["ready"], &stats["leased"], &stats["dead"]), (&json!(0), &json!(0), &json!(1)));
    assert!(ok(&["queue", "dead", "q"]).contains("max-deliveries"));
    ok(&["queue", "redrive", "q"]);
    assert_eq!(json(&["queue", "peek", "q"]).remove(0)["body"], "line 2499");
    assert_eq!(json(&["queue", "purge", "q"]).remove(0)["purged"], 1);
    ok(&["queue", "drop", "q"]);
}

#[test]
fn redis_carries_the_tasks_of_a_worker() {
    let Some(url) = address("worker") else { return };
    carries_the_tasks_of_a_worker(&url);
}

#[test]
fn redis_that_is_not_there_is_said_in_a_line() {
    let said = Sandbox::new().run(&["--url", "redis://joe:hunter2@127.0.0.1:1", "queue", "ls"]);
    assert!(said.code.is_some_and(|code| code > 0) && said.stderr.contains("127.0.0.1:1"), "{}", said.stderr);
    assert!(!said.stderr.contains("hunter2"), "{}", said.stderr);
}
