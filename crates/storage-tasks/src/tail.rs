//! Following events: see [`EventStore::tail`].

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use futures::stream::{BoxStream, StreamExt as _};
use storage_core::backoff::Backoff;
use storage_core::{Filter, Query, Result};
use tokio::sync::watch;
use tokio::time::Instant;
use uuid::Uuid;

use crate::event::{Event, EventFilter, EventStore};
use crate::ids::sortable;

/// How many events are read at a time.
const PAGE: u32 = 500;
/// How soon a tail looks again after it found nothing; doubles up to [`EventOptions::poll`](crate::EventOptions::poll).
const FIRST_POLL: Duration = Duration::from_millis(20);

/// Where a [tail](EventStore::tail) begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TailFrom {
    /// With the oldest event there is.
    Beginning,
    /// With the first event at this time or later.
    Since(DateTime<Utc>),
    /// With what comes from now on. What a program whose clock is behind this one's writes before the first look has ended is taken for what was there.
    Now,
}

/// What is being read, page by page.
struct Look {
    query: Query,
    /// For a look at the whole span: when it began.
    span: Option<DateTime<Utc>>,
}

struct Tail {
    store: EventStore,
    filter: EventFilter,
    settle: TimeDelta,
    /// Where the next look at the whole span begins: what becomes visible with an older id is too late.
    floor: Option<DateTime<Utc>>,
    /// The newest event seen whose time has come: one from the future must not hide those of now.
    newest: Option<Uuid>,
    /// What was seen with an id that a later look may find again.
    seen: BTreeSet<Uuid>,
    /// Until what was there before is known: what is older than this is noted, not handed out.
    silent_before: Option<Uuid>,
    look: Option<Look>,
    next_span: Instant,
    ready: VecDeque<Event>,
    written: watch::Receiver<u64>,
    backoff: Backoff,
    failed: bool,
}

pub(crate) fn follow(store: EventStore, filter: EventFilter, from: TailFrom) -> BoxStream<'static, Result<Event>> {
    let options = &store.inner.options;
    let settle = TimeDelta::from_std(options.settle).unwrap_or(TimeDelta::MAX);
    let floor = match from {
        TailFrom::Beginning => filter.since,
        TailFrom::Since(since) => Some(filter.since.map_or(since, |other| other.max(since))),
        TailFrom::Now => options.clock.now().checked_sub_signed(settle),
    };
    let tail = Tail {
        filter: EventFilter { since: None, ..filter },
        settle,
        floor,
        newest: None,
        seen: BTreeSet::new(),
        silent_before: (from == TailFrom::Now).then(|| sortable(options.clock.now(), 0)),
        look: None,
        next_span: Instant::now(),
        ready: VecDeque::new(),
        written: store.inner.written.subscribe(),
        backoff: Backoff::new(FIRST_POLL, options.poll.max(FIRST_POLL)),
        failed: false,
        store,
    };
    let events = futures::stream::unfold(tail, |mut tail| async move {
        let event = tail.next().await;
        Some((event, tail))
    });
    events.boxed()
}

impl Tail {
    async fn next(&mut self) -> Result<Event> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(event);
            }
            if std::mem::take(&mut self.failed) {
                tokio::time::sleep(self.backoff.next_delay()).await;
            }
            if let Err(error) = self.read().await {
                self.failed = true;
                return Err(error);
            }
        }
    }

    /// Reads a page, or waits where there is nothing new.
    async fn read(&mut self) -> Result<()> {
        // Noted before reading: what is written meanwhile ends the wait below at once.
        self.written.borrow_and_update();
        // A look that failed goes on with the page that it could not read.
        let look = match self.look.take() {
            Some(look) => look,
            None => self.begin()?,
        };
        let (events, token) = match self.store.inner.table.page(&look.query).await {
            Ok(page) => page,
            Err(error) => {
                self.look = Some(look);
                return Err(error);
            }
        };
        let found = self.take(events, look.span);
        match token {
            Some(token) => self.look = Some(Look { query: look.query.after(Some(token)), ..look }),
            None => {
                if let Some(begun) = look.span {
                    self.end_span(begun);
                }
                if found {
                    self.backoff.reset();
                } else {
                    self.wait().await;
                }
            }
        }
        Ok(())
    }

    fn begin(&self) -> Result<Look> {
        let (query, span) = if self.newest.is_none() || Instant::now() >= self.next_span {
            let filter = EventFilter { since: self.floor, ..self.filter.clone() };
            (self.store.query(&filter)?, Some(self.store.inner.options.clock.now()))
        } else {
            let query = self.store.query(&self.filter)?;
            let behind = self.newest.map(|newest| Filter::gt("id", newest.to_string())).transpose()?;
            (query.filter(behind.unwrap_or_default()), None)
        };
        Ok(Look { query: query.limit(PAGE), span })
    }

    /// Sorts out what was seen before. True where something is left.
    fn take(&mut self, events: Vec<Event>, span: Option<DateTime<Utc>>) -> bool {
        let now = self.store.inner.options.clock.now();
        let (present, oldest) = (sortable(now, u64::MAX), span.map(|begun| self.oldest_to_know(begun)));
        let mut found = false;
        for event in events {
            // What no later look can find again need not be noted: a tail from the beginning reads any number of events.
            let is_new = match oldest {
                Some(oldest) if event.id < oldest => !self.seen.contains(&event.id),
                _ => self.seen.insert(event.id),
            };
            if event.id <= present {
                self.newest = self.newest.max(Some(event.id));
            }
            if is_new && self.silent_before.is_none_or(|before| event.id >= before) {
                found = true;
                self.ready.push_back(event);
            }
        }
        found
    }

    /// The oldest id that the look after one begun at `begun` can find.
    fn oldest_to_know(&self, begun: DateTime<Utc>) -> Uuid {
        sortable(begun.checked_sub_signed(self.settle).unwrap_or_default(), 0)
    }

    /// What was visible before `begun` has been seen. What was not has, if it keeps to the promise, an id of `begun - settle` or later.
    fn end_span(&mut self, begun: DateTime<Utc>) {
        let oldest = self.oldest_to_know(begun);
        self.floor = begun.checked_sub_signed(self.settle).max(self.floor);
        self.seen = self.seen.split_off(&oldest);
        self.silent_before = None;
        let settle = self.store.inner.options.settle;
        self.next_span = Instant::now() + (settle / 4).min(self.store.inner.options.poll);
    }

    async fn wait(&mut self) {
        let delay = self.backoff.next_delay();
        tokio::select! {
            // The sender lives in the store, which lives here.
            _ = self.written.changed() => self.backoff.reset(),
            () = tokio::time::sleep(delay) => {}
        }
    }
}
