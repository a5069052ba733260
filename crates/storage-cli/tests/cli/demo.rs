//! `demo`.

use serde_json::{Value, json};

use crate::support::Sandbox;

fn with_files() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.write("src/a.rs", "one\ntwo\n");
    sandbox.write("src/b.rs", "three\n");
    sandbox.write("README.md", "hello\n");
    sandbox.write("odd name — ü", "");
    sandbox.write("target/left-out.rs", "x");
    sandbox.write(".git/left-out", "x");
    sandbox
}

#[test]
fn it_counts_what_is_there_and_checks_itself_twice_in_a_row() {
    let sandbox = with_files();
    for _ in 0..2 {
        let report = sandbox.json1(&["demo"]);
        assert_eq!(report["ok"], true, "{report}");
        assert_eq!(report["total"], json!({"files": 4, "bytes": 20, "lines": 4}));
        assert_eq!(report["kinds"][".rs"], json!({"files": 2, "bytes": 14, "lines": 3}));
        assert_eq!(report["checks"].as_array().unwrap().len(), 4);
    }
    let text = sandbox.ok(&["demo"]);
    assert!(text.contains("storage-demo") && text.contains(".rs") && !text.contains("FAILED"), "{text}");
    let names: Vec<_> = std::fs::read_dir(sandbox.folder()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(names.iter().any(|name| name == "storage-demo") && !names.iter().any(|name| name == "storage.db"), "{names:?}");

    // What it says to look at is there.
    let url = "sqlite:///storage-demo/storage.db";
    let run = text.lines().next().unwrap().rsplit(' ').next().unwrap();
    assert_eq!(sandbox.json(&["--url", url, "task", "ls", "--resource", run]).len(), 4);
    let blob = format!("demo/{run}/report.json");
    let report: Value = serde_json::from_slice(&sandbox.run(&["--url", url, "blob", "get", &blob, "-"]).stdout).unwrap();
    assert_eq!(report["files"].as_array().unwrap().len(), 4);
    assert_eq!(sandbox.json(&["--url", url, "queue", "ls"]).len(), 1, "queues of runs are removed, the tasks' own stays");
}

#[test]
fn it_runs_on_whatever_is_configured() {
    let sandbox = with_files();
    for url in ["memory:", "fs://store", "sqlite:///db/x.db"] {
        std::fs::create_dir_all(sandbox.path("db")).unwrap();
        let report = sandbox.json1(&["demo", "src", "--url", url]);
        assert_eq!((&report["ok"], &report["total"]["files"]), (&json!(true), &json!(2)), "{url}");
    }
    // Every part somewhere else: outbox, results and events behind the task.
    sandbox.write(
        "storage.yaml",
        "task_queue: 'sqlite:///db/q.db'\nresult_storage: 'fs://results'\nevent_storage: 'memory:'\nblobs: 'fs://blobs'\n",
    );
    let report = sandbox.json1(&["demo", "src"]);
    assert_eq!((&report["ok"], &report["total"]["files"]), (&json!(true), &json!(2)));
    assert!(!sandbox.path("storage-demo").exists());
}

#[test]
fn a_folder_without_files_or_none_at_all() {
    let sandbox = Sandbox::new();
    assert!(sandbox.fails(3, &["demo"]).contains("no files"));
    assert!(sandbox.fails(3, &["demo", "gone"]).contains("gone"));
}
