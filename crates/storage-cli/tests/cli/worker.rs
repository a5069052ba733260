//! `worker`: programs, their exit codes, and what becomes of them on signals.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use serde_json::{Value, json};

use crate::support::{Ran, Running, Sandbox, signal, until};

fn submit(sandbox: &Sandbox, id: &str, args: &[&str]) {
    sandbox.ok(&[&["task", "submit", "k", "--id", id], args].concat());
}

/// What the worker said of each run, and its last line.
fn drain(sandbox: &Sandbox, args: &[&str]) -> (Vec<Value>, Value) {
    let mut lines = sandbox.json(&[&["worker", "--drain", "--retry-first", "1ms", "--json"], args].concat_json());
    let report = lines.pop().unwrap();
    (lines, report)
}

trait Words {
    fn concat_json(&self) -> Vec<&str>;
}

impl Words for [&[&str]; 2] {
    /// `--json` is among the first; the program comes last, so that nothing may be put behind it.
    fn concat_json(&self) -> Vec<&str> {
        self.concat()
    }
}

#[test]
fn a_program_gets_its_task_and_answers_with_its_output() {
    let sandbox = Sandbox::new();
    submit(&sandbox, "text", &["--text", "plain text", "--resource", "acme"]);
    submit(&sandbox, "json", &["--input", "{\"a\": [1, 2]}"]);
    submit(&sandbox, "none", &[]);
    let program =
        sandbox.script("echo.sh", "printf '%s|' \"$TASK_ID\" \"$TASK_RESOURCE\" \"$TASK_KIND\" \"$TASK_ATTEMPT\" \"$@\"; cat");
    let ran = sandbox.run(&["worker", "--drain", "--json", "--", &program, "arg", "--json"]);
    assert_eq!(ran.json().last().unwrap()["done"], 3);
    assert_eq!(sandbox.ok(&["result", "get", "acme/text"]), "text|acme|k|1|arg|--json|plain text\n");
    assert_eq!(sandbox.ok(&["result", "get", "json"]), "json|default|k|1|arg|--json|{\"a\":[1,2]}\n");
    assert_eq!(sandbox.ok(&["result", "get", "none"]), "none|default|k|1|arg|--json|\n");
}

#[test]
fn a_worker_serves_the_numbers_of_its_calls() {
    let sandbox = Sandbox::new();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    sandbox.write("storage.toml", format!("[metrics]\nlisten = \"127.0.0.1:{port}\"\n"));
    submit(&sandbox, "one", &[]);
    let worker = sandbox.start(&["worker", "--", "true"]);
    if cfg!(not(feature = "prometheus")) {
        let said = worker.end().fails(2);
        assert!(said.contains("build with the cargo feature `prometheus`"), "{said}");
        return;
    }
    let scrape = || {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok().map(|_| answer)
    };
    let counted = |answer: &str| {
        answer.lines().any(|line| line.starts_with("storage_calls_total{") && line.contains("operation=\"queues.delete\""))
    };
    until("the task's message is deleted, and counted", || scrape().is_some_and(|answer| counted(&answer)));
    worker.signal("TERM");
    worker.end().ok();
}

