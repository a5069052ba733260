//! Delayed messages.
//!
//! They lie under a subject of their own, and have a consumer. Whoever receives from the queue also looks here: one that is not due is given back to
//! the server with the rest of its delay, one that is due goes to the living. So their deliveries there count from the first.
//!
//! When a message is due is reckoned from the server's time of storing it, on the clock of whoever looks.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use chrono::Utc;
use futures::StreamExt as _;
use storage_core::{ErrorKind, Result};

use crate::moves;
use crate::open::Open;
use crate::pull::{self, Question, Raw};
use crate::receive;
use crate::settle::{self, Word};
use crate::store::Inner;

/// How many are looked at in one go.
const BATCH: usize = 256;
/// How long the server is asked to wait for one that is due.
const SLICE: Duration = Duration::from_secs(2);
/// How long to go on looking after a receive ended: the next one mostly follows at once.
const LINGER: Duration = Duration::from_secs(1);
/// Never too soon, although clocks are read in between.
const MARGIN: Duration = Duration::from_millis(2);

/// Until when somebody looks for delayed messages of a queue, and whether a task does so.
#[derive(Debug, Default)]
pub(crate) struct Watch(Mutex<Option<Instant>>);

impl Watch {
    /// Takes note that somebody receives until then. True: a task has to be started.
    fn prolong(&self, until: Instant) -> bool {
        let mut watched = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let start = watched.is_none();
        *watched = Some(watched.map_or(until, |before| before.max(until)));
        start
    }

    /// True while somebody receives. Once false, the task is over.
    fn goes_on(&self) -> bool {
        let mut watched = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let goes_on = watched.is_some_and(|until| until > Instant::now());
        if !goes_on {
            *watched = None;
        }
        goes_on
    }

    fn end(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// Looks for delayed messages in the background, while receives go on until `until`.
pub(crate) fn watch(inner: &Arc<Inner>, open: &Arc<Open>, until: Instant) {
    if !open.later.prolong(until + LINGER) {
        return;
    }
    let (inner, open) = (Arc::clone(inner), Arc::clone(open));
    tokio::spawn(async move {
        let _active = inner.enter();
        let mut closing = inner.closing();
        while open.later.goes_on() {
            let looked = wait_and_look(&inner, &open).await;
            if *closing.borrow() {
                return open.later.end();
            }
            if let Err(error) = looked {
                // The receive itself says so, if it is more than a pause.
                tracing::debug!(%error, "can't look for delayed messages");
                if error.kind() == ErrorKind::NotFound {
                    return open.later.end();
                }
                let pause = tokio::time::sleep(Duration::from_millis(200));
                tokio::select! {
                    () = pause => {}
                    _ = closing.wait_for(|closing| *closing) => {}
                }
            }
        }
    });
}

/// Waits for a delayed message, and looks at what came with it.
async fn wait_and_look(inner: &Arc<Inner>, open: &Open) -> Result<()> {
    let first = fetch(inner, open, 1, Some(SLICE)).await?;
    if !first.is_empty() {
        sort_out(inner, open, first).await;
        look(inner, open).await?;
    }
    Ok(())
}

/// Looks for delayed messages that are there. Answers how many came to the living.
///
/// # Errors
/// The server's.
pub(crate) async fn look(inner: &Arc<Inner>, open: &Open) -> Result<usize> {
    let fetched = fetch(inner, open, open.batch(BATCH, 0), None).await?;
    Ok(sort_out(inner, open, fetched).await)
}

async fn fetch(inner: &Arc<Inner>, open: &Open, batch: usize, wait: Option<Duration>) -> Result<Vec<Raw>> {
    let consumer = open.names.later_consumer();
    let question = Question { stream: &open.names.stream, consumer: &consumer, batch, wait };
    let mut closing = inner.closing();
    let stop = async move { drop(closing.wait_for(|closing| *closing).await) };
    Ok(pull::pull(&inner.client, &question, stop).await?.messages)
}

/// Answers how many came to the living.
async fn sort_out(inner: &Inner, open: &Open, fetched: Vec<Raw>) -> usize {
    let settled: Vec<_> = fetched.into_iter().map(|raw| due(inner, open, raw)).collect();
    let mut settled = futures::stream::iter(settled).buffered(BATCH);
    let mut brought = 0;
    while let Some(was_due) = settled.next().await {
        brought += usize::from(was_due);
    }
    brought
}

/// Brings a message to the living if it is due; else gives it back until it is.
async fn due(inner: &Inner, open: &Open, raw: Raw) -> bool {
    let stored = receive::read(&raw);
    let left = (stored.due_at() - Utc::now()).to_std().unwrap_or_default();
    if !left.is_zero() {
        settle::mention(&inner.client, &raw.reply, Word::In(left + MARGIN)).await;
        return false;
    }
    // What it was delayed by is over; what it is good for is not.
    let stored = crate::codec::Stored { delay: Duration::ZERO, ..stored };
    match moves::bring(inner, open, &raw, stored, "due").await {
        Ok(()) => true,
        Err(error) => {
            tracing::warn!(%error, "can't bring a delayed message to the others now");
            settle::mention(&inner.client, &raw.reply, Word::In(LINGER)).await;
            false
        }
    }
}
