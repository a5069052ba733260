//! A workload whose remains can be checked whenever it was killed.
//!
//! Several writers run side by side, so that a group commit has something to group. Each takes the next number `n` of its own, does operation
//! `n`, and reports `writer n` once it is acknowledged. Everything that operation `n` leaves behind follows from `writer` and `n`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::time::Duration;

use futures::TryStreamExt as _;
use serde_json::json;
use storage_core::{
    Batch, ColumnType, Error, ErrorKind, Expect, Key, NewMessage, Query, QueueName, QueueSpec, Receive, Record, Result,
    TableName, TableSchema, fields,
};

use crate::Stores;

/// How many writers run side by side.
pub const WRITERS: u64 = 4;

/// The kinds of operation, in turn.
const KINDS: u64 = 5;

fn table(name: &str) -> TableName {
    TableName::new(name).expect("a table name")
}

fn queue() -> QueueName {
    QueueName::new("work").expect("a queue name")
}

/// Creates what the workload uses.
pub async fn prepare(stores: &Stores) -> Result<()> {
    for name in ["left", "right", "counters"] {
        let schema = TableSchema::builder(name)
            .column("n", ColumnType::Integer)
            .required()
            .column("text", ColumnType::Text)
            .index("by_n", ["n"])
            .build()?;
        stores.records.create_table(&schema).await?;
    }
    stores.queues.ensure_queue(&queue(), &QueueSpec::default().max_deliveries(None)).await
}

/// A text long enough that a torn write would show.
fn text(writer: u64, n: u64) -> String {
    format!("{writer}-{n};").repeat(40)
}

fn name(writer: u64, n: u64, part: &str) -> String {
    format!("w{writer}-{n:08}{part}")
}

fn row(writer: u64, n: u64) -> storage_core::Fields {
    fields(json!({"n": n, "text": text(writer, n)}))
}

async fn operate(stores: &Stores, writer: u64, n: u64) -> Result<()> {
    let (left, right) = (table("left"), table("right"));
    let message = || NewMessage::new(name(writer, n, ""));
    match n % KINDS {
        // One record.
        0 => stores.records.insert(&left, name(writer, n, ""), row(writer, n)).await.map(drop),
        // A batch over two tables and a queue.
        1 => {
            let batch = Batch::new()
                .put(&left, name(writer, n, "a"), row(writer, n), Expect::Absent)
                .put(&right, name(writer, n, "b"), row(writer, n), Expect::Absent)
                .put(&right, name(writer, n, "c"), row(writer, n), Expect::Absent)
                .enqueue(&queue(), message());
            stores.records.commit(batch).await.map(drop)
        }
        // Two messages in one call.
        2 => {
            let messages = ["x", "y"].map(|part| NewMessage::new(name(writer, n, part)));
            stores.queues.send_all(&queue(), messages.into()).await.map(drop)
        }
        // A counter that all writers share: the version is the number of increments.
        3 => increment(stores, writer).await,
        // A move: the record of an earlier operation leaves one table as another enters.
        _ => {
            let from = name(writer, n - 4, "");
            let batch =
                Batch::new().delete(&left, from.clone(), Expect::Present).put(&right, from, row(writer, n - 4), Expect::Absent);
            stores.records.commit(batch).await.map(drop)
        }
    }
}

async fn increment(stores: &Stores, writer: u64) -> Result<()> {
    let counters = table("counters");
    let key = format!("of-{writer}");
    loop {
        let (before, expect) = match stores.records.get(&counters, key.as_str()).await? {
            Some(record) => (record.fields["n"].as_u64().unwrap_or(0), Expect::Version(record.version)),
            None => (0, Expect::Absent),
        };
        let batch = Batch::new().put(&counters, key.as_str(), fields(json!({"n": before + 1})), expect);
        match stores.records.commit(batch).await {
            Err(error) if matches!(error.kind(), ErrorKind::Conflict | ErrorKind::AlreadyExists) => {}
            outcome => return outcome.map(drop),
        }
    }
}

/// Runs until it is killed. Each writer begins with the number `start`; acknowledgements go to standard output, a line each.
pub async fn run(stores: Stores, start: u64) -> Result<()> {
    let writers = (0..WRITERS).map(|writer| {
        let stores = stores.clone();
        tokio::spawn(async move {
            for n in start.. {
                operate(&stores, writer, n).await?;
                let mut out = std::io::stdout().lock();
                writeln!(out, "{writer} {n}").and_then(|()| out.flush())?;
            }
            Ok::<_, Error>(())
        })
    });
    for ended in futures::future::join_all(writers).await {
        ended.map_err(|e| Error::internal("a writer ended").with_source(e))??;
    }
    Ok(())
}

/// What must be there: for each writer, how many operations it began and how many were acknowledged, counted from `start` in each round.
#[derive(Debug, Default)]
pub struct Ledger {
    /// Acknowledged operations.
    acknowledged: BTreeSet<(u64, u64)>,
    /// Operations that a kill found under way: there wholly, or not at all.
    interrupted: BTreeSet<(u64, u64)>,
    /// Messages that were received, with how often.
    received: BTreeMap<String, u32>,
}