#[test]
fn exit_codes_say_how_it_went() {
    let sandbox = Sandbox::new();
    for (id, attempts) in [("good", "3"), ("later", "2"), ("bad", "3"), ("mends", "3")] {
        submit(&sandbox, id, &["--max-attempts", attempts]);
    }
    // `later` is put off more often than it may fail, which does not count.
    let program = sandbox.script(
        "codes.sh",
        "echo x >> runs.$TASK_ID; n=$(wc -l < runs.$TASK_ID)
        case $TASK_ID in
        good) echo fine;;
        later) [ $n -gt 5 ] || exit 75; echo at last;;
        bad) echo first line >&2; echo \"broken on attempt $TASK_ATTEMPT\" >&2; exit 3;;
        mends) [ $TASK_ATTEMPT -gt 2 ] || exit 1; echo mended;;
        esac",
    );
    let ran = sandbox.run(&["worker", "--drain", "--retry-first", "1ms", "--json", "--concurrency", "4", "--", &program]);
    let mut lines = ran.json();
    let report = lines.pop().unwrap();
    assert_eq!((&report["done"], &report["failed"]), (&json!(3), &json!(1)));
    let outcomes = |id: &str| {
        let of_task = lines.iter().filter(|line| line["task_id"] == id);
        of_task.map(|line| line["outcome"].as_str().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(outcomes("good"), ["done"]);
    assert_eq!(outcomes("later"), ["later", "later", "later", "later", "later", "done"]);
    assert_eq!(outcomes("bad"), ["retry", "retry", "failed"]);
    assert_eq!(outcomes("mends"), ["retry", "retry", "done"]);
    let failed = lines.iter().find(|line| line["outcome"] == "failed").unwrap();
    assert_eq!((&failed["exit_code"], &failed["attempt"], &failed["kind"]), (&json!(3), &json!(3), &json!("k")));

    assert_eq!(sandbox.ok(&["result", "get", "later"]), "at last\n");
    assert_eq!(sandbox.ok(&["result", "get", "mends"]), "mended\n");
    let ran = sandbox.run(&["result", "get", "bad"]);
    assert_eq!(ran.code, Some(1));
    assert_eq!(ran.stderr, "storage: task bad failed: exit code 3: first line broken on attempt 3\n");
    let dead = sandbox.json1(&["queue", "dead", "tasks"]);
    assert_eq!(dead["attributes"]["storage-dead-reason"], "exit code 3: first line\nbroken on attempt 3");
    // Run again by hand, once it is mended.
    sandbox.ok(&["task", "retry", "bad"]);
    sandbox.ok(&["worker", "--drain", "--", "true"]);
    assert_eq!(sandbox.json1(&["result", "get", "bad"])["status"], "succeeded");
}

#[test]
fn a_poison_task_does_not_keep_the_others_back() {
    let sandbox = Sandbox::new();
    submit(&sandbox, "poison", &["--max-attempts", "2"]);
    let lines = (0..20).map(|n| format!("{n}\n")).collect::<String>();
    sandbox.run_with(&["task", "submit", "k", "-"], lines.as_bytes()).ok();
    let program = sandbox.script("poison.sh", "[ $TASK_ID != poison ] || kill -KILL $$");
    let (lines, report) = drain(&sandbox, &["--", &program]);
    assert_eq!((&report["done"], &report["failed"]), (&json!(20), &json!(1)));
    let error = lines.iter().find(|line| line["outcome"] == "failed").unwrap()["error"].clone();
    assert_eq!(error, "killed by signal 9");
}

#[test]
fn output_is_bounded() {
    let sandbox = Sandbox::new();
    for id in ["endless", "noisy", "bytes", "deaf"] {
        submit(&sandbox, id, &["--max-attempts", "1"]);
    }
    sandbox.run_with(&["task", "submit", "k", "--id", "large-input", "--text", "-"], "x".repeat(1 << 20).as_bytes()).ok();
    let program = sandbox.script(
        "much.sh",
        "case $TASK_ID in
        endless) yes;;
        noisy) yes | head -c 1000000 >&2; echo the end >&2; exit 1;;
        bytes) printf '\\377';;
        deaf|large-input) exec <&-; echo ok;;
        esac",
    );
    let (lines, report) = drain(&sandbox, &["--max-result", "64", "--", &program]);
    assert_eq!((&report["done"], &report["failed"]), (&json!(2), &json!(3)));
    let error = |id: &str| lines.iter().find(|line| line["task_id"] == id).unwrap()["error"].as_str().unwrap().to_owned();
    assert!(error("endless").contains("more than 65536 bytes"), "{}", error("endless"));
    assert!(error("bytes").contains("UTF-8"), "{}", error("bytes"));
    assert!(error("noisy").ends_with("the end") && error("noisy").len() < 4200, "{}", error("noisy").len());
    assert_eq!(sandbox.ok(&["result", "get", "large-input"]), "ok\n");
}

