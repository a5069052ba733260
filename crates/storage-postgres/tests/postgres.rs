//! What is PostgreSQL's own: logins, rights, tables as an administrator sees them, and what others have done to them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use std::time::{Duration, Instant};

use common::{apart, open, open_with, raw, shared_or_skip};
use serde_json::json;
use storage_conformance::load::{self, number, schema, table};
use storage_conformance::server::refuses;
use storage_core::{
    Batch, Column, ColumnType, DriverConfig, ErrorKind, Expect, Key, KeyType, NewMessage, Query, QueueName, QueueSpec, Receive,
    SchemaChange, TableName, TableSchema, Version, fields,
};
use storage_postgres::PostgresDriver;

#[tokio::test]
async fn what_can_not_be_opened_says_why() {
    let Some(address) = shared_or_skip() else { return };
    let raw = raw(&address).await;
    let make = "DO $$ BEGIN CREATE ROLE locked LOGIN PASSWORD 'right'; EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$";
    raw.batch_execute(make).await.unwrap();
    let host = address.split('@').nth(1).unwrap().split('/').next().unwrap();
    let places = [
        (format!("postgres://locked:hunter2@{host}/postgres"), ErrorKind::Unauthorized),
        (format!("postgres://locked@{host}/postgres"), ErrorKind::Unauthorized),
        (format!("postgres://nobody-of-that-name:hunter2@{host}/postgres"), ErrorKind::Unauthorized),
        (format!("postgres://postgres:hunter2@{host}/no-such-database"), ErrorKind::NotFound),
        ("postgres://joe:hunter2@127.0.0.1:1/x".to_owned(), ErrorKind::Unavailable),
    ];
    refuses(PostgresDriver, places).await;
    let right = format!("postgres://locked:right@{host}/postgres?schema=public");
    let config = DriverConfig { auto_create: false, ..DriverConfig::from_url(&right) };
    let error = open_with(&config).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error:?}");
}

#[tokio::test]
async fn tables_are_as_an_administrator_would_make_them() {
    let Some(address) = shared_or_skip() else { return };
    let url = apart(&address);
    let opened = open(&url).await.unwrap();
    let orders = TableSchema::builder("orders")
        .partition("tenant", KeyType::Text)
        .key_of("number", KeyType::Integer)
        .column("mail", ColumnType::Text)
        .required()
        .unique()
        .column("total", ColumnType::Real)
        .column("paid", ColumnType::Boolean)
        .column("at", ColumnType::Timestamp)
        .column("lines", ColumnType::Json)
        .column("scan", ColumnType::Bytes)
        .column("count", ColumnType::Integer)
        .index("by_time", ["at"])
        .build()
        .unwrap();
    opened.records.create_table(&orders).await.unwrap();
    let raw = raw(&url).await;
    let columns = "SELECT column_name::text, data_type::text, is_nullable::text, coalesce(collation_name::text, '') FROM information_schema.columns \
                   WHERE table_schema = current_schema() AND table_name = 'orders' ORDER BY ordinal_position";
    let found: Vec<String> = raw
        .query(columns, &[])
        .await
        .unwrap()
        .iter()
        .map(|row| {
            format!("{} {} {} {}", row.get::<_, &str>(0), row.get::<_, &str>(1), row.get::<_, &str>(2), row.get::<_, &str>(3))
                .trim()
                .to_owned()
        })
        .collect();
    assert_eq!(
        found,
        [
            "tenant text NO C",
            "number bigint NO",
            "mail text NO C",
            "total double precision YES",
            "paid boolean YES",
            "at timestamp with time zone YES",
            "lines jsonb YES",
            "scan bytea YES",
            "count bigint YES",
            "_version bigint NO",
            "_updated_at timestamp with time zone NO",
            "_expires_at timestamp with time zone YES",
            "_extra jsonb YES",
        ]
    );
    let indexes =
        "SELECT indexdef FROM pg_indexes WHERE schemaname = current_schema() AND tablename = 'orders' ORDER BY indexname";
    let found: Vec<String> = raw.query(indexes, &[]).await.unwrap().iter().map(|row| row.get(0)).collect();
    let ends = |end: &str| found.iter().any(|index| index.ends_with(end));
    assert!(ends("(tenant, number)") && ends("(mail)") && ends("(at, tenant, number)"), "{found:?}");
    assert!(found.iter().any(|index| index.starts_with("CREATE UNIQUE INDEX") && index.ends_with("(mail)")), "{found:?}");
    let comments = "SELECT count(*) FROM pg_description d JOIN pg_class c ON c.oid = d.objoid WHERE c.relnamespace = current_schema()::regnamespace \
                    AND c.relname = 'orders'";
    assert_eq!(raw.query_one(comments, &[]).await.unwrap().get::<_, i64>(0), 5);
    let uncommented = "SELECT relname::text FROM pg_class c WHERE relnamespace = current_schema()::regnamespace AND relkind = 'r' AND \
                       obj_description(c.oid) IS NULL";
    assert!(raw.query(uncommented, &[]).await.unwrap().is_empty(), "every table says what it is");

    // Values are the server's own, and can be asked for by its own means.
    let row = json!({"mail": "a@x", "total": 1.5, "paid": true, "at": "2026-11-27T10:00:00Z", "lines": [{"sku": "x", "n": 2}], "scan": "AAE="});
    opened.records.insert(&orders.name, ("acme", 7), fields(row)).await.unwrap();
    let select = "SELECT tenant || number::text || mail, extract(epoch FROM at)::bigint, (lines -> 0 ->> 'n')::int, octet_length(scan) FROM orders \
                  WHERE paid AND total > 1";
    let found = raw.query_one(select, &[]).await.unwrap();
    assert_eq!(found.get::<_, &str>(0), "acme7a@x");
    assert_eq!((found.get::<_, i64>(1), found.get::<_, i32>(2), found.get::<_, i32>(3)), (1_795_773_600, 2, 2));
}

