//! Receiving.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::StreamExt as _;
use storage_core::clock::add;
use storage_core::{Delivery, Error, ErrorKind, Message, Receive, Result};

use crate::admin;
use crate::client::{MOST, Raw};
use crate::held::Held;
use crate::moves;
use crate::receipt::{Claim, Kind};
use crate::store::{Found, Lane, Store, What, in_seconds};
use crate::text::Head;

/// How often a call that does not wait any more looks again behind messages that are not to be delivered.
const MOST_LOOKS: usize = 64;
/// How many bytes one call receives at about most.
const MAX_TAKEN: usize = 64 << 20;

/// What one look brought.
struct Taken {
    deliveries: Vec<Delivery>,
    /// Some were there that are not to be delivered.
    others: bool,
    /// There were as many as were asked for.
    all: bool,
}

impl Taken {
    fn what(&self) -> What {
        match self {
            Self { all: true, .. } => What::All,
            Self { others: false, deliveries, .. } if deliveries.is_empty() => What::Nothing,
            _ => What::Some,
        }
    }
}

pub(crate) async fn receive(store: &Arc<Store>, lane: &Lane, request: &Receive) -> Result<Vec<Delivery>> {
    let visibility = in_seconds("visibility", request.visibility)?;
    let deadline = Instant::now() + request.wait;
    let queue = lane.queue()?;
    let mut closing = store.closing();
    let mut looks = 0;
    loop {
        looks += 1;
        if store.open.is_closed() {
            return Ok(Vec::new());
        }
        let at_once = if store.was_full(&queue) { store.concurrency } else { 1 };
        let taken = take(store, lane, request.max, visibility, at_once).await?;
        let idle = store.note_found(&queue, taken.what());
        let left = deadline.saturating_duration_since(Instant::now());
        if !taken.deliveries.is_empty() || (left.is_zero() && (!taken.others || looks >= MOST_LOOKS)) {
            return Ok(taken.deliveries);
        }
        if taken.others {
            // There may be better ones behind them.
            continue;
        }
        tokio::select! {
            () = tokio::time::sleep(pause(store.poll, idle).min(left)) => {}
            _ = closing.wait_for(|closing| *closing) => {}
        }
    }
}

/// How long to wait after a queue was found empty so often in a row: from a tenth of `longest` to all of it.
fn pause(longest: Duration, times: u32) -> Duration {
    (longest / 10).saturating_mul(1 << times.saturating_sub(1).min(10)).min(longest)
}

/// What several requests at once brought.
struct Wave {
    found: Vec<Found>,
    /// None came back with less than was asked for: there may be more.
    full: bool,
    failure: Option<Error>,
}

/// One request or several at once, then ever more, as long as they come back full.
async fn take(store: &Arc<Store>, lane: &Lane, max: u32, visibility: u32, at_once: usize) -> Result<Taken> {
    let cap = if lane.dead { None } else { admin::spec(store, &lane.source).await?.max_deliveries };
    let until = add(Utc::now(), Duration::from_secs(visibility.into()));
    let mut taken = Taken { deliveries: Vec::new(), others: false, all: false };
    let (mut wanted, mut requests, mut bytes) = (max, at_once, 0);
    let failure = loop {
        let Wave { found, full, mut failure } = ask(store, lane, wanted, requests, visibility).await;
        wanted = wanted.saturating_sub(u32::try_from(found.len()).unwrap_or(u32::MAX));
        for outcome in judge_all(store, lane, found, cap, until).await {
            match outcome {
                Ok(Some(delivery)) => {
                    bytes += delivery.message.body.len();
                    taken.deliveries.push(delivery);
                }
                Ok(None) => taken.others = true,
                Err(error) => failure = Some(error),
            }
        }
        taken.all = full;
        if failure.is_some() || !full || wanted == 0 || bytes >= MAX_TAKEN {
            break failure;
        }
        requests = (requests * 2).min(store.concurrency);
    };
    match failure {
        // What is leased already is not to be lost for what failed.
        Some(error) if !taken.deliveries.is_empty() => {
            tracing::warn!(queue = lane.there, %error, "received fewer messages than there are");
            Ok(taken)
        }
        Some(error) => Err(error),
        None => Ok(taken),
    }
}

/// Asks for up to `wanted` messages with up to so many requests at once.
async fn ask(store: &Store, lane: &Lane, wanted: u32, requests: usize, visibility: u32) -> Wave {
    let mut wave = Wave { found: Vec::new(), full: true, failure: None };
    let shares = (0..wanted).step_by(MOST as usize).take(requests).map(|before| (wanted - before).min(MOST));
    let calls: Vec<_> = shares.map(|share| fetch(store, lane, share, visibility)).collect();
    let mut answers = futures::stream::iter(calls).buffered(requests.max(1));
    while let Some(answer) = answers.next().await {
        match answer {
            Ok((raw, share)) => {
                wave.full &= raw.len() == share as usize;
                wave.found.extend(raw.into_iter().map(|raw| store.read(raw)));
            }
            Err(error) => wave.failure = Some(error),
        }
    }
    wave
}