#[test]
fn a_program_may_take_only_so_long() {
    let sandbox = Sandbox::new();
    submit(&sandbox, "slow", &["--max-attempts", "1"]);
    let program = sandbox.script("slow.sh", "sleep 1000 & echo $! > child; wait");
    let (lines, _) = drain(&sandbox, &["--timeout", "300ms", "--", &program]);
    assert_eq!(lines[0]["error"], "it took longer than 300ms");
    assert!(!is_alive(&sandbox, "child"), "its children end with it");
}

fn is_alive(sandbox: &Sandbox, file: &str) -> bool {
    let pid = String::from_utf8(sandbox.read(file)).unwrap();
    // One that ended and was not waited for by anybody is no longer at work.
    let state = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    !state.is_empty() && !state.contains(") Z ")
}

#[test]
fn what_cannot_be_run_is_said_before_any_task_fails() {
    let sandbox = Sandbox::new();
    submit(&sandbox, "t", &[]);
    sandbox.write("not-executable", "#!/bin/sh\n");
    for program in ["./gone", "no-such-program", "./not-executable", "."] {
        assert!(sandbox.fails(2, &["worker", "--drain", "--", program]).contains(program));
    }
    assert_eq!(sandbox.run(&["worker", "--drain"]).code, Some(2));
    assert_eq!(sandbox.json1(&["task", "get", "t"])["attempts"], 0);
}

#[test]
fn kinds_are_kept_apart() {
    let sandbox = Sandbox::new();
    sandbox.ok(&["task", "submit", "a", "--id", "of-a"]);
    sandbox.ok(&["task", "submit", "b", "--id", "of-b"]);
    let mut worker = sandbox.start(&["worker", "--kind", "b", "--json", "--", "echo", "b"]);
    let mut lines = worker.lines();
    assert!(lines.next().unwrap().unwrap().contains("of-b"));
    worker.signal("INT");
    assert_eq!(worker.end().code, Some(0));
    assert_eq!(sandbox.json1(&["task", "get", "of-a"])["status"], "pending");
}

/// A worker with a program that has begun and waits for the pipe `go`.
fn busy_worker(sandbox: &Sandbox, args: &[&str]) -> Running {
    submit(sandbox, "busy", &[]);
    sandbox.fifo("up");
    sandbox.fifo("go");
    let program = sandbox.script("busy.sh", "sleep 1000 & echo $! > child; echo up > up; read line < go; kill $!; echo $line");
    let worker = sandbox.start(&[&["worker", "--json"], args, &["--", &program]].concat());
    // Opened by the program alone: it runs.
    let mut text = String::new();
    std::fs::File::open(sandbox.path("up")).unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "up\n");
    worker
}

/// Waits until the worker has said that it is stopping.
fn stopping(worker: &mut Running) -> BufReader<std::process::ChildStderr> {
    let mut stderr = BufReader::new(worker.0.stderr.take().unwrap());
    let mut line = String::new();
    stderr.read_line(&mut line).unwrap();
    assert!(line.contains("may finish"), "{line}");
    stderr
}

#[test]
fn on_sigterm_programs_may_finish() {
    for name in ["TERM", "INT"] {
        let sandbox = Sandbox::new();
        let mut worker = busy_worker(&sandbox, &[]);
        submit(&sandbox, "not-begun", &[]);
        worker.signal(name);
        let _stderr = stopping(&mut worker);
        std::fs::File::options().write(true).open(sandbox.path("go")).unwrap().write_all(b"finished\n").unwrap();
        let lines = worker.end().json();
        assert_eq!(lines.last().unwrap()["done"], 1, "{name}: {lines:?}");
        assert_eq!(sandbox.ok(&["result", "get", "busy"]), "finished\n");
        assert_eq!(sandbox.json1(&["task", "get", "not-begun"])["status"], "pending");
    }
}

