//! Records and queues on Redis; rows of tasks, their results, events and schedules too where nothing else is configured.

use serde_json::json;

use crate::support::{Sandbox, carries_the_tasks_of_a_worker};

/// The address of the server with a prefix that nobody else uses; skips the test where there is none.
fn address(test: &str) -> Option<String> {
    let Ok(address) = std::env::var("XTASK_TEST_REDIS") else {
        storage_conformance::skip("no Redis: `cargo xtask test` starts it where it is installed, or set XTASK_TEST_REDIS");
        return None;
    };
    Some(format!("{address}?prefix=cli-{test}-{}", storage_conformance::process_mark()))
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
fn redis_records_by_url() {
    let Some(url) = address("records") else { return };
    let sandbox = Sandbox::new();
    let on = |args: &[&str]| [&["--url", &url], args].concat().iter().map(ToString::to_string).collect::<Vec<_>>();
    let ok = |args: &[&str]| sandbox.ok(&on(args).iter().map(String::as_str).collect::<Vec<_>>());
    let json = |args: &[&str]| sandbox.json(&on(args).iter().map(String::as_str).collect::<Vec<_>>());
    let fails = |code, args: &[&str]| sandbox.fails(code, &on(args).iter().map(String::as_str).collect::<Vec<_>>());
    let schema = "name = \"jobs\"\nid = { name = \"id\", type = \"integer\" }\ncolumns = [{ name = \"status\", type = \"text\" }]\n\
                  indexes = [{ name = \"by_status\", columns = [\"status\"] }]\nhistory = \"keep_all\"\n";
    sandbox.write("jobs.toml", schema);
    ok(&["table", "create", "jobs.toml"]);
    for (id, status) in [("2", "done"), ("10", "ready"), ("1", "ready")] {
        ok(&["record", "put", "jobs", id, &json!({"status": status}).to_string()]);
    }
    ok(&["record", "put", "jobs", "2", "{\"status\":\"ready\"}"]);
    assert_eq!(json(&["record", "get", "jobs", "2"]).remove(0)["version"], 2);
    assert_eq!(json(&["record", "history", "jobs", "2"]).len(), 2);
    let keys = |lines: Vec<serde_json::Value>| lines.iter().filter_map(|line| line["key"].as_i64()).collect::<Vec<_>>();
    assert_eq!(keys(json(&["record", "query", "jobs", "--filter", "status = 'ready'", "--order", "id:desc"])), [10, 2, 1]);
    assert_eq!(keys(json(&["record", "query", "jobs", "--limit", "2"])), [1, 2]);
    ok(&["record", "delete", "jobs", "10"]);
    assert_eq!(json(&["record", "count", "jobs"]).remove(0)["count"], 2);
    fails(3, &["record", "get", "jobs", "10"]);
    // Another process has written all of it, so to speak: nothing was kept in this one.
    assert_eq!(json(&["table", "ls"]).remove(0)["name"], "jobs");
    ok(&["table", "drop", "jobs"]);
    assert_eq!(json(&["table", "ls"]), Vec::<serde_json::Value>::new());
}

#[test]
fn redis_is_checked() {
    let Some(url) = address("check") else { return };
    let sandbox = Sandbox::new();
    sandbox.write("storage.toml", format!("task_queue = \"{url}\"\n"));
    let lines = sandbox.json(&["check"]);
    // Nobody has configured blobs, and Redis has none: that is no failure.
    let blobs = lines.iter().find(|line| line["component"] == "blobs").unwrap();
    assert_eq!((&blobs["configured"], &blobs["ok"]), (&json!(false), &json!(null)), "{blobs}");
    assert!(sandbox.ok(&["check"]).contains("not configured"));
    for name in ["records", "task_queue", "result_storage", "event_storage", "schedule_storage"] {
        let line = lines.iter().find(|line| line["component"] == name).unwrap();
        assert_eq!((&line["ok"], &line["driver"]), (&json!(true), &json!("redis")), "{line}");
    }
}

#[test]
fn redis_carries_the_tasks_of_a_worker() {
    let Some(url) = address("worker") else { return };
    let sandbox = carries_the_tasks_of_a_worker(&url);
    assert!(!sandbox.path("storage.db").exists(), "rows and results are on Redis as well");
}

#[test]
fn redis_cluster_carries_the_tasks_of_a_worker() {
    let Ok(address) = std::env::var("XTASK_TEST_REDIS_CLUSTER") else {
        return storage_conformance::skip("no Redis Cluster: `cargo xtask test` starts it, or set XTASK_TEST_REDIS_CLUSTER");
    };
    carries_the_tasks_of_a_worker(&format!("{address}?prefix=cli-cluster-{}", storage_conformance::process_mark()));
}

#[test]
fn redis_that_is_not_there_is_said_in_a_line() {
    let said = Sandbox::new().run(&["--url", "redis://joe:hunter2@127.0.0.1:1", "queue", "ls"]);
    assert!(said.code.is_some_and(|code| code > 0) && said.stderr.contains("127.0.0.1:1"), "{}", said.stderr);
    assert!(!said.stderr.contains("hunter2"), "{}", said.stderr);
}
