//! `blob` with many files: patterns, failures, and what is killed in the middle of it.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::support::{Running, Sandbox, until};

fn listed(sandbox: &Sandbox, args: &[&str]) -> Vec<String> {
    let lines = sandbox.json(&[&["blob", "ls"], args].concat());
    lines.iter().map(|line| line["path"].as_str().unwrap().to_owned()).collect()
}

fn data(sandbox: &Sandbox) {
    for name in ["data/a.csv", "data/b.txt", "data/2025/c.csv", "data/2026/q1/d.csv", "data/tmp/e.csv"] {
        sandbox.write(name, name);
    }
}

#[test]
fn patterns_choose_on_both_sides() {
    let sandbox = Sandbox::new();
    data(&sandbox);
    assert_eq!(sandbox.json1(&["blob", "put", "data/**/*.csv", "in", "--exclude", "tmp"])["files"], 3);
    assert_eq!(listed(&sandbox, &["-r"]), ["in/2025/c.csv", "in/2026/q1/d.csv", "in/a.csv"]);
    assert_eq!(listed(&sandbox, &["in/*.csv"]), ["in/a.csv"]);
    assert_eq!(listed(&sandbox, &["in/20*/*.csv"]), ["in/2025/c.csv"]);
    let sum = sandbox.json(&["blob", "ls", "in/**", "--summarize"]);
    assert_eq!(sum.last().unwrap()["blobs"], 3);
    sandbox.fails(3, &["blob", "ls", "in/*.gz"]);

    assert_eq!(sandbox.json1(&["blob", "get", "in/**/*.csv", "out"])["files"], 3);
    assert_eq!(sandbox.read("out/2026/q1/d.csv"), b"data/2026/q1/d.csv");
    assert_eq!(sandbox.run(&["blob", "get", "in/*.csv", "in/2025/c.csv", "-"]).stdout, b"data/a.csvdata/2025/c.csv");
    sandbox.fails(3, &["blob", "get", "in/*.gz", "out"]);

    assert_eq!(sandbox.json1(&["blob", "cp", "in/**", "copy/"])["copied"], 3);
    assert_eq!(sandbox.json1(&["blob", "mv", "-r", "copy", "moved"])["moved"], 3);
    assert_eq!(listed(&sandbox, &["moved/**"]), ["moved/2025/c.csv", "moved/2026/q1/d.csv", "moved/a.csv"]);
    sandbox.fails(3, &["blob", "cp", "moved", "x"]);
    sandbox.fails(2, &["blob", "cp", "-r", "moved", "moved/below"]);
    let dry = sandbox.json(&["blob", "rm", "moved/**/*.csv", "-n"]);
    assert_eq!((dry.len(), &dry[3]["removed"]), (4, &json!(3)));
    assert_eq!(sandbox.json1(&["blob", "rm", "moved/**/*.csv"])["removed"], 3);
    sandbox.fails(3, &["blob", "rm", "moved/**"]);
}

#[test]
fn a_blob_of_that_very_name_is_meant_before_a_pattern_is() {
    let sandbox = Sandbox::new();
    sandbox.write("x", "x");
    for path in ["a[1].txt", "a1.txt", "a*"] {
        sandbox.ok(&["blob", "put", "x", path]);
    }
    assert_eq!(sandbox.json1(&["blob", "rm", "a[1].txt"])["removed"], 1);
    assert_eq!(sandbox.json1(&["blob", "rm", "a*"])["removed"], 1);
    assert_eq!(listed(&sandbox, &[]), ["a1.txt"]);
    assert_eq!(sandbox.json1(&["blob", "rm", "a*"])["removed"], 1);
}

