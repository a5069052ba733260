//! The queue workload itself, the same for every subject: producers send every message, then consumers receive, check and
//! delete until nothing is left.
//!
//! This file stands on std, tokio and a few small crates alone, so that the peers that need a lock file of their own include
//! it as it is.

use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// How long consumers may see no new message before a round counts as failed.
const STALLED_AFTER: Duration = Duration::from_secs(30);
/// How long a consumer that found nothing waits before it asks again.
const EMPTY_PAUSE: Duration = Duration::from_micros(200);

/// How much SQLite promises when a commit returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// `synchronous=FULL`: a commit survives a power cut.
    Full,
    /// `synchronous=NORMAL` in WAL mode: a commit survives the process, not always a power cut.
    Normal,
}

impl Durability {
    /// The value as `PRAGMA synchronous` spells it.
    pub fn pragma(self) -> &'static str {
        match self {
            Self::Full => "FULL",
            Self::Normal => "NORMAL",
        }
    }
}

/// One cell of the queue matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::Args)]
pub struct QueueCase {
    /// What a commit promises.
    #[arg(long, value_enum)]
    pub sync: Durability,
    /// Producers that run at once, and then consumers.
    #[arg(long)]
    pub workers: usize,
    /// Messages per send, receive and delete.
    #[arg(long)]
    pub batch: usize,
    /// Bytes in a message's body.
    #[arg(long)]
    pub body: usize,
    /// Messages in the round; a multiple of `workers * batch`.
    #[arg(long)]
    pub messages: usize,
}

/// What one round took, and what was checked after it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct QueueRound {
    /// Seconds from the first send to the end of the last.
    pub send_seconds: f64,
    /// Seconds from the first receive to the end of the last delete.
    pub drain_seconds: f64,
    /// Different messages that arrived with the body they were sent with.
    pub delivered: usize,
    /// Deliveries beyond the first of a message.
    pub duplicates: usize,
    /// Messages that the queue still held at the end.
    pub left: u64,
    /// The settings that were in force, read back from the database.
    pub settings: String,
}

/// What `journal_mode` and `synchronous` answered, as the reports print it.
pub fn settings(journal: &str, synchronous: i64) -> String {
    let synchronous = match synchronous {
        0 => "OFF",
        1 => "NORMAL",
        2 => "FULL",
        _ => "EXTRA",
    };
    format!("journal_mode={}, synchronous={synchronous}", journal.to_uppercase())
}

/// A queue that is called from async code.
#[async_trait]
pub trait AsyncQueue: Send + Sync + 'static {
    /// What a delete needs to know.
    type Receipt: Send;
    /// True for consumers that receive the next messages while the last ones are being deleted, as a worker with a prefetch does.
    fn acks_with_next(&self) -> bool {
        false
    }
    /// Stores the messages; they are durable when this returns.
    async fn send(&self, worker: usize, bodies: &[Bytes]) -> Result<()>;
    /// Leases at most `max` messages.
    async fn receive(&self, worker: usize, max: usize) -> Result<Vec<(Self::Receipt, Bytes)>>;
    /// Removes received messages, or marks them as done.
    async fn delete(&self, worker: usize, receipts: Vec<Self::Receipt>) -> Result<()>;
    /// Messages that are not done yet, leased ones included.
    async fn left(&self) -> Result<u64>;
    /// The settings in force, read back from the database.
    async fn settings(&self) -> Result<String>;
}

/// A queue handle that a single thread owns.
pub trait SyncQueue: Send {
    /// What a delete needs to know.
    type Receipt;
    /// Stores the messages; they are durable when this returns.
    fn send(&mut self, bodies: &[Bytes]) -> Result<()>;
    /// Leases at most `max` messages.
    fn receive(&mut self, max: usize) -> Result<Vec<(Self::Receipt, Bytes)>>;
    /// Removes received messages.
    fn delete(&mut self, receipts: &[Self::Receipt]) -> Result<()>;
    /// Messages that are not done yet, leased ones included.
    fn left(&mut self) -> Result<u64>;
    /// The settings in force, read back from the database.
    fn settings(&mut self) -> Result<String>;
}