#[tokio::test]
async fn what_others_did_to_a_table_is_said() {
    let Some(address) = shared_or_skip() else { return };
    let url = apart(&address);
    let opened = open(&url).await.unwrap();
    let raw = raw(&url).await;
    // A table of somebody else.
    raw.batch_execute("CREATE TABLE \"T\" (x int)").await.unwrap();
    let error = opened.records.create_table(&schema()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error:?}");
    assert_eq!(raw.query_one("SELECT count(*) FROM \"T\"", &[]).await.unwrap().get::<_, i64>(0), 0);
    raw.batch_execute("DROP TABLE \"T\"").await.unwrap();
    opened.records.create_table(&schema()).await.unwrap();
    opened.records.insert(&table(), "a", number(1)).await.unwrap();

    let all = |kind: ErrorKind, what: &'static str| {
        let records = opened.records.clone();
        async move {
            let batch = Batch::new().put(&table(), "x", number(1), Expect::Anything);
            for error in [
                records.get(&table(), "a").await.unwrap_err(),
                records.scan(&Query::table("t").unwrap()).await.unwrap_err(),
                records.commit(batch).await.unwrap_err(),
            ] {
                assert_eq!(error.kind(), kind, "{what}: {error:?}");
            }
        }
    };
    // Values of another type.
    raw.batch_execute("ALTER TABLE t ALTER COLUMN n TYPE boolean USING true").await.unwrap();
    all(ErrorKind::Corrupt, "another type").await;
    raw.batch_execute("ALTER TABLE t ALTER COLUMN n TYPE bigint USING 1").await.unwrap();
    // A column that is gone.
    raw.batch_execute("ALTER TABLE t RENAME COLUMN n TO m").await.unwrap();
    all(ErrorKind::Corrupt, "a column gone").await;
    raw.batch_execute("ALTER TABLE t RENAME COLUMN m TO n").await.unwrap();
    // The table itself.
    raw.batch_execute("ALTER TABLE t RENAME TO u").await.unwrap();
    all(ErrorKind::Corrupt, "the table gone").await;
    raw.batch_execute("ALTER TABLE u RENAME TO t").await.unwrap();
    // All of that was put right, and it is as before.
    assert_eq!(opened.records.get(&table(), "a").await.unwrap().unwrap().fields, number(1));
    // A constraint of somebody else's.
    raw.batch_execute("ALTER TABLE t ADD CHECK (n < 10)").await.unwrap();
    let error = opened.records.commit(Batch::new().put(&table(), "b", number(1), Expect::Anything).put(
        &table(),
        "c",
        number(11),
        Expect::Anything,
    ));
    let error = error.await.unwrap_err();
    assert_eq!((error.kind(), error.failed_write()), (ErrorKind::InvalidInput, Some(1)), "{error:?}");
    assert_eq!(opened.records.count(&Query::table("t").unwrap()).await.unwrap(), 1);
    // A row that is none of ours.
    raw.batch_execute("INSERT INTO t (id, n, _version, _updated_at, _extra) VALUES ('z', 1, -5, now(), '[]')").await.unwrap();
    assert_eq!(opened.records.get(&table(), "z").await.unwrap_err().kind(), ErrorKind::Corrupt);
}

