//! `blob`.

use std::fs;

use serde_json::{Value, json};

use crate::support::Sandbox;

/// So large that it goes in many pieces.
fn large() -> Vec<u8> {
    (0..20_000_000_u32).map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect()
}

fn paths(lines: &[Value]) -> Vec<&str> {
    lines.iter().map(|line| line.get("path").or_else(|| line.get("prefix")).and_then(Value::as_str).unwrap()).collect()
}

#[test]
fn a_file_goes_in_and_comes_out() {
    let sandbox = Sandbox::new();
    sandbox.write("in.bin", large());
    sandbox.ok(&["blob", "put", "in.bin", "big/one.bin", "--content-type", "application/x-test", "-m", "owner=acme"]);
    let stat = sandbox.json1(&["blob", "stat", "big/one.bin"]);
    assert_eq!((&stat["size"], &stat["attributes"]["content_type"]), (&json!(20_000_000), &json!("application/x-test")));
    assert_eq!(stat["attributes"]["metadata"], json!({"owner": "acme"}));
    assert!(sandbox.ok(&["blob", "stat", "big/one.bin"]).contains("19.07 MiB"));
    sandbox.ok(&["blob", "get", "big/one.bin", "out.bin"]);
    assert!(sandbox.read("out.bin") == large());
    fs::create_dir(sandbox.path("folder")).unwrap();
    sandbox.ok(&["blob", "get", "big/one.bin", "folder"]);
    assert!(sandbox.read("folder/one.bin") == large());
    sandbox.ok(&["blob", "put", "in.bin", "dir/"]);
    assert_eq!(sandbox.json1(&["blob", "stat", "dir/in.bin"])["size"], 20_000_000);
}

#[test]
fn stdin_and_stdout() {
    let sandbox = Sandbox::new();
    sandbox.run_with(&["blob", "put", "-", "piped"], &large()).ok();
    let out = sandbox.run(&["blob", "get", "piped", "-"]);
    assert_eq!(out.code, Some(0));
    assert!(out.stdout == large());
    assert_eq!(out.stderr, "");
    sandbox.run_with(&["blob", "put", "-", "empty"], b"").ok();
    assert_eq!(sandbox.run(&["blob", "get", "empty", "-"]).stdout, b"");
}

#[test]
fn folders_listings_and_removal() {
    let sandbox = Sandbox::new();
    for name in ["site/index.html", "site/css/a.css", "site/css/b.css", "site/img/x/1.png"] {
        sandbox.write(name, name);
    }
    assert_eq!(sandbox.json1(&["blob", "put", "site", "www"])["files"], 4);
    assert_eq!(paths(&sandbox.json(&["blob", "ls"])), ["www"]);
    assert_eq!(paths(&sandbox.json(&["blob", "ls", "www/"])), ["www/css", "www/img", "www/index.html"]);
    let all = sandbox.json(&["blob", "ls", "/www", "-r"]);
    assert_eq!(paths(&all), ["www/css/a.css", "www/css/b.css", "www/img/x/1.png", "www/index.html"]);
    assert_eq!(paths(&sandbox.json(&["blob", "ls", "www/index.html"])), ["www/index.html"]);
    assert!(sandbox.ok(&["blob", "ls", "www"]).contains("www/css/"));
    sandbox.ok(&["blob", "get", "www", "back"]);
    assert_eq!(sandbox.read("back/img/x/1.png"), b"site/img/x/1.png");

    sandbox.fails(3, &["blob", "ls", "gone"]);
    sandbox.fails(3, &["blob", "rm", "www/css"]);
    assert_eq!(sandbox.json1(&["blob", "rm", "www/css", "-r"])["removed"], 2);
    sandbox.fails(3, &["blob", "rm", "www/css", "-r"]);
    sandbox.ok(&["blob", "rm", "www/css", "-r", "--missing-ok"]);
    sandbox.fails(2, &["blob", "rm", "/"]);
    assert_eq!(sandbox.json1(&["blob", "rm", "www/index.html", "www/img/x/1.png"])["removed"], 2);
    assert_eq!(sandbox.json(&["blob", "ls", "-r"]).len(), 0);
}

#[test]
fn copies_moves_and_preconditions() {
    let sandbox = Sandbox::new();
    sandbox.write("a", "one");
    sandbox.write("b", "two");
    let first = sandbox.json1(&["blob", "put", "a", "x"]);
    sandbox.fails(4, &["blob", "put", "b", "x", "--no-clobber"]);
    sandbox.fails(4, &["blob", "put", "b", "x", "--if-match", "stale"]);
    sandbox.ok(&["blob", "put", "b", "x", "--if-match", first["etag"].as_str().unwrap()]);
    sandbox.ok(&["blob", "cp", "x", "y"]);
    sandbox.fails(4, &["blob", "cp", "x", "y", "--no-clobber"]);
    sandbox.fails(4, &["blob", "mv", "x", "y", "--no-clobber"]);
    sandbox.ok(&["blob", "mv", "x", "z"]);
    sandbox.fails(3, &["blob", "stat", "x"]);
    assert_eq!(sandbox.run(&["blob", "get", "z", "-"]).stdout, b"two");
    sandbox.fails(3, &["blob", "cp", "gone", "w"]);
    sandbox.fails(3, &["blob", "get", "gone", "-"]);
    sandbox.fails(3, &["blob", "get", "gone", "here"]);
    sandbox.fails(3, &["blob", "put", "gone", "here"]);
    let error = sandbox.run(&["blob", "stat", "../etc/passwd"]);
    assert_eq!(error.code, Some(2), "{}", error.stderr);
    let url = sandbox.ok(&["blob", "url", "z"]);
    assert!(url.starts_with("file:///") && url.trim().ends_with('z'), "{url}");
    assert!(sandbox.fails(2, &["blob", "url", "z", "--expires", "1h"]).contains("signed"));
}

#[test]
fn sync_makes_the_sides_the_same() {
    let sandbox = Sandbox::new();
    for name in ["src/a", "src/sub/b", "src/sub/c"] {
        sandbox.write(name, name);
    }
    let sync = |args: &[&str]| sandbox.json1(&[&["blob", "sync"], args].concat());
    assert_eq!(sync(&["src", "blob:copy"])["files"], 3);
    let again = sync(&["src", "blob:copy"]);
    assert_eq!((&again["files"], &again["skipped"]), (&json!(0), &json!(3)));
    assert_eq!(sync(&["blob:copy", "back"])["files"], 3);
    assert_eq!(sandbox.read("back/sub/c"), b"src/sub/c");

    fs::remove_file(sandbox.path("src/sub/c")).unwrap();
    assert_eq!(sync(&["src", "blob:copy"])["removed"], 0, "only where it is asked for");
    assert_eq!(sync(&["src", "blob:copy", "--delete"])["removed"], 1);
    sandbox.write("back/extra/more", "x");
    assert_eq!(sync(&["blob:copy", "back", "--delete"])["removed"], 2);
    assert!(!sandbox.path("back/sub/c").exists() && !sandbox.path("back/extra/more").exists());
    assert!(sandbox.path("back/a").exists());

    sandbox.fails(3, &["blob", "sync", "blob:typo", "back", "--delete"]);
    assert!(sandbox.path("back/a").exists(), "a mistyped path empties nothing");
    sandbox.fails(2, &["blob", "sync", "src", "back"]);
    sandbox.fails(3, &["blob", "sync", "gone", "blob:copy"]);
}
