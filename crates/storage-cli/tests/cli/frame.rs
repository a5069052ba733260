//! What all commands share: help, configuration, errors, pipes, signals.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::Stdio;

use crate::support::{Ran, Running, Sandbox};

const COMMANDS: &[&str] = &[
    "demo",
    "check",
    "table create",
    "table ls",
    "table describe",
    "table drop",
    "record put",
    "record get",
    "record query",
    "record count",
    "record delete",
    "record history",
    "queue create",
    "queue ls",
    "queue send",
    "queue receive",
    "queue delete",
    "queue update",
    "queue peek",
    "queue stats",
    "queue purge",
    "queue dead",
    "queue redrive",
    "queue drop",
    "task submit",
    "task get",
    "task ls",
    "task retry",
    "task cancel",
    "task delete",
    "worker",
    "result get",
    "event ls",
    "event tail",
    "schedule add",
    "schedule ls",
    "schedule rm",
    "schedule run",
    "blob put",
    "blob get",
    "blob ls",
    "blob rm",
    "blob cp",
    "blob mv",
    "blob stat",
    "blob url",
    "blob sync",
    "completions",
];

#[test]
fn every_command_has_help_that_says_what_it_does() {
    let sandbox = Sandbox::new();
    let help = sandbox.ok(&["--help"]);
    assert!(help.contains("Exit codes:") && help.contains("Examples:"), "{help}");
    for command in COMMANDS {
        let words: Vec<_> = command.split(' ').chain(["--help"]).collect();
        let help = sandbox.ok(&words);
        assert!(help.contains("Usage: storage") && help.contains("--json"), "{command}: {help}");
        assert!(help.lines().next().is_some_and(|line| line.len() > 5), "{command}: {help}");
    }
    assert!(std::fs::read_dir(sandbox.folder()).unwrap().next().is_none(), "help opens nothing");
}

#[test]
fn a_wrong_command_line_is_code_2_with_the_nearest_right_one() {
    let sandbox = Sandbox::new();
    let ran = sandbox.run(&["queue", "recieve", "q"]);
    assert_eq!(ran.code, Some(2));
    assert!(ran.stderr.contains("'receive'"), "{}", ran.stderr);
    assert_eq!(sandbox.run(&["queue", "receive", "q", "--wait", "5"]).code, Some(2));
    assert_eq!(sandbox.run(&["queue", "create", "no name"]).code, Some(2));
    assert_eq!(sandbox.run(&["--url", "memory:", "--config", "x.toml", "check"]).code, Some(2));
    assert_eq!(sandbox.run(&[]).code, Some(2));
}

#[test]
fn configuration_comes_from_a_file_the_environment_or_the_command_line() {
    let sandbox = Sandbox::new();
    sandbox.write("storage.toml", "default = \"fs://from-file\"");
    sandbox.write("other.yaml", "records: \"fs://other\"");
    let place = |args: &[&str], env: Option<(&str, &str)>| {
        let mut command = sandbox.command(&[args, &["check", "--json"]].concat());
        command.envs(env);
        let first = Ran::new(args, command.output().unwrap()).json().remove(0);
        assert_eq!(first["component"], "records");
        let location = first["location"].as_str().unwrap().to_owned();
        location.rsplit('/').next().unwrap().to_owned()
    };
    assert_eq!(place(&[], None), "from-file");
    assert_eq!(place(&["--config", "other.yaml"], None), "other");
    assert_eq!(place(&[], Some(("STORAGE_RECORDS_URL", "fs://from-env"))), "from-env");
    assert_eq!(place(&["--env-prefix", "OMNIQ_"], Some(("OMNIQ_RECORDS_URL", "fs://from-omniq"))), "from-omniq");
    assert_eq!(place(&["--url", "sqlite:///x.db"], Some(("STORAGE_RECORDS_URL", "fs://from-env"))), "x.db");
}

