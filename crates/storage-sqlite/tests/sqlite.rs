//! What is particular to SQLite: the file, the writing thread, backups.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use std::time::Duration;

use common::{Home, Opened, config, number, schema, table};
use futures::FutureExt as _;
use futures::future::join_all;
use serde_json::json;
use storage_core::{
    Batch, Clock, ColumnType, Count, Driver as _, DriverConfig, ErrorKind, Expect, Filter, NewMessage, Query, QueueName,
    QueueSpec, Receive, SchemaChange, TableSchema, Write, fields,
};
use storage_sqlite::{SqliteDriver, SqliteStore};

/// Somebody else's write lock on the file.
struct Lock(rusqlite::Connection);

impl Lock {
    fn take(home: &Home) -> Self {
        let connection = home.raw();
        connection.execute_batch("BEGIN IMMEDIATE").unwrap();
        Self(connection)
    }

    fn release(self) {
        self.0.execute_batch("COMMIT").unwrap();
    }
}

#[tokio::test]
async fn many_writes_share_a_commit() {
    let home = Home::new();
    let opened = home.open().await;
    opened.records.create_table(&schema()).await.unwrap();
    let before = opened.store.commits();
    let lock = Lock::take(&home);
    let mut writes: Vec<_> = (0..200).map(|n| opened.put(n.to_string(), n).boxed()).collect();
    for write in &mut writes {
        // Looked at once, each is with the writer, which can't begin.
        assert!(futures::poll!(write).is_pending());
    }
    lock.release();
    for written in join_all(writes).await {
        written.unwrap();
    }
    // The writer may have gone for the lock with the first few; all that came after share the next transaction.
    let commits = opened.store.commits() - before;
    assert!(commits <= 2, "{commits} commits");
    assert_eq!(opened.records.count(&Query::table("t").unwrap()).await.unwrap(), 200);
}

#[tokio::test]
async fn a_failing_write_does_not_spoil_those_it_shares_a_commit_with() {
    let home = Home::new();
    let opened = home.open().await;
    opened.records.create_table(&schema()).await.unwrap();
    opened.put("taken", 0).await.unwrap();
    let lock = Lock::take(&home);
    let batch = |n: i64| {
        // Every third batch fails at its second write, when the first is done.
        let key = if n % 3 == 0 { "taken".to_owned() } else { format!("b{n}") };
        Batch::new().put(&table(), format!("a{n}"), number(n), Expect::Absent).put(&table(), key, number(n), Expect::Absent)
    };
    let mut writes: Vec<_> = (0..30).map(|n| opened.records.commit(batch(n)).boxed()).collect();
    for write in &mut writes {
        assert!(futures::poll!(write).is_pending());
    }
    lock.release();
    for (n, result) in (0_i64..).zip(join_all(writes).await) {
        if n % 3 == 0 {
            let error = result.unwrap_err();
            assert_eq!((error.kind(), error.failed_write()), (ErrorKind::AlreadyExists, Some(1)));
        } else {
            result.unwrap();
        }
        assert_eq!(opened.value(format!("a{n}")).await, (n % 3 != 0).then_some(n));
    }
}

#[tokio::test]
async fn a_write_whose_caller_went_away_in_time_is_not_done() {
    let home = Home::new();
    let opened = home.open().await;
    opened.records.create_table(&schema()).await.unwrap();
    let lock = Lock::take(&home);
    let mut kept = opened.put("kept", 1).boxed();
    let mut dropped = opened.put("dropped", 1).boxed();
    assert!(futures::poll!(&mut kept).is_pending());
    assert!(futures::poll!(&mut dropped).is_pending());
    drop(dropped);
    lock.release();
    kept.await.unwrap();
    assert_eq!(opened.value("dropped").await, None);
    // No lock was left behind.
    opened.put("after", 1).await.unwrap();
    home.raw().execute_batch("BEGIN IMMEDIATE; COMMIT").unwrap();
}