/// What was sent, and which of it has arrived.
struct Ledger {
    bodies: Vec<Bytes>,
    seen: Vec<AtomicU8>,
    arrived: AtomicUsize,
    duplicates: AtomicUsize,
}

impl Ledger {
    fn new(case: &QueueCase) -> Self {
        Self {
            bodies: (0..case.messages).map(|n| body(n, case.body)).collect(),
            seen: (0..case.messages).map(|_| AtomicU8::new(0)).collect(),
            arrived: AtomicUsize::new(0),
            duplicates: AtomicUsize::new(0),
        }
    }

    /// Notes a delivery; fails when the body is not the one that was sent.
    fn check(&self, received: &[u8]) -> Result<()> {
        let number: usize = received
            .get(..NUMBER)
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| digits.parse().ok())
            .context("a message arrived without its number")?;
        let sent = self.bodies.get(number).context("a message arrived that was never sent")?;
        if sent != received {
            bail!("message {number} arrived with another body than it was sent with");
        }
        if self.seen[number].fetch_add(1, Ordering::Relaxed) == 0 {
            self.arrived.fetch_add(1, Ordering::Relaxed);
        } else {
            self.duplicates.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    fn done(&self) -> bool {
        self.arrived.load(Ordering::Relaxed) >= self.bodies.len()
    }

    /// The batches that producer `worker` of `case.workers` sends.
    fn share<'a>(&'a self, case: &QueueCase, worker: usize) -> impl Iterator<Item = &'a [Bytes]> + Send {
        self.bodies.chunks(case.batch).skip(worker).step_by(case.workers)
    }

    fn round(&self, send: Duration, drain: Duration, left: u64, settings: String) -> QueueRound {
        QueueRound {
            send_seconds: send.as_secs_f64(),
            drain_seconds: drain.as_secs_f64(),
            delivered: self.arrived.load(Ordering::Relaxed),
            duplicates: self.duplicates.load(Ordering::Relaxed),
            left,
            settings,
        }
    }
}

/// Digits of the message number that a body begins with.
const NUMBER: usize = 20;

/// A body that no other message has: its number, then text that does not repeat within the message.
pub fn body(number: usize, length: usize) -> Bytes {
    let mut text = format!("{number:020}");
    let mut state = number as u64 ^ 0x9E37_79B9_7F4A_7C15;
    while text.len() < length {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        text.push_str(&format!("{:016x}", state ^ (state >> 29)));
    }
    text.truncate(length.max(NUMBER));
    Bytes::from(text)
}

/// Ends a consumer's loop when nothing has arrived for a long time.
struct Stall {
    at: Instant,
    arrived: usize,
}

impl Stall {
    fn new() -> Self {
        Self { at: Instant::now(), arrived: 0 }
    }

    fn check(&mut self, ledger: &Ledger) -> Result<()> {
        let arrived = ledger.arrived.load(Ordering::Relaxed);
        if arrived > self.arrived {
            *self = Self { at: Instant::now(), arrived };
        } else if self.at.elapsed() > STALLED_AFTER {
            bail!("{arrived} of {} messages arrived, then none for {STALLED_AFTER:?}", ledger.bodies.len());
        }
        Ok(())
    }
}

/// Runs the workload with one tokio task per worker.
pub async fn drive_async<Q: AsyncQueue>(queue: Arc<Q>, case: QueueCase) -> Result<QueueRound> {
    let ledger = Arc::new(Ledger::new(&case));

    let started = Instant::now();
    let producers: Vec<_> = (0..case.workers)
        .map(|worker| {
            let (queue, ledger) = (queue.clone(), ledger.clone());
            tokio::spawn(async move {
                for bodies in ledger.share(&case, worker) {
                    queue.send(worker, bodies).await?;
                }
                anyhow::Ok(())
            })
        })
        .collect();
    for producer in producers {
        producer.await??;
    }
    let send = started.elapsed();

    let started = Instant::now();
    let consumers: Vec<_> = (0..case.workers)
        .map(|worker| {
            let (queue, ledger) = (queue.clone(), ledger.clone());
            tokio::spawn(async move {
                if queue.acks_with_next() {
                    consume_ahead(&*queue, &ledger, &case, worker).await
                } else {
                    consume_async(&*queue, &ledger, &case, worker).await
                }
            })
        })
        .collect();
    for consumer in consumers {
        consumer.await??;
    }
    let drain = started.elapsed();

    Ok(ledger.round(send, drain, queue.left().await?, queue.settings().await?))
}

