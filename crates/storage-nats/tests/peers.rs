//! Another client of NATS, in another language, sees sane streams, takes what we sent, and sends what we receive.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use std::time::Duration;

use common::{blobs, fresh, open, q, records};
use serde_json::{Value, json};
use storage_core::{
    BlobBody, BlobPath, ErrorKind, Expect, KeyType, NewMessage, PutOptions, QueueSpec, Receive, TableName, TableSchema, Version,
    fields,
};

/// What nats-py says; skips the test where it is not installed.
async fn nats_py(script: &str, arguments: &[&str]) -> Option<Value> {
    let python = |arguments: Vec<String>| async move { tokio::process::Command::new("python3").args(arguments).output().await };
    if !python(vec!["-c".into(), "import nats".into()]).await.is_ok_and(|output| output.status.success()) {
        storage_conformance::skip("no nats-py: `cargo xtask test --all` installs it");
        return None;
    }
    let script = format!("{}/tests/{script}", env!("CARGO_MANIFEST_DIR"));
    let arguments = std::iter::once(&*script).chain(arguments.iter().copied()).map(str::to_owned).collect();
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
    let Some(found) = nats_py("peer.py", &[&address, &format!("{prefix}-q"), &root]).await else { return };
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

#[tokio::test(flavor = "multi_thread")]
async fn nats_py_reads_our_records_and_writes_what_we_read() {
    let Some(address) = common::or_skip() else { return };
    let url = fresh(&address);
    let prefix = url.split_once("prefix=").unwrap().1.to_owned();
    let store = records(&url).await.unwrap();
    let orders: TableName = "Orders".parse().unwrap();
    let schema = TableSchema::builder("Orders").partition("customer", KeyType::Text).key_of("n", KeyType::Integer);
    store.create_table(&schema.keep_undeclared().build().unwrap()).await.unwrap();
    let put = |n: i64, cents: i64| store.upsert(&orders, ("acme inc.", n), fields(json!({"cents": cents})));
    put(17, 1).await.unwrap();
    put(17, 1990).await.unwrap();
    put(18, 5).await.unwrap();
    store.delete(&orders, ("acme inc.", 18), Expect::Present).await.unwrap();

    let Some(found) = nats_py("peer_stores.py", &["records", &address, &prefix, "orders"]).await else { return };
    assert_eq!(found["schema"]["name"], "Orders");
    assert_eq!(found["keys"], json!(["acme=20inc=2E.17"]));
    let record = &found["record"];
    assert_eq!((&record["version"], &record["fields"]), (&json!(2), &json!({"cents": 1990})));
    assert_eq!(record["key"], json!({"partition": "acme inc.", "id": 17}));
    assert_eq!(found["stale"], "KeyWrongLastSequenceError", "its conditions hold against our writes");

    // It has changed the record, by the rules.
    let read = store.get(&orders, ("acme inc.", 17)).await.unwrap().unwrap();
    assert_eq!((read.version, read.fields), (Version(3), fields(json!({"cents": 1991}))));
    let error = store.update(&orders, ("acme inc.", 17), fields(json!({})), Expect::Version(Version(2))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
}

#[tokio::test(flavor = "multi_thread")]
async fn nats_py_reads_our_blobs_and_writes_what_we_read() {
    let Some(address) = common::or_skip() else { return };
    let url = fresh(&address);
    let prefix = url.split_once("prefix=").unwrap().1.to_owned();
    let store = blobs(&url).await.unwrap();
    store.create_container().await.unwrap();
    let path = |path: &str| BlobPath::new(path).unwrap();
    let bytes: Vec<u8> = (0..500_000_u32).map(|n| n.to_le_bytes()[0] ^ n.to_le_bytes()[1]).collect();
    let options = PutOptions::default().content_type("text/x").metadata("owner", "acme");
    store.put_with(&path("dir/ours ü"), BlobBody::from(bytes.clone()), &options).await.unwrap();
    store.put(&path("gone"), "x").await.unwrap();
    store.delete(&path("gone")).await.unwrap();

    let Some(found) = nats_py("peer_stores.py", &["blobs", &address, &prefix]).await else { return };
    assert_eq!(found["names"], json!(["dir/ours ü"]));
    assert_eq!((&found["size"], &found["chunks"]), (&json!(500_000), &json!(4)));
    assert_eq!(found["equal"], json!(true), "its bytes have our digest, and theirs");
    assert_eq!(found["type"], json!(["text/x"]));

    let theirs = store.get(&path("theirs")).await.unwrap();
    assert_eq!(theirs.len(), 300_000);
    assert_eq!(store.get_range(&path("theirs"), 131_070..131_075).await.unwrap(), theirs.slice(131_070..131_075));
    let names: Vec<_> = futures::TryStreamExt::try_collect::<Vec<_>>(store.list_all(None)).await.unwrap();
    assert_eq!(names.iter().map(|meta| meta.path.as_str()).collect::<Vec<_>>(), ["dir/ours ü", "theirs"]);
}