#[tokio::test]
async fn who_waits_too_long_is_told_why_and_readers_never_wait() {
    let home = Home::new();
    let patient = home.open().await;
    patient.records.create_table(&schema()).await.unwrap();
    patient.put("a", 1).await.unwrap();
    patient.close().await;
    let hasty = DriverConfig { timeout: Some(Duration::from_millis(50)), ..home.config() };
    let opened = Opened::new(&hasty).await.unwrap();
    let lock = Lock::take(&home);
    let error = opened.put("a", 2).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.is_retryable());
    let text = format!("{error:?}");
    assert!(text.contains("another process has been writing") && !text.contains("locked"), "{text}");
    assert_eq!(opened.value("a").await, Some(1));
    assert_eq!(opened.records.count(&Query::table("t").unwrap()).await.unwrap(), 1);
    lock.release();
    opened.put("a", 2).await.unwrap();
}

#[tokio::test]
async fn handles_of_one_process_share_one_writer() {
    let home = Home::new();
    let (a, b) = (home.open().await, home.open().await);
    a.records.create_table(&schema()).await.unwrap();
    b.put("x", 1).await.unwrap();
    assert_eq!(a.store.commits(), b.store.commits());
    a.close().await;
    b.put("x", 2).await.unwrap();
    assert_eq!(b.value("x").await, Some(2));
    b.close().await;
    assert!(!home.beside("test.db-wal").exists(), "the log is gone once everybody has left");
}

