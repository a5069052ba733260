//! How fast it is: `cargo run --release -p storage-sqlite --example timing [-- ROWS [FOLDER]]`.

#![allow(clippy::print_stdout, clippy::unwrap_used, missing_docs)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use storage_core::{
    Batch, ColumnType, DriverConfig, Expect, Fields, Filter, Key, NewMessage, Query, QueueBackend, QueueSpec, Receive,
    RecordBackend, Result, TableSchema, fields,
};
use storage_sqlite::SqliteStore;

const BATCH: usize = 1_000;

#[tokio::main]
async fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let rows: usize = args.next().and_then(|a| a.parse().ok()).unwrap_or(100_000);
    let folder = match args.next() {
        Some(folder) => tempfile::tempdir_in(folder)?,
        None => tempfile::tempdir()?,
    };
    let only = args.next().unwrap_or_default();
    for synchronous in ["full", "normal"] {
        println!("== synchronous={synchronous}");
        let url = format!("sqlite:///{}/{synchronous}.db?synchronous={synchronous}", folder.path().display());
        let store = SqliteStore::open(&DriverConfig::from_url(&url)).await?;
        if only != "queue" {
            records(&store, rows).await?;
            raw_gets(&folder.path().join(format!("{synchronous}.db")), rows);
        }
        queue(&store).await?;
        raw_queue(&folder.path().join(format!("raw-{synchronous}.db")), synchronous);
        println!("{:>12} commits", store.commits());
        store.close().await?;
    }
    Ok(())
}

fn schema() -> TableSchema {
    TableSchema::builder("items")
        .column("customer", ColumnType::Integer)
        .column("name", ColumnType::Text)
        .column("amount", ColumnType::Real)
        .column("at", ColumnType::Timestamp)
        .index("by_customer", ["customer"])
        .build()
        .unwrap()
}

fn item(n: usize, customers: usize) -> Fields {
    fields(
        json!({"customer": n % customers, "name": format!("item number {n}"), "amount": 0.5, "at": "2026-11-21T09:30:00.000000Z"}),
    )
}

fn key(n: usize) -> Key {
    Key::from(format!("0193e7a0-{n:08x}-7000"))
}

/// When something began: by the clock, and by what this process has used of the processors. On a busy machine only the latter says much.
struct Start {
    clock: Instant,
    cpu: Duration,
}

impl Start {
    fn now() -> Self {
        Self { clock: Instant::now(), cpu: cpu() }
    }
}

