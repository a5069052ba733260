//! Every component on a service of its own, from one file: the example of the documentation, on real servers.

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::{Ran, Running, Sandbox};

const EXAMPLE: &str = include_str!("../../../storage-facade/tests/examples/independent.toml");

/// The example's components on the servers of a test run, each in a place of its own.
struct Shop {
    sandbox: Sandbox,
    variables: Vec<(&'static str, String)>,
}

impl Shop {
    /// Skips the test where a server is missing.
    fn or_skip() -> Option<Self> {
        let server = |variable: &str| {
            std::env::var(variable)
                .map(|address| address.trim_end_matches('/').to_owned())
                .map_err(|_| format!("no server: `cargo xtask test` starts it where it is installed, or set {variable}"))
        };
        let servers = ["XTASK_TEST_RABBITMQ", "XTASK_TEST_POSTGRES", "XTASK_TEST_REDIS", "XTASK_TEST_SEAWEEDFS"];
        let servers: Result<Vec<String>, String> = servers.into_iter().map(server).collect();
        let servers = servers.map_err(|reason| storage_conformance::skip(&reason)).ok()?;
        let [rabbitmq, postgres, redis, s3] = &*servers else { unreachable!("four servers") };
        let own = format!("shop{}", uuid::Uuid::now_v7().simple());
        let files = format!("s3://{own}?endpoint={s3}&access_key=storagetest&secret_key=storagetestsecret&dialect=seaweedfs");
        let variables = vec![
            ("SHOP_QUEUE", format!("{rabbitmq}?prefix={own}.")),
            ("SHOP_DATABASE", format!("{postgres}?schema={own}")),
            ("SHOP_RESULTS", format!("{redis}?prefix={own}")),
            ("SHOP_FILES", files),
        ];
        let sandbox = Sandbox::new();
        sandbox.write("storage.toml", EXAMPLE);
        Some(Self { sandbox, variables })
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.sandbox.command(args);
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }

    fn run(&self, args: &[&str]) -> Ran {
        Ran::new(args, self.command(args).output().unwrap())
    }

    fn ok(&self, args: &[&str]) -> String {
        self.run(args).ok()
    }

    fn json(&self, args: &[&str]) -> Vec<Value> {
        self.run(&[args, &["--json"]].concat()).json()
    }

    /// Which driver each component uses.
    fn drivers(&self) -> BTreeMap<String, String> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        self.json(&["check"]).iter().map(|line| (text(&line["component"]), text(&line["driver"]))).collect()
    }
}

#[test]
fn a_demo_and_a_worker_on_five_services() {
    let Some(shop) = Shop::or_skip() else { return };
    let drivers = shop.drivers();
    for (component, driver) in [
        ("task_queue", "amqp"),
        ("records", "postgres"),
        ("result_storage", "redis"),
        ("event_storage", "postgres"),
        ("schedule_storage", "sqlite"),
        ("blobs", "s3"),
    ] {
        assert_eq!(drivers.get(component).map(String::as_str), Some(driver), "{drivers:?}");
    }

    // The demo checks for itself that each file was counted once, with its events, results and report.
    for n in 0..50 {
        shop.sandbox.write(&format!("src/{n}.txt"), "line\n".repeat(n));
    }
    let report = shop.json(&["demo", "src"]).remove(0);
    assert_eq!(
        (&report["ok"], &report["total"]),
        (&json!(true), &json!({"files": 50, "bytes": 6125, "lines": 1225})),
        "{report}"
    );

    // A worker in a process of its own, told of tasks by the queue; tasks by hand and by a schedule.
    let program = shop.sandbox.script("shout.sh", "[ \"$TASK_KIND\" != broken ] || exit 3; tr a-z A-Z");
    let worker = Running(shop.command(&["worker", "--with-schedules", "--retry-first", "10ms", "--", &program]).spawn().unwrap());
    for n in 0..20 {
        shop.ok(&["task", "submit", "shout", "--id", &n.to_string(), "--text", &format!("order {n}")]);
    }
    shop.ok(&["task", "submit", "broken", "--id", "bad", "--max-attempts", "2"]);
    shop.ok(&["schedule", "add", "often", "shout", "--every", "100ms", "--input", "\"tick\""]);
    for n in 0..20 {
        assert_eq!(shop.ok(&["result", "get", &n.to_string(), "--wait", "30s"]), format!("ORDER {n}\n"));
    }
    let failed = shop.run(&["result", "get", "bad", "--wait", "30s"]);
    assert!(failed.code == Some(1) && failed.stderr.contains("exit code 3"), "{}", failed.stderr);
    let fired = || shop.json(&["task", "ls", "--kind", "shout", "--status", "succeeded", "--limit", "1000"]).len();
    crate::support::until("a schedule fires", || fired() > 20);
    worker.signal("TERM");
    worker.end().ok();

    // Who has what: events in the database, results in Redis, schedules in the file here.
    let kinds: Vec<Value> = shop.json(&["event", "ls", "--task", "7"]).iter().map(|event| event["kind"].clone()).collect();
    assert_eq!(kinds, ["submitted", "started", "succeeded"]);
    assert!(shop.sandbox.path("schedules.db").exists() && !shop.sandbox.path("storage.db").exists());
    assert_eq!(shop.json(&["schedule", "ls"])[0]["name"], "often");
    let tables: Vec<String> = shop.json(&["table", "ls"]).iter().map(|table| table["name"].to_string()).collect();
    assert!(
        tables.iter().any(|name| name.contains("events")) && !tables.iter().any(|name| name.contains("results")),
        "{tables:?}"
    );
    assert!(shop.run(&["outbox", "ls"]).stderr.contains("nothing waits"), "all that was owed was sent");
    shop.ok(&["queue", "drop", "tasks"]);
}
