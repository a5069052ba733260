//! Workers that are killed in the middle of it: every task ends finished.

use std::collections::HashSet;

use serde_json::Value;

use crate::support::Sandbox;

const TASKS: usize = 2000;
const KILLS: usize = 20;

#[test]
fn two_thousand_tasks_outlive_twenty_killed_workers() {
    let sandbox = Sandbox::new();
    let input: String = (0..TASKS).map(|n| format!("{n}\n")).collect();
    sandbox.run_with(&["task", "submit", "k", "-", "--max-attempts", "50"], input.as_bytes()).ok();
    let worker =
        ["worker", "--json", "--drain", "--concurrency", "8", "--visibility", "500ms", "--retry-first", "1ms", "--", "true"];
    for round in 0..KILLS {
        let mut running = sandbox.start(&worker);
        // After so many ends, each time others: somewhere in the middle of the next ones.
        let ends = 11 + round * 37 % 60;
        let seen = running.lines().take(ends).filter(std::result::Result::is_ok).count();
        assert_eq!(seen, ends, "round {round}: the worker ended early");
        running.0.kill().unwrap();
        running.0.wait().unwrap();
    }
    let last = sandbox.run(&worker);
    assert_eq!(last.json().last().unwrap()["failed"], 0);
    let finished: HashSet<String> = sandbox
        .json(&["task", "ls", "--limit", "10000", "--status", "succeeded"])
        .iter()
        .filter_map(|task| task["task_id"].as_str().map(str::to_owned))
        .collect();
    assert_eq!(finished.len(), TASKS);
    let others = sandbox.json(&["task", "ls", "--limit", "10000", "--status", "pending,running,failed,cancelled"]);
    assert_eq!(others, Vec::<Value>::new());
    let stats = sandbox.json1(&["queue", "stats", "tasks"]);
    assert_eq!([&stats["ready"], &stats["leased"], &stats["delayed"], &stats["dead"]], [0, 0, 0, 0]);
    // An end that was acknowledged is told once: no task ended twice.
    let mut ended = 0;
    let mut after: Option<String> = None;
    loop {
        let mut args = vec!["event", "ls", "--kind", "succeeded", "--limit", "10000"];
        args.extend(after.iter().flat_map(|token| ["--after", token]));
        let lines = sandbox.json(&args);
        ended += lines.iter().filter(|line| line["task_id"].is_string()).count();
        after = lines.last().and_then(|line| line["next"].as_str().map(str::to_owned));
        if after.is_none() {
            break;
        }
    }
    assert_eq!(ended, TASKS);
}