/// The processor time of all threads that are alive; zero where the system does not say.
fn cpu() -> Duration {
    let threads = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let nanos = threads.filter_map(|thread| {
        let text = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(nanos.sum())
}

fn rate(what: &str, count: usize, started: &Start) {
    let (elapsed, cpu) = (started.clock.elapsed(), cpu().saturating_sub(started.cpu));
    let each = |time: Duration| time.as_secs_f64() * 1e6 / count as f64;
    println!(
        "{:>10.0}/s {:>9.2} µs, {:>8.2} µs of processor  {what}",
        count as f64 / elapsed.as_secs_f64(),
        each(elapsed),
        each(cpu)
    );
}

async fn records(store: &SqliteStore, rows: usize) -> Result<()> {
    let records = Arc::new(store.records());
    let schema = schema();
    let table = schema.name.clone();
    let customers = rows / 100;
    records.create_table(&schema).await?;

    let batches: Vec<Batch> = (0..rows / BATCH)
        .map(|b| {
            (0..BATCH).fold(Batch::new(), |batch, i| {
                batch.put(&table, key(b * BATCH + i), item(b * BATCH + i, customers), Expect::Absent)
            })
        })
        .collect();
    let started = Start::now();
    for batch in batches {
        records.commit(batch).await?;
    }
    rate("inserts in batches of 1,000", rows, &started);

    let started = Start::now();
    const GETS: usize = 50_000;
    for n in 0..GETS {
        assert!(records.get(&table, &[key(n * 7_919 % rows)]).await?[0].is_some());
    }
    rate("gets of one", GETS, &started);

    let keys: Vec<Key> = (0..100).map(|n| key(n * 7_919 % rows)).collect();
    let started = Start::now();
    for _ in 0..500 {
        assert_eq!(records.get(&table, &keys).await?.len(), 100);
    }
    rate("keys in gets of 100", 500 * 100, &started);

    let started = Start::now();
    for n in 0..500 {
        let query = Query::table("items")?.filter(Filter::eq("customer", n * 7_919 % customers)?).canonical(&schema)?;
        assert_eq!(records.scan(&query).await?.records.len(), 100);
    }
    rate("queries of 100 rows by an index", 500, &started);

    for callers in [1, 64, 256] {
        let each = if callers == 1 { 500 } else { 20_000 / callers };
        let started = Start::now();
        let tasks = (0..callers).map(|c| {
            let (records, table) = (Arc::clone(&records), table.clone());
            tokio::spawn(async move {
                for n in 0..each {
                    let n = rows + callers * 1_000_000 + n * callers + c;
                    records.commit(Batch::new().put(&table, key(n), item(n, customers), Expect::Absent)).await.unwrap();
                }
            })
        });
        futures::future::join_all(tasks.collect::<Vec<_>>()).await;
        rate(&format!("single inserts, {callers} callers"), each * callers, &started);
    }
    let batch = (0..BATCH).fold(Batch::new(), |batch, i| batch.put(&table, key(i), item(i, customers), Expect::Anything));
    let started = Start::now();
    for _ in 0..20 {
        records.commit(batch.clone()).await?;
    }
    rate("upserts in batches of 1,000", 20 * BATCH, &started);
    let batch =
        (0..BATCH).fold(Batch::new(), |batch, i| batch.merge(&table, key(i), fields(json!({"amount": 1.5})), Expect::Present));
    let started = Start::now();
    for _ in 0..20 {
        records.commit(batch.clone()).await?;
    }
    rate("merges in batches of 1,000", 20 * BATCH, &started);
    Ok(())
}

async fn queue(store: &SqliteStore) -> Result<()> {
    let queue = Arc::new(store.queue());
    let name: storage_core::QueueName = "work".parse()?;
    queue.create_queue(&name, &QueueSpec::default()).await?;
    let message = || NewMessage::new(vec![b'x'; 200]);
    for (size, rounds) in [(1, 2_000), (100, 300)] {
        let started = Start::now();
        for _ in 0..rounds {
            queue.send(&name, (0..size).map(|_| message()).collect()).await?;
        }
        rate(&format!("sends by {size}"), size * rounds, &started);
        let started = Start::now();
        for _ in 0..rounds {
            let taken = queue.receive(&name, &Receive::up_to(u32::try_from(size).unwrap())).await?;
            assert_eq!(taken.len(), size);
            let receipts: Vec<_> = taken.into_iter().map(|d| d.receipt).collect();
            assert!(queue.delete(&name, &receipts).await?.iter().all(std::result::Result::is_ok));
        }
        rate(&format!("receives and deletes by {size}"), size * rounds, &started);
    }
    let started = Start::now();
    const TOTAL: usize = 16_000;
    let producers = (0..8).map(|_| {
        let (queue, name) = (Arc::clone(&queue), name.clone());
        tokio::spawn(async move {
            for _ in 0..TOTAL / 8 {
                queue.send(&name, vec![NewMessage::new(vec![b'x'; 200])]).await.unwrap();
            }
        })
    });
    let consumers = (0..8).map(|_| {
        let (queue, name) = (Arc::clone(&queue), name.clone());
        tokio::spawn(async move {
            let mut count = 0;
            loop {
                let taken = queue.receive(&name, &Receive::up_to(10).wait(Duration::from_millis(500))).await.unwrap();
                if taken.is_empty() {
                    return count;
                }
                count += taken.len();
                let receipts: Vec<_> = taken.into_iter().map(|d| d.receipt).collect();
                queue.delete(&name, &receipts).await.unwrap();
            }
        })
    });
    let (producers, consumers): (Vec<_>, Vec<_>) = (producers.collect(), consumers.collect());
    futures::future::join_all(producers).await;
    rate("sends by 1, 8 producers (8 consumers at work)", TOTAL, &started);
    let counts = futures::future::join_all(consumers).await;
    assert_eq!(counts.into_iter().map(std::result::Result::unwrap).sum::<usize>(), TOTAL);
    rate("through 8 producers and 8 consumers (0.5 s of waiting for the end included)", TOTAL, &started);
    Ok(())
}

/// What SQLite alone takes for the same reads.
fn raw_gets(path: &std::path::Path, rows: usize) {
    let connection = rusqlite::Connection::open(path).unwrap();
    let started = Start::now();
    const GETS: usize = 50_000;
    for n in 0..GETS {
        let text = format!("0193e7a0-{:08x}-7000", n * 7_919 % rows);
        let mut select = connection.prepare_cached("SELECT id, customer, name, amount, at FROM items WHERE id = ?1").unwrap();
        let row = |row: &rusqlite::Row<'_>| {
            Ok((
                row.get::<_, String>(0)?,
                row.get::<_, i64>(1)?,
                row.get::<_, String>(2)?,
                row.get::<_, f64>(3)?,
                row.get::<_, String>(4)?,
            ))
        };
        std::hint::black_box(select.query_row([text], row).unwrap());
    }
    rate("raw: gets of one", GETS, &started);
    let started = Start::now();
    for n in 0..500 {
        let customer = n * 7_919 % (rows / 100);
        let mut select =
            connection.prepare_cached("SELECT id, customer, name, amount, at FROM items WHERE customer = ?1 LIMIT 100").unwrap();
        let row = |row: &rusqlite::Row<'_>| {
            Ok((
                row.get::<_, String>(0)?,
                row.get::<_, i64>(1)?,
                row.get::<_, String>(2)?,
                row.get::<_, f64>(3)?,
                row.get::<_, String>(4)?,
            ))
        };
        let found: Vec<_> =
            select.query_map([i64::try_from(customer).unwrap()], row).unwrap().map(std::result::Result::unwrap).collect();
        assert_eq!(std::hint::black_box(found).len(), 100);
    }
    rate("raw: queries of 100 rows by an index", 500, &started);
}

