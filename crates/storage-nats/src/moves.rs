//! Messages that change their place: to the dead letters, home again, from the delayed to the living.
//!
//! A move stores a copy, then removes the original. The copy has a subject of its own, by the message's id, and is stored only where there is none: a move
//! that was cut off between the two steps is finished by whoever meets the original next, and makes no second copy.

use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use futures::StreamExt as _;
use storage_core::message::{RESERVED_ATTRIBUTE_PREFIX, dead};
use storage_core::{Error, QueueName, Result, value};

use crate::codec::Stored;
use crate::names::Lane;
use crate::open::Open;
use crate::pull::{self, Question, Raw};
use crate::settle::{self, Word};
use crate::store::Inner;

/// How many moves are under way at once.
const PARALLEL: usize = 256;
/// How long a message that could not be moved stays away.
const LATER: Duration = Duration::from_secs(30);

/// A message that has to leave the living.
#[derive(Debug)]
pub(crate) struct Doomed {
    pub(crate) raw: Raw,
    pub(crate) stored: Stored,
    pub(crate) reason: String,
    pub(crate) deliveries: u32,
}

/// Why a delivered message is to be a dead letter instead, if it is.
pub(crate) fn doom(open: &Open, lane: Lane, stored: &Stored, deliveries_before: u32) -> Option<&'static str> {
    if lane == Lane::Live && stored.is_expired(Utc::now()) {
        return Some(dead::EXPIRED);
    }
    open.cap(lane).is_some_and(|cap| deliveries_before >= cap).then_some(dead::MAX_DELIVERIES)
}

/// Stores the dead letter of a message. The original stays.
///
/// # Errors
/// It may have been stored.
pub(crate) async fn entomb(
    inner: &Inner,
    queue: &QueueName,
    open: &Open,
    stored: &Stored,
    sequence: u64,
    reason: &str,
    deliveries: u32,
) -> Result<()> {
    let mut letter = Stored { ttl: None, delay: Duration::ZERO, ..stored.clone() };
    for (name, value) in [
        (dead::REASON, reason.to_owned()),
        (dead::SOURCE, queue.to_string()),
        (dead::DELIVERIES, deliveries.to_string()),
        (dead::AT, value::timestamp(Utc::now())),
    ] {
        letter.attributes.insert(name.to_owned(), value);
    }
    let headers = letter.moved(Some(&format!("storage:dead:{sequence}")));
    inner.publish_once(open.names.dead(&letter.id), headers, letter.body).await.map(drop)
}

/// Makes dead letters. What can't be made one now stays away for a while and is tried again.
pub(crate) async fn bury(inner: &Inner, queue: &QueueName, open: &Open, doomed: Vec<Doomed>) {
    let bury = |doomed: Doomed| async move {
        let Doomed { raw, stored, reason, deliveries } = doomed;
        match entomb(inner, queue, open, &stored, raw.sequence, &reason, deliveries).await {
            Ok(()) => settle::say(&inner.client, &raw.reply, Word::Done).await,
            Err(error) => {
                settle::mention(&inner.client, &raw.reply, Word::In(LATER)).await;
                Err(error)
            }
        }
    };
    let burials: Vec<_> = doomed.into_iter().map(bury).collect();
    let mut burials = futures::stream::iter(burials).buffered(PARALLEL);
    while let Some(buried) = burials.next().await {
        if let Err(error) = buried {
            tracing::warn!(%queue, %error, "can't make a dead letter now");
        }
    }
}

/// Stores a message among the living, and says that its original is done.
///
/// # Errors
/// It may have been stored; the original is there.
pub(crate) async fn bring(inner: &Inner, open: &Open, raw: &Raw, stored: Stored, why: &str) -> Result<()> {
    let headers = stored.moved(Some(&format!("storage:{why}:{}", raw.sequence)));
    inner.publish_once(open.names.live(&stored.id), headers, stored.body).await?;
    settle::say(&inner.client, &raw.reply, Word::Done).await
}

/// Sends dead letters home. Answers how many.
///
/// # Errors
/// Where not one could be.
pub(crate) async fn redrive(inner: &Arc<Inner>, open: &Open, max: u32) -> Result<u64> {
    let _active = inner.enter();
    let consumer = open.names.consumer(Lane::Dead);
    let (mut home, mut bytes) = (0_u64, 0);
    while home < u64::from(max) {
        let left = usize::try_from(u64::from(max) - home).unwrap_or(usize::MAX);
        let question = Question {
            stream: &open.names.stream,
            consumer: &consumer,
            batch: open.batch(left.min(PARALLEL), bytes),
            wait: None,
        };
        let pulled = pull::pull(&inner.client, &question, std::future::pending()).await?;
        let found = pulled.messages.len();
        let mut failure = None;
        let go = |raw: Raw| async move {
            let mut stored = crate::receive::read(&raw);
            stored.attributes.retain(|name, _| !name.starts_with(RESERVED_ATTRIBUTE_PREFIX));
            let gone = bring(inner, open, &raw, Stored { ttl: None, delay: Duration::ZERO, ..stored }, "home").await;
            if gone.is_err() {
                settle::mention(&inner.client, &raw.reply, Word::Again).await;
            }
            gone
        };
        bytes += pulled.messages.iter().map(|raw| raw.body.len()).sum::<usize>();
        let going: Vec<_> = pulled.messages.into_iter().map(go).collect();
        let mut going = futures::stream::iter(going).buffered(PARALLEL);
        while let Some(gone) = going.next().await {
            match gone {
                Ok(()) => home += 1,
                Err(error) => failure = Some(error),
            }
        }
        match failure {
            Some(error) if home == 0 => return Err(error),
            Some(_) => break,
            None if pulled.exhausted || found == 0 => break,
            None => {}
        }
    }
    Ok(home)
}

/// The message of a lease, which is then to be moved.
///
/// # Errors
/// [`LeaseLost`](storage_core::ErrorKind::LeaseLost) where it is gone.
pub(crate) async fn fetch(inner: &Inner, open: &Open, sequence: u64) -> Result<Stored> {
    let found = crate::admin::get(inner, &open.names, &serde_json::json!({"seq": sequence})).await?;
    found.ok_or_else(|| Error::lease_lost("the message is gone: it was removed or purged"))
}
