//! Hostile, huge and broken input, full disks and read-only folders: a clear error, and the earlier data intact.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use bytes::Bytes;
use serde_json::{Value, json};
use storage_core::{
    BlobPath, BlobStore, ColumnType, Error, ErrorKind, Filter, NewMessage, Query, QueueName, QueueSpec, Receive, TableName,
    TableSchema, fields,
};
use storage_tests::mount::SmallDisk;
use storage_tests::{EMBEDDED, Stores, address, open};

fn table() -> TableName {
    TableName::new("t").unwrap()
}

async fn create(stores: &Stores) {
    let schema = TableSchema::builder("t")
        .column("text", ColumnType::Text)
        .column("int", ColumnType::Integer)
        .column("real", ColumnType::Real)
        .column("json", ColumnType::Json)
        .keep_undeclared()
        .build()
        .unwrap();
    stores.records.create_table(&schema).await.unwrap();
    stores.queues.ensure_queue(&queue(), &QueueSpec::default()).await.unwrap();
}

fn queue() -> QueueName {
    QueueName::new("q").unwrap()
}

/// What was written before, to be found again after every mishap.
async fn put_witness(stores: &Stores) {
    stores.records.insert(&table(), "witness", fields(json!({"text": "here"}))).await.unwrap();
    stores.queues.send(&queue(), NewMessage::new("witness")).await.unwrap();
}

async fn assert_witness(stores: &Stores) {
    let record = stores.records.get(&table(), "witness").await.unwrap().expect("the earlier record");
    assert_eq!(record.fields["text"], "here");
    let peeked = stores.queues.peek(&queue(), 1).await.unwrap();
    assert_eq!(peeked[0].body, "witness", "the earlier message");
}

#[tokio::test]
async fn hostile_text_is_only_text() {
    for backend in EMBEDDED {
        let folder = tempfile::tempdir().unwrap();
        let stores = open(&address(backend, folder.path())).await.unwrap();
        create(&stores).await;
        put_witness(&stores).await;
        let hostile = [
            "'; DROP TABLE t; --",
            "\" OR 1=1 --",
            "../../etc/passwd",
            "/etc/passwd",
            "..",
            ".",
            "a/../b",
            "%_%",
            "$(reboot) `reboot`",
            "CON",
            "nul.txt",
            "trailing.",
            "trailing ",
            "\u{202e}txt.exe",
            "🦀",
            "İstanbul",
        ];
        for text in hostile {
            stores.records.insert(&table(), text, fields(json!({"text": text, "free": text}))).await.unwrap();
            let found = stores.records.get(&table(), text).await.unwrap().unwrap();
            assert_eq!((found.fields["text"].as_str(), found.fields["free"].as_str()), (Some(text), Some(text)), "{backend}");
            let query = Query::table("t").unwrap().filter(Filter::eq("text", text).unwrap());
            assert_eq!(stores.records.count(&query).await.unwrap(), 1, "{backend} {text}");
            assert!(TableName::new(text).is_err() || text == "CON", "{text} names a table");
        }
        let query = Query::table("t").unwrap();
        assert_eq!(stores.records.count(&query).await.unwrap(), hostile.len() as u64 + 1);
        assert_witness(&stores).await;
    }
}

#[tokio::test]
async fn blob_paths_cannot_leave_the_root() {
    let folder = tempfile::tempdir().unwrap();
    let stores = open(&address("fs", folder.path())).await.unwrap();
    let blobs = stores.blobs.unwrap();
    for path in ["../x", "a/../../x", "/etc/passwd", "a//b", "./a", "a/.", "a\0b"] {
        assert_eq!(BlobPath::new(path).unwrap_err().kind(), ErrorKind::InvalidInput, "{path:?}");
    }
    // What a file system takes for something else stays a name.
    for path in ["a\\..\\..\\x", "~/x", "C:/x", "con/nul.txt", "-rf", "a b/'\"", "...", "x..", "trailing./y"] {
        let path = BlobPath::new(path).unwrap();
        blobs.put(&path, Bytes::from(path.to_string())).await.unwrap();
        assert_eq!(blobs.get_text(&path).await.unwrap(), path.as_str());
    }
    let outside: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(outside, ["root"], "nothing beside the root");
}

