//! `check`.

use serde_json::Value;

use crate::support::{Ran, Sandbox};

#[test]
fn every_component_is_tried_and_told() {
    let sandbox = Sandbox::new();
    let lines = sandbox.json(&["check"]);
    let names: Vec<_> = lines.iter().map(|line| line["component"].as_str().unwrap()).collect();
    assert_eq!(names, ["records", "task_queue", "result_storage", "event_storage", "schedule_storage", "blobs"]);
    for line in &lines {
        assert_eq!(line["ok"], true, "{line}");
        assert!(line["location"].as_str().unwrap().starts_with('/'), "absolute: {line}");
        for step in ["open_ms", "write_ms", "read_ms", "list_ms", "delete_ms"] {
            assert!(line[step].as_f64().unwrap() > 0.0, "{step}: {line}");
        }
        assert_eq!(line["capabilities"]["durable"], true, "{line}");
        assert_eq!(line["error"], Value::Null);
    }
    let text = sandbox.ok(&["check"]);
    assert!(text.contains("storage.db") && text.contains("dead letter") && text.contains("lacks: signed url"), "{text}");
    // The probes are gone.
    assert_eq!(sandbox.json(&["table", "ls"]), Vec::<Value>::new());
    assert_eq!(sandbox.json(&["queue", "ls"]), Vec::<Value>::new());
    assert_eq!(sandbox.json(&["blob", "ls", "-r"]), Vec::<Value>::new());
}

#[test]
fn what_fails_is_told_and_the_rest_is_tried_all_the_same() {
    let sandbox = Sandbox::new();
    let junk = "x".repeat(5000);
    sandbox.write("a-file", &junk);
    sandbox
        .write("storage.toml", "records = \"sqlite:///good.db\"\nblobs = \"fs://a-file\"\nevent_storage = \"sqlite:///a-file\"");
    let ran = sandbox.run(&["check", "--json"]);
    assert!(ran.code.is_some_and(|code| code != 0), "{:?}", ran.code);
    let lines: Vec<Value> = String::from_utf8(ran.stdout).unwrap().lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let ok: Vec<_> = lines.iter().map(|line| line["ok"].as_bool().unwrap()).collect();
    assert_eq!(ok, [true, true, true, false, true, false]);
    assert!(lines[5]["error"]["message"].as_str().unwrap().contains("a-file"));
    assert!(lines[3]["error"]["message"].as_str().unwrap().contains("a-file"));
    assert!(ran.stderr.contains("blobs") && ran.stderr.contains("event_storage"), "{}", ran.stderr);
    assert_eq!(sandbox.read("a-file"), junk.as_bytes());
    // The others work without them.
    sandbox.ok(&["queue", "create", "q"]);
}

#[test]
fn everything_on_one_url() {
    let sandbox = Sandbox::new();
    for (url, driver) in [("memory:", "memory"), ("fs://folder", "fs"), ("sqlite:///x.db", "sqlite")] {
        let ran = Ran::new(&[url], sandbox.command(&["--url", url, "check", "--json"]).output().unwrap());
        let lines = ran.json();
        assert!(lines.iter().take(5).all(|line| line["driver"] == driver && line["ok"] == true), "{lines:?}");
    }
}

#[test]
fn a_half_working_backend_is_told_by_step_and_left_clean() {
    let sandbox = Sandbox::new();
    sandbox.write("mine.txt", "mine");
    sandbox.ok(&["--url", "fs://store", "blob", "put", "mine.txt", "mine.txt"]);
    // Blobs can be read and listed there, but not written.
    std::fs::remove_dir_all(sandbox.path("store/_storage/uploads")).unwrap();
    sandbox.write("store/_storage/uploads", "in the way");
    sandbox.write("storage.toml", "records = \"memory:\"\ntask_queue = \"memory:\"\nblobs = \"fs://store\"");
    let ran = sandbox.run(&["check", "--json"]);
    assert!(ran.code.is_some_and(|code| code != 0));
    let lines: Vec<Value> = String::from_utf8(ran.stdout).unwrap().lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let blobs = lines.iter().find(|line| line["component"] == "blobs").unwrap();
    assert_eq!((&blobs["ok"], &blobs["failed_step"]), (&Value::Bool(false), &Value::from("write")), "{blobs}");
    assert!(blobs["open_ms"].is_number() && blobs["write_ms"].is_null() && blobs["left_behind"].is_null(), "{blobs}");
    assert!(ran.stderr.contains("storage: blobs: write: "), "{}", ran.stderr);
    assert!(sandbox.run(&["check"]).stderr.contains("blobs"));

    // Looking alone finds nothing wrong.
    let looked = sandbox.json(&["check", "--no-write"]);
    assert!(looked.iter().all(|line| line["ok"] == true && line["list_ms"].is_number() && line["write_ms"].is_null()));
    let listed = sandbox.json(&["blob", "ls", "-r"]);
    assert_eq!((listed.len(), &listed[0]["path"]), (1, &Value::from("mine.txt")));
}
