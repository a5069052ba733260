//! `blob sync`, `cp` and `mv` from store to store.

use serde_json::json;

use crate::support::Sandbox;

fn url(sandbox: &Sandbox, name: &str) -> String {
    format!("file://{}", sandbox.path(name).display())
}

fn listed(sandbox: &Sandbox, url: &str) -> Vec<String> {
    let lines = sandbox.json(&["blob", "ls", "-r", "--url", url]);
    lines.iter().map(|line| line["path"].as_str().unwrap().to_owned()).collect()
}

fn filled() -> (Sandbox, String, String) {
    let sandbox = Sandbox::new();
    for name in ["data/a.csv", "data/b.txt", "data/2026/c.csv", "data/odd ü name"] {
        sandbox.write(name, name);
    }
    let (one, other) = (url(&sandbox, "one"), url(&sandbox, "other"));
    assert_eq!(sandbox.json1(&["blob", "sync", "data", &format!("{one}#in")])["files"], 4);
    (sandbox, one, other)
}

#[test]
fn two_stores_are_synced() {
    let (sandbox, one, other) = filled();
    let (from, to) = (format!("{one}#in"), format!("{other}#out"));
    let sync = |args: &[&str]| sandbox.json(&[&["blob", "sync", &from, &to], args].concat());
    assert_eq!(sync(&["--dry-run"]).last().unwrap()["files"], 4);
    assert_eq!(listed(&sandbox, &other).len(), 0);
    assert_eq!(sync(&["--bwlimit", "1G"])[0]["files"], 4);
    assert_eq!(sync(&["--checksum"])[0]["skipped"], 4);
    sandbox.ok(&["blob", "rm", "in/b.txt", "--url", &one]);
    let last = &sync(&["--delete"])[0];
    assert_eq!((&last["files"], &last["skipped"], &last["removed"]), (&json!(0), &json!(3), &json!(1)));
    assert_eq!(listed(&sandbox, &other), ["out/2026/c.csv", "out/a.csv", "out/odd ü name"]);
    assert!(!sandbox.path("storage-blobs").exists(), "the configured store has no part in it");

    assert_eq!(sandbox.json1(&["blob", "sync", &to, "back"])["files"], 3);
    assert_eq!(sandbox.read("back/2026/c.csv"), b"data/2026/c.csv");
    assert_eq!(sandbox.json1(&["blob", "sync", &to, "blob:"])["files"], 3);
    assert!(sandbox.path("storage-blobs").exists());
    sandbox.fails(3, &["blob", "sync", &format!("{one}#none"), &to, "--delete"]);
    let typo = sandbox.run(&["blob", "sync", &url(&sandbox, "typo"), "back"]);
    assert!(typo.code != Some(0) && !sandbox.path("typo").exists(), "reading creates nothing: {}", typo.stderr);
    assert!(sandbox.fails(2, &["blob", "sync", "data", "file:x"]).contains("file://"));
    sandbox.fails(2, &["blob", "sync", "data", "back"]);
    sandbox.fails(2, &["blob", "sync", "data", "nonsense://x"]);
    sandbox.fails(2, &["blob", "sync", "data", &format!("{other}?no_such_option=1")]);
    assert!(sandbox.fails(2, &["blob", "sync", "data", &format!("{other}?fsync_env=NOT_SET")]).contains("NOT_SET"));
    assert_eq!(sandbox.run(&["blob", "sync", "data", &to, "--bwlimit", "fast"]).code, Some(2));
}

#[test]
fn blobs_are_copied_and_moved_from_store_to_store() {
    let (sandbox, one, other) = filled();
    let at = |store: &str, path: &str| format!("{store}#{path}");
    sandbox.write("typed", "typed");
    sandbox.ok(&["blob", "put", "typed", "typed", "--content-type", "text/x-test", "-m", "by=alice", "--url", &one]);

    assert_eq!(sandbox.json1(&["blob", "cp", &at(&one, "typed"), &at(&other, "new/name")])["copied"], 1);
    let stat = sandbox.json1(&["blob", "stat", "new/name", "--url", &other]);
    assert_eq!(stat["attributes"], json!({"content_type": "text/x-test", "metadata": {"by": "alice"}}));
    assert_eq!(sandbox.json1(&["blob", "cp", &at(&one, "in/**/*.csv"), &at(&other, "csv/")])["copied"], 2);
    assert_eq!(listed(&sandbox, &other), ["csv/2026/c.csv", "csv/a.csv", "new/name"]);
    sandbox.fails(4, &["blob", "cp", &at(&one, "typed"), &at(&other, "new/name"), "--no-clobber"]);
    sandbox.fails(3, &["blob", "cp", &at(&one, "in"), &at(&other, "x")]);
    sandbox.fails(3, &["blob", "cp", "-r", &at(&one, "none"), &at(&other, "x")]);

    let dry = sandbox.json(&["blob", "mv", "-r", &at(&one, "in"), "blob:moved", "-n"]);
    assert_eq!((dry.len(), &dry[4]["moved"]), (5, &json!(4)));
    assert_eq!(listed(&sandbox, &one).len(), 5);
    assert_eq!(sandbox.json1(&["blob", "mv", "-r", &at(&one, "in"), "blob:moved"])["moved"], 4);
    assert_eq!(listed(&sandbox, &one), ["typed"]);
    assert_eq!(sandbox.run(&["blob", "get", "moved/odd ü name", "-"]).stdout, "data/odd ü name".as_bytes());
    // Within one other store.
    assert_eq!(sandbox.json1(&["blob", "mv", &at(&one, "typed"), &at(&one, "in/")])["moved"], 1);
    assert_eq!(listed(&sandbox, &one), ["in/typed"]);
    sandbox.fails(2, &["blob", "cp", "-r", &at(&one, "in"), &at(&one, "in/below")]);
    assert!(sandbox.fails(2, &["blob", "cp", "moved/a.csv", "b", "--bwlimit", "1M"]).contains("--bwlimit"));
}