#[test]
fn several_files_keep_their_names() {
    let sandbox = Sandbox::new();
    data(&sandbox);
    sandbox.write("other/a.csv", "other");
    assert_eq!(sandbox.json1(&["blob", "put", "data/a.csv", "data/b.txt", "data/2026", "in"])["files"], 3);
    assert_eq!(listed(&sandbox, &["-r"]), ["in/2026/q1/d.csv", "in/a.csv", "in/b.txt"]);
    assert!(sandbox.fails(2, &["blob", "put", "data/a.csv", "other/a.csv", "twice"]).contains("twice/a.csv"));
    sandbox.fails(3, &["blob", "put", "data/a.csv", "no-such-file", "none"]);
    sandbox.fails(3, &["blob", "ls", "none"]);
    assert_eq!(sandbox.json1(&["blob", "get", "in/a.csv", "in/2026", "back"])["files"], 2);
    assert!(sandbox.path("back/a.csv").exists() && sandbox.path("back/2026/q1/d.csv").exists());
    sandbox.ok(&["blob", "put", "data/a.csv", "web/a.csv", "--cache-control", "max-age=60"]);
    assert_eq!(sandbox.json1(&["blob", "stat", "web/a.csv"])["attributes"]["cache_control"], "max-age=60");
}

#[test]
fn failures_are_listed_and_the_rest_is_done() {
    let sandbox = Sandbox::new();
    data(&sandbox);
    sandbox.fifo("data/pipe");
    sandbox.write("data/line\nbreak", "x");
    let ran = sandbox.run(&["blob", "sync", "data", "blob:in", "--delete", "--json"]);
    assert_eq!(ran.code, Some(2), "{}", ran.stderr);
    let report: Value = serde_json::from_slice(&ran.stdout).unwrap();
    assert_eq!((&report["files"], &report["failed"]), (&json!(5), &json!(2)));
    assert_eq!(report["failures"].as_array().unwrap().len(), 2);
    assert!(ran.stderr.contains("data/pipe") && ran.stderr.contains("nothing was removed"), "{}", ran.stderr);
    let refused = sandbox.run(&["blob", "put", "data/pipe", "x"]);
    assert_eq!(refused.code, Some(2), "opening a pipe would wait for ever: {}", refused.stderr);
}

#[test]
fn dry_runs_do_nothing_and_contents_can_be_compared() {
    let sandbox = Sandbox::new();
    data(&sandbox);
    let sync = |args: &[&str]| sandbox.json(&[&["blob", "sync"], args].concat());
    let dry = sync(&["data", "blob:in", "--dry-run", "--include", "*.csv"]);
    assert_eq!((dry.len(), &dry[4]["files"], &dry[4]["dry_run"]), (5, &json!(4), &json!(true)));
    assert_eq!(sandbox.json(&["blob", "ls", "-r"]).len(), 0);
    sync(&["data", "blob:in"]);
    // The same size and an older time: only the content tells.
    let changed = sandbox.write("data/a.csv", "DATA/A.CSV");
    fs::File::open(changed).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
    assert_eq!(sync(&["data", "blob:in"])[0]["files"], 0);
    assert_eq!(sync(&["data", "blob:in", "--checksum"])[0]["files"], 1);
    assert_eq!(sandbox.run(&["blob", "get", "in/a.csv", "-"]).stdout, b"DATA/A.CSV");
    assert_eq!(sync(&["blob:in", "blob:x"])[0]["files"], 5);
    assert!(sandbox.fails(2, &["blob", "sync", "blob:in", "blob:in/x"]).contains("part of the other"));
}

#[test]
fn an_interrupted_put_writes_nothing_and_says_so() {
    let sandbox = Sandbox::new();
    let mut child = sandbox.command(&["blob", "put", "-", "piped"]).stdin(Stdio::piped()).spawn().unwrap();
    // Open until the end: were it closed, the upload might be done before the signal is seen.
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(&vec![b'x'; 3 << 20]).unwrap();
    let running = Running(child);
    until("the upload has begun", || {
        fs::read_dir(sandbox.path("storage-blobs/_storage/uploads")).is_ok_and(|mut uploads| uploads.next().is_some())
    });
    running.signal("INT");
    let ran = running.end();
    drop(stdin);
    assert_eq!(ran.code, Some(130));
    assert!(ran.stderr.contains("interrupted: nothing was written"), "{}", ran.stderr);
    sandbox.fails(3, &["blob", "stat", "piped"]);
}

