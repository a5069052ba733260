//! The relay: sends what waits.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures::StreamExt as _;
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::row::Row;
use super::send::{Item, Outcome, deliver};
use super::{Inner, Outbox, OutboxOptions};
use crate::backoff::Backoff;
use crate::clock::add;
use crate::{
    Batch, Error, ErrorKind, Expect, Fields, Filter, Key, PageToken, Query, QueueStore, Result, Version, Write, fields, value,
};

/// How many writes of single rows are under way at once.
const PARALLEL: usize = 16;
/// How many rows a page holds at first, and at most.
const PAGE: (u32, u32) = (4, 256);
/// Above so many bytes of messages the next page is a shorter one.
const PAGE_BYTES: usize = 4 << 20;
/// The longest error that is kept of a message.
const MAX_ERROR: usize = 2000;

/// What a relay has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Relayed {
    /// Messages that were sent.
    pub sent: u64,
    /// Messages that the queue refused; they are tried again later.
    pub refused: u64,
    /// Messages that were set aside.
    pub failed: u64,
    /// Messages that could not be sent now.
    pub waiting: u64,
}

impl Relayed {
    fn add(&mut self, other: Self) {
        self.sent += other.sent;
        self.refused += other.refused;
        self.failed += other.failed;
        self.waiting += other.waiting;
    }
}

/// Which rows a pass takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Take {
    /// What is due.
    Due,
    /// Whatever nobody has in hand, however soon it was tried.
    Free,
}

/// The state of a relay that runs.
#[derive(Debug)]
struct Pace {
    page: u32,
    backoff: Backoff,
    total: Relayed,
}

impl Pace {
    fn new(options: &OutboxOptions) -> Self {
        let longest = options.poll.saturating_mul(32).min(options.lease.max(options.poll));
        Self { page: PAGE.0, backoff: Backoff::new(options.poll, longest), total: Relayed::default() }
    }

    /// Pages hold as much as memory is to be used.
    fn adapt(&mut self, bytes: usize) {
        self.page = match bytes {
            0..PAGE_BYTES => (self.page * 2).min(PAGE.1),
            _ => (self.page / 4).max(1),
        };
    }
}

impl Outbox {
    /// Sends all that waits and that nobody has in hand, each message once, those that were tried a moment ago included. What is set aside stays so.
    ///
    /// # Errors
    /// The first error of the records or of a queue that can't be reached; what could be sent was sent.
    pub async fn drain(&self) -> Result<Relayed> {
        let mut pace = Pace::new(&self.inner.options);
        let outcome = self.inner.pass(Take::Free, &mut pace, &AtomicBool::new(false)).await;
        outcome.map(|()| pace.total)
    }

    /// Relays until `shutdown` is ready, and ends when what it has in hand is done. Where records or queue are away it tries again, a little later each time.
    pub async fn run(&self, shutdown: impl Future<Output = ()> + Send) -> Relayed {
        let mut shutdown = std::pin::pin!(shutdown);
        let (mut pace, stops) = (Pace::new(&self.inner.options), AtomicBool::new(false));
        loop {
            let pause = {
                let mut round = std::pin::pin!(self.inner.round(&mut pace, &stops));
                tokio::select! {
                    biased;
                    () = &mut shutdown => {
                        stops.store(true, Ordering::Relaxed);
                        // What is cut off here was claimed, and is another relay's when the lease ends.
                        let _ = tokio::time::timeout(self.inner.options.lease, round).await;
                        break;
                    }
                    pause = &mut round => pause,
                }
            };
            tokio::select! {
                () = &mut shutdown => break,
                () = tokio::time::sleep(pause) => {}
            }
        }
        pace.total
    }

    /// Starts the relay of this process, unless it runs.
    pub(super) fn relay_in_background(&self) {
        let mut background = self.inner.background.lock().unwrap_or_else(PoisonError::into_inner);
        if background.is_none() {
            *background = Some(Background::start(self));
        }
    }
}

/// A relay that runs beside a program, as long as the program holds the outbox.
#[derive(Debug)]
pub(super) struct Background {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Background {
    fn start(outbox: &Outbox) -> Self {
        let (stop, mut stopped) = watch::channel(false);
        let (inner, mut pace) = (Arc::downgrade(&outbox.inner), Pace::new(&outbox.inner.options));
        let mut pause = outbox.inner.options.poll;
        let task = tokio::spawn(async move {
            loop {
                // Ends with an error where the outbox is gone.
                tokio::select! {
                    _ = stopped.changed() => return,
                    () = tokio::time::sleep(pause) => {}
                }
                let Some(inner) = inner.upgrade() else { return };
                let stops = AtomicBool::new(false);
                let mut round = std::pin::pin!(inner.round(&mut pace, &stops));
                pause = tokio::select! {
                    biased;
                    pause = &mut round => pause,
                    _ = stopped.changed() => {
                        stops.store(true, Ordering::Relaxed);
                        round.await;
                        return;
                    }
                };
            }
        });
        Self { stop, task }
    }