#[tokio::test]
async fn a_link_does_not_lead_out_of_the_root() {
    let folder = tempfile::tempdir().unwrap();
    let url = address("fs", folder.path());
    let blobs: BlobStore = open(&url).await.unwrap().blobs.unwrap();
    blobs.put(&BlobPath::new("inside/a").unwrap(), "inside").await.unwrap();
    std::fs::write(folder.path().join("secret"), "outside").unwrap();
    // A link put there by somebody, from wherever blobs are kept to the file outside.
    let kept = find(folder.path(), "a").expect("the blob's file");
    std::os::unix::fs::symlink(folder.path().join("secret"), kept.with_file_name("link")).unwrap();
    let read = blobs.get_text(&BlobPath::new("inside/link").unwrap()).await;
    assert_ne!(read.as_deref().ok(), Some("outside"), "a link was followed out of the root");
}

fn find(folder: &std::path::Path, name: &str) -> Option<std::path::PathBuf> {
    std::fs::read_dir(folder)
        .ok()?
        .flatten()
        .map(|e| e.path())
        .find_map(|path| if path.is_dir() { find(&path, name) } else { (path.file_name()? == name).then_some(path) })
}

#[tokio::test]
async fn what_is_too_large_is_refused_before_it_is_written() {
    for backend in EMBEDDED {
        let folder = tempfile::tempdir().unwrap();
        let stores = open(&address(backend, folder.path())).await.unwrap();
        create(&stores).await;
        put_witness(&stores).await;
        let hundred_mb = Bytes::from(vec![b'x'; 100_000_000]);
        let error = stores.queues.send(&queue(), NewMessage::new(hundred_mb.clone())).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{backend}: {error}");
        assert!(error.message().contains("100000000"), "says how much it was: {error}");
        let text = String::from_utf8(hundred_mb.to_vec()).unwrap();
        let error = stores.records.insert(&table(), "big", fields(json!({"text": text}))).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{backend}: {error}");
        // A large one that is within the limit does pass.
        let megabyte = "x".repeat(1 << 20);
        stores.records.insert(&table(), "large", fields(json!({"text": megabyte}))).await.unwrap();
        let found = stores.records.get(&table(), "large").await.unwrap().unwrap();
        assert_eq!(found.fields["text"].as_str().map(str::len), Some(1 << 20));
        assert_witness(&stores).await;
    }
}

#[tokio::test]
async fn a_blob_of_100_mb_is_no_trouble() {
    let folder = tempfile::tempdir().unwrap();
    let blobs = open(&address("fs", folder.path())).await.unwrap().blobs.unwrap();
    let path = BlobPath::new("big").unwrap();
    let bytes = Bytes::from(vec![b'x'; 100_000_000]);
    blobs.put(&path, bytes.clone()).await.unwrap();
    assert!(blobs.get(&path).await.unwrap() == bytes);
}

fn nested(levels: usize) -> Value {
    (0..levels).fold(json!(1), |inner, _| json!({ "a": inner }))
}

#[tokio::test]
async fn deep_json_and_extreme_numbers() {
    for backend in EMBEDDED {
        let folder = tempfile::tempdir().unwrap();
        let stores = open(&address(backend, folder.path())).await.unwrap();
        create(&stores).await;
        stores.records.insert(&table(), "deep", fields(json!({"json": nested(90), "free": nested(90)}))).await.unwrap();
        let found = stores.records.get(&table(), "deep").await.unwrap().unwrap();
        assert!(found.fields["json"] == nested(90) && found.fields["free"] == nested(90), "{backend}");
        let error = stores.records.insert(&table(), "deeper", fields(json!({"json": nested(101)}))).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{backend}");

        let numbers = json!({
            "int": i64::MIN, "real": 5e-324, "max": i64::MAX, "unsigned": u64::MAX, "tiny": 2.2250738585072014e-308,
            "large": 1.7976931348623157e308, "third": 1.0 / 3.0, "beyond": 9_007_199_254_740_993_i64,
        });
        stores.records.insert(&table(), "numbers", fields(numbers.clone())).await.unwrap();
        let found = stores.records.get(&table(), "numbers").await.unwrap().unwrap();
        assert_eq!(Value::Object(found.fields), numbers, "{backend}: every number to the last bit");
        for (column, value) in [("int", json!(u64::MAX)), ("int", json!(1.5)), ("int", json!(1e300)), ("real", json!(i64::MAX))] {
            let bad = fields(json!({ column: value.clone() }));
            let error = stores.records.insert(&table(), "bad", bad).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{backend} {column} {value}");
        }
    }
}