async fn fetch(store: &Store, lane: &Lane, share: u32, visibility: u32) -> Result<(Vec<Raw>, u32)> {
    let receive = || store.client.receive(&lane.there, share, visibility);
    Ok((admin::with_companion(store, lane, receive).await?, share))
}

/// Delivers messages, or makes dead letters of those that are not to be delivered any more.
async fn judge_all(
    store: &Arc<Store>,
    lane: &Lane,
    found: Vec<Found>,
    cap: Option<u32>,
    until: DateTime<Utc>,
) -> Vec<Result<Option<Delivery>>> {
    let judged: Vec<_> = found
        .into_iter()
        .map(|found| async move {
            match moves::sentence(&found, cap).filter(|_| !lane.dead) {
                Some((reason, deliveries)) => bury(store, lane, found, reason, deliveries).await,
                None => deliver(store, lane, found, until).await,
            }
        })
        .collect();
    futures::stream::iter(judged).buffered(store.concurrency).collect().await
}

/// Does it wholly, also where the receiver goes away.
async fn bury(store: &Arc<Store>, lane: &Lane, found: Found, reason: String, deliveries: u32) -> Result<Option<Delivery>> {
    let (store, lane) = (Arc::clone(store), lane.clone());
    uninterrupted(async move {
        match moves::bury(&store, &lane, &found, &reason, deliveries).await {
            // Somebody else has it by now, or it comes back when its lease ends.
            Err(error) => tracing::warn!(queue = lane.there, message = found.id, %error, "can't make a dead letter now"),
            Ok(()) => tracing::debug!(queue = lane.there, message = found.id, reason, "made a dead letter"),
        }
        Ok(None)
    })
    .await
}

async fn deliver(store: &Arc<Store>, lane: &Lane, found: Found, until: DateTime<Utc>) -> Result<Option<Delivery>> {
    let body = match body(store, lane, &found).await {
        Ok(body) => body,
        Err(error) if error.kind() == ErrorKind::Corrupt => {
            let deliveries = found.received;
            return bury(store, lane, found, error.message().to_owned(), deliveries).await;
        }
        Err(error) => return Err(error),
    };
    let kind = match &found.content.head.spilled {
        Some(spilled) => Kind::Spilled(spilled.blob),
        None if found.content.head == Head::default() => Kind::Plain,
        None => Kind::Enveloped,
    };
    let claim = Claim {
        queue: lane.there.clone(),
        message: found.id.clone(),
        pop: found.pop.clone(),
        deliveries: found.received,
        until,
        kind,
    };
    let message = found.message(body);
    store.hand.keep(found.id, Held { content: found.content, inserted: found.inserted, until });
    Ok(Some(Delivery { message, receipt: claim.receipt(), leased_until: until }))
}

/// The body of a message, wherever it is.
async fn body(store: &Store, lane: &Lane, found: &Found) -> Result<Bytes> {
    match (found.content.head.spilled, &store.spill) {
        (None, _) => Ok(found.content.body.clone()),
        (Some(spilled), Some(spill)) => match spill.get(&lane.home, spilled).await {
            // That may be what it died of.
            Err(error) if error.kind() == ErrorKind::Corrupt && lane.dead => {
                tracing::warn!(queue = lane.there, %error, "a dead letter without its body");
                Ok(Bytes::new())
            }
            body => body,
        },
        (Some(_), None) => Err(Error::config(format!(
            "the body of message {} is in a blob: open the queues with the blob store that its sender spills to",
            found.first_id()
        ))),
    }
}

/// Those that are ready, as far as one request shows them.
pub(crate) async fn peek(store: &Store, lane: &Lane, max: u32) -> Result<Vec<Message>> {
    let cap = if lane.dead { None } else { admin::spec(store, &lane.source).await?.max_deliveries };
    let raw = admin::with_companion(store, lane, || store.client.peek(&lane.there, max.min(MOST))).await?;
    let mut messages = Vec::with_capacity(raw.len());
    for raw in raw {
        let found = store.read(raw);
        if lane.dead || !moves::is_doomed(&found, cap) {
            let body = body(store, lane, &found).await?;
            messages.push(found.message(body));
        }
    }
    Ok(messages)
}

/// Does all of it, also where the caller goes away.
pub(crate) async fn uninterrupted<T: Send + 'static>(work: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
    tokio::spawn(work).await.map_err(|e| Error::internal("a task ended before its time").with_source(e))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_queue_is_asked_less_and_less() {
        let longest = Duration::from_secs(1);
        let pauses: Vec<u128> = [1, 2, 3, 4, 5, 6, 1_000].map(|times| pause(longest, times).as_millis()).into();
        assert_eq!(pauses, [100, 200, 400, 800, 1_000, 1_000, 1_000]);
    }
}