    /// Ends it, and waits until it has ended, so long at most.
    pub(super) async fn stop(self, limit: Duration) {
        let Self { stop, mut task } = self;
        let _ = stop.send(true);
        if tokio::time::timeout(limit, &mut task).await.is_err() {
            task.abort();
        }
    }
}

impl Inner {
    /// One look at what is due. Answers how long to wait before the next.
    async fn round(&self, pace: &mut Pace, stops: &AtomicBool) -> Duration {
        let before = pace.total.waiting;
        match self.pass(Take::Due, pace, stops).await {
            Ok(()) if pace.total.waiting == before => {
                pace.backoff.reset();
                self.options.poll
            }
            Ok(()) => pace.backoff.next_delay(),
            Err(error) => {
                let delay = pace.backoff.next_delay();
                tracing::warn!(%error, ?delay, "can't relay messages of the outbox, trying again");
                delay
            }
        }
    }

    /// Goes through what waits, page by page.
    async fn pass(&self, take: Take, pace: &mut Pace, stops: &AtomicBool) -> Result<()> {
        let mut query = self.query(take)?;
        loop {
            let (rows, token) = self.page(&query.clone().limit(pace.page)).await?;
            // One that somebody has damaged keeps no other; `list` says which.
            let damaged = |error: &Error| tracing::error!(%error, "a row of the outbox is left alone");
            let rows: Vec<Row> = rows.into_iter().filter_map(|row| row.inspect_err(damaged).ok()).collect();
            if !rows.is_empty() {
                pace.adapt(rows.iter().map(|row| row.body.len()).sum());
                let (done, error) = self.relay_page(rows).await?;
                pace.total.add(done);
                if let Some(error) = error {
                    return Err(error);
                }
            }
            match token {
                Some(token) if !stops.load(Ordering::Relaxed) => query = query.after(Some(token)),
                _ => return Ok(()),
            }
        }
    }

    fn query(&self, take: Take) -> Result<Query> {
        let now = value::timestamp(self.options.clock.now());
        let query = Query::table(self.options.table.as_str())?;
        match take {
            Take::Due => query.filter(Filter::le("due_at", now)?).ascending("due_at"),
            Take::Free => {
                let free = Filter::is_null("claimed_until")? | Filter::le("claimed_until", now.clone())?;
                // Not what comes meanwhile, so that it ends.
                Ok(query.filter(Filter::is_null("failed_at")? & free & Filter::le("created_at", now)?))
            }
        }
    }