#[test]
fn a_second_signal_stops_them_and_their_tasks_wait() {
    let sandbox = Sandbox::new();
    let mut worker = busy_worker(&sandbox, &[]);
    worker.signal("TERM");
    let _stderr = stopping(&mut worker);
    worker.signal("TERM");
    let ran: Ran = worker.end();
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(!is_alive(&sandbox, "child"));
    let task = sandbox.json1(&["task", "get", "busy"]);
    assert_eq!((&task["status"], &task["attempts"]), (&json!("pending"), &json!(0)), "it was not the task's fault");
    sandbox.ok(&["worker", "--drain", "--", "echo", "elsewhere"]);
    assert_eq!(sandbox.ok(&["result", "get", "busy"]), "elsewhere\n");
}

#[test]
fn after_the_grace_programs_are_killed() {
    let sandbox = Sandbox::new();
    let mut worker = busy_worker(&sandbox, &["--grace", "100ms"]);
    worker.signal("TERM");
    let _stderr = stopping(&mut worker);
    assert_eq!(worker.end().json().last().unwrap()["released"], 1);
    until("the child to be gone", || !is_alive(&sandbox, "child"));
    assert_eq!(sandbox.json1(&["queue", "stats", "tasks"])["ready"], 1, "its message is free at once");
}

#[test]
fn a_program_whose_lease_is_lost_is_killed() {
    let sandbox = Sandbox::new();
    let worker = busy_worker(&sandbox, &["--visibility", "300ms"]);
    // Somebody else has it now.
    sandbox.ok(&["queue", "purge", "tasks"]);
    until("the child to be gone", || !is_alive(&sandbox, "child"));
    worker.signal("INT");
    assert_eq!(worker.end().json().last().unwrap()["lost"], 1);
}

#[test]
fn a_cancelled_task_stops_its_program() {
    let sandbox = Sandbox::new();
    let worker = busy_worker(&sandbox, &[]);
    let cancelled = sandbox.json1(&["task", "cancel", "busy"]);
    assert_eq!(cancelled["cancel_requested"], true);
    let ran = sandbox.run(&["result", "get", "busy", "--wait", "30s"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(1), "storage: task busy was cancelled\n"));
    assert!(!is_alive(&sandbox, "child"));
    worker.signal("INT");
    assert_eq!(worker.end().code, Some(0));
}

#[test]
fn ctrl_c_in_the_terminal_reaches_the_worker_alone() {
    let sandbox = Sandbox::new();
    let mut worker = busy_worker(&sandbox, &[]);
    let child: i32 = String::from_utf8(sandbox.read("child")).unwrap().trim().parse().unwrap();
    let group = |pid: i32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        stat.rsplit(") ").next().unwrap().split(' ').nth(2).unwrap().parse::<i32>().unwrap()
    };
    let own = i32::try_from(worker.0.id()).unwrap();
    assert_ne!(group(child), group(own), "a group of its own");
    signal(worker.0.id(), "INT");
    let _stderr = stopping(&mut worker);
    std::fs::File::options().write(true).open(sandbox.path("go")).unwrap().write_all(b"undisturbed\n").unwrap();
    worker.end().ok();
    assert_eq!(sandbox.ok(&["result", "get", "busy"]), "undisturbed\n");
}

#[test]
fn a_person_sees_a_line_for_each_task_when_asked() {
    let sandbox = Sandbox::new();
    submit(&sandbox, "t", &[]);
    let ran = sandbox.run(&["-v", "worker", "--drain", "--", "sh", "-c", "echo noise >&2"]);
    let text = ran.ok();
    assert!(text.contains("done") && text.contains("attempt 1") && text.contains("1 done"), "{text}");
    assert!(ran.stderr.contains("noise"), "{}", ran.stderr);
    submit(&sandbox, "u", &[]);
    assert_eq!(sandbox.ok(&["worker", "--drain", "--", "sh", "-c", "echo noise >&2"]), "1 done\n");
}
