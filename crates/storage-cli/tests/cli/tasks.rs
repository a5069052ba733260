//! `task`, `result`, `event`, `schedule`.

use serde_json::{Value, json};

use crate::support::Sandbox;

fn id_of(value: &Value) -> &str {
    value["task_id"].as_str().unwrap()
}

#[test]
fn a_task_from_submission_to_result() {
    let sandbox = Sandbox::new();
    let id = sandbox.ok(&["task", "submit", "greet", "--input", "{\"name\": \"world\"}"]);
    let id = id.trim();
    let task = sandbox.json1(&["task", "get", id]);
    assert_eq!((&task["status"], &task["kind"], &task["input"]), (&json!("pending"), &json!("greet"), &json!({"name": "world"})));
    assert!(sandbox.ok(&["task", "get", id]).contains("0 of 10"));
    assert!(sandbox.fails(3, &["result", "get", id]).contains("pending"));
    assert!(sandbox.fails(5, &["result", "get", id, "--wait", "10ms"]).contains("10ms"));
    sandbox.fails(3, &["result", "get", "gone"]);
    sandbox.fails(3, &["task", "get", "gone"]);

    // Waits in one process for what another one does.
    let waiting = sandbox.start(&["result", "get", id, "--wait", "30s"]);
    sandbox.ok(&["worker", "--drain", "--", "sed", "s/world/you/"]);
    let result: Value = serde_json::from_str(&waiting.end().ok()).unwrap();
    assert_eq!(result, json!({"name": "you"}));
    let result = sandbox.json1(&["result", "get", id]);
    assert_eq!((&result["status"], &result["output"]["name"]), (&json!("succeeded"), &json!("you")));
    let kinds: Vec<_> = sandbox.json(&["event", "ls", "--task", id]).iter().map(|e| e["kind"].clone()).collect();
    assert_eq!(kinds, ["submitted", "started", "succeeded"]);
    assert!(sandbox.ok(&["event", "ls", "--kind", "succeeded"]).contains(id));
    assert_eq!(sandbox.json(&["event", "ls", "--since", "2100-01-01T00:00:00Z"]).len(), 0);
    sandbox.fails(2, &["task", "retry", id]);
    sandbox.fails(4, &["task", "cancel", id]);
    assert_eq!(sandbox.json1(&["task", "delete", id])["deleted"], true);
    sandbox.fails(3, &["task", "delete", id]);
    assert_eq!(sandbox.json1(&["result", "get", id])["status"], "succeeded", "the result stays");
}

#[test]
fn submitting_in_every_way() {
    let sandbox = Sandbox::new();
    let first = sandbox.json1(&["task", "submit", "k", "--text", "plain", "--id", "one", "--resource", "acme", "--batch", "b"]);
    assert_eq!((&first["new"], &first["resource_id"]), (&json!(true), &json!("acme")));
    let again = sandbox.json1(&["task", "submit", "k", "--id", "one", "--resource", "acme"]);
    assert_eq!(again["new"], false);
    for which in [&["acme/one"][..], &["one"], &["one", "--resource", "acme"]] {
        assert_eq!(sandbox.json1(&[&["task", "get"], which].concat())["input"], "plain", "{which:?}");
    }
    let lines = sandbox.run_with(&["task", "submit", "k", "-", "--json"], b"{\"n\": 1}\n2\n\"three\"\n").json();
    assert_eq!(lines.len(), 3);
    assert_eq!(sandbox.json1(&["task", "get", id_of(&lines[1])])["input"], 2);
    let said = sandbox.run_with(&["task", "submit", "k", "-", "--text-lines"], "x\n".repeat(1201).as_bytes()).ok();
    assert_eq!(said, "submitted 1,201 tasks\n");
    let error = sandbox.run_with(&["task", "submit", "k", "-"], b"1\nnot json\n").fails(2);
    assert!(error.contains("line 2") && error.contains("--text-lines"), "{error}");
    sandbox.run_with(&["task", "submit", "k", "--input", "-"], b"[1, 2]").ok();
    sandbox.fails(2, &["task", "submit", "k", "--input", "{x"]);
    sandbox.fails(2, &["task", "submit", "k", "--max-attempts", "0"]);

    assert_eq!(sandbox.json(&["task", "ls", "--batch", "b"]).len(), 1);
    assert_eq!(sandbox.json(&["task", "ls", "--resource", "acme"]).len(), 1);
    assert_eq!(sandbox.json(&["task", "ls", "--status", "failed,running"]).len(), 0);
    let page = sandbox.json(&["task", "ls", "--limit", "500"]);
    assert_eq!(page.len(), 501);
    let token = page.last().unwrap()["next"].as_str().unwrap();
    assert_eq!(
        sandbox.json(&["task", "ls", "--limit", "10000", "--after", token]).iter().filter(|t| t["task_id"].is_string()).count(),
        706
    );
    assert!(sandbox.run(&["task", "ls", "--status", "runing"]).stderr.contains("did you mean `running`"));
}

