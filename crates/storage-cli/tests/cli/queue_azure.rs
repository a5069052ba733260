//! Queues on Azure Storage Queue: rows of tasks go beside them, into SQLite.

use serde_json::json;

use crate::support::{Sandbox, carries_the_tasks_of_a_worker};

/// The address of the emulator with a prefix that nobody else uses; skips the test where there is none.
fn address(test: &str) -> Option<String> {
    let Ok(address) = std::env::var("XTASK_TEST_AZURITE_QUEUE") else {
        storage_conformance::skip(
            "no Azurite: `cargo xtask test` starts it where it is installed, or set XTASK_TEST_AZURITE_QUEUE",
        );
        return None;
    };
    Some(format!("azure-queue:?emulator=true&endpoint={address}&prefix=cli{test}{}-", storage_conformance::process_mark()))
}

#[test]
fn queue_azure_by_url() {
    let Some(url) = address("q") else { return };
    let sandbox = Sandbox::new();
    let on = |args: &[&str]| [&["--url", &url], args].concat().iter().map(ToString::to_string).collect::<Vec<_>>();
    let ok = |args: &[&str]| sandbox.ok(&on(args).iter().map(String::as_str).collect::<Vec<_>>());
    let json = |args: &[&str]| sandbox.json(&on(args).iter().map(String::as_str).collect::<Vec<_>>());
    ok(&["queue", "create", "q", "--max-deliveries", "1"]);
    assert!(ok(&["queue", "ls"]).contains('q'));
    let lines: Vec<String> = (0..200).map(|n| format!("line {n}")).collect();
    let send = on(&["queue", "send", "q", "-"]);
    sandbox.run_with(&send.iter().map(String::as_str).collect::<Vec<_>>(), lines.join("\n").as_bytes()).ok();
    let received = ok(&["queue", "receive", "q", "--max", "199", "--delete"]);
    assert_eq!(received.lines().count(), 199);
    let last = json(&["queue", "receive", "q", "--wait", "5s"]).remove(0);
    assert!(!received.lines().any(|line| line == last["body"]), "each comes once");
    // Another process has its receipt.
    ok(&["queue", "update", "q", last["receipt"].as_str().unwrap(), "--visibility", "0s"]);
    let stats = json(&["queue", "stats", "q"]).remove(0);
    assert_eq!((&stats["ready"], &stats["leased"], &stats["dead"]), (&json!(0), &json!(0), &json!(1)));
    assert!(ok(&["queue", "dead", "q"]).contains("max-deliveries"));
    ok(&["queue", "redrive", "q"]);
    assert_eq!(json(&["queue", "peek", "q"]).remove(0)["body"], last["body"]);
    let again = json(&["queue", "receive", "q", "--wait", "5s"]).remove(0);
    ok(&["queue", "update", "q", again["receipt"].as_str().unwrap(), "--body", "changed"]);
    assert_eq!(json(&["queue", "purge", "q"]).remove(0)["purged"], 1);
    ok(&["queue", "drop", "q"]);
}

#[test]
fn queue_azure_carries_the_tasks_of_a_worker() {
    let Some(url) = address("w") else { return };
    carries_the_tasks_of_a_worker(&url);
}

#[test]
fn queue_azure_spills_large_bodies_into_blobs() {
    let Some(url) = address("s") else { return };
    let sandbox = Sandbox::new();
    let body = "x".repeat(100_000);
    sandbox.write("storage.toml", format!("task_queue = \"{url}\"\nblobs = \"file://./large\"\n"));
    sandbox.ok(&["queue", "create", "q"]);
    assert!(sandbox.fails(2, &["queue", "send", "q", &body]).contains("blob"));
    sandbox.write("storage.toml", format!("task_queue = \"{url}&spill=true\"\nblobs = \"file://./large\"\n"));
    sandbox.ok(&["queue", "send", "q", &body]);
    assert_eq!(sandbox.json(&["blob", "ls", "-r", "queues"]).len(), 1);
    assert_eq!(sandbox.ok(&["queue", "receive", "q", "--wait", "5s", "--delete"]).trim_end(), body);
    assert!(sandbox.fails(3, &["blob", "ls", "-r", "queues"]).contains("none below it"));
    sandbox.ok(&["queue", "drop", "q"]);
}

#[test]
fn queue_azure_that_is_not_there_is_said_in_a_line() {
    let url = "azure-queue:?endpoint=http://127.0.0.1:1/acme&account_key=aHVudGVyMg==";
    let said = Sandbox::new().run(&["--url", url, "queue", "ls"]);
    assert!(said.code.is_some_and(|code| code > 0) && said.stderr.contains("azure-queue"), "{}", said.stderr);
    assert!(!said.stderr.contains("aHVudGVyMg"), "{}", said.stderr);
}
