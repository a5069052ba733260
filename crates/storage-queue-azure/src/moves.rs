//! Dead letters, there and back.
//!
//! The service moves nothing: a message is sent anew and the old one removed. A message that is to die is first rewritten where it is, with the reason:
//! from then on nobody delivers it, and whoever receives it carries on. A crash between the copy and the removal makes one dead letter too many, never one
//! too few.

use std::sync::Arc;

use chrono::{SecondsFormat, Utc};
use futures::StreamExt as _;
use storage_core::message::dead;
use storage_core::{Error, ErrorKind, Result};

use crate::admin;
use crate::client::MOST;
use crate::error::code;
use crate::store::{Found, Lane, Store};
use crate::text::Content;

/// How long a move may take, in seconds, before somebody else may carry it on.
const MOVING: u32 = 120;
/// The least that is left of a reason, in bytes.
const LEAST_REASON: usize = 16;

/// Why a message that was just received is not to be delivered, and how often it was delivered before.
pub(crate) fn sentence(found: &Found, cap: Option<u32>) -> Option<(String, u32)> {
    let before = found.received.saturating_sub(1);
    if let Some(reason) = found.content.dead_reason() {
        // Somebody has begun to move it.
        let noted = found.content.head.attributes.get(dead::DELIVERIES).and_then(|n| n.parse().ok());
        return Some((reason.to_owned(), noted.unwrap_or(before)));
    }
    if cap.is_some_and(|cap| before >= cap) {
        return Some((dead::MAX_DELIVERIES.to_owned(), before));
    }
    is_expired(&found.content).then(|| (dead::EXPIRED.to_owned(), before))
}

/// True where nobody will get the message any more, which was only looked at.
pub(crate) fn is_doomed(found: &Found, cap: Option<u32>) -> bool {
    let next = Found { received: found.received.saturating_add(1), ..found.clone() };
    sentence(&next, cap).is_some()
}

/// Why a message that was delivered so often is not delivered once more when it is given back.
pub(crate) fn doom(content: &Content, deliveries: u32, cap: Option<u32>) -> Option<&'static str> {
    if cap.is_some_and(|cap| deliveries >= cap) {
        return Some(dead::MAX_DELIVERIES);
    }
    is_expired(content).then_some(dead::EXPIRED)
}

fn is_expired(content: &Content) -> bool {
    content.head.expires.is_some_and(|expires| expires <= Utc::now())
}

/// Makes a leased message a dead letter.
///
/// # Errors
/// [`LeaseLost`](ErrorKind::LeaseLost) where the lease is not the newest.
pub(crate) async fn bury(store: &Store, lane: &Lane, found: &Found, reason: &str, deliveries: u32) -> Result<()> {
    let epitaph = epitaph(store, lane, found, reason, deliveries);
    let pop = store.client.update(&lane.there, (&found.id, &found.pop), MOVING, epitaph.as_deref()).await?;
    let text = match epitaph {
        Some(text) => text,
        None => {
            tracing::warn!(queue = %lane.source, message = found.id, reason, "a dead letter has no room for its reason");
            verbatim(store, found)?
        }
    };
    store.hand.remove(&found.id);
    let companion = store.companion(lane)?;
    admin::with_companion(store, &companion, || store.client.send(&companion.there, &text, 0)).await?;
    finish(store, lane, &found.id, &pop).await
}

fn verbatim(store: &Store, found: &Found) -> Result<String> {
    let text = found.content.verbatim(store.encoding);
    text.ok_or_else(|| Error::corrupt(format!("message {} can't be written as it was read", found.id)))
}

/// Removes what was moved.
async fn finish(store: &Store, lane: &Lane, message: &str, pop: &str) -> Result<()> {
    match store.client.delete(&lane.there, (message, pop)).await {
        Err(refusal) if refusal.kind() == ErrorKind::LeaseLost => {
            if !refusal.is(code::NO_MESSAGE) {
                tracing::warn!(queue = lane.there, message, "a message took so long to move that it may be there twice");
            }
            Ok(())
        }
        outcome => outcome.map_err(Into::into),
    }
}

/// The text of a dead letter. `None` where there is no room, which is so of the largest messages of other programs alone.
fn epitaph(store: &Store, lane: &Lane, found: &Found, reason: &str, deliveries: u32) -> Option<String> {
    let mut content = found.content.clone();
    content.head.id = Some(found.first_id().to_owned());
    content.head.was = (found.id != found.first_id()).then(|| found.id.clone());
    content.head.sent = Some(found.sent_at());
    content.head.expires = None;
    let at = Utc::now().to_rfc3339_opts(SecondsFormat::Micros, true);
    for (name, value) in [(dead::SOURCE, lane.source.to_string()), (dead::DELIVERIES, deliveries.to_string()), (dead::AT, at)] {
        content.head.attributes.entry(name.to_owned()).or_insert(value);
    }
    let mut reason = reason;
    loop {
        content.head.attributes.insert(dead::REASON.to_owned(), reason.to_owned());
        if let Some(text) = content.squeeze(store.encoding) {
            return Some(text);
        }
        if reason.len() <= LEAST_REASON {
            return None;
        }
        // Its end says the most.
        let mut start = reason.len() / 2;
        while !reason.is_char_boundary(start) {
            start += 1;
        }
        reason = &reason[start..];
    }
}

/// Sends up to `max` dead letters home. Answers how many.
pub(crate) async fn redrive(store: &Arc<Store>, lane: &Lane, max: u32) -> Result<u64> {
    let companion = store.companion(lane)?;
    let mut left = max;
    let mut sent = 0;
    while left > 0 {
        let wanted = left.min(MOST);
        let receive = || store.client.receive(&companion.there, wanted, MOVING);
        let taken = match admin::with_companion(store, &companion, receive).await {
            Ok(taken) => taken,
            Err(refusal) => return outcome(sent, refusal.into()),
        };
        if taken.is_empty() {
            break;
        }
        left -= u32::try_from(taken.len()).unwrap_or(left).min(left);
        let homeward: Vec<_> = taken.into_iter().map(|raw| send_home(store, lane, &companion, store.read(raw))).collect();
        let moved: Vec<_> = futures::stream::iter(homeward).buffered(MOST as usize).collect().await;
        let mut failure = None;
        for moved in moved {
            match moved {
                Ok(()) => sent += 1,
                Err(error) => failure = Some(error),
            }
        }
        if let Some(error) = failure {
            return outcome(sent, error);
        }
    }
    Ok(sent)
}

/// What was done is told; what failed comes again.
fn outcome(sent: u64, error: Error) -> Result<u64> {
    if sent == 0 {
        return Err(error);
    }
    tracing::warn!(%error, sent, "could not send all dead letters home");
    Ok(sent)
}

async fn send_home(store: &Store, lane: &Lane, companion: &Lane, found: Found) -> Result<()> {
    let mut content = found.content.clone().revived();
    content.head.id = Some(found.first_id().to_owned());
    content.head.was = None;
    content.head.sent = Some(found.sent_at());
    // One that had no room for a reason has none for its id either.
    let text = content.squeeze(store.encoding).map_or_else(|| verbatim(store, &found), Ok)?;
    let sent = store.client.send(&lane.there, &text, 0).await;
    if let Err(refusal) = sent {
        // It need not wait for the end of its lease.
        drop(store.client.update(&companion.there, (&found.id, &found.pop), 0, None).await);
        return Err(refusal.into());
    }
    finish(store, companion, &found.id, &found.pop).await
}