#[test]
fn cancel_and_retry() {
    let sandbox = Sandbox::new();
    sandbox.ok(&["task", "submit", "k", "--id", "t"]);
    assert_eq!(sandbox.json1(&["task", "cancel", "t"])["status"], "cancelled");
    let ran = sandbox.run(&["result", "get", "t"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(1), "storage: task t was cancelled\n"));
    assert_eq!(sandbox.json1(&["task", "retry", "t"])["status"], "pending");
    sandbox.ok(&["worker", "--drain", "--", "echo", "done"]);
    assert_eq!(sandbox.ok(&["result", "get", "t"]), "done\n");
    sandbox.fails(3, &["task", "cancel", "gone"]);
    sandbox.fails(3, &["task", "retry", "gone"]);
}

#[test]
fn events_are_followed_as_they_come() {
    let sandbox = Sandbox::new();
    sandbox.ok(&["task", "submit", "k", "--id", "before"]);
    let mut tail = sandbox.start(&["event", "tail", "--json", "--all", "--max", "4"]);
    let mut lines = tail.lines();
    let mut next = || serde_json::from_str::<Value>(&lines.next().unwrap().unwrap()).unwrap();
    assert_eq!(id_of(&next()), "before");
    sandbox.ok(&["task", "submit", "k", "--id", "after"]);
    assert_eq!(id_of(&next()), "after");
    sandbox.ok(&["task", "cancel", "after"]);
    assert_eq!(next()["kind"], "cancelled");
    sandbox.ok(&["task", "submit", "k", "--id", "last"]);
    assert_eq!(id_of(&next()), "last");
    assert_eq!(tail.end().code, Some(0));
}

#[test]
fn schedules_submit_tasks() {
    let sandbox = Sandbox::new();
    let added = sandbox.json1(&["schedule", "add", "past", "k", "--at", "2026-01-01T00:00:00Z", "--input", "[1]"]);
    assert_eq!((&added["name"], &added["spec"]["at"]), (&json!("past"), &json!("2026-01-01T00:00:00Z")));
    sandbox.ok(&["schedule", "add", "nightly", "k", "--cron", "0 3 * * *", "--timezone", "Europe/Berlin", "--batch", "b"]);
    sandbox.ok(&["schedule", "add", "often", "k", "--every", "5m"]);
    sandbox.fails(4, &["schedule", "add", "often", "k", "--every", "5m"]);
    assert!(sandbox.fails(2, &["schedule", "add", "x", "k", "--cron", "nonsense"]).contains("cron"));
    assert!(
        sandbox
            .fails(2, &["schedule", "add", "x", "k", "--cron", "@daily", "--timezone", "Europe/Berln"])
            .contains("Europe/Berlin")
    );
    assert_eq!(sandbox.run(&["schedule", "add", "x", "k"]).code, Some(2));
    assert_eq!(sandbox.run(&["schedule", "add", "x", "k", "--every", "5m", "--cron", "@daily"]).code, Some(2));
    let text = sandbox.ok(&["schedule", "ls"]);
    assert!(text.contains("every 5m") && text.contains("Europe/Berlin"), "{text}");
    assert_eq!(sandbox.json(&["schedule", "ls"]).len(), 3);

    assert_eq!(sandbox.json1(&["schedule", "run", "--once"]), json!({"submitted": 1, "there_already": 0, "failed": 0}));
    assert_eq!(sandbox.json1(&["schedule", "run", "--once"])["submitted"], 0);
    let triggered = sandbox.json1(&["schedule", "run", "nightly"]);
    assert!(id_of(&triggered).starts_with("nightly@manual-"));
    assert_eq!(sandbox.json1(&["task", "get", id_of(&triggered)])["batch"], "b");
    sandbox.fails(3, &["schedule", "run", "gone"]);

    assert_eq!(sandbox.json1(&["schedule", "pause", "often"])["paused"], true);
    assert!(sandbox.ok(&["schedule", "ls"]).contains("paused"));
    assert_eq!(sandbox.json1(&["schedule", "resume", "often"])["paused"], false);
    sandbox.fails(3, &["schedule", "pause", "gone"]);
    sandbox.ok(&["schedule", "rm", "often"]);
    sandbox.fails(3, &["schedule", "rm", "often"]);
    sandbox.ok(&["schedule", "rm", "often", "--missing-ok"]);
}

#[test]
fn a_scheduler_runs_until_it_is_told_to_stop() {
    let sandbox = Sandbox::new();
    sandbox.ok(&["schedule", "add", "often", "k", "--every", "100ms"]);
    let mut tail = sandbox.start(&["event", "tail", "--json", "--max", "2", "--all"]);
    let scheduler = sandbox.start(&["schedule", "run", "--json"]);
    let mut lines = tail.lines();
    lines.next().unwrap().unwrap();
    lines.next().unwrap().unwrap();
    scheduler.signal("TERM");
    let report = scheduler.end().json().remove(0);
    assert!(report["submitted"].as_u64().unwrap() >= 2, "{report}");
    assert_eq!(report["failed"], 0);
}
