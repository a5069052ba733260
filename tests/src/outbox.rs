//! A program that commits records with messages to a queue elsewhere, and is killed between commit and sending; how its remains are checked.
//!
//! Records are in SQLite, the queue is in files. Every operation `n` puts a record and enqueues a message of the same name in one batch; each third batch fails,
//! behind its message.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::TryStreamExt as _;
use serde_json::json;
use storage_core::outbox::{Outbox, OutboxOptions, OutboxState};
use storage_core::{
    Batch, Clock, Error, Expect, NewMessage, Query, QueueName, QueueSpec, QueueStore, Receive, Record, RecordStore, Result,
    TableName, TableSchema, fields,
};
use storage_tasks::{OutboxRelay, RelayOptions, SubmitOptions, TaskOptions, TaskStore};

use crate::hooked::Hooked;
use crate::{Stores, address, open};

/// How many writers run side by side.
const WRITERS: u64 = 4;

/// What the program does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Commits batches with messages.
    Batches,
    /// Submits tasks.
    Tasks,
}

/// Where the program is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kill {
    /// By itself, after the commit, before the sending that has this number.
    BeforeSend(u64),
    /// By itself, after the sending that has this number, before that is noted.
    AfterSend(u64),
    /// From outside, at a random moment.
    Outside,
}

/// Names that the child's command line understands.
impl Kill {
    /// As a word.
    #[must_use]
    pub fn word(self) -> String {
        match self {
            Self::BeforeSend(n) => format!("before-{n}"),
            Self::AfterSend(n) => format!("after-{n}"),
            Self::Outside => "outside".into(),
        }
    }

    /// Reads [`word`](Self::word).
    #[must_use]
    pub fn read(word: &str) -> Option<Self> {
        match word.split_once('-') {
            Some(("before", n)) => n.parse().ok().map(Self::BeforeSend),
            Some(("after", n)) => n.parse().ok().map(Self::AfterSend),
            _ => (word == "outside").then_some(Self::Outside),
        }
    }
}

fn table() -> TableName {
    TableName::new("orders").expect("a table name")
}

fn queue() -> QueueName {
    QueueName::new("tasks").expect("a queue name")
}

fn name(writer: u64, n: u64) -> String {
    format!("w{writer}-{n:08}")
}

/// Both stores below `folder`.
pub async fn open_both(folder: &Path) -> Result<(Stores, Stores)> {
    let (records, queues) = (open(&address("sqlite", folder)).await?, open(&address("fs", folder)).await?);
    records.records.create_table(&TableSchema::builder("orders").keep_undeclared().build()?).await?;
    queues.queues.ensure_queue(&queue(), &QueueSpec::default().max_deliveries(None)).await?;
    Ok((records, queues))
}

async fn open_tasks(records: &RecordStore, queues: &QueueStore, clock: Clock) -> Result<TaskStore> {
    TaskStore::open(records, queues, TaskOptions { clock, ..TaskOptions::default() }).await
}

/// Runs until it is killed. Each writer begins with the number `start`; what was acknowledged goes to standard output, a line each.
pub async fn run(work: Work, folder: &Path, start: u64, kill: Kill) -> Result<()> {
    let (records, queues) = open_both(folder).await?;
    let hooked = Hooked::over(Arc::clone(queues.queues.backend()));
    let sends = AtomicU64::new(0);
    match kill {
        Kill::BeforeSend(at) => hooked.before(move |_, _| die_at(at, &sends)),
        Kill::AfterSend(at) => hooked.after(move |_, _| die_at(at, &sends)),
        Kill::Outside => {}
    }
    let outbox = Outbox::new(Arc::clone(records.records.backend()), hooked.store(), OutboxOptions::default())?;
    let with_outbox = RecordStore::new(Arc::new(outbox));
    let tasks = open_tasks(&records.records, &hooked.store(), Clock::system()).await?;
    let writers = (0..WRITERS).map(|writer| {
        let (records, tasks) = (with_outbox.clone(), tasks.clone());
        tokio::spawn(async move {
            for n in start.. {
                let done = match work {
                    Work::Batches => commit(&records, writer, n).await,
                    Work::Tasks => {
                        let options = SubmitOptions::default().task_id(name(writer, n));
                        tasks.submit("x", json!(n), options).await.map(|_| true)
                    }
                };
                if done? {
                    let mut out = std::io::stdout().lock();
                    writeln!(out, "{writer} {n}").and_then(|()| out.flush())?;
                }
            }
            Ok::<_, Error>(())
        })
    });
    for ended in futures::future::join_all(writers).await {
        ended.map_err(|e| Error::internal("a writer ended").with_source(e))??;
    }
    Ok(())
}

