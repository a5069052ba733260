//! `queue` and `worker` on RabbitMQ: its own queues, and those of Celery apps.

use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::support::{Sandbox, carries_the_tasks_of_a_worker};

/// The broker's address; skips the test where there is none.
fn broker() -> Option<String> {
    let Ok(address) = std::env::var("XTASK_TEST_RABBITMQ") else {
        storage_conformance::skip("no RabbitMQ: `cargo xtask test --backend queue-amqp` starts it where it is installed");
        return None;
    };
    Some(address.trim_end_matches('/').to_owned())
}

/// Commands on one URL.
struct On<'a>(&'a Sandbox, String);

impl On<'_> {
    fn args<'s>(&'s self, args: &[&'s str]) -> Vec<&'s str> {
        [&["--url", self.1.as_str()], args].concat()
    }

    fn ok(&self, args: &[&str]) -> String {
        self.0.ok(&self.args(args))
    }

    fn json(&self, args: &[&str]) -> Vec<Value> {
        self.0.json(&self.args(args))
    }

    fn json1(&self, args: &[&str]) -> Value {
        self.0.json1(&self.args(args))
    }
}

#[test]
fn amqp_queues_by_url() {
    let Some(broker) = broker() else { return };
    let sandbox = Sandbox::new();
    let on = On(&sandbox, format!("{broker}?prefix=cli-{}.", storage_conformance::process_mark()));
    let created = on.json1(&["queue", "create", "q", "--max-deliveries", "3"]);
    assert_eq!(created, json!({"queue": "q", "created": true}));
    assert!(on.ok(&["queue", "ls"]).contains("\nq "));
    let lines: Vec<String> = (0..2_500).map(|n| format!("line {n}")).collect();
    let said = sandbox.run_with(&on.args(&["queue", "send", "q", "-"]), lines.join("\n").as_bytes()).ok();
    assert_eq!(said, "sent 2,500 messages\n");
    let received = on.ok(&["queue", "receive", "q", "--max", "2499", "--delete"]);
    assert_eq!(received.lines().collect::<Vec<_>>(), lines[..2_499]);
    // Each process ends with its lease. One may have been given the last message without having handed it out: that counts too.
    let mut deliveries = Vec::new();
    while let Some(last) = on.json(&["queue", "receive", "q", "--wait", "2s"]).pop() {
        assert_eq!(last["body"], "line 2499");
        deliveries.push(last["deliveries"].as_u64().unwrap());
    }
    assert!(deliveries.is_sorted_by(|a, b| a < b) && deliveries.last() == Some(&3), "{deliveries:?}");
    for _ in 0..2 {
        let letters = on.json(&["queue", "dead", "q"]);
        assert_eq!((letters.len(), &letters[0]["body"]), (1, &json!("line 2499")));
    }
    assert!(on.ok(&["queue", "dead", "q"]).contains("max-deliveries"));
    assert_eq!(on.json1(&["queue", "redrive", "q"]), json!({"queue": "q", "redriven": 1}));
    let stats = on.json1(&["queue", "stats", "q"]);
    assert_eq!((&stats["ready"], &stats["dead"], &stats["max_deliveries"]), (&json!(1), &json!(0), &json!(3)));
    assert_eq!(on.json1(&["queue", "purge", "q"]), json!({"queue": "q", "purged": 1}));
    let sent = sandbox.run_with(&on.args(&["queue", "send", "q", "-", "--json", "--delay", "50ms"]), b"{\"n\": 1}").json();
    assert_eq!((sent.len(), &sent[0]["queue"]), (1, &json!("q")));
    assert_eq!(on.ok(&["queue", "receive", "q", "--wait", "5s", "--delete"]), "{\"n\": 1}\n");
    assert!(sandbox.run(&on.args(&["queue", "peek", "q"])).stderr.contains("unsupported"));
    on.ok(&["queue", "drop", "q"]);
    assert_eq!(sandbox.run(&on.args(&["queue", "stats", "q"])).code, Some(3));
}

#[test]
fn amqp_carries_the_tasks_of_a_worker() {
    let Some(broker) = broker() else { return };
    let sandbox = carries_the_tasks_of_a_worker(&format!("{broker}?prefix=work-{}.", storage_conformance::process_mark()));
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
    let (sandbox, queue) = (Sandbox::new(), format!("cli-{}", storage_conformance::process_mark()));
    sandbox.write("storage.toml", format!("task_queue = \"celery+{broker}?reply_queue={queue}-replies\"\n"));
    sandbox.ok(&["queue", "create", &queue]);
    let lines = "{\"task\": \"shop.add\", \"args\": [2, 3], \"id\": \"sum\"}\n{\"task\": \"shop.fail\", \"id\": \"bad\"}\n";
    let sent = sandbox.run_with(&["queue", "send", &queue, "-", "--json"], lines.as_bytes()).json();
    assert_eq!((sent.len(), &sent[0]["id"]), (2, &json!("sum")));
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

const CLIENT: &str = "
import sys
from celery import Celery
app = Celery(broker=sys.argv[1] + '/', backend='rpc://')
app.conf.task_default_queue = sys.argv[2]
print(app.send_task('shop.shout', args=['tea']).get(timeout=30))
try:
    app.send_task('shop.fail').get(timeout=30)
except ValueError as error:
    print('failed:', error)
";

/// `r.get()` of a Python app returns what the program wrote.
#[test]
fn a_python_app_is_answered() {
    let Some(broker) = broker() else { return };
    let python = Command::new("python3").args(["-c", "import celery"]).output();
    if !python.is_ok_and(|output| output.status.success()) {
        return storage_conformance::skip("python3 has no package `celery`: `cargo xtask test --all` installs it");
    }
    let (sandbox, queue) = (Sandbox::new(), format!("py-{}", storage_conformance::process_mark()));
    sandbox.write("storage.toml", format!("task_queue = \"celery+{broker}\"\n"));
    sandbox.ok(&["queue", "create", &queue]);
    let program = sandbox
        .script("run.sh", "[ \"$TASK_KIND\" = shop.shout ] && exec tr a-z A-Z; echo 'ValueError: no such task' >&2; exit 3");
    let _worker = sandbox.start(&["worker", "--queue", &queue, "--", &program]);
    let client = Command::new("python3").args(["-c", CLIENT, &broker, &queue]).stdin(Stdio::null()).output().unwrap();
    assert!(client.status.success(), "{}", String::from_utf8_lossy(&client.stderr));
    let said = String::from_utf8(client.stdout).unwrap();
    let mut said = said.lines();
    assert_eq!(said.next(), Some("{'ARGS': ['TEA'], 'KWARGS': {}}"));
    assert!(said.next().is_some_and(|line| line.contains("no such task")));
    sandbox.ok(&["queue", "drop", &queue]);
}
