//! `outbox`: what waits to be sent to a queue elsewhere.

use std::fs;

use serde_json::{Value, json};
use storage_core::{Batch, Expect, Key, NewMessage, fields, value};
use storage_facade::Storage;

use crate::support::Sandbox;

/// Records in SQLite, the queue in a folder that is not there yet.
fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    let path = |name: &str| sandbox.path(name).display().to_string();
    sandbox.write(
        "storage.toml",
        format!(
            "records = \"sqlite:///{}\"\nblobs = \"fs:{}\"\n[task_queue]\nurl = \"file://{}\"\nauto_create = false\n",
            path("app.db"),
            path("blobs"),
            path("queue")
        ),
    );
    sandbox
}

/// What a program does that uses the library with the same configuration.
fn program<T>(sandbox: &Sandbox, act: impl AsyncFnOnce(&Storage) -> T) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let storage = Storage::builder().no_env().file(sandbox.path("storage.toml")).plan().unwrap();
        let done = act(&storage).await;
        storage.close().await.unwrap();
        done
    })
}

fn commit(sandbox: &Sandbox, queue: &'static str, bodies: &'static [&'static str]) {
    program(sandbox, async |storage| {
        let records = storage.records().await.unwrap();
        for body in bodies {
            records.commit(Batch::new().enqueue(&queue.parse().unwrap(), NewMessage::new(*body))).await.unwrap();
        }
    });
}

#[test]
fn what_waits_is_shown_relayed_retried_and_removed() {
    let sandbox = sandbox();
    commit(&sandbox, "mail", &["one", "two"]);
    commit(&sandbox, "nowhere", &["lost"]);
    // Whether tasks are owed can't be said, since their rows would be with the queue; messages are shown all the same.
    let shown = sandbox.run(&["outbox", "ls", "--json"]);
    assert!(shown.code.is_some_and(|code| code > 0) && shown.stderr.contains("queue"), "{}", shown.stderr);
    let waiting: Vec<Value> =
        String::from_utf8(shown.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(waiting.len(), 3);
    let of = |n: usize, key: &str| waiting[n][key].clone();
    assert_eq!(
        (of(0, "what"), of(0, "queue"), of(0, "bytes"), of(0, "attempts")),
        (json!("message"), json!("mail"), json!(3), json!(0))
    );
    // The queue is away: said, and what waits goes on waiting.
    let away = sandbox.run(&["outbox", "relay", "--once"]);
    assert!(away.code.is_some_and(|code| code > 0) && away.stderr.contains("queue"), "{}", away.stderr);

    fs::create_dir(sandbox.path("queue")).unwrap();
    sandbox.ok(&["queue", "create", "mail"]);
    let table = sandbox.ok(&["outbox", "ls"]);
    assert!(table.contains("message") && table.contains("mail") && table.lines().count() == 4, "{table}");
    assert_eq!(sandbox.json(&["outbox", "ls", "--limit", "1"]).len(), 1);
    let relayed = sandbox.json1(&["outbox", "relay", "--once"]);
    assert_eq!(relayed, json!({"sent": 2, "refused": 1, "failed": 0, "waiting": 0, "tasks": 0}));
    assert_eq!(sandbox.ok(&["queue", "receive", "mail", "--max", "10", "--delete"]), "one\ntwo\n");
    // Refused as often as it may be, it is set aside.
    for _ in 0..9 {
        sandbox.ok(&["outbox", "relay", "--once"]);
    }
    assert!(sandbox.ok(&["outbox", "relay", "--once"]).contains("sent 0 messages"));
    let failed = sandbox.json1(&["outbox", "ls", "--failed"]);
    assert_eq!((&failed["refusals"], &failed["due_at"]), (&json!(10), &json!(null)));
    assert!(failed["error"].as_str().unwrap().contains("nowhere"), "{failed}");
    assert!(sandbox.ok(&["outbox", "ls"]).contains("set aside"));
    let id = failed["id"].as_str().unwrap();
    assert_eq!(sandbox.json1(&["outbox", "retry", id]), json!({"id": id, "retried": true}));
    assert!(sandbox.run(&["outbox", "ls", "--failed"]).stderr.contains("nothing is set aside"));
    sandbox.ok(&["queue", "create", "nowhere"]);
    assert!(sandbox.ok(&["outbox", "relay", "--once"]).contains("sent 1 message\n"));
    assert_eq!(sandbox.ok(&["queue", "receive", "nowhere", "--delete"]), "lost\n");
    assert!(sandbox.fails(3, &["outbox", "retry", id]).contains(id));
    assert_eq!(sandbox.json1(&["outbox", "retry", "--all"]), json!({"retried": 0}));
    assert_eq!(sandbox.json1(&["outbox", "rm", id, "--missing-ok"]), json!({"id": id, "removed": false}));
    sandbox.fails(3, &["outbox", "rm", id]);
    assert_eq!(sandbox.run(&["outbox", "retry"]).code, Some(2));
}

#[test]
fn tasks_whose_message_is_owed_are_shown_and_relayed() {
    let sandbox = sandbox();
    fs::create_dir(sandbox.path("queue")).unwrap();
    sandbox.write(
        "storage.toml",
        fs::read_to_string(sandbox.path("storage.toml"))
            .unwrap()
            .replace("file://", "sqlite:///")
            .replace("queue\"\n", "queue/q.db\"\n")
            .replace("false", "true"),
    );
    let events = format!("[event_storage]\nurl = \"fs:{}\"\n", sandbox.path("events").display());
    sandbox.write("storage.toml", fs::read_to_string(sandbox.path("storage.toml")).unwrap() + &events);
    sandbox.ok(&["task", "submit", "x", "--id", "owed"]);
    // As a process leaves it that ends between the task and its message.
    program(&sandbox, async |storage| {
        let rows = storage.tasks().await.unwrap().parts().records.clone();
        let since = value::timestamp(storage.clock().now());
        rows.update(
            &"tasks".parse().unwrap(),
            Key::partitioned("default", "owed"),
            fields(json!({"unsent": since})),
            Expect::Present,
        )
        .await
        .unwrap();
    });
    let owed = sandbox.json1(&["outbox", "ls"]);
    assert_eq!((&owed["what"], &owed["task_id"], &owed["queue"]), (&json!("task"), &json!("owed"), &json!("tasks")));
    assert!(sandbox.ok(&["outbox", "ls"]).contains("owed"));
    assert_eq!(sandbox.json1(&["outbox", "relay", "--once"])["tasks"], 1);
    assert!(sandbox.run(&["outbox", "ls"]).stderr.contains("nothing waits"));
    assert_eq!(sandbox.json1(&["queue", "stats", "tasks"])["ready"], 1, "sent twice, and there once");
}

#[test]
fn a_relay_and_a_worker_send_what_waits_until_they_are_stopped() {
    for command in [&["outbox", "relay", "--json"][..], &["worker", "--", "true"], &["schedule", "run"]] {
        let sandbox = sandbox();
        commit(&sandbox, "mail", &["one"]);
        fs::create_dir(sandbox.path("queue")).unwrap();
        sandbox.ok(&["queue", "create", "mail"]);
        let running = sandbox.start(command);
        assert_eq!(sandbox.ok(&["queue", "receive", "mail", "--wait", "30s", "--delete"]), "one\n", "{command:?}");
        running.signal("TERM");
        let ended = running.end();
        if command[0] == "outbox" {
            assert_eq!(ended.json(), [json!({"sent": 1, "refused": 0, "failed": 0, "waiting": 0, "tasks": 0})]);
        } else {
            ended.ok();
        }
        assert!(sandbox.run(&["outbox", "ls"]).stderr.contains("nothing waits"), "{command:?}");
    }
}

#[test]
fn where_one_batch_reaches_both_there_is_no_outbox() {
    let sandbox = Sandbox::new();
    assert!(sandbox.run(&["outbox", "ls"]).stderr.contains("nothing waits"));
    assert!(sandbox.fails(3, &["outbox", "rm", "x"]).contains("there is no outbox"));
    assert_eq!(sandbox.json1(&["outbox", "relay", "--once"])["sent"], 0);
}

#[test]
fn several_processes_relay_each_message_once() {
    const MESSAGES: u64 = 300;
    let sandbox = sandbox();
    program(&sandbox, async |storage| {
        let records = storage.records().await.unwrap();
        let batch = |n: u64| {
            let messages = (0..30).map(|m| format!("{n}-{m}"));
            messages.fold(Batch::new(), |batch, body| batch.enqueue(&"mail".parse().unwrap(), NewMessage::new(body)))
        };
        for n in 0..MESSAGES / 30 {
            records.commit(batch(n)).await.unwrap();
        }
    });
    fs::create_dir(sandbox.path("queue")).unwrap();
    sandbox.ok(&["queue", "create", "mail"]);
    let relays: Vec<_> = (0..3).map(|_| sandbox.start(&["outbox", "relay", "--once", "--json"])).collect();
    let sent: u64 = relays.into_iter().map(|relay| relay.end().json()[0]["sent"].as_u64().unwrap()).sum();
    assert_eq!(sent, MESSAGES);
    assert_eq!(sandbox.json1(&["queue", "stats", "mail"])["ready"], MESSAGES);
    assert!(sandbox.run(&["outbox", "ls"]).stderr.contains("nothing waits"));
}