/// Writes records of 64 KiB until it fails; answers how many were acknowledged, and the error.
async fn fill(stores: &Stores) -> (u32, Error) {
    for n in 0..10_000 {
        let row = fields(json!({"text": "x".repeat(64 << 10)}));
        if let Err(error) = stores.records.insert(&table(), format!("fill-{n}"), row).await {
            return (n, error);
        }
    }
    panic!("the small disk takes everything");
}

#[tokio::test]
async fn a_full_disk_loses_nothing_and_is_left_behind() {
    for backend in EMBEDDED {
        let Some(disk) = SmallDisk::mount(6 << 10) else { return };
        let ballast = disk.path().join("ballast");
        std::fs::write(&ballast, vec![0; 3 << 20]).unwrap();
        let url = address(backend, disk.path());
        let stores = open(&url).await.unwrap();
        create(&stores).await;
        put_witness(&stores).await;
        let (written, error) = fill(&stores).await;
        assert!(error.to_string().contains("full"), "{backend}: says that the disk is full: {error}");
        assert!(!error.is_retryable(), "{backend}: trying again does not empty a disk");
        assert_witness(&stores).await;
        for n in 0..written {
            let there = stores.records.get(&table(), format!("fill-{n}")).await.unwrap();
            assert!(there.is_some(), "{backend}: record {n} was acknowledged");
        }
        // Room again: the same handle goes on.
        std::fs::remove_file(&ballast).unwrap();
        stores
            .records
            .insert(&table(), "afterwards", fields(json!({"text": "y"})))
            .await
            .unwrap_or_else(|e| panic!("{backend}: {e}"));
        stores.queues.send(&queue(), NewMessage::new("afterwards")).await.unwrap();
        stores.records.close().await.unwrap();
        let stores = open(&url).await.unwrap();
        assert_witness(&stores).await;
        assert!(stores.records.get(&table(), "afterwards").await.unwrap().is_some(), "{backend}");
        stores.records.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_read_only_folder_is_said_to_be_one() {
    for backend in EMBEDDED {
        let Some(disk) = SmallDisk::mount(8 << 10) else { return };
        let url = address(backend, disk.path());
        let stores = open(&url).await.unwrap();
        create(&stores).await;
        put_witness(&stores).await;
        stores.records.close().await.unwrap();
        stores.queues.close().await.unwrap();
        drop(stores);
        disk.set_read_only(true);
        let refused = match open(&url).await {
            Err(error) => error,
            Ok(stores) => stores.records.insert(&table(), "new", fields(json!({"text": "z"}))).await.unwrap_err(),
        };
        let text = refused.to_string();
        assert!(text.contains("read-only") || text.contains("permission") || text.contains("read only"), "{backend}: {text}");
        disk.set_read_only(false);
        let stores = open(&url).await.unwrap();
        assert_witness(&stores).await;
        stores.records.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_damaged_store_is_said_to_be_damaged() {
    // SQLite: garbage where the database should be.
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("app.db"), "this is not a database, it only has the name of one".repeat(50)).unwrap();
    let error = open(&address("sqlite", folder.path())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");

    // Files: one record is garbage, the others are not.
    let folder = tempfile::tempdir().unwrap();
    let stores = open(&address("fs", folder.path())).await.unwrap();
    create(&stores).await;
    put_witness(&stores).await;
    stores.records.insert(&table(), "victim", fields(json!({"text": "x"}))).await.unwrap();
    let file = find(folder.path(), "victim.json").expect("a record's file bears its key");
    std::fs::write(&file, "{\"half\": ").unwrap();
    let stores = open(&address("fs", folder.path())).await.unwrap();
    let error = stores.records.get(&table(), "victim").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert!(error.to_string().contains("victim.json"), "names the file: {error}");
    assert_witness(&stores).await;
    let received = stores.queues.receive(&queue(), &Receive::default()).await.unwrap();
    assert_eq!(received.len(), 1);
}