/// So many files of so many bytes, in folders of a hundred.
fn many(sandbox: &Sandbox, count: usize, size: usize) {
    for n in 0..count {
        sandbox.write(&format!("src/{:03}/{n:06}.bin", n / 100), vec![u8::try_from(n % 251).unwrap(); size]);
    }
}

fn files_below(sandbox: &Sandbox, folder: &str) -> BTreeSet<String> {
    let (mut found, mut folders) = (BTreeSet::new(), vec![sandbox.path(folder)]);
    while let Some(folder_path) = folders.pop() {
        for entry in fs::read_dir(folder_path).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.insert(path.strip_prefix(sandbox.path(folder)).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    found
}

/// Kills a `sync` in the middle several times, then lets one end. Each run moves what the earlier ones had not.
fn killed_and_run_again(sandbox: &Sandbox, from: &str, to: &str, target: &str, count: usize) {
    let finished = || files_below(sandbox, target).iter().filter(|name| !name.ends_with(".storage-part")).count();
    for round in 1..=3 {
        let mut running = sandbox.start(&["blob", "sync", from, to, "--parallel", "4"]);
        let enough = finished() + count / 5;
        until("a part is there", || finished() >= enough);
        running.0.kill().unwrap();
        assert!(!running.0.wait().unwrap().success(), "round {round}: it was done before it was killed");
    }
    let before = finished();
    assert!(before > 0 && before < count, "{before} of {count}");
    let last = sandbox.json1(&["blob", "sync", from, to]);
    assert_eq!((&last["files"], &last["skipped"]), (&json!(count - before), &json!(before)), "no file is moved twice");
    assert_eq!(files_below(sandbox, target), files_below(sandbox, "src"));
    for name in files_below(sandbox, "src") {
        assert_eq!(sandbox.read(&format!("{target}/{name}")), sandbox.read(&format!("src/{name}")), "{name}");
    }
}

#[test]
fn a_sync_that_is_killed_goes_on_where_it_was() {
    const COUNT: usize = 3000;
    let sandbox = Sandbox::new();
    many(&sandbox, COUNT, 4096);
    killed_and_run_again(&sandbox, "src", "blob:up", "storage-blobs/blobs/up", COUNT);
    killed_and_run_again(&sandbox, "blob:up", "down", "down", COUNT);
}

/// Up, down, again, and gone.
fn there_and_back(count: usize) {
    let sandbox = Sandbox::new();
    many(&sandbox, count, 100);
    let sync = |from: &str, to: &str| {
        let report = sandbox.json1(&["blob", "sync", from, to, "--delete"]);
        (report["files"].as_u64().unwrap(), report["skipped"].as_u64().unwrap(), report["failed"].as_u64().unwrap())
    };
    let all = count as u64;
    assert_eq!(sync("src", "blob:up"), (all, 0, 0));
    assert_eq!(sync("src", "blob:up"), (0, all, 0));
    assert_eq!(sync("blob:up", "down"), (all, 0, 0));
    assert_eq!(sync("blob:up", "down"), (0, all, 0));
    assert_eq!(files_below(&sandbox, "down"), files_below(&sandbox, "src"));
    assert_eq!(sandbox.json1(&["blob", "rm", "-r", "up"])["removed"], all);
}

#[test]
fn two_thousand_small_files() {
    there_and_back(2000);
}

#[test]
#[ignore = "soak: takes minutes; run with `cargo xtask test --soak`"]
fn soak_a_hundred_thousand_small_files() {
    there_and_back(100_000);
}
