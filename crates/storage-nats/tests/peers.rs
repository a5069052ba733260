//! Another client of NATS, in another language, sees sane streams, takes what we sent, and sends what we receive.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use std::time::Duration;

use common::{fresh, open, q};
use serde_json::{Value, json};
use storage_core::{NewMessage, QueueSpec, Receive};

/// What nats-py says; skips the test where it is not installed.
async fn nats_py(arguments: &[&str]) -> Option<Value> {
    let python = |arguments: Vec<String>| async move { tokio::process::Command::new("python3").args(arguments).output().await };
    if !python(vec!["-c".into(), "import nats".into()]).await.is_ok_and(|output| output.status.success()) {
        storage_conformance::skip("no nats-py: `cargo xtask test --all` installs it");
        return None;
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peer.py");
    let arguments = [script].iter().chain(arguments).map(|argument| (*argument).to_owned()).collect();
    let output = python(arguments).await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(serde_json::from_slice(&output.stdout).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn nats_py_takes_what_we_sent_and_sends_what_we_receive() {
    let Some(address) = common::or_skip() else { return };
    let url = fresh(&address);
    let prefix = url.split_once("prefix=").unwrap().1.to_owned();
    let store = open(&url).await.unwrap();
    store.create_queue(&q(), &QueueSpec::default().dedup_window(Duration::from_secs(60))).await.unwrap();
    let message = NewMessage::json(&json!({"to": "alice"})).unwrap().attribute("tenant", "acme").attribute("odd ü", "a\nb");
    let sent = store.send(&q(), message.dedup_id("first")).await.unwrap();
    store.send(&q(), NewMessage::new("later").delay(Duration::from_secs(600))).await.unwrap();

    let root = format!("{prefix}.q");
    let Some(found) = nats_py(&[&address, &format!("{prefix}-q"), &root]).await else { return };
    let expected =
        json!({"retention": "workqueue", "storage": "file", "discard": "new", "subjects": [format!("{root}.>")], "messages": 2});
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!(&found[name], value, "{name}");
    }
    let consumers = json!({
        format!("{root}.live.p0.*"): [1, 0, "explicit"],
        format!("{root}.live.later"): [1, 0, "explicit"],
        format!("{root}.dead.*"): [0, 0, "explicit"],
    });
    assert_eq!(found["consumers"], consumers);
    assert_eq!((&found["subject"], &found["body"]), (&json!(format!("{root}.live.p0.new")), &json!("{\"to\":\"alice\"}")));
    let headers = &found["headers"];
    assert_eq!((&headers["tenant"], &headers["Content-Type"]), (&json!("acme"), &json!("application/json")));
    assert_eq!(headers["Nats-Msg-Id"], "first");
    let odd: Value = serde_json::from_str(headers["Storage-Attributes"].as_str().unwrap()).unwrap();
    assert_eq!(odd, json!({"odd ü": "a\nb"}));
    assert_eq!(found["duplicate"], json!([null, true, true]), "nats-py leaves out what is false");

    // It removed ours, whose id is still known.
    let again = store.send(&q(), NewMessage::new("again").dedup_id("first")).await.unwrap();
    assert_eq!((again.duplicate, &again.id), (true, &sent.id));
    let taken = store.receive(&q(), &Receive::up_to(10).wait(Duration::from_secs(10))).await.unwrap();
    let bodies: Vec<_> = taken.iter().map(|delivery| delivery.message.body.clone()).collect();
    assert_eq!(bodies, ["from Python", "once"]);
    let first = &taken[0].message;
    assert_eq!(first.id.0, found["sequence"].to_string());
    assert_eq!((first.attributes["Trace"].as_str(), first.content_type.as_deref()), ("42", Some("text/plain")));
    for delivery in &taken {
        store.delete(&q(), &delivery.receipt).await.unwrap();
    }
    assert_eq!(store.purge(&q()).await.unwrap(), 1, "the delayed one");
}