async fn consume_async<Q: AsyncQueue>(queue: &Q, ledger: &Ledger, case: &QueueCase, worker: usize) -> Result<()> {
    let mut stall = Stall::new();
    while !ledger.done() {
        let messages = queue.receive(worker, case.batch).await?;
        if messages.is_empty() {
            stall.check(ledger)?;
            tokio::time::sleep(EMPTY_PAUSE).await;
            continue;
        }
        let mut receipts = Vec::with_capacity(messages.len());
        for (receipt, body) in messages {
            ledger.check(&body)?;
            receipts.push(receipt);
        }
        queue.delete(worker, receipts).await?;
    }
    Ok(())
}

/// As [`consume_async`], but a delete and the next receive are under way together.
async fn consume_ahead<Q: AsyncQueue>(queue: &Q, ledger: &Ledger, case: &QueueCase, worker: usize) -> Result<()> {
    let mut stall = Stall::new();
    let mut messages = queue.receive(worker, case.batch).await?;
    loop {
        let mut receipts = Vec::with_capacity(messages.len());
        for (receipt, body) in messages {
            ledger.check(&body)?;
            receipts.push(receipt);
        }
        if receipts.is_empty() {
            stall.check(ledger)?;
            tokio::time::sleep(EMPTY_PAUSE).await;
        }
        if ledger.done() {
            return queue.delete(worker, receipts).await;
        }
        let (deleted, next) = tokio::join!(queue.delete(worker, receipts), queue.receive(worker, case.batch));
        deleted?;
        messages = next?;
    }
}

/// Runs the workload with one thread per worker; `handles` has a queue handle for each.
pub fn drive_sync<Q: SyncQueue>(mut handles: Vec<Q>, case: QueueCase) -> Result<QueueRound> {
    let ledger = Ledger::new(&case);
    let send = on_threads(&mut handles, |worker, queue| {
        for bodies in ledger.share(&case, worker) {
            queue.send(bodies)?;
        }
        Ok(())
    })?;
    let drain = on_threads(&mut handles, |_, queue| consume_sync(queue, &ledger, &case))?;

    let first = handles.first_mut().context("a queue needs at least one worker")?;
    Ok(ledger.round(send, drain, first.left()?, first.settings()?))
}

fn consume_sync<Q: SyncQueue>(queue: &mut Q, ledger: &Ledger, case: &QueueCase) -> Result<()> {
    let mut stall = Stall::new();
    while !ledger.done() {
        let messages = queue.receive(case.batch)?;
        if messages.is_empty() {
            stall.check(ledger)?;
            std::thread::sleep(EMPTY_PAUSE);
            continue;
        }
        let mut receipts = Vec::with_capacity(messages.len());
        for (receipt, body) in messages {
            ledger.check(&body)?;
            receipts.push(receipt);
        }
        queue.delete(&receipts)?;
    }
    Ok(())
}

/// Runs `work` on one thread per handle and answers with the time from the common start to the last end.
fn on_threads<Q: Send>(handles: &mut [Q], work: impl Fn(usize, &mut Q) -> Result<()> + Sync) -> Result<Duration> {
    let barrier = Barrier::new(handles.len() + 1);
    std::thread::scope(|scope| {
        let threads: Vec<_> = handles
            .iter_mut()
            .enumerate()
            .map(|(worker, queue)| {
                let (barrier, work) = (&barrier, &work);
                scope.spawn(move || {
                    barrier.wait();
                    work(worker, queue)
                })
            })
            .collect();
        barrier.wait();
        let started = Instant::now();
        for thread in threads {
            thread.join().map_err(|_| anyhow::anyhow!("a worker thread panicked"))??;
        }
        Ok(started.elapsed())
    })
}