/// False where the batch is one that fails.
async fn commit(records: &RecordStore, writer: u64, n: u64) -> Result<bool> {
    let name = name(writer, n);
    let batch = Batch::new()
        .put(&table(), name.as_str(), fields(json!({"n": n})), Expect::Absent)
        .enqueue(&queue(), NewMessage::new(name.clone()));
    if n % 3 != 2 {
        return records.commit(batch).await.map(|_| true);
    }
    match records.commit(batch.check(&table(), "never", Expect::Present)).await {
        Err(error) if error.failed_write() == Some(2) => Ok(false),
        outcome => Err(Error::internal(format!("a batch that fails: {outcome:?}"))),
    }
}

/// Ends the process as a power cut would: no destructor, no flush.
fn die_at(at: u64, sends: &AtomicU64) -> Result<()> {
    if sends.fetch_add(1, Ordering::SeqCst) == at {
        let _ = std::process::Command::new("kill").args(["-KILL", &std::process::id().to_string()]).status();
        std::process::abort();
    }
    Ok(())
}

/// What was acknowledged, and how often each message came.
#[derive(Debug, Default)]
pub struct Ledger {
    acknowledged: BTreeSet<String>,
    received: BTreeMap<String, u32>,
    /// How many messages a killed program left unsent, by round.
    pub owed: Vec<u64>,
}

impl Ledger {
    /// Notes what the child reported; answers where the next round begins.
    pub fn note(&mut self, start: u64, lines: &[(u64, u64)]) -> u64 {
        self.acknowledged.extend(lines.iter().map(|(writer, n)| name(*writer, *n)));
        let last = lines.iter().map(|(_, n)| *n).max().unwrap_or(start);
        // Behind whatever was under way: a writer that is ahead was not heard of by one operation that counts, and one that fails.
        (last + 3).next_multiple_of(3)
    }

    /// How many operations were acknowledged.
    #[must_use]
    pub fn acknowledged(&self) -> usize {
        self.acknowledged.len()
    }

    /// Does what a process does that starts after the killed one, then compares: every record has its message, once, and no message is without its record.
    ///
    /// # Panics
    /// Where it is not so.
    pub async fn check(&mut self, work: Work, records: &RecordStore, queues: &QueueStore) {
        // Claims of the killed one are over.
        let clock = Clock::manual();
        clock.advance(Duration::from_secs(120));
        let there: BTreeSet<String> = match work {
            Work::Batches => {
                let options = OutboxOptions { clock, background: false, ..OutboxOptions::default() };
                let outbox = Outbox::new(Arc::clone(records.backend()), queues.clone(), options).expect("an outbox");
                self.owed.push(outbox.count(OutboxState::Waiting).await.expect("a count"));
                outbox.drain().await.expect("a relay");
                assert_eq!(outbox.count(OutboxState::All).await.expect("a count"), 0, "nothing is left in the outbox");
                keys(records, "orders").await
            }
            Work::Tasks => {
                let tasks = open_tasks(records, queues, clock).await.expect("tasks");
                let relay = OutboxRelay::new(&tasks, RelayOptions::default());
                self.owed.push(relay.drain().await.expect("a relay"));
                assert_eq!(relay.drain().await.expect("a relay"), 0, "nothing is owed any more");
                keys(records, "tasks").await
            }
        };
        self.receive(work, queues).await;
        for name in &self.acknowledged {
            assert!(there.contains(name), "{name} was acknowledged and is not there");
        }
        let sent: BTreeSet<String> = self.received.keys().cloned().collect();
        assert_eq!(sent.symmetric_difference(&there).collect::<Vec<_>>(), [""; 0], "records and messages are the same");
        // The queue has dedup, and its window is longer than a test.
        let twice: Vec<_> = self.received.iter().filter(|(_, times)| **times > 1).collect();
        assert!(twice.is_empty(), "sent twice, and not taken out by the queue: {twice:?}");
    }

    async fn receive(&mut self, work: Work, queues: &QueueStore) {
        loop {
            let deliveries = queues.receive(&queue(), &Receive::up_to(500)).await.expect("receive");
            if deliveries.is_empty() {
                return;
            }
            for delivery in &deliveries {
                let name = match work {
                    Work::Batches => String::from_utf8(delivery.message.body.to_vec()).expect("a body is whole"),
                    Work::Tasks => delivery.message.json::<storage_tasks::TaskMessage>().expect("a task's message").task_id,
                };
                *self.received.entry(name).or_default() += 1;
            }
            let receipts: Vec<_> = deliveries.into_iter().map(|d| d.receipt).collect();
            for outcome in queues.delete_all(&queue(), &receipts).await.expect("delete") {
                outcome.expect("a fresh receipt");
            }
        }
    }
}

async fn keys(records: &RecordStore, table: &str) -> BTreeSet<String> {
    let query = Query::table(table).expect("a query").limit(1000);
    let records: Vec<Record> = records.stream(query).try_collect().await.expect("every record can be read");
    records.into_iter().map(|record| record.key.id.to_string()).collect()
}