impl Ledger {
    /// Notes one round: the acknowledgements that were read, for writers that began at `start`. Answers the start of the next round.
    pub fn note_round(&mut self, start: u64, lines: &[(u64, u64)]) -> u64 {
        let mut next: Vec<u64> = (0..WRITERS).map(|_| start).collect();
        for (writer, n) in lines {
            let slot = &mut next[usize::try_from(*writer).expect("a writer")];
            assert_eq!(*n, *slot, "writer {writer} acknowledges in order");
            *slot += 1;
            self.acknowledged.insert((*writer, *n));
        }
        // A multiple of the kinds, so that a move never refers to a round before.
        let next_start = (next.iter().max().unwrap_or(&start) + 1).next_multiple_of(KINDS);
        self.interrupted.extend((0..).zip(next));
        next_start
    }

    /// How many operations were acknowledged.
    #[must_use]
    pub fn acknowledged(&self) -> usize {
        self.acknowledged.len()
    }

    /// Compares the store with the ledger.
    ///
    /// # Panics
    /// Where something acknowledged is missing, or something is there by half.
    pub async fn check(&mut self, stores: &Stores) {
        let (left, right) = (rows(stores, "left").await, rows(stores, "right").await);
        for (key, record) in left.iter().chain(&right) {
            assert_whole(key, record);
        }
        self.receive_all(stores).await;
        let mut explained = BTreeSet::new();
        for (writer, n) in self.acknowledged.iter().chain(&self.interrupted).copied() {
            let acknowledged = self.acknowledged.contains(&(writer, n));
            let moved = (writer, n + 4);
            let there = |rows: &BTreeMap<String, Record>, part: &str| rows.contains_key(&name(writer, n, part));
            let sent = |part: &str| self.received.contains_key(&name(writer, n, part));
            let parts = match n % KINDS {
                0 => {
                    let key = name(writer, n, "");
                    explained.insert(key.clone());
                    let (in_left, in_right) = (left.contains_key(&key), right.contains_key(&key));
                    assert!(!(in_left && in_right), "{key} is in both tables: half a move");
                    if self.acknowledged.contains(&moved) {
                        assert!(in_right, "{key} was moved and acknowledged, but is not there");
                    } else if !self.interrupted.contains(&moved) {
                        assert!(!in_right, "{key} is in the table that it was not moved to");
                    }
                    vec![in_left || in_right]
                }
                1 => {
                    explained.extend(["a", "b", "c"].map(|part| name(writer, n, part)));
                    vec![there(&left, "a"), there(&right, "b"), there(&right, "c"), sent("")]
                }
                2 => vec![sent("x"), sent("y")],
                _ => continue,
            };
            let some = parts.iter().any(|p| *p);
            let all = parts.iter().all(|p| *p);
            assert!(some == all, "operation {writer} {n} is there by half: {parts:?}");
            assert!(all || !acknowledged, "operation {writer} {n} was acknowledged and is gone");
        }
        for key in left.keys().chain(right.keys()) {
            assert!(explained.contains(key), "{key} is there, and nobody wrote it");
        }
        self.check_counters(stores).await;
    }

    async fn check_counters(&self, stores: &Stores) {
        let counters = rows(stores, "counters").await;
        for writer in 0..WRITERS {
            let count = |set: &BTreeSet<(u64, u64)>| set.iter().filter(|(w, n)| *w == writer && n % KINDS == 3).count() as u64;
            let (least, most) = (count(&self.acknowledged), count(&self.acknowledged) + count(&self.interrupted));
            let (n, version) =
                counters.get(&format!("of-{writer}")).map_or((0, 0), |r| (r.fields["n"].as_u64().unwrap_or(0), r.version.0));
            assert_eq!(n, version, "counter {writer}: as many versions as increments");
            assert!((least..=most).contains(&n), "counter {writer} is {n}, acknowledged {least}, begun {most}");
        }
    }

    async fn receive_all(&mut self, stores: &Stores) {
        let queue = queue();
        loop {
            let request = Receive::up_to(500).visibility(Duration::from_secs(600));
            let deliveries = stores.queues.receive(&queue, &request).await.expect("receive");
            if deliveries.is_empty() {
                return;
            }
            for delivery in &deliveries {
                let body = String::from_utf8(delivery.message.body.to_vec()).expect("a body is whole");
                *self.received.entry(body).or_default() += 1;
            }
            let receipts: Vec<_> = deliveries.into_iter().map(|d| d.receipt).collect();
            for outcome in stores.queues.delete_all(&queue, &receipts).await.expect("delete") {
                outcome.expect("a fresh receipt");
            }
        }
    }

    /// Asserts that no message was received twice.
    ///
    /// # Panics
    /// Where one was.
    pub fn assert_no_duplicates(&self) {
        let twice: Vec<_> = self.received.iter().filter(|(_, times)| **times > 1).collect();
        assert!(twice.is_empty(), "received and deleted, and yet delivered again: {twice:?}");
    }
}

async fn rows(stores: &Stores, name: &str) -> BTreeMap<String, Record> {
    let query = Query::table(name).expect("a query").limit(1000);
    let records: Vec<Record> = stores.records.stream(query).try_collect().await.expect("every record can be read");
    records.into_iter().map(|record| (key_text(&record.key), record)).collect()
}

fn key_text(key: &Key) -> String {
    key.id.to_string()
}

/// The row says itself what it must hold.
fn assert_whole(key: &str, record: &Record) {
    let n = record.fields["n"].as_u64().expect("a number");
    let writer: u64 = key.trim_start_matches('w').split('-').next().and_then(|w| w.parse().ok()).expect("a writer");
    assert_eq!(record.fields["text"], json!(text(writer, n)), "record {key} is torn");
}
