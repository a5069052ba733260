//! `queue` and `worker` on NATS.

use serde_json::json;

use crate::support::Sandbox;

/// The URL of queues that no other test uses; skips the test where there is no server.
fn url(name: &str) -> Option<String> {
    let Ok(address) = std::env::var("XTASK_TEST_NATS") else {
        storage_conformance::skip("no nats-server: `cargo xtask test --backend nats` starts it where it is installed");
        return None;
    };
    Some(format!("{address}?prefix=cli_{}_{name}", storage_conformance::process_mark()))
}

#[test]
fn queues_are_used_by_their_address() {
    let Some(url) = url("queues") else { return };
    let sandbox = Sandbox::new();
    let on = |args: &[&'static str]| [&["--url", url.as_str()], args].concat().into_iter().map(str::to_owned).collect::<Vec<_>>();
    let ok = |args: &[&'static str]| {
        let args = on(args);
        sandbox.ok(&args.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let json = |args: &[&'static str]| {
        let args = on(args);
        sandbox.json(&args.iter().map(String::as_str).collect::<Vec<_>>())
    };
    ok(&["queue", "create", "q", "--max-deliveries", "1"]);
    let args = on(&["queue", "send", "q", "-"]);
    let said = sandbox.run_with(&args.iter().map(String::as_str).collect::<Vec<_>>(), b"a\nb\nc").ok();
    assert_eq!(said, "sent 3 messages\n");
    assert_eq!(ok(&["queue", "receive", "q", "--delete"]), "a\n");
    // The process ends, and with it what its receipt is worth; at the end of the lease the only delivery is used up.
    let received = json(&["queue", "receive", "q", "--visibility", "1s"]);
    assert_eq!(received[0]["body"], "b");
    std::thread::sleep(std::time::Duration::from_millis(1100));
    assert_eq!(ok(&["queue", "receive", "q", "--wait", "5s", "--delete"]), "c\n");
    assert_eq!(json(&["queue", "receive", "q"]).len(), 0);
    for _ in 0..2 {
        let letters = json(&["queue", "dead", "q"]);
        assert_eq!((letters.len(), &letters[0]["body"]), (1, &json!("b")));
    }
    ok(&["queue", "redrive", "q"]);
    let stats = json(&["queue", "stats", "q"]);
    assert_eq!((&stats[0]["ready"], &stats[0]["dead"]), (&json!(1), &json!(0)));
    assert_eq!(json(&["queue", "purge", "q"]), [json!({"queue": "q", "purged": 1})]);
    let args = on(&["queue", "peek", "q"]);
    let refused = sandbox.run(&args.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(refused.code != Some(0) && refused.stderr.contains("unsupported"), "{}", refused.stderr);
    ok(&["queue", "drop", "q"]);
}

#[test]
fn a_worker_takes_its_tasks_from_nats() {
    let Some(url) = url("worker") else { return };
    let sandbox = Sandbox::new();
    sandbox.write("storage.toml", format!("default = \"sqlite:///tasks.db\"\n[task_queue]\nurl = \"{url}\"\n"));
    for n in 0..20 {
        sandbox.ok(&["task", "submit", "k", "--id", &format!("t{n}"), "--text", &format!("payload {n}")]);
    }
    let ran = sandbox.run(&["worker", "--drain", "--concurrency", "4", "--json", "--", "cat"]);
    assert_eq!(ran.json().last().unwrap()["done"], 20);
    for n in 0..20 {
        assert_eq!(sandbox.ok(&["result", "get", &format!("t{n}")]), format!("payload {n}\n"));
    }
}