#[tokio::test]
async fn changes_of_a_schema_are_seen_by_other_connections() {
    let home = Home::new();
    // A clock of its own keeps a handle from sharing the other's threads, as another process would.
    let apart = DriverConfig { clock: Clock::manual(), ..home.config() };
    let (a, b) = (home.open().await, Opened::new(&apart).await.unwrap());
    a.records.create_table(&schema()).await.unwrap();
    b.put("x", 1).await.unwrap();
    let column = storage_core::Column {
        name: "note".parse().unwrap(),
        kind: ColumnType::Text,
        required: false,
        unique: false,
        default: Some(json!("none")),
    };
    a.records.alter_table(&table(), &SchemaChange::AddColumn(column)).await.unwrap();
    assert_eq!(b.records.get(&table(), "x").await.unwrap().unwrap().fields, fields(json!({"n": 1, "note": "none"})));
    let put = |key: &str, record| b.records.backend().commit(Batch::new().put(&table(), key, fields(record), Expect::Absent));
    put("y", json!({"note": "new"})).await.unwrap();
    // A change that SQLite itself knows nothing of.
    a.records.alter_table(&table(), &SchemaChange::SetUndeclared(storage_core::Undeclared::Keep)).await.unwrap();
    put("z", json!({"free": [1]})).await.unwrap();
    assert_eq!(a.records.get(&table(), "z").await.unwrap().unwrap().fields["free"], json!([1]));
    a.records.drop_table(&table()).await.unwrap();
    assert_eq!(b.records.get(&table(), "x").await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn the_file_can_be_read_without_the_toolkit() {
    let home = Home::new();
    let opened = home.open().await;
    let schema = TableSchema::builder("jobs")
        .column("status", ColumnType::Text)
        .column("at", ColumnType::Timestamp)
        .column("done", ColumnType::Boolean)
        .keep_undeclared()
        .build()
        .unwrap();
    opened.records.create_table(&schema).await.unwrap();
    let record = json!({"status": "ready", "at": "2026-11-21T10:00:00+01:00", "done": false, "free": [1, "x"]});
    opened.records.insert(&schema.name, "a", fields(record)).await.unwrap();
    let row: (String, String, String, i64, i64, String) = home
        .raw()
        .query_row("SELECT id, status, at, done, _version, _extra FROM jobs WHERE datetime(at) < '2027-01-01'", [], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?))
        })
        .unwrap();
    let text = |text: &str| text.to_owned();
    assert_eq!(row, (text("a"), text("ready"), text("2026-11-21T09:00:00.000000Z"), 0, 1, text(r#"{"free":[1,"x"]}"#)));
}

#[tokio::test]
async fn tables_of_other_programs_are_left_alone() {
    let home = Home::new();
    home.raw()
        .execute_batch("PRAGMA user_version = 7; PRAGMA application_id = 99; CREATE TABLE users (id INTEGER, name TEXT); INSERT INTO users VALUES (1, 'x')")
        .unwrap();
    let opened = home.open().await;
    assert!(opened.records.tables().await.unwrap().is_empty());
    let clash = TableSchema::builder("Users").build().unwrap();
    let error = opened.records.create_table(&clash).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert!(error.message().contains("not made by this toolkit"), "{error}");
    opened.records.create_table(&schema()).await.unwrap();
    opened.put("a", 1).await.unwrap();
    let strange: (i64, i64, String) = home
        .raw()
        .query_row(
            "SELECT u.user_version, a.application_id, name FROM users, pragma_user_version u, pragma_application_id a",
            [],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
        )
        .unwrap();
    assert_eq!(strange, (7, 99, "x".to_owned()));
}

#[tokio::test]
async fn names_that_sqlite_keeps_to_itself_work() {
    let home = Home::new();
    let opened = home.open().await;
    let schema = TableSchema::builder("sqlite_master")
        .column("rowid", ColumnType::Integer)
        .unique()
        .column("select", ColumnType::Text)
        .column("a-b", ColumnType::Text)
        .index("order", ["select", "a-b"])
        .build()
        .unwrap();
    opened.records.create_table(&schema).await.unwrap();
    let record = fields(json!({"rowid": 5, "select": "x", "a-b": "y"}));
    opened.records.insert(&schema.name, "k", record.clone()).await.unwrap();
    let query = Query::table("sqlite_master").unwrap().filter(Filter::eq("select", "x").unwrap()).descending("a-b").unwrap();
    assert_eq!(opened.records.scan(&query).await.unwrap().records[0].fields, record);
    let taken = opened.records.insert(&schema.name, "l", record).await.unwrap_err();
    assert!(taken.message().contains("`rowid`"), "{taken}");
}

#[tokio::test]
async fn a_missing_file_is_created_or_not_as_configured() {
    let home = Home::new();
    let deep = home.beside("a/b/c.db");
    let error = SqliteStore::open(&DriverConfig { auto_create: false, ..config(&deep) }).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(!home.beside("a").exists());
    let store = SqliteStore::open(&config(&deep)).await.unwrap();
    assert_eq!(store.records().info_location(), deep.canonicalize().unwrap().display().to_string());
    store.close().await.unwrap();
    SqliteStore::open(&DriverConfig { auto_create: false, ..config(&deep) }).await.unwrap();
    let folder = SqliteStore::open(&config(&home.beside("a/b"))).await.unwrap_err();
    assert_eq!(folder.kind(), ErrorKind::Config);
}

trait Location {
    fn info_location(&self) -> String;
}

impl<B: storage_core::RecordBackend> Location for B {
    fn info_location(&self) -> String {
        self.info().location.clone()
    }
}

#[tokio::test]
async fn what_is_no_database_is_refused_and_left_alone() {
    let home = Home::new();
    // One byte is what SQLite itself takes for an empty file.
    for text in ["x", "xy", &"This is a letter, not a database. ".repeat(100)] {
        std::fs::write(home.path(), text).unwrap();
        let error = SqliteStore::open(&home.config()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.message().contains("not a SQLite database") && error.to_string().contains("test.db"), "{error}");
        assert_eq!(std::fs::read_to_string(home.path()).unwrap(), text);
    }
}

#[tokio::test]
async fn damage_is_noticed() {
    let home = Home::new();
    let opened = home.open().await;
    opened.records.create_table(&schema()).await.unwrap();
    let batch: Batch = (0..5_000_i64)
        .map(|n| Write::Put {
            table: table(),
            key: n.to_string().into(),
            fields: number(n),
            expect: Expect::Anything,
            expires_at: None,
        })
        .collect();
    opened.records.commit(batch).await.unwrap();
    opened.close().await;
    let mut bytes = std::fs::read(home.path()).unwrap();
    let pages = bytes.len() / 4_096;
    // All but the first pages, where the schema is.
    bytes[4_096 * 20..4_096 * pages].fill(0xa5);
    std::fs::write(home.path(), bytes).unwrap();
    let opened = home.open().await;
    let error = opened.records.scan(&Query::table("t").unwrap().limit(10_000)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.message().contains("restore a backup"), "{error}");
}

#[tokio::test]
async fn the_first_layout_is_brought_up_to_the_present_one() {
    let home = Home::new();
    let opened = home.open().await;
    let queue = &opened.queue;
    let name = QueueName::new("work").unwrap();
    queue.create_queue(&name, &QueueSpec::default()).await.unwrap();
    queue.send(&name, NewMessage::new("leased")).await.unwrap();
    let [leased]: [_; 1] = queue.receive(&name, &Receive::up_to(1)).await.unwrap().try_into().unwrap();
    queue.send(&name, NewMessage::new("delayed").delay(Duration::from_secs(600))).await.unwrap();
    queue.send(&name, NewMessage::new("ready")).await.unwrap();
    opened.close().await;
    let to_1 = "UPDATE _storage_messages SET state = 3 - state WHERE state > 0; UPDATE _storage_meta SET value = 1 WHERE name = 'layout'";
    home.raw().execute_batch(to_1).unwrap();

    let opened = home.open().await;
    let queue = &opened.queue;
    let stats = queue.stats(&name).await.unwrap();
    assert_eq!((stats.ready, stats.delayed, stats.leased), (Count::Exact(1), Count::Exact(1), Count::Exact(1)));
    queue.delete(&name, &leased.receipt).await.unwrap();
    assert_eq!(queue.stats(&name).await.unwrap().leased, Count::Exact(0));
}

#[tokio::test]
async fn a_later_layout_is_refused() {
    let home = Home::new();
    home.open().await.close().await;
    home.raw().execute_batch("UPDATE _storage_meta SET value = 99 WHERE name = 'layout'").unwrap();
    let error = SqliteStore::open(&home.config()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.message().contains("later version") && error.message().contains("99"), "{error}");
}

#[tokio::test]
async fn what_has_expired_is_removed_from_the_file() {
    let home = Home::new();
    let clock = Clock::manual();
    let config = DriverConfig { clock: clock.clone(), ..home.config() };
    let opened = Opened::new(&config).await.unwrap();
    opened.records.create_table(&schema()).await.unwrap();
    let put = |key: &str, expires_at| Write::Put {
        table: table(),
        key: key.into(),
        fields: number(1),
        expect: Expect::Absent,
        expires_at,
    };
    let soon = clock.now() + Duration::from_secs(10);
    opened.records.commit(Batch::new().with(put("soon", Some(soon))).with(put("never", None))).await.unwrap();
    opened.close().await;
    clock.advance(Duration::from_secs(11));
    let opened = Opened::new(&config).await.unwrap();
    // The first commit after opening is followed by a sweep, and closing waits for both.
    opened.put("other", 1).await.unwrap();
    opened.close().await;
    let left: i64 = home.raw().query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap();
    assert_eq!(left, 2);
}

#[tokio::test]
async fn later_calls_on_a_closed_handle_fail_clearly() {
    let home = Home::new();
    let opened = home.open().await;
    opened.records.create_table(&schema()).await.unwrap();
    opened.records.backend().close().await.unwrap();
    for error in [opened.put("a", 1).await.unwrap_err(), opened.records.get(&table(), "a").await.unwrap_err()] {
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.message().contains("closed") && !error.is_retryable(), "{error}");
    }
    // The queue of the same store is a handle of its own.
    opened.queue.create_queue(&queue(), &QueueSpec::default()).await.unwrap();
}

fn queue() -> QueueName {
    "q".parse().unwrap()
}

#[tokio::test]
async fn closing_writes_what_was_begun_and_ends_waiting_receives() {
    let home = Home::new();
    let opened = home.open().await;
    opened.records.create_table(&schema()).await.unwrap();
    opened.queue.create_queue(&queue(), &QueueSpec::default()).await.unwrap();
    let lock = Lock::take(&home);
    let mut write = opened.put("a", 1).boxed();
    assert!(futures::poll!(&mut write).is_pending());
    let name = queue();
    let request = Receive::default().wait(Duration::from_secs(600));
    lock.release();
    let (written, received, closed) = tokio::join!(write, opened.queue.receive(&name, &request), async {
        // Behind the others in the writer's queue.
        opened.put("b", 1).await.unwrap();
        opened.queue.backend().close().await
    });
    written.unwrap();
    closed.unwrap();
    assert!(received.map_or_else(|e| e.kind() == ErrorKind::Unavailable, |messages| messages.is_empty()));
    opened.close().await;
    let opened = home.open().await;
    assert_eq!(opened.value("a").await, Some(1));
}

#[tokio::test]
async fn backups_are_consistent_while_others_write() {
    let home = Home::new();
    let opened = home.open().await;
    opened.records.create_table(&schema()).await.unwrap();
    opened.queue.create_queue(&queue(), &QueueSpec::default()).await.unwrap();
    // Two records that are always equal, and a message for each change.
    let pair = |n: i64| {
        let put = |key: &str| Write::Put {
            table: table(),
            key: key.into(),
            fields: number(n),
            expect: Expect::Anything,
            expires_at: None,
        };
        Batch::new().with(put("left")).with(put("right")).enqueue(&queue(), NewMessage::new(n.to_string()))
    };
    opened.records.commit(pair(1)).await.unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    let writing = async {
        let mut n = 1;
        while !stop.load(std::sync::atomic::Ordering::Relaxed) {
            n += 1;
            opened.records.commit(pair(n)).await.unwrap();
        }
        n
    };
    let backing_up = async {
        for n in 0..5 {
            opened.records.backup(&home.beside(&format!("copy{n}.db"))).await.unwrap();
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    };
    let (written, ()) = tokio::join!(writing, backing_up);
    assert!(written > 1);
    for n in 0..5 {
        let copy = Opened::new(&config(&home.beside(&format!("copy{n}.db")))).await.unwrap();
        let value = copy.value("left").await;
        assert_eq!(value, copy.value("right").await);
        let messages = copy.queue.stats(&queue()).await.unwrap().ready.value().unwrap();
        assert_eq!(value, i64::try_from(messages).ok());
        assert_eq!(copy.records.history(&table(), "left").await.unwrap()[0].fields["n"].as_i64(), value);
    }
    let error = opened.records.backup(&home.beside("copy0.db")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    let beside = std::fs::read_dir(home.path().parent().unwrap()).unwrap();
    assert!(beside.flatten().all(|f| !f.file_name().to_string_lossy().contains("partial")));
}

#[tokio::test]
async fn durability_is_declared_as_configured() {
    let home = Home::new();
    for (synchronous, durable) in [("full", true), ("normal", true), ("off", false)] {
        let url = format!("sqlite:///{}?synchronous={synchronous}", home.path().display());
        let backends = SqliteDriver.open(&DriverConfig::from_url(&url)).await.unwrap();
        assert_eq!(backends.records.unwrap().capabilities().durable, durable, "{synchronous}");
        assert_eq!(backends.queue.unwrap().capabilities().durable, durable, "{synchronous}");
    }
    let error = SqliteStore::open(&DriverConfig::from_url("x.db?synchronus=off")).await.unwrap_err();
    assert!(error.message().contains("did you mean `synchronous`"), "{error}");
}

#[tokio::test]
async fn large_keys_of_records_outside_inline_reads_are_found_too() {
    let home = Home::new();
    let opened = home.open().await;
    opened.records.create_table(&schema()).await.unwrap();
    let batch: Batch = (0..300_i64)
        .map(|n| Write::Put {
            table: table(),
            key: format!("k{n:03}").into(),
            fields: number(n),
            expect: Expect::Absent,
            expires_at: None,
        })
        .collect();
    opened.records.commit(batch).await.unwrap();
    let keys: Vec<storage_core::Key> = (0..400).rev().map(|n| format!("k{n:03}").into()).collect();
    let found = opened.records.get_many(&table(), &keys).await.unwrap();
    for (key, record) in keys.iter().zip(&found) {
        let n: i64 = key.to_string()[1..].parse().unwrap();
        assert_eq!(record.as_ref().map(|r| r.fields["n"].as_i64().unwrap()), (n < 300).then_some(n));
    }
}