    /// A page of rows: none where the table is not there yet.
    pub(super) async fn page(&self, query: &Query) -> Result<(Vec<Result<Row>>, Option<PageToken>)> {
        match self.rows.scan(query).await {
            Ok(page) => Ok((page.records.into_iter().map(Row::from_record).collect(), page.next)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok((Vec::new(), None)),
            Err(error) => Err(error),
        }
    }

    /// Sends a page of rows and notes what became of each. Answers the error that keeps all from being sent now, too.
    async fn relay_page(&self, rows: Vec<Row>) -> Result<(Relayed, Option<Error>)> {
        let items = self.claim(rows).await?;
        let now = self.options.clock.now();
        let outcomes = match self.queue.open().await {
            Ok(queue) => self.deliver_claimed(&queue, items, now).await,
            Err(error) => items.into_iter().map(|item| (item, Outcome::NotNow(error.duplicate()))).collect(),
        };
        self.settle(outcomes, now).await
    }

    async fn deliver_claimed(&self, queue: &QueueStore, items: Vec<Item>, now: DateTime<Utc>) -> Vec<(Item, Outcome)> {
        // Behind the lease somebody else would be sending the same.
        deliver(queue, items, now, self.options.lease / 2).await
    }

    /// Takes rows for as long as a lease: all at once, or, where others are at them too, those that can be had.
    async fn claim(&self, rows: Vec<Row>) -> Result<Vec<Item>> {
        match self.backend.commit(rows.iter().map(|row| self.claim_of(row)).collect()).await {
            Ok(_) => return rows.into_iter().map(claimed).collect(),
            Err(error) if is_gone(&error) => {}
            Err(error) => return Err(error),
        }
        // Mostly another relay has taken the whole page: one look says so, where a write for each would have to fail.
        let keys: Vec<Key> = rows.iter().map(|row| row.id.as_str().into()).collect();
        let now = self.backend.get(&self.options.table, &keys).await?;
        let left = rows.into_iter().zip(now).filter(|(row, now)| now.as_ref().is_some_and(|now| now.version == row.version));
        let claims = left.map(|(row, _)| {
            let batch = Batch::new().with(self.claim_of(&row));
            async move {
                match self.backend.commit(batch).await {
                    Ok(_) => claimed(row).map(Some),
                    Err(error) if is_gone(&error) => Ok(None),
                    Err(error) => Err(error),
                }
            }
        });
        let claims: Vec<Result<Option<Item>>> = futures::stream::iter(claims).buffered(PARALLEL).collect().await;
        claims.into_iter().filter_map(Result::transpose).collect()
    }

    fn claim_of(&self, row: &Row) -> Write {
        let until = value::timestamp(add(self.options.clock.now(), self.options.lease));
        let attempts = row.attempts.saturating_add(1);
        self.merge(&row.id, row.version, fields(json!({"due_at": until, "claimed_until": until, "attempts": attempts})))
    }

    fn merge(&self, id: &str, version: Version, fields: Fields) -> Write {
        Write::Merge { table: self.options.table.clone(), key: id.into(), fields, expect: Expect::Version(version) }
    }

    /// Removes what was sent, and notes of the rest when it is tried again, or that it is set aside.
    async fn settle(&self, outcomes: Vec<(Item, Outcome)>, now: DateTime<Utc>) -> Result<(Relayed, Option<Error>)> {
        let (mut done, mut away) = (Relayed::default(), None);
        let (mut sent, mut notes) = (Vec::new(), Vec::new());
        for (item, outcome) in outcomes {
            let note = match outcome {
                Outcome::Sent => {
                    done.sent += 1;
                    sent.push(item.id);
                    continue;
                }
                Outcome::NotNow(error) => {
                    done.waiting += 1;
                    let note = self.later(item.attempts, &error, now);
                    away.get_or_insert(error);
                    note
                }
                Outcome::Refused(error) if item.refusals.saturating_add(1) < self.options.max_refusals => {
                    done.refused += 1;
                    let refusals = item.refusals.saturating_add(1);
                    let mut note = self.later(refusals, &error, now);
                    note.insert("refusals".into(), refusals.into());
                    note
                }
                Outcome::Refused(error) => {
                    done.failed += 1;
                    aside(&error.to_string(), item.refusals.saturating_add(1), now)
                }
                Outcome::Late => {
                    done.failed += 1;
                    aside("its time to live was over before it could be sent", item.refusals, now)
                }
            };
            notes.push(self.merge(&item.id, item.version, note));
        }
        if !sent.is_empty() {
            self.outage.end();
        }
        self.forget(sent).await?;
        self.note(notes).await?;
        Ok((done, away))
    }

    fn later(&self, failures: u32, error: &Error, now: DateTime<Utc>) -> Fields {
        let backoff = Backoff::new(self.options.retry_first, self.options.retry_longest);
        let delay = backoff.delay_after(failures.saturating_sub(1)).max(error.retry_after().unwrap_or_default());
        let due = value::timestamp(add(now, delay));
        fields(json!({"due_at": due, "claimed_until": null, "error": excerpt(&error.to_string())}))
    }

    async fn note(&self, notes: Vec<Write>) -> Result<()> {
        let notes = notes.into_iter().map(|note| self.backend.commit(Batch::new().with(note)));
        let noted: Vec<_> = futures::stream::iter(notes).buffered(PARALLEL).collect().await;
        for outcome in noted {
            match outcome {
                Err(error) if !is_gone(&error) => return Err(error),
                // Somebody else has it by now.
                _ => {}
            }
        }
        Ok(())
    }
}

/// A row that was just claimed, as it stands now.
fn claimed(row: Row) -> Result<Item> {
    let mut item = row.into_item()?;
    item.version = item.version.next();
    item.attempts = item.attempts.saturating_add(1);
    Ok(item)
}

fn aside(why: &str, refusals: u32, now: DateTime<Utc>) -> Fields {
    let failed_at = value::timestamp(now);
    fields(json!({"due_at": null, "claimed_until": null, "failed_at": failed_at, "refusals": refusals, "error": excerpt(why)}))
}

fn excerpt(text: &str) -> String {
    text.chars().filter(|c| *c != '\0').take(MAX_ERROR).collect()
}

/// True where somebody else has the row, or has sent it.
fn is_gone(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Conflict | ErrorKind::NotFound)
}