#[test]
fn a_bad_configuration_is_code_2_and_names_the_place() {
    let sandbox = Sandbox::new();
    let error = Ran::new(&[], sandbox.command(&["queue", "ls"]).env("STORAGE_TASK_QUEUE_ULR", "x").output().unwrap()).fails(2);
    assert!(error.contains("STORAGE_TASK_QUEUE_ULR") && error.contains("did you mean `url`"), "{error}");
    sandbox.write("storage.toml", "task_queue = \n");
    let error = sandbox.fails(2, &["queue", "ls"]);
    assert!(error.contains("storage.toml") && error.contains("line 1"), "{error}");
    let error = sandbox.fails(2, &["--config", "gone.toml", "queue", "ls"]);
    assert!(error.contains("gone.toml"), "{error}");
    let error = sandbox.fails(2, &["--url", "sqlit:x.db", "queue", "ls"]);
    assert!(error.contains("--url") && error.contains("did you mean `sqlite`"), "{error}");
}

#[test]
fn secrets_stay_where_they_are() {
    let sandbox = Sandbox::new();
    for url in ["postgres://joe:hunter2@db/app", "fs://joe:hunter2@host/x?secret_key=hunter2", "hunter2", "redis://:hunter2@h"] {
        for verbosity in ["-q", "-v", "-vv"] {
            for command in [&["check"][..], &["queue", "ls"], &["demo"]] {
                let ran = sandbox.run(&[&["--url", url, verbosity][..], command].concat());
                assert_ne!(ran.code, Some(0), "{url}");
                let all = format!("{}{}", ran.stderr, String::from_utf8_lossy(&ran.stdout));
                // A bare word is no secret but a mistyped URL, and must be shown to be found.
                assert!(url == "hunter2" || !all.contains("hunter2"), "{url} {command:?}: {all}");
            }
        }
    }
    // Compiled in or not: nobody listens there.
    for scheme in ["amqp", "nats", "redis", "mysql"] {
        let mut command = sandbox.command(&["queue", "ls", "-vv"]);
        let ran = Ran::new(&[], command.env("STORAGE_URL", format!("{scheme}://joe:hunter2@127.0.0.1:1/")).output().unwrap());
        assert!(matches!(ran.code, Some(2 | 5)), "{scheme}: {:?} {}", ran.code, ran.stderr);
        assert!(!ran.stderr.contains("hunter2"), "{scheme}: {}", ran.stderr);
    }
}

#[test]
fn errors_show_their_causes_when_asked() {
    let sandbox = Sandbox::new();
    let short = sandbox.fails(3, &["blob", "put", "gone", "x"]);
    assert!(short.contains("gone"), "{short}");
    let long = sandbox.run(&["-v", "blob", "put", "gone", "x"]);
    assert!(long.stderr.contains("caused by: "), "{}", long.stderr);
}

#[test]
fn completions_for_every_shell() {
    let sandbox = Sandbox::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = sandbox.ok(&["completions", shell]);
        assert!(script.contains("storage") && script.contains("queue"), "{shell}");
    }
    assert_eq!(sandbox.run(&["completions", "csh"]).code, Some(2));
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let sandbox = Sandbox::new();
    sandbox.ok(&["queue", "create", "q"]);
    let lines = "x".repeat(99) + "\n";
    sandbox.run_with(&["queue", "send", "q", "-"], lines.repeat(5000).as_bytes()).ok();
    // 5,000 messages are far more than a pipe holds.
    let mut child = sandbox.command(&["queue", "peek", "q", "--max", "5000", "--json"]).spawn().unwrap();
    let mut reader = BufReader::new(child.stdout.take().unwrap());
    reader.read_line(&mut String::new()).unwrap();
    drop(reader);
    let ran = Ran::new(&["peek | head -1"], child.wait_with_output().unwrap());
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));
}

#[test]
fn ctrl_c_ends_a_command_cleanly() {
    let sandbox = Sandbox::new();
    sandbox.ok(&["queue", "create", "q"]);
    let mut child = sandbox.command(&["queue", "send", "q", "-", "--json"]).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut running = Running(child);
    let mut lines = running.lines();
    stdin.write_all(b"first\n").unwrap();
    // It says so when it is sent; then it waits for more.
    assert!(lines.next().unwrap().unwrap().contains("\"id\""));
    running.signal("INT");
    let ran = running.end();
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(130), ""));
    assert_eq!(sandbox.json1(&["queue", "stats", "q"])["ready"], 1);

    let running = sandbox.start(&["queue", "receive", "q", "--max", "10", "--wait", "1h", "-q"]);
    let ran = running.end();
    assert_eq!(ran.code, Some(0), "a message is there already");
}
