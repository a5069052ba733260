//! `queue` and `worker` on RabbitMQ: its own queues, and those of Celery apps.

use crate::support::Sandbox;

/// The broker's address; skips the test where there is none.
fn broker() -> Option<String> {
    let Ok(address) = std::env::var("XTASK_TEST_RABBITMQ") else {
        storage_conformance::skip("no RabbitMQ: `cargo xtask test --backend queue-amqp` starts it where it is installed");
        return None;
    };
    Some(address.trim_end_matches('/').to_owned())
}

#[test]
fn amqp_carries_the_tasks_of_a_worker() {
    let Some(broker) = broker() else { return };
    let sandbox = Sandbox::new();
    sandbox.write("storage.toml", format!("task_queue = \"{broker}?prefix=work-{}.\"\n", std::process::id()));
    for n in 0..5 {
        sandbox.ok(&["task", "submit", "k", "--id", &n.to_string(), "--text", &format!("text {n}")]);
    }
    let program = sandbox.script("echo.sh", "printf '%s: ' \"$TASK_ID\"; cat");
    let ran = sandbox.run(&["worker", "--drain", "--json", "--", &program]);
    assert_eq!(ran.json().last().unwrap()["done"], 5);
    for n in 0..5 {
        assert_eq!(sandbox.ok(&["result", "get", &n.to_string()]), format!("{n}: text {n}\n"));
    }
    sandbox.ok(&["queue", "drop", "tasks"]);
}

#[test]
fn amqp_that_refuses_is_said_in_a_line() {
    let Some(broker) = broker() else { return };
    let wrong = broker.replace("guest:guest@", "joe:hunter2@");
    let said = Sandbox::new().run(&["--url", &wrong, "queue", "stats", "q"]);
    assert!(said.code.is_some_and(|code| code > 0) && said.stderr.contains("password"), "{}", said.stderr);
    assert!(!said.stderr.contains("hunter2"), "{}", said.stderr);
}

/// A worker runs a program for a Celery app's tasks, and another process learns what became of those that it sent.
#[test]
fn celery_tasks_are_run_by_a_program() {
    let Some(broker) = broker() else { return };
    let (sandbox, queue) = (Sandbox::new(), format!("cli-{}", std::process::id()));
    sandbox.write("storage.toml", format!("task_queue = \"celery+{broker}?reply_queue={queue}-replies\"\n"));
    sandbox.ok(&["queue", "create", &queue]);
    let lines = "{\"task\": \"shop.add\", \"args\": [2, 3], \"id\": \"sum\"}\n{\"task\": \"shop.fail\", \"id\": \"bad\"}\n";
    let sent = sandbox.run_with(&["queue", "send", &queue, "-", "--json"], lines.as_bytes()).json();
    assert_eq!((sent.len(), &sent[0]["id"]), (2, &serde_json::json!("sum")));
    let refused = sandbox.run(&["queue", "send", &queue, "hello"]);
    assert!(
        refused.code.is_some_and(|code| code > 0) && refused.stderr.contains("{\"task\": \"shop.add\""),
        "{}",
        refused.stderr
    );
    sandbox.ok(&["task", "submit", "shop.add", "--id", "own", "--queue", &queue, "--input", "[20, 3]"]);
    let program = sandbox.script(
        "add.sh",
        "[ \"$TASK_KIND\" = shop.add ] || { echo 'ValueError: no' >&2; exit 1; }; printf '%s' \"$TASK_ID \"; cat",
    );
    let options = ["--queue", &queue, "--drain", "--retry-first", "10ms", "--json", "--", &program];
    let ran = sandbox.run(&[&["worker"], &options[..]].concat()).json();
    assert_eq!(ran.iter().filter(|line| line["outcome"] == "done").count(), 2, "{ran:?}");
    assert_eq!(sandbox.ok(&["result", "get", "sum"]), "sum {\"args\":[2,3],\"kwargs\":{}}\n");
    assert_eq!(sandbox.ok(&["result", "get", "own"]), "own [20,3]\n");
    assert_eq!(sandbox.json1(&["task", "get", "bad"])["status"], "failed");
    sandbox.ok(&["queue", "drop", &queue]);
    sandbox.ok(&["queue", "drop", &format!("{queue}-replies")]);
}