#[tokio::test]
async fn without_the_rights_it_is_unauthorized() {
    let Some(address) = shared_or_skip() else { return };
    let url = apart(&address);
    let opened = open(&url).await.unwrap();
    opened.records.create_table(&schema()).await.unwrap();
    let raw = raw(&url).await;
    let schema_name = url.split("schema=").nth(1).unwrap();
    let role = format!("reader_{schema_name}");
    let grant = format!(
        "CREATE ROLE {role} LOGIN; GRANT USAGE ON SCHEMA {schema_name} TO {role}; GRANT SELECT ON ALL TABLES IN SCHEMA {schema_name} TO {role}"
    );
    raw.batch_execute(&grant).await.unwrap();
    opened.records.insert(&table(), "a", number(1)).await.unwrap();
    let reader = open(&url.replace("postgres@", &format!("{role}@"))).await.unwrap();
    load::who_may_read_alone_is_refused_the_rest(&reader).await;
    assert_eq!(opened.records.get(&table(), "a").await.unwrap().unwrap().fields, number(1));
}

/// A value that is too long for an index is refused, alone.
#[tokio::test]
async fn a_value_too_long_for_its_index_is_invalid() {
    let Some(address) = shared_or_skip() else { return };
    let opened = open(&apart(&address)).await.unwrap();
    let table = TableSchema::builder("t").column("s", ColumnType::Text).index("by_s", ["s"]).build().unwrap();
    opened.records.create_table(&table).await.unwrap();
    // Text that does not get shorter by compression.
    let mut state = 1_u64;
    let long: String = (0..6_000)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            char::from(b'!' + u8::try_from((state >> 33) % 90).unwrap())
        })
        .collect();
    let put = |key: &str, text: &str| Batch::new().put(&table.name, key, fields(json!({"s": text})), Expect::Anything);
    let batches = [put("a", "short"), put("b", &long), put("c", "short")];
    let outcomes = futures::future::join_all(batches.map(|batch| opened.records.commit(batch))).await;
    assert!(outcomes[0].is_ok() && outcomes[2].is_ok(), "{outcomes:?}");
    let error = outcomes[1].as_ref().unwrap_err();
    assert_eq!((error.kind(), error.failed_write()), (ErrorKind::InvalidInput, Some(0)), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_share_transactions_and_not_failures() {
    let Some(address) = shared_or_skip() else { return };
    let opened = open(&apart(&address)).await.unwrap();
    load::callers_share_transactions_and_not_failures(&opened.records, &opened.queue).await;
}

/// A column that records have from the beginning, whoever wrote them.
fn level() -> Column {
    Column { name: "level".parse().unwrap(), kind: ColumnType::Integer, required: false, unique: false, default: Some(json!(7)) }
}

/// Inserts and sends take one trip, on what was known of tables and queues. Here others have changed that, and nobody has told.
#[tokio::test]
async fn what_was_known_is_held_against_what_is_there() {
    let Some(address) = shared_or_skip() else { return };
    let url = apart(&address);
    let (one, other) = (open(&url).await.unwrap(), open(&url).await.unwrap());
    let jobs = TableSchema::builder("jobs").key("id").column("name", ColumnType::Text).build().unwrap();
    one.records.create_table(&jobs).await.unwrap();
    let (jobs, queue, spec): (TableName, QueueName, _) = ("jobs".parse().unwrap(), "mail".parse().unwrap(), QueueSpec::default());
    one.queue.create_queue(&queue, &spec).await.unwrap();
    let batch = |id: &str| {
        let put = Batch::new().put(&jobs, id, fields(json!({"name": "x"})), Expect::Absent);
        put.enqueue(&queue, NewMessage::new(id.to_owned()))
    };
    one.records.commit(batch("a")).await.unwrap();
    one.queue.send(&queue, NewMessage::new("b")).await.unwrap();

    other.records.alter_table(&jobs, &SchemaChange::AddColumn(level())).await.unwrap();
    one.records.commit(batch("c")).await.unwrap();
    for id in ["a", "c"] {
        let record = other.records.get(&jobs, id).await.unwrap().unwrap();
        assert_eq!(record.fields["level"], json!(7), "{id}");
    }

    // A queue of the same name is another queue.
    assert!(other.queue.delete_queue(&queue).await.unwrap());
    other.queue.create_queue(&queue, &spec).await.unwrap();
    one.queue.send(&queue, NewMessage::new("d")).await.unwrap();
    one.records.commit(batch("e")).await.unwrap();
    let messages = other.queue.receive(&queue, &Receive::up_to(10)).await.unwrap();
    let bodies: Vec<_> = messages.iter().map(|delivery| delivery.message.body.clone()).collect();
    assert_eq!(bodies, ["d", "e"]);

    assert!(other.queue.delete_queue(&queue).await.unwrap());
    // The first error makes the store look for the new schema too.
    assert_eq!(one.records.commit(batch("g")).await.unwrap_err().kind(), ErrorKind::Conflict);
    for error in [one.queue.send(&queue, NewMessage::new("f")).await.err(), one.records.commit(batch("g")).await.err()] {
        let error = error.unwrap();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error:?}");
    }
    let error = one.records.insert(&jobs, "e", fields(json!({}))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert_eq!(one.records.count(&Query::table(jobs.clone()).unwrap()).await.unwrap(), 3, "nothing of what failed is there");
}

/// From a hundred on, new rows are copied in.
#[tokio::test]
async fn many_rows_are_all_there_or_none() {
    let Some(address) = shared_or_skip() else { return };
    let url = apart(&address);
    let (one, other) = (open(&url).await.unwrap(), open(&url).await.unwrap());
    let schema = TableSchema::builder("rows")
        .partition("part", KeyType::Text)
        .key_of("n", KeyType::Integer)
        .column("text", ColumnType::Text)
        .column("real", ColumnType::Real)
        .column("bytes", ColumnType::Bytes)
        .column("json", ColumnType::Json)
        .column("at", ColumnType::Timestamp)
        .keep_undeclared()
        .build()
        .unwrap();
    one.records.create_table(&schema).await.unwrap();
    let rows: TableName = "rows".parse().unwrap();
    let values = json!({"text": "a\tb\\", "real": 0.5, "bytes": "AP8=", "json": {"k": [null, "\u{1F600}"]}, "at": "2026-01-02T03:04:05Z", "more": 1});
    let batch = |from: i64| {
        (from..from + 150)
            .fold(Batch::new(), |batch, n| batch.put(&rows, Key::partitioned("p", n), fields(values.clone()), Expect::Absent))
    };
    let count = async || one.records.count(&Query::table(rows.clone()).unwrap()).await.unwrap();
    one.records.commit(batch(0)).await.unwrap();
    let record = other.records.get(&rows, Key::partitioned("p", 149)).await.unwrap().unwrap();
    assert_eq!((record.version, &record.fields["json"], &record.fields["more"]), (Version(1), &values["json"], &json!(1)));
    assert_eq!((&record.fields["text"], &record.fields["bytes"]), (&values["text"], &values["bytes"]));

    let error = one.records.commit(batch(100)).await.unwrap_err();
    assert_eq!((error.kind(), error.failed_write(), count().await), (ErrorKind::AlreadyExists, Some(0), 150), "{error:?}");

    other.records.alter_table(&rows, &SchemaChange::AddColumn(level())).await.unwrap();
    for from in (1_000..10_000).step_by(500) {
        one.records.commit(batch(from)).await.unwrap();
        let record = one.records.get(&rows, Key::partitioned("p", from)).await.unwrap().unwrap();
        assert_eq!(record.fields["level"], json!(7));
    }
    assert_eq!(count().await, 150 + 18 * 150);
}

/// Who waits is woken by the notice of another program: by its own looks, once a second, this would take seven seconds.
#[tokio::test(flavor = "multi_thread")]
async fn who_waits_is_woken_by_others() {
    let Some(address) = shared_or_skip() else { return };
    let url = apart(&address);
    let (one, other) = (open(&url).await.unwrap(), open(&url).await.unwrap());
    let queue: QueueName = "mail".parse().unwrap();
    one.queue.create_queue(&queue, &QueueSpec::default()).await.unwrap();
    let mut waited = Duration::ZERO;
    for round in 0..10 {
        let (store, name) = (one.queue.clone(), queue.clone());
        let request = Receive::up_to(1).wait(Duration::from_secs(20));
        let receiver = tokio::spawn(async move { store.receive(&name, &request).await });
        // Now it waits, and looks by itself a second after it began to.
        tokio::time::sleep(Duration::from_millis(150 + 37 * round)).await;
        other.queue.send(&queue, NewMessage::new("x")).await.unwrap();
        let sent = Instant::now();
        let received = receiver.await.unwrap().unwrap();
        waited += sent.elapsed();
        assert_eq!(received.len(), 1);
        one.queue.delete(&queue, &received[0].receipt).await.unwrap();
    }
    assert!(waited < Duration::from_secs(3), "{waited:?}");
}

#[tokio::test]
async fn a_receive_never_looks_through_the_whole_table() {
    let Some(address) = shared_or_skip() else { return };
    let url = apart(&address);
    let opened = open(&url).await.unwrap();
    let queue: QueueName = "jobs".parse().unwrap();
    opened.queue.ensure_queue(&queue, &QueueSpec::default()).await.unwrap();
    for _ in 0..20 {
        let messages = (0..500).map(|n| NewMessage::new(format!("{n}"))).collect();
        opened.queue.send_all(&queue, messages).await.unwrap();
    }
    drop(opened);
    // What is known then, no message leased and none with an end, is when plans went wrong.
    let raw = raw(&url).await;
    raw.batch_execute("ANALYZE _storage_messages").await.unwrap();
    let scans = async || -> i64 {
        // The server's processes tell what they did as they end, and a little later it is there.
        tokio::time::sleep(Duration::from_secs(2)).await;
        let select =
            "SELECT seq_scan FROM pg_stat_user_tables WHERE schemaname = current_schema() AND relname = '_storage_messages'";
        raw.query_one(select, &[]).await.unwrap().get(0)
    };
    let before = scans().await;
    let opened = open(&url).await.unwrap();
    // A plan is kept from the sixth time on.
    for _ in 0..40 {
        let some = opened.queue.receive(&queue, &Receive { max: 3, ..Receive::default() }).await.unwrap();
        assert_eq!(some.len(), 3);
        opened.queue.delete(&queue, &some[0].receipt).await.unwrap();
    }
    drop(opened);
    // Making the tables counts a few, which may come late.
    let more = scans().await - before;
    assert!(more < 10, "{more} scans for 40 messages received");
}

#[tokio::test]
async fn messages_keep_their_order_and_what_is_said_of_each() {
    let Some(address) = shared_or_skip() else { return };
    let opened = open(&apart(&address)).await.unwrap();
    let queue: QueueName = "jobs".parse().unwrap();
    opened.queue.ensure_queue(&queue, &QueueSpec::default()).await.unwrap();
    let plain = |n: usize| NewMessage::new(format!("{n}")).content_type("text/plain").attribute("a", "b");
    let alike: Vec<NewMessage> = (0..300).map(plain).collect();
    let mixed: Vec<NewMessage> = (300..600)
        .map(|n| match n % 3 {
            0 => plain(n),
            1 => plain(n).ttl(Duration::from_secs(3600)),
            _ => NewMessage::new(format!("{n}")),
        })
        .collect();
    let all: Vec<NewMessage> = alike.iter().chain(&mixed).cloned().collect();
    let mut sent = opened.queue.send_all(&queue, alike).await.unwrap();
    sent.extend(opened.queue.send_all(&queue, mixed).await.unwrap());
    let mut got = Vec::new();
    while got.len() < all.len() {
        let some = opened.queue.receive(&queue, &Receive { max: 200, ..Receive::default() }).await.unwrap();
        assert!(!some.is_empty());
        got.extend(some);
    }
    for ((was, sent), got) in all.iter().zip(&sent).zip(&got) {
        let is = &got.message;
        assert_eq!((&was.body, &was.content_type, &was.attributes), (&is.body, &is.content_type, &is.attributes));
        assert_eq!((&sent.id, was.ttl.is_some()), (&is.id, is.expires_at.is_some()));
    }
}