/// A queue as one would write it by hand.
fn raw_queue(path: &std::path::Path, synchronous: &str) {
    let mut connection = rusqlite::Connection::open(path).unwrap();
    connection.pragma_update(None, "journal_mode", "WAL").unwrap();
    connection.pragma_update(None, "synchronous", synchronous).unwrap();
    connection
        .execute_batch(
            "CREATE TABLE m (id INTEGER PRIMARY KEY, lane INTEGER NOT NULL, priority INTEGER NOT NULL, state INTEGER NOT NULL, visible_at \
             INTEGER NOT NULL, lease INTEGER NOT NULL, deliveries INTEGER NOT NULL, enqueued_at INTEGER NOT NULL, expires_at INTEGER, \
             content_type TEXT, attributes TEXT, body BLOB NOT NULL) STRICT; \
             CREATE INDEX ready ON m (lane, priority DESC, id) WHERE state = 0; \
             CREATE INDEX waiting ON m (lane, visible_at) WHERE state > 0; \
             CREATE INDEX expiring ON m (lane, expires_at) WHERE state = 0 AND expires_at IS NOT NULL;",
        )
        .unwrap();
    connection.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).unwrap();
    let body = vec![b'x'; 200];
    for (size, rounds) in [(1, 2_000), (100, 300)] {
        let started = Start::now();
        for _ in 0..rounds {
            let tx = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).unwrap();
            {
                let mut insert = tx
                    .prepare_cached(
                        "INSERT INTO m (lane, priority, state, visible_at, lease, deliveries, enqueued_at, body) \
                                     VALUES (2, 0, 0, 1700000000000000, 0, 0, 1700000000000000, ?1)",
                    )
                    .unwrap();
                for _ in 0..size {
                    insert.execute([&body]).unwrap();
                }
            }
            tx.commit().unwrap();
        }
        rate(&format!("raw: sends by {size}"), size * rounds, &started);
        let started = Start::now();
        for _ in 0..rounds {
            let tx = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).unwrap();
            let taken: Vec<(i64, Vec<u8>)> = tx
                .prepare_cached(
                    "UPDATE m SET state = 2, visible_at = ?1, lease = random(), deliveries = deliveries + 1 WHERE id IN \
                     (SELECT id FROM m WHERE lane = 2 AND state = 0 ORDER BY priority DESC, id LIMIT ?2) RETURNING id, body",
                )
                .unwrap()
                .query_map((12_345_678_901_234_i64, i64::try_from(size).unwrap()), |row| Ok((row.get(0)?, row.get(1)?)))
                .unwrap()
                .map(std::result::Result::unwrap)
                .collect();
            tx.commit().unwrap();
            let tx = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).unwrap();
            for (id, _) in taken {
                tx.prepare_cached("DELETE FROM m WHERE id = ?1").unwrap().execute([id]).unwrap();
            }
            tx.commit().unwrap();
        }
        rate(&format!("raw: receives and deletes by {size}"), size * rounds, &started);
    }
}
